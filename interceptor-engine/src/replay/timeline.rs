//! Events to things that a person is shown.
//!
//! What belongs together is put together: a result's parts become one [`Table`],
//! under the columns that its exchange, or its prepared statement, was described
//! with.

use std::collections::HashMap;

use serde_json::Value;

use super::Entry;
use super::body::body;
use super::http;
use super::pg::{Column, Frame, Frames};
use super::ssh;
use super::table::Table;
use crate::event::FlowTime;

/// Exchanges whose result is not at its end; more are forgotten.
const OPEN_LIMIT: usize = 256;

/// Tables of one exchange; rows of more go to the last.
const TABLE_LIMIT: usize = 100;

/// Prepared statements whose columns are remembered.
const STATEMENT_LIMIT: usize = 1024;

/// Something to show.
#[derive(Clone, Debug)]
pub struct Item {
    /// When it happened.
    pub at: FlowTime,
    /// The exchange that it belongs to.
    pub exchange: Option<u64>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// The session began: who, where, how.
    Opened(Vec<(String, String)>),
    /// The agent asked for something.
    Command {
        /// The text, over as many lines as it had.
        text: String,
        /// `allow`, `block`, `kill`, or empty where it is not said.
        verdict: String,
        /// Values of its parameters; `None` is NULL.
        parameters: Vec<Option<String>>,
        /// Which step of the extended protocol this is, where it is not all of it.
        step: Option<&'static str>,
    },
    /// The rules said something other than yes.
    Verdict {
        /// `block`, `kill`, …
        verdict: String,
        /// The rule that decided.
        rule: String,
        /// What the agent was told.
        message: String,
    },
    /// The answer, at its end.
    Result {
        /// The rows; a text of several statements has several tables.
        tables: Vec<Table>,
        /// The body, or the end of it, that stands in the same event; HTTP's.
        body: Option<String>,
        /// The command's tag, such as `UPDATE 3`.
        tag: String,
        /// How long it took, in microseconds.
        duration_us: Option<u64>,
    },
    /// The answer was an error.
    Error {
        /// `ERROR`, `FATAL`, …
        severity: String,
        /// SQLSTATE.
        code: String,
        /// Its message.
        message: String,
        /// Its detail, where it has one.
        detail: String,
        /// Its hint, where it has one.
        hint: String,
    },
    /// Something was hidden in the answer.
    Mask {
        /// Where.
        columns: String,
        /// How often.
        count: Option<u64>,
    },
    /// A part of a body, a mark before each line.
    Body(String),
    /// Anything else, in the recorder's own line.
    Line {
        /// The event's kind.
        kind: String,
        /// The line.
        line: String,
        /// How many bytes stand beside it.
        bytes: usize,
    },
    /// The session ended.
    Closed(Vec<(String, String)>),
}

/// Puts events together, one after another.
#[derive(Debug)]
pub struct Timeline {
    rows: usize,
    open: HashMap<Option<u64>, Open>,
    statements: HashMap<String, Vec<Column>>,
}

/// An exchange whose result is not at its end.
#[derive(Debug, Default)]
struct Open {
    statement: Option<String>,
    frames: Frames,
    tables: Vec<Table>,
}

impl Open {
    /// The table that rows go to now.
    fn table(&mut self) -> &mut Table {
        if self.tables.is_empty() {
            self.tables.push(Table::default());
        }
        let last = self.tables.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "there is one, made just before")]
        &mut self.tables[last]
    }

    fn push(&mut self, frame: &Frame<'_>, rows: usize) {
        let is_next = matches!(frame, Frame::Columns(_))
            && self.tables.len() < TABLE_LIMIT
            && self.tables.last().is_some_and(|table| !table.is_empty());
        if is_next {
            self.tables.push(Table::default());
        }
        self.table().push(frame, rows);
    }
}

