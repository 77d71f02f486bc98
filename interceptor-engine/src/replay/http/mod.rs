//! Exchanges of HTTP, shown again.
//!
//! * [`shown`] writes heads and bodies for a person;
//! * [`har`] writes an archive that browsers' tools open.

pub mod har;
mod shown;

pub(super) use shown::{body, head, is_http, result};
