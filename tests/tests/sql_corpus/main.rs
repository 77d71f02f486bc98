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

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context as _, Result, ensure};
use client::Client;
use interceptor_engine::pg::sql::classify;
use interceptor_policy::operation::{Class, Classes, Sql};
use interceptor_policy::{
    DefaultVerdict, Operation, PgOperation, Principal, Protocol, RuleSet, Source, Subject, Target,
    Verdict,
};
use interceptor_tests::place::Place;
use interceptor_tests::postgres::{Options, Postgres};

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
            address: std::net::Ipv4Addr::LOCALHOST.into(),
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

/// A server with the schema in it, and a folder that it may write to.
struct Laboratory {
    postgres: Postgres,
    folder: PathBuf,
    _place: Place,
}

impl Laboratory {
    fn start() -> Result<Self> {
        let place = Place::new()?;
        let options = Options {
            settings: "autovacuum = off\nmax_prepared_transactions = 4\nlog_statement = none\n"
                .to_owned(),
            sql: std::fs::read_to_string(folder().join("schema.sql"))?,
            ..Options::default()
        };
        let postgres = Postgres::start(&place, "laboratory", &options)?;
        let folder = postgres.sockets().to_owned();
        std::fs::write(folder.join("secret"), SECRETS[2])?;
        postgres.sql("CREATE DATABASE template_of_corpus TEMPLATE postgres")?;
        Ok(Self {
            postgres,
            folder,
            _place: place,
        })
    }

    fn connect(&self, database: &str) -> Result<Client> {
        Client::connect(&self.folder, self.postgres.port, database)
    }

    /// Runs an entry, and says what it did.
    fn observe(&self, entry: &Entry, number: usize, shared: &mut Shared) -> Result<String> {
        let made = self.folder.join("made");
        let _ = std::fs::remove_file(&made);
        if entry.alone() {
            let name = format!("alone_{number}");
            self.postgres.sql(&format!(
                "CREATE DATABASE {name} TEMPLATE template_of_corpus"
            ))?;
            let mut alone = Shared::default();
            alone.client = Some(self.connect(&name)?);
            return self.effects(&mut alone, entry, &made);
        }
        shared.query(self, "BEGIN")?;
        let effects = self.effects(shared, entry, &made)?;
        shared.query(self, "ROLLBACK")?;
        shared.query(self, "DISCARD ALL")?;
        Ok(effects)
    }

    fn effects(&self, shared: &mut Shared, entry: &Entry, made: &Path) -> Result<String> {
        let client = shared.client.as_mut().context("connected")?;
        let known = shared.state.take();
        if !entry.setup.is_empty() {
            client.query(&self.filled(&entry.setup), "")?;
        }
        let before = match known {
            Some(state) if entry.setup.is_empty() => state,
            _ => state(client)?,
        };
        let answer = client.query(&self.filled(&entry.text), &entry.input)?;
        if let Some(code) = answer.error {
            return Ok(format!("error {code}"));
        }
        let after = state(client).with_context(|| format!("after {}", entry.place))?;
        let [changed, session, locks] = [0, 1, 2].map(|at| before.get(at) != after.get(at));
        // A sequence does not go back with its transaction.
        shared.state = (before == after && entry.setup.is_empty()).then_some(after);
        let shows = SECRETS.iter().any(|secret| answer.text.contains(secret));
        let effects = list(
            [
                (changed, "writes"),
                (session, "session"),
                // Whoever writes locks.
                (locks && !changed, "locks"),
                (shows, "shows"),
                (made.exists(), "file"),
            ]
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, effect)| effect),
        );
        Ok(if effects == "-" {
            "nothing".to_owned()
        } else {
            effects
        })
    }

    fn filled(&self, text: &str) -> String {
        text.replace("{folder}", &self.folder.display().to_string())
    }
}

/// A session that entries take turns in, each in a transaction of its own.
#[derive(Debug, Default)]
struct Shared {
    client: Option<Client>,
    /// As it is before a transaction, where that is known.
    state: Option<Vec<String>>,
}

impl Shared {
    fn query(&mut self, laboratory: &Laboratory, text: &str) -> Result<()> {
        if self.client.is_none() {
            self.client = Some(laboratory.connect("postgres")?);
        }
        if let Some(client) = &mut self.client {
            client.query(text, "")?;
        }
        Ok(())
    }
}

/// Digests of the database and of the session, and how many locks it holds.
fn state(client: &mut Client) -> Result<Vec<String>> {
    const STATE: &str =
        "SELECT concat_ws(' ', '<<', corpus.digest(), corpus.session(), corpus.locks())";
    let answer = client.query(STATE, "")?;
    ensure!(answer.error.is_none(), "no state: {}", answer.text);
    let (_, state) = answer.text.rsplit_once("<<").context("no state")?;
    Ok(state.split_whitespace().map(str::to_owned).collect())
}

/// Shared, so that one server serves the file's tests.
fn laboratory() -> Result<&'static Laboratory> {
    static LABORATORY: OnceLock<Mutex<Option<&'static Laboratory>>> = OnceLock::new();
    let lock = LABORATORY.get_or_init(|| Mutex::new(None));
    let mut laboratory = lock
        .lock()
        .map_err(|_| anyhow::anyhow!("another test failed"))?;
    match *laboratory {
        Some(laboratory) => Ok(laboratory),
        None => Ok(laboratory.insert(Box::leak(Box::new(Laboratory::start()?)))),
    }
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
