//! What an agent did is in Redis, whole, in order, and can be shown again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use interceptor_tests::needs;
use interceptor_tests::records::{Recorded, contains};
use interceptor_tests::redis::Redis;
use interceptor_tests::world::{Plan, Shared, World};

const RULES: &str = r#"
version: 1
rules:
  - name: no-drop
    match: { postgres: { statement: [DROP] } }
    verdict: block
    severity: high
  - name: ssn-is-hidden
    match: { protocol: postgres }
    mask:
      - columns: ["users.ssn"]
        with: redact
"#;

static WORLD: Shared = Shared::new(|| Plan {
    rules: RULES,
    ..Plan::default()
});

const SCRIPT: &str = "SELECT name, ssn FROM users ORDER BY id;\n\
    DROP TABLE users;\n\
    SELECT * FROM nowhere;\n\
    CREATE TEMP TABLE bulk (id int);\n\
    COPY bulk FROM STDIN;\n1\n2\n\\.\n\
    SELECT count(*) AS counted FROM bulk;\n";

/// An agent's session that does a bit of everything, and its record.
fn a_session(world: &World, agent: &str) -> Result<(String, Vec<Recorded>)> {
    world.agent(agent).psql(world.postgres.port, SCRIPT)?.ok()?;
    world.records()?.only_session_of(agent)
}

