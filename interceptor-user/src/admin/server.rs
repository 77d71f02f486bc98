//! Answering.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use interceptor_policy::approval::Answer;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::info;

use super::permission::{self, Denied, Own};
use super::{Placed, Questions, Request, Status, agents};
use crate::agents::attached::Attachments;
use crate::approval::Facts;
use crate::approval::people::Person;
use crate::archive::retention::Figures;
use crate::flow::House;
use crate::handover::drain;
use crate::keeper::Locked;
use crate::looker::Looked;
use crate::net::listen;
use crate::tls::authority::Trust;
use interceptor_policy::DefaultVerdict;

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
    /// What the keeper of the keys has given up.
    pub keeper: Locked,
    /// What the looker has given up.
    pub looker: Looked,
    /// Connects that went direct while there was no daemon before this one.
    pub went_direct: u64,
    /// What retention did.
    pub retention: Arc<Figures>,
}

/// Listens at `socket` and answers until the runtime ends.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(house: &Arc<House>, daemon: Daemon, socket: &Path) -> anyhow::Result<()> {
    let name = format!("admin {}", socket.display());
    let listener: UnixListener = house
        .life
        .sockets
        // The lock on the runtime folder says that nobody else listens here.
        .get(&name, || listen::at_path(socket, 0o666))
        .with_context(|| format!("listening at {}", socket.display()))?;
    let (house, life) = (Arc::clone(house), Arc::clone(&house.life));
    life.while_serving(async move {
        loop {
            let stream = listen::next(&listener).await;
            let (house, daemon) = (Arc::clone(&house), daemon.clone());
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, one(house, daemon, stream)).await;
            });
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
    let Some(_answering) = house.life.request() else {
        // Closed without a word: whoever asks asks again, and asks the next daemon.
        return Ok(());
    };
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
    if house.is_agent(pid)? {
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
    let runtime_dir = &house.config.runtime_dir;
    let is_operator = uid == 0 || uid == nix::unistd::geteuid().as_raw();
    match request {
        Request::Exec { agent, labels } => {
            if !is_operator {
                let person = Person::of_user(uid, &house.config.approvals);
                permission::may_start(&house.config.intercept, &person, &agent, &labels)?;
            }
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
        Request::Reload {} | Request::Attach { .. } | Request::Detach { .. } if !is_operator => {
            Err(Denied::Operators.into())
        }
        Request::Attach { .. } | Request::Detach { .. } | Request::Agents {} => {
            let own = (!is_operator).then(|| Own::of(house, uid));
            let attachments = daemon.attachments.as_ref();
            agents::answer(house, attachments, request, (uid, pid), own.as_ref())
        }
        Request::Kill { session } => {
            if !is_operator {
                let own = Own::of(house, uid);
                let name = session.to_string();
                let is_theirs = flows(house)?.iter().any(|flow| {
                    flow.get("session").and_then(|one| one.as_str()) == Some(&name)
                        && own.has_flow(flow)
                });
                anyhow::ensure!(is_theirs, Denied::Operators);
            }
            let killed = house.flows.kill(session, "an operator ended the session")
                || drain::ask_any(runtime_dir, &drain::Request::Kill { session }).is_some();
            anyhow::ensure!(killed, "no session {session} is under way");
            info!(%session, uid, "a session was killed");
            Ok(json!({"ok": true}))
        }
        Request::Questions {} | Request::Question { .. } | Request::Answer { .. } => {
            let person = Person::of_process(uid, pid, &house.config.approvals);
            questions(house, request, &person, is_operator)
        }
        Request::Flows {} => {
            let mut flows = flows(house)?;
            if !is_operator {
                let own = Own::of(house, uid);
                flows.retain(|flow| own.has_flow(flow));
            }
            Ok(json!({ "flows": flows }))
        }
        Request::Reload {} => {
            let changed = house.rules.reload()?;
            Ok(json!({"ok": true, "changed": changed}))
        }
        Request::Retire { seconds } => {
            house.life.retire(Duration::from_secs(seconds));
            Ok(json!({"ok": true}))
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
            let (facts, _) = question(house, id)?;
            anyhow::ensure!(is_asked(&facts), "none of your groups is asked");
            Ok(serde_json::to_value(facts)?)
        }
        Request::Answer {
            id,
            approves,
            reason,
        } => {
            let (facts, elsewhere) = question(house, id)?;
            anyhow::ensure!(is_asked(&facts), "none of your groups is asked");
            if let Some(socket) = elsewhere {
                info!(question = facts.id, by = person.name, approves, "answered");
                let answer = drain::Request::Answer {
                    id: facts.id,
                    digest: facts.digest,
                    by: person.name.clone(),
                    uid: Some(person.uid),
                    groups: person.groups.iter().map(ToString::to_string).collect(),
                    approves,
                    reason,
                };
                return drain::ask(&socket, &answer);
            }
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
        _ => {
            let mut questions = house.desk.list();
            questions.extend(drain::questions(&house.config.runtime_dir));
            questions.retain(is_asked);
            questions.sort_by(|a, b| (a.asked_at, &a.id).cmp(&(b.asked_at, &b.id)));
            Ok(serde_json::to_value(Questions { questions })?)
        }
    }
}

/// A question, of this daemon or of one that ends its sessions; where that one is.
fn question(house: &House, id: String) -> anyhow::Result<(Facts, Option<PathBuf>)> {
    let unknown = match house.desk.show(&id) {
        Ok(facts) => return Ok((facts, None)),
        Err(error) => error,
    };
    let asked = drain::Request::Question { id };
    match drain::ask_any(&house.config.runtime_dir, &asked) {
        Some((socket, facts)) => Ok((serde_json::from_value(facts)?, Some(socket))),
        None => Err(unknown.into()),
    }
}

/// The flows under way, those of daemons that end their sessions too, oldest first.
pub(super) fn flows(house: &House) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut flows = Vec::new();
    for flow in house.flows.list() {
        flows.push(serde_json::to_value(flow)?);
    }
    for more in drain::ask_all(&house.config.runtime_dir, &drain::Request::Flows {}) {
        if let serde_json::Value::Array(more) = more {
            flows.extend(more);
        }
    }
    flows.sort_by(|a, b| {
        let session = |flow: &serde_json::Value| flow.get("session").map(ToString::to_string);
        session(a).cmp(&session(b))
    });
    Ok(flows)
}

fn status(house: &House, daemon: &Daemon) -> Status {
    let rules = house.rules.current();
    let counters = house
        .kernel
        .as_ref()
        .and_then(|kernel| kernel.counters().ok())
        .unwrap_or_default();
    let recorder = house.recorder.status();
    let draining = drain::list(&house.config.runtime_dir);
    Status {
        draining,
        sandbox: crate::sandbox::in_force(),
        keeper: Some(daemon.keeper.clone()),
        looker: Some(daemon.looker.clone()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        main_pid: Some(house.life.service.main_pid()),
        uptime_seconds: daemon.started.elapsed().as_secs(),
        rules_digest: rules.digest().to_owned(),
        rules: rules.rules().len(),
        flows: house.flows.len(),
        runs: house.runs.as_ref().map_or(0, |runs| runs.list().len()),
        questions: house.desk.len(),
        redis: house.recorder.place().text().to_owned(),
        redis_connected: recorder.connected,
        queued_bytes: recorder.queued_bytes,
        spool_bytes: recorder.spool_bytes,
        spool_max_bytes: recorder.spool_max_bytes,
        recorder_lag_ms: u64::try_from(recorder.lag.as_millis()).unwrap_or(u64::MAX),
        missing_events: recorder.missing,
        recorder_fault: recorder.last_fault,
        port: daemon.port,
        when_down_allows: house.config.intercept.when_down == DefaultVerdict::Allow,
        went_direct: daemon.went_direct,
        redirected: counters.redirected,
        coverage: house
            .kernel
            .as_ref()
            .map(|kernel| kernel.coverage_of_all())
            .unwrap_or_default(),
        refused: counters
            .refused
            .iter()
            .map(|(reason, count)| (reason.name().to_owned(), *count))
            .collect(),
    }
}
