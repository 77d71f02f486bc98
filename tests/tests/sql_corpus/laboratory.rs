//! A server with the corpus' schema, and what statements do to it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::place::Place;
use interceptor_tests::postgres::{Options, Postgres};

use super::client::Client;
use super::{Entry, SECRETS, folder, list};

/// A server with the schema in it, and a folder that it may write to.
pub(crate) struct Laboratory {
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

    pub(crate) fn connect(&self, database: &str) -> Result<Client> {
        Client::connect(&self.folder, self.postgres.port, database)
    }

    /// Runs an entry, and says what it did.
    pub(crate) fn observe(
        &self,
        entry: &Entry,
        number: usize,
        shared: &mut Shared,
    ) -> Result<String> {
        let made = self.folder.join("made");
        let _ = std::fs::remove_file(&made);
        if entry.alone() {
            let name = format!("alone_{number}");
            self.postgres.sql(&format!(
                "CREATE DATABASE {name} TEMPLATE template_of_corpus"
            ))?;
            let mut alone = Shared {
                client: Some(self.connect(&name)?),
                state: None,
            };
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
pub(crate) struct Shared {
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
pub(crate) fn state(client: &mut Client) -> Result<Vec<String>> {
    const STATE: &str =
        "SELECT concat_ws(' ', '<<', corpus.digest(), corpus.session(), corpus.locks())";
    let answer = client.query(STATE, "")?;
    ensure!(answer.error.is_none(), "no state: {}", answer.text);
    let (_, state) = answer.text.rsplit_once("<<").context("no state")?;
    Ok(state.split_whitespace().map(str::to_owned).collect())
}

/// One server serves the file's tests, one at a time: sequences and settings of
/// the server are everybody's.
pub(crate) struct Turn(MutexGuard<'static, Option<Laboratory>>);

impl Deref for Turn {
    type Target = Laboratory;

    fn deref(&self) -> &Laboratory {
        match &*self.0 {
            Some(laboratory) => laboratory,
            None => unreachable!("a turn begins with a laboratory"),
        }
    }
}

pub(crate) fn laboratory() -> Result<Turn> {
    static LABORATORY: Mutex<Option<Laboratory>> = Mutex::new(None);
    let mut laboratory = LABORATORY.lock().unwrap_or_else(PoisonError::into_inner);
    if laboratory.is_none() {
        *laboratory = Some(Laboratory::start()?);
    }
    Ok(Turn(laboratory))
}
