//! Answers, compared.

use serde_json::Value;

use super::{Answer, Asked, Response, Rows};
use crate::replay::entry::is_hidden;
use crate::replay::pg::Column;
use crate::replay::pg::value::{Shown, show};

/// Values that differ and are told of; more are counted.
const TOLD: usize = 5;

/// Fields of an answer that are compared.
const HEADERS: [&str; 3] = ["content-type", "location", "allow"];

/// Characters of a value that are told.
const VALUE: usize = 60;

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// What.
    pub what: String,
    /// As it is on record.
    pub then: String,
    /// As it is now.
    pub now: String,
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Compared {
    /// What differs; of values, the first few.
    pub differences: Vec<Difference>,
    /// Values that differ and are not told of one by one.
    pub more: u64,
    /// Values that are hidden on record, and were not compared.
    pub masked: u64,
    /// What else was not compared, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<&'static str>,
}

impl Compared {
    fn told(&mut self, what: &str, then: impl ToString, now: impl ToString) {
        self.differences.push(Difference {
            what: what.to_owned(),
            then: short(&then.to_string()),
            now: short(&now.to_string()),
        });
    }

    /// Values that differ, of which so many may be what a mask put in their place.
    fn values(&mut self, differing: Vec<Difference>, masked: u64) {
        // What was hidden may stand as anything, so no more can be said of these.
        let hidden = usize::try_from(masked).unwrap_or(usize::MAX);
        if differing.len() <= hidden {
            self.masked += differing.len() as u64;
            return;
        }
        let more = differing.len().saturating_sub(TOLD);
        self.more += more as u64;
        self.differences.extend(differing.into_iter().take(TOLD));
    }
}

/// Compares what was answered with what is answered now.
#[must_use]
pub fn compare(asked: &Asked, now: &Answer) -> Compared {
    let mut compared = Compared::default();
    match (&asked.answer, now) {
        (Answer::Rows(then), Answer::Rows(now)) => rows(&mut compared, then, now, asked.masked),
        (Answer::Response(then), Answer::Response(now)) => {
            response(&mut compared, then, now, asked.masked);
        }
        _ => compared.told("kind of answer", "another", "another"),
    }
    compared
}

fn rows(compared: &mut Compared, then: &Rows, now: &Rows, masked: u64) {
    let code = |rows: &Rows| match &rows.error {
        Some((code, message)) => format!("{code} {message}"),
        None => "none".to_owned(),
    };
    let state = |rows: &Rows| rows.error.as_ref().map(|(code, _)| code.clone());
    if state(then) != state(now) {
        compared.told("error", code(then), code(now));
        return;
    }
    if then.error.is_none() && then.tag != now.tag {
        compared.told("tag", &then.tag, &now.tag);
    }
    if then.count != now.count {
        compared.told("rows", then.count, now.count);
    }
    let names = |columns: &[Column]| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        names.join(", ")
    };
    // What a statement was described with may stand with another exchange.
    if !then.columns.is_empty() && names(&then.columns) != names(&now.columns) {
        compared.told("columns", names(&then.columns), names(&now.columns));
        return;
    }
    if then.count > 0 && then.rows.is_empty() && then.copied.is_empty() {
        compared.not_compared.push("the rows are not on record");
        return;
    }
    let mut differing = Vec::new();
    for (number, (old, new)) in then.rows.iter().zip(&now.rows).enumerate() {
        for (place, (old, new)) in old.iter().zip(new).enumerate() {
            let column = now.columns.get(place).cloned().unwrap_or_default();
            if is_same(&column, old.as_deref(), new.as_deref()) {
                continue;
            }
            let (old, new) = (
                value(&column, old.as_deref()),
                value(&column, new.as_deref()),
            );
            if is_hidden(&old) {
                compared.masked += 1;
                continue;
            }
            differing.push(Difference {
                what: format!("row {}, {}", number + 1, column.name),
                then: short(&old),
                now: short(&new),
            });
        }
    }
    let left = masked.saturating_sub(compared.masked);
    compared.values(differing, left);
    if then.copied != now.copied {
        if is_hidden(&String::from_utf8_lossy(&then.copied)) || masked > 0 {
            compared
                .not_compared
                .push("the copied rows have hidden values");
        } else {
            let size = |rows: &Rows| format!("{} bytes", rows.copied.len());
            compared.told("copied rows", size(then), size(now));
        }
    }
    if then.rows.len() as u64 != then.count && then.copied.is_empty() {
        compared.not_compared.push("rows behind the first ones");
    }
}

