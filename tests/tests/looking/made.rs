//! Sessions made up for a test, in a real Redis, as a recorder would have written them.

use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use interceptor_engine::chain::{Fields, Hasher, Head};
use interceptor_tests::daemon::{Daemon, program};
use interceptor_tests::place::Place;
use interceptor_tests::redis::Redis;
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const DAY: u64 = 86_400_000;

/// A Redis, and a configuration that reads from it.
pub(crate) struct Store {
    redis: Redis,
    config: std::path::PathBuf,
    place: Place,
    connection: Mutex<redis::Connection>,
}

impl Store {
    pub(crate) fn start() -> Result<Self> {
        let place = Place::new()?;
        let redis = Redis::start(&place)?;
        Self::of(redis, place)
    }

    /// One whose Redis has the query engine.
    pub(crate) fn with_query_engine() -> Result<Self> {
        let place = Place::new()?;
        let redis = Redis::with_query_engine(&place)?;
        Self::of(redis, place)
    }

    /// A daemon that records there.
    pub(crate) fn daemon(&self, config: &Value) -> Result<Daemon> {
        Daemon::start(
            &self.place,
            &self.redis.url(),
            "version: 1\nrules: []\n",
            config,
        )
    }

    fn of(redis: Redis, place: Place) -> Result<Self> {
        let config = json!({
            "runtime_dir": place.subfolder("run")?,
            "state_dir": place.subfolder("state")?,
            "rules": [place.subfolder("rules")?],
            "targets": [],
            "recorder": { "redis": redis.url() },
        });
        let config = place.file("interceptor.yaml", &config.to_string())?;
        let connection = redis::Client::open(redis.url())?.get_connection()?;
        Ok(Self {
            redis,
            config,
            place,
            connection: Mutex::new(connection),
        })
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program()?);
        command.arg("--config").arg(&self.config).args(arguments);
        Ok(command)
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().context("interceptor")
    }

    /// Runs it, and it must succeed; what it wrote.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let done = self.run(arguments)?;
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        Ok(String::from_utf8(done.stdout)?)
    }

    /// The same, of which each line is an object.
    pub(crate) fn objects(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let text = self.ask(arguments)?;
        Ok(text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?)
    }

    /// Starts it, and gathers what it writes.
    pub(crate) fn follow(&self, arguments: &[&str]) -> Result<Following> {
        let mut child = self
            .command(arguments)?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let written = Arc::new(Mutex::new(String::new()));
        let mut stdout = child.stdout.take().context("no output")?;
        let into = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                into.lock().unwrap().push_str(&text);
            }
        });
        Ok(Following { child, written })
    }

    pub(crate) fn asked<T: redis::FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        Ok(command.query(&mut *self.connection.lock().unwrap())?)
    }

    /// How often a command was given to Redis since its statistics were cleared.
    pub(crate) fn calls(&self, command: &str) -> Result<u64> {
        let text: String = self.asked(&["INFO", "commandstats"])?;
        let name = format!("cmdstat_{command}:calls=");
        let calls = text.lines().find_map(|line| line.strip_prefix(&name));
        let calls = calls.and_then(|rest| rest.split(',').next());
        Ok(calls.map_or(Ok(0), str::parse)?)
    }

    pub(crate) fn clear_calls(&self) -> Result<()> {
        self.asked(&["CONFIG", "RESETSTAT"])
    }
}

/// A program that goes on. It is killed when it is dropped.
pub(crate) struct Following {
    pub(crate) child: Child,
    written: Arc<Mutex<String>>,
}

impl Following {
    pub(crate) fn text(&self) -> String {
        self.written.lock().unwrap().clone()
    }

    /// Waits until it has written this.
    pub(crate) fn until(&self, what: &str) -> Result<()> {
        interceptor_tests::eventually(what, interceptor_tests::daemon::SOON, || {
            Ok(self.text().contains(what))
        })
    }
}

