//! The recorder against a real Redis: what it writes, and that nothing is lost or
//! written twice, whatever happens to the store.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "a test that panics has failed, and says where"
)]

mod answers;
mod cost;
mod faults;
mod killed;
mod many;
mod places;
mod store;
mod talker;
mod wire;

use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_engine::event::Kind;
use interceptor_policy::verdict::Severity;
use interceptor_tests::eventually;
use interceptor_user::config::OnFull;
use interceptor_user::recorder::read::Reader;
use interceptor_user::recorder::{Alert, Unsent};
use nix::sys::signal::Signal;

use store::{Store, all_there_once, texts};
use talker::{Talker, say, talk, together};

pub(crate) const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_what_the_documents_say() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(1 << 20)?;
    let mut talker = Talker::new();
    let session = talker.id();
    let mut events = vec![
        talker.open(),
        talker
            .command()
            .with_meta(r#"{"verdict":"block"}"#.into())
            .with_alert(Severity::Medium),
        talker.event(Kind::Result, "").with_data(vec![0, 255]),
        talker.close(),
    ];
    recorder.record(&mut events)?;
    assert!(events.is_empty());
    recorder.alert(Alert {
        severity: Severity::Critical,
        kind: "bypass",
        line: "a raw socket".into(),
        meta: String::new(),
    });
    task.close(SOON).await?;

    let mut reader = store.reader()?;
    let key = reader.session_key(&session);
    let entries = reader.after(&key, "0-0", 10)?;
    let opened_ms = u64::from_str_radix(&session.replace('-', "")[..12], 16)?;
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.id.clone())
            .collect::<Vec<_>>(),
        [
            format!("{opened_ms}-1"),
            format!("{}-2", opened_ms + 1),
            format!("{}-3", opened_ms + 2),
            format!("{}-4", opened_ms + 2),
        ]
    );
    let names = |index: usize| -> Vec<&str> {
        let fields = entries[index].fields.iter();
        fields.map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(
        names(0),
        ["seq", "at", "kind", "run", "line", "meta", "chain"]
    );
    assert_eq!(
        names(1),
        [
            "seq", "at", "kind", "exchange", "run", "line", "data", "meta", "chain"
        ]
    );
    assert_eq!(names(2), ["seq", "at", "kind", "run", "data", "chain"]);
    assert_eq!(texts(&entries[1])["at"], "1400");
    assert_eq!(store.session(&session)?.len(), 4);

    let live = store.stream("live")?;
    assert_eq!(
        live.len(),
        3,
        "an event without a line tells nobody anything"
    );
    assert_eq!(live[1]["agent"], "bot");
    assert_eq!(live[1]["line"], "SELECT 1");
    assert_eq!(live[1]["alert"], "medium");

    let alerts = store.stream("alerts")?;
    let bypass = &alerts[0];
    assert_eq!(
        (&*bypass["kind"], &*bypass["severity"]),
        ("bypass", "critical")
    );
    assert_eq!(bypass["host"], "test-host");
    assert_eq!(alerts[1]["session"], session);
    assert_eq!(alerts[1]["meta"], r#"{"verdict":"block"}"#);

    let mut sessions = store.stream("sessions")?;
    assert!(sessions[0]["heads"].starts_with("key "), "{sessions:?}");
    sessions.retain(|entry| entry["event"] != "heads");
    assert_eq!(sessions[0]["event"], "open");
    assert_eq!(sessions[0]["process"], r#"{"pid":7}"#);
    assert_eq!(sessions[1]["event"], "close");
    assert_eq!(sessions[1]["target"], "orders-db");
    assert_eq!(sessions[1]["worst"], "block");
    assert_eq!(sessions[1]["events"], "4");
    assert_eq!(sessions[1]["chain"], texts(&entries[3])["chain"]);

    let redis::Value::BulkString(host) = store.run(&["HGET", "interceptor:hosts", "test-host"])?
    else {
        panic!("no sign of life");
    };
    let host: serde_json::Value = serde_json::from_slice(&host)?;
    assert_eq!(host["rules"], "none");
    assert!(
        host["seen"]
            .as_str()
            .is_some_and(|seen| seen.ends_with('Z'))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_at_once_are_each_whole_and_in_order() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(256 << 10)?;
    let sessions = together(&recorder, 20, 400, Duration::ZERO).await;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 400)
}

/// Longer than the recorder waits for an answer, so that it gives the connection
/// up while the server still has what came over it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_loses_nothing_and_gets_nothing_twice() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(64 << 20)?;
    let talking = {
        let recorder = recorder.clone();
        tokio::spawn(async move { together(&recorder, 8, 1000, Duration::from_secs(9)).await })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    store.signal(Signal::SIGSTOP)?;
    tokio::time::sleep(Duration::from_millis(7500)).await;
    assert!(!recorder.status().connected);
    store.signal(Signal::SIGCONT)?;
    let sessions = talking.await?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 1000)?;
    let told = store.stream("alerts")?;
    assert!(
        told.iter().any(|alert| alert["kind"] == "recorder"),
        "the fault itself is an alert"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_and_comes_back_has_everything_once() -> Result<()> {
    let mut store = Store::start()?;
    let (recorder, task) = store.recorder(64 << 20)?;
    let talking = {
        let recorder = recorder.clone();
        tokio::spawn(async move { together(&recorder, 8, 2000, Duration::from_secs(4)).await })
    };
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(331)).await;
        store.signal(Signal::SIGKILL)?;
        store.server = None;
        store.again()?;
    }
    let sessions = talking.await?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 2000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_so_takes_nothing_and_recovers() -> Result<()> {
    let mut store = Store::start()?;
    store.spool.max_bytes = 1 << 20;
    store.signal(Signal::SIGKILL)?;
    store.server = None;
    let (recorder, task) = store.recorder(64 << 10)?;
    let mut talker = Talker::new();
    recorder.record(&mut vec![talker.open()])?;
    let mut said = 0;
    let mut refused = loop {
        let mut event = vec![talker.command()];
        while recorder.record(&mut event).is_err() {
            let room = tokio::time::timeout(Duration::from_millis(500), recorder.room());
            if room.await.is_err() {
                break;
            }
        }
        if !event.is_empty() {
            break event;
        }
        said += 1;
    };
    assert_eq!(refused.len(), 1, "what is refused is handed back");
    assert!(!recorder.has_room());
    let waited = tokio::time::timeout(Duration::from_millis(300), recorder.room()).await;
    assert!(waited.is_err());
    assert!(recorder.status().last_fault.is_some());

    store.again()?;
    tokio::time::timeout(SOON, recorder.room()).await?;
    assert!(recorder.has_room());
    recorder.record(&mut refused)?;
    recorder.record(&mut vec![talker.close()])?;
    task.close(SOON).await?;
    all_there_once(&store, &[talker.id()], said + 1)
}

/// The fault that the recorder tells while `wrong` holds; then everything is there.
async fn through_a_fault(
    wrong: &[&str],
    right: &[&str],
    expected: &str,
    redis: &Store,
) -> Result<()> {
    let (recorder, task) = redis.recorder(64 << 20)?;
    let mut sessions = together(&recorder, 2, 100, Duration::ZERO).await;
    eventually("the first events to arrive", SOON, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    redis.run(wrong)?;
    sessions.extend(together(&recorder, 2, 100, Duration::ZERO).await);
    eventually(expected, SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains(expected))
    })?;
    assert!(
        recorder.status().last_fault.is_some(),
        "and a metric has it"
    );
    redis.run(right)?;
    told_once_over(redis, expected)?;
    task.close(SOON).await?;
    all_there_once(redis, &sessions, 100)
}

/// When it is over, an alert says what it was.
fn told_once_over(redis: &Store, expected: &str) -> Result<()> {
    eventually("an alert", SOON, || {
        let alerts = redis.stream("alerts")?;
        Ok(alerts.iter().any(|alert| {
            let meta = alert.get("meta").map(String::as_str).unwrap_or_default();
            alert["kind"] == "recorder" && meta.contains(expected)
        }))
    })
}

/// A password that somebody sets while connections are there, and takes away again.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_asks_for_a_password_is_told_and_loses_nothing() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(64 << 20)?;
    let mut sessions = together(&recorder, 2, 100, Duration::ZERO).await;
    eventually("the first events to arrive", SOON, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    let url = format!("redis://:pw@127.0.0.1:{}", store.port);
    let ask = |words: &[&str]| -> Result<()> {
        let mut connection = redis::Client::open(url.as_str())?.get_connection()?;
        let (first, rest) = words.split_first().context("no word")?;
        Ok(redis::cmd(first).arg(rest).exec(&mut connection)?)
    };
    store.run(&["CONFIG", "SET", "requirepass", "pw"])?;
    ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
    sessions.extend(together(&recorder, 2, 100, Duration::ZERO).await);
    eventually("NOAUTH", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("NOAUTH"))
    })?;
    ask(&["CONFIG", "SET", "requirepass", ""])?;
    told_once_over(&store, "NOAUTH")?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 100)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_memory_is_told_and_loses_nothing() -> Result<()> {
    let store = Store::start()?;
    let wrong = ["CONFIG", "SET", "maxmemory", "1mb"];
    let right = ["CONFIG", "SET", "maxmemory", "0"];
    through_a_fault(&wrong, &right, "OOM", &store).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_became_a_replica_is_told_and_loses_nothing() -> Result<()> {
    let mut other = Store::start()?;
    other.place.subfolder("unused")?;
    let store = Store::start()?;
    let replica = ["REPLICAOF", "127.0.0.1", "1"];
    through_a_fault(&replica, &["REPLICAOF", "NO", "ONE"], "READONLY", &store).await?;
    other.server = None;
    Ok(())
}

/// The permissions are the ones in `docs/recording.md`.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_permissions_are_enough_and_missing_ones_are_told() -> Result<()> {
    let store = Store::start()?;
    let documents = include_str!("../../../docs/recording.md");
    let line = documents
        .lines()
        .find_map(|line| line.strip_prefix("ACL SETUSER interceptor "))
        .context("no ACL in docs/recording.md")?;
    let words: Vec<&str> = line.split(' ').collect();
    let set = |words: &[&str]| store.run(&[&["ACL", "SETUSER", "interceptor"], words].concat());
    set(&words)?;
    set(&["-hset"])?;
    let url = format!("redis://interceptor:password@127.0.0.1:{}", store.port);
    let (recorder, task) = store.recorder_as(url.clone(), 1 << 20)?;
    let mut sessions = together(&recorder, 2, 100, Duration::ZERO).await;
    eventually("NOPERM", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("NOPERM"))
    })?;
    set(&["+hset"])?;
    eventually("the events to arrive", SOON, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    // The way after a broken connection needs more of them.
    store.signal(Signal::SIGSTOP)?;
    let more = tokio::spawn({
        let recorder = recorder.clone();
        async move { together(&recorder, 2, 100, Duration::ZERO).await }
    });
    tokio::time::sleep(Duration::from_secs(6)).await;
    store.signal(Signal::SIGCONT)?;
    sessions.extend(more.await?);
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 100)?;
    let mut reader = Reader::open(&url, "interceptor")?;
    assert_eq!(reader.resolve(&sessions[0])?, sessions[0]);
    reader.resolve("last")?;
    Ok(())
}

