//! What a daemon that only ends its sessions is still asked: by the daemon that took
//! over, at a socket of its own below `<runtime_dir>/draining`, named after its process.
//!
//! Operators and agents ask the new one, which asks here for what it does not have: a
//! session to end, a question to answer, a statement to cancel.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use interceptor_policy::Remembered;
use interceptor_policy::approval::Answer;
use interceptor_proto::pg::startup::CancelRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{OURS, WRITE_PATIENCE, admit};
use crate::approval::Facts;
use crate::flow::House;
use crate::net::{Host, Origin, listen};
use crate::wire;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often two daemons tell each other whom they know what of.
const MERGE_INTERVAL: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// How it is.
    State {},
    /// Its sessions.
    Flows {},
    /// End one of them.
    Kill {
        /// Which.
        session: Uuid,
    },
    /// Questions that its sessions wait for.
    Questions {},
    /// One of them.
    Question {
        /// Its name, or the beginning or end of it.
        id: String,
    },
    /// An answer, of somebody who may give it.
    Answer {
        /// The question.
        id: String,
        /// What the answerer was shown.
        digest: String,
        /// Who.
        by: String,
        /// Their user id.
        uid: Option<u32>,
        /// Their groups.
        groups: Vec<String>,
        /// Yes or no.
        approves: bool,
        /// Why.
        reason: Option<String>,
    },
    /// Cancel a statement of one of its sessions.
    Cancel {
        /// Where the agent sent the request.
        origin: (Host, u16, Option<Arc<str>>),
        /// The server's process.
        process_id: u32,
        /// The session's key.
        key: Vec<u8>,
    },
    /// What the new daemon knows of principals; answered with what this one knows.
    Merge(Remembered),
    /// End all sessions now.
    End {},
}

/// A daemon that only ends its sessions; of another version, maybe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Draining {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Sessions that it has left.
    pub flows: usize,
    /// Digest of the rules that they are judged by.
    pub rules_digest: String,
    /// Seconds until it ends those that are left.
    pub seconds_left: u64,
}

type Said = Result<Value, String>;

fn folder(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("draining")
}

/// Where the daemons of a runtime folder that drain are asked.
#[must_use]
pub fn others(runtime_dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder(runtime_dir))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "sock"))
        .collect()
}

/// Asks one; blocks until it answers.
///
/// # Errors
/// When it is gone, or does not do it.
pub fn ask(socket: &Path, request: &Request) -> anyhow::Result<Value> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) => {
            // It ended without a word.
            if error.kind() == io::ErrorKind::ConnectionRefused {
                let _ = std::fs::remove_file(socket);
            }
            return Err(error.into());
        }
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    wire::send(&mut stream, request)?;
    let said: Said = wire::receive(&mut stream)?;
    said.map_err(anyhow::Error::msg)
}

/// Asks all of a runtime folder; the answers of those that gave one.
#[must_use]
pub fn ask_all(runtime_dir: &Path, request: &Request) -> Vec<Value> {
    let asked = ask_each(runtime_dir, request).into_iter();
    asked.filter_map(|(_, said)| said.ok()).collect()
}

/// Asks all at once: one that does not answer keeps nobody from hearing the others. What
/// each said, and where it is.
fn ask_each(runtime_dir: &Path, request: &Request) -> Vec<(PathBuf, anyhow::Result<Value>)> {
    let sockets = others(runtime_dir);
    std::thread::scope(|scope| {
        let asked: Vec<_> = sockets
            .into_iter()
            .filter_map(|socket| {
                std::thread::Builder::new()
                    .spawn_scoped(scope, move || {
                        let said = ask(&socket, request);
                        (socket, said)
                    })
                    .inspect_err(|error| warn!(%error, "a draining daemon could not be asked"))
                    .ok()
            })
            .collect();
        asked
            .into_iter()
            .filter_map(|one| one.join().ok())
            .collect()
    })
}

/// Asks all for what one of them can do; its answer and where it is.
#[must_use]
pub fn ask_any(runtime_dir: &Path, request: &Request) -> Option<(PathBuf, Value)> {
    ask_each(runtime_dir, request)
        .into_iter()
        .find_map(|(socket, said)| Some((socket, said.ok()?)))
}

/// Answers, as long as this daemon ends its sessions. `until` is when it ends the rest.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(house: &Arc<House>, until: Instant) -> anyhow::Result<Answering> {
    let folder = folder(&house.config.runtime_dir);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(format!("{}.sock", std::process::id()));
    let listener =
        listen::at_path(&path, OURS).with_context(|| format!("listening at {}", path.display()))?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let house = Arc::clone(house);
    tokio::spawn(async move {
        loop {
            let stream = listen::next(&listener).await;
            let house = Arc::clone(&house);
            tokio::spawn(async move {
                if let Err(error) = one(house, stream, until).await {
                    debug!("a request to this draining daemon failed: {error:#}");
                }
            });
        }
    });
    Ok(Answering(path))
}

/// Waits until the daemon that took over has heard the last of what this one remembers, or
/// is not there to hear it.
pub async fn tell_the_last(house: &House) {
    house.life.last.store(true, Ordering::Release);
    let told = house.life.told.notified();
    let _ = tokio::time::timeout(MERGE_INTERVAL * 3, told).await;
}

