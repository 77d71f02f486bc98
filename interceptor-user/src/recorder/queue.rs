//! What waits for the writer: bounded in bytes, taken over whole.
//!
//! The data path appends under a lock that is held for a few moves; the writer
//! swaps everything out at once. Bytes count until they are in the spool, so the bound
//! covers what the writer holds, too.
//!
//! The data path wakes nobody while events flow: the writer looks again every few
//! milliseconds by itself, and asks to be woken only after a while without any.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use interceptor_engine::event::Event;
use tokio::sync::Notify;

use super::evidence::Leavings;
use super::spool::Note;
use super::writer::Done;
use super::{Alert, Full};

/// Alerts without a session that may wait; one more is counted and dropped.
const ALERT_LIMIT: usize = 1024;

/// What waits.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) events: VecDeque<Event>,
    pub(super) alerts: VecDeque<Alert>,
    /// What processes that died did not do.
    pub(super) lost: VecDeque<Lost>,
}

/// What a process that died did not do.
pub(super) enum Lost {
    /// It did not end this session.
    Session(Box<Note>),
    /// It may have signed what is not in its spool.
    Statements(Leavings),
}

impl Waiting {
    /// Takes over all of `other`, behind what is here.
    pub(super) fn take(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        self.events.append(&mut other.events);
        self.alerts.append(&mut other.alerts);
        self.lost.append(&mut other.lost);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.alerts.is_empty() && self.lost.is_empty()
    }
}

#[derive(Default)]
struct State {
    waiting: Waiting,
    alerts_dropped: u64,
    /// The writer sleeps until woken.
    asleep: bool,
    closed: bool,
}

/// The queue between the data path and the writer.
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    room: Notify,
    /// Of events that are not in the spool.
    bytes: AtomicUsize,
    /// Events that were taken, ever, and those of them that are in the spool.
    pushed: AtomicU64,
    spooled: AtomicU64,
    written: Notify,
    /// What dead processes did not do, as it was taken, ever, and what of it is in the
    /// spool: a count of their own, since they come before events that were taken earlier.
    lost: AtomicU64,
    ended: AtomicU64,
    /// Above this, nothing is taken.
    limit: usize,
    /// From here on, flows are asked to pause.
    high: usize,
    /// As `closed`, to be read without the lock.
    no_more: AtomicBool,
}

