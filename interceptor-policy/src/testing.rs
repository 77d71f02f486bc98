//! The inline tests of rule files, run.
//!
//! A test asks the whole rule set, since rules of other files decide as well.
//! What its SQL means is asked of the caller, so that this crate needs no
//! parser of SQL and a test is judged by the parser that judges traffic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::approval::OnTimeout;
use crate::diagnostic::At;
use crate::mask::{Detector, Masks};
use crate::operation::http::HttpRequest;
use crate::operation::sample::Sample;
use crate::operation::ssh::{SshLine, SshSample};
use crate::operation::{Column, HttpOperation, Sql, Table};
use crate::rule::{RuleSet, RuleVerdict, spoken};
use crate::state::micros;
use crate::verdict::RecordLevel;
use crate::{
    Approval, HoldMode, Judgement, Limits, Memory, Moment, Operation, PgOperation, Scope, Standing,
    Subject, Verdict,
};

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
    /// What it asks about.
    pub asks: Exchange,
    /// The session's database.
    pub database: String,
    /// The session's user.
    pub user: String,
    /// Exchanges of the same session before it, in order; what was held of them
    /// was let pass.
    pub before: Vec<Before>,
    /// When it is, in seconds since 1970.
    pub unix: i64,
    /// The principal's score before all of them.
    pub risk: u32,
    /// How often the exchange is repeated; the last one is what is expected of.
    pub repeat: u32,
    /// What it expects.
    pub expect: Expect,
}

/// What a test asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// A statement, or statements.
    Sql(String),
    /// A request, and perhaps its response.
    Http(Box<Sample>),
    /// A request of an SSH connection.
    Ssh(Box<SshSample>),
}

/// An earlier exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// What it was.
    pub exchange: Exchange,
    /// How long before the one that the test is about.
    pub ago: Duration,
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
    /// Limits that there must be; those that it does not name may be anything.
    pub limits: Option<Limits>,
    /// Tags that it must leave; an empty list for none at all.
    pub tags: Option<Vec<String>>,
    /// Who must be asked.
    pub approval: Option<ApprovalExpectation>,
}

/// What a test expects of an approval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApprovalExpectation {
    /// Groups that one of the rules asks, all of them.
    pub from: Option<Vec<Arc<str>>>,
    /// How many people the same rule asks for.
    pub quorum: Option<u32>,
    /// How long the question stands.
    pub timeout: Option<Duration>,
    /// What silence means.
    pub on_timeout: Option<OnTimeout>,
    /// How the exchange waits.
    pub mode: Option<HoldMode>,
}

/// One mask that a test expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskExpectation {
    /// A detector's name, a pattern or a JSON pointer as it is written, a
    /// header's name, or a column as `table.column` or `schema.table.column`.
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

/// When a test's exchange is, on the monotonic clock: late enough for all that
/// may have been before.
const TEST_TIME: u64 = 1 << 50;

/// Runs one test against a rule set. What the statement means comes from
/// `classify`; a request is what [`Sample::request`] makes of it.
pub fn run(case: &TestCase, rules: &Arc<RuleSet>, classify: impl Fn(&str) -> Sql) -> Outcome {
    run_with(case, rules, classify, Sample::request)
}

/// As [`run`], with requests that are read by `read`.
pub fn run_with(
    case: &TestCase,
    rules: &Arc<RuleSet>,
    classify: impl Fn(&str) -> Sql,
    read: impl Fn(&Sample) -> HttpRequest,
) -> Outcome {
    run_by(
        case,
        rules,
        &Readers {
            sql: &classify,
            http: &read,
            line: &SshLine::of_words,
        },
    )
}

/// What is asked what traffic means.
pub struct Readers<'r> {
    /// What SQL means.
    pub sql: &'r dyn Fn(&str) -> Sql,
    /// What a request is.
    pub http: &'r dyn Fn(&Sample) -> HttpRequest,
    /// What a command line runs.
    pub line: &'r dyn Fn(&str) -> SshLine,
}

impl std::fmt::Debug for Readers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

/// As [`run`], with everything read by `readers`.
pub fn run_by(case: &TestCase, rules: &Arc<RuleSet>, readers: &Readers<'_>) -> Outcome {
    let scope = rules.scope(&case.subject);
    let now = Moment {
        monotonic: TEST_TIME,
        unix: case.unix,
    };
    let mut standing = Memory::with_room_for(1).standing(&case.subject.principal, now);
    let judge = |exchange: &Exchange, standing: &mut Standing, now: Moment| match exchange {
        Exchange::Sql(sql) => {
            let meaning = (readers.sql)(sql);
            let operation = Operation::Postgres(PgOperation {
                sql: &meaning,
                text: sql,
                database: &case.database,
                user: &case.user,
                meaning: None,
            });
            scope.judge(&operation, standing, now)
        }
        Exchange::Http(sample) => {
            judge_sample(&scope, sample, &(readers.http)(sample), standing, now)
        }
        Exchange::Ssh(sample) => {
            let request = sample.read(readers.line);
            scope.judge(&Operation::Ssh(&request), standing, now)
        }
    };
    let mut earlier = Vec::new();
    let begin = case.before.iter().map(|before| before.ago).max();
    standing.start_with(case.risk, ago(now, begin.unwrap_or_default()));
    for before in &case.before {
        let then = ago(now, before.ago);
        let judged = judge(&before.exchange, &mut standing, then);
        if matches!(judged.verdict, Verdict::Hold(_)) {
            standing.tag(&judged.tags, then);
        }
        earlier.extend(judged.applied);
        earlier.extend(judged.observed);
    }
    for _ in 1..case.repeat {
        let judged = judge(&case.asks, &mut standing, now);
        earlier.extend(judged.applied);
        earlier.extend(judged.observed);
        earlier.sort_unstable();
        earlier.dedup();
    }
    let judgement = judge(&case.asks, &mut standing, now);
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
    effects(&case.expect, &judgement, &mut failures);
    let mut applied = judgement.applied;
    applied.extend(judgement.observed);
    applied.extend(earlier);
    Outcome { failures, applied }
}

