//! Events to Redis, by way of the spool.
//!
//! [`Recorder::record`] is called on the data path, before the bytes that the
//! events explain leave; it never waits. Two threads do the rest:
//!
//! * [`queue`] holds what waits in memory, bounded in bytes;
//! * [`writer`], the first thread, takes what waits, and appends it to the spool;
//! * [`encode`] turns events into commands, chained ([`interceptor_engine::chain`]);
//! * [`seal`] encrypts what masks hid to whoever may see it;
//! * [`evidence`] signs what came of it, so that a cut or a chain made anew is found;
//! * [`gaps`] counts what is left out, where the configuration lets sessions go on
//!   without room;
//! * [`spool`] keeps frames of commands on disk until Redis has acknowledged them;
//! * [`sender`], the second thread, reads them back and sends them;
//! * [`store`] has one frame at a time done, each command of it once;
//! * [`place`] says where Redis is: alone, behind Sentinels, a Cluster;
//! * [`nodes`] asks which servers that is;
//! * [`private`] starts a `redis-server` where there is none;
//! * [`read`] is the way back, for the commands that show recordings.

mod encode;
pub mod evidence;
mod fault;
mod gaps;
mod nodes;
pub mod place;
mod private;
mod queue;
pub mod read;
mod resp;
pub mod seal;
mod sender;
mod spool;
mod store;
mod tally;
mod trouble;
mod writer;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use interceptor_engine::event::Event;
use interceptor_engine::packed::Packer;
use interceptor_policy::verdict::Severity;
use serde_json::json;
use uuid::Uuid;

pub use fault::Fault;
pub use place::Place;
pub(crate) use private::{KEEP, keep_until_alone};
pub use private::{PrivateError, URL_FILE};
pub use tally::{Counts, Tally};

use crate::config::{self, Compress, Durability, OnFull};
use evidence::Signer;
use private::PrivateRedis;
use queue::Queue;
use sender::Sender;
use spool::Spool;
use writer::{Told, Writer};

/// Where a Redis is looked for when the configuration names none.
pub const DEFAULT_URL: &str = "redis://127.0.0.1:6379";

/// A handle on the recorder; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: Arc<Queue>,
    tally: Arc<Tally>,
    told: Arc<Told>,
    facts: Arc<Mutex<String>>,
    spool: Arc<Spool>,
    place: Place,
    durable: bool,
    stall: Duration,
    private: Arc<Mutex<Option<PrivateRedis>>>,
    seal_to: Option<seal::Recipient>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("place", &self.place)
            .field("queued_bytes", &self.queue.bytes())
            .finish_non_exhaustive()
    }
}

/// How long the spool may take nothing when the daemon ends, before what waits is given up.
const SPOOLED: Duration = Duration::from_secs(2);

/// How long the end waits for the sender to leave word, which it does between two tries.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The queue is full, or the recorder is closed: the flow must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recorder has no room: the spool takes nothing, and its queue is full")]
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

/// Who writes, and where a private server may live.
#[derive(Clone, Debug)]
pub struct Host {
    /// The host's name: the field of the `hosts` hash.
    pub name: String,
    /// Interceptor's version.
    pub version: String,
    /// Digest of the rules in force.
    pub rules: String,
    /// A private server's data goes below it.
    pub state_dir: PathBuf,
    /// A private server's socket and URL go below it.
    pub runtime_dir: PathBuf,
    /// The private server of a daemon that hands over.
    pub adopted: Option<Arc<Adopted>>,
}

/// A private server that a daemon before this one started.
#[derive(Debug)]
pub struct Adopted {
    /// What is known of it.
    pub redis: crate::handover::Redis,
    /// What keeps it; taken once.
    pub lifeline: Mutex<Option<OwnedFd>>,
}

