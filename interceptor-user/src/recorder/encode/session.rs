//! What is remembered of an open session.

use std::sync::Arc;

use interceptor_engine::chain::Head;
use interceptor_engine::event::{FlowTime, opened_ms};
use interceptor_engine::evidence::statement::{SessionHead, State};
use uuid::Uuid;

use super::entries::add_to;
use crate::recorder::spool::Note;

/// An open session.
pub(super) struct Session {
    /// Its id, in text.
    pub(super) id: String,
    /// `XADD <key>`, encoded.
    pub(super) add: Vec<u8>,
    /// Milliseconds since 1970, as its UUIDv7 says.
    pub(super) opened_ms: u64,
    /// Of its last entry; entry IDs never go back.
    pub(super) last_ms: u64,
    pub(super) agent: String,
    pub(super) target: String,
    pub(super) run: Option<Arc<str>>,
    pub(super) head: Head,
    /// Its next event's number.
    pub(super) next_seq: u64,
    /// The same, when its head was last signed.
    pub(super) signed: u64,
    /// Of its last event.
    pub(super) at: FlowTime,
    /// It is among those that the batch touched.
    pub(super) touched: bool,
}

impl Session {
    pub(super) fn new(id: Uuid, prefix: &str) -> Self {
        let opened_ms = opened_ms(id);
        let id = id.to_string();
        let add = add_to(prefix, &format!("session:{{{id}}}"), &[]);
        Self {
            id,
            add,
            opened_ms,
            last_ms: 0,
            agent: String::new(),
            target: String::new(),
            run: None,
            head: Head::START,
            next_seq: 0,
            at: FlowTime::default(),
            touched: false,
            signed: 0,
        }
    }

    /// How far it is, as if nothing followed.
    pub(super) fn state(&self, session: Uuid) -> SessionHead {
        SessionHead {
            session,
            events: self.next_seq,
            chain: self.head,
            state: State::Closed,
        }
    }

    /// As another process left it.
    pub(super) fn resumed(note: &Note, prefix: &str) -> Self {
        Self {
            last_ms: note.last_ms,
            agent: note.agent.clone(),
            target: note.target.clone(),
            run: (!note.run.is_empty()).then(|| note.run.as_str().into()),
            head: Head::from_bytes(note.head),
            next_seq: note.next_seq,
            at: FlowTime(note.at),
            ..Self::new(note.session, prefix)
        }
    }

    pub(super) fn note(&self, id: Uuid) -> Note {
        Note {
            session: id,
            next_seq: self.next_seq,
            at: self.at.0,
            last_ms: self.last_ms,
            head: self.head.to_bytes(),
            closed: false,
            agent: self.agent.clone(),
            target: self.target.clone(),
            run: self.run.as_deref().unwrap_or_default().to_owned(),
        }
    }
}