/// Judges a request as it was read, and where that is let pass the sample's
/// response, as one.
pub fn judge_sample(
    scope: &Scope,
    sample: &Sample,
    request: &HttpRequest,
    standing: &mut Standing,
    now: Moment,
) -> Judgement {
    let response = sample.response();
    let operation = HttpOperation {
        request,
        response: None,
        message: None,
    };
    let asked = scope.judge(&Operation::Http(operation), standing, now);
    let passes = matches!(asked.verdict, Verdict::Allow(_) | Verdict::Hold(_));
    let Some(response) = response.as_ref().filter(|_| passes) else {
        return asked;
    };
    let operation = HttpOperation {
        response: Some(response),
        ..operation
    };
    let answered = scope.judge(&Operation::Http(operation), standing, now);
    let mut both = asked;
    both.applied.extend(answered.applied);
    both.observed.extend(answered.observed);
    both.risk = both.risk.saturating_add(answered.risk);
    both.score = answered.score;
    both.severity = both.severity.max(answered.severity);
    both.record = both.record.max(answered.record);
    both.ban = both.ban.max(answered.ban);
    match answered.verdict {
        Verdict::Allow(_) => {}
        // Whoever approves the request is asked of its response again.
        other => both.verdict = other,
    }
    match &both.verdict {
        Verdict::Allow(_) | Verdict::Hold(_) => {
            both.masks = Masks::united(both.masks, answered.masks);
            both.limits = both.limits.unite(answered.limits);
            let new = answered.tags.into_iter();
            let new = new
                .filter(|tag| !both.tags.contains(tag))
                .collect::<Vec<_>>();
            both.tags.extend(new);
        }
        _ => {
            both.masks = None;
            both.limits = Limits::default();
            both.tags.clear();
        }
    }
    both
}

/// So long before.
fn ago(now: Moment, span: Duration) -> Moment {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    Moment {
        monotonic: now.monotonic.saturating_sub(micros(span)),
        unix: now.unix.saturating_sub(seconds),
    }
}

fn effects(expect: &Expect, judgement: &Judgement, failures: &mut Vec<String>) {
    if let Some(expected) = &expect.limits {
        let got = judgement.limits;
        let mut compare = |name: &str, expected: Option<String>, got: Option<String>| {
            if expected.is_some() && expected != got {
                failures.push(format!(
                    "expected {name} to be limited to {}, got {}",
                    expected.unwrap_or_default(),
                    got.as_deref().unwrap_or("no limit")
                ));
            }
        };
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        compare("rows", number(expected.rows), number(got.rows));
        compare("bytes", number(expected.bytes), number(got.bytes));
        compare(
            "duration",
            expected.duration.map(spoken),
            got.duration.map(spoken),
        );
    }
    if let Some(expected) = &expect.tags {
        let got = judgement.tags.join(", ");
        if expected.is_empty() && !judgement.tags.is_empty() {
            failures.push(format!("expected no tag, got {got}"));
        }
        for tag in expected {
            if !judgement.tags.iter().any(|left| **left == **tag) {
                let got = if got.is_empty() { "none" } else { &got };
                failures.push(format!("expected the tag {tag}, got {got}"));
            }
        }
    }
    if let Some(expected) = &expect.approval {
        match &judgement.verdict {
            Verdict::Hold(hold) if expected.is_met(&hold.approval) => {}
            Verdict::Hold(hold) => {
                failures.push(format!("expected another approval than {}", hold.approval));
            }
            _ => failures.push("expected an approval, but nobody is asked".to_owned()),
        }
    }
}

impl ApprovalExpectation {
    fn is_met(&self, approval: &Approval) -> bool {
        fn same<T: PartialEq>(expected: Option<&T>, got: &T) -> bool {
            expected.is_none_or(|expected| expected == got)
        }
        same(self.timeout.as_ref(), &approval.timeout)
            && same(self.on_timeout.as_ref(), &approval.on_timeout)
            && same(self.mode.as_ref(), &approval.mode)
            && approval.requirements.iter().any(|requirement| {
                same(self.quorum.as_ref(), &requirement.quorum)
                    && self.from.as_ref().is_none_or(|from| {
                        from.len() == requirement.from.len()
                            && from.iter().all(|group| requirement.from.contains(group))
                    })
            })
    }
}

fn masks(expected: &[MaskExpectation], masks: Option<&Masks>, failures: &mut Vec<String>) {
    if expected.is_empty() && masks.is_some() {
        failures.push("expected no mask, got some".to_owned());
    }
    for MaskExpectation { what, with } in expected {
        let detector = Detector::NAMES.iter().find(|(name, _)| name == what);
        let got = masks.and_then(|masks| {
            let header = what.to_ascii_lowercase();
            let listed = masks.listed().into_iter();
            let named = listed.filter(|(_, name, _)| *name == what.as_str() || *name == header);
            let column = match detector {
                Some(_) => None,
                None => masks.column(&column(what)),
            };
            named.map(|(.., with)| with).chain(column).max()
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
