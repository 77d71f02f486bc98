//! The thread that brings what waits to Redis.
//!
//! A thread and not a task: encoding, hashing and the client's blocking socket are
//! one straight line of work, and the kernel can be told that it matters less than
//! the flows that wait for nobody but the CPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use interceptor_engine::event::Event;
use interceptor_policy::verdict::Severity;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::encode::Encoder;
use super::queue::{Found, Queue, Waiting};
use super::resp::Commands;
use super::store::Store;
use super::{Alert, Status};

/// How long events gather before they are sent: long enough for a batch, too short
/// for a person to see.
const GATHER: Duration = Duration::from_millis(4);

/// Looks in vain before the writer sleeps until it is woken.
const IDLE_LOOKS: u32 = 16;

/// A batch is full from here on.
const BATCH_BYTES: usize = 512 * 1024;
const BATCH_COMMANDS: usize = 2048;

/// Between tries, doubling from the first to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LAST_BACKOFF: Duration = Duration::from_secs(1);

/// How often the log says again what keeps Redis away.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// An idle recorder gives a sign of life so often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// What the writer tells; read by [`super::Recorder::status`].
#[derive(Default)]
pub(super) struct Told {
    connected: AtomicBool,
    recorded: AtomicU64,
    batches: AtomicU64,
    sessions: AtomicU64,
    fault: Mutex<Option<String>>,
    /// Since when the oldest unacknowledged events are with the writer.
    waiting_since: Mutex<Option<Instant>>,
}

