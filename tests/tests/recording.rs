//! The recorder against a real Redis: what it writes, and that nothing is lost or
//! written twice, whatever happens to the store.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use interceptor_engine::chain::Check;
use interceptor_engine::event::{Event, FlowTime, Kind};
use interceptor_engine::journal::Journal;
use interceptor_engine::replay::{Entry, Raw};
use interceptor_policy::verdict::Severity;
use interceptor_tests::eventually;
use interceptor_tests::place::{self, Place};
use interceptor_tests::process::{Server, Start};
use interceptor_user::config;
use interceptor_user::recorder::read::{Reader, StreamEntry};
use interceptor_user::recorder::{Alert, Host, Recorder, RecorderTask};
use nix::sys::signal::Signal;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);

/// A Redis that keeps what it acknowledged, and can be killed and started again.
struct Store {
    server: Option<Server>,
    port: u16,
    place: Place,
}

impl Store {
    fn start() -> Result<Self> {
        let mut store = Self {
            server: None,
            port: place::free_port()?,
            place: Place::new()?,
        };
        store.again()?;
        Ok(store)
    }

    fn again(&mut self) -> Result<()> {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "yes", "--daemonize", "no"])
            .args(["--appendfsync", "everysec", "--dir"])
            .arg(self.place.subfolder("redis")?);
        let start = Start {
            name: "redis",
            log: &self.place.path("redis.log"),
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGKILL,
        };
        let mut server = Server::start(&start, command)?;
        let url = self.url();
        server.wait_until(|| {
            redis::Client::open(url.as_str())
                .and_then(|client| redis::cmd("PING").exec(&mut client.get_connection()?))
                .is_ok()
        })?;
        self.server = Some(server);
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.server.as_ref().context("no server")?.signal(signal)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn run(&self, words: &[&str]) -> Result<redis::Value> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        Ok(command.query(&mut connection)?)
    }

    fn recorder(&self, queue_bytes: usize) -> Result<(Recorder, RecorderTask)> {
        self.recorder_as(self.url(), queue_bytes)
    }

    fn recorder_as(&self, url: String, queue_bytes: usize) -> Result<(Recorder, RecorderTask)> {
        let config = config::Recorder {
            redis: Some(url),
            prefix: "interceptor".to_owned(),
            queue_bytes,
            stall: Duration::from_secs(5),
            live_entries: 1_000_000,
        };
        Recorder::start(
            &config,
            &Host {
                name: "test-host".to_owned(),
                version: "0".to_owned(),
                rules: "none".to_owned(),
                state_dir: self.place.path("state"),
                runtime_dir: self.place.path("run"),
            },
        )
    }

    fn reader(&self) -> Result<Reader> {
        Ok(Reader::open(&self.url(), "interceptor")?)
    }

    fn stream(&self, name: &str) -> Result<Vec<BTreeMap<String, String>>> {
        let mut reader = self.reader()?;
        let key = reader.key(name);
        let entries = reader.after(&key, "0-0", 10_000_000)?;
        Ok(entries.iter().map(texts).collect())
    }

    /// A session's entries, once they were found to be chained and complete.
    fn session(&self, session: &str) -> Result<Vec<Entry>> {
        let mut reader = self.reader()?;
        let mut pages = reader.session(session);
        let mut check = Check::default();
        let mut out = Vec::new();
        loop {
            let page = pages.next_page()?;
            if page.is_empty() {
                return Ok(out);
            }
            for StreamEntry { fields, .. } in page {
                let raw = Raw::from_fields(fields);
                check.event(&raw.stored(session))?;
                out.push(raw.read()?);
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // A stopped process takes no other signal but this.
        let _ = self.signal(Signal::SIGCONT);
    }
}

/// A wire to the store that can be interfered with.
struct Wire {
    port: u16,
    state: Arc<WireState>,
}

#[derive(Default)]
struct WireState {
    /// The next answer is not passed on; its connection ends, and no other begins.
    cut: AtomicBool,
    /// That happened.
    is_cut: AtomicBool,
    /// The next request is kept back.
    hold: AtomicBool,
    /// That happened; it goes on when this is unset.
    is_held: AtomicBool,
}

impl Wire {
    fn to(store: &Store) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let wire = Self {
            port: listener.local_addr()?.port(),
            state: Arc::default(),
        };
        let (state, port) = (Arc::clone(&wire.state), store.port);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.is_cut.load(SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                for is_request in [true, false] {
                    let (from, to) = if is_request {
                        (client.try_clone(), server.try_clone())
                    } else {
                        (server.try_clone(), client.try_clone())
                    };
                    let (Ok(from), Ok(to)) = (from, to) else {
                        break;
                    };
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || pass(&state, is_request, from, to));
                }
            }
        });
        Ok(wire)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn wait(&self, what: &AtomicBool) -> Result<()> {
        eventually("the wire to be interfered with", SOON, || {
            Ok(what.load(SeqCst))
        })
    }
}

