//! Rules that decide nothing, since others decide all that they could.
//!
//! Told from what is written, and only where it is certain: a match whose every
//! field is a list of plain values is narrower than one that asks for fewer
//! fields, or for more values of each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::reader::Reader;
use super::yaml::{Key, Node, Value};
use super::{Rule, RuleVerdict};
use crate::diagnostic::{Diagnostics, Report};

/// A rule as it is written, for comparison.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// All but its name and its words, in one order.
    whole: String,
    /// Its match, by field; `None` where it is more than plain values.
    fields: Option<BTreeMap<String, BTreeSet<String>>>,
    has_unless: bool,
    /// Whether its verdict is all that it does.
    verdict_only: bool,
}

/// Keys that are words for people, or what a rule is asked with.
const SAID: &[&str] = &["name", "description", "message"];
/// Keys of a rule whose verdict is all that it does.
const DECIDING: &[&str] = &["match", "unless", "verdict", "approval", "mode"];
/// Fields of a match that are no plain values.
const CIRCUMSTANCES: &[&str] = &["after", "rate", "risk", "time", "if"];

impl<'a> Reader<'a> {
    /// A rule that was read, as it is written.
    pub(super) fn written(&self, entries: &'a [(Key, Node)]) -> Written {
        let mut whole: Vec<String> = Vec::new();
        let mut written = Written {
            verdict_only: true,
            ..Written::default()
        };
        for (key, value) in entries {
            let key = key.text.as_str();
            if SAID.contains(&key) {
                continue;
            }
            written.has_unless |= key == "unless";
            written.verdict_only &= DECIDING.contains(&key);
            whole.push(format!("{key}={}", self.canonical(value)));
            if key == "match" {
                let mut fields = BTreeMap::new();
                written.fields = self.fields("", value, &mut fields).then_some(fields);
            }
        }
        whole.sort_unstable();
        written.whole = whole.join(";");
        written
    }

    /// The same text for values that mean the same.
    fn canonical(&self, node: &'a Node) -> String {
        match &node.value {
            Value::Map(entries) => {
                let mut all: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| format!("{:?}:{}", key.text, self.canonical(value)))
                    .collect();
                all.sort_unstable();
                format!("{{{}}}", all.join(","))
            }
            Value::List(items) => self.sorted(items),
            Value::Text(text) => match self.expansion(text) {
                Some(items) => self.sorted(items),
                None => format!("{text:?}"),
            },
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Number => "number".to_owned(),
        }
    }

    fn sorted(&self, items: &'a [Node]) -> String {
        let mut all: Vec<_> = items.iter().map(|item| self.canonical(item)).collect();
        all.sort_unstable();
        all.dedup();
        match all.as_slice() {
            [one] => one.clone(),
            _ => format!("[{}]", all.join(",")),
        }
    }

    fn expansion(&self, text: &str) -> Option<&'a [Node]> {
        let list = self.lists.get(text.strip_prefix('$')?)?;
        Some(list.items)
    }

    /// The plain values of each field; whether there is nothing else.
    fn fields(
        &self,
        under: &str,
        node: &'a Node,
        into: &mut BTreeMap<String, BTreeSet<String>>,
    ) -> bool {
        let Value::Map(entries) = &node.value else {
            return false;
        };
        entries.iter().all(|(key, value)| {
            let key = key.text.as_str();
            if under.is_empty() && CIRCUMSTANCES.contains(&key) {
                return false;
            }
            let name = format!("{under}{key}");
            let inside = under.is_empty() && key != "protocol"
                || matches!(name.as_str(), "principal.labels" | "principal.claims");
            if inside {
                return self.fields(&format!("{name}."), value, into);
            }
            self.plain(value, into.entry(name).or_default())
        })
    }

    fn plain(&self, node: &'a Node, into: &mut BTreeSet<String>) -> bool {
        match &node.value {
            Value::List(items) => items.iter().all(|item| self.plain(item, into)),
            Value::Text(text) => match self.expansion(text) {
                Some(items) => items.iter().all(|item| self.plain(item, into)),
                None => {
                    into.insert(text.clone());
                    true
                }
            },
            Value::Bool(_) | Value::Int(_) => {
                into.insert(self.canonical(node));
                true
            }
            Value::Null | Value::Number | Value::Map(_) => false,
        }
    }
}

/// Whether all that one value holds for the other holds for too.
fn covers(field: &str, wide: &str, narrow: &str) -> bool {
    if wide == narrow {
        return true;
    }
    match field {
        "postgres.statement" => {
            let (wide, narrow) = (wide.to_uppercase(), narrow.to_uppercase());
            wide == narrow
                || narrow
                    .strip_prefix(&wide)
                    .is_some_and(|rest| rest.starts_with(' '))
        }
        "postgres.tables" | "postgres.functions" => {
            wide == "*" || (!wide.contains('.') && narrow.rsplit('.').next() == Some(wide))
        }
        // A star in a path stops at a slash.
        "principal.exe" | "principal.cgroup" | "http.path" | "ssh.reads" | "ssh.writes" => false,
        "ssh.program" if wide.contains('/') || narrow.contains('/') => false,
        _ => wide.strip_suffix('*').is_some_and(|prefix| {
            !prefix.contains(['*', '?', '[', '{', '\\']) && narrow.starts_with(prefix)
        }),
    }
}

impl Written {
    /// Whether whatever this one matches the other matches too, for certain.
    fn is_within(&self, wide: &Self) -> bool {
        let (Some(narrow), Some(wide)) = (&self.fields, &wide.fields) else {
            return false;
        };
        wide.iter().all(|(field, wide)| {
            narrow.get(field).is_some_and(|narrow| {
                !narrow.is_empty()
                    && narrow
                        .iter()
                        .all(|narrow| wide.iter().any(|wide| covers(field, wide, narrow)))
            })
        })
    }
}

/// Warns of rules that are another rule again, and of those that another rule
/// always overrules.
pub(super) fn warn<'s>(
    rules: &[Arc<Rule>],
    text_of: impl Fn(&Path) -> &'s str,
    faults: &mut Diagnostics,
) {
    let mut known: HashMap<&str, &Rule> = HashMap::new();
    let refusing: Vec<_> = rules
        .iter()
        .filter(|rule| {
            rule.verdict > Some(RuleVerdict::Hold) && !rule.observe && !rule.written.has_unless
        })
        .collect();
    for rule in rules {
        let warning = if let Some(first) = known.get(rule.written.whole.as_str()) {
            Some((format!("`{}` is `{}` again", rule.name, first.name), *first))
        } else {
            known.insert(&rule.written.whole, rule);
            // An exception or an observing rule is overruled like any other.
            let overruled = rule.verdict <= Some(RuleVerdict::Hold)
                && rule.verdict.is_some()
                && rule.written.verdict_only;
            let by = refusing
                .iter()
                .find(|wide| overruled && rule.written.is_within(&wide.written));
            by.map(|by| {
                let message = format!(
                    "`{}` never decides: `{}` refuses all that it matches",
                    rule.name, by.name
                );
                (message, &***by)
            })
        };
        if let Some((message, other)) = warning {
            Report::new(&rule.path, text_of(&rule.path), faults).warning(
                rule.at,
                message,
                Some(format!(
                    "`{}` is at {}:{}",
                    other.name,
                    other.path.display(),
                    other.at.line
                )),
            );
        }
    }
}
