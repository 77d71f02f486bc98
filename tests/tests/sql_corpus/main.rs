//! The corpus of statements: what each means, what the rules say of it, and
//! that it does on a real PostgreSQL what the corpus says.
//!
//! Files of `corpus/sql` hold entries of this form:
//!
//! ```text
//! > statement
//!   and its further lines
//! setup> SQL that is run before it, and not judged
//! input> what it is sent, where it asks for rows
//! evasion | classes | tables | columns | verdict | what it does
//! ```
//!
//! The first word says what it is for: an `evasion` does what the rules forbid,
//! in some disguise; what is `harmless` only looks as if. Classes, tables and
//! columns are those of all statements of the message. What it does is
//! observed: `writes` (rows, schema, rights, sequences or large objects are
//! others than before), `session` (its settings, its role, its prepared
//! statements, cursors and channels are), `locks`, `shows` (a secret is in the
//! answer), `file` (the server wrote `{folder}/made`), `nothing`, or `error`
//! with its code. `alone` is run outside of a transaction, in a database that
//! is thrown away. What cannot run says `not run`, and why.
//!
//! `SQL_CORPUS=print` shows entries as they are found to be.

mod client;
mod differential;
mod laboratory;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use interceptor_engine::pg::sql::classify;
use interceptor_policy::operation::{Class, Classes, Sql};
use interceptor_policy::{
    DefaultVerdict, Operation, PgOperation, Principal, Protocol, RuleSet, Source, Subject, Target,
    Verdict,
};
use laboratory::{Shared, laboratory};

/// What only a secret's answer holds.
const SECRETS: [&str; 3] = ["078-05-1120", "987654321", "the words of the file"];

#[derive(Clone, Debug, Default)]
struct Entry {
    place: String,
    text: String,
    setup: String,
    input: String,
    /// The fields of its last line.
    expected: Vec<String>,
}

impl Entry {
    fn field(&self, at: usize) -> &str {
        self.expected.get(at).map_or("", String::as_str)
    }

    fn is_evasion(&self) -> bool {
        self.field(0) == "evasion"
    }

    /// What it does, without `alone`.
    fn effect(&self) -> &str {
        self.field(5).trim_start_matches("alone, ")
    }

    fn alone(&self) -> bool {
        self.field(5).starts_with("alone")
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/sql")
}

fn entries() -> Result<Vec<Entry>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())?
        .map(|file| Ok(file?.path()))
        .collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let name = path
            .file_name()
            .context("a name")?
            .to_string_lossy()
            .into_owned();
        let mut entry: Option<Entry> = None;
        for (at, line) in std::fs::read_to_string(&path)?.lines().enumerate() {
            let place = format!("{name}:{}", at + 1);
            if let Some(text) = line.strip_prefix("> ") {
                all.extend(entry.replace(Entry {
                    place,
                    text: text.to_owned(),
                    ..Entry::default()
                }));
            } else if let (Some(entry), false) = (&mut entry, line.starts_with('#')) {
                if let Some(more) = line.strip_prefix("  ") {
                    entry.text.push('\n');
                    entry.text.push_str(more);
                } else if let Some(setup) = line.strip_prefix("setup> ") {
                    setup.clone_into(&mut entry.setup);
                } else if let Some(input) = line.strip_prefix("input> ") {
                    entry.input = input.replace("\\t", "\t");
                } else if !line.trim().is_empty() {
                    ensure!(entry.expected.is_empty(), "{place}: a second line");
                    entry.expected = line
                        .split(" | ")
                        .map(|part| part.trim().to_owned())
                        .collect();
                }
            } else {
                ensure!(line.is_empty() || line.starts_with('#'), "{place}: {line}");
            }
        }
        all.extend(entry);
    }
    Ok(all)
}

fn rules() -> Result<Arc<RuleSet>> {
    let path = folder().join("rules.yaml");
    let text = std::fs::read_to_string(&path)?;
    match RuleSet::load(&[Source { path, text }]) {
        Ok(rules) => Ok(Arc::new(rules)),
        Err(faults) => anyhow::bail!("{faults}"),
    }
}

fn verdict(rules: &Arc<RuleSet>, sql: &Sql, text: &str) -> String {
    let subject = Subject {
        principal: Principal {
            agent: "agent".into(),
            ..Principal::default()
        },
        target: Target {
            name: None,
            host: None,
            address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            origin: "".into(),
            port: 5432,
            tls: false,
            default: DefaultVerdict::Block,
        },
        protocol: Protocol::Postgres,
    };
    let operation = Operation::Postgres(PgOperation {
        sql,
        text,
        database: "postgres",
        user: "postgres",
        meaning: None,
    });
    match rules.scope(&subject).decide(&operation).verdict {
        Verdict::Allow(_) => "allow".to_owned(),
        Verdict::Block(refusal) => {
            format!(
                "block: {}",
                refusal.rule.as_deref().unwrap_or("nothing allows it")
            )
        }
        other => format!("{other:?}"),
    }
}

