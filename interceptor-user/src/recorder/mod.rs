//! Events to Redis.
//!
//! [`Recorder::record`] is called on the data path, before the bytes that the
//! events explain leave; it never waits. What it takes is sent by a thread of its
//! own, batched and in order:
//!
//! * [`queue`] holds what waits, bounded in bytes;
//! * [`writer`] is the thread: it takes what waits, and tries until it is there;
//! * [`encode`] turns events into commands, chained ([`interceptor_engine::chain`]);
//! * [`evidence`] signs what came of it, so that a cut or a chain made anew is found;
//! * [`store`] has one batch at a time done, each of them once;
//! * [`private`] starts a `redis-server` where there is none;
//! * [`read`] is the way back, for the commands that show recordings.
//!
//! Not here: keeping events on disk while Redis is away. Until there is a spool, a
//! queue that stays full stops the flows, so that nothing happens unrecorded.

mod encode;
pub mod evidence;
mod fault;
mod private;
mod queue;
pub mod read;
mod resp;
mod store;
mod writer;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use interceptor_engine::event::Event;
use interceptor_policy::verdict::Severity;
use redis::Client;
use serde_json::json;
use uuid::Uuid;

pub use fault::Fault;
pub(crate) use private::{KEEP, keep_until_alone};
pub use private::{PrivateError, URL_FILE};

use crate::config;
use evidence::Signer;
use private::PrivateRedis;
use queue::Queue;
use writer::{Told, Writer};

/// Where a Redis is looked for when the configuration names none.
pub const DEFAULT_URL: &str = "redis://127.0.0.1:6379";

/// A handle on the recorder; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: Arc<Queue>,
    told: Arc<Told>,
    facts: Arc<Mutex<String>>,
    place: Arc<str>,
    client: Client,
    stall: Duration,
    private: Arc<Mutex<Option<PrivateRedis>>>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("place", &self.place)
            .field("queued_bytes", &self.queue.bytes())
            .finish_non_exhaustive()
    }
}

/// The queue is full, or the recorder is closed: the flow must stop.
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
    /// Whether Redis took the last batch.
    pub connected: bool,
    /// Bytes of events that Redis has not acknowledged.
    pub queued_bytes: usize,
    /// Events handed on to Redis since the start.
    pub recorded: u64,
    /// Batches that they went in.
    pub batches: u64,
    /// Sessions that are being recorded.
    pub open_sessions: u64,
    /// How long the oldest event waits for Redis.
    pub lag: Duration,
    /// What keeps the recording from Redis now.
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
#[error("{bytes} bytes of events did not reach Redis and are lost")]
pub struct Unsent {
    /// Of events.
    pub bytes: usize,
}

impl Recorder {
    /// Starts recording; blocks while a private server starts, where one is needed.
    ///
    /// A configured Redis need not be there yet: events wait for it, up to the
    /// queue's bound.
    ///
    /// # Errors
    /// A URL that is none, or no Redis at all and none that could be started.
    pub fn start(config: &config::Recorder, host: &Host) -> anyhow::Result<(Self, RecorderTask)> {
        let signer = Signer::open(&host.state_dir, &host.name, config.evidence.heads_every)
            .context("opening the key that recordings are signed with")?;
        let (client, private) = connectable(config, host)?;
        let queue = Arc::new(Queue::new(config.queue_bytes));
        let told = Arc::new(Told::default());
        let facts = Arc::new(Mutex::new(facts(&host.version, &host.rules)));
        let abandoned = Arc::new(AtomicBool::new(false));
        let recorder = Self {
            queue: Arc::clone(&queue),
            told: Arc::clone(&told),
            facts: Arc::clone(&facts),
            place: client.get_connection_info().addr().to_string().into(),
            client: client.clone(),
            stall: config.stall,
            private: Arc::new(Mutex::new(private)),
        };
        let writer = Writer {
            queue,
            told,
            encoder: encode::Encoder::new(&host.name, &config.prefix, config.live_entries, signer),
            store: store::Store::new(
                client,
                &config.prefix,
                &host.name,
                Uuid::now_v7().to_string(),
            ),
            facts,
            abandoned: Arc::clone(&abandoned),
        };
        let (ended, done) = tokio::sync::oneshot::channel();
        let guard = CloseOnEnd(Arc::clone(&recorder.queue));
        std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || {
                let _guard = guard;
                writer.run();
                let _ = ended.send(());
            })
            .context("starting the recorder's thread")?;
        let task = RecorderTask {
            recorder: recorder.clone(),
            done,
            abandoned,
        };
        Ok((recorder, task))
    }

    /// Takes all of `events`, in order, or none.
    ///
    /// # Errors
    /// [`Full`] when they do not fit; `events` is then as it was.
    pub fn record(&self, events: &mut Vec<Event>) -> Result<(), Full> {
        self.queue.push(events)
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

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.told.status(&self.queue)
    }

    /// The Redis that it records to, for what else is kept there.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where it records to; without credentials.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl RecorderTask {
    /// Leaves a private server to the daemon that has taken over.
    pub fn leave_private(&self) {
        drop(self.recorder.take_private());
    }

    /// Takes nothing more, and waits up to `patience` until everything is in Redis;
    /// then stops a private server.
    ///
    /// # Errors
    /// What is lost, where Redis did not take it in time.
    pub async fn close(self, patience: Duration) -> Result<(), Unsent> {
        self.recorder.queue.close();
        let finished = tokio::time::timeout(patience, self.done).await.is_ok();
        self.abandoned.store(true, Ordering::Relaxed);
        if let Some(private) = self.recorder.take_private() {
            let _ = tokio::task::spawn_blocking(move || private.stop()).await;
        }
        match self.recorder.queue.bytes() {
            0 if finished => Ok(()),
            bytes => Err(Unsent { bytes }),
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
fn connectable(
    config: &config::Recorder,
    host: &Host,
) -> anyhow::Result<(Client, Option<PrivateRedis>)> {
    if let Some(url) = &config.redis {
        // The URL may carry a password, so it is not repeated.
        let client = Client::open(url.as_str())
            .map_err(|error| Fault::of(&error))
            .context("recorder.redis is not a URL of a Redis")?;
        return Ok((client, None));
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
        let client = Client::open(private.url()).map_err(|error| Fault::of(&error))?;
        return Ok((client, Some(private)));
    }
    let client = Client::open(DEFAULT_URL).map_err(|error| Fault::of(&error))?;
    if store::answers(&client, Duration::from_secs(1)).is_ok() {
        return Ok((client, None));
    }
    let private = PrivateRedis::start(&host.state_dir, &host.runtime_dir)?;
    let client = Client::open(private.url()).map_err(|error| Fault::of(&error))?;
    Ok((client, Some(private)))
}

/// The URL that a command reads from: the one it was given, the configured one,
/// the running private server's, or the standard port.
#[must_use]
pub fn url_to_read(given: Option<&str>, config: &config::Recorder, runtime_dir: &Path) -> String {
    given
        .map(str::to_owned)
        .or_else(|| config.redis.clone())
        .or_else(|| {
            let url = std::fs::read_to_string(runtime_dir.join(URL_FILE)).ok()?;
            Some(url.trim().to_owned())
        })
        .unwrap_or_else(|| DEFAULT_URL.to_owned())
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
