//! Numbers a session's events.

use std::sync::Arc;

use interceptor_policy::verdict::Severity;
use uuid::Uuid;

use crate::event::{Event, FlowTime, Kind, LINE_LIMIT};

/// Makes the events of one session, in order and without a gap.
#[derive(Debug)]
pub struct Journal {
    session: Uuid,
    run: Option<Arc<str>>,
    next_seq: u64,
}

impl Journal {
    /// A journal that has written nothing.
    #[must_use]
    pub fn new(session: Uuid, run: Option<Arc<str>>) -> Self {
        Self {
            session,
            run,
            next_seq: 0,
        }
    }

    /// The session's id.
    #[must_use]
    pub fn session(&self) -> Uuid {
        self.session
    }

    /// The next event, without data or meta.
    pub fn event(
        &mut self,
        at: FlowTime,
        kind: Kind,
        exchange: Option<u64>,
        line: impl Into<String>,
    ) -> Event {
        let seq = self.next_seq;
        self.next_seq += 1;
        let mut line = line.into();
        truncate_at_char(&mut line, LINE_LIMIT);
        Event {
            session: self.session,
            run: self.run.clone(),
            seq,
            at,
            kind,
            exchange,
            line,
            data: Vec::new(),
            meta: String::new(),
            alert: None,
        }
    }
}

impl Event {
    /// With these bytes.
    #[must_use]
    pub fn with_data(mut self, data: Vec<u8>) -> Self {
        self.data = data;
        self
    }

    /// With this JSON object.
    #[must_use]
    pub fn with_meta(mut self, meta: String) -> Self {
        self.meta = meta;
        self
    }

    /// Also an alert.
    #[must_use]
    pub fn with_alert(mut self, severity: Severity) -> Self {
        self.alert = Some(severity);
        self
    }
}

/// Cuts `text` to at most `limit` bytes, never inside a character.
fn truncate_at_char(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}
