//! A daemon that is gone means refused connects, never direct ones; a new one
//! takes over.

use std::io::Read as _;
use std::net::TcpListener;

use anyhow::Result;
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::world::{Plan, alone, target};
use serde_json::{Value, json};

#[test]
fn with_the_daemon_killed_nothing_connects_and_with_a_new_one_everything_does() -> Result<()> {
    alone(&Plan::default(), |world| {
        // The agent is started once and outlives the daemon.
        let port = world.postgres.port;
        let program = format!(
            "while read -r mark; do \
                 psql -XqAt -h 127.0.0.1 -p {port} -U agent -d postgres -c \"SELECT 'ran $mark'\" 2>&1; \
                 echo \"exit $mark $?\"; \
             done"
        );
        let mut running = world
            .agent("survivor")
            .start(&["/bin/sh", "-c", &program])?;
        running.write("before\n")?;
        interceptor_tests::eventually("the first query", SOON, || {
            Ok(world.postgres.saw("ran before"))
        })?;

        world.daemon.kill()?;
        running.write("while-down\n")?;
        // The next command of the loop starts when this one ended, so its
        // refusal is over once the daemon's successor is asked.
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert!(
            !world.postgres.saw("ran while-down"),
            "it went round the dead daemon"
        );

        world.daemon.restart()?;
        running.write("after\n")?;
        let done = running.finish(SOON)?;
        assert!(done.stdout.contains("exit before 0"), "{done:?}");
        assert!(done.stdout.contains("exit while-down 2"), "{done:?}");
        assert!(done.stdout.contains("exit after 0"), "{done:?}");
        assert!(!world.postgres.saw("ran while-down"));
        assert!(world.postgres.saw("ran after"));
        Ok(())
    })
}

#[test]
fn a_daemon_that_is_stopped_in_order_lets_nothing_through_either() -> Result<()> {
    alone(&Plan::default(), |world| {
        let port = world.postgres.port;
        let program = format!(
            "read -r mark; psql -XqAt -h 127.0.0.1 -p {port} -U agent -d postgres -c 'SELECT 4242'"
        );
        let mut running = world.agent("late").start(&["/bin/sh", "-c", &program])?;
        running.has_begun()?;
        world.daemon.server().stop()?;
        running.write("go\n")?;
        let done = running.finish(SOON)?;
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        assert!(!world.postgres.saw("SELECT 4242"));
        Ok(())
    })
}

#[test]
fn where_the_operator_wants_it_connects_go_direct_without_a_daemon_and_are_told() -> Result<()> {
    let plan = Plan {
        rules: "version: 1\nrules:\n  - { name: no, match: { postgres: { class: write } }, verdict: block }\n",
        config: |postgres, _| {
            json!({
                "targets": [target(postgres)],
                "intercept": { "when_down": "allow" },
            })
        },
        ..Plan::default()
    };
    alone(&plan, |world| {
        let port = world.postgres.port;
        let write = |mark: u32| format!("UPDATE orders SET cents = {mark}");
        // Three connects each time, to either family's address, and something that is no
        // connect of TCP.
        // And a connection that is held open.
        let raw = TcpListener::bind("127.0.0.1:0")?;
        let raw_port = raw.local_addr()?.port();
        let program = format!(
            "while read -r mark; do \
                 case $mark in \
                     4002) exec 5<>/dev/tcp/127.0.0.1/{raw_port}; echo one >&5;; \
                     4003) echo two >&5; sleep 1; echo three >&5 || echo ended;; \
                 esac; \
                 for host in 127.0.0.1 ::1 127.0.0.1; do \
                     psql -XqAt -h $host -p {port} -U agent -d postgres -c \"UPDATE orders SET cents = $mark\" 2>&1; \
                     echo \"exit $mark $?\"; \
                 done; \
                 /usr/bin/python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b\"x\", (\"127.0.0.1\", 9))' 2>&1 | tail -1; \
                 echo \"done $mark\"; \
             done"
        );
        let mut running = world
            .agent("unwatched")
            .start(&["/bin/bash", "-c", &program])?;
        let status = || -> Result<Value> {
            Ok(serde_json::from_str(
                &world.daemon.ask(&["status", "--json"])?,
            )?)
        };
        eventually("its run", SOON, || Ok(status()?["runs"] == 1))?;
        assert_eq!(status()?["when_down_allows"], true);
        running.write("4001\n")?;
        let alerts = |word: &str| -> Result<Vec<String>> {
            let alerts = world.records()?.stream("interceptor:alerts")?;
            let texts = alerts.iter().map(|alert| {
                let values = alert.values().map(|value| String::from_utf8_lossy(value));
                values.collect::<Vec<_>>().join(" ")
            });
            Ok(texts.filter(|text| text.contains(word)).collect())
        };
        eventually("its third refusal", SOON, || {
            Ok(alerts("no-listener")?.is_empty() && alerts("verdict")?.len() >= 2)
        })?;
        assert!(
            !world.postgres.saw(&write(4001)),
            "judged while there is a daemon"
        );

        world.daemon.kill()?;
        running.write("4002\n")?;
        eventually("what goes direct", SOON, || {
            Ok(world.postgres.saw(&write(4002)))
        })?;
        let (held, _) = raw.accept()?;
        held.set_read_timeout(Some(SOON))?;
        let mut said = [0; 16];
        assert_eq!((&held).read(&mut said)?, 4, "one");
        std::thread::sleep(std::time::Duration::from_secs(2));
        world.daemon.restart()?;
        running.write("4003\n")?;
        let done = running.finish(SOON)?;
        held.set_nonblocking(true)?;
        assert!((&held).read(&mut said).is_err(), "what went direct goes on");
        assert!(done.stdout.contains("ended"), "{done:?}");
        assert!(!world.postgres.saw(&write(4003)), "{done:?}");
        assert!(done.stdout.contains("exit 4002 0"), "{done:?}");
        assert_eq!(
            done.stdout.matches("PermissionError").count(),
            3,
            "{done:?}"
        );

        // Two or three connects to the database, and one is held open; libpq tries twice where it
        // was refused.
        let told = status()?["went_direct"].as_u64().unwrap_or_default();
        assert!((3..=6).contains(&told), "{told}");
        eventually("the alert", SOON, || Ok(!alerts("went direct")?.is_empty()))?;
        let [alert] = &alerts("went direct")?[..] else {
            anyhow::bail!("told more than once");
        };
        assert!(alert.contains("unwatched"), "{alert}");
        // And is not told again.
        world.daemon.restart()?;
        assert_eq!(status()?["went_direct"], 0);
        Ok(())
    })
}
