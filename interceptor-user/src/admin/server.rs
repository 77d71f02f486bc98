//! Answering.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use interceptor_policy::approval::Answer;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use super::{Flows, Placed, Questions, Request, Status, agents};
use crate::agents::attached::Attachments;
use crate::approval::Facts;
use crate::approval::people::Person;
use crate::flow::House;
use crate::tls::authority::Trust;

/// Longest request.
const REQUEST_LIMIT: u64 = 64 << 10;
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the daemon knows of itself beside the house.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// When it started.
    pub started: Instant,
    /// The port that agents' connects are redirected to.
    pub port: Option<u16>,
    /// What agents are told to trust.
    pub trust: Trust,
    /// Agents that `exec` did not start; `None` without interception.
    pub attachments: Option<Arc<Attachments>>,
}

/// Listens at `socket` and answers until the runtime ends.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(house: &Arc<House>, daemon: Daemon, socket: &Path) -> anyhow::Result<()> {
    // The lock on the runtime folder says that nobody else listens here.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", socket.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listening at {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))
        .with_context(|| format!("opening {} to all users", socket.display()))?;
    let house = Arc::clone(house);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let house = Arc::clone(&house);
                    let daemon = daemon.clone();
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(PATIENCE, one(house, daemon, stream)).await;
                    });
                }
                Err(error) => {
                    warn!(%error, "a connection to the admin socket could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    Ok(())
}

async fn one(house: Arc<House>, daemon: Daemon, stream: UnixStream) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_LIMIT))
        .read_line(&mut line)
        .await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        // Attaching looks through the cgroup tree, and may have to wait for processes to stop.
        Ok(request) => {
            tokio::task::block_in_place(|| answer(&house, &daemon, request, peer.uid(), peer.pid()))
        }
        Err(error) => Err(anyhow::anyhow!("not understood: {error}")),
    };
    let mut answer = answer
        .unwrap_or_else(|error| json!({"error": format!("{error:#}")}))
        .to_string();
    answer.push('\n');
    write.write_all(answer.as_bytes()).await
}

fn answer(
    house: &House,
    daemon: &Daemon,
    request: Request,
    uid: u32,
    pid: Option<i32>,
) -> anyhow::Result<serde_json::Value> {
    let pid = pid
        .and_then(|pid| u32::try_from(pid).ok())
        .context("the kernel does not say who asks")?;
    if is_agent(house, pid)? {
        if uid == 0
            && let Request::Attach {
                agent, selector, ..
            } = &request
            && let Some(attachments) = &daemon.attachments
            && let Some(attached) = attachments.in_force(agent, selector, pid)
        {
            return Ok(serde_json::to_value(attached)?);
        }
        anyhow::bail!("a process under interception may not ask the daemon for anything");
    }
    let is_operator = uid == 0 || uid == nix::unistd::geteuid().as_raw();
    match request {
        Request::Exec { agent, labels } => {
            let runs = house
                .runs
                .as_ref()
                .context("this daemon does not intercept (`intercept.kernel: false`)")?;
            let run = runs.begin(&agent, labels, uid)?;
            runs.place(&run, pid)?;
            info!(%agent, run = %run.id, pid, uid, "a run begins");
            Ok(serde_json::to_value(Placed {
                run: run.id.to_string(),
                cgroup: run.cgroup.display().to_string(),
                environment: daemon.trust.environment().into_iter().collect(),
            })?)
        }
        Request::Status {} => Ok(serde_json::to_value(status(house, daemon))?),
        Request::Kill { .. }
        | Request::Flows {}
        | Request::Reload {}
        | Request::Attach { .. }
        | Request::Detach { .. }
        | Request::Agents {}
            if !is_operator =>
        {
            anyhow::bail!("only root and the daemon's own user may ask for this")
        }
        Request::Attach { .. } | Request::Detach { .. } | Request::Agents {} => {
            agents::answer(house, daemon.attachments.as_ref(), request, uid, pid)
        }
        Request::Kill { session } => {
            anyhow::ensure!(
                house.flows.kill(session, "an operator ended the session"),
                "no session {session} is under way"
            );
            info!(%session, uid, "a session was killed");
            Ok(json!({"ok": true}))
        }
        Request::Questions {} | Request::Question { .. } | Request::Answer { .. } => {
            let person = Person::of_process(uid, pid, &house.config.approvals);
            questions(house, request, &person, is_operator)
        }
        Request::Flows {} => Ok(serde_json::to_value(Flows {
            flows: house.flows.list(),
        })?),
        Request::Reload {} => {
            let changed = house.rules.reload()?;
            Ok(json!({"ok": true, "changed": changed}))
        }
    }
}

/// What people may ask about questions: those that are put to one of their groups.
fn questions(
    house: &House,
    request: Request,
    person: &Person,
    is_operator: bool,
) -> anyhow::Result<serde_json::Value> {
    let is_asked = |facts: &Facts| {
        is_operator
            || facts.asks.iter().any(|asks| {
                person
                    .groups
                    .iter()
                    .any(|group| asks.from.iter().any(|from| **from == **group))
            })
    };
    match request {
        Request::Question { id } => {
            let facts = house.desk.show(&id)?;
            anyhow::ensure!(is_asked(&facts), "none of your groups is asked");
            Ok(serde_json::to_value(facts)?)
        }
        Request::Answer {
            id,
            approves,
            reason,
        } => {
            let facts = house.desk.show(&id)?;
            anyhow::ensure!(is_asked(&facts), "none of your groups is asked");
            let answer = Answer {
                by: person.name.as_str().into(),
                uid: Some(person.uid),
                groups: person.groups.clone(),
                approves,
                reason,
            };
            // Of what was looked at just now: the name could mean another since.
            let facts = house.desk.answer(&facts.id, Some(&facts.digest), answer)?;
            info!(question = facts.id, by = person.name, approves, "answered");
            Ok(serde_json::to_value(facts)?)
        }
        _ => Ok(serde_json::to_value(Questions {
            questions: house.desk.list().into_iter().filter(is_asked).collect(),
        })?),
    }
}

/// Whether a process is under interception; one that cannot be asked about is taken for
/// one.
fn is_agent(house: &House, pid: u32) -> anyhow::Result<bool> {
    match &house.runs {
        Some(runs) => runs.holds(pid).context("the asking process is gone"),
        None => Ok(false),
    }
}

fn status(house: &House, daemon: &Daemon) -> Status {
    let rules = house.rules.current();
    let counters = house
        .kernel
        .as_ref()
        .and_then(|kernel| kernel.counters().ok())
        .unwrap_or_default();
    let recorder = house.recorder.status();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: daemon.started.elapsed().as_secs(),
        rules_digest: rules.digest().to_owned(),
        rules: rules.rules().len(),
        flows: house.flows.len(),
        runs: house.runs.as_ref().map_or(0, |runs| runs.list().len()),
        questions: house.desk.len(),
        redis: house.recorder.place().to_owned(),
        redis_connected: recorder.connected,
        queued_bytes: recorder.queued_bytes,
        port: daemon.port,
        redirected: counters.redirected,
        refused: counters
            .refused
            .iter()
            .map(|(reason, count)| (reason.name().to_owned(), *count))
            .collect(),
    }
}
