//! Answers that grow past what the rules let them come to.
//!
//! What is over a limit never reaches the agent: the command is cancelled
//! upstream, what still comes of its answer is kept back, and an error ends it.
//! The server's own error, which the cancellation brings, is the place for ours,
//! so that transactions and pipelines stay the server's business. A command that
//! is done before the cancellation reaches it is ended by an error all the same,
//! which says that it is done.

use std::sync::Arc;

use interceptor_policy::Refusal;
use interceptor_policy::verdict::Severity;
use interceptor_proto::pg::frame::Head;
use interceptor_proto::pg::sqlstate;
use interceptor_proto::pg::tag::backend as tag;
use serde_json::json;

use super::exchange::Exchange;
use super::owed::Owed;
use super::refuse::{self, Manner};
use super::{PgSession, Phase};
use crate::event::{FlowTime, Kind};
use crate::session::{Outbox, Side};

/// An answer that was cut.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// What the agent is told.
    pub(super) refusal: Refusal,
    /// Whether it has been told.
    told: bool,
}

/// What was too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Rows(u64),
    Bytes(u64),
    Millis(u128),
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Self::Rows(_) => "rows",
            Self::Bytes(_) => "bytes",
            Self::Millis(_) => "duration",
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(most) => write!(f, "more than {most} rows"),
            Self::Bytes(most) => write!(f, "more than {most} bytes"),
            Self::Millis(most) => write!(f, "more than {most} ms"),
        }
    }
}

/// What one more row of `bytes` would exceed.
fn exceeded(exchange: &Exchange, bytes: usize) -> Option<Limit> {
    let limits = &exchange.limits;
    if let Some(most) = limits.rows.filter(|most| exchange.rows >= *most) {
        return Some(Limit::Rows(most));
    }
    let total = exchange.bytes.saturating_add(bytes as u64);
    limits.bytes.filter(|most| total > *most).map(Limit::Bytes)
}

impl PgSession {
    /// Before a row of `bytes` is passed on; whether it may be.
    pub(super) fn row_within_limits(
        &mut self,
        now: FlowTime,
        bytes: usize,
        out: &mut Outbox,
    ) -> bool {
        let Some(exchange) = self.owed.front().and_then(Owed::exchange) else {
            return true;
        };
        if exchange.cut.is_some() {
            return false;
        }
        if exchange.limits.is_empty() {
            return true;
        }
        match exceeded(exchange, bytes) {
            None => true,
            Some(limit) => {
                self.cut(now, limit, out);
                false
            }
        }
    }

    /// When the answer that is under way is due.
    pub(super) fn answer_due(&self) -> Option<FlowTime> {
        let exchange = self.owed.first().and_then(Owed::exchange_ref)?;
        let most = exchange
            .limits
            .duration
            .filter(|_| exchange.cut.is_none())?;
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Some(FlowTime(exchange.started.0.saturating_add(micros)))
    }

    pub(super) fn time_is(&mut self, now: FlowTime, out: &mut Outbox) {
        if self.phase == Phase::Over || self.answer_due().is_none_or(|due| now < due) {
            return;
        }
        let most = self
            .owed
            .front()
            .and_then(Owed::exchange)
            .and_then(|exchange| exchange.limits.duration);
        if let Some(most) = most {
            self.cut(now, Limit::Millis(most.as_millis()), out);
        }
    }

    fn cut(&mut self, now: FlowTime, limit: Limit, out: &mut Outbox) {
        let Some(exchange) = self.owed.front().and_then(Owed::exchange) else {
            return;
        };
        let message: Arc<str> = format!("the answer was cut off: {limit}").into();
        exchange.cut = Some(Cut {
            refusal: Refusal {
                rule: None,
                message: Arc::clone(&message),
            },
            told: false,
        });
        exchange.manner = Manner::Limit;
        let number = exchange.number;
        let severity = exchange.severity.unwrap_or(Severity::Medium);
        let meta = json!({
            "limit": limit.name(),
            "rows": exchange.rows,
            "bytes": exchange.bytes,
            "severity": severity.name(),
        });
        out.cancel = true;
        out.events.push(
            self.journal
                .event(now, Kind::Limit, Some(number), &*message)
                .with_meta(meta.to_string())
                .with_alert(severity),
        );
    }

    /// Takes a message of an answer that was cut; whether it was one.
    pub(super) fn swallow(&mut self, now: FlowTime, head: Head, out: &mut Outbox) -> bool {
        let Some(exchange) = self.owed.front().and_then(Owed::exchange) else {
            return false;
        };
        let Some(cut) = &exchange.cut else {
            return false;
        };
        match head.tag {
            tag::ERROR_RESPONSE => cut.told,
            tag::ROW_DESCRIPTION
            | tag::DATA_ROW
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_OUT_RESPONSE => true,
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED => {
                self.done_all_the_same(now, out);
                true
            }
            _ => false,
        }
    }

    /// The command was done before its cancellation reached it.
    fn done_all_the_same(&mut self, now: FlowTime, out: &mut Outbox) {
        let session = self.journal.session();
        let Some(exchange) = self.owed.front().and_then(Owed::exchange) else {
            return;
        };
        exchange.completed += 1;
        exchange.failed = true;
        let number = exchange.number;
        if let Some(cut) = exchange.cut.as_mut().filter(|cut| !cut.told) {
            cut.told = true;
            let refusal = Refusal {
                rule: cut.refusal.rule.clone(),
                message: format!("{}; the command itself is done", cut.refusal.message).into(),
            };
            let error = refuse::error(session, number, &refusal, Manner::Limit, false);
            out.write(Side::Downstream, &error);
        }
        if !matches!(self.owed.first(), Some(Owed::Execute(_))) {
            return;
        }
        if let Some(Owed::Execute(exchange)) = self.owed.pop() {
            self.record_end(now, *exchange, out);
        }
        // The agent takes everything up to its `Sync` for skipped, and the
        // server has not skipped it.
        if !matches!(self.owed.first(), Some(Owed::Sync)) {
            self.end_with(
                now,
                sqlstate::PROGRAM_LIMIT_EXCEEDED,
                "an answer was cut off in the middle of a pipeline that went on",
                out,
            );
        }
    }
}
