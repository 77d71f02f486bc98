//! Events in central log stores: all of them, and after whatever happens.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a test that panics has failed; the store's other tests use the rest of it"
)]

#[path = "recording/store.rs"]
mod store;
#[path = "recording/talker.rs"]
mod talker;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::{SOON, program};
use interceptor_tests::eventually;
use interceptor_tests::place::free_port;
use interceptor_tests::process::{Server, Start};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use store::Store;
use talker::{Talker, say, together};

async fn scene(sessions: usize, commands: u64) -> Result<(Store, Vec<String>)> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(64 << 20)?;
    let closed = together(&recorder, sessions, commands, Duration::ZERO).await;
    task.close(Duration::from_secs(30)).await?;
    let config = json!({ "recorder": { "redis": store.url() } });
    store.place.file("interceptor.yaml", &config.to_string())?;
    Ok((store, closed))
}

fn command(store: &Store, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program()?);
    command
        .arg("--config")
        .arg(store.place.path("interceptor.yaml"))
        .arg("export")
        .args(arguments);
    Ok(command)
}

fn done(output: &Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn objects(text: &str) -> Result<Vec<Value>> {
    text.lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

fn ids(objects: &[Value]) -> BTreeSet<String> {
    let ids = objects.iter().filter_map(|object| object["id"].as_str());
    ids.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_json_go_on_where_they_stopped() -> Result<()> {
    let (store, closed) = scene(3, 40).await?;
    let all = objects(&done(&command(&store, &["--to", "jsonl"])?.output()?)?)?;
    assert_eq!(all.len(), 3 * 42);
    assert_eq!(ids(&all).len(), 3 * 42);
    let first = all
        .iter()
        .find(|object| object["kind"] == "open")
        .context("an opening")?;
    assert_eq!(first["agent"], "bot");
    assert_eq!(first["target"], "orders-db");
    assert_eq!(first["meta"]["process"]["pid"], 7);
    assert!(closed.contains(&first["session"].as_str().unwrap_or_default().to_owned()));

    let (file, state) = (store.place.path("events"), store.place.path("positions"));
    let export = || -> Result<Vec<Value>> {
        let arguments = [
            "--to",
            "jsonl",
            "--file",
            file.to_str().context("path")?,
            "--state",
        ];
        done(&command(&store, &arguments)?.arg(&state).output()?)?;
        objects(&std::fs::read_to_string(&file)?)
    };
    assert_eq!(export()?.len(), 126);
    assert_eq!(export()?.len(), 126, "nothing is brought twice");

    // A session that is open is brought as far as it came, and later its rest.
    let (recorder, task) = store.recorder(1 << 20)?;
    let mut talker = Talker::new();
    say(&recorder, talker.open()).await;
    say(&recorder, talker.command()).await;
    eventually("it to be recorded", SOON, || {
        Ok(store.session(&talker.id())?.len() == 2)
    })?;
    assert_eq!(export()?.len(), 128);
    say(&recorder, talker.command().with_data(vec![0, 255])).await;
    say(&recorder, talker.close()).await;
    task.close(Duration::from_secs(30)).await?;
    let lines = export()?;
    assert_eq!(lines.len(), 130);
    assert_eq!(ids(&lines).len(), 130);
    assert_eq!(lines[128]["data_base64"], "AP8=");
    let kept: Value = serde_json::from_slice(&std::fs::read(&state)?)?;
    assert_eq!(
        kept["open"],
        json!({}),
        "nothing is remembered of what is over"
    );

    // Positions of one destination are not another's.
    let other = command(&store, &["--to", "jsonl", "--state"])?
        .arg(&state)
        .output()?;
    assert!(!other.status.success());
    assert!(String::from_utf8_lossy(&other.stderr).contains("use another --state"));
    Ok(())
}

/// Requests that a collector took.
type Taken = Arc<Mutex<Vec<Value>>>;

/// A collector that answers 503 to every third request, and keeps what it took.
fn collector() -> Result<(u16, Taken, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let taken = Taken::default();
    let refused: Arc<AtomicUsize> = Arc::default();
    let (kept, counted) = (Arc::clone(&taken), Arc::clone(&refused));
    std::thread::spawn(move || {
        let mut requests = 0;
        for stream in listener.incoming().flatten() {
            let mut stream = BufReader::new(stream);
            loop {
                let mut head = Vec::new();
                let mut line = String::new();
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                    head.push(line.trim().to_owned());
                    line.clear();
                }
                let length = head.iter().find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length: ")?
                        .parse()
                        .ok()
                });
                let Some(length) = length else { break };
                let mut body = vec![0; length];
                if stream.read_exact(&mut body).is_err() {
                    break;
                }
                requests += 1;
                let status = if requests % 3 == 1 {
                    "503 Busy"
                } else {
                    "200 OK"
                };
                if status.starts_with('2') {
                    let mut body: Value = serde_json::from_slice(&body).unwrap();
                    body["head"] = json!(head);
                    kept.lock().unwrap().push(body);
                } else {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
                if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    Ok((port, taken, refused))
}

/// The JSON mapping of `opentelemetry.proto.logs.v1`: names, and which numbers are strings.
fn check_record(record: &Value) {
    let allowed = [
        "timeUnixNano",
        "observedTimeUnixNano",
        "severityNumber",
        "severityText",
        "body",
        "attributes",
        "droppedAttributesCount",
        "flags",
        "traceId",
        "spanId",
        "eventName",
    ];
    for name in record.as_object().unwrap().keys() {
        assert!(
            allowed.contains(&name.as_str()),
            "{name} is in no LogRecord"
        );
    }
    let nanos = record["timeUnixNano"].as_str().unwrap();
    assert_eq!(nanos.len(), 19, "{nanos}");
    assert!(record["severityNumber"].is_u64());
    let trace = record["traceId"].as_str().unwrap();
    assert!(trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit()));
    for attribute in record["attributes"].as_array().unwrap() {
        assert!(attribute["key"].is_string());
        let value = attribute["value"].as_object().unwrap();
        let (kind, value) = value.iter().next().unwrap();
        assert!(
            ["stringValue", "intValue", "bytesValue"].contains(&kind.as_str()),
            "{kind}"
        );
        assert!(value.is_string(), "a 64-bit number is a string: {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_busy_gets_everything() -> Result<()> {
    let (store, closed) = scene(4, 60).await?;
    let (port, taken, refused) = collector()?;
    let url = format!("http://127.0.0.1:{port}");
    let output = tokio::task::block_in_place(|| -> Result<Output> {
        let mut command = command(&store, &["--to", "otlp", "--url", &url])?;
        command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer a-token");
        Ok(command.output()?)
    })?;
    done(&output)?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("503") && !said.contains("a-token"), "{said}");
    assert!(refused.load(Ordering::Relaxed) > 0);
    let taken = taken.lock().unwrap();
    let mut ids = Vec::new();
    for request in taken.iter() {
        let head = request["head"].to_string().to_ascii_lowercase();
        assert!(head.contains("post /v1/logs") && head.contains("authorization: bearer a-token"));
        assert!(head.contains("content-type: application/json"), "{head}");
        for resource in request["resourceLogs"].as_array().unwrap() {
            assert_eq!(resource["resource"]["attributes"][0]["key"], "service.name");
            for record in resource["scopeLogs"][0]["logRecords"].as_array().unwrap() {
                check_record(record);
                let id = &record["attributes"][0];
                assert_eq!(id["key"], "log.record.uid");
                ids.push(id["value"]["stringValue"].as_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(ids.len(), 4 * 62);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 4 * 62);
    assert!(
        closed
            .iter()
            .all(|session| ids.contains(&format!("{session}/61")))
    );
    Ok(())
}

/// rsyslog reads what is sent, and writes out what it understood.
#[tokio::test(flavor = "multi_thread")]
async fn a_syslog_server_understands_it_and_gets_what_it_missed() -> Result<()> {
    let (store, closed) = scene(2, 30).await?;
    let port = free_port()?;
    let out = store.place.path("syslog.out");
    let config = format!(
        "global(workDirectory=\"{folder}\" maxMessageSize=\"64k\")\n\
         module(load=\"imtcp\")\n\
         template(name=\"parts\" type=\"list\") {{\n\
           property(name=\"syslogseverity\") constant(value=\" \")\n\
           property(name=\"app-name\") constant(value=\" \") property(name=\"msgid\") constant(value=\" \")\n\
           property(name=\"structured-data\") constant(value=\" | \") property(name=\"msg\") constant(value=\"\\n\") }}\n\
         input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
         action(type=\"omfile\" file=\"{out}\" template=\"parts\")\n",
        folder = store.place.subfolder("rsyslog")?.display(),
        out = out.display(),
    );
    let config = store.place.file("rsyslog.conf", &config)?;
    let start = || -> Result<Server> {
        let mut command = Command::new("rsyslogd");
        command.args(["-n", "-i", "NONE", "-f"]).arg(&config);
        let start = Start {
            name: "rsyslog",
            log: &store.place.path("rsyslog.log"),
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGKILL,
        };
        let mut server = Server::start(&start, command).context("cargo xtask install servers")?;
        server.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(server)
    };
    let address = format!("tcp://127.0.0.1:{port}");
    let state = store.place.path("positions");
    let export = || -> Result<std::process::Child> {
        let mut command = command(
            &store,
            &["--to", "syslog", "--address", &address, "--state"],
        )?;
        Ok(command.arg(&state).spawn()?)
    };
    // Nobody is there when it begins.
    let mut waits = export()?;
    std::thread::sleep(Duration::from_millis(500));
    let _server = start()?;
    tokio::task::block_in_place(|| -> Result<()> {
        ensure!(waits.wait()?.success());
        eventually("all messages", SOON, || {
            let lines = std::fs::read_to_string(&out).unwrap_or_default();
            Ok(lines.lines().count() >= 64)
        })
    })?;
    let text = std::fs::read_to_string(&out)?;
    let ours: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("interceptor@32473"))
        .collect();
    assert_eq!(ours.len(), 64, "{text}");
    for session in &closed {
        for seq in 0..32 {
            let wanted = format!("id=\"{session}/{seq}\"");
            assert_eq!(
                ours.iter().filter(|line| line.contains(&wanted)).count(),
                1,
                "{wanted}"
            );
        }
    }
    let first = ours
        .iter()
        .find(|line| line.contains(" open "))
        .context("an opening")?;
    assert!(
        first.starts_with("6 interceptor open [interceptor@32473 "),
        "{first}"
    );
    assert!(
        first.contains("agent=\"bot\" target=\"orders-db\""),
        "{first}"
    );
    assert!(first.ends_with("psql to orders-db"), "{first}");
    Ok(())
}
