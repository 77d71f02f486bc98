//! A recording shown again: events in, things to show out.
//!
//! No clock and no store here: the shell reads the stream in pages, hands each
//! [`Entry`] in, and waits as long as [`Pace`] says before it prints what came out.
//! Memory is bounded by what one table may show, whatever the recording's length.
//!
//! * [`entry`] reads one entry of a stream;
//! * [`timeline`] puts the parts of results together, into [`Item`]s;
//! * [`text`], [`json`] and [`sql`] write for a person, a program and a database;
//! * [`http`] writes exchanges of HTTP, and an archive of them;
//! * [`ssh`] plays terminals, and writes them as an asciicast;
//! * [`again`] has a session done again, and compares the answers;
//! * [`search`] looks for words in what was asked and answered;
//! * [`pg`] decodes rows; [`table`] lays them out; [`body`] writes other bytes;
//! * [`escape`] keeps a recording from attacking the terminal that shows it.

pub mod again;
mod body;
pub mod entry;
pub mod escape;
pub mod grams;
pub mod http;
pub mod json;
pub mod pace;
pub mod pg;
pub mod search;
pub mod sql;
pub mod ssh;
pub mod table;
pub mod text;
pub mod timeline;

pub use entry::{Entry, EntryError, Raw};
pub use pace::Pace;
pub use timeline::{Item, Timeline, What};

#[cfg(test)]
mod tests;
