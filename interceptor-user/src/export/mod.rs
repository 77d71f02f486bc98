//! Recordings to a central log store: as JSON lines, to a syslog server, to a collector of
//! OpenTelemetry.
//!
//! * [`walk`] goes through sessions, closed and live ones, and remembers how far it came;
//! * [`event`] is one event as all destinations know it;
//! * [`jsonl`], [`syslog`], [`otlp`] bring batches there.
//!
//! At least once: what was brought is remembered after the destination took it, so what was
//! under way when something broke is brought again. Each event has an id, `SESSION/SEQ`, by
//! which a receiver drops what it has.

pub mod event;
pub mod jsonl;
pub mod otlp;
pub mod syslog;
pub mod walk;

use event::Exported;

/// Why events are not where they should be.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It may be tried again.
    #[error("{0}")]
    Later(String),
    /// It would not help.
    #[error("{0}")]
    Never(String),
    /// Whoever read it is gone.
    #[error(transparent)]
    Gone(std::io::Error),
}

/// Where events go.
pub trait Sink {
    /// Brings a batch there; returns when the destination has it, as far as it tells.
    ///
    /// # Errors
    /// When it does not; the whole batch is brought again.
    fn send(&mut self, events: &[Exported]) -> Result<(), SendError>;

    /// What the destination is, for the state file: positions of one are not another's.
    fn name(&self) -> String;
}
