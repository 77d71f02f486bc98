//! What a session amounted to.

use serde_json::json;

use crate::event::{Event, FlowTime, Kind};
use crate::journal::Journal;

/// Counts of a session, whatever it speaks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) exchanges: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) blocked: u64,
    pub(crate) masked: u64,
    pub(crate) killed: bool,
}

impl Totals {
    /// The session's last event.
    pub(crate) fn close(self, journal: &mut Journal, now: FlowTime, reason: &str) -> Event {
        let worst = match (self.killed, self.blocked, self.masked) {
            (true, _, _) => "kill",
            (_, 1.., _) => "block",
            (_, _, 1..) => "mask",
            _ => "allow",
        };
        let seconds = now.0 / 1_000_000;
        let line = format!(
            "{reason} after {seconds}.{:03} s, {} exchanges, {} refused, {} values masked",
            now.0 / 1000 % 1000,
            self.exchanges,
            self.blocked,
            self.masked
        );
        let meta = json!({
            "reason": reason,
            "duration_us": now.0,
            "seconds": seconds,
            "exchanges": self.exchanges,
            "refused": self.blocked,
            "masked": self.masked,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "worst": worst,
        });
        let event = journal.event(now, Kind::Close, None, line);
        event.with_meta(meta.to_string())
    }
}
