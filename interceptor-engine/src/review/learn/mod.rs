//! A first rule file from what agents were seen to do.
//!
//! One allow rule for each agent, target and kind of command, with exactly what was
//! seen, and a test that shows one of them. What was refused, and what could not be
//! read, is not learned. The file is to be read and tightened: it says what was done,
//! not what should be.
//!
//! * [`postgres`]: the commands and tables of a class of statements;
//! * [`http`]: the paths of a method at a host.

mod http;
mod postgres;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use interceptor_policy::{DefaultVerdict, Protocol};
use serde_json::Value;

use super::Opened;
use crate::replay::Entry;

/// Different tables or paths of one rule; past it none is written: it would say nothing.
const NAMES: usize = 200;
/// Longest statement or address that serves as an example.
const EXAMPLE: usize = 300;
/// Different rules; what is seen past it is not learned, and the file says so.
const RULES: usize = 1_000;

/// Who, where, and what kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    agent: String,
    /// A target's name, or an address.
    target: Where,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Where {
    Named(String),
    Address(String, u16),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Statements(postgres::Kind),
    Requests(http::Kind),
}

/// What one command says of itself.
struct Sight {
    what: What,
    /// Names under the word that a rule has for them.
    names: Vec<(&'static str, BTreeSet<String>)>,
    /// A test's line that shows it.
    example: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    count: u64,
    names: BTreeMap<&'static str, BTreeSet<String>>,
    /// A test's line, and the name of the target.
    example: Option<(String, Option<String>)>,
}

impl Seen {
    /// A rule about more than that says nothing.
    fn too_much(&self) -> bool {
        self.names.values().any(|names| names.len() > NAMES)
    }

    /// The names under a word, as a YAML list of what `write` makes of each.
    fn list(&self, word: &str, write: impl Fn(&str) -> String) -> String {
        let names = self.names.get(word).into_iter().flatten();
        let names: Vec<String> = names.map(|name| write(name)).collect();
        format!("[{}]", names.join(", "))
    }
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
        let sight = match session.subject.protocol {
            Protocol::Postgres => postgres::sight(entry),
            Protocol::Http => http::sight(entry),
            _ => None,
        };
        let Some(sight) = sight else {
            self.left_out += 1;
            return;
        };
        let target = &session.subject.target;
        let place = match (&target.name, target.address) {
            (Some(name), _) => Where::Named(name.clone()),
            (None, Some(address)) => Where::Address(address.to_string(), target.port),
            // Behind an SSH server, and no target: nothing that a rule could name.
            (None, None) => {
                self.left_out += 1;
                return;
            }
        };
        let kind = Kind {
            agent: session.subject.principal.agent.clone(),
            target: place,
            what: sight.what,
        };
        if self.seen.len() >= RULES && !self.seen.contains_key(&kind) {
            self.left_out += 1;
            return;
        }
        let seen = self.seen.entry(kind).or_default();
        seen.count += 1;
        for (word, names) in sight.names {
            let known = seen.names.entry(word).or_default();
            if known.len() <= NAMES {
                known.extend(names);
            }
        }
        if seen.example.is_none()
            && let Some(example) = sight.example
        {
            seen.example = Some((example, target.name.clone()));
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
        if self.seen.values().all(|seen| seen.too_much()) {
            out.truncate(out.len() - "\nrules:\n".len());
            out.push_str("\nrules: []\n");
            return out;
        }
        let mut names = BTreeSet::new();
        let mut tests = String::new();
        for (kind, seen) in &self.seen {
            if seen.too_much() {
                let _ = writeln!(
                    out,
                    "  # Not learned, for it is about more than {NAMES} tables or paths: {}",
                    kind.name()
                );
                continue;
            }
            let name = unique(&kind.name(), &mut names);
            kind.rule(&name, seen, &mut out);
            if let Some((example, target)) = &seen.example {
                test(kind, &name, example, target.as_deref(), &mut tests);
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
        let what = match &self.what {
            What::Statements(kind) => kind.name(),
            What::Requests(kind) => kind.name(),
        };
        let name = format!("learned/{}-{place}/{what}", self.agent);
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
        match &self.what {
            What::Statements(kind) => kind.matching(seen, out),
            What::Requests(kind) => kind.matching(seen, out),
        }
        out.push_str("    verdict: allow\n");
    }
}

fn test(kind: &Kind, rule: &str, example: &str, target: Option<&str>, out: &mut String) {
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
    let _ = writeln!(out, "    {example}");
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

/// The texts of a list on record.
fn texts(meta: &Value, name: &str) -> BTreeSet<String> {
    let items = meta.get(name).and_then(Value::as_array);
    let items = items.into_iter().flatten().filter_map(Value::as_str);
    items.map(str::to_owned).collect()
}
