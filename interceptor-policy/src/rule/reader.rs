//! What every part of a rule file is read with: mappings, texts, matchers.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::yaml::{Key, Node, Value};
use crate::diagnostic::{At, Report, nearest};
use crate::matcher::Matcher;

/// A file being read.
pub(super) struct Reader<'a> {
    pub(super) report: Report<'a>,
    pub(super) lists: BTreeMap<&'a str, List<'a>>,
}

/// A list that the file names.
pub(super) struct List<'a> {
    pub(super) at: At,
    pub(super) items: &'a [Node],
    pub(super) used: Cell<bool>,
}

/// The words of a matcher's mapping.
const WORDS: [&str; 4] = ["regex", "not", "any", "all"];

impl<'a> Reader<'a> {
    pub(super) fn error(&mut self, at: At, message: impl Into<String>) {
        self.report.error(at, message, None);
    }

    /// A mapping's entries.
    pub(super) fn mapping(&mut self, node: &'a Node, what: &str) -> Option<&'a [(Key, Node)]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            other => {
                self.wrong_kind(node.at, what, "a mapping", other);
                None
            }
        }
    }

    /// A list's items.
    pub(super) fn items(&mut self, node: &'a Node, what: &str) -> Option<&'a [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            other => {
                self.wrong_kind(node.at, what, "a list", other);
                None
            }
        }
    }

    /// Text. A number is not taken for one: `007` and `7` would be the same.
    pub(super) fn text(&mut self, node: &'a Node, what: &str) -> Option<&'a str> {
        match &node.value {
            Value::Text(text) => Some(text),
            Value::Int(_) | Value::Number | Value::Bool(_) => {
                self.report.error(
                    node.at,
                    format!("{what} must be text, not {}", node.value.kind()),
                    Some("put it in quotes".to_owned()),
                );
                None
            }
            other => {
                self.wrong_kind(node.at, what, "text", other);
                None
            }
        }
    }

    /// Text that a terminal, a protocol and a record can carry.
    pub(super) fn line(&mut self, node: &'a Node, what: &str, longest: usize) -> Option<&'a str> {
        let text = self.text(node, what)?;
        if text.trim().is_empty() {
            self.error(node.at, format!("{what} is empty"));
            return None;
        }
        if text.chars().any(|c| c.is_control() && c != '\n') {
            self.error(node.at, format!("{what} has control characters"));
            return None;
        }
        if text.chars().count() > longest {
            self.error(
                node.at,
                format!("{what} has more than {longest} characters"),
            );
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, node: &'a Node, what: &str) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            other => {
                self.wrong_kind(node.at, what, "true or false", other);
                None
            }
        }
    }

    /// A whole number in a range.
    pub(super) fn number(&mut self, node: &'a Node, what: &str, most: u64) -> Option<u64> {
        match &node.value {
            Value::Int(value) => {
                let number = u64::try_from(*value).ok().filter(|number| *number <= most);
                if number.is_none() {
                    self.error(node.at, format!("{what} must be between 0 and {most}"));
                }
                number
            }
            other => {
                self.wrong_kind(node.at, what, "a whole number", other);
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(
        &mut self,
        node: &'a Node,
        what: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(node, what)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let all = words.iter().map(|(word, _)| *word);
            let help = nearest(text, all.clone())
                .unwrap_or_else(|| format!("one of {}", all.collect::<Vec<_>>().join(", ")));
            self.report
                .error(node.at, format!("{what} cannot be `{text}`"), Some(help));
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn wrong_kind(&mut self, at: At, what: &str, wanted: &str, got: &Value) {
        self.error(at, format!("{what} must be {wanted}, not {}", got.kind()));
    }

    /// A key that nothing is known by.
    pub(super) fn unknown(&mut self, key: &Key, inside: &str, known: &[&str]) {
        let help = nearest(&key.text, known.iter().copied())
            .unwrap_or_else(|| format!("known here: {}", known.join(", ")));
        self.report.error(
            key.at,
            format!("unknown field `{}` in {inside}", key.text),
            Some(help),
        );
    }

    /// A matcher: one leaf, a list of which one is enough, `not`, `any`, `all`,
    /// or `$name` of a list.
    pub(super) fn matcher<L>(
        &mut self,
        node: &'a Node,
        what: &str,
        leaf: &mut dyn FnMut(&mut Self, &'a Node) -> Option<L>,
    ) -> Option<Matcher<L>> {
        match &node.value {
            Value::List(items) => self.any_of(node.at, items, what, leaf),
            Value::Text(text) if text.starts_with('$') => {
                let items = self.list(node.at, text)?;
                self.any_of(node.at, items, what, leaf)
            }
            Value::Map(entries) => {
                let [(key, value)] = entries.as_slice() else {
                    self.report.error(
                        node.at,
                        format!("{what} takes a mapping of one key"),
                        Some(format!("one of {}", WORDS.join(", "))),
                    );
                    return None;
                };
                match key.text.as_str() {
                    "not" => self
                        .matcher(value, what, leaf)
                        .map(|inner| Matcher::Not(Box::new(inner))),
                    "any" => {
                        let items = self.items(value, "`any`")?;
                        self.any_of(value.at, items, what, leaf)
                    }
                    "all" => {
                        let items = self.items(value, "`all`")?;
                        self.several(value.at, items, what, leaf).map(Matcher::All)
                    }
                    "regex" | "over" => leaf(self, node).map(Matcher::Leaf),
                    _ => {
                        self.unknown(key, what, &WORDS);
                        None
                    }
                }
            }
            _ => leaf(self, node).map(Matcher::Leaf),
        }
    }

    fn any_of<L>(
        &mut self,
        at: At,
        items: &'a [Node],
        what: &str,
        leaf: &mut dyn FnMut(&mut Self, &'a Node) -> Option<L>,
    ) -> Option<Matcher<L>> {
        self.several(at, items, what, leaf).map(Matcher::Any)
    }

    fn several<L>(
        &mut self,
        at: At,
        items: &'a [Node],
        what: &str,
        leaf: &mut dyn FnMut(&mut Self, &'a Node) -> Option<L>,
    ) -> Option<Vec<Matcher<L>>> {
        if items.is_empty() {
            self.error(
                at,
                format!("{what} is an empty list, which matches nothing"),
            );
            return None;
        }
        // All of them are read, so that all of their faults are told.
        let read: Vec<_> = items
            .iter()
            .map(|item| self.matcher(item, what, leaf))
            .collect();
        read.into_iter().collect()
    }

    /// A flat list: any of them, where nothing else makes sense.
    pub(super) fn flat(&mut self, node: &'a Node, what: &str) -> Option<Vec<&'a Node>> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Text(text) if text.starts_with('$') => self.list(node.at, text)?,
            _ => return Some(vec![node]),
        };
        if items.is_empty() {
            self.error(node.at, format!("{what} is empty"));
            return None;
        }
        let mut flat = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(text) if text.starts_with('$') => {
                    flat.extend(self.list(item.at, text)?);
                }
                _ => flat.push(item),
            }
        }
        Some(flat)
    }

    /// What a `$name` stands for.
    pub(super) fn list(&mut self, at: At, name: &str) -> Option<&'a [Node]> {
        let bare = name.strip_prefix('$').unwrap_or(name);
        if let Some(list) = self.lists.get(bare) {
            list.used.set(true);
            return Some(list.items);
        }
        let help = nearest(bare, self.lists.keys().copied())
            .or_else(|| Some("name it under `lists:` in this file".to_owned()));
        self.report
            .error(at, format!("unknown list `{name}`"), help);
        None
    }
}

/// How many of a list are shown.
const SHOWN: usize = 4;

/// A value as it was written, in one line, for explanations.
pub(super) fn shown(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Number => "a number".to_owned(),
        Value::Text(text) => format!("`{text}`"),
        Value::List(items) => {
            let mut said: Vec<_> = items.iter().take(SHOWN).map(shown).collect();
            if items.len() > SHOWN {
                said.push(format!("{} more", items.len() - SHOWN));
            }
            said.join(" or ")
        }
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| match key.text.as_str() {
                "all" | "any" => match &value.value {
                    Value::List(items) if key.text == "all" => {
                        items.iter().map(shown).collect::<Vec<_>>().join(" and ")
                    }
                    _ => shown(value),
                },
                other => format!("{other} {}", shown(value)),
            })
            .collect::<Vec<_>>()
            .join(", "),
    }
}
