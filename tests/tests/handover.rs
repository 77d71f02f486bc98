//! A daemon takes over from one that runs: sessions go on, connects are not refused,
//! and what the old one still has is asked for by way of the new one.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context as _, Result};
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::postgres::Postgres;
use interceptor_tests::steady::{looper, none_refused, says};
use interceptor_tests::world::{Plan, World, alone, target};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn status(world: &World) -> Result<Value> {
    Ok(serde_json::from_str(
        &world.daemon.ask(&["status", "--json"])?,
    )?)
}

fn draining(world: &World) -> Result<usize> {
    let status = status(world)?;
    Ok(status
        .get("draining")
        .and_then(Value::as_array)
        .context("no list")?
        .len())
}

#[test]
fn sessions_go_on_and_no_connect_is_refused_while_daemons_change() -> Result<()> {
    alone(&Plan::default(), |world| {
        let mut session = world.agent("patient").start_psql(world.postgres.port)?;
        says(world, &mut session, "under the first")?;
        let looper = looper(world, &world.postgres.port.to_string())?;

        let mut first = world.daemon.take_over()?;
        says(world, &mut session, "and still")?;
        assert_eq!(draining(world)?, 1);
        // A rule that is changed now holds for the session of the first daemon.
        let before = status(world)?["draining"][0]["rules_digest"].clone();
        world.daemon.set_rules(
            "version: 1\nrules:\n  - { name: no-updates, match: { postgres: { class: write } }, verdict: block }\n",
        )?;
        eventually("the new rules in the old daemon", SOON, || {
            Ok(status(world)?["draining"][0]["rules_digest"] != before)
        })?;
        session.write("UPDATE orders SET cents = 4242;\n")?;
        says(world, &mut session, "after the rule")?;

        let mut second = world.daemon.take_over()?;
        says(world, &mut session, "under the third")?;
        let (connects, sessions) = none_refused(looper)?;

        // The second has no session left, or soon: those of the loop.
        second.ends(SOON)?;
        assert!(first.is_running(), "it has a session");
        assert_eq!(draining(world)?, 1);
        let done = session.finish(SOON)?;
        assert_eq!(
            done.stdout,
            "under the first\nand still\nafter the rule\nunder the third\n"
        );
        assert!(done.stderr.contains("no-updates"), "{}", done.stderr);
        assert!(!world.postgres.saw("cents = 4242"));
        let ended = first.ends(SOON)?;
        assert!(ended.success(), "{ended}");
        assert_eq!(draining(world)?, 0);

        // Nothing of it is lost.
        let (_, events) = world.records()?.only_session_of("patient")?;
        let lines: Vec<&str> = events
            .iter()
            .filter(|event| event.kind == "command")
            .map(|event| event.line.as_str())
            .collect();
        assert_eq!(lines.len(), 5, "{lines:?}");
        for (at, event) in events.iter().enumerate() {
            assert_eq!(event.seq, at as u64);
        }
        let all = connects + sessions;
        let sessions = world.records()?.closed_sessions_of("looper", all)?;
        assert_eq!(sessions.len(), all);
        Ok(())
    })
}

