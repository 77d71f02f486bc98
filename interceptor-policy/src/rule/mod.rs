//! Rules: YAML as written (private) to the checked form (public).
//!
//! Reading never stops at the first fault, and never lets one pass: a rule with
//! a field that is unknown, or known and not built yet, is refused with its
//! file, so that nothing an operator wrote is silently left out.

mod circumstances;
mod effects;
mod http;
mod masks;
mod matches;
mod postgres;
mod reader;
mod risk;
mod samples;
mod shadow;
mod ssh;
mod tests;
mod units;
mod written;
mod yaml;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use risk::{Risk, Threshold};
pub(crate) use units::spoken;

use crate::approval::Approval;
use crate::diagnostic::{At, Diagnostics, Report};
use crate::mask::MaskEntry;
use crate::matcher::circumstances::{Asks, CircumstanceField, CircumstanceMatch};
use crate::matcher::expression::Expression;
use crate::matcher::history::Trace;
use crate::matcher::http::HttpMatch;
use crate::matcher::postgres::{PgField, PgMatch};
use crate::matcher::session::SessionMatch;
use crate::matcher::ssh::SshMatch;
use crate::scope::{Index, Scope};
use crate::testing::TestCase;
use crate::verdict::{Limits, RecordLevel, Severity};
use crate::{Protocol, Subject};

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
    risk: Risk,
    index: Index,
    /// Rules that some `after` asks for.
    traced: HashSet<Arc<str>>,
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
    pub(crate) http: HttpAsks,
    pub(crate) verdict: Option<RuleVerdict>,
    /// With `kill`: for how long the principal may have no session.
    pub(crate) ban: Option<Duration>,
    /// Of a rule that holds, and of no other.
    pub(crate) approval: Option<Arc<Approval>>,
    /// What the client is told when it refuses or holds.
    pub(crate) message: Arc<str>,
    pub(crate) masks: Vec<MaskEntry>,
    pub(crate) limits: Limits,
    pub(crate) tags: Vec<Arc<str>>,
    pub(crate) risk: u32,
    pub(crate) record: Option<RecordLevel>,
    pub(crate) severity: Option<Severity>,
    pub(crate) observe: bool,
    /// Whether it blocks where the catalog does not say which tables those are
    /// that its own names may be.
    pub(crate) unresolved: bool,
    /// Whether it blocks what chooses rows by a column that it masks.
    pub(crate) masked_in_predicate: bool,
    /// As it is written, to be compared with others.
    written: shadow::Written,
}

/// A `match`, or an `unless`: a conjunction.
#[derive(Debug, Default)]
pub(crate) struct Match {
    pub(crate) session: SessionMatch,
    /// `None`: it says nothing of statements, and holds for any operation.
    pub(crate) postgres: Option<PgMatch>,
    /// `None`: it says nothing of requests.
    pub(crate) http: Option<HttpMatch>,
    /// `None`: it says nothing of SSH.
    pub(crate) ssh: Option<SshMatch>,
    /// Asked last: what may be otherwise at the next exchange.
    pub(crate) circumstances: CircumstanceMatch,
}

impl Match {
    /// Whether it names tables or columns.
    pub(crate) fn names_tables(&self) -> bool {
        self.postgres
            .as_ref()
            .is_some_and(|postgres| postgres.fields.iter().any(PgField::names_tables))
    }

    /// Whether it could hold for something of a protocol.
    fn can_be(&self, protocol: Protocol) -> bool {
        let fields = [
            (self.postgres.is_some(), Protocol::Postgres),
            (self.http.is_some(), Protocol::Http),
            (self.ssh.is_some(), Protocol::Ssh),
        ];
        let mut others = fields.iter().filter(|(_, of)| *of != protocol);
        others.all(|(there, _)| !there) && self.session.can_be(protocol)
    }

    /// Whether it asks for nothing that a request of HTTP has not.
    pub(crate) const fn can_be_of_http(&self) -> bool {
        self.postgres.is_none() && self.ssh.is_none()
    }

    /// Whether it asks for fields of a protocol.
    pub(crate) const fn asks_of_protocol(&self) -> bool {
        self.postgres.is_some() || self.http.is_some() || self.ssh.is_some()
    }

    /// Whether it asks for a response.
    fn asks_response(&self) -> bool {
        self.http.as_ref().is_some_and(HttpMatch::asks_response)
            || self
                .circumstances
                .expressions()
                .any(Expression::asks_response)
    }
}

/// What of an HTTP exchange a rule asks for, which says when it is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HttpAsks {
    /// Its match or its `unless` asks for the response: it is asked when that is
    /// there, and not before.
    pub(crate) response: bool,
    /// Either asks for the body: it is asked of each message of a WebSocket.
    pub(crate) body: bool,
    /// It is of WebSockets: of their messages alone, if it asks for the body.
    pub(crate) websocket: bool,
}

impl HttpAsks {
    fn of(matches: &Match, unless: Option<&Match>) -> Self {
        let parts = || [Some(matches), unless].into_iter().flatten();
        let body = |part: &Match| part.http.as_ref().is_some_and(HttpMatch::asks_body);
        Self {
            response: parts().any(Match::asks_response),
            body: parts().any(body),
            websocket: matches
                .http
                .as_ref()
                .is_some_and(HttpMatch::is_of_websockets),
        }
    }
}

