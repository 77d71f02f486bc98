//! Statements: the commands and tables of each class.

use std::fmt::Write as _;

use super::{EXAMPLE, Seen, Sight, What, pattern, quoted, texts};
use crate::replay::Entry;

/// What one rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    classes: Vec<String>,
    with_tables: bool,
}

/// Reads a command; `None` where it cannot be learned from.
pub(super) fn sight(entry: &Entry) -> Option<Sight> {
    let classes = texts(&entry.meta, "classes");
    if classes.is_empty() || classes.contains("unclassified") {
        return None;
    }
    let tables = texts(&entry.meta, "tables");
    let text = std::str::from_utf8(&entry.data).ok();
    // A parameter's place cannot be tested without its value.
    let text = text.filter(|text| !text.is_empty() && text.len() <= EXAMPLE && !text.contains('$'));
    Some(Sight {
        what: What::Statements(Kind {
            classes: classes.into_iter().collect(),
            with_tables: !tables.is_empty(),
        }),
        names: vec![
            ("statement", texts(&entry.meta, "tags")),
            ("tables", tables),
        ],
        example: text.map(|text| format!("postgres: {}", quoted(text))),
    })
}

impl Kind {
    pub(super) fn name(&self) -> String {
        let tables = if self.with_tables { "" } else { "-nothing" };
        format!("{}{tables}", self.classes.join("-"))
    }

    pub(super) fn matching(&self, seen: &Seen, out: &mut String) {
        out.push_str("      postgres:\n");
        let _ = writeln!(out, "        class: [{}]", self.classes.join(", "));
        let _ = writeln!(out, "        statement: {}", seen.list("statement", quoted));
        if self.with_tables {
            let _ = writeln!(out, "        tables: {}", seen.list("tables", pattern));
        } else {
            // Of no table, and not of any.
            out.push_str("        tables: { not: \"*\" }\n");
        }
    }
}
