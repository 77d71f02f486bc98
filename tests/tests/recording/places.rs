//! Redis as it is run: over TLS with a password, behind Sentinels, as a Cluster whose
//! slots move and whose masters die.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::certs::Certificates;
use interceptor_tests::eventually;
use interceptor_tests::place::{self, Place};
use interceptor_tests::process::{Server, Start};
use interceptor_user::recorder::Unsent;
use nix::sys::signal::Signal;

use super::SOON;
use super::store::{Store, all_there_once};
use super::talker::together;

/// One server of several.
struct Node {
    server: Option<Server>,
    port: u16,
}

impl Node {
    fn start(place: &Place, name: &str, arguments: &[&str]) -> Result<Self> {
        Self::at(place, name, place::free_port()?, arguments)
    }

    fn at(place: &Place, name: &str, port: u16, arguments: &[&str]) -> Result<Self> {
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

    fn kill(&mut self) -> Result<()> {
        let server = self.server.take().context("no server")?;
        server.signal(Signal::SIGKILL)
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        cli(&[&["-p", &self.port.to_string()], words].concat())
    }
}

fn cli(words: &[&str]) -> Result<String> {
    let done = Command::new("redis-cli")
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success(), "redis-cli {words:?}: {out}");
    Ok(out)
}

struct Cluster {
    nodes: Vec<Node>,
    _place: Place,
}

impl Cluster {
    /// Three masters with a replica each.
    fn start() -> Result<Self> {
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

    fn signal(&self, signal: Signal) -> Result<()> {
        let servers = self.nodes.iter().filter_map(|node| node.server.as_ref());
        servers
            .into_iter()
            .try_for_each(|server| server.signal(signal))
    }

    fn url(&self) -> String {
        let ports: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis+cluster://{}", ports.join(","))
    }

    fn masters(&self) -> Vec<&Node> {
        let alive = self.nodes.iter().filter(|node| node.server.is_some());
        alive.filter(|node| role(node) == "master").collect()
    }

    /// Moves slots from one master to another.
    fn reshard(&self, slots: u32) -> Result<()> {
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
}

fn role(node: &Node) -> String {
    let role = node.ask(&["ROLE"]).unwrap_or_default();
    role.lines().next().unwrap_or_default().to_owned()
}

/// Whether it is a replica that has caught up.
fn follows(node: &Node) -> bool {
    let info = node.ask(&["INFO", "replication"]).unwrap_or_default();
    info.contains("master_link_status:up")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_slots_move_and_whose_master_dies_has_everything_once() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let store = Store::at(Some(cluster.url()))?;
    let (recorder, task) = store.recorder(1 << 20)?;
    let talking = {
        let recorder = recorder.clone();
        tokio::spawn(async move { together(&recorder, 40, 150, Duration::from_secs(12)).await })
    };
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.reshard(1200)?;
    cluster.reshard(1200)?;
    // Whoever has one of the streams that all sessions share.
    let slot = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", "interceptor:live"])?;
    let key = cluster.nodes[0].ask(&["-c", "EXISTS", "interceptor:live"])?;
    ensure!(key.trim() == "1", "slot {slot}: {key}");
    let owner = cluster
        .masters()
        .into_iter()
        .find(|node| {
            let kind = node.ask(&["TYPE", "interceptor:live"]);
            kind.is_ok_and(|kind| kind.trim() == "stream")
        })
        .context("nobody has `live`")?
        .port;
    let dead = cluster.nodes.iter_mut().find(|node| node.port == owner);
    dead.context("no such node")?.kill()?;
    eventually("a replica to take over", SOON, || {
        Ok(cluster.masters().len() == 3)
    })?;
    let sessions = talking.await?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 150)?;
    assert_eq!(recorder.status().missing, 0);
    Ok(())
}

/// Entries that are sent a second time, of many sessions at once, are each found to be
/// there: also where other answers of the same node are still on their way.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_has_already_is_found_there_and_not_written_twice() -> Result<()> {
    let cluster = Cluster::start()?;
    let store = Store::at(Some(cluster.url()))?;
    cluster.signal(Signal::SIGSTOP)?;
    let (recorder, task) = store.recorder(1 << 20)?;
    let sessions = together(&recorder, 60, 20, Duration::ZERO).await;
    let kept = task.close(Duration::from_millis(300)).await;
    assert!(matches!(kept, Err(Unsent::Kept { .. })));
    drop(recorder);