/// The verdict that a rule gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleVerdict {
    /// Let it pass.
    Allow,
    /// Keep it back until a person decides.
    Hold,
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
            Self::Hold => "hold",
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
        self.verdict > Some(RuleVerdict::Allow)
            || self.masks()
            || !self.limits.is_empty()
            || !self.tags.is_empty()
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
        let mut risks = Vec::new();
        for source in &sources {
            let report = Report::new(&source.path, &source.text, &mut faults);
            let file = written::file(source, report);
            rules.extend(file.rules.into_iter().map(Arc::new));
            tests.extend(file.tests);
            risks.push((*source, file.risk));
        }
        let risk = risk::unite(risks, &mut faults);
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
            tests_name_rules(&tests, &rules, &risk, text_of, &mut faults);
            traces_lead_somewhere(&rules, text_of, &mut faults);
            scores_are_given(&rules, text_of, &mut faults);
            shadow::warn(&rules, text_of, &mut faults);
        }
        faults.sort();
        if faults.errors() > 0 {
            return Err(faults);
        }
        Ok(Self {
            digest: digest(&sources),
            traced: traces(&rules)
                .filter_map(|(_, _, trace)| match trace {
                    Trace::Rules(rules) => Some(rules.iter().cloned()),
                    Trace::Tags(_) => None,
                })
                .flatten()
                .collect(),
            index: Index::new(&rules),
            rules,
            risk,
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

    /// What a score leads to.
    pub(crate) fn risk(&self) -> &Risk {
        &self.risk
    }

    /// Which rules a statement could concern.
    pub(crate) const fn index(&self) -> &Index {
        &self.index
    }

    /// Whether some rule asks whether this one applied before.
    pub(crate) fn is_traced(&self, rule: &Rule) -> bool {
        self.traced.contains(&rule.name)
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
    risk: &Risk,
    text_of: impl Fn(&Path) -> &'s str,
    faults: &mut Diagnostics,
) {
    for test in tests {
        let Some((name, at)) = &test.expect.rule else {
            continue;
        };
        let known = || {
            let thresholds = risk.thresholds.iter().map(|threshold| &*threshold.name);
            rules.iter().map(|rule| &*rule.name).chain(thresholds)
        };
        if known().any(|known| known == name.as_str()) {
            continue;
        }
        let help = crate::diagnostic::nearest(name, known());
        Report::new(&test.path, text_of(&test.path), faults).error(
            *at,
            format!("the test expects a rule that does not exist: `{name}`"),
            help,
        );
    }
}

/// Every `after`, with its rule.
fn traces(rules: &[Arc<Rule>]) -> impl Iterator<Item = (&Rule, &CircumstanceField, &Trace)> {
    rules.iter().flat_map(|rule| {
        [Some(&rule.matches), rule.unless.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(|part| &part.circumstances.fields)
            .filter_map(|field| match &field.asks {
                Asks::After(after) => Some((&**rule, field, &after.trace)),
                _ => None,
            })
    })
}

/// An `after` of a rule that there is not is a slip of the pen; one of a tag
/// that no rule leaves may wait for a file to come.
fn traces_lead_somewhere<'s>(
    rules: &[Arc<Rule>],
    text_of: impl Fn(&Path) -> &'s str,
    faults: &mut Diagnostics,
) {
    let left: HashSet<&str> = rules
        .iter()
        .filter(|rule| !rule.observe)
        .flat_map(|rule| &rule.tags)
        .map(|tag| &**tag)
        .collect();
    for (rule, field, trace) in traces(rules) {
        let text = text_of(&rule.path);
        match trace {
            Trace::Rules(names) => {
                for name in names {
                    if !rules.iter().any(|rule| rule.name == *name) {
                        let known = rules.iter().map(|rule| &*rule.name);
                        let help = crate::diagnostic::nearest(name, known);
                        Report::new(&rule.path, text, faults).error(
                            field.at,
                            format!("`after` asks for a rule that does not exist: `{name}`"),
                            help,
                        );
                    }
                }
            }
            Trace::Tags(names) => {
                for name in names.iter().filter(|name| !left.contains(&***name)) {
                    let help = crate::diagnostic::nearest(name, left.iter().copied());
                    Report::new(&rule.path, text, faults).warning(
                        field.at,
                        format!("no rule leaves the tag `{name}`"),
                        help,
                    );
                }
            }
        }
    }
}

/// A `risk` in a match where no rule gives points asks for what is always 0.
fn scores_are_given<'s>(
    rules: &[Arc<Rule>],
    text_of: impl Fn(&Path) -> &'s str,
    faults: &mut Diagnostics,
) {
    if rules.iter().any(|rule| rule.risk > 0 && !rule.observe) {
        return;
    }
    for rule in rules {
        let parts = [Some(&rule.matches), rule.unless.as_ref()];
        let fields = parts
            .into_iter()
            .flatten()
            .flat_map(|part| &part.circumstances.fields);
        for field in fields.filter(|field| matches!(field.asks, Asks::Risk(_))) {
            Report::new(&rule.path, text_of(&rule.path), faults).warning(
                field.at,
                "no rule gives points: the score is always 0",
                Some("give some, as in `risk: 10`, to the rules of what is risky".to_owned()),
            );
        }
    }
}
