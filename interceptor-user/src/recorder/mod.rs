//! Events to Redis.
//!
//! [`Recorder::record`] is called on the data path, before the bytes that the
//! events explain leave; it never waits. What it takes is sent by a task of its
//! own, batched and in order.

use std::sync::Arc;

use interceptor_engine::event::Event;
use interceptor_policy::verdict::Severity;

/// A handle on the recorder; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    _shared: Arc<()>,
}

/// The queue is full or the store is gone: the flow must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recorder has no room: what waits for Redis fills its queue")]
pub struct Full;

/// Something worth telling that belongs to no session (a bypass attempt, a fault).
#[derive(Clone, Debug)]
pub struct Alert {
    /// How bad.
    pub severity: Severity,
    /// A word for scripts, such as `bypass` or `recorder`.
    pub kind: &'static str,
    /// One line for a person.
    pub line: String,
    /// A JSON object, or empty.
    pub meta: String,
}

impl Recorder {
    /// Takes all of `events`, in order, or none.
    ///
    /// # Errors
    /// [`Full`] when they do not fit; `events` is then as it was.
    pub fn record(&self, _events: &mut Vec<Event>) -> Result<(), Full> {
        Err(Full)
    }

    /// Whether the queue is below its high-water mark; above it, flows stop
    /// reading from upstream until [`Recorder::room`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        false
    }

    /// Waits until [`Recorder::has_room`].
    pub async fn room(&self) {}

    /// Takes an alert that belongs to no session; dropped only when the queue is
    /// full, which is itself counted and told.
    pub fn alert(&self, _alert: Alert) {}
}
