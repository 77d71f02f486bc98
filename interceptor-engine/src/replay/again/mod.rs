//! A session done again: what it asked, to be asked of another service, and how the
//! answers compare.
//!
//! Entries in, [`Asked`] out, in the order of the exchanges; whoever has sockets asks
//! them, and [`compare`] says what differs. What is not on record as it was sent is not
//! sent, and says why.
//!
//! * [`collect`] puts an exchange's entries together;
//! * [`compare`] compares answers.

mod collect;
mod compare;

pub use collect::Again;
pub use compare::{Compared, Difference, compare};

use super::pg::Column;

/// Rows of an answer that are compared one by one; all are counted.
pub const ROWS: usize = 1000;

/// Bytes of a body, and of what is sent for a `COPY`.
pub const BODY: usize = 4 << 20;

/// An exchange that is to be done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its number.
    pub exchange: u64,
    /// The command, on one line.
    pub line: String,
    /// What is asked.
    pub what: What,
    /// Why it is not.
    pub unsent: Option<&'static str>,
    /// What was answered.
    pub answer: Answer,
    /// Values of the answer that masks hid.
    pub masked: u64,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A text of statements, or one with parameters.
    Statement {
        /// The text.
        text: String,
        /// `None` for the simple protocol.
        parameters: Option<Vec<Parameter>>,
        /// What goes into a `COPY … FROM STDIN`.
        copied: Vec<u8>,
    },
    /// A request.
    Request {
        /// Its method.
        method: String,
        /// Path and query.
        path: String,
        /// Its fields, without those of one connection and without credentials.
        headers: Vec<(String, String)>,
        /// Its body.
        body: Vec<u8>,
    },
}

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// NULL.
    Null,
    /// In text format.
    Text(String),
    /// In binary format.
    Binary(Vec<u8>),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A database's.
    Rows(Rows),
    /// A web service's.
    Response(Response),
}

/// What a database answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The tags of its commands, joined by `; `.
    pub tag: String,
    /// The last columns that were described.
    pub columns: Vec<Column>,
    /// The first [`ROWS`] rows.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// How many rows there were.
    pub count: u64,
    /// What came of a `COPY … TO STDOUT`, up to [`BODY`].
    pub copied: Vec<u8>,
    /// SQLSTATE of its error, and the message.
    pub error: Option<(String, String)>,
}

/// What a web service answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: Vec<(String, String)>,
    /// Its body; `None` where it is not known.
    pub body: Option<Vec<u8>>,
}

#[cfg(test)]
mod tests;
