//! What an ordinary user may ask of the daemon: to start the agents that the configuration
//! names for them, and what became of those; nothing of anybody else's.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::{SOON, program};
use interceptor_tests::eventually;
use interceptor_tests::needs::{self, ORDINARY_USER};
use interceptor_tests::world::{Plan, Shared, World, target};
use serde_json::{Value, json};

static WORLD: Shared = Shared::new(|| Plan {
    config: |postgres, place| {
        json!({
            "targets": [target(postgres)],
            "approvals": { "groups": { "helpers": [ORDINARY_USER] } },
            "intercept": {
                "agents": [{ "name": "service", "unit": format!("{}-service", place.name()) }],
                "exec": { "allow": [
                    { "user": ORDINARY_USER, "agents": ["theirs-*"], "labels": { "team": ["data"] } },
                    { "group": "helpers", "agents": ["grouped"] },
                    { "user": "somebody-else", "agents": ["*"] },
                ]},
            },
        })
    },
    ..Plan::default()
});

const ASK: &str = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                   s.sendall(sys.argv[2].encode() + b'\\n'); print(s.makefile().readline())";

/// Asks as the ordinary user.
fn ask(world: &World, request: &Value) -> Result<Value> {
    let user = needs::ordinary_user()?;
    let output = Command::new("/usr/bin/python3")
        .args(["-c", ASK])
        .arg(world.place.path("run/admin.sock"))
        .arg(request.to_string())
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .current_dir("/")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&said).with_context(|| format!("{request}: {said}"))
}

fn exec(world: &World, agent: &str, labels: &Value) -> Result<Value> {
    ask(world, &json!({"exec": {"agent": agent, "labels": labels}}))
}

/// Whether it was refused with these words.
fn refused(answer: &Value, why: &str) -> Result<()> {
    let error = answer.get("error").and_then(Value::as_str);
    ensure!(
        error.is_some_and(|error| error.contains(why)),
        "{why:?} in {answer}"
    );
    Ok(())
}

#[test]
fn a_user_starts_what_is_listed_for_them_or_a_group_of_theirs_and_nothing_else() -> Result<()> {
    WORLD.test(|world| {
        for (agent, labels) in [
            ("theirs-1", json!({})),
            ("theirs-1", json!({"team": "data"})),
            ("grouped", json!({"team": "any"})),
        ] {
            let placed = exec(world, agent, &labels)?;
            ensure!(placed["cgroup"].is_string(), "{agent} {labels}: {placed}");
        }
        for agent in ["service", "their", "shell", "groupe", "grouped2"] {
            refused(&exec(world, agent, &json!({}))?, "intercept.exec.allow")?;
        }
        for labels in [json!({"team": "platform"}), json!({"role": "data"})] {
            refused(&exec(world, "theirs-1", &labels)?, "not with the label")?;
        }
        // Root is not asked what it may.
        let done = world.agent("service").run(&["true"])?;
        ensure!(done.status.success(), "{done:?}");
        Ok(())
    })
}

/// `psql` that sleeps, as an agent that the ordinary user started.
fn sleeping(world: &World, agent: &str) -> Result<Child> {
    let user = needs::ordinary_user()?;
    let port = world.postgres.port;
    Ok(Command::new(program()?)
        .arg("--config")
        .arg(world.daemon.config())
        .args(["exec", "--agent", agent, "--", "psql", "-w"])
        .arg(format!(
            "host=127.0.0.1 port={port} user=agent dbname=postgres"
        ))
        .args(["-c", "SELECT pg_sleep(60)"])
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .current_dir("/")
        .stdin(Stdio::null())
        .spawn()?)
}

#[test]
fn a_user_lists_and_ends_the_sessions_of_their_own_agents_alone() -> Result<()> {
    WORLD.test(|world| {
        let mut own = sleeping(world, "theirs-asleep")?;
        let port = world.postgres.port;
        let mut roots = world.agent("roots").start_psql(port)?;
        roots.write("SELECT 1;\n")?;
        let session_of = |all: &Value, agent: &str| -> Option<String> {
            let flows = all.get("flows")?.as_array()?;
            let of = |flow: &&Value| flow["agent"] == agent;
            Some(flows.iter().find(of)?["session"].as_str()?.to_owned())
        };
        let all = || -> Result<Value> {
            // By the daemon's own user.
            let output = Command::new("/usr/bin/python3")
                .args(["-c", ASK])
                .arg(world.place.path("run/admin.sock"))
                .arg(json!({"flows": {}}).to_string())
                .output()?;
            Ok(serde_json::from_slice(&output.stdout)?)
        };
        eventually("both sessions", SOON, || {
            let all = all()?;
            Ok(session_of(&all, "theirs-asleep").is_some() && session_of(&all, "roots").is_some())
        })?;
        let seen = ask(world, &json!({"flows": {}}))?;
        let mine = session_of(&seen, "theirs-asleep").context("not their own")?;
        assert_eq!(session_of(&seen, "roots"), None);
        let agents = ask(world, &json!({"agents": {}}))?.to_string();
        ensure!(
            agents.contains("theirs-asleep") && !agents.contains("roots"),
            "{agents}"
        );
        ensure!(!agents.contains("service"), "{agents}");

        let theirs = session_of(&all()?, "roots").context("root's own")?;
        refused(
            &ask(world, &json!({"kill": {"session": theirs}}))?,
            "only root",
        )?;
        let killed = ask(world, &json!({"kill": {"session": mine}}))?;
        assert_eq!(killed["ok"], true, "{killed}");
        ensure!(!own.wait()?.success());
        for request in [
            json!({"attach": {"agent": "theirs-1", "selector": {"user": ORDINARY_USER}}}),
            json!({"detach": {"agent": "service"}}),
            json!({"reload": {}}),
        ] {
            refused(&ask(world, &request)?, "only root")?;
        }
        Ok(())
    })
}