/// Whether two values are the same: as bytes, or as what they say. The one on record
/// may be in binary format, which was asked for and is not on record; the one of now is
/// text.
fn is_same(column: &Column, then: Option<&[u8]>, now: Option<&[u8]>) -> bool {
    let (Some(then), Some(now)) = (then, now) else {
        return then == now;
    };
    let binary = Column {
        binary: Some(true),
        ..column.clone()
    };
    then == now || matches!(show(&binary, then), Shown::Text(text) if text.as_bytes() == now)
}

fn value(column: &Column, value: Option<&[u8]>) -> String {
    let unknown = Column {
        binary: None,
        ..column.clone()
    };
    match value.map(|value| show(&unknown, value)) {
        None => "NULL".to_owned(),
        Some(Shown::Text(text)) => text,
        Some(Shown::Bytes(bytes)) => format!("\\x{}", hex::encode(bytes)),
    }
}

fn response(compared: &mut Compared, then: &Response, now: &Response, masked: u64) {
    if then.status != now.status {
        compared.told("status", then.status, now.status);
    }
    for name in HEADERS {
        let of = |response: &Response| {
            let mut headers = response.headers.iter();
            let found = headers.find(|(one, _)| one.eq_ignore_ascii_case(name));
            found.map_or(String::new(), |(_, value)| value.clone())
        };
        let (old, new) = (of(then), of(now));
        if is_hidden(&old) {
            compared.masked += 1;
        } else if old != new && !then.headers.is_empty() {
            compared.told(name, old, new);
        }
    }
    let (Some(old), Some(new)) = (&then.body, &now.body) else {
        compared.not_compared.push("the body is not known in full");
        return;
    };
    if old == new {
        return;
    }
    let json = |body: &[u8]| serde_json::from_slice::<Value>(body);
    if let (Ok(old), Ok(new)) = (json(old), json(new)) {
        let mut differing = Vec::new();
        values(&mut String::new(), &old, &new, &mut differing, compared);
        let left = masked.saturating_sub(compared.masked);
        compared.values(differing, left);
    } else if masked > 0 || is_hidden(&String::from_utf8_lossy(old)) {
        compared.not_compared.push("the body has hidden values");
    } else {
        let told = |body: &[u8]| {
            let text = String::from_utf8_lossy(body);
            format!("{} bytes: {}", body.len(), text.trim())
        };
        compared.told("body", told(old), told(new));
    }
}

/// Where two JSON values differ. serde_json bounds their depth.
fn values(
    path: &mut String,
    then: &Value,
    now: &Value,
    differing: &mut Vec<Difference>,
    compared: &mut Compared,
) {
    let length = path.len();
    match (then, now) {
        (Value::Object(old), Value::Object(new)) => {
            let more = new.keys().filter(|name| !old.contains_key(*name));
            for name in old.keys().chain(more) {
                path.push('/');
                path.push_str(name);
                let absent = Value::Null;
                let old = old.get(name).unwrap_or(&absent);
                let new = new.get(name).unwrap_or(&absent);
                values(path, old, new, differing, compared);
                path.truncate(length);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                path.push_str(&format!("/{index}"));
                values(path, old, new, differing, compared);
                path.truncate(length);
            }
        }
        (Value::String(text), _) if is_hidden(text) => compared.masked += 1,
        (then, now) if then == now => {}
        (then, now) => differing.push(Difference {
            what: format!("body at {}", if path.is_empty() { "/" } else { path }),
            then: short(&then.to_string()),
            now: short(&now.to_string()),
        }),
    }
}

fn short(text: &str) -> String {
    let mut out: String = text.chars().take(VALUE).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}
