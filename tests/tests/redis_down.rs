//! Without a store nothing goes on unrecorded: sessions stop with a reason, and
//! come back with the store.

use std::time::{Duration, Instant};

use anyhow::Result;
use interceptor_tests::daemon::SOON;
use interceptor_tests::world::{Plan, alone, target};
use interceptor_tests::{sshd, web};
use serde_json::{Value, json};

/// A queue and a spool that are soon full, and no long wait for room.
fn impatient(mut config: Value) -> Value {
    let recorder = json!({
        "queue_bytes": 1_048_576,
        "stall": "3s",
        // What is said again and again would not fill the spool.
        "compress": "off",
        "spool": { "max_bytes": 1_048_576 },
    });
    if let Some(config) = config.as_object_mut() {
        config.insert("recorder".to_owned(), recorder);
    }
    config
}

static WEB: web::Shared = web::Shared::new(web::Plan {
    rules: "version: 1\nrules: []\n",
    config: |nginx, place| Ok(impatient(web::all_targets(nginx, place)?)),
});

static SHELL: sshd::Shared = sshd::Shared::new(sshd::Plan {
    rules: "version: 1\nrules: []\n",
    config: |sshd, place| Ok(impatient(sshd::with_credentials(sshd, place)?)),
});

#[test]
fn a_request_that_cannot_be_recorded_is_not_sent() -> Result<()> {
    WEB.test(|web| {
        web.redis.hang()?;
        // Many requests on one connection, together larger than the queue.
        let many = format!("http://127.0.0.1:{}/page?[1-4000]", web.nginx.port);
        let last = format!("http://127.0.0.1:{}/unrecorded", web.nginx.port);
        let done = web.curl("during", &["-sf", "--fail-early", &many, &last]);
        web.redis.resume()?;
        let done = done?;
        assert_ne!(done.status.code(), Some(0), "{}", done.stderr);
        assert!(web.nginx.saw("/page?100")?, "nothing was sent at all");
        assert!(!web.nginx.saw("/unrecorded")?);
        Ok(())
    })
}

#[test]
fn a_commands_output_that_cannot_be_recorded_does_not_reach_the_agent() -> Result<()> {
    SHELL.test(|shell| {
        shell.redis.hang()?;
        let done = shell.ssh("during", &["head -c 20000000 /dev/zero | tr '\\0' x"]);
        shell.redis.resume()?;
        let done = done?;
        assert_ne!(done.status.code(), Some(0), "{}", done.stderr);
        // The queue takes the last of them whole, and as much again may be on its way.
        assert!(done.stdout.len() < 4 << 20, "{}", done.stdout.len());
        Ok(())
    })
}

#[test]
fn a_store_that_hangs_stops_sessions_with_a_reason_and_one_that_is_back_takes_new_ones()
-> Result<()> {
    let plan = Plan {
        config: |postgres, _| {
            json!({
                "targets": [target(postgres)],
                "recorder": {
                    "queue_bytes": 1_048_576,
                    "stall": "3s",
                    // What is said again and again would not fill the spool.
                    "compress": "off",
                    "spool": { "max_bytes": 1_048_576 },
                },
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
