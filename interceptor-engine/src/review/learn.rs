//! A first rule file from what agents were seen to do.
//!
//! One allow rule for each agent, target and kind of statement, with exactly the
//! commands and tables that were seen, and a test that shows one of them. What
//! was refused, and what could not be read, is not learned. The file is to be
//! read and tightened: it says what was done, not what should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use interceptor_policy::DefaultVerdict;
use serde_json::Value;

use super::Opened;
use crate::replay::Entry;

/// Different tables of one rule; past it none is written: it would say nothing.
const TABLES: usize = 200;
/// Longest statement that serves as an example.
const EXAMPLE: usize = 300;
/// Different rules; what is seen past it is not learned, and the file says so.
const RULES: usize = 1_000;

/// Who, where, and what kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    agent: String,
    /// A target's name, or an address.
    target: Where,
    classes: Vec<String>,
    with_tables: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Where {
    Named(String),
    Address(String, u16),
}

#[derive(Clone, Debug, Default)]
struct Seen {
    count: u64,
    tags: BTreeSet<String>,
    tables: BTreeSet<String>,
    example: Option<(String, Option<String>)>,
}

/// Collects what was seen.
#[derive(Debug, Default)]
pub struct Learner {
    session: Option<Opened>,
    seen: BTreeMap<Kind, Seen>,
    left_out: u64,
    refused: u64,
    commands: u64,
    sessions: u64,
    first: Option<String>,
    last: Option<String>,
}

impl Learner {
    /// Begins the next session, from its opening event.
    pub fn begin(&mut self, open: &Entry) {
        self.session = Opened::read(open, &|_| DefaultVerdict::Block);
        if let Some(session) = &self.session {
            self.sessions += 1;
            let at = &session.at_wall;
            if self.first.as_ref().is_none_or(|first| at < first) {
                self.first = Some(at.clone());
            }
            if self.last.as_ref().is_none_or(|last| at > last) {
                self.last = Some(at.clone());
            }
        }
    }

    /// Takes the session's next entry.
    pub fn entry(&mut self, entry: &Entry) {
        let Some(session) = &self.session else {
            return;
        };
        if entry.kind != "command" || entry.exchange.is_none() {
            return;
        }
        self.commands += 1;
        // What a person let pass once is not a habit.
        if entry.meta_text("verdict") != Some("allow") {
            self.refused += 1;
            return;
        }
        let list = |name: &str| -> BTreeSet<String> {
            let items = entry.meta.get(name).and_then(Value::as_array);
            items
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let classes = list("classes");
        if classes.is_empty() || classes.contains("unclassified") {
            self.left_out += 1;
            return;
        }
        let tables = list("tables");
        let target = &session.subject.target;
        let kind = Kind {
            agent: session.subject.principal.agent.clone(),
            target: match &target.name {
                Some(name) => Where::Named(name.clone()),
                None => Where::Address(target.address.to_string(), target.port),
            },
            classes: classes.into_iter().collect(),
            with_tables: !tables.is_empty(),
        };
        if self.seen.len() >= RULES && !self.seen.contains_key(&kind) {
            self.left_out += 1;
            return;
        }
        let seen = self.seen.entry(kind).or_default();
        seen.count += 1;
        seen.tags.extend(list("tags"));
        if seen.tables.len() <= TABLES {
            seen.tables.extend(tables);
        }
        if seen.example.is_none()
            && !entry.data.is_empty()
            && entry.data.len() <= EXAMPLE
            && let Ok(text) = std::str::from_utf8(&entry.data)
        {
            // A parameter's place cannot be tested without its value.
            if !text.contains('$') {
                seen.example = Some((text.to_owned(), target.name.clone()));
            }
        }
    }

    /// How many rules there would be.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.seen.len()
    }

