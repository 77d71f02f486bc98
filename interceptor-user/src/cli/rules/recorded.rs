//! Recorded sessions, one after the other, with a progress display.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use interceptor_engine::replay::{Entry, Raw};

use super::super::Global;
use super::super::place::Place;
use crate::config::{Config, units};

/// Which sessions.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Only sessions that opened within this time, such as 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    #[command(flatten)]
    place: Place,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| "a number with a unit, such as 30m, 12h or 7d".to_owned())
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
    let since = which.since.map(|since| {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX)
    });
    let sessions = reader.sessions_since(since)?;
    // Drawn on a terminal only, and never into what is piped on.
    let bar = ProgressBar::new(sessions.len() as u64).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} sessions, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    for session in &sessions {
        let mut pages = reader.session(session);
        loop {
            let page = pages.next_page()?;
            if page.is_empty() {
                break;
            }
            for entry in page {
                let entry = Raw::from_fields(entry.fields)
                    .read()
                    .with_context(|| format!("reading session {session}"))?;
                each(session, entry);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(sessions.len())
}
