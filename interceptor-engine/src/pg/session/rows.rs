//! Rows on their way to the agent: passed as they are, or rewritten.
//!
//! This is where bulk results go, so rows that no mask can touch are walked by
//! their heads alone and leave as one range.

use std::sync::Arc;

use interceptor_policy::RecordLevel;
use interceptor_proto::pg::frame::{self, Head};
use interceptor_proto::pg::tag::backend as tag;

use super::exchange::Exchange;
use super::inbox::Source;
use super::owed::Owed;
use super::{PgSession, Phase};
use crate::event::FlowTime;
use crate::pg::mask::{CopyPlan, Fields, RowPlan, TableNames, Treatment};
use crate::session::{Outbox, Side};

/// Bytes of rows that detectors look at in one go.
const LOOKED_AT: usize = 16 << 10;

impl PgSession {
    pub(super) fn rows_pass(&mut self) -> bool {
        match self.owed.front() {
            Some(Owed::Query(exchange) | Owed::Execute(exchange)) => {
                exchange.refusal.is_none()
                    && exchange.limits.is_empty()
                    && match &exchange.plan {
                        Some(plan) => plan.is_untouched(),
                        None => exchange.masks.is_none(),
                    }
            }
            _ => false,
        }
    }

    pub(super) fn copy_rows_pass(&mut self) -> bool {
        match self.owed.front().and_then(Owed::exchange) {
            Some(exchange) => {
                exchange.refusal.is_none()
                    && exchange.limits.is_empty()
                    && exchange.copy.as_ref().is_none_or(CopyPlan::is_untouched)
            }
            None => false,
        }
    }

    /// Takes a run of whole rows at the front of `rest` at once; the length of
    /// what was taken. This is where bulk results go: rows that no mask can touch
    /// pass as one range, and only a block in which a detector may find something
    /// is looked at row by row.
    pub(super) fn pass_rows(
        &mut self,
        now: FlowTime,
        at: usize,
        rest: &[u8],
        out: &mut Outbox,
    ) -> usize {
        let Some(&first) = rest.first() else { return 0 };
        if first != tag::DATA_ROW && first != tag::COPY_DATA {
            return 0;
        }
        if first == tag::DATA_ROW && !self.begin_rows(now, out) {
            return 0;
        }
        let Some(Owed::Query(exchange) | Owed::Execute(exchange)) = self.owed.front() else {
            return 0;
        };
        // Counted one by one.
        if exchange.refusal.is_some() || !exchange.limits.is_empty() {
            return 0;
        }
        let treatment = if first == tag::DATA_ROW {
            match (&exchange.plan, &exchange.masks) {
                (Some(plan), _) => plan.treatment(),
                (None, None) => Treatment::Pass,
                (None, Some(_)) => return 0,
            }
        } else {
            exchange
                .copy
                .as_ref()
                .map_or(Treatment::Pass, CopyPlan::treatment)
        };
        let limit = match treatment {
            Treatment::Rewrite => return 0,
            Treatment::Look => LOOKED_AT,
            Treatment::Pass => usize::MAX,
        };
        let (len, rows) = run_of_rows(first, rest, limit);
        let run = rest.get(..len).unwrap_or_default();
        if run.is_empty() {
            return 0;
        }
        let passes = match (first, &exchange.plan, &exchange.copy) {
            (tag::DATA_ROW, Some(plan), _) => plan.passes(run),
            (tag::COPY_DATA, _, Some(copy)) => copy.passes(run),
            _ => true,
        };
        if passes {
            exchange.rows += rows;
            out.forward(Side::Downstream, at..at + len);
            self.keep_result(now, run, out);
            return len;
        }
        let mut done = 0;
        while let Some(next) = run.get(done..).filter(|next| !next.is_empty())
            && let Ok(Some(head)) = frame::head(next)
            && let Some(row) = next.get(..head.total())
            && self.phase != Phase::Over
        {
            let source = Source::input(row, at + done);
            if first == tag::DATA_ROW {
                self.row(now, source, out);
            } else {
                self.copy_row(now, source, out);
            }
            done += row.len();
        }
        len
    }

    /// Counts a row that is passed on as it comes. Where it is the first of its
    /// result, [`Self::pass_rows`] has seen its beginning.
    pub(super) fn count_row(&mut self, head: Head) {
        if matches!(head.tag, tag::DATA_ROW | tag::COPY_DATA)
            && let Some(exchange) = self.owed.front().and_then(Owed::exchange)
        {
            exchange.rows += 1;
        }
    }