impl Following {
    /// Waits until it ends by itself.
    pub(crate) fn ended(&mut self) -> Result<std::process::ExitStatus> {
        let mut status = None;
        interceptor_tests::eventually("its end", interceptor_tests::daemon::SOON, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        status.context("not ended")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A session that is written as it goes.
pub(crate) struct Made<'a> {
    store: &'a Store,
    pub(crate) id: String,
    opened_ms: u64,
    agent: String,
    head: Head,
    hasher: Hasher,
    seq: u64,
    at: u64,
    exchange: u64,
    waiting: redis::Pipeline,
}

pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

impl<'a> Made<'a> {
    /// One that opened so many milliseconds ago.
    pub(crate) fn open(store: &'a Store, ago: u64, agent: &str, more: Value) -> Self {
        let opened_ms = now_ms() - ago;
        let random = Uuid::now_v7().as_u128();
        let id = (u128::from(opened_ms) << 80) | (7 << 76) | (random & ((1 << 74) - 1)) | (2 << 62);
        let mut meta = json!({
            "agent": agent, "protocol": "postgres", "origin": "127.0.0.1:5432",
            "at_wall": "2026-01-01T00:00:00Z", "at_wall_ms": opened_ms,
            "database": "postgres", "user": "agent", "principal": {"uid": 1000},
        });
        for (name, value) in more.as_object().unwrap() {
            meta[name] = value.clone();
        }
        let mut made = Self {
            store,
            id: Uuid::from_u128(id).to_string(),
            opened_ms,
            agent: agent.to_owned(),
            head: Head::START,
            hasher: Hasher::default(),
            seq: 0,
            at: 0,
            exchange: 0,
            waiting: redis::pipe(),
        };
        made.told("open", &meta, opened_ms);
        made.event("open", None, "opened", b"", &meta);
        // Before others are told of, since a stream only grows.
        made.write().expect("a Redis");
        made
    }

    fn told(&mut self, event: &str, meta: &Value, ms: u64) {
        let mut add = redis::cmd("XADD");
        add.arg("interceptor:sessions").arg(format!("{ms}-*"));
        add.arg("event").arg(event).arg("session").arg(&self.id);
        for (name, value) in meta.as_object().unwrap() {
            let text = value.as_str().map_or(value.to_string(), str::to_owned);
            add.arg(name).arg(text);
        }
        self.waiting.add_command(add);
    }

    pub(crate) fn event(
        &mut self,
        kind: &str,
        exchange: Option<u64>,
        line: &str,
        data: &[u8],
        meta: &Value,
    ) -> &mut Self {
        let (seq, at) = (self.seq.to_string(), self.at.to_string());
        let exchange = exchange
            .map(|number| number.to_string())
            .unwrap_or_default();
        let meta = meta.to_string();
        let fields = Fields {
            session: self.id.as_bytes(),
            seq: seq.as_bytes(),
            at: at.as_bytes(),
            kind: kind.as_bytes(),
            exchange: exchange.as_bytes(),
            line: line.as_bytes(),
            data,
            meta: meta.as_bytes(),
            ..Fields::default()
        };
        self.head = self.hasher.next(self.head, &fields);
        let id = format!("{}-{}", self.opened_ms + self.at / 1000, self.seq + 1);
        let mut add = redis::cmd("XADD");
        add.arg(format!("interceptor:session:{{{}}}", self.id))
            .arg(id);
        for (name, value) in [
            ("seq", seq.as_bytes()),
            ("at", at.as_bytes()),
            ("kind", kind.as_bytes()),
            ("exchange", exchange.as_bytes()),
            ("line", line.as_bytes()),
            ("data", data),
            ("meta", meta.as_bytes()),
            ("chain", &self.head.to_hex()),
        ] {
            if !value.is_empty() {
                add.arg(name).arg(value);
            }
        }
        self.waiting.add_command(add);
        let mut live = redis::cmd("XADD");
        live.arg("interceptor:live")
            .arg("*")
            .arg("session")
            .arg(&self.id);
        live.arg("seq").arg(&seq).arg("kind").arg(kind);
        live.arg("agent").arg(&self.agent).arg("line").arg(line);
        self.waiting.add_command(live);
        self.seq += 1;
        self.at += 1000;
        self
    }

    /// A statement that passed, and its rows.
    pub(crate) fn statement(&mut self, sql: &str, rows: &[&str]) -> &mut Self {
        self.exchange += 1;
        let exchange = Some(self.exchange);
        let asked = json!({"message": "Q", "verdict": "allow", "rules": []});
        self.event("command", exchange, sql, sql.as_bytes(), &asked);
        let mut data = frame(b'T', &column("value"));
        for row in rows {
            let mut body = vec![0, 1];
            body.extend_from_slice(&u32::try_from(row.len()).unwrap().to_be_bytes());
            body.extend_from_slice(row.as_bytes());
            data.extend(frame(b'D', &body));
        }
        let tag = format!("SELECT {}", rows.len());
        let meta = json!({"tag": tag, "rows": rows.len(), "bytes": 0, "duration_us": 1});
        self.event("result", exchange, &tag, &data, &meta)
    }

    /// Time passes.
    pub(crate) fn later(&mut self, ms: u64) -> &mut Self {
        self.at += ms * 1000;
        self
    }

    /// Ends it; `worst` as its close says.
    pub(crate) fn close(&mut self, worst: &str) -> Result<String> {
        let meta =
            json!({"reason": "done", "seconds": 1, "exchanges": self.exchange, "worst": worst});
        let (agent, ms) = (self.agent.clone(), self.opened_ms + self.at / 1000);
        let mut told = meta.clone();
        told["agent"] = agent.into();
        self.event("close", None, "closed", b"", &meta);
        self.told("close", &told, ms);
        self.write()
    }

    /// What was made so far is in Redis.
    pub(crate) fn write(&mut self) -> Result<String> {
        let pipeline = std::mem::replace(&mut self.waiting, redis::pipe());
        pipeline.exec(&mut *self.store.connection.lock().unwrap())?;
        Ok(self.id.clone())
    }
}

fn column(name: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(&[0; 7]);
    body.extend_from_slice(&25_u32.to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    body
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}
