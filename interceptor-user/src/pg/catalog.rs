//! Names of tables and columns, looked up on a connection of the proxy's own.
//!
//! A result's columns come with the object id of their table and a number; rules
//! name schemas, tables and columns. The names are asked for with the target's
//! credentials and never on the agent's connection: that one may be inside a
//! failed transaction, and what its role may see is not the question.
//!
//! Only integers and hexadecimal digits go into the statements. They run read-only, with a time limit
//! and with `pg_catalog` alone on the search path, so that nothing a database's
//! owner defined is run in their place; all of it is set for the transaction
//! alone, since a pooler may hand the server's connection to others.
//!
//! What the system catalogs do not tell: a whole-row reference inside a view is
//! not noted beside references to single columns of the same table. The view's
//! text is given along for whoever has to know.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use interceptor_engine::pg::catalog::{BaseColumn, TableInfo, TableName};
use interceptor_policy::operation::Table;
use interceptor_proto::pg::backend::{DataRow, Notice};
use interceptor_proto::pg::startup::StartupBuilder;
use interceptor_proto::pg::tag::backend as tag;
use lru::LruCache;

use super::logon::{self, Logon};
use super::upstream;
use super::wire;
use crate::config::{Target, TlsMode};
use crate::net::{Dialer, Origin};
use crate::tls::Stream;

/// How long an answer counts: a renamed column is masked by its new name within
/// this time.
const FRESH: Duration = Duration::from_secs(10);
/// How long an unused connection stays open.
const IDLE: Duration = Duration::from_secs(60);
/// How long a look-up may take as a whole; the agent waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most tables remembered of one database.
const REMEMBERED: usize = 4096;
/// Most tables asked for at once; no result has more columns.
const ASKED: usize = 1664;
/// Largest message, and all of them together; the text of a view may be long.
const MESSAGE_LIMIT: u32 = 1 << 20;
const ANSWER_LIMIT: usize = 16 << 20;
/// Most databases with a connection.
const DATABASES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Catalogs of all databases that sessions go to.
#[derive(Debug)]
pub struct Catalogs {
    dialer: Dialer,
    open: Mutex<LruCache<(Origin, String, String), Arc<Catalog>>>,
}

impl Catalogs {
    /// None yet.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            open: Mutex::new(LruCache::new(DATABASES)),
        }
    }

    /// The catalog of a database of a target; `None` where the target has no
    /// credentials to look anything up with. Nothing is dialled before the first
    /// look-up. What lies behind an SSH connection has a catalog for that connection
    /// alone, by its own `dialer`.
    #[must_use]
    pub fn of(
        &self,
        target: &Target,
        origin: &Origin,
        dialer: &Dialer,
        database: &str,
    ) -> Option<Arc<Catalog>> {
        let user = target.credentials.as_ref()?.user.clone()?;
        let made = |dialer: &Dialer| {
            Arc::new(Catalog {
                dialer: dialer.clone(),
                target: target.clone(),
                origin: origin.clone(),
                user: user.clone(),
                database: database.to_owned(),
                state: tokio::sync::Mutex::default(),
            })
        };
        if origin.here().is_none() {
            return Some(made(dialer));
        }
        let key = (origin.clone(), target.name.clone(), database.to_owned());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(open.get_or_insert(key, || made(&self.dialer))))
    }
}