fn classes(sql: &Sql) -> Classes {
    sql.statements
        .iter()
        .fold(Classes::default(), |all, statement| {
            all.union(statement.classes)
        })
}

/// Every one once, in order of appearance.
fn list<T: ToString>(each: impl Iterator<Item = T>) -> String {
    let mut names: Vec<String> = Vec::new();
    for name in each.map(|each| each.to_string()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.is_empty() {
        true => "-".to_owned(),
        false => names.join(", "),
    }
}

/// The entry's line, as far as it is read off the text.
fn found(rules: &Arc<RuleSet>, entry: &Entry) -> [String; 4] {
    let sql = classify(&entry.text);
    let statements = || sql.statements.iter();
    [
        classes(&sql).names().collect::<Vec<_>>().join(" "),
        list(statements().flat_map(|statement| &statement.tables)),
        list(statements().flat_map(|statement| &statement.columns)),
        verdict(rules, &sql, &entry.text),
    ]
}

fn printing() -> bool {
    std::env::var_os("SQL_CORPUS").is_some()
}

#[test]
fn every_statement_means_what_the_corpus_says_and_is_judged_so() -> Result<()> {
    let (rules, entries) = (rules()?, entries()?);
    let mut wrong = String::new();
    for entry in &entries {
        let found = found(&rules, entry);
        let expected = entry.expected.get(1..5).unwrap_or_default();
        if expected != found && !printing() {
            writeln!(
                wrong,
                "{}: {}\n  expected {}\n  found    {}",
                entry.place,
                entry.text,
                expected.join(" | "),
                found.join(" | ")
            )?;
        }
        let allowed = found.last().is_some_and(|verdict| verdict == "allow");
        if entry.is_evasion() == allowed {
            writeln!(
                wrong,
                "{}: {}\n  {}, but {}",
                entry.place,
                entry.text,
                entry.field(0),
                found.join(" | ")
            )?;
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    let evasions = entries.iter().filter(|entry| entry.is_evasion()).count();
    let harmless = entries.len() - evasions;
    assert!(entries.len() >= 200, "only {} entries", entries.len());
    assert!(
        evasions.abs_diff(harmless) * 10 <= entries.len(),
        "{evasions} evasions and {harmless} harmless look-alikes"
    );
    Ok(())
}

#[test]
fn every_statement_does_on_a_real_server_what_the_corpus_says() -> Result<()> {
    let (rules, entries, laboratory) = (rules()?, entries()?, laboratory()?);
    let (mut wrong, mut not_run, mut shared) = (String::new(), 0, Shared::default());
    for (number, entry) in entries.iter().enumerate() {
        let found = found(&rules, entry);
        let observed = match entry.effect().starts_with("not run") {
            true => {
                not_run += 1;
                entry.effect().to_owned()
            }
            false => laboratory.observe(entry, number, &mut shared)?,
        };
        if printing() {
            print(entry, &found, &observed);
            continue;
        }
        if observed != entry.effect() {
            writeln!(
                wrong,
                "{}: {}\n  expected {}\n  observed {observed}",
                entry.place,
                entry.text,
                entry.effect()
            )?;
        }
        // Whatever the corpus says: what is allowed shows and changes nothing.
        let harm = ["writes", "shows", "file", "locks"]
            .iter()
            .any(|harm| observed.contains(harm));
        if found.last().is_some_and(|verdict| verdict == "allow") && harm {
            writeln!(
                wrong,
                "{}: {}\n  is allowed, and {observed}",
                entry.place, entry.text
            )?;
        }
        let reads = Classes::of(Class::Read).union(Classes::of(Class::CopyOut));
        if reads.contains_all(classes(&classify(&entry.text)))
            && ["writes", "session", "locks", "file"]
                .iter()
                .any(|effect| observed.contains(effect))
            && entry.field(1) != "read copy_out"
        {
            writeln!(
                wrong,
                "{}: {}\n  only reads, and {observed}",
                entry.place, entry.text
            )?;
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    println!("{} statements run, {not_run} not", entries.len() - not_run);
    assert!(
        not_run * 10 <= entries.len(),
        "{not_run} statements are not run"
    );
    Ok(())
}

#[allow(clippy::print_stdout, reason = "asked for with SQL_CORPUS=print")]
fn print(entry: &Entry, found: &[String; 4], observed: &str) {
    println!("> {}", entry.text.replace('\n', "\n  "));
    for (name, text) in [("setup", &entry.setup), ("input", &entry.input)] {
        if !text.is_empty() {
            println!("{name}> {}", text.replace('\t', "\\t"));
        }
    }
    let alone = if entry.alone() { "alone, " } else { "" };
    println!(
        "{} | {} | {alone}{observed}",
        entry.field(0),
        found.join(" | ")
    );
}
