//! A thousand exchanges held at once cost memory for what they hold, and no more.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::eventually;
use interceptor_tests::postgres;
use interceptor_tests::world::{Plan, World, alone, target};
use serde_json::{Value, json};

const HELD: usize = 1000;

/// Opens sessions, says so, waits for a line, asks in each for something that is
/// held, says so, and then waits until all are answered.
const PROGRAM: &str = r#"
import socket, struct, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
def message(s):
    head = b""
    while len(head) < 5:
        part = s.recv(5 - len(head))
        if not part: raise SystemExit("closed")
        head += part
    length = struct.unpack("!I", head[1:])[0] - 4
    body = b""
    while len(body) < length:
        body += s.recv(length - len(body))
    return head[:1], body
def until(s, wanted):
    seen = b""
    while True:
        tag, body = message(s)
        seen += tag
        if tag == b"E": raise SystemExit(body)
        if tag in wanted: return seen
sessions = []
for _ in range(count):
    s = socket.create_connection(("127.0.0.1", port))
    body = struct.pack("!I", 196608) + b"user\0agent\0database\0postgres\0\0"
    s.sendall(struct.pack("!I", len(body) + 4) + body)
    until(s, b"Z")
    sessions.append(s)
print("open", flush=True)
sys.stdin.readline()
sql = b"COMMENT ON TABLE orders IS 'x'\0"
for s in sessions:
    s.sendall(b"Q" + struct.pack("!I", len(sql) + 4) + sql)
for s in sessions:
    until(s, b"N")
print("held", flush=True)
done = sum(b"C" in until(s, b"Z") for s in sessions)
print("done", done, flush=True)
"#;

/// Bytes of memory that the daemon has for itself.
fn memory(world: &World) -> Result<usize> {
    let pid = world.daemon.server().pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .context("no RssAnon")?;
    let kib: usize = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

fn ask(world: &World, request: &Value) -> Result<Value> {
    let mut socket = UnixStream::connect(world.place.path("run/admin.sock"))?;
    socket.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

#[test]
fn a_thousand_held_exchanges_cost_what_they_hold_and_all_are_answered() -> Result<()> {
    let plan = Plan {
        rules: "version: 1\nrules:\n  - name: ask-first\n    match: { postgres: { class: ddl } }\n    verdict: hold\n    approval: { from: [dba], timeout: 10m }\n",
        postgres: postgres::Options {
            sql: postgres::SAMPLE.to_owned(),
            settings: "max_connections = 1100\nshared_buffers = 64MB\nlog_connections = off\n"
                .to_owned(),
            ..postgres::Options::default()
        },
        config: |postgres, _| {
            json!({
                "targets": [target(postgres)],
                "approvals": { "groups": { "dba": ["root"] } },
            })
        },
    };
    alone(&plan, |world| {
        let port = world.postgres.port.to_string();
        let count = HELD.to_string();
        let agent = world.agent("many");
        let mut running = agent.start(&["/usr/bin/python3", "-c", PROGRAM, &port, &count])?;
        let patience = Duration::from_secs(180);
        let questions = |world: &World| -> Result<Vec<Value>> {
            let answer = ask(world, &json!({"questions": {}}))?;
            Ok(answer["questions"].as_array().cloned().unwrap_or_default())
        };
        let number = |world: &World, name: &str| -> Result<u64> {
            let answer = ask(world, &json!({"status": {}}))?;
            answer[name].as_u64().context("no such number")
        };
        let all = HELD as u64;
        eventually("all sessions are open", patience, || {
            Ok(number(world, "flows")? == all && number(world, "queued_bytes")? == 0)
        })?;
        let before = memory(world)?;
        running.write("go\n")?;
        eventually("all are held", patience, || {
            Ok(number(world, "questions")? == all && number(world, "queued_bytes")? == 0)
        })?;
        let after = memory(world)?;
        let each = after.saturating_sub(before) / HELD;
        println!("{each} bytes for each held exchange");
        // The message, the question with its proof of who asks, and what waits for both.
        ensure!(each < 16 << 10, "{each} bytes for each held exchange");
        for question in questions(world)? {
            let answer =
                json!({"answer": {"id": question["id"], "approves": true, "reason": null}});
            let answered = ask(world, &answer)?;
            ensure!(answered["error"].is_null(), "{answered}");
        }
        let done = running.finish(patience)?.ok()?;
        ensure!(
            done.stdout.ends_with(&format!("done {HELD}\n")),
            "{}",
            done.stdout
        );
        Ok(())
    })
}