impl Timeline {
    /// A timeline whose tables show `rows` rows.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        Self {
            rows,
            open: HashMap::new(),
            statements: HashMap::new(),
        }
    }

    /// Takes the next event; what there is to show now.
    pub fn push(&mut self, entry: &Entry) -> Option<Item> {
        if entry.kind == "error" {
            self.failed(entry.exchange);
        }
        let what = match entry.kind.as_str() {
            "open" => What::Opened(facts(&entry.meta)),
            "close" => What::Closed(facts(&entry.meta)),
            // A line that is cut in the record's own line stands whole beside it.
            "command" if is_ssh(entry) => What::Command {
                text: entry.meta_text("command").unwrap_or(&entry.line).to_owned(),
                verdict: text(entry, "verdict"),
                parameters: Vec::new(),
                step: None,
            },
            // How a command ended, or a file's size and hash: the recorder's line says it.
            "result" if is_ssh(entry) => What::Result {
                tables: Vec::new(),
                body: None,
                tag: entry.line.clone(),
                duration_us: None,
            },
            "command" if http::is_http(entry) => What::Command {
                text: http::head(entry),
                verdict: text(entry, "verdict"),
                parameters: Vec::new(),
                step: None,
            },
            "result" if http::is_http(entry) => What::Result {
                tables: Vec::new(),
                body: (!entry.data.is_empty()).then(|| body(entry)),
                tag: http::result(entry),
                duration_us: entry.meta_number("duration_us"),
            },
            "input" | "output"
                if (http::is_http(entry) || is_plain_stream(entry)) && !entry.data.is_empty() =>
            {
                What::Body(body(entry))
            }
            // A line of a terminal's in which nothing stands.
            "output" if is_plain_stream(entry) => return None,
            "command" => self.command(entry),
            "verdict" => What::Verdict {
                verdict: text(entry, "verdict"),
                rule: text(entry, "rule"),
                message: entry.meta_text("message").unwrap_or(&entry.line).to_owned(),
            },
            "result" => self.result(entry)?,
            "error" => What::Error {
                severity: text(entry, "severity"),
                code: text(entry, "code"),
                message: entry.meta_text("message").unwrap_or(&entry.line).to_owned(),
                detail: text(entry, "detail"),
                hint: text(entry, "hint"),
            },
            "mask" => What::Mask {
                columns: entry.meta.get("columns").map(flat).unwrap_or_default(),
                count: entry
                    .meta_number("values")
                    .or_else(|| entry.meta_number("count")),
            },
            kind => What::Line {
                kind: kind.to_owned(),
                line: entry.line.clone(),
                bytes: entry.data.len(),
            },
        };
        Some(Item {
            at: entry.at,
            exchange: entry.exchange,
            what,
        })
    }

    fn command(&mut self, entry: &Entry) -> What {
        let step = match entry.meta_text("message") {
            Some("P") => Some("parse"),
            Some("E") => Some("execute"),
            Some("F") => Some("function call"),
            _ => None,
        };
        let statement = entry.meta.get("statement").and_then(Value::as_str);
        if let Some(statement) = statement {
            if step == Some("parse") {
                // What stood under this name is gone.
                self.statements.remove(statement);
            }
            let open = self.open(entry.exchange);
            open.statement = Some(statement.to_owned());
        }
        let parameters = entry.meta.get("parameters").and_then(Value::as_array);
        What::Command {
            text: entry.command(),
            verdict: text(entry, "verdict"),
            parameters: parameters
                .into_iter()
                .flatten()
                .map(|value| (!value.is_null()).then(|| flat(value)))
                .collect(),
            step,
        }
    }

    fn result(&mut self, entry: &Entry) -> Option<What> {
        let rows = self.rows;
        let statement = self.open(entry.exchange).statement.clone();
        let described = statement
            .as_ref()
            .and_then(|name| self.statements.get(name))
            .cloned();
        let open = self.open(entry.exchange);
        if open.tables.is_empty()
            && let Some(columns) = described
        {
            open.tables.push(Table::described(columns));
        }
        let mut columns = None;
        let mut frames = std::mem::take(&mut open.frames);
        frames.push(&entry.data, |frame| {
            if let Frame::Columns(described) = &frame {
                columns = Some(described.clone());
            }
            open.push(&frame, rows);
        });
        open.frames = frames;
        if let (Some(statement), Some(mut columns)) = (statement, columns)
            && self.statements.len() < STATEMENT_LIMIT
        {
            for column in &mut columns {
                // A statement's description comes before the formats are asked for.
                column.binary = None;
            }
            self.statements.insert(statement, columns);
        }
        // The last part says what it came to.
        let is_last = entry.meta.get("tag").is_some() || entry.meta.get("part").is_none();
        if !is_last {
            return None;
        }
        let open = self.open.remove(&entry.exchange).unwrap_or_default();
        Some(What::Result {
            body: None,
            tables: open.tables,
            tag: text(entry, "tag"),
            duration_us: entry.meta_number("duration_us"),
        })
    }

    /// An exchange without rows has no result after its error.
    fn failed(&mut self, exchange: Option<u64>) {
        if self
            .open
            .get(&exchange)
            .is_some_and(|open| open.tables.is_empty())
        {
            self.open.remove(&exchange);
        }
    }

    fn open(&mut self, exchange: Option<u64>) -> &mut Open {
        if self.open.len() >= OPEN_LIMIT && !self.open.contains_key(&exchange) {
            // Exchanges are answered in order: the oldest will have no answer.
            if let Some(oldest) = self.open.keys().min().copied() {
                self.open.remove(&oldest);
            }
        }
        self.open.entry(exchange).or_default()
    }
}

/// `meta` as lines for a person: one level of nesting is joined by dots.
fn facts(meta: &Value) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (name, value) in meta.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => {
                for (inner_name, value) in inner {
                    out.push((format!("{name}.{inner_name}"), flat(value)));
                }
            }
            value => out.push((name.clone(), flat(value))),
        }
    }
    out.retain(|(_, value)| !value.is_empty());
    out
}

/// A JSON value without the quotes of a text; a list's values side by side.
pub(super) fn flat(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(flat).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Whether it belongs to a channel of SSH.
fn is_ssh(entry: &Entry) -> bool {
    ssh::channel(entry).is_some()
}

/// Whether these are bytes of a command's stream over SSH; those of a terminal are its
/// drawing, and no text.
fn is_plain_stream(entry: &Entry) -> bool {
    entry.meta.get("stream").is_some() && entry.meta.get("terminal").is_none()
}

fn text(entry: &Entry, name: &str) -> String {
    entry.meta_text(name).unwrap_or_default().to_owned()
}