    /// The rule file.
    #[must_use]
    pub fn file(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "# Learned from {} sessions with {} commands, {} to {}.",
            self.sessions,
            self.commands,
            self.first.as_deref().unwrap_or("?"),
            self.last.as_deref().unwrap_or("?"),
        );
        let _ = writeln!(
            out,
            "# It says what was done, not what should be: read it, tighten it, and put it to the test."
        );
        let _ = writeln!(
            out,
            "# Not learned: {} that were refused or held, {} that could not be read or were too many.",
            self.refused, self.left_out
        );
        out.push_str("version: 1\n\nrules:\n");
        if self.seen.values().all(|seen| seen.tables.len() > TABLES) {
            out.truncate(out.len() - "\nrules:\n".len());
            out.push_str("\nrules: []\n");
            return out;
        }
        let mut names = BTreeSet::new();
        let mut tests = String::new();
        for (kind, seen) in &self.seen {
            if seen.tables.len() > TABLES {
                let _ = writeln!(
                    out,
                    "  # Not learned, for it is about more than {TABLES} tables: {}",
                    kind.name()
                );
                continue;
            }
            let name = unique(&kind.name(), &mut names);
            kind.rule(&name, seen, &mut out);
            if let Some((text, target)) = &seen.example {
                test(kind, &name, text, target.as_deref(), &mut tests);
            }
        }
        if !tests.is_empty() {
            out.push_str("\ntests:\n");
            out.push_str(&tests);
        }
        out
    }
}

impl Kind {
    fn name(&self) -> String {
        let place = match &self.target {
            Where::Named(name) => name.clone(),
            Where::Address(address, port) => format!("{address}-{port}"),
        };
        let tables = if self.with_tables { "" } else { "-nothing" };
        let name = format!(
            "learned/{}-{place}/{}{tables}",
            self.agent,
            self.classes.join("-")
        );
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || "-_./".contains(c) {
                c
            } else {
                '-'
            }
        };
        name.chars().map(plain).take(56).collect()
    }

    fn rule(&self, name: &str, seen: &Seen, out: &mut String) {
        let _ = writeln!(out, "  - name: {name}");
        let _ = writeln!(out, "    description: Seen {} times.", seen.count);
        out.push_str("    match:\n");
        let _ = writeln!(
            out,
            "      principal: {{ agent: {} }}",
            pattern(&self.agent)
        );
        match &self.target {
            Where::Named(name) => {
                let _ = writeln!(out, "      target: {{ name: {} }}", pattern(name));
            }
            Where::Address(address, port) => {
                let _ = writeln!(
                    out,
                    "      target: {{ address: {}, port: {port} }}",
                    quoted(address)
                );
            }
        }
        out.push_str("      postgres:\n");
        let _ = writeln!(out, "        class: [{}]", self.classes.join(", "));
        let tags: Vec<String> = seen.tags.iter().map(|tag| quoted(tag)).collect();
        let _ = writeln!(out, "        statement: [{}]", tags.join(", "));
        if self.with_tables {
            let tables: Vec<String> = seen.tables.iter().map(|table| pattern(table)).collect();
            let _ = writeln!(out, "        tables: [{}]", tables.join(", "));
        } else {
            // Of no table, and not of any.
            out.push_str("        tables: { not: \"*\" }\n");
        }
        out.push_str("    verdict: allow\n");
    }
}

fn test(kind: &Kind, rule: &str, text: &str, target: Option<&str>, out: &mut String) {
    let _ = writeln!(
        out,
        "  - name: {}",
        quoted(&format!("{rule} as it was seen"))
    );
    let _ = write!(
        out,
        "    given: {{ principal: {{ agent: {} }}",
        quoted(&kind.agent)
    );
    match (&kind.target, target) {
        (_, Some(name)) => {
            let _ = write!(out, ", target: {{ name: {} }}", quoted(name));
        }
        (Where::Address(address, port), None) => {
            let _ = write!(
                out,
                ", target: {{ address: {}, port: {port} }}",
                quoted(address)
            );
        }
        (Where::Named(_), None) => {}
    }
    out.push_str(" }\n");
    let _ = writeln!(out, "    postgres: {}", quoted(text));
    out.push_str("    expect: { verdict: allow }\n");
}

/// A name that no rule has yet.
fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut number = 2;
    while !taken.insert(candidate.clone()) {
        candidate = format!("{name}-{number}");
        number += 1;
    }
    candidate
}

/// A YAML scalar, as JSON writes it, which YAML reads alike.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

/// A glob that matches this text alone.
fn pattern(text: &str) -> String {
    let mut glob = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}') {
            let _ = write!(glob, "[{c}]");
        } else if c == '\\' {
            glob.push_str("\\\\");
        } else {
            glob.push(c);
        }
    }
    quoted(&glob)
}
