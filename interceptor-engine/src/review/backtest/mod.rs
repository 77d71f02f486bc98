//! Recorded sessions judged anew under other rules.
//!
//! * [`postgres`]: a statement is read again and judged;
//! * [`http`]: an exchange goes through a session of its own, as it went through the
//!   one that recorded it.
//!
//! Judged is what is on record: what masks hid in a recorded statement stays
//! hidden, and where rules asked that only metadata be recorded there is nothing
//! to judge. Sessions are taken one after the other, so what rules remember of
//! sessions that ran at the same time can come out in another order than it did.
//! A person's answer is not foreseen: a hold is a hold.

mod http;
mod postgres;

use std::collections::BTreeMap;
use std::sync::Arc;

use interceptor_policy::{DefaultVerdict, Memory, Protocol, RuleSet};

use super::Opened;
use crate::pg::sql::Classifier;
use crate::replay::Entry;

/// A verdict that would have been another.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
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
    /// What the other rules say.
    pub would: &'static str,
    /// The rule that says so, where one does.
    pub would_by: Option<String>,
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
    /// A change whose rule on record may still come.
    last: Option<Change>,
}

/// What judges a session's commands.
#[derive(Debug)]
enum Judge {
    Postgres(Box<postgres::Judge>),
    Http(Box<http::Judge>),
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
    /// A test of these rules.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self {
            rules,
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
            Protocol::Http => Judge::Http(Box::new(http::Judge::new(scope, standing, &opened))),
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

    /// Takes the session's next entry; gives the changes that are certain now.
    pub fn entry(&mut self, entry: &Entry) -> Vec<Change> {
        let Some(session) = self.session.as_mut() else {
            return Vec::new();
        };
        let outcome = match &mut session.judge {
            Judge::Postgres(judge) => {
                if entry.kind == "verdict" {
                    // The refusal of the command before it, with its rule.
                    if let Some(change) = session.last.as_mut()
                        && entry.exchange == Some(change.exchange)
                        && let Some(rule) = entry.meta_text("rule")
                    {
                        change.was_by = Some(rule.to_owned());
                    }
                    return Vec::new();
                }
                judge.entry(entry, &mut self.classifier, &session.opened)
            }
            Judge::Http(judge) => judge.entry(entry),
        };
        self.summary.take(session, outcome).into_iter().collect()
    }

    /// The session is over; gives its last changes.
    pub fn end(&mut self) -> Vec<Change> {
        let Some(mut session) = self.session.take() else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        while let Judge::Http(judge) = &mut session.judge
            && let Some(open) = judge.any_open()
        {
            let outcome = judge.rest(open);
            changes.extend(self.summary.take(&mut session, outcome));
        }
        changes.extend(session.last);
        changes
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
    TooLittle,
    /// A command was judged.
    Judged(Box<Judged>),
}

impl Summary {
    /// Counts what an entry led to; gives the change before it, to which nothing is
    /// added any more.
    fn take(&mut self, session: &mut Session, outcome: Outcome) -> Option<Change> {
        match outcome {
            Outcome::Nothing => None,
            Outcome::TooLittle => {
                self.not_judged += 1;
                None
            }
            Outcome::Judged(judged) => {
                let change = self.count(session, *judged);
                std::mem::replace(&mut session.last, change)
            }
        }
    }

    /// Counts a command, and says what would change.
    fn count(&mut self, session: &Session, judged: Judged) -> Option<Change> {
        self.judged += 1;
        self.masked += u64::from(judged.masked);
        for rule in judged.applied {
            *self.applied.entry(rule).or_default() += 1;
        }
        if judged.was == judged.would {
            return None;
        }
        let what = format!("{} to {}", judged.was, judged.would);
        *self.changed.entry(what).or_default() += 1;
        let target = &session.opened.subject.target;
        Some(Change {
            session: session.id.clone(),
            exchange: judged.exchange,
            opened: session.opened.at_wall.clone(),
            agent: session.opened.subject.principal.agent.clone(),
            target: target
                .name
                .clone()
                .unwrap_or_else(|| target.origin.to_string()),
            line: judged.line,
            was: judged.was,
            was_by: judged.was_by,
            would: judged.would,
            would_by: judged.would_by,
        })
    }
}