#[test]
fn a_socket_that_is_a_target_is_reached_while_daemons_change_and_after_one_died() -> Result<()> {
    let plan = Plan {
        config: |postgres, _| {
            json!({ "targets": [{
                "name": "shop",
                "socket": socket_of(postgres),
                "protocol": "postgres",
                "default": "allow",
            }] })
        },
        ..Plan::default()
    };
    alone(&plan, |world| {
        let path = socket_of(&world.postgres);
        let looper = looper(world, &path)?;
        // One that is let go of is killed when it takes long.
        let mut old = Vec::new();
        for _ in 0..3 {
            old.push(world.daemon.take_over()?);
        }
        let (connects, sessions) = none_refused(looper)?;
        for daemon in &mut old {
            daemon.ends(SOON)?;
        }
        let all = connects + sessions;
        let recorded = world.records()?.closed_sessions_of("looper", all)?;
        assert_eq!(recorded.len(), all);

        // Somebody takes the door's name while there is no daemon: nobody is sent there.
        let at = format!(
            "host={} port={} user=agent dbname=postgres",
            world.postgres.sockets().display(),
            world.postgres.port
        );
        let again = "until psql -XqAt \"$0\" -c 'SELECT 7' 2> /dev/null; do sleep 0.01; done";
        let mut agent =
            world
                .agent("stubborn")
                .start(&["sh", "-c", &format!("read _; {again}"), &at])?;
        agent.has_begun()?;
        let address = SocketAddr::from_abstract_name(door(world)?)?;
        world.daemon.kill()?;
        let squatter = UnixListener::bind_addr(&address)?;
        squatter.set_nonblocking(true)?;
        agent.write("go\n")?;
        world.daemon.restart()?;
        assert_eq!(agent.finish(SOON)?.ok()?.stdout, "7\n");
        assert!(
            squatter.accept().is_err(),
            "an agent was sent to a stranger"
        );
        Ok(())
    })
}

fn socket_of(postgres: &Postgres) -> String {
    let name = format!(".s.PGSQL.{}", postgres.port);
    postgres.sockets().join(name).display().to_string()
}

/// The abstract name of the daemon's only door, as anybody may read it.
fn door(world: &World) -> Result<String> {
    let pid = world.daemon.server().pid();
    let own: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|link| link.display().to_string())
        .collect();
    let table = std::fs::read_to_string("/proc/net/unix")?;
    table
        .lines()
        .filter_map(|line| {
            let inode = line.split_whitespace().nth(6)?;
            let name = line.split_once(" @")?.1;
            let is_own = own.contains(&format!("socket:[{inode}]"));
            (is_own && name.starts_with("interceptor-")).then(|| name.to_owned())
        })
        .next()
        .context("no door")
}

#[test]
fn what_the_old_daemon_still_has_is_asked_for_through_the_new_one() -> Result<()> {
    let plan = Plan {
        rules: r#"
version: 1
rules:
  - name: ask-first
    match: { postgres: { class: ddl } }
    verdict: hold
    approval: { from: [dba], timeout: 60s }
"#,
        config: |postgres, _| {
            json!({
                "targets": [target(postgres)],
                "approvals": { "groups": { "dba": ["root"] } },
            })
        },
        ..Plan::default()
    };
    alone(&plan, |world| {
        let port = world.postgres.port;
        let mut asks = world.agent("asks").start_psql(port)?;
        asks.write("CREATE TABLE held (a int);\n")?;
        let mut killed = world.agent("killed").start_psql(port)?;
        says(world, &mut killed, "alive")?;
        let sleeper = world.agent("sleeper").start(&[
            "psql",
            "-XqAt",
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-U",
            "agent",
            "-d",
            "postgres",
            "-c",
            "SELECT pg_sleep(600)",
        ])?;
        eventually("all three", SOON, || {
            Ok(world.postgres.saw("pg_sleep(600)") && questions(world)?.len() == 1)
        })?;
        let mut old = world.daemon.take_over()?;

        assert_eq!(status(world)?["draining"][0]["flows"], 3);
        // A question of the old daemon is listed once, and answered.
        let open = questions(world)?;
        assert_eq!(open.len(), 1, "{open:?}");
        assert!(!world.postgres.saw("CREATE TABLE held"));
        let id = open[0]["id"].as_str().context("no id")?;
        world.daemon.ask(&["approvals", "approve", id])?;
        asks.finish(SOON)?.ok()?;
        assert!(world.postgres.saw("CREATE TABLE held"));

        // A session of it is killed.
        let session = session_of(world, "killed")?;
        world.daemon.ask(&["sessions", "kill", &session])?;
        killed.write("SELECT 'and dead';\n")?;
        let done = killed.finish(SOON)?;
        assert!(!world.postgres.saw("and dead"));
        assert_ne!(done.status.code(), Some(0), "{done:?}");

        // A request to cancel comes to the new daemon, and is for the old one's session.
        sleeper.signal(Signal::SIGINT)?;
        let done = sleeper.finish(SOON)?;
        assert!(done.stderr.contains("canceling"), "{done:?}");
        assert!(old.ends(SOON)?.success());
        Ok(())
    })
}

