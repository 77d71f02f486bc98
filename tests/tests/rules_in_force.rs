//! What rules remember, limit and count, end to end; and how they change while
//! sessions run.

use anyhow::{Context as _, Result};
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::world::{Plan, Shared, alone, target, target_with};
use serde_json::json;

const RULES: &str = r#"
version: 1
rules:
  - name: five-rows
    match: { principal: { agent: "limited*" }, postgres: { class: [read, copy_out] } }
    limits: { rows: 5 }
  - name: two-seconds
    match: { principal: { agent: slow } }
    limits: { duration: 2s }
  - name: shut-out
    match: { principal: { agent: "thrown-out*" }, postgres: { statement: DROP } }
    verdict: { kill: { principal: 20s } }
    message: Dropping is the end.
  - name: looks-at-people
    match: { principal: { agent: "spy*" }, postgres: { tables: users } }
    tag: saw-people
  - name: then-writes
    match: { principal: { agent: "spy*" }, postgres: { class: write }, after: { tag: saw-people, within: 1m } }
    verdict: block
    message: Not after looking at people.
  - name: not-so-often
    match: { principal: { agent: "busy*" }, rate: { over: 5, per: 1h, by: principal } }
    verdict: block
    message: Enough for an hour.
  - name: people-are-risky
    match: { principal: { agent: "risky*" }, postgres: { tables: users } }
    risk: 40
  - name: by-expression
    match: { principal: { agent: "expressed*" }, if: 'size(postgres.tables) > 1' }
    verdict: block
    message: One table at a time.
risk:
  half_life: 10m
  thresholds:
    - { at: 100, verdict: kill, message: Too much risk. }
"#;

static WORLD: Shared = Shared::new(|| Plan {
    rules: RULES,
    ..Plan::default()
});

#[test]
fn an_answer_past_its_limit_is_cut_off_and_cancelled_upstream() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let done = world.agent("limited").psql(
            port,
            "SELECT n FROM generate_series(1, 100000000) n;\nSELECT 'on';\n",
        )?;
        assert!(done.stderr.contains("54000"), "{}", done.stderr);
        assert!(done.stderr.contains("more than 5 rows"), "{}", done.stderr);
        assert!(done.stdout.ends_with("on\n"), "{}", done.stdout);
        let copied = world.agent("limited-copy").psql(
            port,
            "COPY (SELECT n FROM generate_series(1, 100000000) n) TO STDOUT;\nSELECT 'on';\n",
        )?;
        assert!(
            copied.stderr.contains("more than 5 rows"),
            "{}",
            copied.stderr
        );
        assert!(!copied.stdout.contains("\n6\n"), "{}", copied.stdout);
        let slow = world
            .agent("slow")
            .psql(port, "SELECT pg_sleep(60);\nSELECT 'on';\n")?;
        assert!(slow.stderr.contains("more than 2000 ms"), "{}", slow.stderr);
        assert_eq!(slow.stdout, "on\n");
        eventually("the server cancelled what ran", SOON, || {
            Ok(world
                .postgres
                .saw("canceling statement due to user request"))
        })?;
        let (_, events) = world.records()?.only_session_of("limited")?;
        assert!(events.iter().any(|event| event.kind == "limit"));
        Ok(())
    })
}

#[test]
fn an_answer_within_its_limit_is_whole() -> Result<()> {
    WORLD.test(|world| {
        let done = world
            .agent("limited-well")
            .psql(
                world.postgres.port,
                "SELECT n FROM generate_series(1, 5) n;\n",
            )?
            .ok()?;
        assert_eq!(done.stdout, "1\n2\n3\n4\n5\n");
        Ok(())
    })
}

#[test]
fn a_principal_that_was_thrown_out_gets_no_session_and_another_does() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("thrown-out");
        let first = agent.psql(port, "DROP TABLE orders;\nSELECT 1;\n")?;
        assert!(
            first.stderr.contains("Dropping is the end"),
            "{}",
            first.stderr
        );
        let second = agent.psql(port, "SELECT 1;\n")?;
        assert!(
            second.stderr.contains("may open no session"),
            "{}",
            second.stderr
        );
        world.agent("thrown-not").psql(port, "SELECT 1;\n")?.ok()?;
        Ok(())
    })
}

#[test]
fn what_was_done_before_decides_in_every_session_of_the_principal() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("spy");
        let write = "UPDATE orders SET cents = cents WHERE id = -1;\n";
        agent.psql(port, write)?.ok()?;
        let done = agent.psql(port, &format!("SELECT count(*) FROM users;\n{write}"))?;
        assert!(done.stderr.contains("Not after looking"), "{}", done.stderr);
        Ok(())
    })
}

#[test]
fn exchanges_are_counted_over_all_sessions_of_a_principal() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("busy");
        let mut allowed = 0;
        for _ in 0..4 {
            let done = agent.psql(port, "SELECT 'x';\nSELECT 'x';\n")?;
            allowed += done.stdout.lines().count();
        }
        assert_eq!(allowed, 5);
        Ok(())
    })
}

#[test]
fn points_add_up_to_a_threshold_and_stand_on_record() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("risky");
        let look = "SELECT count(*) FROM users;\n";
        agent.psql(port, look)?.ok()?;
        let done = agent.psql(port, &format!("{look}{look}SELECT 'on';\n"))?;
        assert!(done.stderr.contains("Too much risk"), "{}", done.stderr);
        assert!(!done.stdout.contains("on"), "{}", done.stdout);
        let sessions = world.records()?.closed_sessions_of("risky", 2)?;
        let (_, events) = sessions.first().context("no session")?;
        let command = events.iter().find(|event| event.kind == "command");
        assert_eq!(command.context("no command")?.meta["score"], 40);
        Ok(())
    })
}

