//! `interceptor replay`.
//!
//! * [`show`] writes what there is to show, and waits in between;
//! * [`screen`] is the terminal of whoever looks at a recorded one;
//! * [`time`] reads times.

mod screen;
mod show;
mod time;

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use interceptor_engine::chain::Check;
use interceptor_engine::event::FlowTime;
use interceptor_engine::replay::http::har::Har;
use interceptor_engine::replay::json::Json;
use interceptor_engine::replay::sql::Sql;
use interceptor_engine::replay::ssh::cast::Cast;
use interceptor_engine::replay::ssh::lines::Lines;
use interceptor_engine::replay::ssh::screen::Player;
use interceptor_engine::replay::ssh::terminals::{Terminals, Unclear};
use interceptor_engine::replay::text::Style;
use interceptor_engine::replay::{Pace, Raw, Timeline};

use self::show::{Only, Show, Writer};
use super::Global;
use super::place::Place;
use crate::config::Config;
use crate::recorder::read::{Reader, StreamEntry};

/// Shows what happened in a session, in its own time.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  interceptor replay last --speed 4\n  interceptor replay last --format asciicast --output shell.cast\n\nExit status: 0 shown, 1 not found, or the recording is not as it was recorded."
)]
pub struct Args {
    /// The session: its id, a beginning or end of it, or `last`
    session: String,
    /// So many times as fast as it was [default: 1; all but text: without waiting]
    #[arg(long, value_name = "X")]
    speed: Option<f64>,
    /// Never wait longer than so many seconds [default: 2]
    #[arg(long, value_name = "S")]
    idle_limit: Option<f64>,
    /// Begin at this time of the session: seconds, `90s`, `1m30s` or `00:01:30`
    #[arg(long, value_name = "T", value_parser = time::time_of)]
    from: Option<FlowTime>,
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write to a file instead, without waiting
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Do not wait
    #[arg(long, conflicts_with = "speed")]
    instant: bool,
    /// Rows of a result that are shown
    #[arg(long, value_name = "N", default_value_t = 100)]
    rows: usize,
    /// Only this channel of an SSH session; of several terminals, the one to play
    #[arg(long, value_name = "N")]
    channel: Option<u64>,
    #[command(flatten)]
    place: Place,
}

/// How a session is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For a person
    Text,
    /// One object a line, for a program
    Json,
    /// A script for psql
    Sql,
    /// An HTTP archive (HAR 1.2), for browsers' tools
    Har,
    /// A terminal of an SSH session, for asciinema (asciicast v2)
    Asciicast,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let mut reader = args.place.open(&config)?;
    let session = reader.resolve(&args.session)?;

    let on_terminal = args.output.is_none() && io::stdout().is_terminal();
    let format = if global.json {
        Format::Json
    } else {
        args.format
    };
    if args.channel.is_some() && !matches!(format, Format::Text | Format::Asciicast) {
        bail!("--channel chooses what text and asciicast show");
    }
    let in_time = args.speed.is_some() || format == Format::Text;
    let in_time = in_time && !args.instant && args.output.is_none();
    let writer = match format {
        Format::Text => text(&mut reader, &session, &args, on_terminal)?,
        Format::Json => Writer::Json(Json::default()),
        Format::Sql => Writer::Sql(Sql::default()),
        Format::Har => Writer::Har(Box::new(Har::new(&session))),
        Format::Asciicast => cast(&mut reader, &session, &args)?,
    };
    // Not before it is clear that there is something to write.
    let out: Box<dyn Write> = match &args.output {
        Some(path) => {
            let file = File::create(path);
            Box::new(file.with_context(|| format!("writing {}", path.display()))?)
        }
        None => Box::new(io::stdout().lock()),
    };
    let mut show = Show::new(
        out,
        session,
        Style {
            colour: on_terminal && std::env::var_os("NO_COLOR").is_none(),
            width: on_terminal.then(|| screen::size().0),
        },
        writer,
        Pace::new(
            args.speed.unwrap_or(1.0),
            time::seconds(args.idle_limit.unwrap_or(2.0))?,
            args.from.unwrap_or_default(),
        )?,
        in_time,
    );
    show.only = args
        .channel
        .filter(|_| format == Format::Text)
        .map(Only::new);
    match play(&mut reader, &mut show) {
        Ok(whole) => Ok(if whole {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }),
        // Whoever read has read enough.
        Err(error) if super::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// What shows a session to a person. A terminal is drawn where there is one to draw on.
fn text(
    reader: &mut Reader,
    session: &str,
    args: &Args,
    on_terminal: bool,
) -> anyhow::Result<Writer> {
    let timeline = Timeline::new(args.rows);
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if on_terminal && !dumb {
        match terminals(reader, session)?.choose(args.channel) {
            Ok(terminal) => {
                let player = Player::new(terminal.clone(), timeline);
                return Ok(Writer::Play(Box::new(player)));
            }
            Err(error @ Unclear::Several(_)) => return Err(error.into()),
            // Then there is nothing to draw.
            Err(Unclear::None | Unclear::Other { .. }) => {}
        }
    }
    Ok(Writer::Text(Box::new(timeline), Lines::default()))
}

fn cast(reader: &mut Reader, session: &str, args: &Args) -> anyhow::Result<Writer> {
    let all = terminals(reader, session)?;
    let terminal = all.choose(args.channel)?;
    let from = args.from.unwrap_or_default();
    // One that is said to be infinite is none.
    let idle_limit = args.idle_limit.filter(|limit| limit.is_finite());
    Ok(Writer::Cast(Box::new(Cast::new(
        session, &all, terminal, from, idle_limit,
    ))))
}

/// The terminals of a session, for which all of it is read.
fn terminals(reader: &mut Reader, session: &str) -> anyhow::Result<Terminals> {
    let mut found = Terminals::default();
    let mut pages = reader.session(session);
    loop {
        let page = pages.next_page()?;
        if page.is_empty() {
            return Ok(found);
        }
        for StreamEntry { fields, .. } in page {
            // What cannot be read is told of when it is shown.
            let Ok(entry) = Raw::from_fields(fields).read() else {
                continue;
            };
            if entry.kind == "open" && entry.meta_text("protocol") != Some("ssh") {
                return Ok(found);
            }
            found.push(&entry);
        }
    }
}

/// Shows all of it; whether the recording is as it was recorded.
fn play(reader: &mut Reader, show: &mut Show) -> anyhow::Result<bool> {
    let session = show.session().to_owned();
    let mut pages = reader.session(&session);
    let mut check = Check::default();
    let mut whole = true;
    show.begin()?;
    loop {
        let page = pages.next_page()?;
        if page.is_empty() {
            break;
        }
        for StreamEntry { fields, .. } in page {
            let raw = Raw::from_fields(fields);
            // After the first break, nothing more can be proved.
            if whole && let Err(broken) = check.event(&raw.stored(&session)) {
                whole = false;
                show.pause()?;
                warn(&broken.to_string());
            }
            match raw.read() {
                Ok(entry) => show.entry(&entry)?,
                Err(error) => {
                    whole = false;
                    warn(&error.to_string());
                }
            }
        }
    }
    show.end()?;
    Ok(whole)
}

#[allow(
    clippy::print_stderr,
    reason = "a broken recording is told beside what is shown of it"
)]
fn warn(text: &str) {
    eprintln!("interceptor: {text}");
}
