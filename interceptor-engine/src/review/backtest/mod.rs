//! Recorded sessions judged anew under other rules.
//!
//! * [`postgres`]: a statement is read again and judged;
//! * [`ssh`]: a command line, a line of a shell, an operation on a file or a forward is;
//! * [`http`]: an exchange goes through a session of its own, as it went through the
//!   one that recorded it.
//!
//! Judged is what is on record. Where rules asked that only metadata be recorded there
//! is nothing to judge; and what was hidden, or whose body is not on record, is not
//! judged where these rules read that. Both are said of each exchange, never guessed. Sessions are taken one after the other, so what rules remember of
//! sessions that ran at the same time can come out in another order than it did.
//! A person's answer is not foreseen: a hold is a hold.

mod http;
mod postgres;
mod ssh;

use std::collections::BTreeMap;
use std::sync::Arc;

use interceptor_policy::{DefaultVerdict, Memory, Protocol, RuleSet, Verdict};

use super::Opened;
use crate::pg::sql::Classifier;
use crate::replay::Entry;

/// How an exchange was judged, and would be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The session.
    pub session: String,
    /// The exchange.
    pub exchange: u64,
    /// When the session opened.
    pub opened: String,
    /// The agent.
    pub agent: String,
    /// The target's name, or the destination.
    pub target: String,
    /// The command, on one line.
    pub line: String,
    /// The verdict on record.
    pub was: String,
    /// The rule that gave it, where one is on record.
    pub was_by: Option<String>,
    /// What the other rules say; `None` where it cannot be judged.
    pub would: Option<&'static str>,
    /// The rule that says so, where one does.
    pub would_by: Option<String>,
    /// Why it cannot be judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unjudged: Option<&'static str>,
}

impl Finding {
    /// Whether the verdict would have been another.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.would.is_some_and(|would| would != self.was)
    }
}

/// What it all came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Sessions looked at.
    pub sessions: u64,
    /// Commands judged.
    pub judged: u64,
    /// Commands of which too little is on record.
    pub not_judged: u64,
    /// Verdicts that would have been others, by what they were and would be.
    pub changed: BTreeMap<String, u64>,
    /// Commands whose answers would have been masked.
    pub masked: u64,
    /// How often each rule applied.
    pub applied: BTreeMap<String, u64>,
}

/// Judges recorded sessions under other rules.
#[derive(Debug)]
pub struct Backtest {
    rules: Arc<RuleSet>,
    reads: Reads,
    classifier: Classifier,
    memory: Memory,
    summary: Summary,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    id: String,
    opened: Opened,
    judge: Judge,
    /// A finding whose rule on record may still come.
    last: Option<Finding>,
}

/// What judges a session's commands.
#[derive(Debug)]
enum Judge {
    Postgres(Box<postgres::Judge>),
    Http(Box<http::Judge>),
    Ssh(Box<ssh::Judge>),
}

/// What the rules read, as far as their text tells: lower case.
#[derive(Clone, Debug, Default)]
struct Reads(Arc<str>);

impl Reads {
    /// Whether a rule may read what has this name.
    fn names(&self, name: &str) -> bool {
        self.0.contains(&name.to_ascii_lowercase())
    }
}

/// How a command was judged, and would be.
#[derive(Debug)]
struct Judged {
    exchange: u64,
    line: String,
    was: String,
    /// The rule of the verdict on record, where it is known.
    was_by: Option<String>,
    would: &'static str,
    would_by: Option<String>,
    applied: Vec<String>,
    masked: bool,
}

