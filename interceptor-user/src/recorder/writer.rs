//! The thread that brings what waits to the spool.
//!
//! A thread and not a task: encoding, hashing and writing are one straight line of
//! work, and the kernel can be told that it matters less than the flows that wait for
//! nobody but the CPU.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use interceptor_engine::event::Event;
use interceptor_policy::verdict::Severity;
use serde_json::json;

use super::encode::Encoder;
use super::gaps::Gaps;
use super::queue::{Found, Lost, Queue, Waiting};
use super::resp::Commands;
use super::spool::Spool;
use super::tally::{Seen, Tally};
use super::trouble::{Trouble, What};
use super::{Alert, Status};
use crate::host::lock;

/// How long events gather before they are written: long enough for a batch, too short
/// for a person to see.
const GATHER: Duration = Duration::from_millis(4);

/// How long to wait for room where sessions go on without.
const NO_ROOM: Duration = Duration::from_millis(20);

/// Looks in vain before the writer sleeps until it is woken.
const IDLE_LOOKS: u32 = 16;

/// How long it sleeps at most.
const SLEEP: Duration = Duration::from_secs(60);

/// A batch is full from here on.
const BATCH_BYTES: usize = 512 * 1024;
const BATCH_COMMANDS: usize = 2048;

/// What the threads tell; read by [`super::Recorder::status`].
#[derive(Default)]
pub(super) struct Told {
    pub(super) connected: AtomicBool,
    recorded: AtomicU64,
    missing: AtomicU64,
    pub(super) batches: AtomicU64,
    sessions: AtomicU64,
    /// What keeps the spool from taking anything.
    spool_fault: Mutex<Option<String>>,
    /// What keeps Redis from taking anything.
    redis_fault: Mutex<Option<String>>,
}

impl Told {
    pub(super) fn status(&self, queue: &Queue, spool: &Spool) -> Status {
        let (spool_bytes, spool_max_bytes) = spool.size();
        let unsent = usize::try_from(spool.unsent()).unwrap_or(usize::MAX);
        let fault = lock(&self.spool_fault).clone();
        Status {
            connected: self.connected.load(Ordering::Relaxed),
            queued_bytes: queue.bytes().saturating_add(unsent),
            spool_bytes,
            spool_max_bytes,
            recorded: self.recorded.load(Ordering::Relaxed),
            missing: self.missing.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            open_sessions: self.sessions.load(Ordering::Relaxed),
            lag: spool.lag(),
            last_fault: fault.or_else(|| lock(&self.redis_fault).clone()),
        }
    }

    pub(super) fn redis_is(&self, fault: Option<String>) {
        *lock(&self.redis_fault) = fault;
    }
}

/// The writer.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) told: Arc<Told>,
    pub(super) tally: Arc<Tally>,
    pub(super) encoder: Encoder,
    pub(super) spool: Arc<Spool>,
    /// Sessions go on where the spool has no room.
    pub(super) goes_on: bool,
    /// Somebody waits until events are on stable storage, so nothing gathers.
    pub(super) durable: bool,
    /// Set when nobody waits for the rest any more.
    pub(super) abandoned: Arc<AtomicBool>,
    pub(super) gaps: Gaps,
    pub(super) scratch: Vec<u8>,
}

impl Writer {
    /// Works until the queue is closed and empty, or abandoned.
    pub(super) fn run(mut self) {
        lower_priority();
        self.work();
        self.spool.finish();
    }

