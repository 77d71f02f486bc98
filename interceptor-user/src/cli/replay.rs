//! `interceptor replay`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use interceptor_engine::chain::Check;
use interceptor_engine::event::FlowTime;
use interceptor_engine::replay::http::har::Har;
use interceptor_engine::replay::json::Json;
use interceptor_engine::replay::sql::{self, Sql};
use interceptor_engine::replay::text::{self, Style};
use interceptor_engine::replay::{Entry, Pace, Raw, Timeline};

use super::Global;
use crate::config::Config;
use crate::recorder::read::{Reader, StreamEntry};
use crate::recorder::url_to_read;

/// Shows what happened in a session, in its own time.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  interceptor replay last --speed 4\n\nExit status: 0 shown, 1 not found, or the recording is not as it was recorded."
)]
pub struct Args {
    /// The session: its id, a beginning or end of it, or `last`
    session: String,
    /// So many times as fast as it was [default: 1; json, sql and har: without waiting]
    #[arg(long, value_name = "X")]
    speed: Option<f64>,
    /// Never wait longer than so many seconds
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    idle_limit: f64,
    /// Begin at this time of the session: seconds, `90s`, `1m30s` or `00:01:30`
    #[arg(long, value_name = "T", value_parser = time_of)]
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
    /// Read from this Redis
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
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
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let url = url_to_read(args.redis.as_deref(), &config.recorder, &config.runtime_dir);
    let mut reader = Reader::open(&url, &config.recorder.prefix)?;
    let session = reader.resolve(&args.session)?;

    let on_terminal = args.output.is_none() && io::stdout().is_terminal();
    let out: Box<dyn Write> = match &args.output {
        Some(path) => {
            let file = File::create(path);
            Box::new(file.with_context(|| format!("writing {}", path.display()))?)
        }
        None => Box::new(io::stdout().lock()),
    };
    let format = if global.json {
        Format::Json
    } else {
        args.format
    };
    let in_time = args.speed.is_some() || format == Format::Text;
    let in_time = in_time && !args.instant && args.output.is_none();
    let mut show = Show {
        out: BufWriter::new(out),
        session: session.clone(),
        style: Style {
            colour: on_terminal && std::env::var_os("NO_COLOR").is_none(),
            width: on_terminal.then(terminal_width),
        },
        writer: match format {
            Format::Text => Writer::Text(Box::new(Timeline::new(args.rows))),
            Format::Json => Writer::Json(Json::default()),
            Format::Sql => Writer::Sql(Sql::default()),
            Format::Har => Writer::Har(Box::new(Har::new(&session))),
        },
        pace: Pace::new(
            args.speed.unwrap_or(1.0),
            seconds(args.idle_limit)?,
            args.from.unwrap_or_default(),
        )?,
        in_time,
    };
    match play(&mut reader, &mut show) {
        Ok(whole) => Ok(if whole {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }),
        // Whoever read has read enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// Shows all of it; whether the recording is as it was recorded.
fn play(reader: &mut Reader, show: &mut Show) -> anyhow::Result<bool> {
    let session = show.session.clone();
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
                show.out.flush()?;
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

/// What shows entries, and how.
struct Show {
    out: BufWriter<Box<dyn Write>>,
    session: String,
    style: Style,
    writer: Writer,
    pace: Pace,
    in_time: bool,
}

enum Writer {
    Text(Box<Timeline>),
    Json(Json),
    Sql(Sql),
    Har(Box<Har>),
}

impl Show {
    fn begin(&mut self) -> io::Result<()> {
        match &self.writer {
            Writer::Text(_) => writeln!(self.out, "session {}", self.session),
            Writer::Sql(_) => {
                writeln!(self.out, "-- session {}", self.session)?;
                self.out.write_all(sql::HEADER.as_bytes())
            }
            Writer::Har(har) => self.out.write_all(har.header().as_bytes()),
            Writer::Json(_) => Ok(()),
        }
    }

    /// What stands behind the last entry.
    fn end(&mut self) -> io::Result<()> {
        if let Writer::Har(har) = &mut self.writer {
            self.out.write_all(har.finish().as_bytes())?;
        }
        self.out.flush()
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        // What is not shown is read all the same: later entries lean on it.
        let text = match &mut self.writer {
            Writer::Text(timeline) => timeline
                .push(entry)
                .map(|item| text::render(&item, self.style))
                .unwrap_or_default(),
            Writer::Json(json) => json.render(&self.session, entry),
            Writer::Sql(sql) => sql.render(entry),
            Writer::Har(har) => har.push(entry),
        };
        // An archive is whole or it is none.
        let shows = matches!(self.writer, Writer::Har(_)) || self.pace.shows(entry.at);
        if text.is_empty() || !shows {
            return Ok(());
        }
        let wait = self.pace.wait(entry.at);
        if self.in_time && !wait.is_zero() {
            self.out.flush()?;
            std::thread::sleep(wait);
        }
        self.out.write_all(text.as_bytes())
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[allow(
    clippy::print_stderr,
    reason = "a broken recording is told beside what is shown of it"
)]
fn warn(text: &str) {
    eprintln!("interceptor: {text}");
}

fn seconds(limit: f64) -> anyhow::Result<Option<Duration>> {
    match Duration::try_from_secs_f64(limit) {
        Ok(limit) => Ok(Some(limit)),
        Err(_) if limit.is_infinite() && limit > 0.0 => Ok(None),
        Err(_) => bail!("--idle-limit is a number of seconds, not below zero"),
    }
}

/// `90`, `90s`, `1m30s`, `1h`, `01:30`, `00:01:30`.
fn time_of(text: &str) -> Result<FlowTime, String> {
    let wrong = || format!("{text:?} is not a time: seconds, `90s`, `1m30s` or `00:01:30`");
    let number = |part: &str| match part.parse::<f64>() {
        Ok(value) if value >= 0.0 => Ok(value),
        _ => Err(wrong()),
    };
    let mut total = 0.0;
    if text.contains(':') {
        for part in text.split(':') {
            total = total * 60.0 + number(part)?;
        }
    } else {
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| c.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            let (value, after) = rest.split_at_checked(end).ok_or_else(wrong)?;
            let value = number(value)?;
            let unit = after.chars().next();
            total += value
                * match unit {
                    None | Some('s') => 1.0,
                    Some('m') => 60.0,
                    Some('h') => 3600.0,
                    Some(_) => return Err(wrong()),
                };
            rest = after.get(1..).unwrap_or_default();
        }
    }
    let time = Duration::try_from_secs_f64(total).map_err(|_| wrong())?;
    Ok(FlowTime(
        u64::try_from(time.as_micros()).map_err(|_| wrong())?,
    ))
}

/// Of the terminal that standard output is.
fn terminal_width() -> usize {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the call fills the struct that it is given, which outlives it.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    match size.ws_col {
        width if done == 0 && width > 0 => usize::from(width),
        _ => 80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90", 90.0),
            ("90s", 90.0),
            ("1.5", 1.5),
            ("1m30s", 90.0),
            ("1h", 3600.0),
            ("01:30", 90.0),
            ("00:01:30", 90.0),
        ] {
            let time = time_of(text).unwrap();
            assert!((time.0 as f64 / 1e6 - seconds).abs() < 1e-6, "{text}");
        }
        for text in ["x", "1x", "-1", "1m-30s", "1:-30", "::", "m"] {
            assert!(time_of(text).is_err(), "{text}");
        }
    }
}
