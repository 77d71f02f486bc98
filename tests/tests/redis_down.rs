//! Without a store nothing goes on unrecorded: sessions stop with a reason, and
//! come back with the store.

use std::time::{Duration, Instant};

use anyhow::Result;
use interceptor_tests::daemon::SOON;
use interceptor_tests::world::{Plan, alone, target};
use serde_json::json;

#[test]
fn a_store_that_hangs_stops_sessions_with_a_reason_and_one_that_is_back_takes_new_ones()
-> Result<()> {
    let plan = Plan {
        config: |postgres, _| {
            json!({
                "targets": [target(postgres)],
                "recorder": { "queue_bytes": 1_048_576, "stall": "3s" },
            })
        },
        ..Plan::default()
    };
    alone(&plan, |world| {
        let port = world.postgres.port;
        world.agent("before").psql(port, "SELECT 1;\n")?.ok()?;

        world.redis.hang()?;
        let start = Instant::now();
        // Many answers, together larger than the queue.
        let asking = "SELECT repeat('x', 1000) FROM generate_series(1, 8);\n".repeat(2_000);
        let script = asking + "SELECT 'unrecorded';\n";
        let done = world.agent("during").psql(port, &script)?;
        assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
        assert!(
            done.stderr.contains("nothing goes on unrecorded"),
            "{}",
            done.stderr
        );
        assert!(!done.stdout.contains("unrecorded"));
        // One answer that is larger by itself. It stops inside a row, where no
        // error can be put, so the connection ends.
        let done = world.agent("during-bulk").psql(
            port,
            "SELECT repeat('x', 1000) FROM generate_series(1, 65536);\nSELECT 'unrecorded';\n",
        )?;
        assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
        assert!(!done.stdout.contains("unrecorded"));
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "{:?}",
            start.elapsed()
        );

        world.redis.resume()?;
        interceptor_tests::eventually("sessions to work again", SOON, || {
            let done = world.agent("after").psql(port, "SELECT 'back';\n")?;
            Ok(done.stdout == "back\n")
        })?;
        let (_, events) = world.records()?.only_session_of("before")?;
        assert_eq!(
            events.last().map(|event| event.kind.as_str()),
            Some("close")
        );
        Ok(())
    })
}