/// The catalog of one database.
#[derive(Debug)]
pub struct Catalog {
    dialer: Dialer,
    target: Target,
    origin: Origin,
    user: String,
    database: String,
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Connection>,
    /// When the connection was last of use.
    used: Option<Instant>,
    /// What was found, or that nothing was, and when.
    known: HashMap<u32, (Instant, Option<TableInfo>)>,
    /// What names can mean, and when that was found. A name of nothing is not kept:
    /// it may be there a moment later.
    names: HashMap<Table, (Instant, Vec<u32>)>,
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Catalog {
    /// What is known of these tables. One that is not there is left out.
    ///
    /// # Errors
    /// When the service cannot be asked, or does not answer in time.
    pub async fn tables(self: &Arc<Self>, oids: &[u32]) -> Result<Vec<TableInfo>> {
        tokio::time::timeout(PATIENCE, self.look_up(oids))
            .await
            .context("the catalog did not answer in time")?
    }

    /// What each of these names can mean: every table of that name, in the schema
    /// that the name has, or in any. With `fresh`, nothing is taken from memory.
    ///
    /// # Errors
    /// When the service cannot be asked, or does not answer in time.
    pub async fn named(
        self: &Arc<Self>,
        names: &[Table],
        fresh: bool,
    ) -> Result<Vec<(Table, Vec<TableInfo>)>> {
        tokio::time::timeout(PATIENCE, async {
            let oids = self.oids(names, fresh).await?;
            let mut all: Vec<u32> = oids.iter().flat_map(|(_, oids)| oids.clone()).collect();
            all.sort_unstable();
            all.dedup();
            if all.len() > ASKED {
                bail!("{} tables have those names", all.len());
            }
            let infos = self.look_up(&all).await?;
            let info = |oid: &u32| infos.iter().find(|info| info.oid == *oid).cloned();
            let tables = oids
                .into_iter()
                .map(|(name, oids)| (name, oids.iter().filter_map(info).collect()));
            Ok(tables.collect())
        })
        .await
        .context("the catalog did not answer in time")?
    }

    async fn oids(
        self: &Arc<Self>,
        names: &[Table],
        fresh: bool,
    ) -> Result<Vec<(Table, Vec<u32>)>> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if fresh {
            state.names.clear();
            state.known.clear();
        }
        let stale = |name: &&Table| {
            let known = state.names.get(*name);
            known.is_none_or(|(at, _)| now.saturating_duration_since(*at) >= FRESH)
        };
        let missing: Vec<Table> = names.iter().filter(stale).cloned().collect();
        if !missing.is_empty() {
            let results = self.ask(&mut state, &name_statements(&missing)).await?;
            let Ok([rows]) = <[Rows; 1]>::try_from(results) else {
                bail!("the catalog answered with other results than were asked for");
            };
            if state.names.len() + missing.len() > REMEMBERED {
                state.names.clear();
            }
            for name in &missing {
                state.names.remove(name);
            }
            for row in rows {
                let [at, oid] = fields(row)?;
                let at: usize = text(at)?.parse().context("a name's number")?;
                let name = missing.get(at).context("a name that was not asked for")?;
                let entry = state.names.entry(name.clone());
                entry
                    .or_insert_with(|| (now, Vec::new()))
                    .1
                    .push(number(oid)?);
            }
        }
        let oids = |name: &Table| {
            let known = state.names.get(name);
            known.map(|(_, oids)| oids.clone()).unwrap_or_default()
        };
        Ok(names
            .iter()
            .map(|name| (name.clone(), oids(name)))
            .collect())
    }

    async fn look_up(self: &Arc<Self>, oids: &[u32]) -> Result<Vec<TableInfo>> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        let stale = |oid: &u32| {
            let known = state.known.get(oid);
            known.is_none_or(|(at, _)| now.saturating_duration_since(*at) >= FRESH)
        };
        let mut missing: Vec<u32> = oids.iter().copied().filter(stale).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            if missing.len() > ASKED {
                bail!("{} tables are more than a result can have", missing.len());
            }
            let found = tables(self.ask(&mut state, &statements(&missing)).await?)?;
            if state.known.len() + missing.len() > REMEMBERED {
                state.known.clear();
            }
            for oid in missing {
                state.known.insert(oid, (now, None));
            }
            for table in found {
                state.known.insert(table.oid, (now, Some(table)));
            }
        }
        let table = |oid: &u32| state.known.get(oid).and_then(|(_, table)| table.clone());
        Ok(oids.iter().filter_map(table).collect())
    }

    /// Asks the service. A connection that was open may have been closed by now,
    /// so with that one there is a second try.
    async fn ask(self: &Arc<Self>, state: &mut State, text: &str) -> Result<Vec<Rows>> {
        // Taken out while it is in use: a look-up that is given up half-way
        // leaves none behind that would answer the next one with its rest.
        if let Some(mut open) = state.connection.take()
            && let Ok(rows) = open.query(text).await
        {
            state.connection = Some(open);
            state.used = Some(Instant::now());
            return Ok(rows);
        }
        let mut fresh = Box::pin(self.connect()).await?;
        let rows = fresh.query(text).await?;
        state.connection = Some(fresh);
        state.used = Some(Instant::now());
        self.close_when_idle();
        Ok(rows)
    }

    async fn connect(&self) -> Result<Connection> {
        let mut tcp = upstream::dial(&self.dialer, &self.origin).await?;
        let ask = upstream::ask(Some(&self.target), &self.origin, None);
        // There is no agent here to mirror: TLS where the service has it.
        let encrypted = ask.mode != TlsMode::Disable && upstream::ask_tls(&mut tcp).await?;
        if !encrypted && !matches!(ask.mode, TlsMode::Disable | TlsMode::Mirror) {
            bail!("the service does not offer TLS");
        }
        let (mut stream, tls) = if encrypted {
            let (stream, tls) = upstream::encrypt(tcp, &ask).await?;
            (stream, Some(tls))
        } else {
            (Stream::Plain(tcp), None)
        };
        let mut packet = Vec::new();
        StartupBuilder::new(0)
            .set(b"user", self.user.as_bytes())
            .set(b"database", self.database.as_bytes())
            .set(b"application_name", b"interceptor catalog")
            .set(b"client_encoding", b"UTF8")
            .encode(&mut packet)?;
        wire::send(&mut stream, &packet).await?;
        let credentials = self.target.credentials.as_ref();
        let logon = Logon {
            user: &self.user,
            password: credentials.and_then(|credentials| credentials.password.as_ref()),
            loopback: self.origin.is_loopback(),
            mode: ask.mode,
            tls: tls.as_ref(),
        };
        let buffer = logon::logon(&mut stream, &logon).await?;
        let mut connection = Connection { stream, buffer };
        connection.answer().await?;
        Ok(connection)
    }

    /// Closes the connection once nobody has used it for a while.
    fn close_when_idle(self: &Arc<Self>) {
        let catalog = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE).await;
                let Some(catalog) = catalog.upgrade() else {
                    return;
                };
                let mut state = catalog.state.lock().await;
                if state.connection.is_none() {
                    return;
                }
                if state.used.is_none_or(|used| used.elapsed() >= IDLE) {
                    state.connection = None;
                    return;
                }
            }
        });
    }
}

