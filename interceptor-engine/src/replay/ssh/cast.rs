//! A terminal as an asciicast, version 2.
//!
//! A header, then an event a line: `o` for output, `r` for a new size, `m` for a mark,
//! here each line or command that the rules judged. The output is filtered as it is
//! for a terminal, since whoever plays the file has one.
//!
//! Spec: asciinema's manual, page `asciicast/v2`.

use serde_json::json;

use super::filter::Filter;
use super::terminals::{Size, Terminal, Terminals};
use super::{channel, is_drawing};
use crate::event::FlowTime;
use crate::replay::{Entry, escape};

/// Writes one terminal of a session.
#[derive(Debug)]
pub struct Cast {
    terminal: Terminal,
    header: String,
    filter: Filter,
    from: FlowTime,
    last: FlowTime,
}

impl Cast {
    /// `terminal` of `session`, from `from` on: what was drawn before stands there at
    /// once. `idle_limit` is for whoever plays it, in seconds.
    #[must_use]
    pub fn new(
        session: &str,
        all: &Terminals,
        terminal: &Terminal,
        from: FlowTime,
        idle_limit: Option<f64>,
    ) -> Self {
        let from = from.max(terminal.since);
        let title = format!("{}: {} ({session})", all.title(), terminal.what);
        let mut header = json!({
            "version": 2,
            "width": terminal.size.columns,
            "height": terminal.size.rows,
            "timestamp": (all.began_ms() + from.0 / 1000) / 1000,
            "title": escape::line(&title),
        });
        if let Some(header) = header.as_object_mut() {
            if !terminal.name.is_empty() {
                header.insert(
                    "env".into(),
                    json!({ "TERM": escape::line(&terminal.name) }),
                );
            }
            if let Some(limit) = idle_limit {
                header.insert("idle_time_limit".into(), json!(limit));
            }
        }
        Self {
            terminal: terminal.clone(),
            header: format!("{header}\n"),
            filter: Filter::default(),
            from,
            last: from,
        }
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &str {
        &self.header
    }

    /// What stands for `entry`: lines with their ends, or nothing.
    pub fn push(&mut self, entry: &Entry) -> String {
        if channel(entry) != Some(self.terminal.channel) || entry.at < self.terminal.since {
            return String::new();
        }
        match entry.kind.as_str() {
            "output" if is_drawing(entry) => {
                let text = self.filter.push(&entry.data);
                match text.is_empty() {
                    true => text,
                    false => self.event(entry.at, "o", &text),
                }
            }
            "resize" => match Size::of(&entry.meta) {
                Some(Size { columns, rows }) => {
                    self.event(entry.at, "r", &format!("{columns}x{rows}"))
                }
                None => String::new(),
            },
            "command" => {
                let verdict = entry.meta_text("verdict").unwrap_or("judged");
                let text = format!("{verdict}: {}", escape::line(&entry.line));
                self.event(entry.at, "m", &text)
            }
            _ => String::new(),
        }
    }

    /// What stands behind the last entry.
    pub fn finish(&mut self) -> String {
        let text = self.filter.finish();
        self.event(self.last, "o", &text)
    }

    /// Times never go back: players count on it.
    fn event(&mut self, at: FlowTime, kind: &str, data: &str) -> String {
        self.last = self.last.max(at);
        let micros = self.last.0 - self.from.0;
        let data = serde_json::Value::from(data);
        format!(
            "[{}.{:06}, \"{kind}\", {data}]\n",
            micros / 1_000_000,
            micros % 1_000_000
        )
    }
}
