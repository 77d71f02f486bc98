//! `interceptor export`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::Global;
use super::place::{Place, parse_age};
use crate::config::Config;
use crate::export::Sink;
use crate::export::jsonl::Jsonl;
use crate::export::otlp::Otlp;
use crate::export::syslog::Syslog;
use crate::export::walk::{Progress, State, Walk};

/// Brings events to a central log store
///
/// At least once: with --state, what was interrupted goes on where the destination has it, and
/// what was under way is brought again. Every event has an id, SESSION/SEQ, by which a receiver
/// drops what it has. What is brought is what is on record: masked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  interceptor export --to jsonl --since 7d\n  interceptor export --to otlp --url http://localhost:4318 --follow --state /var/lib/interceptor/otlp.state\n  interceptor export --to syslog --address tls://logs.internal:6514 --follow --state /var/lib/interceptor/syslog.state"
)]
pub struct Args {
    /// What the destination speaks
    #[arg(long, value_enum)]
    to: To,
    /// A collector of OpenTelemetry; headers for it are in OTEL_EXPORTER_OTLP_HEADERS
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file that JSON lines are added to [default: standard output]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A syslog server: tcp://host:port or tls://host:port
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Certificates that a syslog server's must chain to [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Only sessions that opened within this time, such as 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    since: Option<Duration>,
    /// Go on with what is new, until interrupted
    #[arg(long)]
    follow: bool,
    /// Remember here how far it came, and go on from there
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Bytes of an event's data that are brought; syslog gets none
    #[arg(long, value_name = "N", default_value_t = 65536)]
    data_limit: usize,
    #[command(flatten)]
    place: Place,
}

/// What a destination speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// OTLP over HTTP, as JSON
    Otlp,
    /// A JSON object a line
    Jsonl,
    /// RFC 5424 over TCP or TLS
    Syslog,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let mut sink: Box<dyn Sink> = match args.to {
        To::Jsonl => {
            let opened = Jsonl::open(args.file.as_deref());
            Box::new(opened.context("opening the file for the lines (--file)")?)
        }
        To::Otlp => {
            let url = args
                .url
                .as_deref()
                .context("which collector? --url http://localhost:4318")?;
            Box::new(Otlp::new(url)?)
        }
        To::Syslog => {
            let address = args.address.as_deref();
            let address = address.context("which server? --address tls://logs.internal:6514")?;
            Box::new(Syslog::new(address, args.ca.as_deref())?)
        }
    };
    let since = args.since.map(|since| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX)
    });
    let state = State(args.state.clone());
    let positions = state.load(&sink.name(), since)?;
    let mut reader = args.place.open(&config)?;
    let mut bar = Bar::new();
    let walked = Walk {
        reader: &mut reader,
        sink: sink.as_mut(),
        state,
        data_limit: args.data_limit,
        follow: args.follow,
        progress: &mut bar,
    }
    .run(positions);
    bar.0.finish_and_clear();
    match walked {
        // Whoever read has read enough.
        Err(error) if super::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        walked => walked.map(|()| ExitCode::SUCCESS),
    }
}

/// How many events were brought; drawn on a terminal only.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{spinner} {pos} events, {per_sec} {msg}");
        let bar = ProgressBar::new_spinner();
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())))
    }
}

impl Progress for Bar {
    fn brought(&mut self, events: usize) {
        self.0.inc(events as u64);
        self.0.set_message("");
    }

    fn lost(&mut self, session: &str) {
        let why = format!("session {session} was removed before all of it was brought");
        self.0.suspend(|| warn(&why));
    }

    fn waits(&mut self, why: &str) {
        self.0.set_message(format!("waits: {why}"));
        if self.0.is_hidden() {
            warn(&format!("{why}; trying again"));
        }
    }
}

#[allow(
    clippy::print_stderr,
    reason = "what keeps the events here is told while it does"
)]
fn warn(why: &str) {
    eprintln!("interceptor: {why}");
}
