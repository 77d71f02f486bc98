//! `interceptor sessions show`.

use std::collections::BTreeMap;
use std::io::Write;

use interceptor_engine::replay::escape;
use interceptor_engine::replay::json::quiet;
use serde_json::{Value, json};

use super::listing::{Listing, Session, opened_at};
use crate::cli::moment::Window;
use crate::recorder::read::{Reader, StreamEntry};

/// Kinds of events that are shown with their line.
const STANDS_OUT: [&str; 8] = [
    "verdict", "hold", "approval", "limit", "gap", "mask", "error", "note",
];

/// Which session.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The session: its id, a beginning or end of it, or `last`
    session: String,
    /// Lines of what stands out in it (refusals, questions, masks, errors) that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    lines: usize,
}

pub(super) fn show(
    reader: &mut Reader,
    args: &Args,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let id = reader.resolve(&args.session)?;
    let session = found(reader, &id)?;
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut outstanding: Vec<StreamEntry> = Vec::new();
    let mut more = 0;
    let mut pages = reader.session(&id);
    while let Some(mut entry) = pages.next_entry()? {
        let kind = entry.text("kind");
        if STANDS_OUT.contains(&kind.as_str()) {
            if outstanding.len() < args.lines {
                entry
                    .fields
                    .retain(|(name, _)| name != "data" && name != "meta");
                outstanding.push(entry);
            } else {
                more += 1;
            }
        }
        *kinds.entry(kind).or_default() += 1;
    }
    if as_json {
        let mut facts = session.json();
        if let Some(facts) = facts.as_object_mut() {
            facts.insert("session".into(), id.into());
            facts.insert("kinds".into(), json!(kinds));
            let lines = outstanding.iter().map(|entry| {
                json!({
                    "at_us": number(&entry.text("at")),
                    "kind": entry.text("kind"),
                    "exchange": number(&entry.text("exchange")),
                    "line": entry.text("line"),
                })
            });
            facts.insert("stands_out".into(), Value::Array(lines.collect()));
            facts.insert("stands_out_more".into(), more.into());
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
    if !outstanding.is_empty() {
        writeln!(out, "stands out:")?;
    }
    for entry in outstanding {
        let seconds = number(&entry.text("at")).unwrap_or_default() / 1000;
        let exchange = match entry.text("exchange") {
            exchange if exchange.is_empty() => String::new(),
            exchange => format!(" #{}", escape::line(&exchange)),
        };
        writeln!(
            out,
            "  {:>7}.{:03} s{exchange}  {}: {}",
            seconds / 1000,
            seconds % 1000,
            escape::line(&entry.text("kind")),
            escape::line(&entry.text("line"))
        )?;
    }
    if more > 0 {
        writeln!(out, "  and {more} more")?;
    }
    Ok(())
}

/// The session's opening and close.
fn found(reader: &mut Reader, id: &str) -> anyhow::Result<Session> {
    // Its opening is not told of before it opened, so nothing older is looked at.
    let mut listing = Listing::opened_in(Window {
        since: Some(opened_at(id)),
        until: None,
    });
    while let Some(session) = listing.next(reader)? {
        if session.id() == id {
            return Ok(session);
        }
    }
    Ok(Session::default())
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}
