//! A real Redis, and what is found in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_engine::chain::Check;
use interceptor_engine::replay::{Entry, Raw};
use interceptor_tests::place::{self, Place};
use interceptor_tests::process::{Server, Start};
use interceptor_user::config;
use interceptor_user::recorder::read::{Reader, StreamEntry};
use interceptor_user::recorder::{Host, Recorder, RecorderTask};
use nix::sys::signal::Signal;

/// A Redis that keeps what it acknowledged, and can be killed and started again.
pub(crate) struct Store {
    pub(crate) server: Option<Server>,
    pub(crate) port: u16,
    pub(crate) place: Place,
    /// Of the recorders that are started.
    pub(crate) spool: config::Spool,
    pub(crate) durability: config::Durability,
    /// How it is reached, where not simply by its port.
    pub(crate) address: Option<String>,
}

/// A recorder of a process that shares its spool with others.
pub(crate) fn recorder(
    url: &str,
    state: &Path,
    queue_bytes: usize,
    durability: config::Durability,
) -> Result<(Recorder, RecorderTask)> {
    let spool = config::Spool::default();
    recorder_of("test-host", url, state, queue_bytes, durability, spool)
}

/// The recorder of a host.
pub(crate) fn recorder_of(
    host: &str,
    url: &str,
    state: &Path,
    queue_bytes: usize,
    durability: config::Durability,
    spool: config::Spool,
) -> Result<(Recorder, RecorderTask)> {
    let config = config::Recorder {
        redis: Some(config::RedisAddress::bare(url.to_owned())),
        prefix: "interceptor".to_owned(),
        queue_bytes,
        stall: Duration::from_secs(5),
        live_entries: 1_000_000,
        evidence: config::Evidence::default(),
        retention: config::Retention::default(),
        compress: config::Compress::default(),
        seal_to: None,
        search_index: false,
        durability,
        spool,
    };
    Recorder::start(
        &config,
        &Host {
            name: host.to_owned(),
            version: "0".to_owned(),
            rules: "none".to_owned(),
            state_dir: state.to_owned(),
            runtime_dir: state.join("run"),
            adopted: None,
        },
    )
}

impl Store {
    pub(crate) fn start() -> Result<Self> {
        let mut store = Self::at(None)?;
        store.again()?;
        Ok(store)
    }

    /// One whose servers somebody else keeps.
    pub(crate) fn at(address: Option<String>) -> Result<Self> {
        Ok(Self {
            server: None,
            port: place::free_port()?,
            place: Place::new()?,
            spool: config::Spool::default(),
            durability: config::Durability::default(),
            address,
        })
    }

    pub(crate) fn again(&mut self) -> Result<()> {
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

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.server.as_ref().context("no server")?.signal(signal)
    }

    pub(crate) fn url(&self) -> String {
        match &self.address {
            Some(address) => address.clone(),
            None => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    pub(crate) fn run(&self, words: &[&str]) -> Result<redis::Value> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        Ok(command.query(&mut connection)?)
    }

    pub(crate) fn recorder(&self, queue_bytes: usize) -> Result<(Recorder, RecorderTask)> {
        self.recorder_as(self.url(), queue_bytes)
    }

    pub(crate) fn recorder_as(
        &self,
        url: String,
        queue_bytes: usize,
    ) -> Result<(Recorder, RecorderTask)> {
        recorder_of(
            "test-host",
            &url,
            &self.place.path("state"),
            queue_bytes,
            self.durability,
            self.spool.clone(),
        )
    }

    pub(crate) fn reader(&self) -> Result<Reader> {
        Ok(Reader::open(&self.url(), "interceptor")?)
    }

    pub(crate) fn stream(&self, name: &str) -> Result<Vec<BTreeMap<String, String>>> {
        let mut reader = self.reader()?;
        let key = reader.key(name);
        let entries = reader.after(&key, "0-0", 10_000_000)?;
        Ok(entries.iter().map(texts).collect())
    }

    /// A session's entries, once they were found to be chained and complete.
    pub(crate) fn session(&self, session: &str) -> Result<Vec<Entry>> {
        whole(&mut self.reader()?, session)
    }
}

/// A session's entries, once they were found to be chained and complete.
pub(crate) fn whole(reader: &mut Reader, session: &str) -> Result<Vec<Entry>> {
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

impl Drop for Store {
    fn drop(&mut self) {
        // A stopped process takes no other signal but this.
        let _ = self.signal(Signal::SIGCONT);
    }
}

/// Every session is whole, and each event is once in every stream that it is for.
pub(crate) fn all_there_once(store: &Store, sessions: &[String], commands: u64) -> Result<()> {
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
    let mut listed = store.stream("sessions")?;
    listed.retain(|entry| entry["event"] != "heads");
    assert_eq!(listed.len(), 2 * sessions.len());
    Ok(())
}

pub(crate) fn texts(entry: &StreamEntry) -> BTreeMap<String, String> {
    let fields = entry.fields.iter();
    fields
        .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
        .collect()
}
