//! Sessions without I/O: bytes and rules in, decisions and events out.
//!
//! Sockets, clocks and stores live in the shell; here time is an argument.

pub mod chain;
pub mod event;
pub mod evidence;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod hold;
pub mod http;
pub mod journal;
mod meta;
pub mod opaque;
pub mod outbox;
pub mod packed;
pub mod pg;
pub mod replay;
pub mod review;
pub mod sealed;
pub mod secret_name;
pub mod session;
pub mod ssh;
mod totals;
mod unmasked;
