//! What landed in Redis, read as any other program would.

use std::collections::BTreeMap;

use ::redis::{Commands as _, Connection, Value};
use anyhow::{Context as _, Result, bail};
use interceptor_engine::packed;

use crate::eventually;
use crate::redis::Redis;

/// Entries of a stream, each with its fields.
pub type Fields = BTreeMap<String, Vec<u8>>;

/// A connection to look with.
pub struct Records {
    connection: Connection,
}

/// An event as it stands in a session's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its number.
    pub seq: u64,
    /// Microseconds since the session opened.
    pub at: u64,
    /// The word for what it tells.
    pub kind: String,
    /// The exchange, where it belongs to one.
    pub exchange: Option<u64>,
    /// The line for a person.
    pub line: String,
    /// The bytes.
    pub data: Vec<u8>,
    /// What the parser saw.
    pub meta: serde_json::Value,
    /// The hash.
    pub chain: String,
}

impl Records {
    /// Looks into `redis`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn of(redis: &Redis) -> Result<Self> {
        let client = ::redis::Client::open(redis.url())?;
        Ok(Self {
            connection: client.get_connection().context("connecting to Redis")?,
        })
    }

    /// A whole stream, oldest first; empty where there is none. `data` that is compressed
    /// stands there as it was, without `coding`.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn stream(&mut self, key: &str) -> Result<Vec<Fields>> {
        let entries: Vec<(String, BTreeMap<String, Vec<u8>>)> = ::redis::cmd("XRANGE")
            .arg(key)
            .arg("-")
            .arg("+")
            .query(&mut self.connection)?;
        let fields = entries.into_iter().map(|(_, fields)| unpacked(fields));
        fields.collect()
    }

    /// The ids of all sessions, oldest first.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn sessions(&mut self) -> Result<Vec<String>> {
        let keys: Vec<String> = self.connection.keys("interceptor:session:*")?;
        let mut ids: Vec<String> = keys
            .iter()
            .filter_map(|key| {
                let id = key.strip_prefix("interceptor:session:")?;
                Some(id.trim_matches(|c| c == '{' || c == '}').to_owned())
            })
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// A session's events, in the order of the stream.
    ///
    /// # Errors
    /// When Redis does not answer, or an entry is not as the format says.
    pub fn events(&mut self, session: &str) -> Result<Vec<Recorded>> {
        self.stream(&format!("interceptor:session:{{{session}}}"))?
            .into_iter()
            .map(recorded)
            .collect()
    }

    /// The sessions of an agent that are over, oldest first, each with its
    /// events. Waits until there are `count`.
    ///
    /// # Errors
    /// When there are not, in time.
    pub fn closed_sessions_of(
        &mut self,
        agent: &str,
        count: usize,
    ) -> Result<Vec<(String, Vec<Recorded>)>> {
        let mut found = Vec::new();
        eventually(
            &format!("{count} recorded sessions of {agent}"),
            crate::daemon::SOON,
            || {
                found.clear();
                for id in self.sessions()? {
                    let events = self.events(&id)?;
                    let opened_by_it = events.first().is_some_and(|event| {
                        event.meta.to_string().contains(&format!("\"{agent}\""))
                    });
                    let closed = events.last().is_some_and(|event| event.kind == "close");
                    if opened_by_it && closed {
                        found.push((id, events));
                    }
                }
                Ok(found.len() >= count)
            },
        )?;
        Ok(found)
    }

    /// The one session of an agent, once it is over.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn only_session_of(&mut self, agent: &str) -> Result<(String, Vec<Recorded>)> {
        let mut sessions = self.closed_sessions_of(agent, 1)?;
        match (sessions.pop(), sessions.len()) {
            (Some(session), 0) => Ok(session),
            (_, more) => bail!("{} sessions of {agent}, and one was expected", more + 1),
        }
    }

    /// The keys under which `needle` stands anywhere: names, fields and values.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn keys_that_hold(&mut self, needle: &[u8]) -> Result<Vec<String>> {
        let mut holding = Vec::new();
        for (key, value) in self.all()? {
            if holds(&value, needle) || contains(key.as_bytes(), needle) {
                holding.push(key);
            }
        }
        Ok(holding)
    }

    /// Everything that stands in it, one after another, as text.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn everything(&mut self) -> Result<String> {
        let mut text = String::new();
        for (key, value) in self.all()? {
            text.push_str(&key);
            append(&value, &mut text);
        }
        Ok(text)
    }

    fn all(&mut self) -> Result<Vec<(String, Value)>> {
        let keys: Vec<String> = self.connection.keys("*")?;
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            let kind: String = ::redis::cmd("TYPE").arg(&key).query(&mut self.connection)?;
            let read = match kind.as_str() {
                "stream" => ["XRANGE", "-", "+"].as_slice(),
                "hash" => ["HGETALL"].as_slice(),
                "string" => ["GET"].as_slice(),
                "list" => ["LRANGE", "0", "-1"].as_slice(),
                "set" => ["SMEMBERS"].as_slice(),
                "zset" => ["ZRANGE", "0", "-1"].as_slice(),
                other => bail!("{key} is of type {other}, which this does not read"),
            };
            let mut command = ::redis::Cmd::new();
            for (place, word) in read.iter().enumerate() {
                command.arg(word);
                if place == 0 {
                    command.arg(&key);
                }
            }
            let mut value: Value = command.query(&mut self.connection)?;
            if kind == "stream" {
                unpack(&mut value)?;
            }
            all.push((key, value));
        }
        Ok(all)
    }
}

