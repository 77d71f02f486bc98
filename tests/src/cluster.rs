//! Several servers of Redis: as a Cluster of three masters with a replica each, or one by one.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::daemon::SOON;
use crate::eventually;
use crate::place::{self, Place};
use crate::process::{Server, Start};

/// One server of several.
#[derive(Debug)]
pub struct Node {
    server: Option<Server>,
    /// Its port, on 127.0.0.1.
    pub port: u16,
}

impl Node {
    /// Starts one in a folder of `place`, with `arguments` beside the usual ones.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(place: &Place, name: &str, arguments: &[&str]) -> Result<Self> {
        Self::at(place, name, place::free_port()?, arguments)
    }

    /// As [`Node::start`], at a port.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn at(place: &Place, name: &str, port: u16, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new("redis-server");
        // A Sentinel writes into its file, so each server has one.
        command
            .arg(place.file(&format!("{name}.conf"), "")?)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--daemonize", "no", "--dir"])
            .arg(place.subfolder(name)?)
            .args(arguments);
        let start = Start {
            name: "redis",
            log: &place.path(format!("{name}.log")),
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGKILL,
        };
        let mut server = Server::start(&start, command)?;
        server.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self {
            server: Some(server),
            port,
        })
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it was killed before.
    pub fn kill(&mut self) -> Result<()> {
        let server = self.server.take().context("no server")?;
        server.signal(Signal::SIGKILL)
    }

    /// Asks it as `redis-cli` does.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        cli(&[&["-p", &self.port.to_string()], words].concat())
    }
}

/// Runs `redis-cli`.
///
/// # Errors
/// When that fails.
pub fn cli(words: &[&str]) -> Result<String> {
    let done = Command::new("redis-cli")
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success(), "redis-cli {words:?}: {out}");
    Ok(out)
}

/// Three masters with a replica each.
#[derive(Debug)]
pub struct Cluster {
    /// All of them.
    pub nodes: Vec<Node>,
    _place: Place,
}

impl Cluster {
    /// Starts the six, and waits until the replicas follow.
    ///
    /// # Errors
    /// When one cannot be started, or does not follow.
    pub fn start() -> Result<Self> {
        let place = Place::new()?;
        let mut nodes = Vec::new();
        for index in 0..6 {
            let bus = place::free_port()?.to_string();
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1500",
                "--appendonly",
                "yes",
            ];
            nodes.push(Node::start(&place, &format!("node-{index}"), &arguments)?);
        }
        let cluster = Self {
            nodes,
            _place: place,
        };
        let addresses: Vec<String> = cluster
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        let mut words = vec!["--cluster", "create"];
        words.extend(addresses.iter().map(String::as_str));
        words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        cli(&words)?;
        eventually("the Cluster to be up, with its replicas", SOON, || {
            for node in &cluster.nodes {
                if !node.ask(&["CLUSTER", "INFO"])?.contains("cluster_state:ok") {
                    return Ok(false);
                }
            }
            Ok(cluster.nodes.iter().filter(|node| follows(node)).count() == 3)
        })?;
        Ok(cluster)
    }

    /// Sends all of them a signal.
    ///
    /// # Errors
    /// When one is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let servers = self.nodes.iter().filter_map(|node| node.server.as_ref());
        servers
            .into_iter()
            .try_for_each(|server| server.signal(signal))
    }

    /// Its address, as the configuration takes it.
    #[must_use]
    pub fn url(&self) -> String {
        let ports: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis+cluster://{}", ports.join(","))
    }

    /// The masters that run.
    #[must_use]
    pub fn masters(&self) -> Vec<&Node> {
        let alive = self.nodes.iter().filter(|node| node.server.is_some());
        alive.filter(|node| role(node) == "master").collect()
    }

    /// Moves slots from one master to another.
    ///
    /// # Errors
    /// When that fails.
    pub fn reshard(&self, slots: u32) -> Result<()> {
        let masters = self.masters();
        let [from, to, ..] = masters.as_slice() else {
            anyhow::bail!("no two masters");
        };
        let id = |node: &Node| -> Result<String> {
            Ok(node.ask(&["CLUSTER", "MYID"])?.trim().to_owned())
        };
        cli(&[
            "--cluster",
            "reshard",
            &format!("127.0.0.1:{}", from.port),
            "--cluster-from",
            &id(from)?,
            "--cluster-to",
            &id(to)?,
            "--cluster-slots",
            &slots.to_string(),
            "--cluster-yes",
        ])
        .map(drop)
    }

    /// Kills the master that has the stream `key`; its port.
    ///
    /// # Errors
    /// When nobody has it.
    pub fn kill_master_of(&mut self, key: &str) -> Result<u16> {
        let has = |node: &&Node| {
            let kind = node.ask(&["TYPE", key]);
            kind.is_ok_and(|kind| kind.trim() == "stream")
        };
        let owner = self.masters().into_iter().find(has);
        let port = owner.with_context(|| format!("nobody has {key}"))?.port;
        let dead = self.nodes.iter_mut().find(|node| node.port == port);
        dead.context("no such node")?.kill()?;
        Ok(port)
    }

    /// Bytes of memory that the masters take, without what the programs themselves do.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn memory(&self) -> Result<u64> {
        let mut sum = 0;
        for node in self.masters() {
            let info = node.ask(&["INFO", "memory"])?;
            let used = info
                .lines()
                .find_map(|line| line.strip_prefix("used_memory_dataset:"));
            sum += used
                .context("no used_memory_dataset")?
                .trim()
                .parse::<u64>()?;
        }
        Ok(sum)
    }
}

/// `master`, `slave`; nothing where it does not answer.
#[must_use]
pub fn role(node: &Node) -> String {
    let role = node.ask(&["ROLE"]).unwrap_or_default();
    role.lines().next().unwrap_or_default().to_owned()
}

/// Whether it is a replica that has caught up.
#[must_use]
pub fn follows(node: &Node) -> bool {
    let info = node.ask(&["INFO", "replication"]).unwrap_or_default();
    info.contains("master_link_status:up")
}