/// The rows of one statement.
type Rows = Vec<Vec<Option<String>>>;

impl Connection {
    /// Runs statements; gives the rows of each that has some.
    async fn query(&mut self, text: &str) -> Result<Vec<Rows>> {
        let length = u32::try_from(text.len() + 5).context("the statements are too long")?;
        let mut message = vec![b'Q'];
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(text.as_bytes());
        message.push(0);
        wire::send(&mut self.stream, &message).await?;
        self.answer().await
    }

    /// Reads up to `ReadyForQuery`.
    async fn answer(&mut self) -> Result<Vec<Rows>> {
        let mut results = Vec::new();
        let mut size = 0;
        let mut failed = None;
        loop {
            let message = wire::message(&mut self.stream, &mut self.buffer, MESSAGE_LIMIT).await?;
            size += message.raw.len();
            if size > ANSWER_LIMIT {
                bail!("the catalog's answer has more than {ANSWER_LIMIT} bytes");
            }
            match message.tag {
                tag::ROW_DESCRIPTION => results.push(Rows::new()),
                tag::DATA_ROW => {
                    let row = DataRow::parse(message.body())?;
                    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                    let row = row.columns().map(|value| value.map(text)).collect();
                    results
                        .last_mut()
                        .context("a row without columns")?
                        .push(row);
                }
                tag::ERROR_RESPONSE => {
                    let error = Notice::parse(message.body())?;
                    let text = error.message().unwrap_or_default();
                    failed = Some(String::from_utf8_lossy(text).into_owned());
                    if error.is_fatal() {
                        break;
                    }
                }
                tag::READY_FOR_QUERY => break,
                // Notices, parameters, completions.
                _ => {}
            }
        }
        match failed {
            Some(error) => bail!("the catalog: {error}"),
            None => Ok(results),
        }
    }
}

/// The statements that ask which tables have these names. Temporary tables are
/// other sessions' own.
fn name_statements(names: &[Table]) -> String {
    let text = |text: &str| {
        format!(
            "pg_catalog.convert_from(pg_catalog.decode('{}', 'hex'), 'UTF8')",
            hex::encode(text)
        )
    };
    let rows: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let schema = name
                .schema
                .as_deref()
                .map_or_else(|| "NULL::text".to_owned(), text);
            format!("({at}, {schema}, {})", text(&name.name))
        })
        .collect();
    format!(
        "BEGIN READ ONLY; \
         SET LOCAL statement_timeout = '5s'; \
         SET LOCAL search_path = pg_catalog; \
         SELECT asked.at, c.oid \
           FROM (VALUES {}) AS asked(at, schema, name) \
           JOIN pg_class c ON c.relname = asked.name AND c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S') \
           JOIN pg_namespace n ON n.oid = c.relnamespace \
          WHERE (asked.schema IS NULL OR n.nspname = asked.schema) \
            AND n.nspname !~ '^pg_(toast|temp)' \
          ORDER BY asked.at, c.oid; \
         COMMIT",
        rows.join(", ")
    )
}

