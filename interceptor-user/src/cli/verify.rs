//! `interceptor verify`.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use interceptor_engine::event::opened_ms;
use interceptor_engine::evidence::finding::{Finding, Place, What};
use interceptor_engine::evidence::ledger::{Expected, Ledger};
use interceptor_engine::evidence::session::{Outcome, SessionCheck};
use interceptor_engine::evidence::statement::Signed;
use interceptor_engine::replay::escape;
use interceptor_engine::replay::json::quiet;
use serde_json::{Value, json};
use uuid::Uuid;

use super::moment::{self, Moment};
use super::{Global, place};
use crate::config::Config;
use crate::recorder::evidence::{FOLDER, ed25519, keys, last_statement};
use crate::recorder::read::{ReadError, Reader};

/// Entries of `sessions` that are read at a time.
const PAGE: usize = 1000;

/// By how much the clocks of a host and of Redis may differ.
const SKEW_MS: u64 = 3_600_000;

/// What a running daemon may be about to write is looked for so often.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(300);

/// Checks that recordings are as they were recorded, and complete.
///
/// Chains, IDs and order of events, the signatures of the hosts that recorded, and whether all is
/// there that they signed. Names the first event of a session that cannot be believed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  interceptor verify last\n  interceptor verify --all --trusted-keys keys.txt\n\nExit status: 0 all is well, 1 something was found, 2 used wrongly."
)]
pub struct Args {
    /// The session: its id, a beginning or end of it, or `last`
    #[arg(required_unless_present_any = ["all", "since", "agent"], conflicts_with_all = ["all", "since", "agent"])]
    session: Option<String>,
    /// All sessions
    #[arg(long)]
    all: bool,
    /// Only sessions that opened from then on: `7d` or `2h` ago, a date, or a time as 2026-11-30T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment::since)]
    since: Option<Moment>,
    /// Only sessions of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Believe the keys of this list alone (of `interceptor evidence keys`)
    #[arg(long, value_name = "FILE")]
    trusted_keys: Option<PathBuf>,
    #[command(flatten)]
    place: place::Place,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let folder = config.state_dir.join(FOLDER);
    let pinned = args.trusted_keys.as_ref();
    let pinned = pinned.or(config.recorder.evidence.trusted_keys.as_ref());
    let trust =
        keys::trust(pinned.map(PathBuf::as_path), &folder).context("reading the trusted keys")?;
    // Before the store is read, so that it has what this says.
    let own = match args.place.is_own() {
        true => last_statement(&folder).ok().flatten(),
        false => None,
    };
    let reader = args.place.open(&config)?;
    let mut verifier = Verifier {
        reader,
        is_archive: args.place.is_archive(),
        ledger: Ledger::new(trust, ed25519),
        after: String::new(),
        agent: args.agent,
        of_agent: HashSet::new(),
        report: Report::default(),
    };
    match &args.session {
        Some(wanted) => verifier.one(wanted)?,
        None => verifier.many(args.since, own.as_ref())?,
    }
    let report = verifier.report;
    let mut out = io::stdout().lock();
    let told = if global.json {
        writeln!(out, "{}", quiet(&report.json().to_string()))
    } else {
        report.text(&mut out)
    };
    match told {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(match report.findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

struct Verifier {
    reader: Reader,
    is_archive: bool,
    ledger: Ledger,
    /// The last entry of `sessions` that was read.
    after: String,
    agent: Option<String>,
    of_agent: HashSet<Uuid>,
    report: Report,
}

impl Verifier {
    /// Verifies one session, with the statements since it opened.
    fn one(&mut self, wanted: &str) -> anyhow::Result<()> {
        // One that is named in full need not be there.
        let session = match Uuid::try_parse(wanted) {
            Ok(session) => session,
            Err(_) => Uuid::try_parse(&self.reader.resolve(wanted)?)
                .context("the session's id is none")?,
        };
        self.after = format!("{}-0", opened_ms(session).saturating_sub(SKEW_MS));
        self.read_ledger()?;
        let outcome = self.session(session)?;
        if outcome.events == 0 && self.ledger.session(session).is_none() {
            return Err(ReadError::Unknown(session.to_string()).into());
        }
        let in_it = |finding: &Finding| finding.place.session == Some(session);
        let bad = self.ledger.findings().into_iter().filter(in_it);
        self.report.findings.extend(bad);
        self.report.one = Some((session, outcome.clone()));
        self.report.add(outcome);
        // Bad ones that are another session's are not told here.
        self.missing(false, false);
        self.finish();
        Ok(())
    }

    /// Verifies many sessions, and the hosts' statements.
    fn many(&mut self, since: Option<Moment>, own: Option<&Signed>) -> anyhow::Result<()> {
        let since = since.map(|since| since.0);
        let from = since.map_or(0, |ms| ms.saturating_sub(SKEW_MS));
        self.after = format!("{from}-0");
        self.read_ledger()?;
        self.report.findings.extend(self.ledger.findings());
        let sessions: Vec<Uuid> = self
            .ledger
            .sessions()
            .filter(|session| since.is_none_or(|since| opened_ms(*session) >= since))
            .filter(|session| self.agent.is_none() || self.of_agent.contains(session))
            .collect();
        let bar = super::told::sessions_bar(sessions.len());
        for session in sessions {
            let outcome = self.session(session)?;
            self.report.add(outcome);
            bar.inc(1);
        }
        bar.finish_and_clear();
        if let Some(own) = own {
            self.own(own)?;
        }
        self.report.findings.extend(self.ledger.findings());
        self.missing(from == 0, true);
        self.finish();
        Ok(())
    }

    /// Whether the store has the last statement that this host made.
    fn own(&mut self, own: &Signed) -> anyhow::Result<()> {
        let head = own.statement().head();
        for _ in 0..LOOKS {
            let has = self.ledger.has(&own.host, head);
            if has || self.ledger.trimmed(&own.host) >= own.number {
                return Ok(());
            }
            std::thread::sleep(LOOK);
            self.read_ledger()?;
        }
        let last = self.ledger.last(&own.host);
        self.report.findings.push(Finding {
            place: Place {
                host: Some(own.host.clone()),
                ..Place::default()
            },
            what: What::Statements {
                from: (last + 1).min(own.number),
                to: own.number,
            },
        });
        Ok(())
    }

    /// Statements that are missing. An archive has those of its sessions' closes alone.
    fn missing(&mut self, from_start: bool, are_told: bool) {
        if !self.is_archive {
            let missing = self.ledger.missing(from_start, are_told);
            self.report.findings.extend(missing);
        }
    }

    fn finish(&mut self) {
        self.report.statements = self.ledger.statements();
        let notes = self.ledger.notes();
        self.report.notes = notes.iter().map(ToString::to_string).collect();
    }

    /// Reads what is new in `sessions`.
    fn read_ledger(&mut self) -> Result<(), ReadError> {
        let key = self.reader.key("sessions");
        loop {
            let page = self.reader.after(&key, &self.after, PAGE)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            self.after.clone_from(&last.id);
            for entry in &page {
                self.ledger.entry(&entry.id, |name| entry.text(name));
                self.ledger.listed(&entry.fields);
                if self.agent.is_some()
                    && entry.text("event") == "open"
                    && Some(entry.text("agent")) == self.agent
                    && let Ok(session) = Uuid::try_parse(&entry.text("session"))
                {
                    self.of_agent.insert(session);
                }
            }
        }
    }

    /// Verifies one recording. What is missing may be on its way, so it is looked for
    /// again.
    fn session(&mut self, session: Uuid) -> Result<Outcome, ReadError> {
        let mut looks = 0;
        loop {
            let outcome = self.look(session)?;
            let may_come = outcome.finding.as_ref().is_some_and(|finding| {
                matches!(
                    finding.what,
                    What::NoClose | What::NotListed | What::Gone { .. }
                )
            });
            looks += 1;
            if !may_come || looks > 2 {
                return Ok(outcome);
            }
            std::thread::sleep(LOOK);
            self.read_ledger()?;
        }
    }

    fn look(&mut self, session: Uuid) -> Result<Outcome, ReadError> {
        let nothing = Expected::default();
        let expected = self.ledger.session(session).unwrap_or(&nothing);
        let mut check = SessionCheck::new(session, expected);
        let mut pages = self.reader.session(&session.to_string());
        while let Some(entry) = pages.next_entry()? {
            if !check.entry(&entry.id, entry.fields) {
                break;
            }
        }
        Ok(check.end())
    }
}

/// What was verified, and what was found.
#[derive(Default)]
struct Report {
    one: Option<(Uuid, Outcome)>,
    sessions: u64,
    open: u64,
    removed: u64,
    events: u64,
    signed_events: u64,
    statements: usize,
    findings: Vec<Finding>,
    notes: Vec<String>,
}

impl Report {
    fn add(&mut self, outcome: Outcome) {
        self.sessions += 1;
        let is_open = !outcome.is_closed && !outcome.is_removed && outcome.finding.is_none();
        self.open += u64::from(is_open);
        self.removed += u64::from(outcome.is_removed);
        self.events += outcome.events;
        self.signed_events += outcome.signed;
        self.findings.extend(outcome.finding);
    }

    fn json(&self) -> Value {
        let findings: Vec<Value> = self.findings.iter().map(finding).collect();
        let mut report = json!({
            "right": self.findings.is_empty(),
            "sessions": self.sessions,
            "open": self.open,
            "removed": self.removed,
            "events": self.events,
            "signed_events": self.signed_events,
            "statements": self.statements,
            "findings": findings,
            "notes": self.notes,
        });
        if let (Some((session, outcome)), Some(report)) = (&self.one, report.as_object_mut()) {
            report.insert("session".into(), session.to_string().into());
            report.insert("closed".into(), outcome.is_closed.into());
        }
        report
    }

    fn text(&self, out: &mut impl Write) -> io::Result<()> {
        for finding in &self.findings {
            writeln!(out, "FOUND {}", escape::line(&finding.to_string()))?;
        }
        for note in &self.notes {
            writeln!(out, "note: {}", escape::line(note))?;
        }
        let well = if self.findings.is_empty() {
            "as recorded".to_owned()
        } else {
            format!("{} found", self.findings.len())
        };
        match &self.one {
            Some((session, outcome)) if outcome.is_removed => {
                writeln!(out, "session {session}: {well}; removed, as a host signed")
            }
            Some((session, outcome)) => {
                let (events, signed) = (outcome.events, outcome.signed);
                let state = match (outcome.is_closed, &outcome.finding) {
                    (true, _) => "closed",
                    (false, None) => "open",
                    (false, Some(_)) => "not to its end",
                };
                write!(out, "session {session}: {well}; {state}, {events} events")?;
                match signed {
                    0 => writeln!(out, ", none of them signed yet"),
                    _ if signed == events => writeln!(out, ", all of them signed"),
                    _ => writeln!(out, ", signed up to event {}", signed - 1),
                }
            }
            None => writeln!(
                out,
                "{} sessions, {} of them open, {} removed: {well}; {} events, {} of them signed; {} statements",
                self.sessions,
                self.open,
                self.removed,
                self.events,
                self.signed_events,
                self.statements
            ),
        }
    }
}

fn finding(finding: &Finding) -> Value {
    let place = &finding.place;
    let mut object = json!({
        "what": finding.what.name(),
        "text": finding.to_string(),
    });
    let parts = [
        ("session", place.session.map(|id| id.to_string().into())),
        ("seq", place.seq.map(Value::from)),
        ("kind", place.kind.clone().map(Value::from)),
        ("entry", place.entry.clone().map(Value::from)),
        ("host", place.host.clone().map(Value::from)),
    ];
    if let Some(object) = object.as_object_mut() {
        for (name, value) in parts {
            if let Some(value) = value {
                object.insert(name.to_owned(), value);
            }
        }
    }
    object
}
