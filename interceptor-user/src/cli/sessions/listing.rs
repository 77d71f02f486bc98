//! Sessions out of the stream that tells of their opening and their close, newest first.

use std::collections::HashMap;

use interceptor_engine::event::opened_ms;
use interceptor_engine::replay::json::quiet;
use serde_json::{Map, Value};

use super::super::moment::{Moment, Window};
use crate::recorder::read::{self, ReadError, Reader, StreamEntry};

/// Entries that are read at a time.
const PAGE: usize = 500;

/// By how many milliseconds the clocks of Redis and of the hosts may differ.
const SKEW: u64 = 600_000;

/// Entries before the window that are looked at for sessions that reach into it.
const BEFORE_WINDOW: usize = 20_000;

/// A session: its opening, and its close where it has one.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Session {
    pub(in crate::cli) open: Option<StreamEntry>,
    pub(in crate::cli) close: Option<StreamEntry>,
}

impl Session {
    /// A fact of the close, or of the opening.
    pub(in crate::cli) fn text(&self, name: &str) -> String {
        [&self.close, &self.open]
            .into_iter()
            .flatten()
            .map(|entry| entry.text(name))
            .find(|text| !text.is_empty())
            .unwrap_or_default()
    }

    /// Its id.
    pub(in crate::cli) fn id(&self) -> String {
        self.text("session")
    }

    /// When it opened, as its id says.
    pub(in crate::cli) fn opened(&self) -> Moment {
        opened_at(&self.id())
    }

    /// When its close was recorded.
    fn closed(&self) -> Option<Moment> {
        self.close.as_ref().map(|close| Moment(millis(&close.id)))
    }

    /// The target's name, or where it went.
    pub(in crate::cli) fn target(&self) -> String {
        match self.text("target") {
            target if target.is_empty() => self.text("origin"),
            target => target,
        }
    }

    /// The worst verdict; empty while it is open.
    pub(in crate::cli) fn worst(&self) -> String {
        match &self.close {
            None => String::new(),
            Some(_) => match self.text("worst") {
                worst if worst.is_empty() => self.text("verdict"),
                worst => worst,
            },
        }
    }

    /// All facts in one object; the opening's under their names, the close's beside.
    pub(in crate::cli) fn json(&self) -> Value {
        let mut out = Map::new();
        for entry in [&self.open, &self.close].into_iter().flatten() {
            for (name, value) in &entry.fields {
                if name == "event" || name == "line" {
                    continue;
                }
                let text = String::from_utf8_lossy(value);
                // Objects and numbers of the original come back as such.
                let value = serde_json::from_str::<Value>(&text)
                    .ok()
                    .filter(|value| !value.is_string())
                    .unwrap_or_else(|| text.into_owned().into());
                out.insert(name.clone(), value);
            }
        }
        out.insert("closed".into(), self.close.is_some().into());
        Value::Object(out)
    }

    /// The same as a line.
    pub(super) fn json_line(&self) -> String {
        quiet(&self.json().to_string())
    }
}

/// Which sessions; of what is said several times, any fits.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct Sought {
    /// Only of this agent
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(in crate::cli) agent: Vec<String>,
    /// Only to this target: its name, or address and port
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(in crate::cli) target: Vec<String>,
}

impl Sought {
    /// Whether a session is of that agent and target.
    pub(in crate::cli) fn fits(&self, session: &Session) -> bool {
        any(&self.agent, &session.text("agent"))
            && (any(&self.target, &session.text("target"))
                || any(&self.target, &session.text("origin")))
    }

    /// What is sought, in words.
    pub(in crate::cli) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (name, values) in [("agent", &self.agent), ("target", &self.target)] {
            if !values.is_empty() {
                words.push(format!("{name} {}", values.join(" or ")));
            }
        }
        words
    }
}

/// Whether it is one of these, or none is asked for.
pub(super) fn any(wanted: &[String], found: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|one| one == found)
}

/// The sessions of a time, newest first, a page in memory at a time.
#[derive(Debug)]
pub(in crate::cli) struct Listing {
    window: Window,
    /// Whether sessions that opened before the window and reach into it belong to it.
    reaching: bool,
    page: std::vec::IntoIter<StreamEntry>,
    before: Option<String>,
    /// Of sessions whose opening is still to come.
    closes: HashMap<String, StreamEntry>,
    passed: usize,
    over: bool,
}

impl Listing {
    /// Those that opened in the window.
    pub(in crate::cli) fn opened_in(window: Window) -> Self {
        Self {
            window,
            reaching: false,
            page: Vec::new().into_iter(),
            before: None,
            closes: HashMap::new(),
            passed: 0,
            over: false,
        }
    }

    /// Those that were under way in the window.
    pub(in crate::cli) fn under_way_in(window: Window) -> Self {
        Self {
            reaching: true,
            ..Self::opened_in(window)
        }
    }

    /// The next one.
    pub(in crate::cli) fn next(
        &mut self,
        reader: &mut Reader,
    ) -> Result<Option<Session>, ReadError> {
        loop {
            let Some(entry) = self.entry(reader)? else {
                return Ok(self.rest());
            };
            // Newest first, so a close is met before its opening.
            let id = entry.text("session");
            match entry.text("event").as_str() {
                "open" => {}
                "close" => {
                    self.closes.insert(id, entry);
                    continue;
                }
                // What became of a recording later is not what happened in the session.
                _ => continue,
            }
            let session = Session {
                close: self.closes.remove(&id),
                open: Some(entry),
            };
            let ended = if self.reaching {
                session.closed()
            } else {
                Some(session.opened())
            };
            if self.window.touches(session.opened(), ended) {
                return Ok(Some(session));
            }
        }
    }

    fn entry(&mut self, reader: &mut Reader) -> Result<Option<StreamEntry>, ReadError> {
        if self.over {
            return Ok(None);
        }
        if self.page.len() == 0 {
            let key = reader.key("sessions");
            let page = reader.before(&key, self.before.as_deref(), PAGE)?;
            self.before = page.last().map(|oldest| oldest.id.clone());
            self.page = page.into_iter();
        }
        let entry = self.page.next();
        if let (Some(entry), Some(since)) = (&entry, self.window.since)
            && millis(&entry.id).saturating_add(SKEW) < since.0
        {
            self.passed += 1;
            self.over = !self.reaching || self.passed > BEFORE_WINDOW;
        }
        if self.over {
            return Ok(None);
        }
        self.over = entry.is_none();
        Ok(entry)
    }

    /// One whose opening is too far back to be looked for, or is not there any more.
    fn rest(&mut self) -> Option<Session> {
        if !self.reaching {
            return None;
        }
        while let Some(id) = self.closes.keys().next().cloned() {
            let session = Session {
                open: None,
                close: self.closes.remove(&id),
            };
            if self.window.touches(session.opened(), session.closed()) {
                return Some(session);
            }
        }
        None
    }
}

/// When a session opened, as its id says.
pub(super) fn opened_at(id: &str) -> Moment {
    Moment(opened_ms(id.parse().unwrap_or_default()))
}

/// The milliseconds of an entry's ID.
pub(super) fn millis(id: &str) -> u64 {
    read::number(id).0
}