impl Told {
    pub(super) fn status(&self, queue: &Queue) -> Status {
        let since = *lock(&self.waiting_since);
        Status {
            connected: self.connected.load(Ordering::Relaxed),
            queued_bytes: queue.bytes(),
            recorded: self.recorded.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            open_sessions: self.sessions.load(Ordering::Relaxed),
            lag: since.map(|since| since.elapsed()).unwrap_or_default(),
            last_fault: lock(&self.fault).clone(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writer.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) told: Arc<Told>,
    pub(super) encoder: Encoder,
    pub(super) store: Store,
    /// This host's sign of life without the time; a JSON object without its end.
    pub(super) facts: Arc<Mutex<String>>,
    /// Set when nobody waits for the rest any more.
    pub(super) abandoned: Arc<AtomicBool>,
}

impl Writer {
    /// Works until the queue is closed and empty, or abandoned.
    pub(super) fn run(mut self) {
        lower_priority();
        let mut waiting = Waiting::default();
        let mut commands = Commands::default();
        let mut vain = 0;
        let mut last_sign = Instant::now();
        // The first sign of life says that this host writes here.
        self.deliver(&mut commands);
        loop {
            let found = self.queue.take(&mut waiting);
            if waiting.is_empty() {
                if found == Found::Closed {
                    // Where Redis is away, the next daemon sends it.
                    self.encoder.sign_heads(&mut commands);
                    if !commands.is_empty() && self.store.is_connected() {
                        self.deliver(&mut commands);
                    }
                    return;
                }
                let until_heads = self.encoder.until_heads(Instant::now());
                if last_sign.elapsed() >= SIGN_OF_LIFE || until_heads.is_zero() {
                    self.encoder.begin(Instant::now(), &mut commands);
                    self.deliver(&mut commands);
                    last_sign = Instant::now();
                }
                vain += 1;
                if vain > IDLE_LOOKS {
                    self.queue.sleep(SIGN_OF_LIFE.min(until_heads));
                    vain = 0;
                }
                self.queue.pause(GATHER);
                continue;
            }
            vain = 0;
            *lock(&self.told.waiting_since) = Some(Instant::now());
            let many = waiting.events.len() > BATCH_COMMANDS / 4;
            while !waiting.is_empty() {
                let bytes = self.fill(&mut waiting, &mut commands);
                if !self.deliver(&mut commands) {
                    return;
                }
                self.queue.acknowledge(bytes);
            }
            *lock(&self.told.waiting_since) = None;
            last_sign = Instant::now();
            if !many {
                self.queue.pause(GATHER);
            }
        }
    }

    /// Encodes the next batch; the weight of its events.
    fn fill(&mut self, waiting: &mut Waiting, commands: &mut Commands) -> usize {
        let mut weight = 0;
        let mut events = 0;
        let full = |commands: &Commands| {
            commands.bytes().len() >= BATCH_BYTES || commands.len() >= BATCH_COMMANDS
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
            && let Some(event) = waiting.events.pop_front()
        {
            weight += Event::weight(&event);
            events += 1;
            self.encoder.event(&event, commands);
        }
        self.told.recorded.fetch_add(events, Ordering::Relaxed);
        let sessions = u64::try_from(self.encoder.sessions()).unwrap_or(u64::MAX);
        self.told.sessions.store(sessions, Ordering::Relaxed);
        weight
    }

    /// Brings a batch to Redis, however often it takes; false when it is abandoned.
    fn deliver(&mut self, commands: &mut Commands) -> bool {
        self.store.begin();
        let mut backoff = FIRST_BACKOFF;
        let mut trouble: Option<Trouble> = None;
        loop {
            match self.store.commit(commands, &self.sign()) {
                Ok(()) => break,
                Err(fault) => {
                    self.told
                        .connected
                        .store(self.store.is_connected(), Ordering::Relaxed);
                    let text = fault.to_string();
                    trouble
                        .get_or_insert_with(Trouble::new)
                        .tell(&text, self.queue.bytes());
                    *lock(&self.told.fault) = Some(text);
                }
            }
            if self.abandoned.load(Ordering::Relaxed) {
                return false;
            }
            if commands.is_empty() && self.queue.is_closed() {
                // A sign of life is not worth waiting for at the end.
                return true;
            }
            if self.queue.is_closed() {
                // `pause` does not wait any more.
                std::thread::sleep(backoff.min(Duration::from_millis(100)));
            } else {
                self.queue.pause(backoff);
            }
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
        self.encoder.delivered();
        commands.clear();
        commands.shrink_to(BATCH_BYTES * 2);
        self.told.connected.store(true, Ordering::Relaxed);
        self.told.batches.fetch_add(1, Ordering::Relaxed);
        if let Some(trouble) = trouble {
            *lock(&self.told.fault) = None;
            self.queue.push_alert(trouble.over());
        }
        true
    }

    fn sign(&self) -> String {
        let seen = OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default();
        format!("{},\"seen\":\"{seen}\"", lock(&self.facts))
    }
}

/// A time in which Redis did not take a batch.
struct Trouble {
    since: Instant,
    told: Option<(Instant, String)>,
    faults: u64,
}

impl Trouble {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            told: None,
            faults: 0,
        }
    }

    /// To the operator's log, when it is news.
    fn tell(&mut self, fault: &str, waiting: usize) {
        self.faults += 1;
        let news = self
            .told
            .as_ref()
            .is_none_or(|(at, text)| text != fault || at.elapsed() >= TELL_AGAIN);
        if news {
            tracing::warn!(
                fault,
                waiting_bytes = waiting,
                "the recording does not reach Redis; trying again"
            );
            self.told = Some((Instant::now(), fault.to_owned()));
        }
    }

    /// That it is over: to the log, and for `alerts`.
    fn over(self) -> Alert {
        let seconds = self.since.elapsed().as_secs_f64();
        let fault = self.told.map(|(_, text)| text).unwrap_or_default();
        tracing::info!(seconds, "the recording reaches Redis again");
        Alert {
            severity: Severity::High,
            kind: "recorder",
            line: format!("the recording did not reach Redis for {seconds:.1} s; nothing was lost"),
            meta: json!({ "fault": fault, "seconds": seconds, "tries": self.faults }).to_string(),
        }
    }
}

fn alerts_dropped(count: u64) -> Alert {
    Alert {
        severity: Severity::High,
        kind: "recorder",
        line: format!("{count} alerts were dropped, since too many waited for Redis"),
        meta: json!({ "dropped": count }).to_string(),
    }
}

/// Lets the flows go first when the CPU is short.
fn lower_priority() {
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