fn questions(world: &World) -> Result<Vec<Value>> {
    let list: Value = serde_json::from_str(&world.daemon.ask(&["approvals", "--json"])?)?;
    let open = list.as_array().context("no list")?.iter();
    Ok(open.filter(|one| one["state"] == "open").cloned().collect())
}

fn session_of(world: &World, agent: &str) -> Result<String> {
    let sessions = world.daemon.ask(&["sessions", "--json"])?;
    let mut all = serde_json::Deserializer::from_str(&sessions).into_iter::<Value>();
    let one = all
        .find_map(|one| one.ok().filter(|one| one["agent"] == agent))
        .with_context(|| format!("no session of {agent}: {sessions}"))?;
    Ok(one
        .get("session")
        .and_then(Value::as_str)
        .context("no id")?
        .to_owned())
}

#[test]
fn a_ban_and_what_was_counted_hold_under_the_next_daemon() -> Result<()> {
    let plan = Plan {
        rules: r#"
version: 1
rules:
  - name: shut-out
    match: { principal: { agent: "thrown-out" }, postgres: { statement: DROP } }
    verdict: { kill: { principal: 10m } }
  - name: not-so-often
    match: { principal: { agent: "busy" }, rate: { over: 3, per: 1h, by: principal } }
    verdict: block
    message: Enough for an hour.
  - name: late
    match: { principal: { agent: "late" }, postgres: { statement: DROP } }
    verdict: { kill: { principal: 10m } }
"#,
        ..Plan::default()
    };
    alone(&plan, |world| {
        let port = world.postgres.port;
        world
            .agent("thrown-out")
            .psql(port, "DROP TABLE orders;\n")?;
        let done = world
            .agent("busy")
            .psql(port, "SELECT 1;\nSELECT 2;\n")?
            .ok()?;
        assert_eq!(done.stdout, "1\n2\n");
        let mut late = world.agent("late").start_psql(port)?;
        says(world, &mut late, "in time")?;

        let mut old = world.daemon.take_over()?;
        let done = world.agent("thrown-out").psql(port, "SELECT 1;\n")?;
        assert!(done.stderr.contains("may open no session"), "{done:?}");
        let done = world.agent("busy").psql(port, "SELECT 3;\nSELECT 4;\n")?;
        assert_eq!(done.stdout, "3\n", "{}", done.stderr);
        // Who is thrown out of the old daemon's session gets none of the new one's.
        late.write("DROP TABLE orders;\n")?;
        late.finish(SOON)?;
        old.ends(SOON)?;
        eventually("the ban under the new daemon", SOON, || {
            let done = world.agent("late").psql(port, "SELECT 1;\n")?;
            Ok(done.stderr.contains("may open no session"))
        })?;
        Ok(())
    })
}

#[test]
fn sessions_of_a_replaced_daemon_end_on_record_when_their_time_is_over_or_all_end() -> Result<()> {
    let plan = Plan {
        config: |postgres, _| json!({ "targets": [target(postgres)], "drain": "2s" }),
        ..Plan::default()
    };
    alone(&plan, |world| {
        let port = world.postgres.port;
        let mut late = world.agent("too-long").start_psql(port)?;
        says(world, &mut late, "begun")?;
        let mut old = world.daemon.take_over()?;
        assert!(old.is_running());
        assert!(old.ends(SOON)?.success());
        let done = late.finish(SOON)?;
        assert_eq!(done.stdout, "begun\n", "{done:?}");
        let (_, events) = world.records()?.only_session_of("too-long")?;
        let close = events.last().context("no events")?;
        assert!(
            close.meta.to_string().contains("replaced"),
            "{}",
            close.meta
        );

        // A daemon that is stopped takes those before it along.
        let mut second = world.agent("stopped").start_psql(port)?;
        says(world, &mut second, "again")?;
        let mut old = world.daemon.take_over()?;
        assert!(world.daemon.server().stop()?.success());
        assert!(old.ends(SOON)?.success());
        let (_, events) = world.records()?.only_session_of("stopped")?;
        assert_eq!(events.last().context("no events")?.kind, "close");
        Ok(())
    })
}

