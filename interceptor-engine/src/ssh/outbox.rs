//! What the session tells the shell to do.

use std::sync::Arc;

use bytes::Bytes;
use interceptor_policy::Permit;

use crate::hold::Question;

/// What a call produced.
pub type Outbox = crate::outbox::Outbox<Act>;

/// Something to do.
#[derive(Debug)]
pub enum Act {
    /// Pass the request on.
    Forward(Permit),
    /// Pass the request on: it says how something runs that was judged by itself (a
    /// terminal, its size, a signal).
    Pass,
    /// Refuse the request, with these words.
    Refuse(Arc<str>),
    /// Ask a person, and hand the answer to `decided`.
    Ask(Box<Question>),
    /// Bytes for the origin.
    ToOrigin(Bytes),
    /// Bytes for the agent.
    ToAgent {
        /// On its standard error.
        stderr: bool,
        /// What.
        bytes: Bytes,
    },
    /// End the channel on both sides.
    Close,
}
