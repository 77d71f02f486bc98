//! The inline tests of rule files.
// Interface only, filled in next.

use std::sync::Arc;

use crate::operation::Sql;
use crate::rule::RuleSet;

/// One inline test.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// Its name.
    pub name: String,
    /// The statement, or statements, that it asks about.
    pub sql: String,
}

/// How a test went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was not as expected; empty when it passed.
    pub failures: Vec<String>,
    /// The rules that applied, observing ones included, for coverage.
    pub applied: Vec<Arc<str>>,
}

impl Outcome {
    /// Whether everything was as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Runs one test against a rule set. What the statement means comes from `classify`.
pub fn run(_case: &TestCase, _rules: &Arc<RuleSet>, _classify: impl Fn(&str) -> Sql) -> Outcome {
    Outcome::default()
}
