//! `interceptor sessions tail`.

use std::io::Write;
use std::num::NonZeroUsize;

use interceptor_engine::replay::escape;
use interceptor_engine::replay::json::quiet;
use lru::LruCache;
use serde_json::{Map, Value};

use super::listing::{Session, Sought, millis};
use crate::recorder::read::{ReadError, Reader, StreamEntry, number};

/// Sessions of which is remembered whose they are.
const KNOWN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// What is followed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only alerts
    #[arg(long)]
    alerts: bool,
    #[command(flatten)]
    sought: Sought,
    /// Only this session: its id, a beginning or end of it, or `last`
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Begin with the last so many lines that fit
    #[arg(long, value_name = "N", default_value_t = 0)]
    lines: usize,
}

pub(super) fn follow(
    reader: &mut Reader,
    args: &Args,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let key = reader.key(if args.alerts { "alerts" } else { "live" });
    let session = args
        .session
        .as_deref()
        .map(|session| reader.resolve(session))
        .transpose()?;
    let mut wanted = Wanted {
        sought: &args.sought,
        session,
        known: LruCache::new(KNOWN),
    };
    let mut after = reader.last_id(&key)?;
    for entry in earlier(reader, &key, &after, args.lines, &mut wanted)? {
        tell(&entry, as_json, out)?;
    }
    out.flush()?;
    loop {
        for entry in reader.follow(&key, &after)? {
            after.clone_from(&entry.id);
            if wanted.fits(reader, &entry)? {
                tell(&entry, as_json, out)?;
            }
        }
        out.flush()?;
    }
}

/// The last lines up to `last` that fit, oldest first.
fn earlier(
    reader: &mut Reader,
    key: &str,
    last: &str,
    lines: usize,
    wanted: &mut Wanted<'_>,
) -> Result<Vec<StreamEntry>, ReadError> {
    let mut found = Vec::new();
    let mut before: Option<String> = None;
    while found.len() < lines {
        let page = reader.before(key, before.as_deref(), 500)?;
        let Some(oldest) = page.last() else { break };
        before = Some(oldest.id.clone());
        for entry in page {
            // What came meanwhile is followed.
            let is_later = number(&entry.id) > number(last);
            if found.len() < lines && !is_later && wanted.fits(reader, &entry)? {
                found.push(entry);
            }
        }
    }
    found.reverse();
    Ok(found)
}

/// Which lines are told.
struct Wanted<'a> {
    sought: &'a Sought,
    session: Option<String>,
    /// Whether sessions fit; a line of `live` does not say where its session goes.
    known: LruCache<String, bool>,
}

impl Wanted<'_> {
    fn fits(&mut self, reader: &mut Reader, entry: &StreamEntry) -> Result<bool, ReadError> {
        let id = entry.text("session");
        if let Some(session) = &self.session {
            return Ok(*session == id);
        }
        if self.sought.agent.is_empty() && self.sought.target.is_empty() {
            return Ok(true);
        }
        if id.is_empty() {
            let own = Session {
                open: Some(entry.clone()),
                close: None,
            };
            return Ok(self.sought.fits(&own));
        }
        if let Some(fits) = self.known.get(&id) {
            return Ok(*fits);
        }
        let key = reader.session_key(&id);
        let opening = reader.after(&key, "0-0", 1)?;
        let fits = opening
            .into_iter()
            .next()
            .is_some_and(|entry| self.sought.fits(&whose(entry)));
        self.known.put(id, fits);
        Ok(fits)
    }
}

/// A session by its first event, whose facts are in `meta`.
fn whose(mut entry: StreamEntry) -> Session {
    let meta: Value = serde_json::from_str(&entry.text("meta")).unwrap_or_default();
    for name in ["agent", "target", "origin"] {
        if let Some(text) = meta.get(name).and_then(Value::as_str) {
            let value = text.as_bytes().to_vec();
            entry.fields.push((name.to_owned(), value));
        }
    }
    Session {
        open: Some(entry),
        close: None,
    }
}

fn tell(entry: &StreamEntry, as_json: bool, out: &mut impl Write) -> std::io::Result<()> {
    if as_json {
        let mut object = Map::new();
        object.insert("id".into(), entry.id.clone().into());
        for (name, value) in &entry.fields {
            let value = String::from_utf8_lossy(value).into_owned();
            object.insert(name.clone(), value.into());
        }
        return writeln!(out, "{}", quiet(&Value::Object(object).to_string()));
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
    writeln!(out, "{}  {}", moment(&entry.id), words.join("  "))
}

/// The time of a stream's entry, in UTC.
fn moment(id: &str) -> String {
    let format = time::macros::format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis(id)) * 1_000_000)
        .ok()
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_default()
}