#[test]
fn events_are_numbered_without_a_gap_and_in_time() -> Result<()> {
    WORLD.test(|world| {
        let (_, events) = a_session(world, "numbered")?;
        for (expected, event) in (0..).zip(&events) {
            assert_eq!(event.seq, expected);
        }
        assert!(events.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert_eq!(
            events.first().map(|event| event.kind.as_str()),
            Some("open")
        );
        assert_eq!(
            events.last().map(|event| event.kind.as_str()),
            Some("close")
        );
        let mut chains: Vec<&str> = events.iter().map(|event| event.chain.as_str()).collect();
        assert!(chains.iter().all(|chain| !chain.is_empty()));
        chains.sort_unstable();
        chains.dedup();
        assert_eq!(
            chains.len(),
            events.len(),
            "each link of the chain is its own"
        );
        Ok(())
    })
}

#[test]
fn every_kind_of_event_is_there() -> Result<()> {
    WORLD.test(|world| {
        let (_, events) = a_session(world, "manifold")?;
        for kind in [
            "open", "auth", "command", "verdict", "result", "error", "mask", "input", "close",
        ] {
            assert!(
                events.iter().any(|event| event.kind == kind),
                "no {kind} in {:?}",
                events
                    .iter()
                    .map(|event| (&event.kind, &event.line))
                    .collect::<Vec<_>>()
            );
        }
        Ok(())
    })
}

#[test]
fn the_opening_event_names_who_it_was_as_the_kernel_saw_it() -> Result<()> {
    WORLD.test(|world| {
        let (_, events) = a_session(world, "identified")?;
        let open = events.first().context("no events")?;
        let meta = open.meta.to_string();
        let user = interceptor_tests::needs::ordinary_user()?;
        for expected in [
            "\"identified\"".to_owned(),
            format!("\"uid\":{}", user.uid),
            "psql".to_owned(),
            format!("127.0.0.1:{}", world.postgres.port),
            "\"shop\"".to_owned(),
        ] {
            assert!(meta.contains(&expected), "no {expected} in {meta}");
        }
        Ok(())
    })
}

#[test]
fn results_are_recorded_as_the_agent_got_them() -> Result<()> {
    WORLD.test(|world| {
        let (session, events) = a_session(world, "witnessed")?;
        let results: Vec<u8> = events
            .iter()
            .filter(|event| event.kind == "result")
            .flat_map(|event| event.data.clone())
            .collect();
        assert!(contains(&results, b"Ada Lovelace"));
        assert!(contains(&results, b"counted"));
        assert!(!contains(&results, b"219-09-9999"));
        assert_eq!(
            world.records()?.keys_that_hold(b"219-09-9999")?,
            [""; 0],
            "{session}"
        );
        Ok(())
    })
}

#[test]
fn a_refusal_is_also_an_alert_and_a_line_of_the_live_stream() -> Result<()> {
    WORLD.test(|world| {
        let (session, _) = a_session(world, "alarming")?;
        let mut records = world.records()?;
        for key in ["interceptor:alerts", "interceptor:live"] {
            let entries = records.stream(key)?;
            let of_it: Vec<String> = entries
                .iter()
                .filter(|fields| fields.values().any(|value| value == session.as_bytes()))
                .map(|fields| {
                    String::from_utf8_lossy(
                        &fields.values().flatten().copied().collect::<Vec<u8>>(),
                    )
                    .into_owned()
                })
                .collect();
            assert!(
                of_it.iter().any(|entry| entry.contains("no-drop")),
                "{key} does not tell of the refusal: {of_it:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn opening_and_close_of_a_session_are_in_the_list_of_sessions() -> Result<()> {
    WORLD.test(|world| {
        let (session, _) = a_session(world, "listed")?;
        let entries = world.records()?.stream("interceptor:sessions")?;
        let of_it = entries
            .iter()
            .filter(|fields| fields.values().any(|value| value == session.as_bytes()));
        assert_eq!(of_it.count(), 2);
        let listed = world.daemon.ask(&["sessions", "list"])?;
        assert!(listed.contains("listed"), "{listed}");
        Ok(())
    })
}

#[test]
fn a_replay_shows_statements_verdicts_and_tables() -> Result<()> {
    WORLD.test(|world| {
        let (session, _) = a_session(world, "replayed")?;
        let shown = world.daemon.ask(&["replay", &session, "--speed", "1000"])?;
        for expected in [
            "SELECT name, ssn FROM users",
            "Ada Lovelace",
            "DROP TABLE users",
            "no-drop",
            "counted",
            "42P01",
        ] {
            assert!(shown.contains(expected), "no {expected} in:\n{shown}");
        }
        assert!(!shown.contains("219-09-9999"));
        assert!(!shown.contains('\u{1b}'), "no colours where no terminal is");
        Ok(())
    })
}

#[test]
fn a_replay_as_sql_can_be_run_again() -> Result<()> {
    WORLD.test(|world| {
        let (session, _) = a_session(world, "repeated")?;
        let sql = world.daemon.ask(&["replay", &session, "--format", "sql"])?;
        assert!(
            sql.contains("SELECT name, ssn FROM users ORDER BY id"),
            "{sql}"
        );
        let script = world.place.file("replayed.sql", &sql)?;
        let done = std::process::Command::new("psql")
            .args(["-XqAt", "-h", "127.0.0.1", "-U", "agent", "-d", "postgres"])
            .args(["-p", &world.postgres.port.to_string(), "-f"])
            .arg(script)
            .output()?;
        assert!(done.status.success());
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(!stderr.contains("syntax error"), "{stderr}");
        assert_eq!(
            world.postgres.sql("SELECT count(*) FROM users")?,
            "3",
            "what was refused is not done by running it again"
        );
        Ok(())
    })
}

#[test]
fn a_replay_as_json_is_one_object_a_line() -> Result<()> {
    WORLD.test(|world| {
        let (session, events) = a_session(world, "machine-read")?;
        let text = world
            .daemon
            .ask(&["replay", &session, "--format", "json"])?;
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .with_context(|| text.clone())?;
        assert_eq!(lines.len(), events.len());
        Ok(())
    })
}

#[test]
fn a_replay_keeps_the_session_s_own_time() -> Result<()> {
    WORLD.test(|world| {
        world
            .agent("sleepy")
            .psql(
                world.postgres.port,
                "SELECT 1;\nSELECT pg_sleep(2);\nSELECT 2;\n",
            )?
            .ok()?;
        let (session, _) = world.records()?.only_session_of("sleepy")?;
        let took = |options: &[&str]| -> Result<std::time::Duration> {
            let start = std::time::Instant::now();
            world
                .daemon
                .ask(&[&["replay", &session], options].concat())?;
            Ok(start.elapsed())
        };
        let two = std::time::Duration::from_secs(2);
        // A busy machine may be slow by itself, but not every time.
        let quick = |options: &[&str]| -> Result<bool> {
            for _ in 0..5 {
                if took(options)? < two {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        assert!(took(&["--speed", "1"])? >= two);
        assert!(quick(&["--speed", "1000"])?);
        assert!(quick(&["--speed", "1", "--idle-limit", "0.1"])?);
        Ok(())
    })
}

#[test]
fn a_replay_finds_a_removed_event() -> Result<()> {
    WORLD.test(|world| {
        let (session, events) = a_session(world, "tampered")?;
        let middle = events.len() / 2;
        let client = redis::Client::open(world.redis.url())?;
        let mut connection = client.get_connection()?;
        let key = format!("interceptor:session:{{{session}}}");
        let ids: Vec<(String, redis::Value)> = redis::cmd("XRANGE")
            .arg(&key)
            .arg("-")
            .arg("+")
            .query(&mut connection)?;
        let (id, _) = ids.get(middle).context("too few entries")?;
        redis::cmd("XDEL").arg(&key).arg(id).exec(&mut connection)?;
        let done = world
            .daemon
            .command(&["replay", &session, "--speed", "1000"])?;
        assert_eq!(done.status.code(), Some(1));
        Ok(())
    })
}

#[test]
fn a_session_that_nobody_recorded_is_an_error() -> Result<()> {
    WORLD.test(|world| {
        let nobody = "019a0000-0000-7000-8000-000000000000";
        let done = world.daemon.command(&["replay", nobody])?;
        assert_eq!(done.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&done.stderr).contains(nobody));
        Ok(())
    })
}

/// Entries as they stand in Redis.
fn raw(world: &World, session: &str) -> Result<Vec<BTreeMap<String, Vec<u8>>>> {
    let client = redis::Client::open(world.redis.url())?;
    let mut connection = client.get_connection()?;
    type Entry = (String, BTreeMap<String, Vec<u8>>);
    let entries: Vec<Entry> = redis::cmd("XRANGE")
        .arg(format!("interceptor:session:{{{session}}}"))
        .arg("-")
        .arg("+")
        .query(&mut connection)?;
    Ok(entries.into_iter().map(|(_, fields)| fields).collect())
}

#[test]
fn what_is_long_stands_there_compressed_and_is_read_as_it_was() -> Result<()> {
    WORLD.test(|world| {
        let long = "needle in the hay, ".repeat(100);
        // Bytes in which nothing repeats, and nothing is rarer than anything else.
        let noise = "COPY (SELECT decode(string_agg(md5(i::text), ''), 'hex') \
                     FROM generate_series(1, 100) i) TO STDOUT (FORMAT binary);\n";
        let script = format!("SELECT 1;\nSELECT '{long}';\n{noise}");
        let done = world.agent("lengthy").psql(world.postgres.port, &script)?;
        done.ok()?;
        let (session, events) = world.records()?.only_session_of("lengthy")?;

        let stored = raw(world, &session)?;
        assert_eq!(stored.len(), events.len());
        let mut packed = 0;
        for (entry, event) in stored.iter().zip(&events) {
            let data = entry.get("data").map_or(&[][..], Vec::as_slice);
            match entry.get("coding") {
                Some(coding) => {
                    assert_eq!(coding, b"zstd");
                    assert!(contains(&event.data, long.as_bytes()), "{}", event.line);
                    assert!(data.len() < long.len() / 10, "{} bytes", data.len());
                    assert!(!contains(data, long.as_bytes()));
                    packed += 1;
                }
                None => assert_eq!(data, event.data),
            }
        }
        assert_eq!(packed, 2, "the statement and its answer, and not the noise");
        let noise = events
            .iter()
            .map(|event| event.data.len())
            .filter(|length| *length > 1_600);
        assert!(noise.count() >= 3);

        let ask = |arguments: &[&str]| world.daemon.ask(arguments);
        assert!(ask(&["replay", &session, "--instant"])?.contains(&long));
        let json = ask(&["replay", &session, "--format", "json"])?;
        assert!(json.contains(&long), "{json}");
        assert!(ask(&["replay", &session, "--format", "sql"])?.contains(&long));
        assert!(ask(&["search", "in the hay"])?.contains("lengthy"));
        let export = ask(&["export", "--to", "jsonl"])?;
        assert!(export.contains("needle in the hay"), "{export}");
        ask(&["verify", &session])?;
        Ok(())
    })
}

/// Recorded, listed, found, shown, verified; and what was taken away is missed.
#[test]
fn a_valkey_keeps_recordings_as_a_redis_does() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let plan = Plan {
        rules: RULES,
        ..Plan::default()
    };
    World::start_on(&plan, Redis::valkey)?.test(|world| {
        let mut connection = redis::Client::open(world.redis.url())?.get_connection()?;
        let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
        assert!(info.contains("server_name:valkey"), "{info}");

        let (session, events) = a_session(world, "of-valkey")?;
        let ask = |words: &[&str]| world.daemon.ask(words);
        assert!(ask(&["sessions", "list"])?.contains("of-valkey"));
        assert!(ask(&["search", "FROM nowhere"])?.contains("of-valkey"));
        let shown = ask(&["replay", &session, "--instant"])?;
        assert!(
            shown.contains("Ada Lovelace") && shown.contains("no-drop"),
            "{shown}"
        );
        ask(&["verify", &session])?;

        let key = format!("interceptor:session:{{{session}}}");
        let ids: Vec<(String, redis::Value)> = redis::cmd("XRANGE")
            .arg(&key)
            .arg("-")
            .arg("+")
            .query(&mut connection)?;
        assert_eq!(ids.len(), events.len());
        let (id, _) = ids.get(ids.len() / 2).context("too few entries")?;
        redis::cmd("XDEL").arg(&key).arg(id).exec(&mut connection)?;
        let done = world.daemon.command(&["verify", &session])?;
        assert_eq!(done.status.code(), Some(1));
        Ok(())
    })
}
