//! `interceptor sessions`.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use interceptor_engine::replay::escape;
use interceptor_engine::replay::json::quiet;
use interceptor_engine::replay::table::cut;
use serde_json::{Map, Value, json};

use super::Global;
use super::place::Place;
use crate::config::Config;
use crate::recorder::read::{Reader, StreamEntry};

/// Entries of `sessions` that are read at a time.
const PAGE: usize = 500;

/// Longest answer of the daemon's.
const ANSWER_LIMIT: u64 = 1 << 20;

/// Lists, shows and follows sessions, and ends them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  interceptor sessions list --limit 10")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The sessions, newest first (also without a subcommand)
    #[command(after_help = "Example:\n  interceptor sessions list --limit 10")]
    List(List),
    /// One session: who, where, how much
    #[command(after_help = "Example:\n  interceptor sessions show last")]
    Show {
        /// The session: its id, a beginning or end of it, or `last`
        session: String,
    },
    /// What happens now, a line an event, until interrupted
    #[command(after_help = "Example:\n  interceptor sessions tail --alerts")]
    Tail {
        /// Only alerts
        #[arg(long)]
        alerts: bool,
    },
    /// Ends a running session
    #[command(after_help = "Example:\n  interceptor sessions kill last")]
    Kill {
        /// The session: its id, a beginning or end of it, or `last`
        session: String,
    },
}

#[derive(Debug, Default, clap::Args)]
struct List {
    /// Only of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only to this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let mut out = io::stdout().lock();
    let what = args.what.unwrap_or_else(|| {
        What::List(List {
            limit: 50,
            ..List::default()
        })
    });
    // The daemon is asked even where Redis does not answer.
    if let What::Kill { session } = &what
        && let Ok(session) = session.parse::<uuid::Uuid>()
    {
        kill(&config.admin.socket, &session.to_string())?;
        writeln!(out, "{session} is ended")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut reader = args.place.open(&config)?;
    let done = match what {
        What::List(list) => show_list(&mut reader, &list, global.json, &mut out),
        What::Show { session } => show_one(&mut reader, &session, global.json, &mut out),
        What::Tail { alerts } => tail(&mut reader, alerts, global.json, &mut out),
        What::Kill { session } => {
            let session = reader.resolve(&session)?;
            kill(&config.admin.socket, &session)?;
            writeln!(out, "{session} is ended").map_err(Into::into)
        }
    };
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever read has read enough.
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error),
    }
}

/// A session: its opening, and its close where it has one.
#[derive(Default)]
struct Session {
    open: Option<StreamEntry>,
    close: Option<StreamEntry>,
}

impl Session {
    /// A fact of the close, or of the opening.
    fn text(&self, name: &str) -> String {
        [&self.close, &self.open]
            .into_iter()
            .flatten()
            .map(|entry| entry.text(name))
            .find(|text| !text.is_empty())
            .unwrap_or_default()
    }

    fn opened(&self) -> String {
        self.open
            .as_ref()
            .map(|open| open.text("at_wall"))
            .unwrap_or_default()
    }

    /// All facts in one object; the opening's under their names, the close's beside.
    fn json(&self) -> Value {
        let mut out = Map::new();
        for entry in [&self.open, &self.close].into_iter().flatten() {
            for (name, value) in &entry.fields {
                if name == "event" || name == "line" {
                    continue;
                }
                let text = String::from_utf8_lossy(value);
                // Objects and numbers of the original come back as such.
                let value = serde_json::from_str::<Value>(&text)
                    .ok()
                    .filter(|value| !value.is_string())
                    .unwrap_or_else(|| text.into_owned().into());
                out.insert(name.clone(), value);
            }
        }
        out.insert("closed".into(), self.close.is_some().into());
        Value::Object(out)
    }
}

fn show_list(
    reader: &mut Reader,
    list: &List,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let key = reader.key("sessions");
    let mut closes: HashMap<String, StreamEntry> = HashMap::new();
    let mut shown = 0;
    let mut before = None;
    if !as_json {
        writeln!(
            out,
            "{:<36}  {:<20}  {:<16}  {:<16}  {:>8}  {:>9}  VERDICT",
            "SESSION", "OPENED", "AGENT", "TARGET", "SECONDS", "EXCHANGES"
        )?;
    }
    // Newest first, so a close is met before its opening.
    while shown < list.limit {
        let page = reader.before(&key, before.as_deref(), PAGE)?;
        let Some(oldest) = page.last() else { break };
        before = Some(oldest.id.clone());
        for entry in page {
            let id = entry.text("session");
            if entry.text("event") != "open" {
                closes.insert(id, entry);
                continue;
            }
            let session = Session {
                close: closes.remove(&id),
                open: Some(entry),
            };
            let fits = |wanted: &Option<String>, name| {
                wanted
                    .as_ref()
                    .is_none_or(|wanted| session.text(name) == *wanted)
            };
            if !fits(&list.agent, "agent") || !fits(&list.target, "target") {
                continue;
            }
            if as_json {
                writeln!(out, "{}", quiet(&session.json().to_string()))?;
            } else {
                row(&id, &session, out)?;
            }
            shown += 1;
            if shown == list.limit {
                break;
            }
        }
    }
    Ok(())
}

