//! What statements mean, one by one.
//!
//! Each entry of `sql_corpus/*.txt` is a statement (`>`, continued by lines that
//! begin with two spaces) and, for each statement of the message, one line:
//!
//! ```text
//! tags | classes | tables | columns | functions | where, "writes inside read" | output
//! ```
//!
//! In an output, `t.c` is a plain column, `*(t u)` a star, `f(t.c)` an expression
//! and what it is computed from, `f*(t.c)` an unknown number of such, `?()` one
//! computed from anything, `?` unclear altogether. Set `SQL_CORPUS=print` to see what
//! is read now, in the same form.

use std::fmt::Write as _;
use std::path::Path;

use interceptor_engine::pg::sql::classify;
use interceptor_policy::operation::{Column, Output, OutputItem, Statement, Table, WhereClause};

fn table(table: &Table) -> String {
    match &table.schema {
        Some(schema) => format!("{schema}.{}", table.name),
        None => table.name.to_string(),
    }
}

fn column(column: &Column) -> String {
    match &column.table {
        Some(of) => format!("{}.{}", table(of), column.name),
        None => format!("-.{}", column.name),
    }
}

fn list<T>(items: &[T], each: impl Fn(&T) -> String) -> String {
    items.iter().map(each).collect::<Vec<_>>().join(" ")
}

fn render(statement: &Statement) -> String {
    let mut facts = Vec::new();
    if let Some(clause) = statement.where_clause {
        facts.push(match clause {
            WhereClause::Missing => "missing",
            WhereClause::AlwaysTrue => "always_true",
            WhereClause::Present => "present",
        });
    }
    if statement.writes_inside_read {
        facts.push("writes inside read");
    }
    let output = match &statement.output {
        Output::Nothing => String::new(),
        Output::Unclear => "?".to_owned(),
        Output::Items(items) => list(items, |item| match item {
            OutputItem::Column(of) => column(of),
            OutputItem::Star(tables) => format!("*({})", list(tables, table)),
            OutputItem::Expression(columns) => format!("f({})", list(columns, column)),
            OutputItem::Spread(columns) => format!("f*({})", list(columns, column)),
            OutputItem::Unclear => "?()".to_owned(),
        }),
    };
    let line = format!(
        "{} | {} | {} | {} | {} | {} | {output}",
        statement.tags.join(", "),
        statement.classes.names().collect::<Vec<_>>().join(" "),
        list(&statement.tables, table),
        list(&statement.columns, column),
        list(&statement.functions, |name| name.to_string()),
        facts.join(", "),
    );
    line.split(" | ")
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join(" | ")
        .trim_end()
        .to_owned()
}

struct Entry {
    at: usize,
    text: String,
    expected: Vec<String>,
}

fn entries(file: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (at, line) in file.lines().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if let Some(text) = line.strip_prefix("> ") {
            entries.push(Entry {
                at: at + 1,
                text: text.to_owned(),
                expected: Vec::new(),
            });
        } else if let (Some(more), Some(entry)) = (line.strip_prefix("  "), entries.last_mut()) {
            entry.text.push('\n');
            entry.text.push_str(more);
        } else if let Some(entry) = entries.last_mut() {
            entry.expected.push(line.trim_end().to_owned());
        }
    }
    entries
}

#[test]
fn every_statement_of_the_corpus_means_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql_corpus");
    let print = std::env::var_os("SQL_CORPUS").is_some();
    let (mut wrong, mut total) = (String::new(), 0);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for entry in entries(&std::fs::read_to_string(&path).unwrap()) {
            total += 1;
            let found: Vec<_> = classify(&entry.text)
                .statements
                .iter()
                .map(render)
                .collect();
            if print {
                println!(
                    "> {}\n{}",
                    entry.text.replace('\n', "\n  "),
                    found.join("\n")
                );
            }
            if found != entry.expected {
                let _ = writeln!(
                    wrong,
                    "{name}:{}: {}\n  expected {}\n  found    {}",
                    entry.at,
                    entry.text,
                    entry.expected.join("\n           "),
                    found.join("\n           "),
                );
            }
        }
    }
    assert!(total >= 120, "only {total} entries were found");
    assert!(print || wrong.is_empty(), "\n{wrong}");
}
