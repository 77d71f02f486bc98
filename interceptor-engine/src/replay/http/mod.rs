//! Exchanges of HTTP, shown again.
//!
//! * [`meta`] reads what is said of one;
//! * [`shown`] writes heads for a person;
//! * [`har`] writes an archive that browsers' tools open.

pub mod har;
pub(crate) mod meta;
mod shown;

pub(super) use shown::{head, is_http, result};
