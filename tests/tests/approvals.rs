//! A person decides: what a rule holds waits at the proxy until somebody who is
//! asked has answered, by the admin socket or by way of Redis, and what runs then
//! is what was asked about.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::world::{Plan, Shared, World, alone, target};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const RULES: &str = r#"
version: 1
rules:
  - name: ask-first
    match: { postgres: { class: ddl } }
    verdict: hold
    message: Changes to the schema are asked about.
    approval: { from: [dba], timeout: 60s }
  - name: ask-by-ticket
    match: { postgres: { statement: DELETE } }
    verdict: hold
    message: Deleting is asked about.
    approval: { from: [dba], timeout: 60s, mode: ticket }
  - name: two-people
    match: { postgres: { statement: TRUNCATE } }
    verdict: hold
    approval: { from: [dba], quorum: 2, timeout: 60s }
  - name: not-for-long
    match: { postgres: { statement: VACUUM } }
    verdict: hold
    approval: { from: [dba], timeout: 1s }
"#;

fn plan() -> Plan {
    Plan {
        rules: RULES,
        config: |postgres, place| {
            let key = place
                .file("answers.key", "a key that both hosts have\n")
                .ok();
            if let Some(key) = &key {
                let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                let _ = std::fs::set_permissions(key, private);
            }
            json!({
                "targets": [target(postgres)],
                "approvals": { "key": { "file": key }, "groups": { "dba": ["root"] } },
            })
        },
        ..Plan::default()
    }
}

static WORLD: Shared = Shared::new(plan);

/// The open question of an agent, once it is there.
fn question(world: &World, agent: &str) -> Result<Value> {
    let mut found = None;
    eventually(&format!("a question of {agent}"), SOON, || {
        let list: Value = serde_json::from_str(&world.daemon.ask(&["approvals", "--json"])?)?;
        found = list
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| one["agent"] == agent && one["state"] == "open")
            .cloned();
        Ok(found.is_some())
    })?;
    found.context("no question")
}

fn id(question: &Value) -> &str {
    question["id"].as_str().unwrap_or_default()
}

#[test]
fn a_held_statement_runs_when_it_is_approved_and_not_before() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("builder");
        let mut running = agent.start_psql(port)?;
        running.write("CREATE TABLE built (a int);\nSELECT 'after';\n")?;
        let asked = question(world, "builder")?;
        assert_eq!(asked["text"], "CREATE TABLE built (a int);");
        assert_eq!(asked["target"], "shop");
        assert_eq!(asked["rule"], "ask-first");
        assert!(
            asked["process"]["exe_sha256"]
                .as_str()
                .is_some_and(|sha| sha.len() == 64),
            "{asked}"
        );
        assert!(!world.postgres.saw("CREATE TABLE built"));

        let told = world.daemon.ask(&["approvals", "show", id(&asked)])?;
        assert!(told.contains("CREATE TABLE built (a int);"), "{told}");
        world
            .daemon
            .ask(&["approvals", "approve", id(&asked), "--reason", "OPS-12"])?;
        let done = running.finish(SOON)?.ok()?;
        assert_eq!(done.stdout, "after\n");
        assert!(done.stderr.contains("NOTICE"), "{}", done.stderr);
        assert!(
            done.stderr.contains("held until a person decides"),
            "{}",
            done.stderr
        );
        assert!(world.postgres.saw("CREATE TABLE built"));

        let (_, events) = world.records()?.only_session_of("builder")?;
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        let at = |kind| kinds.iter().position(|found| *found == kind);
        assert!(at("hold") < at("approval"), "{kinds:?}");
        let approval = events.iter().find(|event| event.kind == "approval");
        let meta = &approval.context("no approval on record")?.meta;
        assert_eq!(meta["decision"], "approved");
        assert_eq!(meta["by"], "root");
        let stream = world.records()?.stream("interceptor:approvals")?;
        let said = stream.iter().any(|entry| {
            entry
                .get("id")
                .is_some_and(|found| found == id(&asked).as_bytes())
                && entry.get("by").is_some_and(|by| by == b"root")
        });
        assert!(said, "no answer in the stream of approvals");
        Ok(())
    })
}