    fn work(&mut self) {
        let mut waiting = Waiting::default();
        let mut commands = Commands::default();
        let mut vain = 0;
        loop {
            let found = self.queue.take(&mut waiting);
            if waiting.is_empty() && self.gaps.is_empty() {
                let until_heads = self.encoder.until_heads(Instant::now());
                if found == Found::Closed || until_heads.is_zero() {
                    self.encoder.begin(Instant::now(), &mut commands);
                    if found == Found::Closed {
                        self.encoder.sign_heads(&mut commands);
                    }
                    if !self.append(&mut commands, &mut waiting) {
                        return;
                    }
                }
                if found == Found::Closed {
                    return;
                }
                vain += 1;
                if vain > IDLE_LOOKS || self.durable {
                    self.queue.sleep(SLEEP.min(until_heads));
                    vain = 0;
                }
                self.gather();
                continue;
            }
            vain = 0;
            let many = waiting.events.len() > BATCH_COMMANDS / 4;
            while !waiting.is_empty() || !self.gaps.is_empty() {
                if !self.make_room(&mut waiting) {
                    self.queue.back_off(NO_ROOM);
                    break;
                }
                let done = self.fill(&mut waiting, &mut commands);
                if !self.append(&mut commands, &mut waiting) {
                    return;
                }
                self.queue.acknowledge(done);
            }
            if !many {
                self.gather();
            }
            if self.abandoned.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn gather(&self) {
        if !self.durable {
            self.queue.pause(GATHER);
        }
    }

    fn batch_bytes(&self) -> usize {
        BATCH_BYTES.min(self.spool.batch_bytes())
    }

    /// Where sessions go on without room, leaves out what has none; false when there
    /// is nothing to be written.
    fn make_room(&mut self, waiting: &mut Waiting) -> bool {
        if !self.goes_on || self.spool.has_room(self.batch_bytes() as u64 * 2) {
            return true;
        }
        if self.gaps.is_empty() && !waiting.events.is_empty() {
            tracing::error!("the spool is full; sessions go on, and are not recorded");
        }
        self.leave_out(waiting);
        false
    }

    /// Leaves out the events that wait.
    fn leave_out(&mut self, waiting: &mut Waiting) {
        let mut done = Done::default();
        let mut seen = Seen::default();
        for event in waiting.events.drain(..) {
            done.count(&event);
            seen.see(&event);
            self.gaps.leave_out(event);
        }
        self.told
            .missing
            .store(self.gaps.missing(), Ordering::Relaxed);
        self.tally.add(seen);
        self.queue.acknowledge(done);
    }

    /// Encodes the next batch; what it holds of the queue.
    fn fill(&mut self, waiting: &mut Waiting, commands: &mut Commands) -> Done {
        let mut done = Done::default();
        let mut seen = Seen::default();
        let bytes = self.batch_bytes();
        self.encoder.hurry(self.queue.is_behind());
        let full = |commands: &Commands| {
            commands.bytes().len() >= bytes || commands.len() >= BATCH_COMMANDS
        };
        self.encoder.begin(Instant::now(), commands);
        let dropped = self.queue.take_dropped();
        if dropped > 0 {
            self.encoder.alert(&alerts_dropped(dropped), commands);
        }
        while !full(commands)
            && let Some(alert) = waiting.alerts.pop_front()
        {
            self.encoder.alert(&alert, commands);
        }
        while !full(commands)
            && let Some(lost) = waiting.lost.pop_front()
        {
            done.lost += 1;
            match lost {
                Lost::Session(note) => self.encoder.lost(&note, commands),
                Lost::Statements(left) => self.encoder.left(&left, commands),
            }
        }
        // What is missing stands before what comes after it.
        while !full(commands)
            && let Some(events) = self.gaps.pop()
        {
            for event in events {
                self.encoder.event(&event, commands);
            }
        }
        while !full(commands)
            && self.gaps.is_empty()
            && let Some(event) = waiting.events.pop_front()
        {
            done.count(&event);
            seen.see(&event);
            self.encoder.event(&event, commands);
        }
        self.tally.add(seen);
        self.told.recorded.fetch_add(done.events, Ordering::Relaxed);
        let sessions = u64::try_from(self.encoder.sessions()).unwrap_or(u64::MAX);
        self.told.sessions.store(sessions, Ordering::Relaxed);
        done
    }

    /// Brings a batch to the spool, however often it takes; false when it is abandoned.
    fn append(&mut self, commands: &mut Commands, waiting: &mut Waiting) -> bool {
        if commands.is_empty() {
            return true;
        }
        let mut trouble: Option<Trouble> = None;
        loop {
            let encoder = &self.encoder;
            let notes = |whole| encoder.notes(whole);
            let appended = self.spool.append(commands, notes, &mut self.scratch);
            if self.scratch.capacity() > 4 * BATCH_BYTES {
                self.scratch = Vec::new();
            }
            let Err(refused) = appended else { break };
            let text = refused.to_string();
            let trouble = trouble.get_or_insert_with(|| Trouble::new(What::Spool));
            trouble.tell(&text, self.spool.unsent());
            *lock(&self.told.spool_fault) = Some(text);
            if self.abandoned.load(Ordering::Relaxed) {
                return false;
            }
            if self.goes_on {
                self.queue.take(waiting);
                self.leave_out(waiting);
            }
            self.queue.back_off(trouble.backoff());
        }
        self.encoder.delivered();
        commands.clear();
        commands.shrink_to(BATCH_BYTES * 2);
        if let Some(trouble) = trouble {
            *lock(&self.told.spool_fault) = None;
            self.queue.push_alert(trouble.over());
        }
        true
    }
}

/// What of the queue was dealt with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub(super) events: u64,
    pub(super) bytes: usize,
    /// Of what dead processes did not do.
    pub(super) lost: u64,
}

impl Done {
    fn count(&mut self, event: &Event) {
        self.events += 1;
        self.bytes += event.weight();
    }
}

pub(super) fn alerts_dropped(count: u64) -> Alert {
    Alert {
        severity: Severity::High,
        kind: "recorder",
        line: format!("{count} alerts were dropped, since too many waited for Redis"),
        meta: json!({ "dropped": count }).to_string(),
    }
}

/// Lets the flows go first when the CPU is short.
pub(super) fn lower_priority() {
    const NICE: libc::c_int = 5;
    // SAFETY: takes nothing and returns a number.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    let Ok(thread) = libc::id_t::try_from(thread) else {
        return;
    };
    // SAFETY: takes and returns numbers; with PRIO_PROCESS, a thread's id names that
    // thread alone.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, NICE) };
    if done != 0 {
        tracing::debug!("the recorder's thread keeps its priority");
    }
}