impl Backtest {
    /// A test of these rules, whose files have this text.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>, text: &str) -> Self {
        Self {
            rules,
            reads: Reads(text.to_ascii_lowercase().into()),
            classifier: Classifier::default(),
            memory: Memory::new(),
            summary: Summary::default(),
            session: None,
        }
    }

    /// Begins the next session, from its opening event; whether it is one that
    /// can be judged.
    pub fn begin(
        &mut self,
        id: &str,
        open: &Entry,
        default: &dyn Fn(Option<&str>) -> DefaultVerdict,
    ) -> bool {
        self.session = None;
        let Some(opened) = Opened::read(open, default) else {
            return false;
        };
        let scope = self.rules.scope(&opened.subject);
        let standing = self.memory.standing(&opened.subject.principal, opened.at);
        let judge = match opened.subject.protocol {
            Protocol::Postgres => Judge::Postgres(Box::new(postgres::Judge::new(scope, standing))),
            Protocol::Http => {
                let reads = self.reads.clone();
                Judge::Http(Box::new(http::Judge::new(scope, standing, &opened, reads)))
            }
            Protocol::Ssh => Judge::Ssh(Box::new(ssh::Judge::new(scope, standing))),
            _ => return false,
        };
        self.summary.sessions += 1;
        self.session = Some(Session {
            id: id.to_owned(),
            opened,
            judge,
            last: None,
        });
        true
    }

    /// Takes the session's next entry; gives the findings that are certain now.
    pub fn entry(&mut self, entry: &Entry) -> Vec<Finding> {
        let Some(session) = self.session.as_mut() else {
            return Vec::new();
        };
        if entry.kind == "verdict" && !matches!(session.judge, Judge::Http(_)) {
            // The refusal of the command before it, with its rule.
            if let Some(finding) = session.last.as_mut()
                && entry.exchange == Some(finding.exchange)
                && let Some(rule) = entry.meta_text("rule")
            {
                finding.was_by = Some(rule.to_owned());
            }
            return Vec::new();
        }
        let outcome = match &mut session.judge {
            Judge::Postgres(judge) => judge.entry(entry, &mut self.classifier, &session.opened),
            Judge::Ssh(judge) => judge.entry(entry, &session.opened),
            Judge::Http(judge) => judge.entry(entry),
        };
        self.summary.take(session, outcome).into_iter().collect()
    }

    /// The session is over; gives its last findings.
    pub fn end(&mut self) -> Vec<Finding> {
        let Some(mut session) = self.session.take() else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        while let Judge::Http(judge) = &mut session.judge
            && let Some(open) = judge.any_open()
        {
            let outcome = judge.rest(open);
            findings.extend(self.summary.take(&mut session, outcome));
        }
        findings.extend(session.last);
        findings
    }

    /// What it came to so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }
}

/// What an entry led to.
#[derive(Debug)]
enum Outcome {
    /// It asks for nothing, or not for all of it yet.
    Nothing,
    /// There is too little on record to judge.
    TooLittle(Box<Unjudged>),
    /// A command was judged.
    Judged(Box<Judged>),
}

/// A command that cannot be judged.
#[derive(Debug)]
struct Unjudged {
    exchange: u64,
    line: String,
    was: String,
    was_by: Option<String>,
    why: &'static str,
}

impl Unjudged {
    fn of(entry: &Entry, why: &'static str) -> Outcome {
        Outcome::TooLittle(Box::new(Self {
            exchange: entry.exchange.unwrap_or_default(),
            line: entry.line.clone(),
            was: entry.meta_text("verdict").unwrap_or_default().to_owned(),
            was_by: None,
            why,
        }))
    }
}

/// A verdict's word, and the rule that gave it.
fn words(verdict: &Verdict) -> (&'static str, Option<String>) {
    let (word, rule) = match verdict {
        Verdict::Allow(_) => ("allow", None),
        Verdict::Hold(hold) => ("hold", hold.reason.rule.as_deref()),
        Verdict::Block(refusal) => ("block", refusal.rule.as_deref()),
        Verdict::Kill(refusal) => ("kill", refusal.rule.as_deref()),
    };
    (word, rule.map(str::to_owned))
}

/// Nothing of what was asked is on record.
const METADATA: &str = "only metadata of it is on record";

impl Summary {
    /// Counts what an entry led to; gives the finding before it, to which nothing is
    /// added any more.
    fn take(&mut self, session: &mut Session, outcome: Outcome) -> Option<Finding> {
        let finding = match outcome {
            Outcome::Nothing => return None,
            Outcome::TooLittle(unjudged) => {
                self.not_judged += 1;
                Finding {
                    was_by: unjudged.was_by,
                    unjudged: Some(unjudged.why),
                    ..session.finding(unjudged.exchange, unjudged.line, unjudged.was)
                }
            }
            Outcome::Judged(judged) => self.count(session, *judged),
        };
        session.last.replace(finding)
    }

    /// Counts a command, and says what was found.
    fn count(&mut self, session: &Session, judged: Judged) -> Finding {
        self.judged += 1;
        self.masked += u64::from(judged.masked);
        for rule in judged.applied {
            *self.applied.entry(rule).or_default() += 1;
        }
        let finding = Finding {
            was_by: judged.was_by,
            would: Some(judged.would),
            would_by: judged.would_by,
            ..session.finding(judged.exchange, judged.line, judged.was)
        };
        if finding.differs() {
            let what = format!("{} to {}", finding.was, judged.would);
            *self.changed.entry(what).or_default() += 1;
        }
        finding
    }
}

impl Session {
    fn finding(&self, exchange: u64, line: String, was: String) -> Finding {
        let target = &self.opened.subject.target;
        Finding {
            session: self.id.clone(),
            exchange,
            opened: self.opened.at_wall.clone(),
            agent: self.opened.subject.principal.agent.clone(),
            target: target
                .name
                .clone()
                .unwrap_or_else(|| target.origin.to_string()),
            line,
            was,
            was_by: None,
            would: None,
            would_by: None,
            unjudged: None,
        }
    }
}
