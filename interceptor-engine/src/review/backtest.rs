//! Recorded sessions judged anew under other rules.
//!
//! Judged is what is on record: what masks hid in a recorded statement stays
//! hidden, and where rules asked that only metadata be recorded there is nothing
//! to judge. Sessions are taken one after the other, so what rules remember of
//! sessions that ran at the same time can come out in another order than it did.
//! A person's answer is not foreseen: a hold is a hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use interceptor_policy::operation::{PgOperation, Sql, Statement};
use interceptor_policy::{
    DefaultVerdict, Memory, Operation, Protocol, RuleSet, Scope, Standing, Verdict,
};

use super::Opened;
use crate::pg::sql::{self, Classified, Classifier, Effect};
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
    scope: Scope,
    standing: Standing,
    /// Statements prepared in SQL, by name.
    prepared: HashMap<Arc<str>, Arc<Statement>>,
    /// Changes whose rule on record may still come.
    last: Option<Change>,
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
        if opened.subject.protocol != Protocol::Postgres {
            return false;
        }
        self.summary.sessions += 1;
        self.session = Some(Session {
            id: id.to_owned(),
            scope: self.rules.scope(&opened.subject),
            standing: self.memory.standing(&opened.subject.principal, opened.at),
            opened,
            prepared: HashMap::new(),
            last: None,
        });
        true
    }

    /// Takes the session's next entry; gives a change that is certain now.
    pub fn entry(&mut self, entry: &Entry) -> Option<Change> {
        let session = self.session.as_mut()?;
        if entry.kind == "verdict" {
            // The refusal of the command before it, with its rule.
            if let Some(change) = session.last.as_mut()
                && entry.exchange == Some(change.exchange)
                && let Some(rule) = entry.meta_text("rule")
            {
                change.was_by = Some(rule.to_owned());
            }
            return None;
        }
        if entry.kind != "command" {
            return None;
        }
        let before = session.last.take();
        self.command(entry);
        before
    }

    /// The session is over; gives the last change.
    pub fn end(&mut self) -> Option<Change> {
        self.session.take().and_then(|session| session.last)
    }

    /// What it came to so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn command(&mut self, entry: &Entry) {
        let Some(session) = self.session.as_mut() else {
            return;
        };
        let (Some(exchange), Some(was)) = (entry.exchange, entry.meta_text("verdict")) else {
            // Prepared and never run.
            return;
        };
        if entry.data.is_empty() || entry.meta_text("message") == Some("F") {
            self.summary.not_judged += 1;
            return;
        }
        let text = entry.command();
        let classified = self.classifier.classify(&text);
        let sql = session.meaning(&classified);
        let operation = Operation::Postgres(PgOperation {
            sql: &sql,
            text: &text,
            database: &session.opened.database,
            user: &session.opened.user,
            meaning: None,
        });
        let now = session.opened.at.after(entry.at.0);
        let judgement = session.scope.judge(&operation, &mut session.standing, now);
        self.summary.judged += 1;
        self.summary.masked += u64::from(judgement.masks.is_some());
        for rule in &judgement.applied {
            *self.summary.applied.entry(rule.to_string()).or_default() += 1;
        }
        let (would, would_by) = match &judgement.verdict {
            Verdict::Allow(_) => ("allow", None),
            Verdict::Hold(hold) => ("hold", hold.reason.rule.as_deref()),
            Verdict::Block(refusal) => ("block", refusal.rule.as_deref()),
            Verdict::Kill(refusal) => ("kill", refusal.rule.as_deref()),
        };
        if was == would {
            return;
        }
        let what = format!("{was} to {would}");
        *self.summary.changed.entry(what).or_default() += 1;
        let target = &session.opened.subject.target;
        session.last = Some(Change {
            session: session.id.clone(),
            exchange,
            opened: session.opened.at_wall.clone(),
            agent: session.opened.subject.principal.agent.clone(),
            target: target
                .name
                .clone()
                .unwrap_or_else(|| format!("{}:{}", target.address, target.port)),
            line: entry.line.clone(),
            was: was.to_owned(),
            was_by: None,
            would,
            would_by: would_by.map(str::to_owned),
        });
    }
}

impl Session {
    /// The meaning, with what `EXECUTE` stands for put in.
    fn meaning(&mut self, classified: &Classified) -> Sql {
        let mut sql = classified.sql.clone();
        for (place, effect) in &classified.effects {
            match effect {
                Effect::Prepare { name, inner } => {
                    self.prepared.insert(Arc::clone(name), Arc::clone(inner));
                }
                Effect::Execute { name } => {
                    if let (Some(outer), Some(inner)) =
                        (sql.statements.get_mut(*place), self.prepared.get(name))
                    {
                        *outer = sql::merge(outer, inner);
                    }
                }
                _ => {}
            }
        }
        sql
    }
}
