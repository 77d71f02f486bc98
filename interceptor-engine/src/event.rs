//! The recording's schema: one [`Event`] is one entry of a session's stream.

use std::sync::Arc;

use interceptor_policy::verdict::Severity;
use uuid::Uuid;

pub use crate::sealed::Sealed;

/// Version of the schema, written into every opening event's `meta`.
pub const SCHEMA: u32 = 1;

/// Time since the session opened, in microseconds, from a monotonic clock that
/// the shell reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowTime(pub u64);

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The session began; `meta` says who, where and how.
    Open,
    /// The agent was authenticated, or was not.
    Auth,
    /// The agent asked for something.
    Command,
    /// The rules answered, otherwise than by letting it pass untouched.
    Verdict,
    /// It waits for a person; `meta` has the question.
    Hold,
    /// What became of a question.
    Approval,
    /// An answer grew past what the rules let it come to.
    Limit,
    /// Bytes of an answer, and at its end what it came to.
    Result,
    /// The service, or Interceptor, answered with an error.
    Error,
    /// A mask hid something in the answer.
    Mask,
    /// A channel of an SSH connection opened, or one was refused.
    Channel,
    /// The agent's terminal has another size.
    Resize,
    /// Bytes the agent sent beside commands (`COPY … FROM STDIN`, a body, a
    /// message of a WebSocket).
    Input,
    /// Bytes of an answer's body, of a message of a WebSocket, or of a flow that
    /// is not parsed.
    Output,
    /// Something worth telling that is none of the others.
    Note,
    /// Something is missing from the record here; `meta` says how much.
    Gap,
    /// The session ended; `meta` says how, and how much there was.
    Close,
}

impl Kind {
    /// The word that stands in the record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Auth => "auth",
            Self::Command => "command",
            Self::Verdict => "verdict",
            Self::Hold => "hold",
            Self::Approval => "approval",
            Self::Limit => "limit",
            Self::Result => "result",
            Self::Error => "error",
            Self::Mask => "mask",
            Self::Channel => "channel",
            Self::Resize => "resize",
            Self::Input => "input",
            Self::Output => "output",
            Self::Note => "note",
            Self::Gap => "gap",
            Self::Close => "close",
        }
    }
}

/// One entry of a session's recording, before the recorder adds its `chain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The session; a UUIDv7.
    pub session: Uuid,
    /// The agent's run.
    pub run: Option<Arc<str>>,
    /// 0, 1, 2 …, without a gap.
    pub seq: u64,
    /// When.
    pub at: FlowTime,
    /// What it tells.
    pub kind: Kind,
    /// The exchange that it belongs to.
    pub exchange: Option<u64>,
    /// One line for a person; never longer than [`LINE_LIMIT`] bytes.
    pub line: String,
    /// Bytes, after masking. For PostgreSQL results: whole backend frames
    /// (`RowDescription`, `DataRow`, `CopyData`) as the agent got them.
    pub data: Vec<u8>,
    /// A JSON object, or empty.
    pub meta: String,
    /// What masks changed of it, as it was, where that is to be sealed.
    pub sealed: Sealed,
    /// Set when the event also goes to `alerts`.
    pub alert: Option<Severity>,
}

/// When a session opened, in milliseconds since 1970: the first 48 bits of its UUIDv7.
#[must_use]
pub fn opened_ms(session: Uuid) -> u64 {
    u64::try_from(session.as_u128() >> 80).unwrap_or_default()
}

/// Longest `line`, in bytes.
pub const LINE_LIMIT: usize = 512;

impl Event {
    /// About how many bytes it takes while it waits.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + self.line.len()
            + self.data.len()
            + self.meta.len()
            + self.sealed.weight()
    }
}
