//! `interceptor replay`.
//!
//! * [`show`] writes what there is to show, and waits in between;
//! * [`screen`] is the terminal of whoever looks at a recorded one;
//! * [`time`] reads times;
//! * [`against`] says what other rules would have done;
//! * [`again`] does a session again on a scratch server.

mod again;
mod against;
mod screen;
mod show;
mod time;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use interceptor_engine::chain::{Check, Head};
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
use super::place::Place;
use super::told;
use super::{Global, Misused};
use crate::config::Config;
use crate::recorder::read::{Pages, Reader, StreamEntry};
use crate::recorder::seal::Identity;

/// Events in which a terminal is looked for before something is shown.
const SOON: usize = 10_000;

/// Events before the time to begin at that are read: a result that is shown may have
/// begun there.
const LEAD: usize = 500;

/// Shows what happened in a session, in its own time.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  interceptor replay last --speed 4\n  interceptor replay last --format asciicast --output shell.cast\n  interceptor replay last --follow\n  interceptor replay last --against rules\n  PGPASSWORD=… interceptor replay last --to postgresql://me@127.0.0.1:5433/scratch\n\nExit status: 0 shown, 1 not found, or the recording is not as it was recorded.\nWith --against: 0 the same verdicts, 1 others.\nWith --to: 0 the same answers, 1 others, 2 used wrongly or not connected."
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
    /// Go on with what happens, until the session closes
    #[arg(long, conflicts_with = "output")]
    follow: bool,
    /// Say what these rules (a file, or a folder of them) would have done; only where it differs
    #[arg(long, value_name = "RULES", conflicts_with_all = ["speed", "from", "format", "output", "follow", "channel"])]
    against: Vec<PathBuf>,
    /// With `--against`: every exchange
    #[arg(long, requires = "against")]
    all: bool,
    #[command(flatten)]
    again: again::To,
    /// Rows of a result that are shown
    #[arg(long, value_name = "N", default_value_t = 100)]
    rows: usize,
    /// Also show what masks hid, opened with this key (of `age-keygen`), in text, json and har
    #[arg(long, value_name = "KEYFILE", conflicts_with_all = ["against", "to"])]
    unseal: Option<PathBuf>,
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
    if args.again.to.is_some() {
        return again::run(global, &config, &mut reader, &session, &args.again);
    }
    if !args.against.is_empty() {
        let paths = &args.against;
        return against::judge(global, &config, &mut reader, &session, paths, args.all);
    }

    let on_terminal = args.output.is_none() && io::stdout().is_terminal();
    let format = if global.json {
        Format::Json
    } else {
        args.format
    };
    if args.channel.is_some() && !matches!(format, Format::Text | Format::Asciicast) {
        return Err(Misused::say(
            "--channel chooses what text and asciicast show",
        ));
    }
    if args.follow && matches!(format, Format::Har | Format::Asciicast) {
        return Err(Misused::say(
            "--follow goes with --format text, json and sql: the others have an end",
        ));
    }
    if args.unseal.is_some() && !matches!(format, Format::Text | Format::Json | Format::Har) {
        return Err(Misused::say(
            "--unseal shows what masks hid in text, json and har alone",
        ));
    }
    let identity = args.unseal.as_deref().map(Identity::read).transpose()?;
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
            // What was recorded is nobody else's, and least of all what was unsealed.
            let mut how = OpenOptions::new();
            how.write(true).create(true).truncate(true).mode(0o600);
            let file = how.open(path);
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
    show.identity = identity;
    show.only = args
        .channel
        .filter(|_| format == Format::Text)
        .map(Only::new);
    // Statements that are executed later, and pictures, lean on all that was before.
    let skips = matches!(show.writer(), Writer::Text(..) | Writer::Json(_));
    let from = args.from.filter(|_| skips).unwrap_or_default();
    match play(&mut reader, &mut show, from, args.follow) {
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
    // Where what masks hid is shown, each place is marked.
    if on_terminal && !dumb && args.unseal.is_none() {
        let enough = match args.channel {
            Some(_) => usize::MAX,
            None => SOON,
        };
        let found = terminals(reader, session, enough)?;
        match found.choose(args.channel) {
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
    let all = terminals(reader, session, usize::MAX)?;
    let terminal = all.choose(args.channel)?;
    let from = args.from.unwrap_or_default();
    // One that is said to be infinite is none.
    let idle_limit = args.idle_limit.filter(|limit| limit.is_finite());
    Ok(Writer::Cast(Box::new(Cast::new(
        session, &all, terminal, from, idle_limit,
    ))))
}

/// The terminals of a session, for which all of it is read; or `enough` events, where
/// what was found by then is to be shown soon.
fn terminals(reader: &mut Reader, session: &str, enough: usize) -> anyhow::Result<Terminals> {
    let mut found = Terminals::default();
    let mut read = 0;
    let mut pages = reader.session(session);
    loop {
        let page = pages.next_page()?;
        if page.is_empty() || read >= enough {
            return Ok(found);
        }
        read += page.len();
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

/// Shows all of it, or what is from `from` on; whether that is as it was recorded.
fn play(
    reader: &mut Reader,
    show: &mut Show,
    from: FlowTime,
    follow: bool,
) -> anyhow::Result<bool> {
    let session = show.session().to_owned();
    let (mut check, mut pages) = begin(reader, &session, from)?;
    let mut whole = true;
    let mut closed = false;
    show.begin()?;
    loop {
        let mut page = pages.next_page()?;
        if page.is_empty() {
            if closed || !follow {
                break;
            }
            // Whoever looks on has everything by now.
            show.pause()?;
            page = pages.wait()?;
        }
        for StreamEntry { fields, .. } in page {
            let raw = Raw::from_fields(fields);
            // After the first break, nothing more can be proved.
            if whole && let Err(broken) = check.event(&raw.stored(&session)) {
                whole = false;
                show.pause()?;
                told::tell(&broken.to_string());
            }
            match raw.read() {
                Ok(mut entry) => {
                    closed |= entry.kind == "close";
                    if let Some(error) = show.unseal(&mut entry) {
                        whole = false;
                        show.pause()?;
                        told::tell(&format!("event {}: {error}", entry.seq));
                    }
                    show.entry(&entry)?;
                }
                Err(error) => {
                    whole = false;
                    told::tell(&error.to_string());
                }
            }
        }
    }
    show.end()?;
    Ok(whole)
}

/// Where to begin, so that what is from `from` on is shown with what belongs to it: a
/// little before, and what stands there is taken for the chain's beginning.
fn begin<'a>(
    reader: &'a mut Reader,
    session: &str,
    from: FlowTime,
) -> anyhow::Result<(Check, Pages<'a>)> {
    if from > FlowTime(0) {
        let key = reader.session_key(session);
        let opening = reader.after(&key, "0-0", 1)?;
        // An entry's ID has the time at which it happened.
        let opened = opening.first().and_then(|entry| {
            let at = entry.text("at").parse::<u64>().ok()?;
            let millis: u64 = entry.id.split('-').next()?.parse().ok()?;
            Some(millis.saturating_sub(at / 1000))
        });
        if let Some(opened) = opened {
            let first = format!("{}-0", opened.saturating_add(from.0 / 1000));
            let before = reader.before(&key, Some(&first), LEAD)?;
            if before.len() == LEAD
                && let Some(entry) = before.last()
                && let Ok(seq) = entry.text("seq").parse()
                && let Some(head) = Head::from_hex(entry.text("chain").as_bytes())
            {
                let pages = reader.session_behind(session, &entry.id);
                return Ok((Check::behind(seq, head), pages));
            }
        }
    }
    Ok((Check::default(), reader.session(session)))
}
