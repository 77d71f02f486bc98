//! Rules: YAML as written (private) to the checked form (public).
// Interface only, filled in next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Subject;
use crate::diagnostic::Diagnostics;
use crate::scope::Scope;
use crate::testing::TestCase;

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
    rules: Vec<Rule>,
    tests: Vec<TestCase>,
    warnings: Diagnostics,
}

/// One rule, checked.
#[derive(Debug)]
pub struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) description: Option<String>,
    pub(crate) path: PathBuf,
    pub(crate) line: u32,
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
        self.line
    }
}

impl RuleSet {
    /// Reads and checks rule files.
    ///
    /// # Errors
    /// Everything that is wrong with them, warnings included, when anything
    /// refuses them.
    pub fn load(_sources: &[Source]) -> Result<Self, Diagnostics> {
        Err(Diagnostics::default())
    }

    /// BLAKE3 over the files' names and texts, hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The rules, in the order of files and lines.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
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
