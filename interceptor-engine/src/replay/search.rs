//! Words looked for in a recording: entries in, hits out.
//!
//! What was asked is a statement with its parameters, a request's head and body, a
//! command line, and what was sent beside them; what was answered is rows, bodies,
//! output and errors. Parts of one answer are read as one text, so that words are found
//! where they stand across two events; no more than [`OVERLAP`] bytes of each are kept
//! for that. A command and an answer have one hit each, the first.
//!
//! What a mask or a credential's place holder hides is not on record, and not found.
//!
//! [`Searcher::of_grams`] looks at the same text for the grams that it has, so that an index
//! of them rules out nothing that would be found.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::grams::Grams;
use super::pg::value::{Shown, show};
use super::pg::{Column, Frame, Frames};
use super::ssh::is_drawing;
use super::ssh::lines::Lines;
use super::timeline::flat;
use super::{Entry, http};
use crate::event::FlowTime;

/// Bytes at the end of a part in which words may begin that end in the next one.
const OVERLAP: usize = 1 << 10;

/// Answers that may be under way at once; the oldest of more are not read on.
const OPEN_LIMIT: usize = 256;

/// Characters that are shown before and behind a hit.
const BEFORE: usize = 60;
const BEHIND: usize = 100;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Words that cannot be looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There are none.
    #[error("there is nothing to look for")]
    Empty,
    /// The expression is none.
    #[error("{0}")]
    Expression(String),
}

impl Pattern {
    /// These words, one after another, with any white space between them. In upper or
    /// lower case, unless `exact`.
    ///
    /// # Errors
    /// Where there are none, or they are too long.
    pub fn words(words: &str, exact: bool) -> Result<Self, PatternError> {
        let words: Vec<String> = words.split_whitespace().map(regex::escape).collect();
        if words.is_empty() {
            return Err(PatternError::Empty);
        }
        Self::regex(&words.join(r"\s+"), exact)
    }

    /// A regular expression.
    ///
    /// # Errors
    /// One that is none, or that is too large.
    pub fn regex(expression: &str, exact: bool) -> Result<Self, PatternError> {
        if expression.is_empty() {
            return Err(PatternError::Empty);
        }
        RegexBuilder::new(expression)
            .case_insensitive(!exact)
            .multi_line(true)
            .build()
            .map(Self)
            .map_err(|error| PatternError::Expression(error.to_string()))
    }

    /// Where it is found first; never an empty place.
    fn find(&self, text: &str) -> Option<(usize, usize)> {
        let found = self.0.find_iter(text).find(|found| !found.is_empty());
        found.map(|found| (found.start(), found.end()))
    }
}

/// Where to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Where {
    /// In what was asked.
    Commands,
    /// In what was answered.
    Results,
    /// In both, and in everything else that is told of a session.
    #[default]
    All,
}

/// Where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In what was asked.
    Command,
    /// In what was answered.
    Result,
    /// In a verdict, a note, an opening, …
    Other,
}

impl Place {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Result => "result",
            Self::Other => "other",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The event.
    pub seq: u64,
    /// When.
    pub at: FlowTime,
    /// The exchange.
    pub exchange: Option<u64>,
    /// Where.
    pub place: Place,
    /// What stands before it.
    pub before: String,
    /// What was found.
    pub found: String,
    /// What stands behind it.
    pub behind: String,
}

/// What a text is looked at for.
#[derive(Debug)]
enum Sought {
    Pattern(Pattern),
    /// Whatever it has; nothing is found.
    Grams(Grams),
}

impl Sought {
    fn find(&mut self, text: &str) -> Option<(usize, usize)> {
        match self {
            Self::Pattern(pattern) => pattern.find(text),
            Self::Grams(grams) => {
                grams.add(text);
                None
            }
        }
    }
}

/// Looks through one session's entries.
#[derive(Debug)]
pub struct Searcher {
    sought: Sought,
    wanted: Where,
    lines: Lines,
    protocol: String,
    open: BTreeMap<(Option<u64>, Place), Stream>,
}

/// A text that comes in parts.
#[derive(Debug, Default)]
struct Stream {
    /// The end of what came, which was looked through.
    tail: String,
    /// The beginning of a character whose rest is to come.
    carry: Vec<u8>,
    frames: Frames,
    columns: Vec<Column>,
    found: bool,
}

