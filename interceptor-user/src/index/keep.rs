//! Closed sessions into the index, in the order of their closes.
//!
//! Of all interceptors that record under one prefix, one at a time does it. How far it came
//! stands in the hash `<prefix>:indexed`, so whoever goes on begins there; what is done twice
//! comes to the same.

use std::sync::Arc;
use std::time::Duration;

use interceptor_engine::replay::Raw;
use interceptor_engine::replay::grams::Grams;
use interceptor_engine::replay::search::Searcher;
use interceptor_policy::verdict::Severity;
use redis::{Value, cmd};
use serde_json::json;
use tracing::warn;

use super::{AT, create, indexed, put, take};
use crate::handover::Life;
use crate::lease;
use crate::recorder::read::{ReadError, Reader};
use crate::recorder::{Alert, Recorder};

/// How long it rests when all is done.
const REST: Duration = Duration::from_secs(2);
/// The same while nothing can be done.
const PAUSE: Duration = Duration::from_secs(60);
/// Entries of `sessions` that are read at a time.
const PAGE: usize = 200;

/// What a daemon needs for it; not to be printed, since the URL may hold a password.
pub struct Keeper {
    /// The Redis.
    pub url: String,
    /// What keys begin with.
    pub prefix: String,
    /// This host.
    pub host: String,
    /// Tells of what cannot be done.
    pub recorder: Recorder,
    /// Whether it is this daemon that does it.
    pub life: Arc<Life>,
}

/// Does it, until the daemon takes nothing new any more.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(keeper: Keeper) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("search-index".to_owned())
        .spawn(move || keeper.run())
        .map(drop)
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Another interceptor does it.
    Others,
    /// The server has no query engine.
    NoEngine,
    /// All that is closed is in the index.
    Done,
}

impl Keeper {
    fn run(&self) {
        // What was told last, so that it is told once.
        let mut told = String::new();
        let mut reader = None;
        while self.life.is_serving() {
            let trouble = match self.round(&mut reader) {
                Ok(Round::Done | Round::Others) => String::new(),
                Ok(Round::NoEngine) => {
                    "its server has no query engine; `search` reads all sessions".to_owned()
                }
                Err(error) => error.to_string(),
            };
            if !trouble.is_empty() {
                reader = None;
            }
            if told != trouble && !trouble.is_empty() {
                let line = format!("the search index is not kept: {trouble}");
                warn!("{line}");
                self.recorder.alert(Alert {
                    severity: Severity::Low,
                    kind: "index",
                    line,
                    meta: json!({}).to_string(),
                });
            }
            let rest = if trouble.is_empty() { REST } else { PAUSE };
            told = trouble;
            self.rest(rest);
        }
    }

    /// Rests, but not past the daemon's end.
    fn rest(&self, mut rest: Duration) {
        while !rest.is_zero() && self.life.is_serving() {
            let step = rest.min(REST);
            std::thread::sleep(step);
            rest = rest.saturating_sub(step);
        }
    }

    /// `reader` is connected where it is not, and stays so for the next round.
    fn round(&self, reader: &mut Option<Reader>) -> Result<Round, ReadError> {
        let reader = match reader {
            Some(reader) => reader,
            none => none.insert(Reader::open(&self.url, &self.prefix)?),
        };
        if !lease::hold(reader, "indexing", &self.host)? {
            return Ok(Round::Others);
        }
        if !create(reader)? {
            return Ok(Round::NoEngine);
        }
        let sessions = reader.key("sessions");
        let indexed = indexed(reader);
        let mut at = match reader.run(cmd("HGET").arg(&indexed).arg(AT))? {
            Value::BulkString(id) => String::from_utf8_lossy(&id).into_owned(),
            _ => "0-0".to_owned(),
        };
        loop {
            let page = reader.after(&sessions, &at, PAGE)?;
            let Some(last) = page.last() else {
                return Ok(Round::Done);
            };
            let last = last.id.clone();
            for entry in page.iter().filter(|entry| entry.text("event") == "close") {
                index(reader, &entry.text("session"))?;
            }
            reader.run(cmd("HSET").arg(&indexed).arg(AT).arg(&last))?;
            at = last;
            if !self.life.is_serving() || !lease::hold(reader, "indexing", &self.host)? {
                return Ok(Round::Others);
            }
        }
    }
}

/// Reads a session, and writes its grams.
fn index(reader: &mut Reader, session: &str) -> Result<(), ReadError> {
    let Some(grams) = grams(reader, session)? else {
        return Ok(());
    };
    put(reader, session, &grams)?;
    // It may have been removed meanwhile, and its grams are to go with it.
    let recording = reader.session_key(session);
    if !reader.has(&recording)? {
        take(reader, session)?;
    }
    Ok(())
}

/// The grams of a recording that has its end; `None` of another one, which may grow.
fn grams(reader: &mut Reader, session: &str) -> Result<Option<Grams>, ReadError> {
    let mut searcher = Searcher::of_grams();
    let mut is_whole = false;
    let mut pages = reader.session(session);
    while let Some(entry) = pages.next_entry()? {
        let Ok(entry) = Raw::from_fields(entry.fields).read() else {
            continue;
        };
        is_whole = entry.kind == "close";
        searcher.push(entry);
    }
    Ok(is_whole.then(|| searcher.into_grams()))
}
