//! HTTP/1 on the wire, 1.0 and 1.1.
//!
//! * [`guard`] follows one side of a connection and lets through what has one
//!   reading only;
//! * [`head`] reads a head, [`framing`] says where its message ends and for whom
//!   it is, [`chunk`] reads what begins a chunk;
//! * [`websocket`] reads and writes frames of what HTTP may change into;
//! * [`error`] says what was wrong, and with which status that is answered.
//!
//! Stricter than RFC 9112 wherever it lets a recipient repair, guess or choose:
//! this is read in front of another reader. HTTP/2 has its own framing, which
//! has one reading, and is not read here.
//!
//! Spec: RFC 9110, RFC 9112, RFC 6455.

pub mod chunk;
mod cut;
pub mod error;
pub mod framing;
pub mod guard;
pub mod head;
pub mod websocket;

#[cfg(test)]
mod tests;

pub use error::{HttpError, Part};
pub use framing::Authority;
pub use guard::{RequestGuard, ResponseGuard};
