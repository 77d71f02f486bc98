//! Many hosts that write to one Cluster, and know nothing of each other.
//!
//! A master dies in the middle; some of the hosts hang, and one is killed. The others
//! do not wait for them, and in the end everything that was safe is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::cluster::Cluster;
use interceptor_tests::daemon::program;
use interceptor_tests::eventually;
use interceptor_tests::place::Place;
use interceptor_user::config::{Durability, Spool};
use interceptor_user::recorder::{Recorder, RecorderTask};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::killed::once;
use super::store::{Store, recorder_of, whole};
use super::talker::{Talker, say};

/// A hundred hosts share two processors with six servers.
const PATIENCE: Duration = Duration::from_secs(240);

/// Events of a session.
const EVENTS: u64 = 60;

/// How many hosts; the environment may ask for more.
fn hosts() -> usize {
    let asked = std::env::var("INTERCEPTOR_HOSTS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// What a host said to be safe.
#[derive(Default)]
struct Safe {
    /// By session, the highest number.
    sessions: BTreeMap<String, u64>,
    /// How long the longest event took to be safe, in milliseconds.
    slowest: u64,
}

struct Host {
    name: String,
    child: Child,
    safe: Arc<Mutex<Safe>>,
    reads: Option<std::thread::JoinHandle<()>>,
}

impl Host {
    fn start(number: usize, url: &str, place: &Place, seconds: u64) -> Result<Self> {
        let name = format!("host-{number}");
        let mut child = Command::new(std::env::current_exe()?)
            .args(["many::child", "--exact", "--ignored", "--nocapture"])
            .env("RECORDING_URL", url)
            .env("RECORDING_HOST", &name)
            .env("RECORDING_STATE", place.subfolder(&name)?)
            .env("RECORDING_SECONDS", seconds.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("no output")?);
        let safe = Arc::<Mutex<Safe>>::default();
        let told = Arc::clone(&safe);
        let reads = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                let ["safe", session, seq, took] = words.as_slice() else {
                    continue;
                };
                let (Ok(seq), Ok(took)) = (seq.parse(), took.parse()) else {
                    continue;
                };
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.sessions.insert((*session).to_owned(), seq);
                told.slowest = told.slowest.max(took);
            }
        });
        Ok(Self {
            name,
            child,
            safe,
            reads: Some(reads),
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    fn speaks(&self) -> bool {
        let safe = self.safe.lock().unwrap_or_else(PoisonError::into_inner);
        !safe.sessions.is_empty()
    }

    /// Waits until everything of it is in the Cluster.
    fn ends(&mut self) -> Result<()> {
        let name = self.name.clone();
        eventually(&format!("{name} to end"), PATIENCE, || {
            Ok(self.child.try_wait()?.is_some())
        })?;
        ensure!(self.child.wait()?.success(), "{name} did not bring all");
        self.heard()
    }

    /// Waits until everything that it said is read.
    fn heard(&mut self) -> Result<()> {
        let reads = self.reads.take().context("read before")?;
        reads.join().map_err(|_| anyhow::anyhow!("the reader"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn many_hosts_write_to_one_cluster_and_none_waits_for_another() -> Result<()> {
    let count = hosts();
    let seconds = 4 + count as u64 / 8;
    let mut cluster = Cluster::start()?;
    let mut store = Store::at(Some(cluster.url()))?;
    store.durability = Durability::BeforeForward;
    let empty = cluster.memory()?;
    let began = Instant::now();
    let mut hosts = (0..count)
        .map(|number| Host::start(number, &cluster.url(), &store.place, seconds))
        .collect::<Result<Vec<_>>>()?;
    eventually("all to write", PATIENCE, || {
        Ok(hosts.iter().all(Host::speaks))
    })?;
    // Every sixth hangs from here on, and one is gone for good.
    let (hanging, mut others): (Vec<usize>, Vec<usize>) =
        (0..count).partition(|number| number % 6 == 2);
    for number in &hanging {
        hosts[*number].signal(Signal::SIGSTOP)?;
    }
    let dead = others.remove(1);
    hosts[dead].signal(Signal::SIGKILL)?;
    hosts[dead].child.wait()?;
    hosts[dead].heard()?;
    cluster.kill_master_of("interceptor:live")?;
    for number in &others {
        hosts[*number].ends()?;
    }
    let others_took = began.elapsed();
    for number in &hanging {
        hosts[*number].signal(Signal::SIGCONT)?;
    }
    for number in &hanging {
        hosts[*number].ends()?;
    }
    // The next process of the dead host sends on what is left, and ends its sessions.
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let state = store.place.path(&hosts[dead].name);
        let (_recorder, task) = start(&hosts[dead].name, &cluster.url(), &state)?;
        let spool = state.join("spool");
        eventually("what the dead host left to be sent", PATIENCE, || {
            let folders = std::fs::read_dir(&spool)?.flatten();
            Ok(folders.filter(|entry| entry.path().is_dir()).count() == 1)
        })?;
        task.close(PATIENCE).await?;
        anyhow::Ok(())
    })?;
    let took = began.elapsed();

    let mut sessions = 0;
    let mut events = 0;
    let mut slowest = 0;
    let mut ended_for_it = 0;
    let mut reader = store.reader()?;
    for (number, host) in hosts.iter().enumerate() {
        let safe = host.safe.lock().unwrap_or_else(PoisonError::into_inner);
        if others.contains(&number) {
            slowest = slowest.max(safe.slowest);
        }
        ensure!(!safe.sessions.is_empty(), "{} wrote nothing", host.name);
        for (session, last) in &safe.sessions {
            let there = whole(&mut reader, session)?;
            let end = there.last().context("no event")?;
            ensure!(
                end.seq >= *last,
                "{session} of {}: {last} was safe, {} is there",
                host.name,
                end.seq
            );
            assert_eq!(end.kind, "close", "{session} of {}", host.name);
            ended_for_it += usize::from(end.meta["lost"] == true);
            events += there.len() as u64;
            sessions += 1;
        }
    }
    assert!(ended_for_it > 0, "nothing was under way at the dead host");
    let all = once(&store, "live", |entry| {
        (entry["session"].clone(), entry["seq"].clone())
    })?;
    assert!(all as u64 >= events, "{all} lines for {events} events");
    once(&store, "alerts", |entry| {
        (entry["session"].clone(), entry["seq"].clone())
    })?;
    once(&store, "sessions", |entry| {
        (entry["session"].clone(), entry["event"].clone())
    })?;
    let verified = verify(&store, &hosts)?;
    assert_eq!(verified["right"], true, "{verified}");
    assert_eq!(verified["open"], 0, "{verified}");
    assert!(
        verified["sessions"].as_u64() >= Some(sessions),
        "{verified}"
    );
    assert_eq!(verified["signed_events"], verified["events"], "{verified}");
    let memory = cluster.memory()? - empty;
    println!(
        "{count} hosts, {} of them hanging, one killed, a master killed: {sessions} sessions, \
         {events} events; the others were done after {:.1} s, all after {:.1} s; the slowest \
         event of the others was safe after {slowest} ms; {:.1} MB of data in the Cluster, {} bytes an event",
        hanging.len(),
        others_took.as_secs_f64(),
        took.as_secs_f64(),
        memory as f64 / 1e6,
        memory / events,
    );
    Ok(())
}

/// All recordings, and what all hosts stated, by their keys alone.
fn verify(store: &Store, hosts: &[Host]) -> Result<Value> {
    let run = |config: Value, words: &[&str]| -> Result<Output> {
        let config = store.place.file("interceptor.yaml", &config.to_string())?;
        let mut command = Command::new(program()?);
        Ok(command.arg("--config").arg(config).args(words).output()?)
    };
    let mut keys = String::new();
    for host in hosts {
        let config = json!({ "state_dir": store.place.path(&host.name) });
        let output = run(config, &["evidence", "keys"])?;
        ensure!(output.status.success(), "{output:?}");
        keys.push_str(&String::from_utf8(output.stdout)?);
    }
    let names: BTreeSet<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    ensure!(names.iter().all(|name| keys.contains(&format!(" {name} "))));
    let list = store.place.file("keys.txt", &keys)?;
    let config = json!({
        "recorder": { "redis": store.url(), "evidence": { "trusted_keys": list } },
    });
    let output = run(config, &["verify", "--all", "--json"])?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

fn start(host: &str, url: &str, state: &std::path::Path) -> Result<(Recorder, RecorderTask)> {
    // So that a hundred do not reserve gigabytes.
    let spool = Spool {
        max_bytes: 16 << 20,
        ..Spool::default()
    };
    recorder_of(host, url, state, 1 << 20, Durability::BeforeForward, spool)
}

#[test]
#[ignore = "not a test: a host of `many_hosts_write_to_one_cluster_and_none_waits_for_another`"]
fn child() -> Result<()> {
    let Ok(host) = std::env::var("RECORDING_HOST") else {
        return Ok(());
    };
    let url = std::env::var("RECORDING_URL")?;
    let state = std::env::var("RECORDING_STATE")?;
    let time = Duration::from_secs(std::env::var("RECORDING_SECONDS")?.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (recorder, task) = start(&host, &url, state.as_ref())?;
        let (first, second, third) = tokio::join!(
            talk_for(recorder.clone(), time),
            talk_for(recorder.clone(), time),
            talk_for(recorder.clone(), time),
        );
        first.and(second).and(third)?;
        task.close(PATIENCE).await?;
        anyhow::Ok(())
    })
}

/// One session after another; each event is told when it is safe, and how long that took.
async fn talk_for(recorder: Recorder, time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        let mut talker = Talker::new();
        for seq in 0..EVENTS {
            let event = match seq {
                0 => talker.open(),
                seq if seq + 1 == EVENTS => talker.close(),
                _ => talker.command(),
            };
            let said = Instant::now();
            say(&recorder, event).await;
            if let Some(ticket) = recorder.ticket() {
                recorder.durable(ticket).await;
            }
            let line = format!(
                "safe {} {seq} {}\n",
                talker.id(),
                said.elapsed().as_millis()
            );
            std::io::stdout().write_all(line.as_bytes())?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
