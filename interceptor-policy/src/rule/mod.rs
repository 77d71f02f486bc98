//! Rules: YAML as written (private) to the checked form (public).
//!
//! Reading never stops at the first fault, and never lets one pass: a rule with
//! a field that is unknown, or known and not built yet, is refused with its
//! file, so that nothing an operator wrote is silently left out.

mod matches;
mod reader;
mod tests;
mod written;
mod yaml;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Subject;
use crate::diagnostic::{At, Diagnostics, Report};
use crate::mask::MaskEntry;
use crate::matcher::postgres::PgMatch;
use crate::matcher::session::SessionMatch;
use crate::scope::Scope;
use crate::testing::TestCase;
use crate::verdict::{RecordLevel, Severity};

/// One rule file, read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it was read from, for messages.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// All rules in force, checked.
#[derive(Debug)]
pub struct RuleSet {
    digest: String,
    rules: Vec<Arc<Rule>>,
    tests: Vec<TestCase>,
    warnings: Diagnostics,
}

/// One rule, checked.
#[derive(Debug)]
pub struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) description: Option<String>,
    pub(crate) path: PathBuf,
    pub(crate) at: At,
    pub(crate) matches: Match,
    pub(crate) unless: Option<Match>,
    pub(crate) verdict: Option<RuleVerdict>,
    /// What the client is told when it refuses.
    pub(crate) message: Arc<str>,
    pub(crate) masks: Vec<MaskEntry>,
    pub(crate) risk: u32,
    pub(crate) record: Option<RecordLevel>,
    pub(crate) severity: Option<Severity>,
    pub(crate) observe: bool,
}

/// A `match`, or an `unless`: a conjunction.
#[derive(Debug, Default)]
pub(crate) struct Match {
    pub(crate) session: SessionMatch,
    /// `None`: it says nothing of statements, and holds for any operation.
    pub(crate) postgres: Option<PgMatch>,
}

/// The verdict that a rule gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleVerdict {
    /// Let it pass.
    Allow,
    /// Refuse this exchange.
    Block,
    /// End the session.
    Kill,
}

impl RuleVerdict {
    /// The name that rules use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
            Self::Kill => "kill",
        }
    }
}

impl Rule {
    /// Its name, unique in the set.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it is for, in the operator's words.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The file it stands in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line it starts in.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.at.line
    }

    /// The verdict it gives, if any.
    #[must_use]
    pub fn verdict(&self) -> Option<RuleVerdict> {
        self.verdict
    }

    /// Whether it masks.
    #[must_use]
    pub fn masks(&self) -> bool {
        !self.masks.is_empty()
    }

    /// Whether it only records what it would have done.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.observe
    }

    /// Whether it has an effect that makes things stricter, and so applies
    /// wherever its match *may* hold.
    pub(crate) fn tightens(&self) -> bool {
        matches!(self.verdict, Some(RuleVerdict::Block | RuleVerdict::Kill))
            || self.masks()
            || self.risk > 0
            || self.severity.is_some()
            || self.record == Some(RecordLevel::Full)
    }

    /// Whether it has an effect that makes things milder, and so applies only
    /// where its match *must* hold.
    pub(crate) fn loosens(&self) -> bool {
        self.verdict == Some(RuleVerdict::Allow)
            || self.record.is_some_and(|level| level < RecordLevel::Full)
    }
}

impl RuleSet {
    /// Reads and checks rule files.
    ///
    /// # Errors
    /// Everything that is wrong with them, warnings included, when anything
    /// refuses them.
    pub fn load(sources: &[Source]) -> Result<Self, Diagnostics> {
        // By path, so that what hangs on order (whose name a refusal carries
        // when two rules refuse) does not hang on how a folder was listed.
        let mut sources: Vec<&Source> = sources.iter().collect();
        sources.sort_by(|a, b| a.path.cmp(&b.path));

        let mut faults = Diagnostics::default();
        let mut rules = Vec::new();
        let mut tests = Vec::new();
        for source in &sources {
            let report = Report::new(&source.path, &source.text, &mut faults);
            let (more_rules, more_tests) = written::file(source, report);
            rules.extend(more_rules.into_iter().map(Arc::new));
            tests.extend(more_tests);
        }
        let text_of = |path: &Path| {
            sources
                .iter()
                .find(|source| source.path == path)
                .map_or("", |source| source.text.as_str())
        };
        names_are_unique(&rules, text_of, &mut faults);
        // With a broken file, a rule that a test expects may merely not have
        // been read.
        if faults.errors() == 0 {
            tests_name_rules(&tests, &rules, text_of, &mut faults);
        }
        faults.sort();
        if faults.errors() > 0 {
            return Err(faults);
        }
        Ok(Self {
            digest: digest(&sources),
            rules,
            tests,
            warnings: faults,
        })
    }

    /// BLAKE3 over the files' names and texts, hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The rules, in the order of files and lines.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The files' inline tests.
    #[must_use]
    pub fn tests(&self) -> &[TestCase] {
        &self.tests
    }

    /// What is probably not meant, though it can be enforced.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// The rules that can apply to one session.
    #[must_use]
    pub fn scope(self: &Arc<Self>, subject: &Subject) -> Scope {
        Scope::new(self, subject)
    }
}

fn digest(sources: &[&Source]) -> String {
    let mut hasher = blake3::Hasher::new();
    for source in sources {
        // Lengths first, so that no two sets of files read as one stream.
        let path = source.path.as_os_str().as_encoded_bytes();
        for part in [path, source.text.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().to_hex().to_string()
}

fn names_are_unique<'s>(
    rules: &[Arc<Rule>],
    text_of: impl Fn(&Path) -> &'s str,
    faults: &mut Diagnostics,
) {
    let mut seen: HashMap<&str, &Rule> = HashMap::new();
    for rule in rules {
        if let Some(first) = seen.insert(&rule.name, rule) {
            Report::new(&rule.path, text_of(&rule.path), faults).error(
                rule.at,
                format!("a second rule named `{}`", rule.name),
                Some(format!(
                    "the first is at {}:{}; names are unique over all files",
                    first.path.display(),
                    first.at.line
                )),
            );
        }
    }
}

fn tests_name_rules<'s>(
    tests: &[TestCase],
    rules: &[Arc<Rule>],
    text_of: impl Fn(&Path) -> &'s str,
    faults: &mut Diagnostics,
) {
    for test in tests {
        let Some((name, at)) = &test.expect.rule else {
            continue;
        };
        if rules.iter().any(|rule| &*rule.name == name.as_str()) {
            continue;
        }
        let help = crate::diagnostic::nearest(name, rules.iter().map(|rule| &*rule.name));
        Report::new(&test.path, text_of(&test.path), faults).error(
            *at,
            format!("the test expects a rule that does not exist: `{name}`"),
            help,
        );
    }
}