#[test]
fn a_no_and_silence_are_errors_with_the_reason_and_the_session_goes_on() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("refused");
        let mut running = agent.start_psql(port)?;
        running.write("CREATE TABLE never (a int);\nVACUUM users;\nSELECT 'on';\n")?;
        let asked = question(world, "refused")?;
        world.daemon.ask(&[
            "approvals",
            "deny",
            id(&asked),
            "--reason",
            "not on a Friday",
        ])?;
        let done = running.finish(SOON)?;
        assert!(
            done.stderr
                .contains("42501: denied by root: not on a Friday"),
            "{}",
            done.stderr
        );
        assert!(
            done.stderr.contains("57014: nobody decided in time"),
            "{}",
            done.stderr
        );
        assert_eq!(done.stdout, "on\n");
        assert!(!world.postgres.saw("CREATE TABLE never"));
        assert!(!world.postgres.saw("VACUUM users"));
        Ok(())
    })
}

#[test]
fn a_ticket_is_refused_at_once_and_passes_once_when_it_was_approved() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("ticketed");
        let delete = "DELETE FROM orders WHERE id = -1;\n";
        let first = agent.psql(port, delete)?;
        assert!(first.stderr.contains("ticket"), "{}", first.stderr);
        let asked = question(world, "ticketed")?;
        assert!(first.stderr.contains(id(&asked)), "{}", first.stderr);
        world.daemon.ask(&["approvals", "approve", id(&asked)])?;
        // Something else does not ride on it.
        let other = agent.psql(port, "DELETE FROM orders WHERE id = -2;\n")?;
        assert!(other.stderr.contains("ticket"), "{}", other.stderr);
        let again = agent.psql(port, delete)?;
        assert_eq!(again.stderr, "", "{}", again.stderr);
        let third = agent.psql(port, delete)?;
        assert!(third.stderr.contains("ticket"), "{}", third.stderr);
        Ok(())
    })
}

#[test]
fn parameters_are_part_of_what_is_asked_and_of_what_is_answered() -> Result<()> {
    WORLD.test(|world| {
        let agent = world.agent("driver");
        let program = r#"
import sys, psycopg
with psycopg.connect(f"host=127.0.0.1 port={sys.argv[1]} user=agent dbname=postgres", autocommit=True) as c:
    for value in sys.argv[2:]:
        try:
            c.execute("DELETE FROM orders WHERE id = %s", (int(value),))
            print("done", value)
        except psycopg.Error as e:
            print("refused", value, e.sqlstate)
"#;
        let port = world.postgres.port.to_string();
        let run = |values: &[&str]| {
            let mut arguments = vec![port.as_str()];
            arguments.extend(values);
            agent.python(&world.place, program, &arguments)?.ok()
        };
        assert_eq!(run(&["-7"])?.stdout, "refused -7 42501\n");
        let asked = question(world, "driver")?;
        assert!(asked["parameters"].as_str().is_some_and(|p| p.contains("-7") || p.contains("ff")), "{asked}");
        world.daemon.ask(&["approvals", "approve", id(&asked)])?;
        assert_eq!(run(&["-8", "-7"])?.stdout, "refused -8 42501\ndone -7\n");
        Ok(())
    })
}

#[test]
fn an_agent_may_neither_see_nor_answer_questions() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let program = interceptor_tests::daemon::program()?;
        let program = program.to_string_lossy();
        let config = world.daemon.config().to_string_lossy().into_owned();
        let words = [&*program, "--config", &config, "approvals", "list"];
        let done = world.agent("nosy").run(&words)?;
        ensure!(!done.status.success(), "an agent saw the questions");
        let _ = port;
        // Nor may its user outside of interception.
        let outside = std::process::Command::new("setpriv")
            .args(["--reuid", interceptor_tests::needs::ORDINARY_USER])
            .args(["--regid", "65534", "--clear-groups"])
            .args(words)
            .output()?;
        let text = String::from_utf8_lossy(&outside.stdout);
        assert!(
            !outside.status.success() || text.contains("no question waits"),
            "{text}"
        );
        Ok(())
    })
}

#[test]
fn two_people_are_two_people() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("truncator");
        let mut running = agent.start_psql(port)?;
        running.write("BEGIN;\nTRUNCATE orders;\nROLLBACK;\nSELECT 'done';\n")?;
        let asked = question(world, "truncator")?;
        world.daemon.ask(&["approvals", "approve", id(&asked)])?;
        let again = world
            .daemon
            .command(&["approvals", "approve", id(&asked)])?;
        let text = String::from_utf8_lossy(&again.stderr);
        assert!(text.contains("you have answered already"), "{text}");
        assert!(!world.postgres.saw("TRUNCATE orders"));
        // The other one is on another host, and answers by way of Redis.
        let url = world.redis.url();
        let other = world.daemon.ask(&[
            "approvals",
            "approve",
            id(&asked),
            "--reason",
            "seen",
            "--redis",
            &url,
        ])?;
        assert!(other.contains("on its way"), "{other}");
        let done = running.finish(SOON)?.ok()?;
        assert_eq!(done.stdout, "done\n");
        assert!(world.postgres.saw("TRUNCATE orders"));
        Ok(())
    })
}

