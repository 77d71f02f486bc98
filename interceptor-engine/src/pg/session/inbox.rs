//! Bytes on their way in, and how a message's bytes go out again.

use crate::session::{Outbox, Side};

/// What to do with a message, by its head alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Wait until it is whole, then read it.
    Whole,
    /// Forward it as it comes.
    Pass,
    /// It would have to be read whole, and is too long for that.
    TooLong,
    /// It has no place here.
    Refuse(&'static str),
}

/// What of one side's bytes waits.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// The beginning of what is not whole yet.
    pub(super) kept: Vec<u8>,
    /// Bytes still to come of a message that is forwarded as it comes.
    pub(super) passing: usize,
}

/// A message's bytes, and whether they lie in the shell's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) bytes: &'a [u8],
    at: Option<usize>,
}

impl<'a> Source<'a> {
    /// Bytes of the input of this call, at this place.
    pub(super) fn input(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at: Some(at),
        }
    }

    /// Bytes kept from earlier calls.
    pub(super) fn kept(bytes: &'a [u8]) -> Self {
        Self { bytes, at: None }
    }

    /// Forwards them as they are.
    pub(super) fn forward(self, to: Side, out: &mut Outbox) {
        match self.at {
            Some(at) => out.forward(to, at..at + self.bytes.len()),
            None => out.write(to, self.bytes),
        }
    }

    /// The message without tag and length.
    pub(super) fn body(self) -> &'a [u8] {
        self.bytes
            .get(interceptor_proto::pg::frame::HEADER..)
            .unwrap_or_default()
    }
}