fn row(id: &str, session: &Session, out: &mut impl Write) -> io::Result<()> {
    let field = |text: String, width| cut(&escape::line(&text), width);
    let opened: String = session.opened().chars().take(19).collect();
    let (seconds, verdict) = match &session.close {
        Some(close) => (close.text("seconds"), worst(session)),
        None => ("open".to_owned(), String::new()),
    };
    let target = match session.text("target") {
        target if target.is_empty() => session.text("origin"),
        target => target,
    };
    let line = format!(
        "{:<36}  {:<20}  {:<16}  {:<16}  {:>8}  {:>9}  {}",
        field(id.to_owned(), 36),
        field(opened.replace('T', " "), 20),
        field(session.text("agent"), 16),
        field(target, 16),
        field(seconds, 8),
        field(session.text("exchanges"), 9),
        field(verdict, 10),
    );
    writeln!(out, "{}", line.trim_end())
}

fn worst(session: &Session) -> String {
    match session.text("worst") {
        worst if worst.is_empty() => session.text("verdict"),
        worst => worst,
    }
}

fn show_one(
    reader: &mut Reader,
    wanted: &str,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let id = reader.resolve(wanted)?;
    let key = reader.key("sessions");
    let mut session = Session::default();
    let mut before = None;
    while session.open.is_none() {
        let page = reader.before(&key, before.as_deref(), PAGE)?;
        let Some(oldest) = page.last() else { break };
        before = Some(oldest.id.clone());
        for entry in page {
            if entry.text("session") == id {
                match entry.text("event").as_str() {
                    "open" => session.open = Some(entry),
                    _ => session.close = Some(entry),
                }
            }
        }
    }
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut pages = reader.session(&id);
    loop {
        let page = pages.next_page()?;
        if page.is_empty() {
            break;
        }
        for entry in page {
            *kinds.entry(entry.text("kind")).or_default() += 1;
        }
    }
    if as_json {
        let mut facts = session.json();
        if let Some(facts) = facts.as_object_mut() {
            facts.insert("session".into(), id.into());
            facts.insert("kinds".into(), json!(kinds));
        }
        writeln!(out, "{}", quiet(&facts.to_string()))?;
        return Ok(());
    }
    writeln!(out, "session  {id}")?;
    for (title, entry) in [("opened", &session.open), ("closed", &session.close)] {
        let Some(entry) = entry else {
            writeln!(out, "{title}: not on record")?;
            continue;
        };
        writeln!(out, "{title}:")?;
        for (name, value) in &entry.fields {
            if name != "event" && name != "session" {
                let value = String::from_utf8_lossy(value);
                writeln!(out, "  {:<16} {}", escape::line(name), escape::line(&value))?;
            }
        }
    }
    writeln!(out, "events:")?;
    for (kind, count) in kinds {
        writeln!(out, "  {:<16} {count}", escape::line(&kind))?;
    }
    Ok(())
}

fn tail(
    reader: &mut Reader,
    alerts: bool,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let key = reader.key(if alerts { "alerts" } else { "live" });
    let mut after = reader.last_id(&key)?;
    loop {
        for entry in reader.follow(&key, &after)? {
            after.clone_from(&entry.id);
            if as_json {
                let mut object = Map::new();
                object.insert("id".into(), entry.id.clone().into());
                for (name, value) in &entry.fields {
                    let value = String::from_utf8_lossy(value).into_owned();
                    object.insert(name.clone(), value.into());
                }
                writeln!(out, "{}", quiet(&Value::Object(object).to_string()))?;
                continue;
            }
            let session = entry.text("session");
            // A UUIDv7's end tells sessions apart; its beginning is the time.
            let short = session.get(24..).unwrap_or(&session).to_owned();
            let severity = match entry.text("severity") {
                severity if severity.is_empty() => entry.text("alert"),
                severity => severity,
            };
            let words = [
                short,
                entry.text("agent"),
                entry.text("kind"),
                severity,
                entry.text("line"),
            ];
            let words: Vec<_> = words
                .iter()
                .filter(|word| !word.is_empty())
                .map(|word| escape::line(word))
                .collect();
            writeln!(out, "{}  {}", moment(&entry.id), words.join("  "))?;
        }
        out.flush()?;
    }
}

/// The time of a stream's entry, in UTC.
fn moment(id: &str) -> String {
    let millis: i128 = id
        .split('-')
        .next()
        .and_then(|millis| millis.parse().ok())
        .unwrap_or_default();
    let format = time::macros::format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    time::OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000)
        .ok()
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_default()
}

/// Asks the daemon to end a session.
fn kill(socket: &Path, session: &str) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!(
            "asking the daemon at {}; is `interceptor run` running?",
            socket.display()
        )
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    writeln!(stream, "{}", json!({ "kill": { "session": session } }))?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_LIMIT)).read_line(&mut answer)?;
    let answer: Value =
        serde_json::from_str(&answer).context("the daemon's answer makes no sense")?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => bail!("{}", escape::line(error)),
        None => Ok(()),
    }
}
