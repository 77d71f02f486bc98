//! `interceptor search`.
//!
//! Sessions are read one after another, newest first, a page at a time; but not those that an
//! [`index`](crate::index) rules out, where there is one.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use interceptor_engine::replay::escape;
use interceptor_engine::replay::json::quiet;
use interceptor_engine::replay::search::{Hit, Pattern, Searcher, Where};
use interceptor_engine::replay::{Raw, table::cut};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Global;
use super::moment::{Moment, Window};
use super::place::Place;
use super::sessions::listing::{Listing, Session, Sought};
use super::told;
use crate::config::Config;
use crate::index::RuledOut;
use crate::recorder::read::Reader;

/// Looks for words in what agents asked and what they were answered.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  interceptor search 'delete from orders' --since 7d\n  interceptor search --regex 'ssn|iban' --in results --agent deploy-bot --json\n\nExit status: 0 found, 1 not found, 2 used wrongly."
)]
pub struct Args {
    /// The words, one after another, with any white space between them
    words: String,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    sought: Sought,
    /// Where to look
    #[arg(long = "in", value_enum, default_value_t = In::All, value_name = "WHERE")]
    place: In,
    /// The words are a regular expression
    #[arg(long)]
    regex: bool,
    /// Upper and lower case are told apart
    #[arg(long)]
    case_sensitive: bool,
    /// So many hits at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    read_from: Place,
}

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum In {
    /// What was asked: statements and parameters, requests, command lines, what was sent
    Commands,
    /// What was answered: rows, bodies, output, errors
    Results,
    /// Both, and what is told of verdicts, questions and notes
    All,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let pattern = if args.regex {
        Pattern::regex(&args.words, args.case_sensitive)
    } else {
        Pattern::words(&args.words, args.case_sensitive)
    };
    let pattern = match pattern.context("what is looked for") {
        Ok(pattern) => pattern,
        Err(error) => return super::used_wrongly(&error),
    };
    if let Err(error) = args.window.check() {
        return super::used_wrongly(&error);
    }
    let mut reader = args.read_from.open(&config)?;
    match search(&mut reader, &args, &pattern, global.json) {
        Ok(0) => Ok(ExitCode::FAILURE),
        Ok(_) => Ok(ExitCode::SUCCESS),
        // Whoever read has read enough.
        Err(error) if super::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// Shows what is found; how much.
fn search(
    reader: &mut Reader,
    args: &Args,
    pattern: &Pattern,
    as_json: bool,
) -> anyhow::Result<usize> {
    let wanted = match args.place {
        In::Commands => Where::Commands,
        In::Results => Where::Results,
        In::All => Where::All,
    };
    let stdout = io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut out = io::BufWriter::new(stdout.lock());
    let mut listing = Listing::under_way_in(args.window);
    let bar = Bar::counting("sessions");
    let ruled_out = match args.regex {
        true => RuledOut::default(),
        false => RuledOut::by(reader, &args.words),
    };
    let (mut found, mut looked) = (0, 0);
    while found < args.limit
        && let Some(session) = listing.next(reader)?
    {
        if !args.sought.fits(&session) {
            continue;
        }
        looked += 1;
        bar.next();
        if ruled_out.has(&session.id()) {
            continue;
        }
        let opened = session.opened();
        let mut show = |hit: Hit| -> anyhow::Result<bool> {
            let at = Moment(opened.0.saturating_add(hit.at.0 / 1000));
            if args.window.holds(at) {
                bar.clear();
                let line = if as_json {
                    object(&session, at, &hit)
                } else {
                    line(&session, at, &hit, colour)
                };
                writeln!(out, "{line}")?;
                out.flush()?;
                found += 1;
            }
            Ok(found < args.limit)
        };
        each_hit(reader, &session.id(), pattern, wanted, &mut show)?;
    }
    drop(bar);
    if found == 0 && args.limit > 0 {
        let of = match args.sought.words() {
            words if words.is_empty() => String::new(),
            words => format!(" of {}", escape::line(&words.join(", "))),
        };
        told::tell(&format!("not found in {looked} sessions{of}"));
    } else if found == args.limit {
        told::tell(&format!("stopped at {found} hits; --limit shows more"));
    }
    Ok(found)
}

/// The first hit in a session.
pub(super) fn first_hit(
    reader: &mut Reader,
    session: &str,
    pattern: &Pattern,
    wanted: Where,
) -> anyhow::Result<Option<Hit>> {
    let mut first = None;
    each_hit(reader, session, pattern, wanted, &mut |hit| {
        first = Some(hit);
        Ok(false)
    })?;
    Ok(first)
}

/// Hands every hit in a session to `each`, until it has enough.
fn each_hit(
    reader: &mut Reader,
    session: &str,
    pattern: &Pattern,
    wanted: Where,
    each: &mut dyn FnMut(Hit) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut searcher = Searcher::new(pattern.clone(), wanted);
    let mut pages = reader.session(session);
    while let Some(entry) = pages.next_entry()? {
        // A damaged entry is `verify`'s business; the others are looked through.
        let Ok(entry) = Raw::from_fields(entry.fields).read() else {
            continue;
        };
        for hit in searcher.push(entry) {
            if !each(hit)? {
                return Ok(());
            }
        }
    }
    for hit in searcher.finish() {
        if !each(hit)? {
            break;
        }
    }
    Ok(())
}

fn line(session: &Session, at: Moment, hit: &Hit, colour: bool) -> String {
    let exchange = match hit.exchange {
        Some(exchange) => format!("{}/{exchange}", session.id()),
        None => session.id(),
    };
    let [before, found, behind] =
        [&hit.before, &hit.found, &hit.behind].map(|text| escape::line(text).into_owned());
    let found = if colour {
        format!("\x1b[1;31m{found}\x1b[0m")
    } else {
        format!("«{found}»")
    };
    format!(
        "{}  {}  {}  {}: {before}{found}{behind}",
        escape::line(&exchange),
        wall(at),
        cut(&escape::line(&session.text("agent")), 24),
        hit.place.name(),
    )
}

fn object(session: &Session, at: Moment, hit: &Hit) -> String {
    let object = json!({
        "session": session.id(),
        "agent": session.text("agent"),
        "target": session.target(),
        "protocol": session.text("protocol"),
        "at": wall(at),
        "at_us": hit.at.0,
        "seq": hit.seq,
        "exchange": hit.exchange,
        "place": hit.place.name(),
        "before": hit.before,
        "found": hit.found,
        "behind": hit.behind,
    });
    quiet(&object.to_string())
}

/// A moment, RFC 3339 in UTC.
fn wall(at: Moment) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// What was looked through, while it is: on standard error, and only where that is a
/// terminal. It is gone when it is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Counts things of which nobody knows how many there are.
    pub(super) fn counting(what: &str) -> Self {
        let template = format!("{{spinner}} {{pos}} {what} looked through, {{elapsed}}");
        let style = ProgressStyle::with_template(&template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        Self(ProgressBar::no_length().with_style(style))
    }

    /// One more.
    pub(super) fn next(&self) {
        self.0.inc(1);
    }

    /// Makes room for a line; it is drawn again with the next thing.
    pub(super) fn clear(&self) {
        if !self.0.is_hidden() {
            self.0.suspend(|| {});
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