/// What the writer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Something, or nothing yet.
    Open,
    /// Nothing, and nothing will come.
    Closed,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            room: Notify::new(),
            bytes: AtomicUsize::new(0),
            pushed: AtomicU64::new(0),
            spooled: AtomicU64::new(0),
            written: Notify::new(),
            lost: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            limit,
            high: limit / 4 * 3,
            no_more: AtomicBool::new(false),
        }
    }

    /// Takes all of `events`, or none. Who finds room below the limit is taken whole,
    /// so that [`Queue::has_room`] never promises too much; the limit is overshot by
    /// no more than one call's events.
    pub(super) fn push(&self, events: &mut Vec<Event>) -> Result<(), Full> {
        if events.is_empty() {
            return Ok(());
        }
        let more: usize = events.iter().map(Event::weight).sum();
        let mut state = self.lock();
        if state.closed || self.bytes() >= self.limit {
            return Err(Full);
        }
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.pushed
            .fetch_add(events.len() as u64, Ordering::Relaxed);
        state.waiting.events.extend(events.drain(..));
        self.wake(state);
        Ok(())
    }

    /// Takes an alert, or counts that it did not. What is told when nothing more is
    /// taken is mostly that a fault is over.
    pub(super) fn push_alert(&self, alert: Alert) {
        let mut state = self.lock();
        if state.waiting.alerts.len() >= ALERT_LIMIT {
            state.alerts_dropped += 1;
            return;
        }
        state.waiting.alerts.push_back(alert);
        self.wake(state);
    }

    /// Takes what processes that died did not do; the ticket that stands for it being
    /// done, and all that was taken before.
    pub(super) fn push_lost(&self, lost: Vec<Lost>) -> u64 {
        let mut state = self.lock();
        let before = self.lost.fetch_add(lost.len() as u64, Ordering::Relaxed);
        let ticket = before + lost.len() as u64;
        state.waiting.lost.extend(lost);
        self.wake(state);
        ticket
    }

    /// Whether what `ticket` stands for is in the spool.
    pub(super) fn are_ended(&self, ticket: u64) -> bool {
        self.ended.load(Ordering::Acquire) >= ticket
    }

    /// Moves what waits to `waiting`.
    pub(super) fn take(&self, waiting: &mut Waiting) -> Found {
        let mut state = self.lock();
        waiting.take(&mut state.waiting);
        if waiting.is_empty() && state.closed {
            Found::Closed
        } else {
            Found::Open
        }
    }

    /// The alerts that nobody takes any more, once the writer has ended.
    pub(super) fn take_alerts(&self) -> VecDeque<Alert> {
        std::mem::take(&mut self.lock().waiting.alerts)
    }

    /// How many alerts were dropped since this was asked last.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.lock().alerts_dropped)
    }

    /// Sleeps until something waits, the queue is closed, or `time` is over.
    pub(super) fn sleep(&self, time: Duration) {
        let mut state = self.lock();
        state.asleep = state.waiting.is_empty();
        let (mut state, _) = self
            .wake
            .wait_timeout_while(state, time, |state| {
                state.waiting.is_empty() && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.asleep = false;
    }

    /// Sleeps for `time`, or until the queue is closed.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.lock();
        let _ = self
            .wake
            .wait_timeout_while(state, time, |state| !state.closed);
    }

    /// Waits before something is tried again.
    pub(super) fn back_off(&self, time: Duration) {
        if self.is_closed() {
            // `pause` does not wait any more.
            std::thread::sleep(time.min(Duration::from_millis(100)));
        } else {
            self.pause(time);
        }
    }

    /// So much is in the spool, or was left out.
    pub(super) fn acknowledge(&self, done: Done) {
        let before = self.bytes.fetch_sub(done.bytes, Ordering::Relaxed);
        self.spooled.fetch_add(done.events, Ordering::Release);
        self.ended.fetch_add(done.lost, Ordering::Release);
        self.written.notify_waiters();
        if before >= self.high && before.saturating_sub(done.bytes) < self.high {
            self.room.notify_waiters();
        }
    }

    /// Stands for everything that was taken so far.
    pub(super) fn ticket(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }

    /// Whether everything up to `ticket` is in the spool.
    pub(super) fn is_written(&self, ticket: u64) -> bool {
        self.spooled.load(Ordering::Acquire) >= ticket
    }

    /// Waits until everything up to `ticket` is in the spool.
    pub(super) async fn written(&self, ticket: u64) {
        loop {
            let mut told = std::pin::pin!(self.written.notified());
            // Listens before it looks, so that no word is missed in between.
            told.as_mut().enable();
            if self.is_written(ticket) {
                return;
            }
            told.await;
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes() < self.high && !self.no_more.load(Ordering::Relaxed)
    }

    /// Whether so much waits that flows will soon be asked to pause.
    pub(super) fn is_behind(&self) -> bool {
        self.bytes() >= self.limit / 4
    }

    pub(super) async fn room(&self) {
        loop {
            let mut told = std::pin::pin!(self.room.notified());
            // Listens before it looks, so that no word is missed in between.
            told.as_mut().enable();
            if self.has_room() {
                return;
            }
            told.await;
        }
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.no_more.store(true, Ordering::Relaxed);
        self.lock().closed = true;
        self.wake.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.wake.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock, and a queue of events stays one
        // whatever happened elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interceptor_engine::event::{FlowTime, Kind};
    use interceptor_engine::journal::Journal;
    use uuid::Uuid;

    fn done(queue: &Queue) -> Done {
        Done {
            bytes: queue.bytes(),
            ..Done::default()
        }
    }

    fn events(count: usize, bytes: usize) -> Vec<Event> {
        let mut journal = Journal::new(Uuid::nil(), None);
        (0..count)
            .map(|_| {
                journal
                    .event(FlowTime(0), Kind::Note, None, "")
                    .with_data(vec![0; bytes])
            })
            .collect()
    }

    #[test]
    fn events_are_taken_whole_or_not_at_all() {
        let queue = Queue::new(10_000);
        queue.push(&mut events(1, 6000)).unwrap();
        queue.push(&mut events(1, 6000)).unwrap();
        let mut more = events(3, 2000);
        assert_eq!(queue.push(&mut more), Err(Full));
        assert_eq!(more.len(), 3);
        let mut taken = Waiting::default();
        queue.take(&mut taken);
        assert_eq!(taken.events.len(), 2);
        assert_eq!(
            queue.push(&mut more),
            Err(Full),
            "taken is not acknowledged"
        );
        queue.acknowledge(done(&queue));
        assert_eq!(queue.push(&mut more), Ok(()));
        assert!(more.is_empty());
    }

    /// A flow that is told of room and refused would ask again without end.
    #[test]
    fn where_there_is_room_anything_is_taken() {
        let queue = Queue::new(1000);
        queue.push(&mut events(1, 400)).unwrap();
        assert!(queue.has_room());
        queue.push(&mut events(1, 50_000)).unwrap();
        assert!(!queue.has_room());
        assert_eq!(queue.push(&mut events(1, 1)), Err(Full));
        queue.acknowledge(done(&queue));
        queue.close();
        assert!(!queue.has_room(), "a closed queue promises nothing");
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_says_when_it_is_empty() {
        let queue = Queue::new(10_000);
        queue.push(&mut events(1, 1)).unwrap();
        queue.close();
        assert_eq!(queue.push(&mut events(1, 1)), Err(Full));
        let mut taken = Waiting::default();
        assert_eq!(queue.take(&mut taken), Found::Open);
        taken.events.clear();
        assert_eq!(queue.take(&mut taken), Found::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_room_is_told_when_there_is_some() {
        let queue = Queue::new(10_000);
        queue.room().await;
        queue.push(&mut events(1, 8000)).unwrap();
        assert!(!queue.has_room());
        let waited = tokio::time::timeout(Duration::from_secs(1), queue.room()).await;
        assert!(waited.is_err(), "there was none");
        let (waited, ()) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(1), queue.room()),
            async { queue.acknowledge(done(&queue)) }
        );
        waited.expect("waited for room that was there");
    }

    #[test]
    fn too_many_alerts_are_counted() {
        let queue = Queue::new(10_000);
        for _ in 0..ALERT_LIMIT + 3 {
            queue.push_alert(Alert {
                severity: interceptor_policy::verdict::Severity::Low,
                kind: "bypass",
                line: String::new(),
                meta: String::new(),
            });
        }
        assert_eq!(queue.take_dropped(), 3);
        assert_eq!(queue.take_dropped(), 0);
    }
}