#[test]
fn an_answer_in_redis_that_is_not_signed_is_not_taken() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("forger");
        let mut running = agent.start_psql(port)?;
        running.write("CREATE TABLE forged (a int);\n")?;
        let asked = question(world, "forger")?;
        let client = redis::Client::open(world.redis.url())?;
        let mut connection = client.get_connection()?;
        let digest = asked["digest"].as_str().unwrap_or_default();
        let zeros = "0".repeat(64);
        let _: String = redis::cmd("XADD")
            .arg(&[
                "interceptor:approvals",
                "*",
                "kind",
                "answer",
                "id",
                id(&asked),
            ])
            .arg(&[
                "digest", digest, "decision", "approve", "by", "mallory", "groups", "dba",
            ])
            .arg(&["reason", "", "at", "0", "signature", &zeros])
            .query(&mut connection)?;
        eventually("the forged answer is looked at", SOON, || {
            Ok(world.daemon.server().log().contains("not signed with"))
        })?;
        assert!(!world.postgres.saw("CREATE TABLE forged"));
        world.daemon.ask(&["approvals", "deny", id(&asked)])?;
        running.finish(SOON)?;
        Ok(())
    })
}

#[test]
fn a_client_that_cancels_takes_its_question_back() -> Result<()> {
    WORLD.test(|world| {
        let agent = world.agent("impatient");
        let program = r#"
import sys, threading, time, psycopg
with psycopg.connect(f"host=127.0.0.1 port={sys.argv[1]} user=agent dbname=postgres", autocommit=True) as c:
    threading.Timer(1.5, c.cancel).start()
    try:
        c.execute("CREATE TABLE cancelled (a int)")
    except psycopg.Error as e:
        print(e.sqlstate)
    print(c.execute("SELECT 1").fetchone()[0])
"#;
        let port = world.postgres.port.to_string();
        let done = agent.python(&world.place, program, &[&port])?.ok()?;
        assert_eq!(done.stdout, "57014\n1\n");
        assert!(!world.postgres.saw("CREATE TABLE cancelled"));
        let list = world.daemon.ask(&["approvals", "--json"])?;
        assert!(!list.contains("impatient"), "{list}");
        Ok(())
    })
}

#[test]
fn a_question_survives_the_daemon_as_a_ticket() -> Result<()> {
    alone(&plan(), |world| {
        let port = world.postgres.port;
        let agent = world.agent("patient");
        let create = "CREATE TABLE survived (a int);\n";
        let mut running = agent.start_psql(port)?;
        running.write(create)?;
        let asked = question(world, "patient")?;
        eventually("the question is in Redis", SOON, || {
            Ok(!world.records()?.stream("interceptor:approvals")?.is_empty())
        })?;
        world.daemon.kill()?;
        world.daemon.restart()?;
        drop(running);
        let left = question(world, "patient")?;
        assert_eq!(id(&left), id(&asked));
        assert_eq!(left["mode"], "ticket");
        world.daemon.ask(&["approvals", "approve", id(&asked)])?;
        let done = agent.psql(port, create)?.ok()?;
        assert!(done.stderr.contains("held"), "{}", done.stderr);
        assert!(world.postgres.saw("CREATE TABLE survived"));
        Ok(())
    })
}

#[test]
fn an_agent_that_is_killed_takes_its_question_with_it() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let agent = world.agent("mortal");
        let mut running = agent.start_psql(port)?;
        running.write("CREATE TABLE mortal (a int);\n")?;
        let asked = question(world, "mortal")?;
        nix::sys::signal::killpg(running.pid(), Signal::SIGKILL)?;
        eventually("the question is withdrawn", SOON, || {
            let told = world.daemon.ask(&["approvals", "show", id(&asked)])?;
            Ok(told.contains("withdrawn"))
        })?;
        let late = world
            .daemon
            .command(&["approvals", "approve", id(&asked)])?;
        assert!(!late.status.success());
        let _ = running.finish(Duration::from_secs(10));
        assert!(!world.postgres.saw("CREATE TABLE mortal"));
        Ok(())
    })
}
