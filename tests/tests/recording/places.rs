//! Redis as it is run: over TLS with a password, behind Sentinels, as a Cluster whose
//! slots move and whose masters die.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::certs::Certificates;
use interceptor_tests::cluster::{Cluster, Node, cli, follows, role};
use interceptor_tests::eventually;
use interceptor_tests::place::{self, Place};
use interceptor_tests::process::{Server, Start};
use interceptor_user::config::Durability;
use interceptor_user::recorder::{Place as Redis, Unsent};
use nix::sys::signal::Signal;

use super::SOON;
use super::store::{Store, all_there_once};
use super::talker::together;

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
    // One of the streams that all sessions share goes with it.
    cluster.kill_master_of("interceptor:live")?;
    eventually("a replica to take over", SOON, || {
        Ok(cluster.masters().len() == 3)
    })?;
    let sessions = talking.await?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 150)?;
    assert_eq!(recorder.status().missing, 0);
    Ok(())
}

/// An agent reaches no server of the store, however it was found: not only what the
/// address names.
#[test]
fn all_servers_of_a_cluster_are_known_from_one() -> Result<()> {
    let cluster = Cluster::start()?;
    let one = Store::at(Some(format!(
        "redis+cluster://127.0.0.1:{}",
        cluster.nodes[0].port
    )))?;
    let store = Redis::open(&one.url())?;
    let is_at = |port: u16| store.is_at(([127, 0, 0, 1], port).into());
    store.look_up();
    for node in &cluster.nodes {
        assert!(is_at(node.port), "{}", node.port);
    }
    let told = cluster.nodes[0].ask(&["CLUSTER", "NODES"])?;
    let buses: Vec<u16> = told
        .lines()
        .filter_map(|line| {
            line.split('@')
                .nth(1)?
                .split([',', ' '])
                .next()?
                .parse()
                .ok()
        })
        .collect();
    assert_eq!(buses.len(), 6);
    assert!(buses.into_iter().all(is_at), "{told}");
    assert!(!is_at(place::free_port()?));
    // Nobody is asked any more, and nothing is forgotten.
    cluster.signal(Signal::SIGSTOP)?;
    store.look_up();
    assert!(cluster.nodes.iter().all(|node| is_at(node.port)));
    cluster.signal(Signal::SIGCONT)
}

/// Entries that are sent a second time, of many sessions at once, are each found to be
/// there: also where other answers of the same node are still on their way.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_has_already_is_found_there_and_not_written_twice() -> Result<()> {
    let cluster = Cluster::start()?;
    let mut store = Store::at(Some(cluster.url()))?;
    store.durability = Durability::BeforeForward;
    cluster.signal(Signal::SIGSTOP)?;
    let (recorder, task) = store.recorder(1 << 20)?;
    let sessions = together(&recorder, 60, 20, Duration::ZERO).await;
    // However busy the disk is, it is in the spool before nobody waits for it.
    recorder
        .durable(recorder.ticket().context("durable")?)
        .await;
    let kept = task.close(Duration::from_millis(300)).await;
    assert!(matches!(kept, Err(Unsent::Kept { .. })), "{kept:?}");
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
    all_there_once(&store, &sessions, 300)?;

    let known = Redis::open(&store.url())?;
    known.look_up();
    for port in [sentinel_port, replica.port] {
        assert!(known.is_at(([127, 0, 0, 1], port).into()), "{port}");
    }
    Ok(())
}

/// To know that a replica has a frame costs no journey of its own.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_asked_along_with_what_they_should_have() -> Result<()> {
    let cluster = Cluster::start()?;
    // What it took to see that it is up does not count.
    for node in &cluster.nodes {
        node.ask(&["CONFIG", "RESETSTAT"])?;
    }
    let store = Store::at(Some(cluster.url()))?;
    let (_, task) = store.recorder(1 << 20)?;
    let (recorder, next) = store.recorder(1 << 20)?;
    let sessions = together(&recorder, 4, 200, Duration::from_secs(3)).await;
    let frames = recorder.status().batches;
    next.close(SOON).await?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 200)?;
    let calls = |name: &str| -> Result<u64> {
        let prefix = format!("cmdstat_{name}:calls=");
        let mut sum = 0;
        for node in cluster.masters() {
            let stats = node.ask(&["INFO", "commandstats"])?;
            let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
            let count = line.and_then(|line| line.split(',').next());
            sum += count.map_or(Ok(0), str::parse)?;
        }
        Ok(sum)
    };
    let (waits, infos) = (calls("wait")?, calls("info")?);
    println!(
        "{frames} frames: {waits} WAIT, {infos} INFO, {} EXEC",
        calls("exec")?
    );
    assert!(waits >= frames, "{waits} WAIT for {frames} frames");
    assert!(infos < waits / 3, "{infos} INFO for {waits} WAIT");
    Ok(())
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
