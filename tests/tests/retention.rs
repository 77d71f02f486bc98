//! What may go, goes by itself; what may not, stays.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a test that panics has failed; the store's other tests use the rest of it"
)]

#[path = "recording/store.rs"]
mod store;
#[path = "recording/talker.rs"]
mod talker;

use std::time::Duration;

use anyhow::Result;
use interceptor_tests::cluster::Cluster;
use interceptor_tests::daemon::{Daemon, SOON};
use interceptor_tests::eventually;
use interceptor_tests::place::Place;
use serde_json::{Value, json};

use store::Store;
use talker::{Talker, say, together};

/// A Redis with so many closed sessions and an open one.
async fn scene(sessions: usize, commands: u64) -> Result<(Store, Vec<String>, String)> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(64 << 20)?;
    let mut closed = together(&recorder, sessions, commands, Duration::ZERO).await;
    closed.sort();
    let mut talker = Talker::new();
    say(&recorder, talker.open()).await;
    task.close(Duration::from_secs(30)).await?;
    Ok((store, closed, talker.id()))
}

fn daemon(place: &Place, store: &Store, retention: &Value) -> Result<Daemon> {
    let config = json!({
        "intercept": { "kernel": false },
        "recorder": { "retention": retention },
    });
    Daemon::start(place, &store.url(), "version: 1\nrules: []\n", &config)
}

fn left(store: &Store, sessions: &[String]) -> Result<usize> {
    let mut left = 0;
    for session in sessions {
        left += usize::from(!store.session(session)?.is_empty());
    }
    Ok(left)
}

