//! From a message to a verdict, and on record before anything of it leaves.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use interceptor_policy::operation::{Class, Classes, Meaning, PgOperation, Sql, Statement};
use interceptor_policy::verdict::Severity;
use interceptor_policy::{Hold, Judgement, Operation, Permit, Refusal, Verdict};

use super::exchange::Exchange;
use super::refuse;
use super::statements::{Portal, Prepared};
use super::{PgSession, unmaskable};
use crate::event::FlowTime;
use crate::pg::mask::CopyPlan;
use crate::pg::sql::{self, Classified, Dialect, Effect};
use crate::session::Outbox;
use crate::unmasked::Unmasked;

/// What a message asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The message's letter.
    pub(super) message: &'static str,
    /// The statement's text.
    pub(super) text: &'a str,
    /// The prepared statement's name.
    pub(super) statement: Option<&'a Arc<str>>,
    /// The parameters, a JSON array.
    pub(super) parameters: Option<&'a str>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Judged {
    /// Goes with the reply.
    pub(super) exchange: Exchange,
    /// What becomes of the message.
    pub(super) ruling: Ruling,
}

/// What becomes of a message.
#[derive(Debug)]
pub(super) enum Ruling {
    /// It goes upstream.
    Pass(Permit),
    /// A person decides.
    Hold(Hold),
    /// It is refused.
    Refuse(Refusal),
    /// It is refused, and the session ends.
    Kill(Refusal),
}

/// Whether a judgement is remembered (`after`, `rate`, `risk`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Yes,
    /// It is made again when the statement runs.
    No,
}

/// Encodings whose characters may have ASCII bytes in them: the server converts
/// before it reads, so a text in one of them is not the text that stands here.
/// Source: PostgreSQL, `pg_wchar.h`, encodings for clients only, and `JOHAB`.
const UNSAFE_ENCODINGS: [&str; 7] = [
    "SJIS",
    "SHIFT_JIS_2004",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
];

/// How the server reads this session's texts, as far as is certain.
#[derive(Debug)]
pub(super) struct SessionDialect {
    standard_conforming_strings: bool,
    safe_encoding: bool,
    /// Something ran that could have changed either without our seeing it yet.
    uncertain: bool,
}

impl Default for SessionDialect {
    fn default() -> Self {
        Self {
            standard_conforming_strings: true,
            safe_encoding: true,
            uncertain: false,
        }
    }
}

impl SessionDialect {
    /// The server reports a parameter.
    pub(super) fn report(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"standard_conforming_strings" => self.standard_conforming_strings = value == b"on",
            b"client_encoding" => {
                self.safe_encoding = !UNSAFE_ENCODINGS
                    .iter()
                    .any(|name| name.as_bytes().eq_ignore_ascii_case(value));
            }
            _ => {}
        }
    }

    /// A statement is about to run.
    fn will_run(&mut self, sql: &Sql) {
        self.uncertain |= sql.statements.iter().any(|statement| {
            statement.classes.contains(Class::Procedural)
                || statement
                    .functions
                    .iter()
                    .any(|f| f.ends_with("set_config"))
        });
    }

    pub(super) fn unclassified(&self) -> Arc<Classified> {
        static UNCLASSIFIED: OnceLock<Arc<Classified>> = OnceLock::new();
        Arc::clone(UNCLASSIFIED.get_or_init(|| {
            Arc::new(ad_hoc(Statement {
                tags: vec![sql::UNCLASSIFIED],
                classes: Classes::of(Class::Unclassified),
                ..Statement::default()
            }))
        }))
    }
}

/// The number of a meaning that is not shared: nothing is kept under it.
pub(super) const AD_HOC: u64 = u64::MAX;

/// A meaning that is made here and not read from a text of its own.
pub(super) fn ad_hoc(statement: Statement) -> Classified {
    ad_hoc_sql(Sql {
        statements: vec![statement],
        resolved: false,
    })
}

fn ad_hoc_sql(sql: Sql) -> Classified {
    Classified {
        id: AD_HOC,
        sql,
        effects: Vec::new(),
        exact: true,
    }
}

