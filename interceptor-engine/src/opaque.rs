//! A flow whose bytes nobody here can read.
//!
//! It is relayed only where the operator chose so (`uninspected: allow` or
//! `record`); with `record` its bytes go on record as they are, in both
//! directions.

use interceptor_policy::verdict::Severity;
use serde_json::json;

use crate::event::{FlowTime, Kind};
use crate::journal::Journal;
use crate::pg::catalog::TableInfo;
use crate::session::{End, Outbox, Session, Side};

/// Bytes that make one event.
const PART: usize = 64 << 10;

/// A flow that is relayed unread.
#[derive(Debug)]
pub struct OpaqueSession {
    journal: Journal,
    records: bool,
    parts: [Vec<u8>; 2],
    bytes: [u64; 2],
    over: bool,
    closed: bool,
}

impl OpaqueSession {
    /// `records` says whether its bytes go on record.
    #[must_use]
    pub fn new(journal: Journal, records: bool) -> Self {
        Self {
            journal,
            records,
            parts: [Vec::new(), Vec::new()],
            bytes: [0, 0],
            over: false,
            closed: false,
        }
    }

    /// Records the opening, with the shell's facts as a JSON object.
    pub fn open(&mut self, now: FlowTime, line: String, meta: String, out: &mut Outbox) {
        let event = self.journal.event(now, Kind::Open, None, line);
        out.events
            .push(event.with_meta(meta).with_alert(Severity::Low));
    }

    fn flush(&mut self, now: FlowTime, from: Side, out: &mut Outbox) {
        let index = usize::from(from == Side::Upstream);
        let Some(part) = self.parts.get_mut(index).map(std::mem::take) else {
            return;
        };
        if part.is_empty() {
            return;
        }
        let (kind, whose) = match from {
            Side::Downstream => (Kind::Input, "the agent"),
            Side::Upstream => (Kind::Output, "the service"),
        };
        let line = format!("{} bytes from {whose}", part.len());
        let event = self.journal.event(now, kind, None, line);
        out.events.push(event.with_data(part));
    }
}

impl Session for OpaqueSession {
    fn handle_bytes(&mut self, now: FlowTime, from: Side, input: &[u8], out: &mut Outbox) {
        if self.over {
            return;
        }
        let index = usize::from(from == Side::Upstream);
        if let Some(bytes) = self.bytes.get_mut(index) {
            *bytes += input.len() as u64;
        }
        let to = match from {
            Side::Downstream => Side::Upstream,
            Side::Upstream => Side::Downstream,
        };
        out.forward(to, 0..input.len());
        if self.records
            && let Some(part) = self.parts.get_mut(index)
        {
            part.extend_from_slice(input);
            if part.len() >= PART {
                self.flush(now, from, out);
            }
        }
    }

    fn handle_eof(&mut self, _now: FlowTime, _from: Side, out: &mut Outbox) {
        self.over = true;
        out.end.get_or_insert(End::Closed);
    }

    fn wants_read(&self, _side: Side) -> bool {
        !self.over
    }

    fn handle_catalog(&mut self, _now: FlowTime, _tables: Vec<TableInfo>, _out: &mut Outbox) {}

    fn refuse(&mut self, _now: FlowTime, why: &str, out: &mut Outbox) {
        self.over = true;
        out.end.get_or_insert_with(|| End::Refused(why.to_owned()));
    }

    fn close(&mut self, now: FlowTime, reason: &str, out: &mut Outbox) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.flush(now, Side::Downstream, out);
        self.flush(now, Side::Upstream, out);
        let [up, down] = self.bytes;
        let line = format!("{reason}: {up} bytes up, {down} bytes down, none of them read");
        let meta = json!({
            "reason": reason,
            "duration_us": now.0,
            "seconds": now.0 / 1_000_000,
            "exchanges": 0,
            "bytes_up": up,
            "bytes_down": down,
            "worst": "allow",
        });
        let event = self.journal.event(now, Kind::Close, None, line);
        out.events.push(event.with_meta(meta.to_string()));
    }
}