/// The statements that ask for `oids`: tables, columns, parents, what views read.
fn statements(oids: &[u32]) -> String {
    let list: Vec<String> = oids.iter().map(u32::to_string).collect();
    let list = list.join(",");
    // What a view's SELECT rule depends on.
    let reads = "\
        pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
            AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class";
    format!(
        "BEGIN READ ONLY; \
         SET LOCAL statement_timeout = '5s'; \
         SET LOCAL search_path = pg_catalog; \
         SELECT c.oid, n.nspname, c.relname, \
                CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END \
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
          WHERE c.oid IN ({list}) ORDER BY c.oid; \
         SELECT attrelid, attnum, attname FROM pg_attribute \
          WHERE attrelid IN ({list}) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum; \
         WITH RECURSIVE up(start, oid, depth) AS ( \
             SELECT inhrelid, inhparent, 1 FROM pg_inherits WHERE inhrelid IN ({list}) \
             UNION SELECT up.start, i.inhparent, up.depth + 1 \
               FROM up JOIN pg_inherits i ON i.inhrelid = up.oid WHERE up.depth < 64) \
         SELECT up.start, n.nspname, c.relname \
           FROM up JOIN pg_class c ON c.oid = up.oid JOIN pg_namespace n ON n.oid = c.relnamespace \
          GROUP BY up.start, c.oid, n.nspname, c.relname ORDER BY up.start, min(up.depth), c.oid; \
         WITH RECURSIVE reads(start, rel, att) AS ( \
             SELECT r.ev_class, d.refobjid, d.refobjsubid FROM {reads} \
              WHERE r.ev_class IN ({list}) AND r.ev_type = '1' \
             UNION SELECT reads.start, d.refobjid, d.refobjsubid FROM reads JOIN {reads} \
                ON r.ev_class = reads.rel AND r.ev_type = '1') \
         SELECT DISTINCT reads.start, n.nspname, c.relname, a.attname, c.relkind IN ('v', 'm') \
           FROM reads JOIN pg_class c ON c.oid = reads.rel JOIN pg_namespace n ON n.oid = c.relnamespace \
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                              AND reads.att IN (0, a.attnum) \
          ORDER BY 1, 2, 3, 4; \
         COMMIT"
    )
}

/// Puts the four results together.
fn tables(results: Vec<Rows>) -> Result<Vec<TableInfo>> {
    let Ok([names, columns, parents, reads]) = <[Rows; 4]>::try_from(results) else {
        bail!("the catalog answered with other results than were asked for");
    };
    let mut tables = BTreeMap::new();
    for row in names {
        let [oid, schema, name, definition] = fields(row)?;
        let oid = number(oid)?;
        let table = TableInfo {
            oid,
            schema: text(schema)?,
            name: text(name)?,
            definition,
            ..TableInfo::default()
        };
        tables.insert(oid, table);
    }
    // A table that was dropped between two statements has no name, and is out.
    for row in columns {
        let [oid, at, name] = fields(row)?;
        if let Some(table) = tables.get_mut(&number(oid)?) {
            let at = text(at)?.parse().context("a column's number")?;
            table.columns.push((at, text(name)?));
        }
    }
    for row in parents {
        let [oid, schema, name] = fields(row)?;
        if let Some(table) = tables.get_mut(&number(oid)?) {
            table.parents.push(TableName {
                schema: text(schema)?,
                name: text(name)?,
            });
        }
    }
    for row in reads {
        let [oid, schema, name, column, is_view] = fields(row)?;
        if let Some(table) = tables.get_mut(&number(oid)?) {
            let (schema, name) = (text(schema)?, text(name)?);
            if text(is_view)? == "t" {
                let view = TableName {
                    schema: schema.clone(),
                    name: name.clone(),
                };
                if !table.inner_views.contains(&view) {
                    table.inner_views.push(view);
                }
            }
            table.view_of.push(BaseColumn {
                schema,
                table: name,
                column: text(column)?,
            });
        }
    }
    Ok(tables.into_values().collect())
}

fn fields<const N: usize>(row: Vec<Option<String>>) -> Result<[Option<String>; N]> {
    <[_; N]>::try_from(row).map_err(|row| anyhow::anyhow!("{} columns, not {N}", row.len()))
}

fn text(value: Option<String>) -> Result<String> {
    value.context("the catalog answered NULL")
}

fn number(value: Option<String>) -> Result<u32> {
    text(value)?.parse().context("an object's number")
}
