//! Waiting for the names of a result's tables.

use std::sync::Arc;

use interceptor_proto::pg::backend::RowDescription;
use interceptor_proto::pg::frame;

use super::PgSession;
use super::hold::own;
use super::inbox::Source;
use crate::event::FlowTime;
use crate::pg::catalog::TableInfo;
use crate::session::{Outbox, Side};

/// How long an answer counts, in microseconds: a renamed column is masked by its
/// new name within this time and that of the shell's own memory.
const FRESH: u64 = 10_000_000;

/// A row description that cannot be judged before names are known.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The frame.
    frame: Vec<u8>,
    /// The tables asked for.
    oids: Vec<u32>,
}

impl PgSession {
    /// Tables of this result whose names are not known yet, or for too long.
    pub(super) fn unknown_tables(
        &self,
        now: FlowTime,
        description: &RowDescription<'_>,
    ) -> Vec<u32> {
        if !self.has_catalog {
            return Vec::new();
        }
        let mut oids: Vec<u32> = description
            .fields()
            .map(|field| field.table_oid)
            .filter(|oid| *oid != 0)
            .filter(|oid| {
                self.tables_since
                    .get(oid)
                    .is_none_or(|since| now.0.saturating_sub(since.0) > FRESH)
            })
            .collect();
        oids.sort_unstable();
        oids.dedup();
        oids
    }

    /// Keeps a row description until the names are there.
    pub(super) fn wait_for_names(&mut self, source: Source<'_>, oids: Vec<u32>, out: &mut Outbox) {
        self.waiting = Some(Waiting {
            frame: source.bytes.to_vec(),
            oids: oids.clone(),
        });
        out.catalog = Some(oids);
    }

    /// The catalog's answer to [`Outbox::catalog`]; what it lacks is treated as
    /// not known, and an error as an empty answer.
    pub(super) fn names_arrived(
        &mut self,
        now: FlowTime,
        tables: Vec<TableInfo>,
        out: &mut Outbox,
    ) {
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        for oid in waiting.oids {
            // What was known stays known where nobody could be asked this time.
            self.tables.entry(oid).or_insert(None);
            self.tables_since.insert(oid, now);
        }
        for table in tables {
            self.tables.insert(table.oid, Some(Arc::new(table)));
        }
        if let Ok(Some(head)) = frame::head(&waiting.frame) {
            self.answered(now, head, Source::kept(&waiting.frame), out);
        }
        let kept = std::mem::take(&mut self.up.kept);
        let (before_down, before_up) = (out.downstream.len(), out.upstream.len());
        self.take(now, Side::Upstream, &kept, out);
        // Those ranges are of bytes that nobody else has.
        own(&mut out.downstream, before_down, &kept);
        own(&mut out.upstream, before_up, &kept);
    }
}