#[test]
fn an_expression_decides_where_fields_cannot() -> Result<()> {
    WORLD.test(|world| {
        let done = world.agent("expressed").psql(
            world.postgres.port,
            "SELECT count(*) FROM users;\nSELECT count(*) FROM users, orders;\n",
        )?;
        assert_eq!(done.stdout, "3\n");
        assert!(
            done.stderr.contains("One table at a time"),
            "{}",
            done.stderr
        );
        Ok(())
    })
}

#[test]
fn every_verdict_on_record_names_the_rules_that_gave_it() -> Result<()> {
    alone(
        &Plan {
            rules: "version: 1\nrules:\n  - { name: a, match: {}, severity: low }\n",
            ..Plan::default()
        },
        |world| {
            let port = world.postgres.port;
            let agent = world.agent("reloaded");
            let mut running = agent.start_psql(port)?;
            running.write("SELECT 'before';\n")?;
            eventually("the first statement", SOON, || {
                Ok(world.postgres.saw("SELECT 'before'"))
            })?;
            let digest = |world: &interceptor_tests::world::World| -> Result<String> {
                let status = world.daemon.ask(&["status", "--json"])?;
                let status: serde_json::Value = serde_json::from_str(&status)?;
                Ok(status["rules_digest"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned())
            };
            let first = digest(world)?;
            // Wrong rules change nothing.
            world
                .daemon
                .set_rules("version: 1\nrules:\n  - { name: b, mtach: {} }\n")?;
            eventually("the wrong rules are refused", SOON, || {
                Ok(world
                    .daemon
                    .server()
                    .log()
                    .contains("the new rules are refused"))
            })?;
            assert_eq!(digest(world)?, first);
            world.daemon.set_rules(
                "version: 1\nrules:\n  - { name: b, match: { postgres: { class: read } }, verdict: block }\n",
            )?;
            eventually("the new rules", SOON, || Ok(digest(world)? != first))?;
            let second = digest(world)?;
            running.write("SELECT 'later';\n")?;
            let done = running.finish(SOON)?;
            assert_eq!(done.stdout, "before\n");
            let (_, events) = world.records()?.only_session_of("reloaded")?;
            let digests: Vec<&str> = events
                .iter()
                .filter(|event| event.kind == "command" || event.kind == "verdict")
                .filter_map(|event| event.meta["rules_digest"].as_str())
                .collect();
            assert_eq!(digests, [&*first, &*second, &*second]);
            Ok(())
        },
    )
}

#[test]
fn names_are_what_the_catalog_says_they_are() -> Result<()> {
    alone(
        &Plan {
            rules: r#"
version: 1
rules:
  - name: not-the-people
    match: { postgres: { tables: public.users } }
    verdict: block
  - name: certain-or-not-at-all
    match: { principal: { agent: certain }, postgres: { tables: "*.secrets" } }
    unresolved: block
    verdict: block
"#,
            config: |postgres, _| {
                json!({ "targets": [target_with(postgres, &json!({
                    "credentials": { "user": "agent" },
                }))] })
            },
            ..Plan::default()
        },
        |world| {
            let port = world.postgres.port;
            let setup = world.agent("setup").psql(
                port,
                "CREATE SCHEMA other;\nCREATE TABLE other.users (id int);\nCREATE TABLE lonely (id int);\n",
            )?;
            // The sample's users may be out of reach for this role; say so.
            setup.ok()?;
            let say = |agent: &str, sql: &str| world.agent(agent).psql(port, sql);
            let direct = say("direct", "SELECT count(*) FROM users;\n")?;
            assert!(
                direct.stderr.contains("not-the-people"),
                "{}",
                direct.stderr
            );
            let elsewhere = say(
                "elsewhere",
                "SELECT count(*) FROM other.users;\nSELECT count(*) FROM lonely;\n",
            )?;
            assert_eq!(elsewhere.stdout, "0\n0\n", "{}", elsewhere.stderr);
            // By a path: the name could be either, so it may be the forbidden one.
            let path = say(
                "path",
                "SET search_path = other, public;\nSELECT count(*) FROM users;\n",
            )?;
            assert!(path.stderr.contains("not-the-people"), "{}", path.stderr);
            let unknown = say("certain", "SELECT count(*) FROM nowhere;\n")?;
            assert!(
                unknown.stderr.contains("certain-or-not-at-all"),
                "{}",
                unknown.stderr
            );
            Ok(())
        },
    )
}

#[test]
fn a_target_without_credentials_is_judged_by_what_statements_say() -> Result<()> {
    alone(
        &Plan {
            rules: "version: 1\nrules:\n  - name: not-the-people\n    match: { postgres: { tables: public.users } }\n    verdict: block\n",
            config: |postgres, _| json!({ "targets": [target(postgres)] }),
            ..Plan::default()
        },
        |world| {
            let port = world.postgres.port;
            let done = world
                .agent("plain")
                .psql(port, "SELECT count(*) FROM users;\n")?;
            assert!(done.stderr.contains("not-the-people"), "{}", done.stderr);
            Ok(())
        },
    )
}