#[test]
fn a_daemon_that_cannot_start_leaves_the_one_that_runs_as_it_was() -> Result<()> {
    alone(&Plan::default(), |world| {
        let port = world.postgres.port;
        let mut session = world.agent("steady").start_psql(port)?;
        says(world, &mut session, "before")?;
        let pid = status(world)?["pid"].clone();
        let text = std::fs::read_to_string(world.daemon.config())?;
        let mut other: Value = serde_json::from_str(&text)?;
        other["intercept"]["cgroup"] = json!(format!("{}-other", world.place.name()));
        let file = world.place.file("other.yaml", &other.to_string())?;
        let failed = std::process::Command::new(interceptor_tests::daemon::program()?)
            .arg("run")
            .arg("--config")
            .arg(file)
            .output()?;
        let said = String::from_utf8_lossy(&failed.stderr);
        assert!(!failed.status.success(), "{said}");
        assert!(said.contains("stop it first"), "{said}");
        says(world, &mut session, "after")?;
        assert_eq!(session.finish(SOON)?.ok()?.stdout, "before\nafter\n");
        world.agent("newcomer").psql(port, "SELECT 1;\n")?.ok()?;
        assert_eq!(status(world)?["pid"], pid);
        Ok(())
    })
}

#[test]
fn upgrading_says_who_took_over_and_fails_where_the_new_one_does_not_start() -> Result<()> {
    alone(&Plan::default(), |world| {
        let before = status(world)?["pid"].clone();
        world
            .daemon
            .set_rules("version: 1\nrules:\n  - { name: b, mtach: {} }\n")?;
        let failed = world.daemon.command(&["upgrade"])?;
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert_eq!(status(world)?["pid"], before);
        world.daemon.set_rules("version: 1\nrules: []\n")?;
        let said = world.daemon.ask(&["upgrade", "--json"])?;
        let after = status(world)?["pid"].clone();
        assert_ne!(after, before);
        assert!(said.contains(&after.to_string()), "{said}");
        assert!(world.daemon.server().ends(SOON)?.success());
        world
            .agent("after")
            .psql(world.postgres.port, "SELECT 1;\n")?
            .ok()?;
        let pid = after.as_i64().and_then(|pid| i32::try_from(pid).ok());
        let pid = nix::unistd::Pid::from_raw(pid.context("no pid")?);
        nix::sys::signal::kill(pid, Signal::SIGTERM)?;
        eventually("its end", SOON, || {
            Ok(nix::sys::signal::kill(pid, None).is_err()
                || std::fs::read_to_string(format!("/proc/{pid}/stat"))
                    .map_or(true, |stat| stat.contains(") Z ")))
        })
    })
}

#[test]
fn a_private_redis_goes_from_daemon_to_daemon_and_ends_with_the_last() -> Result<()> {
    let plan = Plan {
        config: |postgres, _| json!({ "targets": [target(postgres)], "recorder": { "redis": null } }),
        ..Plan::default()
    };
    alone(&plan, |world| {
        let port = world.postgres.port;
        let url = world.place.path("run/redis.url");
        if !url.exists() {
            println!("a Redis answers at the standard port: nothing private is started");
            return Ok(());
        }
        let before = std::fs::read_to_string(&url)?;
        world.agent("before").psql(port, "SELECT 1;\n")?.ok()?;
        let mut old = world.daemon.take_over()?;
        old.ends(SOON)?;
        world.agent("after").psql(port, "SELECT 2;\n")?.ok()?;
        assert_eq!(std::fs::read_to_string(&url)?, before);
        eventually("both on record", SOON, || {
            let listed = world.daemon.ask(&["sessions", "--json"])?;
            Ok(listed.contains("\"before\"") && listed.contains("\"after\""))
        })?;
        assert!(world.daemon.server().stop()?.success());
        assert!(!url.exists(), "it was stopped with the last daemon");
        Ok(())
    })
}
