//! Wire formats: bytes to messages and back. No state, no I/O, no clock.

pub mod detect;
pub mod pg;
pub mod tls;