/// Inside a transaction, a command that fails alone does not stop the others: those
/// are not to be done a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_wrong_type_is_told_and_only_what_failed_is_done_again() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(64 << 20)?;
    store.run(&["SET", "interceptor:alerts", "x"])?;
    let sessions = together(&recorder, 4, 100, Duration::ZERO).await;
    eventually("WRONGTYPE", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("WRONGTYPE"))
    })?;
    store.run(&["DEL", "interceptor:alerts"])?;
    told_once_over(&store, "WRONGTYPE")?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 100)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_arrive_before_the_end_is_kept_and_sent_by_the_next() -> Result<()> {
    let mut store = Store::start()?;
    store.signal(Signal::SIGKILL)?;
    store.server = None;
    let (recorder, task) = store.recorder(1 << 20)?;
    let mut talker = Talker::new();
    recorder.record(&mut vec![talker.open(), talker.command(), talker.close()])?;
    let kept = task.close(Duration::from_millis(300)).await;
    assert!(matches!(kept, Err(Unsent::Kept { bytes }) if bytes > 0));
    assert!(
        recorder.record(&mut vec![Talker::new().open()]).is_err(),
        "a closed recorder takes nothing"
    );

    store.again()?;
    drop(recorder);
    let (_, task) = store.recorder(1 << 20)?;
    eventually("the session to be there", SOON, || {
        let sessions = store.stream("sessions")?;
        Ok(sessions.iter().any(|entry| entry["event"] == "close"))
    })?;
    task.close(SOON).await?;
    let alerts = store.stream("alerts")?;
    let told = alerts.iter().filter(|alert| alert["kind"] == "recorder");
    let told: Vec<&str> = told.map(|alert| alert["line"].as_str()).collect();
    assert!(
        told.iter()
            .any(|line| line.contains("when the daemon ended")),
        "{told:?}"
    );
    all_there_once(&store, &[talker.id()], 1)
}