    let spool = store.place.path("state").join("spool");
    let left = std::fs::read_dir(&spool)?
        .flatten()
        .find(|entry| entry.path().is_dir())
        .context("nothing was left")?
        .path();
    let copied = store.place.subfolder("copied")?;
    for file in std::fs::read_dir(&left)? {
        let file = file?;
        std::fs::copy(file.path(), copied.join(file.file_name()))?;
    }
    let sent = || eventually("what was left to be sent", SOON, || Ok(!left.exists()));
    cluster.signal(Signal::SIGCONT)?;
    let (recorder, task) = store.recorder(1 << 20)?;
    sent()?;
    task.close(SOON).await?;
    drop(recorder);
    all_there_once(&store, &sessions, 20)?;

    std::fs::rename(&copied, &left)?;
    let (_, task) = store.recorder(1 << 20)?;
    sent()?;
    task.close(SOON).await?;
    for session in &sessions {
        assert_eq!(store.session(session)?.len(), 22);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_sentinels_the_next_master_has_everything_once() -> Result<()> {
    let place = Place::new()?;
    let mut master = Node::start(&place, "master", &["--appendonly", "yes"])?;
    let port = master.port.to_string();
    let replica = Node::start(&place, "replica", &["--replicaof", "127.0.0.1", &port])?;
    let sentinel_port = place::free_port()?;
    let file = place.file(
        "sentinel.conf",
        &format!(
            "port {sentinel_port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {port} 1\n\
             sentinel down-after-milliseconds mymaster 800\nsentinel failover-timeout mymaster 3000\n"
        ),
    )?;
    let mut command = Command::new("redis-server");
    command.arg(file).arg("--sentinel");
    let start = Start {
        name: "sentinel",
        log: &place.path("sentinel.log"),
        user: None,
        stop: Signal::SIGTERM,
        orphaned: Signal::SIGKILL,
    };
    let mut sentinel = Server::start(&start, command)?;
    sentinel.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", sentinel_port)).is_ok())?;
    eventually("the replica to follow", SOON, || Ok(follows(&replica)))?;
    eventually("the Sentinel to know it", SOON, || {
        let words = [
            "-p",
            &sentinel_port.to_string(),
            "SENTINEL",
            "REPLICAS",
            "mymaster",
        ];
        Ok(cli(&words)?.contains(&replica.port.to_string()))
    })?;

    let url = format!("redis+sentinel://127.0.0.1:{sentinel_port}/mymaster");
    let store = Store::at(Some(url))?;
    let (recorder, task) = store.recorder(1 << 20)?;
    let talking = {
        let recorder = recorder.clone();
        tokio::spawn(async move { together(&recorder, 8, 300, Duration::from_secs(6)).await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    master.kill()?;
    eventually("the replica to be the master", SOON, || {
        Ok(role(&replica) == "master")
    })?;
    let sessions = talking.await?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 300)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_a_password_and_by_no_other_authority() -> Result<()> {
    let place = Place::new()?;
    let certificates = Certificates::new(&place, "redis", None)?;
    let port = place::free_port()?;
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let _server = Node::at(
        &place,
        "tls",
        port,
        &[
            "--port",
            "0",
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &text(&certificates.certificate),
            "--tls-key-file",
            &text(&certificates.key),
            "--tls-ca-cert-file",
            &text(&certificates.ca),
            "--tls-auth-clients",
            "no",
            "--requirepass",
            "p@ss",
        ],
    )?;
    let ca = text(&certificates.ca);
    let url = format!("rediss://:p%40ss@localhost:{port}?ca={ca}");
    let store = Store::at(Some(url))?;
    let (recorder, task) = store.recorder(1 << 20)?;
    let sessions = together(&recorder, 2, 50, Duration::ZERO).await;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 50)?;

    let other = Certificates::new(&place, "other", None)?;
    for (url, told) in [
        (
            format!("rediss://:p%40ss@localhost:{port}?ca={}", text(&other.ca)),
            "cannot be reached",
        ),
        (
            format!("rediss://:wrong@localhost:{port}?ca={ca}"),
            "credentials",
        ),
    ] {
        let store = Store::at(Some(url))?;
        let (recorder, task) = store.recorder(1 << 20)?;
        eventually(told, SOON, || {
            let fault = recorder.status().last_fault.unwrap_or_default();
            Ok(fault.contains(told))
        })?;
        let _ = task.close(Duration::from_millis(100)).await;
    }
    Ok(())
}
