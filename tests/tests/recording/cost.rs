//! What recording costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use interceptor_engine::event::Kind;
use interceptor_tests::eventually;

use super::SOON;
use super::store::Store;
use super::talker::Talker;

/// What an event costs whom, at 20 000 exchanges a second: run by hand, with
/// `--ignored --nocapture` and optimisation.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a promise"]
async fn what_an_event_costs() -> Result<()> {
    const ROUNDS: u32 = 5_000;
    const EXCHANGES: u32 = 20;
    let store = Store::start()?;
    let (recorder, task) = store.recorder(2 << 30)?;
    let mut talkers: Vec<Talker> = (0..EXCHANGES).map(|_| Talker::new()).collect();
    let server = store.server.as_ref().context("no server")?.pid();
    let redis = format!("/proc/{server}/stat");
    eventually("the recorder to connect", SOON, || {
        Ok(recorder.status().connected)
    })?;
    let writer = std::fs::read_dir("/proc/self/task")?
        .filter_map(|task| Some(task.ok()?.path().join("stat")))
        .find(|stat| std::fs::read_to_string(stat).is_ok_and(|stat| stat.contains("(recorder)")))
        .context("no writer")?;
    let cpu = |stat: &std::path::Path| -> f64 {
        let stat = std::fs::read_to_string(stat).unwrap_or_default();
        let ticks = stat.rsplit(')').next().unwrap_or_default();
        let ticks = ticks.split_whitespace().skip(11).take(2);
        ticks
            .filter_map(|tick| tick.parse::<f64>().ok())
            .sum::<f64>()
            / 100.0
    };
    let before = (cpu(redis.as_ref()), cpu(&writer));
    let start = Instant::now();
    let mut recording = Vec::new();
    let mut batch = Vec::new();
    for round in 0..ROUNDS {
        for talker in &mut talkers {
            batch.push(talker.command().with_meta(META.to_owned()));
            let result = talker.event(Kind::Result, "SELECT 1 · 1 rows · 0.100 ms");
            batch.push(result.with_data(vec![b'x'; 120]));
            let at = Instant::now();
            recorder.record(&mut batch)?;
            recording.push(at.elapsed().as_nanos());
        }
        let due = start + Duration::from_millis(1) * (round + 1);
        tokio::time::sleep_until(due.into()).await;
    }
    let made = start.elapsed();
    let waiting = recorder.status().queued_bytes;
    eventually("everything to be in Redis", SOON * 4, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    let events = f64::from(ROUNDS * EXCHANGES * 2);
    let after = (cpu(redis.as_ref()), cpu(&writer));
    recording.sort_unstable();
    println!(
        "record(), two events: median {} ns, 99 % {} ns; {:.0} events/s made, {waiting} bytes behind; CPU an event: Redis {:.2} µs, writer {:.2} µs; {} batches",
        recording[recording.len() / 2],
        recording[recording.len() * 99 / 100],
        events / made.as_secs_f64(),
        (after.0 - before.0) * 1e6 / events,
        (after.1 - before.1) * 1e6 / events,
        recorder.status().batches,
    );
    task.close(SOON).await?;
    Ok(())
}

const META: &str = r#"{"message":"Q","verdict":"allow","tags":["SELECT"],"classes":["read"],"tables":["public.accounts"],"rules":[]}"#;