/// How the recorder is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether Redis took the last frame.
    pub connected: bool,
    /// Bytes that Redis has not acknowledged, in memory and in the spool.
    pub queued_bytes: usize,
    /// Bytes that the spool takes on disk.
    pub spool_bytes: u64,
    /// How many it may take.
    pub spool_max_bytes: u64,
    /// Events handed on to the spool since the start.
    pub recorded: u64,
    /// Events that are not recorded, since there was no room and sessions go on without.
    pub missing: u64,
    /// Frames that Redis took.
    pub batches: u64,
    /// Sessions that are being recorded.
    pub open_sessions: u64,
    /// How long something waits for Redis without Redis taking anything.
    pub lag: Duration,
    /// What keeps the recording from the spool, or from Redis, now.
    pub last_fault: Option<String>,
}

/// The recorder's end of work; whoever holds it closes it.
#[must_use = "a recorder that is not closed loses what still waits"]
pub struct RecorderTask {
    recorder: Recorder,
    done: tokio::sync::oneshot::Receiver<()>,
    abandoned: Arc<AtomicBool>,
}

impl std::fmt::Debug for RecorderTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecorderTask")
            .field("recorder", &self.recorder)
            .finish_non_exhaustive()
    }
}

/// What was not in Redis when the patience was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// It is in the spool.
    #[error(
        "{bytes} bytes of events did not reach Redis; they are in the spool, and are sent at the next start"
    )]
    Kept {
        /// Of frames.
        bytes: u64,
    },
    /// It is nowhere.
    #[error("{bytes} bytes of events reached neither Redis nor the spool, and are lost")]
    Lost {
        /// Of events.
        bytes: usize,
    },
}

impl Recorder {
    /// Starts recording; blocks while a private server starts, where one is needed.
    ///
    /// A configured Redis need not be there yet: events wait for it in the spool.
    ///
    /// # Errors
    /// An address that is none, no Redis at all and none that could be started, or a
    /// spool that cannot be written.
    pub fn start(config: &config::Recorder, host: &Host) -> anyhow::Result<(Self, RecorderTask)> {
        let dir = config.spool.dir.clone();
        let dir = dir.unwrap_or_else(|| host.state_dir.join("spool"));
        let writer = Uuid::now_v7();
        // What is signed and has a spool is dealt with by whoever takes that over.
        let is_nobodys =
            |writer: Option<Uuid>| writer.is_none_or(|writer| !spool::is_there(&dir, writer));
        let every = config.evidence.heads_every;
        let signer = Signer::open(&host.state_dir, &host.name, every, is_nobodys)
            .context("opening the key that recordings are signed with")?
            .by(writer);
        let (place, private) = reachable(config, host)?;
        let queue = Arc::new(Queue::new(config.queue_bytes));
        let told = Arc::new(Told::default());
        let facts = Arc::new(Mutex::new(facts(&host.version, &host.rules)));
        let abandoned = Arc::new(AtomicBool::new(false));
        let durable = config.durability == Durability::BeforeForward;
        let spool = Spool::open(&dir, config.spool.max_bytes, durable, writer);
        let spool = spool.with_context(|| {
            format!(
                "making a folder below the spool {} (recorder.spool.dir)",
                dir.display()
            )
        })?;
        let spool = Arc::new(spool);
        let tally = Arc::<Tally>::default();
        let recorder = Self {
            queue: Arc::clone(&queue),
            tally: Arc::clone(&tally),
            told: Arc::clone(&told),
            facts: Arc::clone(&facts),
            spool: Arc::clone(&spool),
            place: place.clone(),
            durable,
            stall: config.stall,
            private: Arc::new(Mutex::new(private)),
            seal_to: config.seal_to.clone(),
        };
        let mut encoder =
            encode::Encoder::new(&host.name, &config.prefix, config.live_entries, signer);
        if config.compress == Compress::Zstd {
            encoder = encoder.packing(Packer::new().context("preparing zstd")?);
        }
        let writer = Writer {
            queue: Arc::clone(&queue),
            told: Arc::clone(&told),
            tally,
            encoder,
            spool: Arc::clone(&spool),
            goes_on: config.spool.on_full == OnFull::Allow,
            durable,
            abandoned: Arc::clone(&abandoned),
            gaps: gaps::Gaps::default(),
            scratch: Vec::new(),
        };
        let sender = Sender {
            queue,
            told,
            spool,
            store: store::Store::new(place, &config.prefix, &host.name),
            alerts: encode::Alerts::new(&host.name, &config.prefix),
            facts,
            abandoned: Arc::clone(&abandoned),
            last_sign: None,
            sent_on: Vec::new(),
            told_bad: std::collections::BTreeSet::new(),
        };
        let (ended, done) = tokio::sync::oneshot::channel();
        recorder.thread("recorder", move || writer.run())?;
        recorder.thread("recorder-out", move || {
            sender.run();
            let _ = ended.send(());
        })?;
        let task = RecorderTask {
            recorder: recorder.clone(),
            done,
            abandoned,
        };
        Ok((recorder, task))
    }

