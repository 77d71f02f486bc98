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
use interceptor_tests::certs::Certificates;
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

/// Of what rsyslog understood, the parts that a message should have.
const TEMPLATE: &str = r#"template(name="parts" type="list") {
    property(name="syslogseverity") constant(value=" ")
    property(name="app-name") constant(value=" ") property(name="msgid") constant(value=" ")
    property(name="structured-data") constant(value=" | ") property(name="msg") constant(value="\n") }"#;

/// A configuration of rsyslog's, and where it writes what it understood.
struct Rsyslog {
    config: std::path::PathBuf,
    out: std::path::PathBuf,
    port: u16,
}

impl Rsyslog {
    /// `global` are parameters of the whole, and `module` those of `imtcp`.
    fn new(store: &Store, global: &str, module: &str) -> Result<Self> {
        let port = free_port()?;
        let out = store.place.path("syslog.out");
        let config = format!(
            "global(workDirectory=\"{folder}\" maxMessageSize=\"64k\" {global})\n\
             module(load=\"imtcp\" {module})\n{TEMPLATE}\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
             action(type=\"omfile\" file=\"{out}\" template=\"parts\")\n",
            folder = store.place.subfolder("rsyslog")?.display(),
            out = out.display(),
        );
        let config = store.place.file("rsyslog.conf", &config)?;
        Ok(Self { config, out, port })
    }

    fn start(&self, store: &Store) -> Result<Server> {
        let mut command = Command::new("rsyslogd");
        command.args(["-n", "-i", "NONE", "-f"]).arg(&self.config);
        let start = Start {
            name: "rsyslog",
            log: &store.place.path("rsyslog.log"),
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGKILL,
        };
        let mut server = Server::start(&start, command).context("cargo xtask install servers")?;
        let port = self.port;
        server.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(server)
    }

    /// The lines of ours that it understood, once there are so many; each of the sessions'
    /// events once.
    fn understood(&self, closed: &[String], each: usize) -> Result<Vec<String>> {
        let wanted = closed.len() * each;
        eventually("all messages", SOON, || {
            let lines = std::fs::read_to_string(&self.out).unwrap_or_default();
            Ok(lines.lines().count() >= wanted)
        })?;
        let text = std::fs::read_to_string(&self.out)?;
        let ours = text
            .lines()
            .filter(|line| line.contains("interceptor@32473"));
        let ours: Vec<String> = ours.map(str::to_owned).collect();
        assert_eq!(ours.len(), wanted, "{text}");
        for session in closed {
            for seq in 0..each {
                let wanted = format!("id=\"{session}/{seq}\"");
                let there = ours.iter().filter(|line| line.contains(&wanted));
                assert_eq!(there.count(), 1, "{wanted}");
            }
        }
        Ok(ours)
    }
}

/// rsyslog reads what is sent, and writes out what it understood.
#[tokio::test(flavor = "multi_thread")]
async fn a_syslog_server_understands_it_and_gets_what_it_missed() -> Result<()> {
    let (store, closed) = scene(2, 30).await?;
    let rsyslog = Rsyslog::new(&store, "", "")?;
    let address = format!("tcp://127.0.0.1:{}", rsyslog.port);
    let state = store.place.path("positions");
    let words = ["--to", "syslog", "--address", &address, "--state"];
    // Nobody is there when it begins.
    let mut waits = command(&store, &words)?.arg(&state).spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    let _server = rsyslog.start(&store)?;
    let ours = tokio::task::block_in_place(|| -> Result<Vec<String>> {
        ensure!(waits.wait()?.success());
        rsyslog.understood(&closed, 32)
    })?;
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

/// RFC 5425, by rsyslog with OpenSSL; nothing is told to a server whose certificate is of
/// another authority.
#[tokio::test(flavor = "multi_thread")]
async fn a_syslog_server_is_told_over_tls_and_no_other_one_is() -> Result<()> {
    let (store, closed) = scene(2, 30).await?;
    let certificates = Certificates::new(&store.place, "syslog", None)?;
    let global = format!(
        "defaultNetstreamDriver=\"ossl\" defaultNetstreamDriverCAFile=\"{}\" \
         defaultNetstreamDriverCertFile=\"{}\" defaultNetstreamDriverKeyFile=\"{}\"",
        certificates.ca.display(),
        certificates.certificate.display(),
        certificates.key.display(),
    );
    let module = r#"streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon""#;
    let rsyslog = Rsyslog::new(&store, &global, module)?;
    let _server = rsyslog.start(&store)?;
    let address = format!("tls://localhost:{}", rsyslog.port);
    let words = ["--to", "syslog", "--address", &address, "--ca"];

    let other = Certificates::new(&store.place, "other", None)?;
    let mut refused = command(&store, &words)?;
    refused.arg(&other.ca).stderr(std::process::Stdio::piped());
    let mut refused = refused.spawn()?;
    let mut told = String::new();
    let stderr = refused.stderr.take().context("no stderr")?;
    tokio::task::block_in_place(|| BufReader::new(stderr).read_line(&mut told))?;
    assert!(
        told.contains("certificate") && told.contains("trying again"),
        "{told}"
    );
    refused.kill()?;
    refused.wait()?;
    assert!(
        !std::fs::read_to_string(&rsyslog.out)
            .unwrap_or_default()
            .contains("32473")
    );

    tokio::task::block_in_place(|| -> Result<()> {
        done(&command(&store, &words)?.arg(&certificates.ca).output()?)?;
        rsyslog.understood(&closed, 32)?;
        // What is sent in the clear there is no message.
        let clear = format!("tcp://localhost:{}", rsyslog.port);
        let _ = command(&store, &["--to", "syslog", "--address", &clear])?.output()?;
        rsyslog.understood(&closed, 32)?;
        Ok(())
    })
}

/// What a running exporter is killed at goes on where the destination has it: the batch that
/// was under way is brought again, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_goes_on_after_it_is_killed() -> Result<()> {
    let (store, _) = scene(1, 10).await?;
    let (file, state) = (store.place.path("events"), store.place.path("positions"));
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let follow = || -> Result<std::process::Child> {
        let (file, state) = (text(&file), text(&state));
        let words = [
            "--to", "jsonl", "--follow", "--file", &file, "--state", &state,
        ];
        Ok(command(&store, &words)?.spawn()?)
    };
    let (recorder, task) = store.recorder(64 << 20)?;
    let talking = tokio::spawn(async move {
        let sessions = together(&recorder, 12, 300, Duration::from_secs(8)).await;
        (recorder, sessions)
    });
    let lines = |file: &std::path::Path| std::fs::read(file).map_or(0, |all| all.len());
    let mut kills = 0;
    while !talking.is_finished() {
        let mut exporter = follow()?;
        let before = lines(&file);
        // Once it brings something, at another moment each time.
        tokio::task::block_in_place(|| {
            let _ = eventually("it to bring something", Duration::from_secs(5), || {
                Ok(lines(&file) > before)
            });
            std::thread::sleep(Duration::from_millis(kills * 37 % 400));
        });
        exporter.kill()?;
        exporter.wait()?;
        kills += 1;
    }
    let (recorder, sessions) = talking.await?;
    drop(recorder);
    task.close(Duration::from_secs(30)).await?;
    let mut exporter = follow()?;
    let all = 12 * 302 + 12;
    let read = || -> Result<Vec<Value>> {
        // A line that was being written when it was killed is no line.
        let text = std::fs::read_to_string(&file)?;
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Ok(lines.collect())
    };
    tokio::task::block_in_place(|| {
        eventually("everything", SOON, || Ok(ids(&read()?).len() >= all))
    })?;
    exporter.kill()?;
    exporter.wait()?;
    let brought = read()?;
    let there = ids(&brought);
    assert_eq!(
        there.len(),
        all,
        "nothing is lost, and nothing else is there"
    );
    for session in &sessions {
        assert!((0..302).all(|seq| there.contains(&format!("{session}/{seq}"))));
    }
    // Two batches of a kill: one may have been written and not remembered.
    let again = brought.len() - all;
    assert!(
        again as u64 <= kills * 500,
        "{again} events again after {kills} kills"
    );
    assert!(kills >= 3, "{kills} kills");
    println!("{kills} kills, {all} events, {again} of them brought again");
    Ok(())
}

/// Once, what is there is brought, although more comes faster than it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_on_a_host_that_never_rests() -> Result<()> {
    let (store, closed) = scene(2, 20).await?;
    let (recorder, task) = store.recorder(64 << 20)?;
    let on = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let talkers: Vec<_> = (0..4)
        .map(|_| {
            let (recorder, on) = (recorder.clone(), Arc::clone(&on));
            tokio::spawn(async move {
                let mut talker = Talker::new();
                say(&recorder, talker.open()).await;
                while on.load(Ordering::Relaxed) {
                    say(&recorder, talker.command()).await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                say(&recorder, talker.close()).await;
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let file = store.place.path("events");
    let path = file.to_string_lossy().into_owned();
    let mut export = command(&store, &["--to", "jsonl", "--file", &path])?.spawn()?;
    let ended = tokio::task::block_in_place(|| {
        eventually("it to end", SOON, || Ok(export.try_wait()?.is_some()))
    });
    on.store(false, Ordering::Relaxed);
    let _ = export.kill();
    ended?;
    for talker in talkers {
        talker.await?;
    }
    task.close(Duration::from_secs(30)).await?;
    let there = ids(&objects(&std::fs::read_to_string(&file)?)?);
    for session in &closed {
        assert!((0..22).all(|seq| there.contains(&format!("{session}/{seq}"))));
    }
    assert!(
        there.len() > 44,
        "the running sessions, as far as they were"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_export_would_not_heed_is_said() -> Result<()> {
    let (store, _) = scene(1, 5).await?;
    for (words, told) in [
        (
            "--to jsonl --url http://localhost:1",
            "--url goes with --to otlp",
        ),
        (
            "--to otlp --url http://localhost:1 --file x",
            "--file goes with --to jsonl",
        ),
        (
            "--to jsonl --address tcp://localhost:1",
            "--address goes with --to syslog",
        ),
        (
            "--to syslog --address tcp://localhost:1 --ca x",
            "--ca goes with",
        ),
        (
            "--to syslog --address tls://localhost:1 --data-limit 9",
            "--data-limit goes with",
        ),
        ("--to otlp", "which collector?"),
        ("--to syslog", "which server?"),
        ("--to jsonl --since yesterday", "2026-11-30"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let output = command(&store, &words)?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(told), "{words:?}: {said}");
    }
    let count = |since: &str| -> Result<usize> {
        let output = command(&store, &["--to", "jsonl", "--since", since])?.output()?;
        Ok(objects(&done(&output)?)?.len())
    };
    assert_eq!(
        (count("1h")?, count("2020-01-01")?, count("2099-01-01")?),
        (7, 7, 0)
    );
    // Where it went on from is said once it is not what was asked for.
    let state = store.place.path("positions").to_string_lossy().into_owned();
    for (brought, says) in [(7, false), (0, true)] {
        let words = ["--to", "jsonl", "--since", "1h", "--state", &state];
        let output = command(&store, &words)?.output()?;
        assert_eq!(objects(&done(&output)?)?.len(), brought);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            said.contains("--since is for the first time"),
            says,
            "{said}"
        );
    }
    Ok(())
}
