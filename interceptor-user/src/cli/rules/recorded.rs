//! Recorded sessions, one after the other, with a progress display.

use anyhow::Context as _;
use interceptor_engine::replay::{Entry, Raw};

use super::super::Global;
use super::super::moment::{self, Moment};
use super::super::place::Place;
use crate::config::Config;

/// Which sessions.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Only sessions that opened since: `12h` or `7d` ago, a date, or a time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment::since)]
    since: Option<Moment>,
    #[command(flatten)]
    place: Place,
}

/// Hands every entry of every session to `each`, with the session's id; how many
/// sessions there were.
pub(super) fn each_entry(
    global: &Global,
    which: &Which,
    mut each: impl FnMut(&str, Entry),
) -> anyhow::Result<usize> {
    let config = Config::load(global.config.as_deref())?;
    let mut reader = which.place.open(&config)?;
    let sessions = reader.sessions_since(which.since.map(|since| since.0))?;
    let bar = super::super::told::sessions_bar(sessions.len());
    for session in &sessions {
        let mut pages = reader.session(session);
        while let Some(entry) = pages.next_entry()? {
            let entry = Raw::from_fields(entry.fields)
                .read()
                .with_context(|| format!("reading session {session}"))?;
            each(session, entry);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(sessions.len())
}