    fn thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
        let guard = CloseOnEnd(Arc::clone(&self.queue));
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _guard = guard;
                work();
            })
            .with_context(|| format!("starting the thread `{name}`"))?;
        Ok(())
    }

    /// Takes all of `events`, in order, or none.
    ///
    /// # Errors
    /// [`Full`] when they do not fit; `events` is then as it was.
    pub fn record(&self, events: &mut Vec<Event>) -> Result<(), Full> {
        for event in events.iter_mut() {
            event.sealed.seal(|plain| self.seal(plain));
        }
        self.queue.push(events)
    }

    /// How much was recorded, of what.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether what masks hide is sealed to somebody, and so to be kept in events.
    #[must_use]
    pub fn seals(&self) -> bool {
        self.seal_to.is_some()
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let sealed = self.seal_to.as_ref()?.seal(plain);
        sealed
            .inspect_err(|error| tracing::error!(%error, "what masks hid is not sealed"))
            .ok()
    }

    /// Whether the queue is below its high-water mark; above it, flows stop
    /// reading from upstream until [`Recorder::room`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Waits until [`Recorder::has_room`].
    pub async fn room(&self) {
        self.queue.room().await;
    }

    /// How long a flow waits for room before it is ended.
    #[must_use]
    pub fn stall(&self) -> Duration {
        self.stall
    }

    /// Takes an alert that belongs to no session; dropped only when too many wait,
    /// which is itself counted and told.
    pub fn alert(&self, alert: Alert) {
        self.queue.push_alert(alert);
    }

    /// Tells which rules are in force from now on.
    pub fn set_rules(&self, version: &str, rules: &str) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts(version, rules);
    }

    /// The private server, for the daemon that takes over, and what keeps it running.
    ///
    /// # Errors
    /// When that cannot be copied.
    pub fn private(&self) -> std::io::Result<Option<(crate::handover::Redis, OwnedFd)>> {
        let private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(private) = &*private else {
            return Ok(None);
        };
        let kept = private.lifeline()?.map(|(keeper, lifeline)| {
            let url = private.url().to_owned();
            (crate::handover::Redis { url, keeper }, lifeline)
        });
        Ok(kept)
    }

    fn take_private(&self) -> Option<PrivateRedis> {
        let mut private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        private.take()
    }

    /// Where events must be on stable storage before the bytes that they explain go
    /// on: what stands for everything that was taken so far.
    #[must_use]
    pub fn ticket(&self) -> Option<u64> {
        self.durable.then(|| self.queue.ticket())
    }

    /// Whether everything up to `ticket` is on stable storage.
    #[must_use]
    pub fn is_durable(&self, ticket: u64) -> bool {
        self.queue.is_written(ticket)
    }

    /// Waits until everything up to `ticket` is on stable storage.
    pub async fn durable(&self, ticket: u64) {
        self.queue.written(ticket).await;
    }

    /// Waits until events are handed on, which `hand` does as soon as there is room, and on
    /// stable storage where that is configured.
    ///
    /// # Errors
    /// When that takes longer than a flow waits for it.
    pub async fn settled(&self, mut hand: impl FnMut() -> Result<(), Full>) -> Result<(), Full> {
        let settled = tokio::time::timeout(self.stall, async {
            while hand().is_err() {
                self.room().await;
            }
            if let Some(ticket) = self.ticket() {
                self.durable(ticket).await;
            }
        });
        settled.await.map_err(|_| Full)
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.told.status(&self.queue, &self.spool)
    }

    /// The Redis that it records to, for what else is kept there.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl RecorderTask {
    /// Leaves a private server to the daemon that has taken over.
    pub fn leave_private(&self) {
        drop(self.recorder.take_private());
    }

    /// Takes nothing more, and waits up to `patience` until everything is in Redis, and
    /// longer while the spool still takes what waits; then stops a private server.
    ///
    /// # Errors
    /// What is not in Redis by then, and whether it is kept.
    pub async fn close(mut self, patience: Duration) -> Result<(), Unsent> {
        self.recorder.queue.close();
        let finished = tokio::time::timeout(patience, &mut self.done).await.is_ok();
        // What is not in the spool yet is nowhere. As long as it gets there, it gets its time.
        let mut left = self.recorder.queue.bytes();
        while left > 0 {
            tokio::time::sleep(SPOOLED).await;
            let before = std::mem::replace(&mut left, self.recorder.queue.bytes());
            if left >= before {
                break;
            }
        }
        self.abandoned.store(true, Ordering::Relaxed);
        if !finished {
            // It leaves word of what keeps it from Redis.
            let _ = tokio::time::timeout(LAST_WORD, &mut self.done).await;
        }
        if let Some(private) = self.recorder.take_private() {
            let _ = tokio::task::spawn_blocking(move || private.stop()).await;
        }
        match (self.recorder.queue.bytes(), self.recorder.spool.unsent()) {
            (0, 0) if finished => Ok(()),
            (0, bytes) => Err(Unsent::Kept { bytes }),
            (bytes, _) => Err(Unsent::Lost { bytes }),
        }
    }
}

