//! The inline tests of rule files, run.
//!
//! A test asks the whole rule set, since rules of other files decide as well.
//! What its SQL means is asked of the caller, so that this crate needs no
//! parser of SQL and a test is judged by the parser that judges traffic.

use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::At;
use crate::mask::{Detector, Masks};
use crate::operation::{Column, Sql, Table};
use crate::rule::{RuleSet, RuleVerdict};
use crate::verdict::RecordLevel;
use crate::{Operation, PgOperation, Subject, Verdict};

/// One inline test.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// Its name.
    pub name: String,
    /// The file it stands in.
    pub path: PathBuf,
    /// Where in it.
    pub at: At,
    /// Whose session it is; where the test does not say, an agent named `agent`
    /// at a target without a name whose default is `block`.
    pub subject: Subject,
    /// The statement, or statements, that it asks about.
    pub sql: String,
    /// The session's database.
    pub database: String,
    /// The session's user.
    pub user: String,
    /// What it expects.
    pub expect: Expect,
}

/// What a test expects; what it leaves out may be anything.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// The verdict.
    pub verdict: Option<RuleVerdict>,
    /// For a refusal, the rule that refuses; otherwise one that applies.
    pub rule: Option<(String, At)>,
    /// Masks that there must be; an empty list for none at all.
    pub masks: Option<Vec<MaskExpectation>>,
    /// Observing rules that would have applied.
    pub observed: Vec<String>,
    /// How much is recorded.
    pub record: Option<RecordLevel>,
}

/// One mask that a test expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskExpectation {
    /// A detector's name, a pattern as it is written, or a column as
    /// `table.column` or `schema.table.column`.
    pub what: String,
    /// The transform's name, where the test says one.
    pub with: Option<String>,
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
pub fn run(case: &TestCase, rules: &Arc<RuleSet>, classify: impl Fn(&str) -> Sql) -> Outcome {
    let sql = classify(&case.sql);
    let operation = Operation::Postgres(PgOperation {
        sql: &sql,
        text: &case.sql,
        database: &case.database,
        user: &case.user,
        meaning: None,
    });
    let judgement = rules.scope(&case.subject).decide(&operation);
    let mut failures = Vec::new();
    let (verdict, refused_by) = match &judgement.verdict {
        Verdict::Allow(_) => (RuleVerdict::Allow, None),
        Verdict::Block(refusal) => (RuleVerdict::Block, refusal.rule.as_deref()),
        Verdict::Hold(hold) => (RuleVerdict::Hold, hold.reason.rule.as_deref()),
        Verdict::Kill(refusal) => (RuleVerdict::Kill, refusal.rule.as_deref()),
    };
    let by = || match refused_by {
        Some(rule) => format!(" (by {rule})"),
        None if verdict == RuleVerdict::Block => " (no rule allowed it)".to_owned(),
        None => String::new(),
    };
    if let Some(expected) = case.expect.verdict
        && expected != verdict
    {
        failures.push(format!(
            "expected verdict {}, got {}{}",
            expected.name(),
            verdict.name(),
            by()
        ));
    }
    if let Some((expected, _)) = &case.expect.rule {
        let met = match verdict {
            RuleVerdict::Allow => judgement.applied.iter().any(|rule| **rule == **expected),
            _ => refused_by == Some(expected.as_str()),
        };
        if !met {
            let got = match (refused_by, judgement.applied.as_slice()) {
                (Some(rule), _) => rule.to_owned(),
                (None, []) => "none".to_owned(),
                (None, applied) => applied.join(", "),
            };
            failures.push(format!("expected rule {expected}, got {got}"));
        }
    }
    if let Some(expected) = case.expect.record
        && expected != judgement.record
    {
        failures.push(format!(
            "expected record {}, got {}",
            expected.name(),
            judgement.record.name()
        ));
    }
    for expected in &case.expect.observed {
        if !judgement.observed.iter().any(|rule| **rule == **expected) {
            failures.push(format!("expected {expected} to observe it"));
        }
    }
    if let Some(expected) = &case.expect.masks {
        masks(expected, judgement.masks.as_deref(), &mut failures);
    }
    let mut applied = judgement.applied;
    applied.extend(judgement.observed);
    Outcome { failures, applied }
}

fn masks(expected: &[MaskExpectation], masks: Option<&Masks>, failures: &mut Vec<String>) {
    if expected.is_empty() && masks.is_some() {
        failures.push("expected no mask, got some".to_owned());
    }
    for MaskExpectation { what, with } in expected {
        let detector = Detector::NAMES.iter().find(|(name, _)| name == what);
        let got = masks.and_then(|masks| match detector {
            Some((_, detector)) => masks.detect()?.transform(*detector),
            None => masks
                .detect()
                .and_then(|plan| plan.patterns().find(|(source, _)| source == what))
                .map(|(_, transform)| transform)
                .or_else(|| masks.column(&column(what))),
        });
        match (got, with) {
            (None, _) => failures.push(format!("expected {what} to be masked, but it is not")),
            (Some(got), Some(with)) if got.name() != with => failures.push(format!(
                "expected {what} to be masked with {with}, got {}",
                got.name()
            )),
            _ => {}
        }
    }
}

fn column(text: &str) -> Column {
    let Some((table, name)) = text.rsplit_once('.') else {
        return Column {
            table: None,
            name: text.into(),
        };
    };
    let table = match table.split_once('.') {
        Some((schema, name)) => Table {
            schema: Some(schema.into()),
            name: name.into(),
        },
        None => Table {
            schema: None,
            name: table.into(),
        },
    };
    Column {
        table: Some(table),
        name: name.into(),
    }
}