fn pass(state: &WireState, is_request: bool, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if is_request && state.hold.swap(false, SeqCst) {
            state.is_held.store(true, SeqCst);
            while state.is_held.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if !is_request && state.cut.swap(false, SeqCst) {
            state.is_cut.store(true, SeqCst);
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn texts(entry: &StreamEntry) -> BTreeMap<String, String> {
    let fields = entry.fields.iter();
    fields
        .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
        .collect()
}

/// A session that says so many things, each a command with an alert now and then.
struct Talker {
    journal: Journal,
    said: u64,
}

impl Talker {
    fn new() -> Self {
        Self {
            journal: Journal::new(Uuid::now_v7(), Some("run-1".into())),
            said: 0,
        }
    }

    fn id(&self) -> String {
        self.journal.session().to_string()
    }

    fn event(&mut self, kind: Kind, line: &str) -> Event {
        self.said += 1;
        let exchange = matches!(kind, Kind::Command).then_some(self.said);
        self.journal
            .event(FlowTime(self.said * 700), kind, exchange, line)
    }

    fn open(&mut self) -> Event {
        self.event(Kind::Open, "psql to orders-db")
            .with_meta(r#"{"agent":"bot","target":"orders-db","process":{"pid":7}}"#.to_owned())
    }

    fn close(&mut self) -> Event {
        self.event(Kind::Close, "done")
            .with_meta(r#"{"seconds":3,"worst":"block"}"#.to_owned())
    }

    fn command(&mut self) -> Event {
        let text = format!("SELECT {}", self.said);
        let event = self
            .event(Kind::Command, &text)
            .with_data(text.clone().into_bytes());
        if self.said.is_multiple_of(10) {
            event.with_alert(Severity::High)
        } else {
            event
        }
    }
}

/// Records, waiting for room as a flow does.
async fn say(recorder: &Recorder, event: Event) {
    let mut events = vec![event];
    while recorder.record(&mut events).is_err() {
        recorder.room().await;
    }
}

/// One session of `count` commands, said over at least `time`.
async fn talk(recorder: Recorder, count: u64, time: Duration) -> String {
    let mut talker = Talker::new();
    say(&recorder, talker.open()).await;
    for _ in 0..count {
        say(&recorder, talker.command()).await;
        let pause = time / u32::try_from(count).unwrap_or(1);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    say(&recorder, talker.close()).await;
    talker.id()
}

/// Every session is whole, and each event is once in every stream that it is for.
fn all_there_once(store: &Store, sessions: &[String], commands: u64) -> Result<()> {
    let mut alerts = Vec::new();
    for session in sessions {
        let events = store.session(session)?;
        assert_eq!(events.len() as u64, commands + 2, "of {session}");
        alerts.extend(
            events
                .iter()
                .filter(|event| event.kind == "command" && (event.seq + 1).is_multiple_of(10))
                .map(|event| (session.clone(), event.seq)),
        );
    }
    let place = |entry: &BTreeMap<String, String>| {
        let seq = entry.get("seq").and_then(|seq| seq.parse::<u64>().ok());
        (entry.get("session").cloned().unwrap_or_default(), seq)
    };
    let mut live: Vec<_> = store.stream("live")?.iter().map(place).collect();
    let count = live.len();
    live.sort();
    live.dedup();
    assert_eq!(live.len(), count, "lines stand twice in `live`");
    assert_eq!(count as u64, sessions.len() as u64 * (commands + 2));

    let mut told: Vec<_> = store
        .stream("alerts")?
        .iter()
        .filter(|entry| entry.contains_key("session"))
        .map(|entry| {
            let (session, seq) = place(entry);
            (session, seq.unwrap_or(u64::MAX))
        })
        .collect();
    told.sort();
    alerts.sort();
    assert_eq!(told, alerts);
    assert_eq!(store.stream("sessions")?.len(), 2 * sessions.len());
    Ok(())
}

async fn together(recorder: &Recorder, talkers: usize, count: u64, time: Duration) -> Vec<String> {
    let tasks: Vec<_> = (0..talkers)
        .map(|_| tokio::spawn(talk(recorder.clone(), count, time)))
        .collect();
    let mut sessions = Vec::new();
    for task in tasks {
        sessions.push(task.await.expect("a talker"));
    }
    sessions
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_what_the_documents_say() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(1 << 20)?;
    let mut talker = Talker::new();
    let session = talker.id();
    let mut events = vec![
        talker.open(),
        talker
            .command()
            .with_meta(r#"{"verdict":"block"}"#.into())
            .with_alert(Severity::Medium),
        talker.event(Kind::Result, "").with_data(vec![0, 255]),
        talker.close(),
    ];
    recorder.record(&mut events)?;
    assert!(events.is_empty());
    recorder.alert(Alert {
        severity: Severity::Critical,
        kind: "bypass",
        line: "a raw socket".into(),
        meta: String::new(),
    });
    task.close(SOON).await?;

    let mut reader = store.reader()?;
    let key = reader.session_key(&session);
    let entries = reader.after(&key, "0-0", 10)?;
    let opened_ms = u64::from_str_radix(&session.replace('-', "")[..12], 16)?;
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.id.clone())
            .collect::<Vec<_>>(),
        [
            format!("{opened_ms}-1"),
            format!("{}-2", opened_ms + 1),
            format!("{}-3", opened_ms + 2),
            format!("{}-4", opened_ms + 2),
        ]
    );
    let names = |index: usize| -> Vec<&str> {
        let fields = entries[index].fields.iter();
        fields.map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(
        names(0),
        ["seq", "at", "kind", "run", "line", "meta", "chain"]
    );
    assert_eq!(
        names(1),
        [
            "seq", "at", "kind", "exchange", "run", "line", "data", "meta", "chain"
        ]
    );
    assert_eq!(names(2), ["seq", "at", "kind", "run", "data", "chain"]);
    assert_eq!(texts(&entries[1])["at"], "1400");
    assert_eq!(store.session(&session)?.len(), 4);

    let live = store.stream("live")?;
    assert_eq!(
        live.len(),
        3,
        "an event without a line tells nobody anything"
    );
    assert_eq!(live[1]["agent"], "bot");
    assert_eq!(live[1]["line"], "SELECT 1");
    assert_eq!(live[1]["alert"], "medium");

    let alerts = store.stream("alerts")?;
    let bypass = &alerts[0];
    assert_eq!(
        (&*bypass["kind"], &*bypass["severity"]),
        ("bypass", "critical")
    );
    assert_eq!(bypass["host"], "test-host");
    assert_eq!(alerts[1]["session"], session);
    assert_eq!(alerts[1]["meta"], r#"{"verdict":"block"}"#);

    let sessions = store.stream("sessions")?;
    assert_eq!(sessions[0]["event"], "open");
    assert_eq!(sessions[0]["process"], r#"{"pid":7}"#);
    assert_eq!(sessions[1]["event"], "close");
    assert_eq!(sessions[1]["target"], "orders-db");
    assert_eq!(sessions[1]["worst"], "block");
    assert_eq!(sessions[1]["events"], "4");
    assert_eq!(sessions[1]["chain"], texts(&entries[3])["chain"]);

    let redis::Value::BulkString(host) = store.run(&["HGET", "interceptor:hosts", "test-host"])?
    else {
        panic!("no sign of life");
    };
    let host: serde_json::Value = serde_json::from_slice(&host)?;
    assert_eq!(host["rules"], "none");
    assert!(
        host["seen"]
            .as_str()
            .is_some_and(|seen| seen.ends_with('Z'))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_at_once_are_each_whole_and_in_order() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(256 << 10)?;
    let sessions = together(&recorder, 20, 400, Duration::ZERO).await;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 400)
}

/// Longer than the recorder waits for an answer, so that it gives the connection
/// up while the server still has what came over it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_loses_nothing_and_gets_nothing_twice() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(64 << 20)?;
    let talking = {
        let recorder = recorder.clone();
        tokio::spawn(async move { together(&recorder, 8, 1000, Duration::from_secs(9)).await })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    store.signal(Signal::SIGSTOP)?;
    tokio::time::sleep(Duration::from_millis(7500)).await;
    assert!(!recorder.status().connected);
    store.signal(Signal::SIGCONT)?;
    let sessions = talking.await?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 1000)?;
    let told = store.stream("alerts")?;
    assert!(
        told.iter().any(|alert| alert["kind"] == "recorder"),
        "the fault itself is an alert"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_and_comes_back_has_everything_once() -> Result<()> {
    let mut store = Store::start()?;
    let (recorder, task) = store.recorder(64 << 20)?;
    let talking = {
        let recorder = recorder.clone();
        tokio::spawn(async move { together(&recorder, 8, 2000, Duration::from_secs(4)).await })
    };
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(331)).await;
        store.signal(Signal::SIGKILL)?;
        store.server = None;
        store.again()?;
    }
    let sessions = talking.await?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 2000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_so_takes_nothing_and_recovers() -> Result<()> {
    let mut store = Store::start()?;
    store.signal(Signal::SIGKILL)?;
    store.server = None;
    let (recorder, task) = store.recorder(64 << 10)?;
    let mut talker = Talker::new();
    recorder.record(&mut vec![talker.open()])?;
    let mut said = 0;
    let mut refused = loop {
        let mut event = vec![talker.command()];
        if recorder.record(&mut event).is_err() {
            break event;
        }
        said += 1;
    };
    assert_eq!(refused.len(), 1, "what is refused is handed back");
    assert!(!recorder.has_room());
    let waited = tokio::time::timeout(Duration::from_millis(300), recorder.room()).await;
    assert!(waited.is_err());
    assert!(recorder.status().last_fault.is_some());

    store.again()?;
    tokio::time::timeout(SOON, recorder.room()).await?;
    assert!(recorder.has_room());
    recorder.record(&mut refused)?;
    recorder.record(&mut vec![talker.close()])?;
    task.close(SOON).await?;
    all_there_once(&store, &[talker.id()], said + 1)
}

/// The fault that the recorder tells while `wrong` holds; then everything is there.
async fn through_a_fault(
    wrong: &[&str],
    right: &[&str],
    expected: &str,
    redis: &Store,
) -> Result<()> {
    let (recorder, task) = redis.recorder(64 << 20)?;
    let mut sessions = together(&recorder, 2, 100, Duration::ZERO).await;
    eventually("the first events to arrive", SOON, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    redis.run(wrong)?;
    sessions.extend(together(&recorder, 2, 100, Duration::ZERO).await);
    eventually(expected, SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains(expected))
    })?;
    redis.run(right)?;
    task.close(SOON).await?;
    all_there_once(redis, &sessions, 100)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_memory_is_told_and_loses_nothing() -> Result<()> {
    let store = Store::start()?;
    let wrong = ["CONFIG", "SET", "maxmemory", "1mb"];
    let right = ["CONFIG", "SET", "maxmemory", "0"];
    through_a_fault(&wrong, &right, "OOM", &store).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_became_a_replica_is_told_and_loses_nothing() -> Result<()> {
    let mut other = Store::start()?;
    other.place.subfolder("unused")?;
    let store = Store::start()?;
    let replica = ["REPLICAOF", "127.0.0.1", "1"];
    through_a_fault(&replica, &["REPLICAOF", "NO", "ONE"], "READONLY", &store).await?;
    other.server = None;
    Ok(())
}

/// A recorder over a wire, connected, and a session of 20 commands to record.
fn over(wire: &Wire, store: &Store) -> Result<(Recorder, RecorderTask, String, Vec<Event>)> {
    let (recorder, task) = store.recorder_as(wire.url(), 1 << 20)?;
    eventually("the recorder to connect", SOON, || {
        Ok(recorder.status().connected)
    })?;
    let mut talker = Talker::new();
    let mut events = vec![talker.open()];
    events.extend((0..20).map(|_| talker.command()));
    events.push(talker.close());
    Ok((recorder, task, talker.id(), events))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_is_lost_is_not_written_twice() -> Result<()> {
    let store = Store::start()?;
    let wire = Wire::to(&store)?;
    let (recorder, task, session, mut events) = over(&wire, &store)?;
    wire.state.cut.store(true, SeqCst);
    recorder.record(&mut events)?;
    wire.wait(&wire.state.is_cut)?;
    assert_eq!(store.session(&session)?.len(), 22, "it was done");
    wire.state.is_cut.store(false, SeqCst);
    task.close(SOON).await?;
    all_there_once(&store, &[session], 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_written_once_even_when_its_mark_is_gone() -> Result<()> {
    let store = Store::start()?;
    let wire = Wire::to(&store)?;
    let (recorder, task, session, mut events) = over(&wire, &store)?;
    wire.state.cut.store(true, SeqCst);
    recorder.record(&mut events)?;
    wire.wait(&wire.state.is_cut)?;
    store.run(&["HSET", "interceptor:hosts", "test-host", "{}"])?;
    wire.state.is_cut.store(false, SeqCst);
    task.close(SOON).await?;
    assert_eq!(store.session(&session)?.len(), 22);
    Ok(())
}

/// What failed alone in a batch must not be taken for done because the batch was.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_in_a_batch_whose_answer_is_lost_is_done_later() -> Result<()> {
    let store = Store::start()?;
    let wire = Wire::to(&store)?;
    let (recorder, task, session, mut events) = over(&wire, &store)?;
    store.run(&["SET", "interceptor:alerts", "x"])?;
    wire.state.cut.store(true, SeqCst);
    recorder.record(&mut events)?;
    wire.wait(&wire.state.is_cut)?;
    wire.state.is_cut.store(false, SeqCst);
    eventually("WRONGTYPE", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("WRONGTYPE"))
    })?;
    // And once more, for the batch of what is left.
    wire.state.cut.store(true, SeqCst);
    wire.wait(&wire.state.is_cut)?;
    wire.state.is_cut.store(false, SeqCst);
    eventually("WRONGTYPE", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("WRONGTYPE"))
    })?;
    store.run(&["DEL", "interceptor:alerts"])?;
    task.close(SOON).await?;
    all_there_once(&store, &[session], 20)
}

/// A request can lie in the network, or in a server that hangs, for longer than the
/// recorder waits, and be read after the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_arrives_after_it_was_given_up_is_not_done() -> Result<()> {
    let store = Store::start()?;
    let wire = Wire::to(&store)?;
    let (recorder, task, session, mut events) = over(&wire, &store)?;
    wire.state.hold.store(true, SeqCst);
    recorder.record(&mut events)?;
    wire.wait(&wire.state.is_held)?;
    eventually("the batch to be sent again", SOON, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    wire.state.is_held.store(false, SeqCst);
    std::thread::sleep(Duration::from_millis(300));
    task.close(SOON).await?;
    all_there_once(&store, &[session], 20)
}

/// The permissions are the ones in `docs/recording.md`.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_permissions_are_enough_and_missing_ones_are_told() -> Result<()> {
    let store = Store::start()?;
    let documents = include_str!("../../docs/recording.md");
    let line = documents
        .lines()
        .find_map(|line| line.strip_prefix("ACL SETUSER interceptor "))
        .context("no ACL in docs/recording.md")?;
    let words: Vec<&str> = line.split(' ').collect();
    let set = |words: &[&str]| store.run(&[&["ACL", "SETUSER", "interceptor"], words].concat());
    set(&words)?;
    set(&["-hset"])?;
    let url = format!("redis://interceptor:password@127.0.0.1:{}", store.port);
    let (recorder, task) = store.recorder_as(url.clone(), 1 << 20)?;
    let mut sessions = together(&recorder, 2, 100, Duration::ZERO).await;
    eventually("NOPERM", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("NOPERM"))
    })?;
    set(&["+hset"])?;
    eventually("the events to arrive", SOON, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    // The way after a broken connection needs more of them.
    store.signal(Signal::SIGSTOP)?;
    let more = tokio::spawn({
        let recorder = recorder.clone();
        async move { together(&recorder, 2, 100, Duration::ZERO).await }
    });
    tokio::time::sleep(Duration::from_secs(6)).await;
    store.signal(Signal::SIGCONT)?;
    sessions.extend(more.await?);
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 100)?;
    let mut reader = Reader::open(&url, "interceptor")?;
    assert_eq!(reader.resolve(&sessions[0])?, sessions[0]);
    reader.resolve("last")?;
    Ok(())
}

/// Inside a transaction, a command that fails alone does not stop the others: those
/// are not to be done a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_wrong_type_is_told_and_only_what_failed_is_done_again() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(64 << 20)?;
    store.run(&["SET", "interceptor:alerts", "x"])?;
    let sessions = together(&recorder, 4, 100, Duration::ZERO).await;
    eventually("WRONGTYPE", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("WRONGTYPE"))
    })?;
    store.run(&["DEL", "interceptor:alerts"])?;
    task.close(SOON).await?;
    all_there_once(&store, &sessions, 100)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_arrive_before_the_end_is_said_to_be_lost() -> Result<()> {
    let store = Store::start()?;
    store.signal(Signal::SIGKILL)?;
    let (recorder, task) = store.recorder(1 << 20)?;
    recorder.record(&mut vec![Talker::new().open()])?;
    let lost = task.close(Duration::from_millis(300)).await;
    assert!(lost.is_err_and(|unsent| unsent.bytes > 0));
    assert!(
        recorder.record(&mut vec![Talker::new().open()]).is_err(),
        "a closed recorder takes nothing"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_found_by_any_end_of_its_name_that_is_its_own() -> Result<()> {
    let store = Store::start()?;
    let (recorder, task) = store.recorder(1 << 20)?;
    let first = talk(recorder.clone(), 1, Duration::ZERO).await;
    let second = talk(recorder.clone(), 1, Duration::ZERO).await;
    task.close(SOON).await?;
    let mut reader = store.reader()?;
    assert_eq!(reader.resolve("last")?, second);
    assert_eq!(reader.resolve(&first)?, first);
    assert_eq!(reader.resolve(&first[24..])?, first);
    let both = reader.resolve(&first[..6]).unwrap_err().to_string();
    assert!(both.contains(&first) && both.contains(&second), "{both}");
    assert!(reader.resolve("0000").is_err());
    assert!(reader.resolve("*").is_err());
    Ok(())
}

/// What an event costs whom, at 20 000 exchanges a second: run by hand, with
/// `--ignored --nocapture` and optimisation.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a promise"]
async fn what_an_event_costs() -> Result<()> {
    const ROUNDS: u32 = 5_000;
    const EXCHANGES: u32 = 20;
    let store = Store::start()?;
    let (recorder, task) = store.recorder(2 << 30)?;
    let mut talkers: Vec<Talker> = (0..EXCHANGES).map(|_| Talker::new()).collect();
    let server = store.server.as_ref().context("no server")?.pid();
    let redis = format!("/proc/{server}/stat");
    let writer = std::fs::read_dir("/proc/self/task")?
        .filter_map(|task| Some(task.ok()?.path().join("stat")))
        .find(|stat| std::fs::read_to_string(stat).is_ok_and(|stat| stat.contains("(recorder)")))
        .context("no writer")?;
    let cpu = |stat: &std::path::Path| -> f64 {
        let stat = std::fs::read_to_string(stat).unwrap_or_default();
        let ticks = stat.rsplit(')').next().unwrap_or_default();
        let ticks = ticks.split_whitespace().skip(11).take(2);
        ticks
            .filter_map(|tick| tick.parse::<f64>().ok())
            .sum::<f64>()
            / 100.0
    };
    let before = (cpu(redis.as_ref()), cpu(&writer));
    let start = Instant::now();
    let mut recording = Vec::new();
    let mut batch = Vec::new();
    for round in 0..ROUNDS {
        for talker in &mut talkers {
            batch.push(talker.command().with_meta(META.to_owned()));
            let result = talker.event(Kind::Result, "SELECT 1 · 1 rows · 0.100 ms");
            batch.push(result.with_data(vec![b'x'; 120]));
            let at = Instant::now();
            recorder.record(&mut batch)?;
            recording.push(at.elapsed().as_nanos());
        }
        let due = start + Duration::from_millis(1) * (round + 1);
        tokio::time::sleep_until(due.into()).await;
    }
    let made = start.elapsed();
    let waiting = recorder.status().queued_bytes;
    eventually("everything to be in Redis", SOON * 4, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    let events = f64::from(ROUNDS * EXCHANGES * 2);
    let after = (cpu(redis.as_ref()), cpu(&writer));
    recording.sort_unstable();
    println!(
        "record(), two events: median {} ns, 99 % {} ns; {:.0} events/s made, {waiting} bytes behind; CPU an event: Redis {:.2} µs, writer {:.2} µs; {} batches",
        recording[recording.len() / 2],
        recording[recording.len() * 99 / 100],
        events / made.as_secs_f64(),
        (after.0 - before.0) * 1e6 / events,
        (after.1 - before.1) * 1e6 / events,
        recorder.status().batches,
    );
    task.close(SOON).await?;
    Ok(())
}

const META: &str = r#"{"message":"Q","verdict":"allow","tags":["SELECT"],"classes":["read"],"tables":["public.accounts"],"rules":[]}"#;
