//! The recorder beside a bare client of the same crate: events of 200 bytes into a
//! Redis on the same machine, and how soon a long recording begins to be shown.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use interceptor_engine::event::{Event, FlowTime, Kind};
use interceptor_engine::journal::Journal;
use interceptor_tests::place::Place;
use interceptor_tests::redis::Redis;
use interceptor_user::config;
use interceptor_user::recorder::{Host, Recorder, RecorderTask};
use uuid::Uuid;

use crate::Options;
use crate::report::{Report, median};

/// Events of one measurement.
const EVENTS: u64 = 400_000;
/// Sessions that they are of.
const SESSIONS: usize = 100;
/// Commands of the bare client's pipelines.
const PIPELINE: usize = 1_000;
/// Events of the session that is replayed.
const LONG: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Road {
    /// `XADD`s with the same fields in pipelines, acknowledged one after another.
    Bare,
    /// The same from two connections at once.
    Recorder,
    /// With every frame on stable storage.
    Durable,
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare client",
            Self::Recorder => "recorder",
            Self::Durable => "before_forward",
        })
    }
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let events = if options.quick { EVENTS / 2 } else { EVENTS };
    let mut report = Report::new(&[Road::Bare]);
    let roads = [Road::Bare, Road::Recorder, Road::Durable];
    let mut lines = Vec::new();
    let name = "events of 200 bytes";
    if options.wants(name) {
        let calls = std::sync::Mutex::new(Vec::new());
        report.measure(
            (name, "ev/s"),
            options.rounds(),
            &roads,
            |road| {
                let place = Place::new()?;
                let redis = Redis::start(&place)?;
                match road {
                    Road::Bare => bare(&redis, events),
                    Road::Recorder | Road::Durable => {
                        let durable = road == Road::Durable;
                        let (rate, call) = recorded(&redis, &place, events, durable)?;
                        if !durable && let Ok(mut calls) = calls.lock() {
                            calls.push(call);
                        }
                        Ok(rate)
                    }
                }
            },
            |_| Ok(()),
        )?;
        let calls = calls.into_inner().unwrap_or_default();
        if let Some(call) = median(&calls) {
            lines.push(format!(
                "The data path's time in record(): {call:.2} µs an event"
            ));
        }
    }
    if options.wants("replay") {
        lines.push(replay(options)?);
    }
    report.finish(&lines, options.json.as_deref())
}

fn session_event(journal: &mut Journal, at: u64) -> Event {
    // 200 bytes, as they stand in the stream: line, data and meta.
    journal
        .event(
            FlowTime(at),
            Kind::Command,
            Some(at),
            "SELECT id FROM orders",
        )
        .with_data(vec![b'x'; 120])
        .with_meta(r#"{"verdict":"allow","tags":["SELECT"],"rules":[],"x":1}"#.to_owned())
}

fn journals() -> Vec<Journal> {
    (0..SESSIONS)
        .map(|_| Journal::new(Uuid::now_v7(), Some("run-1".into())))
        .collect()
}

/// Events a second of a client that does nothing else.
fn bare(redis: &Redis, events: u64) -> Result<f64> {
    let mut connection = redis::Client::open(redis.url())?.get_connection()?;
    let keys: Vec<String> = (0..SESSIONS)
        .map(|_| format!("interceptor:session:{{{}}}", Uuid::now_v7()))
        .collect();
    let chain = "0".repeat(64);
    let data = vec![b'x'; 120];
    let start = Instant::now();
    let mut sent = 0;
    while sent < events {
        let mut pipe = redis::pipe();
        for _ in 0..PIPELINE {
            let key = keys
                .get(usize::try_from(sent)? % SESSIONS)
                .context("a session")?;
            pipe.cmd("XADD")
                .arg(key)
                .arg(format!("1700000000000-{}", sent + 1))
                .arg("seq")
                .arg(sent)
                .arg("at")
                .arg(sent)
                .arg("kind")
                .arg("command")
                .arg("exchange")
                .arg(sent)
                .arg("run")
                .arg("run-1")
                .arg("line")
                .arg("SELECT id FROM orders")
                .arg("data")
                .arg(&data)
                .arg("meta")
                .arg(r#"{"verdict":"allow","tags":["SELECT"],"rules":[],"x":1}"#)
                .arg("chain")
                .arg(&chain)
                .ignore();
            sent += 1;
        }
        pipe.exec(&mut connection)?;
    }
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

fn recorder(redis: &Redis, place: &Place, durable: bool) -> Result<(Recorder, RecorderTask)> {
    let config = config::Recorder {
        redis: Some(config::RedisAddress::bare(redis.url())),
        durability: if durable {
            config::Durability::BeforeForward
        } else {
            config::Durability::Buffered
        },
        ..config::Config::default().recorder
    };
    let host = Host {
        name: "bench".to_owned(),
        version: "0".to_owned(),
        rules: "none".to_owned(),
        state_dir: place.path("state"),
        runtime_dir: place.path("run"),
        adopted: None,
    };
    Recorder::start(&config, &host)
}

/// Events a second until Redis has acknowledged the last, and the time of one call in
/// microseconds.
fn recorded(redis: &Redis, place: &Place, events: u64, durable: bool) -> Result<(f64, f64)> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (recorder, task) = recorder(redis, place, durable)?;
    let mut journals = journals();
    let start = Instant::now();
    let mut calling = Duration::ZERO;
    let mut batch = Vec::new();
    for number in 0..events {
        let index = usize::try_from(number)? % SESSIONS;
        let journal = journals.get_mut(index).context("a session")?;
        batch.push(session_event(journal, number));
        let call = Instant::now();
        let mut taken = recorder.record(&mut batch);
        calling += call.elapsed();
        while taken.is_err() {
            runtime.block_on(recorder.room());
            taken = recorder.record(&mut batch);
        }
    }
    while recorder.status().queued_bytes > 0 {
        ensure!(start.elapsed() < PATIENCE, "Redis does not keep up");
        std::thread::sleep(Duration::from_millis(1));
    }
    let rate = events as f64 / start.elapsed().as_secs_f64();
    runtime.block_on(task.close(PATIENCE))?;
    Ok((rate, calling.as_secs_f64() * 1e6 / events as f64))
}

/// How soon a recording of a million events begins to be shown.
fn replay(options: &Options) -> Result<String> {
    let place = Place::new()?;
    let redis = Redis::start(&place)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (recorder, task) = recorder(&redis, &place, false)?;
    let mut journal = Journal::new(Uuid::now_v7(), None);
    let mut batch = Vec::new();
    for number in 0..LONG {
        batch.push(session_event(&mut journal, number));
        while recorder.record(&mut batch).is_err() {
            runtime.block_on(recorder.room());
        }
    }
    runtime.block_on(task.close(PATIENCE))?;
    let session = journal.session().to_string();
    let mut all = Vec::new();
    for _ in 0..options.rounds() {
        let start = Instant::now();
        let mut child = Command::new(interceptor_tests::daemon::program()?)
            .args(["replay", &session, "--format", "json"])
            .args(["--redis", &redis.url()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        all.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(line.contains("\"seq\":0"), "{line}");
        child.kill()?;
        child.wait()?;
    }
    let first = median(&all).context("no round")?;
    Ok(format!(
        "A replay of {LONG} events shows its first after {first:.0} ms"
    ))
}
