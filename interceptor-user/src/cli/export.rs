//! `interceptor export`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::moment::{self, Moment};
use super::place::Place;
use super::told;
use super::{Global, Misused};
use crate::config::Config;
use crate::export::Sink;
use crate::export::jsonl::Jsonl;
use crate::export::otlp::Otlp;
use crate::export::syslog::Syslog;
use crate::export::walk::{Positions, Progress, State, Walk};

/// Bytes of an event's data that are brought, where nothing else is asked for.
const DATA_LIMIT: usize = 64 << 10;

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
    /// Begin with sessions that opened then: `7d` or `2h` ago, a date, or a time as 2026-11-30T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment::since)]
    since: Option<Moment>,
    /// Go on with what is new, until interrupted
    #[arg(long)]
    follow: bool,
    /// Remember here how far it came, and go on from there
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Bytes of an event's data that are brought [default: 65536; syslog gets none]
    #[arg(long, value_name = "N")]
    data_limit: Option<usize>,
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

impl Args {
    /// An error where something is said that this destination would not heed.
    fn check(&self) -> anyhow::Result<()> {
        let is_tls = self
            .address
            .as_deref()
            .is_some_and(|address| address.starts_with("tls://"));
        let syslog = self.to == To::Syslog;
        for (name, is_said, fits, of) in [
            (
                "--url",
                self.url.is_some(),
                self.to == To::Otlp,
                "--to otlp",
            ),
            (
                "--file",
                self.file.is_some(),
                self.to == To::Jsonl,
                "--to jsonl",
            ),
            ("--address", self.address.is_some(), syslog, "--to syslog"),
            (
                "--ca",
                self.ca.is_some(),
                syslog && is_tls,
                "--to syslog with an address tls://",
            ),
            (
                "--data-limit",
                self.data_limit.is_some(),
                !syslog,
                "--to otlp and --to jsonl",
            ),
        ] {
            if is_said && !fits {
                return Err(Misused::say(format!("{name} goes with {of}")));
            }
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    args.check()?;
    let config = Config::load(global.config.as_deref())?;
    let mut sink: Box<dyn Sink> = match args.to {
        To::Jsonl => {
            let opened = Jsonl::open(args.file.as_deref());
            Box::new(opened.context("opening the file for the lines (--file)")?)
        }
        To::Otlp => {
            let url = args.url.as_deref();
            let url =
                url.ok_or_else(|| Misused::say("which collector? --url http://localhost:4318"))?;
            Box::new(Otlp::new(url)?)
        }
        To::Syslog => {
            let address = args.address.as_deref();
            let address = address
                .ok_or_else(|| Misused::say("which server? --address tls://logs.internal:6514"))?;
            Box::new(Syslog::new(address, args.ca.as_deref())?)
        }
    };
    let state = State(args.state.clone());
    let known = state.load(&sink.name())?;
    if let (Some(_), Some(_), Some(path)) = (&known, args.since, &args.state) {
        told::tell(&format!(
            "--since is for the first time: {} says how far it came, and it goes on there",
            path.display()
        ));
    }
    let since = args.since.map(|Moment(ms)| ms);
    let positions = known.unwrap_or_else(|| Positions::new(&sink.name(), since));
    let mut reader = args.place.open(&config)?;
    let mut bar = Bar::new();
    let walked = Walk {
        reader: &mut reader,
        sink: sink.as_mut(),
        state,
        data_limit: args.data_limit.unwrap_or(DATA_LIMIT),
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
        self.0.suspend(|| told::tell(&why));
    }

    fn waits(&mut self, why: &str) {
        self.0.set_message(format!("waits: {why}"));
        if self.0.is_hidden() {
            told::tell(&format!("{why}; trying again"));
        }
    }
}
