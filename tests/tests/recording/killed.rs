//! A process that is killed in the middle, again and again: what it was told to be
//! safe is in the store, once and in order, and each of its sessions has an end.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::eventually;
use interceptor_user::config::Durability;
use interceptor_user::recorder::Recorder;
use nix::sys::signal::Signal;

use super::SOON;
use super::store::{self, Store};
use super::talker::{Talker, say};

/// How often; the environment may ask for more.
fn kills() -> u32 {
    std::env::var("INTERCEPTOR_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(12)
}

/// By session, the highest number that was told to be safe.
type Safe = Arc<Mutex<BTreeMap<String, u64>>>;

#[test]
fn what_was_safe_is_there_once_after_every_kill() -> Result<()> {
    let mut store = Store::start()?;
    store.durability = Durability::BeforeForward;
    let safe = Safe::default();
    for round in 0..kills() {
        let mut child = start(&store, &safe)?;
        // Not the same point twice, and now and then without a store.
        std::thread::sleep(Duration::from_millis(60 + u64::from(round * 137 % 400)));
        if round % 3 == 1 {
            store.signal(Signal::SIGSTOP)?;
            std::thread::sleep(Duration::from_millis(80));
        }
        child.kill()?;
        child.wait()?;
        store.signal(Signal::SIGCONT)?;
        if round % 5 == 4 {
            store.signal(Signal::SIGKILL)?;
            store.server = None;
            store.again()?;
        }
    }
    // The one after the last sends on what is left.
    let runtime = tokio::runtime::Runtime::new()?;
    let safe = safe.lock().unwrap_or_else(PoisonError::into_inner).clone();
    runtime.block_on(async {
        let (recorder, task) = store.recorder(1 << 20)?;
        let mut seen = (0, 0);
        // What each of them left is sent on, a frame for each event.
        let limit = SOON + Duration::from_secs(kills().into());
        let ended = eventually("every session to have an end", limit, || {
            let sessions = store.stream("sessions")?;
            let closed = sessions.iter().filter(|entry| entry["event"] == "close");
            seen = (closed.count(), recorder.status().queued_bytes);
            Ok(seen.1 == 0 && seen.0 >= safe.len())
        });
        let (closed, queued) = seen;
        ended.with_context(|| {
            format!("{closed} of {} are closed, {queued} bytes wait", safe.len())
        })?;
        task.close(SOON).await?;
        anyhow::Ok(())
    })?;
    assert!(safe.len() >= 10, "{} sessions", safe.len());
    let mut lost = 0;
    for (session, last) in &safe {
        let events = store.session(session)?;
        let there = events.last().context("no event")?.seq;
        assert!(
            there >= *last,
            "{session}: {last} was safe, {there} is there"
        );
        let end = events.last().context("no event")?;
        assert_eq!(end.kind, "close", "{session}");
        lost += usize::from(end.meta["lost"] == true);
    }
    assert!(
        lost > 0,
        "no session was under way when its process was killed"
    );
    once(&store, "live", |entry| {
        (entry["session"].clone(), entry["seq"].clone())
    })?;
    once(&store, "sessions", |entry| {
        (entry["session"].clone(), entry["event"].clone())
    })?;
    println!(
        "{} kills, {} sessions, {lost} of them ended for their process",
        kills(),
        safe.len()
    );
    Ok(())
}

/// Nothing of a stream that belongs to a session stands there twice; how much does.
pub(crate) fn once(
    store: &Store,
    stream: &str,
    place: impl Fn(&BTreeMap<String, String>) -> (String, String),
) -> Result<usize> {
    let entries = store.stream(stream)?;
    let with_session = entries.iter().filter(|entry| entry.contains_key("session"));
    let mut places: Vec<_> = with_session.map(place).collect();
    let count = places.len();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), count, "lines stand twice in `{stream}`");
    Ok(count)
}

/// A process of this program that records until it is killed.
fn start(store: &Store, safe: &Safe) -> Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["killed::child", "--exact", "--ignored", "--nocapture"])
        .env("RECORDING_URL", store.url())
        .env("RECORDING_STATE", store.place.path("state"))
        .stdout(Stdio::piped())
        .spawn()?;
    let out = BufReader::new(child.stdout.take().context("no output")?);
    let safe = Arc::clone(safe);
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let Some(("safe", rest)) = line.split_once(' ') else {
                continue;
            };
            if let Some((session, seq)) = rest.split_once(' ')
                && let Ok(seq) = seq.parse()
            {
                let mut safe = safe.lock().unwrap_or_else(PoisonError::into_inner);
                safe.insert(session.to_owned(), seq);
            }
        }
    });
    Ok(child)
}

#[test]
#[ignore = "not a test: the process that `what_was_safe_is_there_once_after_every_kill` kills"]
fn child() -> Result<()> {
    let Ok(url) = std::env::var("RECORDING_URL") else {
        return Ok(());
    };
    let state = std::env::var("RECORDING_STATE")?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (recorder, _task) =
            store::recorder(&url, state.as_ref(), 1 << 20, Durability::BeforeForward)?;
        let talkers: Vec<_> = (0..4)
            .map(|_| tokio::spawn(talk_on(recorder.clone())))
            .collect();
        for talker in talkers {
            talker.await??;
        }
        anyhow::Ok(())
    })
}

/// Sessions without end, each event told to be safe as soon as it is.
async fn talk_on(recorder: Recorder) -> Result<()> {
    loop {
        let mut talker = Talker::new();
        for seq in 0..40_u64 {
            let event = match seq {
                0 => talker.open(),
                39 => talker.close(),
                _ => talker.command(),
            };
            say(&recorder, event).await;
            if let Some(ticket) = recorder.ticket() {
                recorder.durable(ticket).await;
            }
            // One write, so that a line is whole or not there.
            let line = format!("safe {} {seq}\n", talker.id());
            std::io::stdout().write_all(line.as_bytes())?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
