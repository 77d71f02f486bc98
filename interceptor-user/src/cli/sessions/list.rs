//! `interceptor sessions list`.

use std::io::{self, Write};

use interceptor_engine::replay::search::{Pattern, Where};
use interceptor_engine::replay::{escape, table::cut};

use super::super::Misused;
use super::super::moment::Window;
use super::super::search::{Bar, first_hit};
use super::super::told;
use super::listing::{Listing, Session, Sought, any};
use crate::index::RuledOut;
use crate::recorder::read::Reader;

/// What a session may speak.
const PROTOCOLS: [&str; 6] = ["postgres", "http", "ssh", "dns", "tls", "unknown"];

/// Which sessions; all that is said has to fit.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sought: Sought,
    /// Only those whose worst verdict is this one
    #[arg(long, value_enum, value_delimiter = ',', value_name = "VERDICT")]
    verdict: Vec<Verdict>,
    /// Only of this protocol
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PROTOCOLS)]
    protocol: Vec<String>,
    /// Only those that have no close on record: they run, or their daemon had no last word
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    window: Window,
    /// Only those in which something was asked that has these words, one after another
    #[arg(long, value_name = "WORDS")]
    text: Option<String>,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// The worst that the rules said in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Verdict {
    /// Everything passed as it was
    Allow,
    /// Something was hidden
    Mask,
    /// Something was refused
    Block,
    /// It was ended
    Kill,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Mask => "mask",
            Self::Block => "block",
            Self::Kill => "kill",
        }
    }
}

impl Args {
    /// What is shown where nothing is asked for.
    pub(super) fn all() -> Self {
        Self {
            limit: 50,
            ..Self::default()
        }
    }

    fn fits(&self, session: &Session) -> bool {
        let worst = session.worst();
        self.sought.fits(session)
            && any(&self.protocol, &session.text("protocol"))
            && (self.verdict.is_empty() || self.verdict.iter().any(|one| one.name() == worst))
            && !(self.open && session.close.is_some())
    }

    /// What is asked for, in words.
    fn words(&self) -> String {
        let mut words = self.sought.words();
        if !self.verdict.is_empty() {
            let names: Vec<&str> = self.verdict.iter().map(|one| one.name()).collect();
            words.push(format!("verdict {}", names.join(" or ")));
        }
        if !self.protocol.is_empty() {
            words.push(format!("protocol {}", self.protocol.join(" or ")));
        }
        if self.open {
            words.push("open".to_owned());
        }
        if self.window.since.is_some() || self.window.until.is_some() {
            words.push("in that time".to_owned());
        }
        if let Some(text) = &self.text {
            words.push(format!("text {text:?}"));
        }
        words.join(", ")
    }
}

pub(super) fn show(
    reader: &mut Reader,
    list: &Args,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    list.window.check()?;
    let pattern = list
        .text
        .as_deref()
        .map(|text| Pattern::words(text, false))
        .transpose()
        .map_err(|error| Misused::say(format!("--text: {error}")))?;
    let ruled_out = match &list.text {
        Some(text) => RuledOut::by(reader, text),
        None => RuledOut::default(),
    };
    let mut listing = Listing::opened_in(list.window);
    let (mut shown, mut looked) = (0, 0);
    let bar = pattern.is_some().then(|| Bar::counting("sessions"));
    while shown < list.limit
        && let Some(session) = listing.next(reader)?
    {
        looked += 1;
        if !list.fits(&session) {
            continue;
        }
        if let Some(pattern) = &pattern {
            if let Some(bar) = &bar {
                bar.next();
            }
            let session = session.id();
            if ruled_out.has(&session)
                || first_hit(reader, &session, pattern, Where::Commands)?.is_none()
            {
                continue;
            }
        }
        if let Some(bar) = &bar {
            bar.clear();
        }
        if as_json {
            writeln!(out, "{}", session.json_line())?;
        } else {
            if shown == 0 {
                head(out)?;
            }
            row(&session, out)?;
        }
        shown += 1;
    }
    drop(bar);
    if shown == 0 && list.limit > 0 {
        let asked = escape::line(&list.words()).into_owned();
        told::tell(&match (looked, asked.is_empty()) {
            (0, true) => "no session is recorded here".to_owned(),
            (0, false) => format!("no session is recorded here that could fit: {asked}"),
            (looked, _) => format!("none of {looked} sessions fits: {asked}"),
        });
    }
    Ok(())
}

fn head(out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<36}  {:<19}  {:<16}  {:<16}  {:<8}  {:>8}  {:>9}  VERDICT",
        "SESSION", "OPENED", "AGENT", "TARGET", "PROTOCOL", "SECONDS", "EXCHANGES"
    )
}

fn row(session: &Session, out: &mut impl Write) -> io::Result<()> {
    let field = |text: String, width| cut(&escape::line(&text), width);
    let opened: String = session.text("at_wall").chars().take(19).collect();
    let seconds = match &session.close {
        Some(close) => close.text("seconds"),
        None => "open".to_owned(),
    };
    let line = format!(
        "{:<36}  {:<19}  {:<16}  {:<16}  {:<8}  {:>8}  {:>9}  {}",
        field(session.id(), 36),
        field(opened.replace('T', " "), 19),
        field(session.text("agent"), 16),
        field(session.target(), 16),
        field(session.text("protocol"), 8),
        field(seconds, 8),
        field(session.text("exchanges"), 9),
        field(session.worst(), 10),
    );
    writeln!(out, "{}", line.trim_end())
}