/// Removes the socket when dropped.
#[derive(Debug)]
pub struct Answering(PathBuf);

impl Drop for Answering {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn one(
    house: Arc<House>,
    stream: tokio::net::UnixStream,
    until: Instant,
) -> anyhow::Result<()> {
    let mut stream = admit(&house, stream, PATIENCE)?;
    let (mut stream, request) = tokio::task::spawn_blocking(move || {
        let request: Request = wire::receive(&mut stream)?;
        io::Result::Ok((stream, request))
    })
    .await??;
    let is_last = matches!(request, Request::Merge(_)) && house.life.last.load(Ordering::Acquire);
    let said: Said = match request {
        Request::Cancel {
            origin: (host, port, via),
            process_id,
            key,
        } => {
            let origin = Origin { host, port, via };
            let request = CancelRequest {
                process_id,
                key: &key,
            };
            match house.front.cancels.forward(&origin, &request).await {
                Ok(true) => Ok(json!(true)),
                Ok(false) => Err("no session was given that key".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        }
        other => answer(&house, other, until).map_err(|error| format!("{error:#}")),
    };
    tokio::task::spawn_blocking(move || wire::send(&mut stream, &said)).await??;
    if is_last {
        house.life.told.notify_one();
    }
    Ok(())
}

fn answer(house: &House, request: Request, until: Instant) -> anyhow::Result<Value> {
    match request {
        Request::State {} => Ok(serde_json::to_value(Draining {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            flows: house.flows.len(),
            rules_digest: house.rules.current().digest().to_owned(),
            seconds_left: until.saturating_duration_since(Instant::now()).as_secs(),
        })?),
        Request::Flows {} => Ok(serde_json::to_value(house.flows.list())?),
        Request::Kill { session } => {
            anyhow::ensure!(
                house.flows.kill(session, "an operator ended the session"),
                "no session {session} is under way"
            );
            Ok(json!(true))
        }
        Request::Questions {} => Ok(serde_json::to_value(house.desk.list())?),
        Request::Question { id } => Ok(serde_json::to_value(house.desk.show(&id)?)?),
        Request::Answer {
            id,
            digest,
            by,
            uid,
            groups,
            approves,
            reason,
        } => {
            let answer = Answer {
                by: by.into(),
                uid,
                groups: groups.into_iter().map(Into::into).collect(),
                approves,
                reason,
            };
            Ok(serde_json::to_value(house.desk.answer(
                &id,
                Some(&digest),
                answer,
            )?)?)
        }
        Request::Merge(theirs) => {
            house.memory.merge(theirs);
            Ok(serde_json::to_value(house.memory.alive())?)
        }
        Request::End {} => {
            house.life.end();
            Ok(json!(true))
        }
        Request::Cancel { .. } => anyhow::bail!("not here"),
    }
}

/// Has a statement cancelled whose session a draining daemon has; whether one did.
pub async fn cancel(runtime_dir: &Path, origin: &Origin, request: &CancelRequest<'_>) -> bool {
    let request = Request::Cancel {
        origin: (origin.host.clone(), origin.port, origin.via.clone()),
        process_id: request.process_id,
        key: request.key.to_vec(),
    };
    let runtime_dir = runtime_dir.to_owned();
    tokio::task::spawn_blocking(move || ask_any(&runtime_dir, &request).is_some())
        .await
        .unwrap_or_default()
}

/// The questions that draining daemons have open.
#[must_use]
pub fn questions(runtime_dir: &Path) -> Vec<Facts> {
    ask_all(runtime_dir, &Request::Questions {})
        .into_iter()
        .filter_map(|value| serde_json::from_value::<Vec<Facts>>(value).ok())
        .flatten()
        .collect()
}

/// The draining daemons.
#[must_use]
pub fn list(runtime_dir: &Path) -> Vec<Draining> {
    ask_all(runtime_dir, &Request::State {})
        .into_iter()
        .filter_map(|value| serde_json::from_value(value).ok())
        .collect()
}

/// Has bans, tags and rules that were met hold in the draining daemons as well, and
/// theirs here; for as long as this daemon serves.
pub async fn keep_merged(house: Arc<House>) {
    let mut clock = tokio::time::interval(MERGE_INTERVAL);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let house = Arc::clone(&house);
        let _ = tokio::task::spawn_blocking(move || {
            let runtime_dir = &house.config.runtime_dir;
            if others(runtime_dir).is_empty() {
                return;
            }
            for (_, said) in ask_each(runtime_dir, &Request::Merge(house.memory.alive())) {
                match said.map(serde_json::from_value) {
                    Ok(Ok(theirs)) => house.memory.merge(theirs),
                    Ok(Err(error)) => warn!(%error, "a draining daemon's memory is not understood"),
                    Err(error) => debug!("a draining daemon does not answer: {error:#}"),
                }
            }
        })
        .await;
    }
}

/// Has all draining daemons end their sessions, and waits until they have.
pub async fn end_all(runtime_dir: &Path, patience: Duration) {
    let asked = Instant::now();
    let folder = runtime_dir.to_owned();
    let _ = tokio::task::spawn_blocking(move || ask_all(&folder, &Request::End {}).len()).await;
    while !others(runtime_dir).is_empty() && asked.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