impl Searcher {
    /// Looks for `pattern` in a session that begins with the next entry.
    #[must_use]
    pub fn new(pattern: Pattern, wanted: Where) -> Self {
        Self::of(Sought::Pattern(pattern), wanted)
    }

    /// Notes the grams of a session that begins with the next entry; finds nothing.
    #[must_use]
    pub fn of_grams() -> Self {
        Self::of(Sought::Grams(Grams::default()), Where::All)
    }

    /// The session is over; the grams that it has. Those of a search for a pattern are none.
    #[must_use]
    pub fn into_grams(mut self) -> Grams {
        self.finish();
        match self.sought {
            Sought::Grams(grams) => grams,
            Sought::Pattern(_) => Grams::default(),
        }
    }

    fn of(sought: Sought, wanted: Where) -> Self {
        Self {
            sought,
            wanted,
            lines: Lines::default(),
            protocol: String::new(),
            open: BTreeMap::new(),
        }
    }

    /// Takes the next entry; what was found in it.
    pub fn push(&mut self, entry: Entry) -> Vec<Hit> {
        if entry.kind == "open" {
            self.protocol = entry.meta_text("protocol").unwrap_or_default().to_owned();
        }
        if self.protocol != "ssh" {
            return self.look(&entry).into_iter().collect();
        }
        // What a terminal was sent is put together to lines.
        let own = usize::from(!is_drawing(&entry));
        let mut entries = self.lines.push(entry);
        let lines = entries.len().saturating_sub(own);
        for line in entries.iter_mut().take(lines) {
            line.data.push(b'\n');
        }
        entries
            .iter()
            .filter_map(|entry| self.look(entry))
            .collect()
    }

    /// The session is over; what was found in what was begun.
    pub fn finish(&mut self) -> Vec<Hit> {
        let entries = self.lines.finish();
        entries
            .iter()
            .filter_map(|entry| self.look(entry))
            .collect()
    }

    fn look(&mut self, entry: &Entry) -> Option<Hit> {
        let place = match entry.kind.as_str() {
            "command" | "input" => Place::Command,
            "result" | "output" | "error" => Place::Result,
            _ => Place::Other,
        };
        let wanted = match self.wanted {
            Where::Commands => place == Place::Command,
            Where::Results => place == Place::Result,
            Where::All => true,
        };
        if !wanted {
            return None;
        }
        match entry.kind.as_str() {
            "command" => self.once(entry, place, &asked(entry)),
            "error" => self.once(entry, place, &failed(entry)),
            "result" if self.protocol == "postgres" => self.rows(entry),
            "result" if entry.data.is_empty() => {
                self.open.remove(&(entry.exchange, place));
                self.once(entry, place, &ended(entry))
            }
            "input" | "output" | "result" => {
                let hit = self.part(entry, place, |stream| stream.text(&entry.data));
                if entry.kind == "result" {
                    self.open.remove(&(entry.exchange, place));
                }
                hit
            }
            _ => self.once(entry, place, &entry.line),
        }
    }

    fn rows(&mut self, entry: &Entry) -> Option<Hit> {
        let hit = self.part(entry, Place::Result, |stream| stream.rows(&entry.data));
        if entry.meta.get("tag").is_some() {
            self.open.remove(&(entry.exchange, Place::Result));
        }
        hit
    }

    /// A text that is whole.
    fn once(&mut self, entry: &Entry, place: Place, text: &str) -> Option<Hit> {
        let (start, end) = self.sought.find(text)?;
        Some(hit(entry, place, text, start, end))
    }

    /// A part of a text.
    fn part(
        &mut self,
        entry: &Entry,
        place: Place,
        read: impl FnOnce(&mut Stream) -> String,
    ) -> Option<Hit> {
        let key = (entry.exchange, place);
        if self.open.len() >= OPEN_LIMIT && !self.open.contains_key(&key) {
            self.open.pop_first();
            // Who looks in commands alone has fewer under way, and reads this one on.
            if let Sought::Grams(grams) = &mut self.sought {
                grams.add_all();
            }
        }
        let stream = self.open.entry(key).or_default();
        if stream.found {
            return None;
        }
        let more = read(stream);
        stream.tail.push_str(&more);
        let hit = self
            .sought
            .find(&stream.tail)
            .map(|(start, end)| hit(entry, place, &stream.tail, start, end));
        stream.found = hit.is_some();
        let mut cut = stream.tail.len().saturating_sub(OVERLAP);
        while !stream.tail.is_char_boundary(cut) {
            cut += 1;
        }
        stream.tail.drain(..cut);
        hit
    }
}

