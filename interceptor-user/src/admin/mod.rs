//! The admin socket: what commands ask of the running daemon.
//!
//! One request a connection: a line of JSON, answered by a line of JSON. Who asks
//! is what the kernel says of the peer, never what the request says.
//!
//! Anyone on the host may have a command put under interception, since that only
//! takes power away, and may ask whether the daemon runs. Questions are for the
//! groups that they are put to; everything else is for root and for the daemon's
//! own user. A process under interception may ask
//! for nothing: it could otherwise take another agent's name. The one exception changes
//! nothing: root may ask, from within a service, to attach it as what it is attached already.

mod agents;
mod client;
pub mod metrics;
mod permission;
mod server;

pub use agents::{Agents, Detached, tell};
pub use client::{Confined, Unreachable, ask};
pub use server::{Daemon, serve};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::agents::selector::Selector;
use crate::approval::Facts;
use crate::handover::drain::Draining;
use crate::keeper::Locked;
use crate::looker::Looked;
use crate::sandbox::InForce;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Put the asking process into a run of its own.
    Exec {
        /// The agent's name.
        agent: String,
        /// Its labels.
        #[serde(default)]
        labels: BTreeMap<String, String>,
    },
    /// Bring something that runs already under interception.
    Attach {
        /// The agent's name.
        agent: String,
        /// Its labels.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// What.
        selector: Selector,
        /// Whether sockets that a process has open, and that stay outside, are accepted.
        #[serde(default)]
        allow_open_sockets: bool,
    },
    /// Take it out again.
    Detach {
        /// The agent's name.
        agent: Option<String>,
        /// What.
        selector: Option<Selector>,
    },
    /// Who is under interception.
    Agents {},
    /// End a session.
    Kill {
        /// Which.
        session: Uuid,
    },
    /// How the daemon is.
    Status {},
    /// The flows under way.
    Flows {},
    /// Read the rules again now.
    Reload {},
    /// End as soon as another daemon has taken over.
    Retire {
        /// How long to wait for it, in seconds.
        seconds: u64,
    },
    /// The questions that are open.
    Questions {},
    /// One question.
    Question {
        /// Its name, or the beginning or end of it.
        id: String,
    },
    /// Answer a question.
    Answer {
        /// Its name, or the beginning or end of it.
        id: String,
        /// Yes or no.
        approves: bool,
        /// Why.
        reason: Option<String>,
    },
}

/// The answer to [`Request::Exec`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Placed {
    /// The run's id.
    pub run: String,
    /// Its cgroup, as an absolute path.
    pub cgroup: String,
    /// Variables for the command.
    pub environment: BTreeMap<String, String>,
}

/// The answer to [`Request::Status`]. One of another version may lack fields: an upgrade asks
/// the daemon before it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The process that systemd watches; its own, unless it was run with `--service`.
    pub main_pid: Option<u32>,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Digest of the rules in force.
    pub rules_digest: String,
    /// How many rules there are.
    pub rules: usize,
    /// Flows under way.
    pub flows: usize,
    /// What the daemon has given up.
    pub sandbox: InForce,
    /// What the keeper of its keys has given up.
    #[serde(default)]
    pub keeper: Option<Locked>,
    /// What its looker has given up.
    #[serde(default)]
    pub looker: Option<Looked>,
    /// Daemons before this one that still have sessions.
    pub draining: Vec<Draining>,
    /// Agents' runs under way.
    pub runs: usize,
    /// Questions that people are asked, and tickets.
    pub questions: usize,
    /// Where recordings go.
    pub redis: String,
    /// Whether Redis took the last frame.
    pub redis_connected: bool,
    /// Bytes of events that wait for Redis, in memory and in the spool.
    pub queued_bytes: usize,
    /// Bytes that the spool takes on disk.
    pub spool_bytes: u64,
    /// How many it may take.
    pub spool_max_bytes: u64,
    /// Milliseconds that something waits for Redis without Redis taking anything.
    pub recorder_lag_ms: u64,
    /// Events that are on no record, since there was no room (`on_full: allow`).
    pub missing_events: u64,
    /// What keeps the recording from the spool or from Redis now.
    pub recorder_fault: Option<String>,
    /// Port that agents' connects are redirected to; `None` without interception.
    pub port: Option<u16>,
    /// Whether agents' connects go direct while no daemon is there.
    pub when_down_allows: bool,
    /// How many did before this daemon was there.
    pub went_direct: u64,
    /// Connects that the kernel redirected since the programs were first loaded.
    pub redirected: u64,
    /// What the agents that there are did, as the kernel counts it.
    pub coverage: crate::kernel::Covered,
    /// What the kernel refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// The answer to [`Request::Questions`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Questions {
    /// Oldest first.
    pub questions: Vec<Facts>,
}

/// The answer where something was not done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// Why.
    pub error: String,
}