fn removed(store: &Store, why: &str) -> Result<usize> {
    let lines = store.stream("sessions")?;
    let is_it = |line: &&std::collections::BTreeMap<String, String>| {
        line.get("event").map(String::as_str) == Some("removed")
            && line.get("why").map(String::as_str) == Some(why)
    };
    Ok(lines.iter().filter(is_it).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn by_age_with_an_archive_and_by_one_interceptor_of_two() -> Result<()> {
    let (store, closed, open) = scene(12, 20).await?;
    // Nobody closed it, and its host is not heard of again.
    let archive = store.place.path("archive");
    // What a search index knows of a recording goes with it.
    let grams = format!("interceptor:grams:{{{}}}", closed[0]);
    store.run(&["HSET", &grams, "grams", "abcd"])?;
    // Alerts go by age, too: long enough for one to be looked for.
    let retention = json!({ "age": "6s", "every": "1s", "archive_to": archive });
    let (one, two) = (Place::new()?, Place::new()?);
    let first = daemon(&one, &store, &retention)?;
    let second = daemon(&two, &store, &retention)?;
    tokio::task::block_in_place(|| -> Result<()> {
        eventually("all closed sessions to go", SOON, || {
            Ok(left(&store, &closed)? == 0)
        })
    })?;
    assert_eq!(store.session(&open)?.len(), 1, "an open session stays");
    assert_eq!(removed(&store, "age")?, 12, "each is removed once");
    let left_of_it = store.run(&["EXISTS", &grams])?;
    assert_eq!(left_of_it, redis::Value::Int(0), "{grams}");
    let listed = first.ask(&["archive", "check"])?;
    assert!(
        listed.contains("12 sessions, 0 of them no good"),
        "{listed}"
    );
    let told = tokio::task::block_in_place(|| -> Result<()> {
        eventually("an alert", SOON, || {
            let alerts = store.stream("alerts")?;
            Ok(alerts
                .iter()
                .any(|alert| alert.get("kind").map(String::as_str) == Some("retention")))
        })
    });
    told?;

    // Who has it goes; the other one takes over when its time is over, here at once.
    first.server().stop()?;
    store.run(&["DEL", "interceptor:retention"])?;
    second.ask(&["archive", "restore", &closed[0]])?;
    tokio::task::block_in_place(|| -> Result<()> {
        eventually("the other interceptor to do it", SOON, || {
            Ok(left(&store, &closed)? == 0)
        })
    })?;
    second.never_panicked()
}

/// A session's stream, what tells of it and the lease are on different nodes then.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_into_an_archive_and_back() -> Result<()> {
    let cluster = Cluster::start()?;
    let store = Store::at(Some(cluster.url()))?;
    let (recorder, task) = store.recorder(64 << 20)?;
    let closed = together(&recorder, 9, 20, Duration::ZERO).await;
    let mut talker = Talker::new();
    say(&recorder, talker.open()).await;
    task.close(Duration::from_secs(30)).await?;
    let archive = store.place.path("archive");
    let retention = json!({ "age": "1s", "every": "1s", "archive_to": archive });
    let place = Place::new()?;
    let daemon = daemon(&place, &store, &retention)?;
    tokio::task::block_in_place(|| -> Result<()> {
        eventually("all closed sessions to go", SOON, || {
            Ok(left(&store, &closed)? == 0)
        })
    })?;
    assert_eq!(
        store.session(&talker.id())?.len(),
        1,
        "an open session stays"
    );
    assert_eq!(removed(&store, "age")?, 9, "each is removed once");
    let listed = daemon.ask(&["archive", "check"])?;
    assert!(listed.contains("9 sessions, 0 of them no good"), "{listed}");
    let verified = daemon.ask(&["verify", "--all", "--json"])?;
    let verified: Value = serde_json::from_str(&verified)?;
    assert_eq!(verified["right"], true, "{verified}");
    // By hand, once nobody removes it again.
    daemon.server().stop()?;
    daemon.ask(&["archive", "restore", &closed[0]])?;
    assert_eq!(store.session(&closed[0])?.len(), 22);
    daemon.never_panicked()
}

#[tokio::test(flavor = "multi_thread")]
async fn by_size_the_oldest_first() -> Result<()> {
    let (store, closed, _) = scene(10, 300).await?;
    let usage = |session: &str| -> Result<i64> {
        let key = format!("interceptor:session:{{{session}}}");
        match store.run(&["MEMORY", "USAGE", &key])? {
            redis::Value::Int(bytes) => Ok(bytes),
            other => anyhow::bail!("{other:?}"),
        }
    };
    let each = usage(&closed[0])?;
    let place = Place::new()?;
    let daemon = daemon(&place, &store, &json!({ "bytes": each * 4, "every": "1s" }))?;
    tokio::task::block_in_place(|| -> Result<()> {
        eventually("some to go", SOON, || Ok(left(&store, &closed)? < 10))?;
        // And no more than has to.
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    let left = left(&store, &closed)?;
    assert!((2..=5).contains(&left), "{left} are left");
    assert_eq!(removed(&store, "bytes")?, 10 - left);
    daemon.never_panicked()
}

/// Nothing goes while the archive cannot be had.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_archive_nothing_goes() -> Result<()> {
    let (store, closed, _) = scene(3, 5).await?;
    let file = store.place.file("file", "no folder")?;
    let place = Place::new()?;
    let retention = json!({ "age": "1s", "every": "1s", "archive_to": file });
    let daemon = daemon(&place, &store, &retention)?;
    tokio::task::block_in_place(|| -> Result<()> {
        eventually("an alert that it cannot be done", SOON, || {
            let alerts = store.stream("alerts")?;
            Ok(alerts.iter().any(|alert| {
                alert
                    .get("line")
                    .is_some_and(|line| line.contains("could not be done"))
            }))
        })
    })?;
    assert_eq!(left(&store, &closed)?, 3);
    daemon.never_panicked()
}

/// One that cannot go is told of once, and keeps nobody else from going.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_differs_from_its_archive_stays_and_the_others_go() -> Result<()> {
    let (store, closed, _) = scene(4, 5).await?;
    let archive = store.place.path("archive");
    let place = Place::new()?;
    let config = json!({ "archive_to": archive, "age": "1h", "every": "1s" });
    let daemon = daemon(&place, &store, &config)?;
    // Its archive has all of it, and then somebody takes an event out of the store.
    let differs = &closed[0];
    daemon.ask(&["archive", "--session", differs, "--keep"])?;
    let key = format!("interceptor:session:{{{differs}}}");
    let mut reader = store.reader()?;
    let third = reader.after(&key, "0-0", 3)?.pop().expect("a third event");
    store.run(&["XDEL", &key, &third.id])?;
    let retention = json!({ "archive_to": archive, "age": "1s", "every": "1s" });
    let text = std::fs::read_to_string(daemon.config())?;
    let mut whole: Value = serde_json::from_str(&text)?;
    whole["recorder"]["retention"] = retention;
    std::fs::write(daemon.config(), whole.to_string())?;
    tokio::task::block_in_place(|| -> Result<()> {
        daemon.restart()?;
        // The lease of the one before.
        store.run(&["DEL", "interceptor:retention"])?;
        eventually("the others to go", SOON, || {
            let mut left = 0;
            for session in &closed {
                let key = reader.session_key(session);
                left += usize::from(reader.has(&key)?);
            }
            Ok(left == 1)
        })?;
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    assert!(reader.has(&key)?, "it stays");
    // The alert goes with what is older than a second; the log has the same words.
    let log = daemon.server().log();
    let is_it = |line: &&str| line.contains("retention leaves one") && line.contains(differs);
    let told: Vec<&str> = log.lines().filter(is_it).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("compare them"), "{told:?}");
    daemon.never_panicked()
}
