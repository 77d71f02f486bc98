//! A replay for a program: one JSON object a line, one for each event.
//!
//! Bytes that are text stand as `data`, others as `data_base64`. Results are
//! decoded: `columns` where the event describes them, `rows` as lists of text, null,
//! or `{"base64": …}` for what is not text; `copied` for the lines of a `COPY`.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Entry;
use super::escape::is_obeyed;
use super::pg::value::{Shown, show};
use super::pg::{Column, Frame, Frames};

/// Results that are decoded at the same time; exchanges are answered in order.
const OPEN_LIMIT: usize = 64;

/// Writes events as JSON.
#[derive(Debug, Default)]
pub struct Json {
    open: HashMap<Option<u64>, (Frames, Vec<Column>)>,
}

impl Json {
    /// Writes `entry`; ends with a line end.
    pub fn render(&mut self, session: &str, entry: &Entry) -> String {
        let mut out = Map::new();
        out.insert("session".into(), session.into());
        out.insert("seq".into(), entry.seq.into());
        out.insert("at_us".into(), entry.at.0.into());
        out.insert("kind".into(), entry.kind.as_str().into());
        if let Some(exchange) = entry.exchange {
            out.insert("exchange".into(), exchange.into());
        }
        for (name, value) in [
            ("run", &entry.run),
            ("line", &entry.line),
            ("chain", &entry.chain),
        ] {
            if !value.is_empty() {
                out.insert(name.into(), value.as_str().into());
            }
        }
        if !entry.meta.is_null() {
            out.insert("meta".into(), entry.meta.clone());
        }
        if entry.is_unmasked {
            out.insert("unmasked".into(), true.into());
        } else if !entry.sealed.is_empty() {
            out.insert("sealed_bytes".into(), entry.sealed.len().into());
        }
        if !entry.data.is_empty() {
            // An answer of HTTP is a result, too, with its body.
            if entry.kind == "result" && entry.meta.get("status").is_none() {
                self.result(entry, &mut out);
            } else {
                bytes(&entry.data, &mut out);
            }
        }
        if entry.kind == "result" && entry.meta.get("tag").is_some() {
            self.open.remove(&entry.exchange);
        }
        let mut text = quiet(&Value::Object(out).to_string());
        text.push('\n');
        text
    }

    fn result(&mut self, entry: &Entry, out: &mut Map<String, Value>) {
        if self.open.len() >= OPEN_LIMIT
            && !self.open.contains_key(&entry.exchange)
            && let Some(oldest) = self.open.keys().min().copied()
        {
            self.open.remove(&oldest);
        }
        let (frames, columns) = self.open.entry(entry.exchange).or_default();
        let mut rows = Vec::new();
        let mut copied = Vec::new();
        let mut described = false;
        let mut unread = 0_u64;
        frames.push(&entry.data, |frame| match frame {
            Frame::Columns(new) => {
                *columns = new;
                described = true;
            }
            Frame::Row(values) => {
                let unknown = Column::default();
                let cells = values.iter().enumerate().map(|(index, value)| {
                    let column = columns.get(index).unwrap_or(&unknown);
                    value.map_or(Value::Null, |value| cell(column, value))
                });
                rows.push(Value::Array(cells.collect()));
            }
            Frame::Copy(line) => copied.push(match std::str::from_utf8(line) {
                Ok(text) => text.into(),
                Err(_) => json!({ "base64": STANDARD.encode(line) }),
            }),
            Frame::Oversized(_) | Frame::Other => unread += 1,
        });
        if described {
            let columns = columns
                .iter()
                .map(|column| json!({ "name": column.name, "type_oid": column.type_oid }));
            out.insert("columns".into(), Value::Array(columns.collect()));
        }
        for (name, values) in [("rows", rows), ("copied", copied)] {
            if !values.is_empty() {
                out.insert(name.into(), Value::Array(values));
            }
        }
        if unread > 0 {
            out.insert("frames_not_shown".into(), unread.into());
        }
    }
}

fn cell(column: &Column, value: &[u8]) -> Value {
    match show(column, value) {
        Shown::Text(text) => text.into(),
        Shown::Bytes(bytes) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

fn bytes(data: &[u8], out: &mut Map<String, Value>) {
    match std::str::from_utf8(data) {
        Ok(text) => out.insert("data".into(), text.into()),
        Err(_) => out.insert("data_base64".into(), STANDARD.encode(data).into()),
    };
}

/// JSON that a terminal shows and does not obey. What it would obey can only stand
/// inside of texts, where JSON has an escape for every character.
#[must_use]
pub fn quiet(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for char in json.chars() {
        if is_obeyed(char) {
            for unit in char.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(char);
        }
    }
    out
}