/// Why a statement that rules allow is refused all the same.
fn refused_always(classified: &Classified) -> Option<&'static str> {
    classified.effects.iter().find_map(|(_, effect)| {
        let Effect::SetParameter { name, value, .. } = effect else {
            return None;
        };
        let value = value.as_deref().unwrap_or_default();
        match &**name {
            "standard_conforming_strings"
                if !matches!(
                    value.to_ascii_lowercase().as_str(),
                    "" | "on" | "true" | "yes" | "1" | "t" | "y"
                ) =>
            {
                Some("standard_conforming_strings must stay on, so that statements can be read as the server reads them")
            }
            "client_encoding" | "names"
                if UNSAFE_ENCODINGS
                    .iter()
                    .any(|unsafe_name| same_encoding(unsafe_name, value)) =>
            {
                Some("this client_encoding is not supported, since statements in it cannot be read as the server reads them")
            }
            _ => None,
        }
    })
}

/// PostgreSQL compares encodings' names by letters and digits alone.
fn same_encoding(known: &str, given: &str) -> bool {
    let clean = |name: &str| -> String {
        name.chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_uppercase())
            .collect()
    };
    let given = clean(given);
    clean(known) == given
        || (known == "SJIS"
            && matches!(
                given.as_str(),
                "SHIFTJIS" | "MSKANJI" | "WIN932" | "WINDOWS932"
            ))
        || (known == "GBK" && matches!(given.as_str(), "WIN936" | "WINDOWS936"))
        || (known == "UHC" && matches!(given.as_str(), "WIN949" | "WINDOWS949"))
        || (known == "BIG5" && matches!(given.as_str(), "WIN950" | "WINDOWS950"))
}