    /// Before the first row of an execution: how its rows are treated, and its
    /// columns for the record.
    pub(super) fn begin_rows(&mut self, now: FlowTime, out: &mut Outbox) -> bool {
        let Some(Owed::Execute(exchange)) = self.owed.front() else {
            return true;
        };
        if exchange.plan.is_some() {
            return true;
        }
        let described = exchange.portal.as_ref().and_then(|portal| portal.fields());
        let plan = match (&described, &exchange.masks) {
            (_, None) => RowPlan::untouched(),
            (Some(fields), Some(_)) => plan(exchange, fields, &self.tables),
            (None, Some(_)) => {
                self.broken(now, Side::Upstream, "rows without their description", out);
                return false;
            }
        };
        let raw = match described {
            Some(fields) => Some(fields.raw.clone()),
            None => exchange.portal.as_ref().and_then(|portal| {
                let fields = portal.statement.as_ref()?.fields()?;
                Some(fields.raw_with_formats(&portal.result_formats))
            }),
        };
        exchange.plan = Some(Arc::new(plan));
        if let Some(raw) = raw.filter(|_| exchange.record == RecordLevel::Full) {
            exchange.unmasked.follow(&raw);
            exchange.part.extend_from_slice(&raw);
        }
        true
    }

    pub(super) fn row(&mut self, now: FlowTime, source: Source<'_>, out: &mut Outbox) {
        if !self.begin_rows(now, out) || !self.row_within_limits(now, source.bytes.len(), out) {
            return;
        }
        let Some(Owed::Query(exchange) | Owed::Execute(exchange)) = self.owed.front() else {
            return self.broken(now, Side::Upstream, "a row that was not asked for", out);
        };
        let Some(plan) = exchange.plan.clone() else {
            return self.broken(now, Side::Upstream, "rows without their description", out);
        };
        exchange.rows += 1;
        if plan.passes(source.bytes) {
            source.forward(Side::Downstream, out);
            return self.keep_result(now, source.bytes, out);
        }
        let written = out.owned(Side::Downstream);
        let start = written.len();
        match plan.mask_row(source.body(), &self.key, written) {
            Ok(hidden) => {
                exchange.masked += hidden;
                let masked = written.get(start..).unwrap_or_default();
                match hidden {
                    0 => exchange.keep(masked),
                    _ => exchange.keep_masked(masked, source.bytes),
                }
                self.keep_result(now, &[], out);
            }
            Err(error) => self.broken(now, Side::Upstream, &error.to_string(), out),
        }
    }

    pub(super) fn copy_row(&mut self, now: FlowTime, source: Source<'_>, out: &mut Outbox) {
        if !self.row_within_limits(now, source.bytes.len(), out) {
            return;
        }
        let key = self.key.clone();
        let Some(exchange) = self.owed.front().and_then(Owed::exchange) else {
            return self.broken(now, Side::Upstream, "COPY data that was not asked for", out);
        };
        exchange.rows += 1;
        let masked = match &exchange.copy {
            Some(copy) => copy.mask(exchange.rows, source.body(), exchange.copy_binary, &key),
            None => Ok(None),
        };
        match masked {
            Ok(None) => {
                source.forward(Side::Downstream, out);
                self.keep_result(now, source.bytes, out);
            }
            Ok(Some((row, hidden))) => {
                exchange.masked += hidden;
                let mut framed = Vec::with_capacity(row.len() + frame::HEADER);
                framed.push(tag::COPY_DATA);
                let len = u32::try_from(row.len() + 4).unwrap_or(u32::MAX);
                framed.extend_from_slice(&len.to_be_bytes());
                framed.extend_from_slice(&row);
                out.write(Side::Downstream, &framed);
                exchange.keep_masked(&framed, source.bytes);
                self.keep_result(now, &[], out);
            }
            Err(error) => self.end_with(
                now,
                interceptor_proto::pg::sqlstate::FEATURE_NOT_SUPPORTED,
                &error.to_string(),
                out,
            ),
        }
    }
}

/// The longest run of whole rows at the front of `rest`: its bytes and rows.
/// Ends at the first row past `limit` bytes.
fn run_of_rows(first: u8, rest: &[u8], limit: usize) -> (usize, u64) {
    let mut len = 0;
    let mut rows = 0;
    while len < limit
        && let Some(next) = rest.get(len..)
        && next.first() == Some(&first)
        && let Ok(Some(head)) = frame::head(next)
        && head.total() <= next.len()
    {
        len += head.total();
        rows += 1;
    }
    (len, rows)
}

/// How the rows of an exchange with these columns are treated.
pub(super) fn plan(exchange: &Exchange, fields: &Fields, tables: &TableNames) -> RowPlan {
    let Some(masks) = &exchange.masks else {
        return RowPlan::untouched();
    };
    let sql = exchange.sql.as_deref().or(exchange
        .classified
        .as_deref()
        .map(|classified| &classified.sql));
    RowPlan::new(fields, masks, sql, exchange.completed, tables)
}
