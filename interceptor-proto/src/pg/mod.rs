//! The PostgreSQL frontend/backend protocol, 3.0 and 3.2.
//!
//! * [`frame`] cuts one tagged message off the front of a buffer;
//! * [`startup`] reads what comes before the first tag: the startup packet and
//!   the three requests that may stand in its place;
//! * [`frontend`] and [`backend`] read and write the messages of either side;
//! * [`tag`], [`types`] and [`sqlstate`] name the numbers;
//! * [`error`] says what was wrong.
//!
//! Only `frame` and `startup` may answer "not yet". Everything else reads a
//! whole message, uses it up or refuses it, and follows PostgreSQL's own reader
//! where that one is more lenient; each such place says so. Strings stay bytes:
//! their encoding is whatever the session negotiated.
//!
//! No state is kept here: which message may follow which is the engine's
//! business.
//!
//! Format: PostgreSQL manual, pages `protocol-message-formats` and
//! `protocol-flow`.

mod body;
mod write;

pub mod backend;
pub mod error;
pub mod frame;
pub mod frontend;
pub mod sqlstate;
pub mod startup;
pub mod tag;
pub mod types;

#[cfg(test)]
mod made;
#[cfg(test)]
mod tests;

pub use body::{Formats, Values};
pub use error::PgError;

/// Format code of text.
pub const TEXT: i16 = 0;
/// Format code of the type's own binary representation.
pub const BINARY: i16 = 1;