fn unpacked(mut fields: Fields) -> Result<Fields> {
    if let Some(coding) = fields.remove("coding") {
        anyhow::ensure!(coding == packed::CODING, "an unknown coding");
        let data = fields.get_mut("data").context("a coding without data")?;
        *data = packed::unpack(data).context("data that is not packed")?;
    }
    Ok(fields)
}

/// Puts what was compressed in the place of what it is compressed to, so that who looks for
/// something finds it.
fn unpack(value: &mut Value) -> Result<()> {
    let Value::Array(values) = value else {
        return Ok(());
    };
    let word =
        |value: &Value, word: &[u8]| matches!(value, Value::BulkString(bytes) if bytes == word);
    let is_packed = values.windows(2).any(|pair| {
        matches!(pair, [name, value] if word(name, b"coding") && word(value, packed::CODING))
    });
    if is_packed {
        let at = values.iter().position(|value| word(value, b"data"));
        let data = at.and_then(|at| values.get_mut(at + 1));
        let Some(Value::BulkString(data)) = data else {
            bail!("a coding without data");
        };
        *data = packed::unpack(data).context("data that is not packed")?;
    }
    values.iter_mut().try_for_each(unpack)
}

fn append(value: &Value, text: &mut String) {
    match value {
        Value::BulkString(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
        Value::SimpleString(simple) => text.push_str(simple),
        Value::Array(values) | Value::Set(values) => {
            values.iter().for_each(|value| append(value, text));
        }
        Value::Map(pairs) => {
            for (key, value) in pairs {
                append(key, text);
                append(value, text);
            }
        }
        _ => {}
    }
    text.push('\n');
}

fn recorded(mut fields: Fields) -> Result<Recorded> {
    let mut text = |name: &str| -> Result<String> {
        let bytes = fields.remove(name).unwrap_or_default();
        String::from_utf8(bytes)
            .with_context(|| format!("the field {name} of an event is not text"))
    };
    let number = |name: &str, value: &str| -> Result<u64> {
        value
            .parse()
            .with_context(|| format!("the field {name} of an event is {value:?}"))
    };
    let exchange = text("exchange")?;
    let meta = text("meta")?;
    Ok(Recorded {
        seq: number("seq", &text("seq")?)?,
        at: number("at", &text("at")?)?,
        kind: text("kind")?,
        exchange: match exchange.as_str() {
            "" => None,
            some => Some(number("exchange", some)?),
        },
        line: text("line")?,
        meta: match meta.as_str() {
            "" => serde_json::Value::Null,
            some => serde_json::from_str(some).context("the field meta of an event is not JSON")?,
        },
        chain: text("chain")?,
        data: fields.remove("data").unwrap_or_default(),
    })
}

/// Whether `needle` stands in any text of an answer.
fn holds(value: &Value, needle: &[u8]) -> bool {
    match value {
        Value::BulkString(bytes) => contains(bytes, needle),
        Value::SimpleString(text) => contains(text.as_bytes(), needle),
        Value::Array(values) | Value::Set(values) => {
            values.iter().any(|value| holds(value, needle))
        }
        Value::Map(pairs) => pairs
            .iter()
            .any(|(key, value)| holds(key, needle) || holds(value, needle)),
        _ => false,
    }
}

/// Whether `needle` stands in `hay`.
#[must_use]
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len().max(1))
        .any(|window| window == needle)
}
