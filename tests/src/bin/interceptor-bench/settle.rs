//! Waiting for what was recorded.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use interceptor_tests::redis::Redis;

/// Waits until what a measurement recorded is in the store, and empties that: the
/// next one pays for its own record alone.
pub(crate) fn settle(store: &Redis) -> Result<()> {
    let client = redis::Client::open(store.url())?;
    let mut connection = client.get_connection()?;
    let mut written = || -> Result<u64> {
        let info: String = redis::cmd("INFO").arg("stats").query(&mut connection)?;
        info.lines()
            .find_map(|line| line.strip_prefix("total_net_input_bytes:"))
            .and_then(|number| number.trim().parse().ok())
            .context("Redis does not say how much was written")
    };
    let start = Instant::now();
    let mut before = written()?;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = written()?;
        // Asking writes a few bytes as well.
        if now - before < 2_000 || start.elapsed() > Duration::from_secs(120) {
            break;
        }
        before = now;
    }
    redis::cmd("FLUSHALL").exec(&mut connection)?;
    Ok(())
}