impl Stream {
    /// The next bytes as text. Those of a character that is not at its end wait.
    fn text(&mut self, data: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(data);
        let whole = match std::str::from_utf8(&bytes) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => bytes.len(),
        };
        self.carry = bytes.split_off(whole);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The next rows, a line each.
    fn rows(&mut self, data: &[u8]) -> String {
        let mut text = String::new();
        let columns = &mut self.columns;
        self.frames.push(data, |frame| match frame {
            Frame::Columns(new) => *columns = new,
            Frame::Row(values) => {
                let unknown = Column::default();
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        text.push_str(" | ");
                    }
                    let column = columns.get(index).unwrap_or(&unknown);
                    match value.map(|value| show(column, value)) {
                        Some(Shown::Text(value)) => text.push_str(&value),
                        Some(Shown::Bytes(value)) => text.push_str(&hex::encode(value)),
                        None => {}
                    }
                }
                text.push('\n');
            }
            Frame::Copy(line) => text.push_str(&String::from_utf8_lossy(line)),
            Frame::Oversized(_) | Frame::Other => {}
        });
        text
    }
}

/// What was asked, as text.
fn asked(entry: &Entry) -> String {
    if http::is_http(entry) {
        return http::head(entry);
    }
    let mut text = match entry.meta_text("command") {
        Some(line) => line.to_owned(),
        None => entry.command(),
    };
    let parameters = entry.meta.get("parameters").and_then(Value::as_array);
    for value in parameters.into_iter().flatten() {
        text.push('\n');
        text.push_str(&flat(value));
    }
    text
}

/// An error, as text.
fn failed(entry: &Entry) -> String {
    let mut text = entry.line.clone();
    for name in ["message", "detail", "hint"] {
        if let Some(more) = entry.meta_text(name).filter(|more| !text.contains(more)) {
            text.push('\n');
            text.push_str(more);
        }
    }
    text
}

/// An answer without bytes, as text.
fn ended(entry: &Entry) -> String {
    let mut text = entry.line.clone();
    if let Some(answers) = entry.meta.get("answers") {
        text.push('\n');
        text.push_str(&flat(answers));
    }
    text
}

fn hit(entry: &Entry, place: Place, text: &str, start: usize, end: usize) -> Hit {
    let before = text.get(..start).unwrap_or_default();
    let from = before.char_indices().rev().take(BEFORE).last();
    let before = before.get(from.map_or(0, |(at, _)| at)..);
    let behind = text.get(end..).unwrap_or_default();
    let to = behind.char_indices().nth(BEHIND);
    let behind = behind.get(..to.map_or(behind.len(), |(at, _)| at));
    Hit {
        seq: entry.seq,
        at: entry.at,
        exchange: entry.exchange,
        place,
        before: on_one_line(before.unwrap_or_default()),
        found: on_one_line(text.get(start..end).unwrap_or_default()),
        behind: on_one_line(behind.unwrap_or_default()),
    }
}