impl PgSession {
    /// The text, and what it means to the server.
    pub(super) fn read_statement<'a>(&self, bytes: &'a [u8]) -> (Cow<'a, str>, Arc<Classified>) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return (String::from_utf8_lossy(bytes), self.dialect.unclassified());
        };
        if !text.is_ascii() && (!self.dialect.safe_encoding || self.dialect.uncertain) {
            return (Cow::Borrowed(text), self.dialect.unclassified());
        }
        if self.replication
            && let Some(sql) = sql::classify_replication(text)
        {
            return (Cow::Borrowed(text), Arc::new(ad_hoc_sql(sql)));
        }
        let conforming = self.dialect.standard_conforming_strings;
        let dialect = Dialect {
            standard_conforming_strings: conforming,
        };
        if self.dialect.uncertain && text.contains('\\') {
            let other = Dialect {
                standard_conforming_strings: !conforming,
            };
            if sql::classify_with(text, dialect) != sql::classify_with(text, other) {
                return (Cow::Borrowed(text), self.dialect.unclassified());
            }
        }
        (
            Cow::Borrowed(text),
            self.classifier.classify_with(text, dialect),
        )
    }

    /// Judges what is about to run, and puts it on record.
    pub(super) fn judge(
        &mut self,
        now: FlowTime,
        asked: &Asked<'_>,
        classified: &Arc<Classified>,
        portal: Option<Arc<Portal>>,
        out: &mut Outbox,
    ) -> Judged {
        self.totals.exchanges += 1;
        let mut exchange = Exchange::new(self.totals.exchanges, now);
        exchange.unmasked = Unmasked::new(self.journal.seals());
        exchange.classified = Some(Arc::clone(classified));
        let meaning = self.meaning(classified);
        let (judgement, copy) = self.decide(now, Count::Yes, asked, classified, &meaning);
        let (resolved, _) = meaning;
        let sql = resolved.as_deref().unwrap_or(&classified.sql);
        exchange.record = judgement.record;
        exchange.masks.clone_from(&judgement.masks);
        exchange.severity = judgement.severity;
        exchange.limits = judgement.limits;
        if matches!(judgement.verdict, Verdict::Hold(_)) {
            exchange.tags_held.clone_from(&judgement.tags);
        }
        exchange.portal = portal;
        exchange.copy = copy;
        if !classified.effects.is_empty() {
            exchange.text = Arc::from(asked.text);
        }
        let ruling = self.record_command(
            now,
            asked,
            sql,
            &mut exchange,
            judgement,
            classified.id,
            out,
        );
        exchange.sql = resolved;
        if matches!(ruling, Ruling::Pass(_) | Ruling::Hold(_)) {
            let sql = exchange.sql.clone();
            let sql = sql.as_deref().unwrap_or(&classified.sql);
            self.dialect.will_run(sql);
            self.names_will_change(classified, sql);
        }
        Judged { exchange, ruling }
    }

    /// Judges a statement that is only prepared: an exchange comes of it only
    /// when it is refused. One that would be held when it runs is let be prepared.
    pub(super) fn judge_parse(
        &mut self,
        now: FlowTime,
        asked: &Asked<'_>,
        classified: &Arc<Classified>,
        out: &mut Outbox,
    ) -> Result<(), Box<Judged>> {
        let meaning = self.meaning(classified);
        let (judgement, _) = self.decide(now, Count::No, asked, classified, &meaning);
        match judgement.verdict {
            Verdict::Allow(permit) => {
                refuse::spend(permit);
                Ok(())
            }
            Verdict::Hold(_) => Ok(()),
            Verdict::Block(_) | Verdict::Kill(_) => {
                Err(Box::new(self.judge(now, asked, classified, None, out)))
            }
        }
    }

    /// What the rules say, made stricter where an answer could not be masked.
    fn decide(
        &mut self,
        now: FlowTime,
        count: Count,
        asked: &Asked<'_>,
        classified: &Classified,
        (resolved, meaning): &(Option<Arc<Sql>>, Option<Meaning>),
    ) -> (Judgement, Option<CopyPlan>) {
        let sql = resolved.as_deref().unwrap_or(&classified.sql);
        let operation = Operation::Postgres(PgOperation {
            sql,
            text: asked.text,
            database: &self.database,
            user: &self.user,
            meaning: *meaning,
        });
        let now = self.opened.after(now.0);
        let mut judgement = match count {
            Count::Yes => self.scope.judge(&operation, &mut self.standing, now),
            Count::No => self.scope.preview(&operation, &self.standing, now),
        };
        let mut copy = None;
        if matches!(judgement.verdict, Verdict::Allow(_) | Verdict::Hold(_)) {
            let objection = match refused_always(classified) {
                Some(why) => Some(why.to_owned()),
                None => match unmaskable::copy_plan(sql, classified, judgement.masks.as_ref()) {
                    Ok(plan) => {
                        copy = plan;
                        None
                    }
                    Err(why) => Some(why),
                },
            };
            if let Some(why) = objection {
                judgement.verdict = Verdict::Block(Refusal {
                    rule: None,
                    message: Arc::from(why),
                });
            }
        }
        (judgement, copy)
    }

    /// Texts of what `EXECUTE` and `FETCH` stand for, in order.
    pub(super) fn stands_for(&self, classified: &Classified) -> Vec<Arc<str>> {
        self.all_referred(classified)
            .map(|prepared| Arc::clone(&prepared.text))
            .collect()
    }

    /// Meanings of what `EXECUTE` and `FETCH` stand for, where known.
    pub(super) fn inner_meanings(&self, classified: &Classified) -> Vec<Arc<Classified>> {
        self.all_referred(classified)
            .map(|prepared| Arc::clone(&prepared.classified))
            .collect()
    }

    fn all_referred<'a>(
        &'a self,
        classified: &'a Classified,
    ) -> impl Iterator<Item = &'a Arc<Prepared>> {
        let effects = classified.effects.iter();
        effects.filter_map(|(_, effect)| self.referred(effect))
    }

    /// The statement that `EXECUTE` or `FETCH` stands for.
    fn referred(&self, effect: &Effect) -> Option<&Arc<Prepared>> {
        match effect {
            Effect::Execute { name } => self.statements.statement(name),
            Effect::Fetch { cursor } => self
                .statements
                .portal(cursor.as_bytes())
                .and_then(|portal| portal.statement.as_ref()),
            _ => None,
        }
    }

    /// The meaning of a statement with what `EXECUTE` and `FETCH` stand for put
    /// in; `None` where it stands for itself.
    pub(super) fn resolve(&self, classified: &Classified) -> Option<Arc<Sql>> {
        let mut sql: Option<Sql> = None;
        for (place, effect) in &classified.effects {
            if !matches!(effect, Effect::Execute { .. } | Effect::Fetch { .. }) {
                continue;
            }
            let inner = self.referred(effect).map_or_else(
                || self.dialect.unclassified(),
                |prepared| Arc::clone(&prepared.classified),
            );
            let sql = sql.get_or_insert_with(|| classified.sql.clone());
            let Some(outer) = sql.statements.get_mut(*place) else {
                continue;
            };
            for statement in &inner.sql.statements {
                *outer = sql::merge(outer, statement);
            }
        }
        sql.map(Arc::new)
    }
}

/// How bad the alert of a verdict is where no rule says it.
pub(super) fn default_severity(killed: bool) -> Severity {
    if killed {
        Severity::High
    } else {
        Severity::Medium
    }
}
