//! Disks that fill up, and bytes that change on them.

use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::eventually;
use interceptor_tests::process::Mounted;
use interceptor_user::recorder::Unsent;
use nix::sys::signal::Signal;

use super::SOON;
use super::store::{Store, all_there_once};
use super::talker::{Talker, say, together};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_sessions_and_loses_nothing() -> Result<()> {
    let mut store = Store::start()?;
    let dir = store.place.subfolder("small")?;
    let _mounted = Mounted::tmpfs(&dir, 3 << 20)?;
    store.spool.dir = Some(dir.join("spool"));
    // The bound is the disk's, and not the configuration's.
    store.spool.max_bytes = 8 << 20;
    let (recorder, task) = store.recorder(256 << 10)?;
    store.signal(Signal::SIGSTOP)?;
    let talking = {
        let recorder = recorder.clone();
        tokio::spawn(async move { together(&recorder, 4, 2200, Duration::ZERO).await })
    };
    eventually("the disk to be full", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("cannot be written") && !recorder.has_room())
    })?;
    assert!(!talking.is_finished());
    store.signal(Signal::SIGCONT)?;
    let sessions = talking.await?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 2200)?;
    let alerts = store.stream("alerts")?;
    assert!(alerts.iter().any(|alert| {
        alert
            .get("line")
            .is_some_and(|line| line.contains("the spool took nothing"))
    }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_on_the_disk_is_told_kept_and_costs_no_other_session() -> Result<()> {
    let mut store = Store::start()?;
    store.signal(Signal::SIGKILL)?;
    store.server = None;
    let (recorder, task) = store.recorder(1 << 20)?;
    // One after the other, so that each is in frames of its own.
    let mut sessions = Vec::new();
    for taken in [52, 104, 156] {
        let mut talker = Talker::new();
        say(&recorder, talker.open()).await;
        for _ in 0..50 {
            say(&recorder, talker.command()).await;
        }
        say(&recorder, talker.close()).await;
        sessions.push(talker.id());
        eventually("it to be in a frame", SOON, || {
            Ok(recorder.status().recorded >= taken)
        })?;
    }
    let kept = task.close(Duration::from_millis(300)).await;
    assert!(matches!(kept, Err(Unsent::Kept { .. })));
    drop(recorder);

    let spool = store.place.path("state").join("spool");
    let find = |end: &str| -> Result<Vec<std::path::PathBuf>> {
        let mut found = Vec::new();
        let mut folders = vec![spool.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_string_lossy().ends_with(end) {
                    found.push(path);
                }
            }
        }
        Ok(found)
    };
    let segment = find(".spool")?.pop().context("no segment")?;
    let bytes = std::fs::read(&segment)?;
    // A byte of the second session's statements.
    let marker = sessions[1].as_bytes();
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker)
        .context("the session is not in the spool")?;
    let file = std::fs::OpenOptions::new().write(true).open(&segment)?;
    file.write_all_at(b"?", at as u64 + 200)?;

    store.again()?;
    let (recorder, task) = store.recorder(1 << 20)?;
    eventually("the others to be there", SOON, || {
        let closed = store.stream("sessions")?;
        let closed = closed.iter().filter(|entry| entry["event"] == "close");
        let closed: Vec<_> = closed.map(|entry| entry["session"].clone()).collect();
        Ok(closed.contains(&sessions[0]) && closed.contains(&sessions[2]))
    })?;
    eventually("the damage to be told", SOON, || {
        let alerts = store.stream("alerts")?;
        Ok(alerts.iter().any(|alert| {
            alert["severity"] == "critical"
                && alert["line"].contains("cannot be read: events are lost")
        }))
    })?;
    task.close(SOON).await?;
    drop(recorder);
    for whole in [&sessions[0], &sessions[2]] {
        assert_eq!(store.session(whole)?.len(), 52);
    }
    // What is left of it does not pass for whole.
    let rest = store.session(&sessions[1]);
    assert!(rest.is_err() || rest.is_ok_and(|events| events.len() < 52));
    let damaged = find(".spool")?;
    assert!(
        damaged
            .iter()
            .any(|path| path.to_string_lossy().contains("damaged-"))
    );
    Ok(())
}
