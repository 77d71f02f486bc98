//! The corpus as it stands in its files, made into statements.

use anyhow::{Result, bail};

/// What is expected of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// It is let through, and nothing that it returns hangs on the secret.
    Hidden,
    /// A statement of it is refused.
    Refused,
    /// Either: the text alone may not tell a `COPY`'s columns.
    Either,
}

/// One way, for one column.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What tells it from others in a failure.
    pub(super) name: String,
    /// Sent one after another, inside of a transaction that is rolled back.
    pub(super) statements: Vec<String>,
    pub(super) expected: Expected,
    /// Only the catalog tells what it reads.
    pub(super) catalog: bool,
}

const WAYS: &str = include_str!("../../corpus/masking/ways.txt");
const HARMLESS: &str = include_str!("../../corpus/masking/harmless.txt");

/// A secret column of `people`, and its name in the view `staff`.
pub(super) const COLUMNS: [(&str, &str); 7] = [
    ("ssn", "s"),
    ("card", "c"),
    ("salary", "p"),
    ("token", "t"),
    ("profile", "j"),
    ("email", "e"),
    ("born", "b"),
];

/// Every way to read `column`; those that do not name it only for the first.
pub(super) fn ways(column: &str, in_view: &str) -> Result<Vec<Entry>> {
    let guess = format!("({column}::text ~ '(219-09|4111111|40717|11111111-aaaa|DE1|ada@|1815)')");
    let fill = |text: &str| {
        text.replace("{c}", column)
            .replace("{v}", in_view)
            .replace("{guess}", &guess)
    };
    let mut entries = Vec::new();
    for line in lines(WAYS) {
        let names_it = ["{c}", "{v}", "{guess}"]
            .iter()
            .any(|mark| line.contains(mark));
        if !names_it && column != COLUMNS[0].0 {
            continue;
        }
        let entry = entry(line, &fill)?;
        // Of one column is enough: these are four times as many.
        if column == COLUMNS[0].0 {
            entries.extend(wrapped(&entry));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// What must come as it is.
pub(super) fn harmless() -> Result<Vec<Entry>> {
    lines(HARMLESS)
        .map(|line| entry(line, &str::to_owned))
        .collect()
}

fn lines(file: &str) -> impl Iterator<Item = &str> {
    file.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn entry(line: &str, fill: &dyn Fn(&str) -> String) -> Result<Entry> {
    let (mut catalog, mut expected) = (false, Expected::Hidden);
    let mut text = line;
    while let Some((word, rest)) = text.split_once(": ") {
        match word {
            "catalog" => catalog = true,
            "refused" => expected = Expected::Refused,
            _ => break,
        }
        text = rest;
    }
    if text.is_empty() {
        bail!("an entry without a statement: {line}");
    }
    Ok(Entry {
        name: fill(text),
        statements: text.split(" ;; ").map(fill).collect(),
        expected,
        catalog,
    })
}

/// The same query by other roads: `COPY` in two formats, and a cursor.
fn wrapped(entry: &Entry) -> Vec<Entry> {
    let [query] = entry.statements.as_slice() else {
        return Vec::new();
    };
    let starts = |word: &str| query.starts_with(word);
    let is_query = starts("SELECT ") || starts("WITH ") || starts("TABLE ") || starts("VALUES ");
    if !is_query || query.contains("; ") || query.contains("FOR UPDATE") || writes(query) {
        return Vec::new();
    }
    let copy = |format: &str| Entry {
        name: format!("COPY{format}: {query}"),
        statements: vec![format!("COPY ({query}) TO STDOUT{format}")],
        expected: match entry.expected {
            Expected::Hidden => Expected::Either,
            other => other,
        },
        catalog: entry.catalog,
    };
    vec![
        copy(""),
        copy(" (FORMAT csv)"),
        copy(" (FORMAT binary)"),
        Entry {
            name: format!("cursor: {query}"),
            statements: vec![
                format!("DECLARE by_cursor CURSOR FOR {query}"),
                "FETCH ALL FROM by_cursor".to_owned(),
            ],
            expected: entry.expected,
            catalog: entry.catalog,
        },
    ]
}

fn writes(query: &str) -> bool {
    ["INSERT ", "UPDATE ", "DELETE ", " INTO "]
        .iter()
        .any(|word| query.contains(word))
}
