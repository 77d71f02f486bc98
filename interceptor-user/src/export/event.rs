//! One event, as every destination knows it.

use base64::Engine as _;
use interceptor_engine::event::opened_ms;
use interceptor_engine::replay::Entry;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Whose session it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whose {
    /// The agent.
    pub agent: String,
    /// The target; empty where none is configured.
    pub target: String,
    /// The host.
    pub host: String,
    /// What it speaks.
    pub protocol: String,
}

/// An event, and whose it is.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The session's id.
    pub session: String,
    /// Whose it is.
    pub whose: Whose,
    /// Microseconds since 1970.
    pub time_us: u64,
    /// The event.
    pub entry: Entry,
    /// How many bytes of data there were, where there were more than are brought.
    pub cut_from: Option<usize>,
}

/// How bad, in the words of alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It happened.
    Info,
    /// Something was refused, hidden, held or failed.
    Notice,
    /// Something that the rules call grave.
    Warning,
    /// Something is missing on record.
    Error,
}

impl Exported {
    /// An event with at most so many bytes of data.
    #[must_use]
    pub fn new(session: &str, whose: &Whose, mut entry: Entry, data_limit: usize) -> Self {
        let opened_us = opened_ms(session.parse().unwrap_or_default()).saturating_mul(1000);
        let cut_from = (entry.data.len() > data_limit).then_some(entry.data.len());
        if cut_from.is_some() {
            entry.data.truncate(data_limit);
        }
        Self {
            session: session.to_owned(),
            whose: whose.clone(),
            time_us: opened_us.saturating_add(entry.at.0),
            entry,
            cut_from,
        }
    }

    /// By what a receiver knows it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.session, self.entry.seq)
    }

    /// When (RFC 3339).
    #[must_use]
    pub fn time(&self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.time_us) * 1000)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_default()
    }

    /// How bad.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.entry.kind.as_str() {
            "gap" => Level::Error,
            "verdict" => match self.entry.meta_text("severity") {
                Some("high" | "critical") => Level::Warning,
                _ => Level::Notice,
            },
            "mask" | "hold" | "approval" | "limit" | "error" => Level::Notice,
            _ => Level::Info,
        }
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.entry.data.len() + self.entry.line.len() + 1024
    }

    /// As one object.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| {
            if !matches!(&value, Value::Null) && value.as_str() != Some("") {
                out.insert(name.to_owned(), value);
            }
        };
        let entry = &self.entry;
        put("id", self.id().into());
        put("time", self.time().into());
        put("session", self.session.as_str().into());
        put("seq", entry.seq.into());
        put("kind", entry.kind.as_str().into());
        put("agent", self.whose.agent.as_str().into());
        put("target", self.whose.target.as_str().into());
        put("host", self.whose.host.as_str().into());
        put("protocol", self.whose.protocol.as_str().into());
        put("run", entry.run.as_str().into());
        put("exchange", entry.exchange.map_or(Value::Null, Into::into));
        put("line", entry.line.as_str().into());
        put("meta", entry.meta.clone());
        if !entry.data.is_empty() {
            match std::str::from_utf8(&entry.data) {
                Ok(text) => put("data", text.into()),
                Err(_) => put("data_base64", self.data_base64().into()),
            }
        }
        put(
            "data_bytes",
            self.cut_from.map_or(Value::Null, |bytes| json!(bytes)),
        );
        put("chain", entry.chain.as_str().into());
        Value::Object(out)
    }

    /// Its data in base64.
    #[must_use]
    pub fn data_base64(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.entry.data)
    }
}