/// A writer that is gone must not leave a queue that still takes events.
struct CloseOnEnd(Arc<Queue>);

impl Drop for CloseOnEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The Redis to write to: the configured one, the one that is there, or our own.
fn reachable(
    config: &config::Recorder,
    host: &Host,
) -> anyhow::Result<(Place, Option<PrivateRedis>)> {
    if let Some(address) = &config.redis {
        let place = Place::open(&address.url()?).context("reading recorder.redis")?;
        return Ok((place, None));
    }
    if let Some(adopted) = &host.adopted
        && let Some(lifeline) = adopted
            .lifeline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    {
        let redis = &adopted.redis;
        let private = PrivateRedis::adopt(redis.url.clone(), redis.keeper, lifeline);
        return Ok((Place::open(private.url())?, Some(private)));
    }
    let place = Place::open(DEFAULT_URL)?;
    if place.answers(Duration::from_secs(1)).is_ok() {
        return Ok((place, None));
    }
    let private = PrivateRedis::start(&host.state_dir, &host.runtime_dir)?;
    Ok((Place::open(private.url())?, Some(private)))
}

/// The address that a command reads from: the one it was given, the configured one,
/// the running private server's, or the standard port.
///
/// # Errors
/// When the configured one is kept in a place that cannot be read.
pub fn url_to_read(
    given: Option<&str>,
    config: &config::Recorder,
    runtime_dir: &Path,
) -> anyhow::Result<String> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if let Some(address) = &config.redis {
        return address.url();
    }
    let private = std::fs::read_to_string(runtime_dir.join(URL_FILE));
    Ok(private.map_or_else(|_| DEFAULT_URL.to_owned(), |url| url.trim().to_owned()))
}

/// The beginning of this host's sign of life.
fn facts(version: &str, rules: &str) -> String {
    let mut facts = json!({
        "version": version,
        "rules": rules,
        "pid": std::process::id(),
    })
    .to_string();
    facts.pop();
    facts
}