/// Every run of white space as one space.
fn on_one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut space = false;
    for char in text.chars() {
        if !char.is_whitespace() {
            space = false;
            out.push(char);
        } else if !std::mem::replace(&mut space, true) {
            out.push(' ');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::pg::tests::{data_row, description};
    use super::*;
    use serde_json::json;

    fn entry(kind: &str, data: &[u8], meta: Value) -> Entry {
        Entry {
            kind: kind.to_owned(),
            exchange: Some(1),
            data: data.to_vec(),
            meta,
            ..Entry::default()
        }
    }

    fn open(protocol: &str) -> Entry {
        entry("open", b"", json!({ "protocol": protocol }))
    }

    fn found(words: &str, wanted: Where, entries: &[Entry]) -> Vec<(Place, String)> {
        let mut searcher = Searcher::new(Pattern::words(words, false).unwrap(), wanted);
        let mut hits: Vec<Hit> = Vec::new();
        for entry in entries {
            hits.extend(searcher.push(entry.clone()));
        }
        hits.extend(searcher.finish());
        hits.into_iter()
            .map(|hit| {
                (
                    hit.place,
                    format!("{}[{}]{}", hit.before, hit.found, hit.behind),
                )
            })
            .collect()
    }

    #[test]
    fn words_are_found_in_any_case_and_over_lines() {
        let entries = [
            open("postgres"),
            entry("command", b"begin; delete\n\tFROM  Orders;", json!({})),
        ];
        assert_eq!(
            found("DELETE from orders", Where::Commands, &entries),
            [(Place::Command, "begin; [delete FROM Orders];".to_owned())]
        );
        assert!(found("DELETE FROM orders", Where::Results, &entries).is_empty());
        let exact = Pattern::words("DELETE", true).unwrap();
        let mut searcher = Searcher::new(exact, Where::All);
        assert!(entries.into_iter().all(|e| searcher.push(e).is_empty()));
    }

    #[test]
    fn words_are_found_wherever_an_answer_was_cut_into_events() {
        let whole = [
            description(&[("id", 23, 0), ("name", 25, 0)]),
            data_row(&[Some(b"1"), Some("Zoë Lovelace".as_bytes())]),
        ]
        .concat();
        let body = "some text of Zoë Lovelace".as_bytes();
        for (protocol, last, bytes) in
            [("postgres", "result", &whole[..]), ("http", "output", body)]
        {
            for cut in 0..=bytes.len() {
                let (a, b) = bytes.split_at(cut);
                let entries = [
                    open(protocol),
                    entry(last, a, json!({"part": 1})),
                    entry(last, b, json!({"part": 2, "tag": "SELECT 1"})),
                ];
                let hits = found("zoë lovelace", Where::Results, &entries);
                assert_eq!(hits.len(), 1, "{protocol} cut at {cut}: {hits:?}");
            }
        }
    }

    #[test]
    fn an_answer_has_one_hit_and_the_next_one_has_its_own() {
        let row = data_row(&[Some(b"ada")]);
        let rows = [row.clone(), row].concat();
        let end = json!({"tag": "SELECT 2"});
        let entries = [
            open("postgres"),
            entry("result", &rows, json!({"part": 1})),
            entry("result", &rows, end.clone()),
            entry("result", &rows, end),
        ];
        assert_eq!(found("ada", Where::All, &entries).len(), 2);
    }

    #[test]
    fn parameters_heads_command_lines_and_errors_are_looked_through() {
        let entries = [
            open("http"),
            entry(
                "command",
                b"",
                json!({"method": "GET", "headers": [["x-team", "needle-1"]]}),
            ),
            entry(
                "command",
                b"SELECT $1",
                json!({"parameters": ["needle-2", null]}),
            ),
            entry(
                "command",
                b"",
                json!({"channel": 0, "command": "cat needle-3"}),
            ),
            entry("error", b"", json!({"message": "no", "detail": "needle-4"})),
            Entry {
                line: "blocked by needle-5".into(),
                ..entry("verdict", b"", json!({}))
            },
        ];
        for (words, place) in [
            ("needle-1", Place::Command),
            ("needle-2", Place::Command),
            ("needle-3", Place::Command),
            ("needle-4", Place::Result),
            ("needle-5", Place::Other),
        ] {
            let hits = found(words, Where::All, &entries);
            assert_eq!(hits.len(), 1, "{words}");
            assert_eq!(hits[0].0, place, "{words}");
        }
    }

    #[test]
    fn what_cannot_be_looked_for_is_refused_and_nothing_is_found_in_emptiness() {
        assert_eq!(
            Pattern::words(" \n", false).unwrap_err(),
            PatternError::Empty
        );
        assert!(Pattern::regex("(", false).is_err());
        let mut searcher = Searcher::new(Pattern::regex("x*", false).unwrap(), Where::All);
        assert!(
            searcher
                .push(entry("command", b"abc", json!({})))
                .is_empty()
        );
        assert_eq!(
            searcher.push(entry("command", b"abxxc", json!({}))).len(),
            1
        );
    }
}
