//! Which tables the names in a statement mean, asked of the catalog before the
//! statement is judged.
//!
//! The first statement that names a table waits for the answer, with everything
//! that the agent sends behind it. Answers count for a while; a statement that
//! changes the schema makes them old at once, and what the catalog does not know
//! is asked again every time: it may be there by then. What another session has
//! not committed is not in the catalog, and what this one has not is not either:
//! such names are `unresolved`, and rules can refuse that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use interceptor_policy::operation::{Class, Meaning, Sql, Table};
use interceptor_proto::pg::frame;

use super::PgSession;
use super::inbox::Source;
use super::judge::AD_HOC;
use crate::event::FlowTime;
use crate::pg::catalog::{TableInfo, meaning_of};
use crate::pg::sql::{self, Classified, Effect, Resolved};
use crate::session::{Lookup, Outbox};

/// How long an answer counts, in microseconds.
const FRESH: u64 = 10_000_000;
/// Names and meanings that are kept; past it all are asked for anew.
const KEPT: usize = 1024;
/// Most names of one message that are asked for; with more, none is.
const ASKED: usize = 512;

/// Numbers of meanings with names written in: far from those that texts have,
/// and of one process, since a scope may serve several sessions.
static NUMBERS: AtomicU64 = AtomicU64::new(1 << 63);

/// What a session knows of the names that it has used.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Table, Resolved>,
    /// Asked for this message, and not there.
    missing: HashSet<Table>,
    /// When the oldest answer came.
    since: FlowTime,
    /// Unqualified names of temporary tables that this session may have made.
    temporary: HashSet<Arc<str>>,
    /// Meanings with the names written in, by the meaning's number, and the
    /// numbers that they have themselves.
    meanings: HashMap<u64, (u64, Arc<Sql>)>,
    /// The shell must not answer from its memory.
    changed: bool,
    /// The message that waits for names.
    waiting: Option<Vec<u8>>,
}

impl Names {
    /// Whether a message waits.
    pub(super) fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    fn forget(&mut self) {
        self.known.clear();
        self.meanings.clear();
    }

    fn resolved(&self, table: &Table) -> Option<Resolved> {
        let known = self.known.get(table).cloned();
        match &table.schema {
            None if self.temporary.contains(&table.name) => {
                Some(known.unwrap_or_default().shadowed_by(&table.name))
            }
            _ => known,
        }
    }

    fn is_settled(&self, table: &Table) -> bool {
        self.known.contains_key(table) || self.missing.contains(table)
    }
}

impl PgSession {
    /// Asks for the names of a statement that are not known; whether its message
    /// has to wait.
    pub(super) fn wait_for_tables(
        &mut self,
        now: FlowTime,
        classified: &Classified,
        source: Source<'_>,
        out: &mut Outbox,
    ) -> bool {
        if !self.has_catalog || self.replication {
            return false;
        }
        if now.0.saturating_sub(self.names.since.0) > FRESH {
            self.names.forget();
        }
        let mut unknown: Vec<Table> = Vec::new();
        let inner = self.inner_meanings(classified);
        let all = std::iter::once(&classified.sql).chain(inner.iter().map(|inner| &inner.sql));
        for table in all.flat_map(|sql| &sql.statements).flat_map(|s| &s.tables) {
            if !self.names.is_settled(table) && !unknown.contains(table) {
                unknown.push(table.clone());
            }
        }
        if unknown.is_empty() || unknown.len() > ASKED {
            return false;
        }
        if self.names.known.is_empty() {
            self.names.since = now;
        }
        self.names.waiting = Some(source.bytes.to_vec());
        out.tables = Some(Lookup {
            tables: unknown,
            fresh: std::mem::take(&mut self.names.changed),
        });
        true
    }

    /// The catalog's answer to [`Outbox::tables`]; what it lacks is not known.
    pub(super) fn tables_arrived(
        &mut self,
        now: FlowTime,
        asked: Vec<(Table, Vec<TableInfo>)>,
        out: &mut Outbox,
    ) {
        let Some(frame) = self.names.waiting.take() else {
            return;
        };
        if self.names.known.len() + asked.len() > KEPT {
            self.names.forget();
            self.names.since = now;
        }
        for (table, infos) in asked {
            if infos.is_empty() {
                self.names.missing.insert(table);
            } else {
                self.names.known.insert(table, meaning_of(&infos));
            }
        }
        if let Ok(Some(head)) = frame::head(&frame) {
            self.asked(now, head, Source::kept(&frame), out);
        }
        self.names.missing.clear();
        if self.held.is_none() && !self.names.waits() {
            self.go_on(now, out);
        }
    }

    /// What a statement means, with what `EXECUTE` and `FETCH` stand for and the
    /// catalog's names put in; `None` where that is what its text says. And the
    /// number of that, where it has one.
    pub(super) fn meaning(
        &mut self,
        classified: &Classified,
    ) -> (Option<Arc<Sql>>, Option<Meaning>) {
        let inner = self.resolve(classified);
        let numbered = inner.is_none() && classified.id != AD_HOC;
        let number = |id| Meaning {
            id,
            exact: classified.exact,
        };
        if !self.has_catalog || self.replication {
            return (inner, numbered.then(|| number(classified.id)));
        }
        let keeps = numbered && self.names.missing.is_empty();
        if keeps && let Some((id, known)) = self.names.meanings.get(&classified.id) {
            return (Some(Arc::clone(known)), Some(number(*id)));
        }
        let sql = inner.as_deref().unwrap_or(&classified.sql);
        let named = Arc::new(sql::resolve(sql, &|table| self.names.resolved(table)));
        if !keeps {
            return (Some(named), None);
        }
        if self.names.meanings.len() >= KEPT {
            self.names.meanings.clear();
        }
        let id = NUMBERS.fetch_add(1, Ordering::Relaxed);
        self.names
            .meanings
            .insert(classified.id, (id, Arc::clone(&named)));
        (Some(named), Some(number(id)))
    }

    /// A statement is about to run that may change what names mean.
    pub(super) fn names_will_change(&mut self, classified: &Classified, sql: &Sql) {
        if !self.has_catalog {
            return;
        }
        let changes = sql.statements.iter().any(|statement| {
            statement.classes.contains(Class::Ddl) || statement.classes.contains(Class::Procedural)
        });
        if changes {
            self.names.forget();
            self.names.changed = true;
        }
        for (_, effect) in &classified.effects {
            if let Effect::Temporary { name } = effect {
                if self.names.temporary.len() >= KEPT {
                    // Every name may be one of them, which `May` covers and
                    // `Must` does not.
                    continue;
                }
                self.names.temporary.insert(Arc::clone(name));
                self.names.meanings.clear();
            }
        }
    }
}