/// Who looks at the alerts alone would otherwise not know of it.
#[tokio::test(flavor = "multi_thread")]
async fn that_a_fault_is_over_is_told_though_the_recorder_closes() -> Result<()> {
    let mut store = Store::start()?;
    store.signal(Signal::SIGKILL)?;
    store.server = None;
    let (recorder, task) = store.recorder(1 << 20)?;
    let mut talker = Talker::new();
    recorder.record(&mut vec![talker.open(), talker.command(), talker.close()])?;
    eventually("the fault", SOON, || {
        Ok(recorder.status().last_fault.is_some())
    })?;
    let closing = tokio::spawn(task.close(SOON));
    eventually("the recorder to close", SOON, || Ok(!recorder.has_room()))?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    store.again()?;
    closing.await??;
    let alerts = store.stream("alerts")?;
    let told = alerts.iter().filter(|alert| alert["kind"] == "recorder");
    let told: Vec<&str> = told.map(|alert| alert["line"].as_str()).collect();
    assert!(
        told.iter().any(|line| line.contains("nothing was lost")),
        "{told:?}"
    );
    all_there_once(&store, &[talker.id()], 1)
}

/// The spool takes what the queue alone would not.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_while_the_store_is_away_and_nothing_stops() -> Result<()> {
    let mut store = Store::start()?;
    store.signal(Signal::SIGKILL)?;
    store.server = None;
    let (recorder, task) = store.recorder(256 << 10)?;
    let sessions = together(&recorder, 8, 1000, Duration::ZERO).await;
    eventually("everything to be in the spool", SOON, || {
        Ok(recorder.status().queued_bytes > 2 << 20)
    })?;
    store.again()?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 1000)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_sessions_go_on_without_room_the_record_says_what_is_missing() -> Result<()> {
    let mut store = Store::start()?;
    store.spool.max_bytes = 1 << 20;
    store.spool.on_full = OnFull::Allow;
    let (recorder, task) = store.recorder(256 << 10)?;
    let mut talker = Talker::new();
    say(&recorder, talker.open()).await;
    store.signal(Signal::SIGSTOP)?;
    let mut said = 0_u64;
    let full = std::time::Instant::now();
    while recorder.status().missing < 100 {
        say(&recorder, talker.command()).await;
        said += 1;
        anyhow::ensure!(full.elapsed() < SOON, "the spool never filled");
        if said.is_multiple_of(1000) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    store.signal(Signal::SIGCONT)?;
    eventually("the spool to be empty again", SOON, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    say(&recorder, talker.command()).await;
    say(&recorder, talker.close()).await;
    let missing = recorder.status().missing;
    task.close(SOON).await?;

    let events = store.session(&talker.id())?;
    let gaps: Vec<_> = events.iter().filter(|event| event.kind == "gap").collect();
    assert!(!gaps.is_empty());
    let told: u64 = gaps
        .iter()
        .filter_map(|gap| gap.meta_number("missing"))
        .sum();
    assert_eq!(told, missing);
    let recorded = (events.len() - gaps.len()) as u64;
    assert_eq!(recorded + missing, said + 3, "nothing else is missing");
    let alerts = store.stream("alerts")?;
    assert!(alerts.iter().any(|alert| alert["kind"] == "gap"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_found_by_any_end_of_its_name_that_is_its_own() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(1 << 20)?;
    let first = talk(recorder.clone(), 1, Duration::ZERO).await;
    let second = talk(recorder.clone(), 1, Duration::ZERO).await;
    task.close(SOON).await?;
    let mut reader = store.reader()?;
    assert_eq!(reader.resolve("last")?, second);
    assert_eq!(reader.resolve(&first)?, first);
    assert_eq!(reader.resolve(&first[24..])?, first);
    let both = reader.resolve(&first[..6]).unwrap_err().to_string();
    assert!(both.contains(&first) && both.contains(&second), "{both}");
    assert!(reader.resolve("0000").is_err());
    assert!(reader.resolve("*").is_err());
    Ok(())
}
