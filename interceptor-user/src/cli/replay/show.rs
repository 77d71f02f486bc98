//! What shows entries, and how.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::time::Instant;

use interceptor_engine::event::FlowTime;
use interceptor_engine::replay::http::har::Har;
use interceptor_engine::replay::json::Json;
use interceptor_engine::replay::sql::{self, Sql};
use interceptor_engine::replay::ssh;
use interceptor_engine::replay::ssh::cast::Cast;
use interceptor_engine::replay::ssh::lines::Lines;
use interceptor_engine::replay::ssh::screen::{Player, Step};
use interceptor_engine::replay::text::{self, Style};
use interceptor_engine::replay::{Entry, Pace, Timeline};

use super::screen::{self, Screen};
use crate::recorder::seal::{Identity, SealError};

/// Exchanges of other channels that are remembered.
const OTHERS_LIMIT: usize = 4096;

/// Who writes.
pub(super) enum Writer {
    /// For a person.
    Text(Box<Timeline>, Lines),
    /// For a person, with a terminal to draw on.
    Play(Box<Player>),
    /// For a program.
    Json(Json),
    /// For a database.
    Sql(Sql),
    /// An archive.
    Har(Box<Har>),
    /// A terminal's recording.
    Cast(Box<Cast>),
}

/// One channel alone, and what belongs to no channel.
pub(super) struct Only {
    channel: u64,
    /// Verdicts say their exchange and not their channel.
    others: BTreeSet<u64>,
}

impl Only {
    pub(super) fn new(channel: u64) -> Self {
        Self {
            channel,
            others: BTreeSet::new(),
        }
    }

    fn wants(&mut self, entry: &Entry) -> bool {
        match (ssh::channel(entry), entry.exchange) {
            (Some(channel), _) if channel == self.channel => true,
            (Some(_), exchange) => {
                self.others.extend(exchange);
                if self.others.len() > OTHERS_LIMIT {
                    self.others.pop_first();
                }
                false
            }
            (None, exchange) => exchange.is_none_or(|exchange| !self.others.contains(&exchange)),
        }
    }
}

/// What shows entries, and how.
pub(super) struct Show {
    out: BufWriter<Box<dyn Write>>,
    session: String,
    style: Style,
    writer: Writer,
    pace: Pace,
    in_time: bool,
    /// Since when what is shown last is there.
    shown: Instant,
    screen: Option<Screen>,
    /// Of which channel; all where none is said.
    pub(super) only: Option<Only>,
    /// Opens what masks hid.
    pub(super) identity: Option<Identity>,
}

impl Show {
    pub(super) fn new(
        out: Box<dyn Write>,
        session: String,
        style: Style,
        writer: Writer,
        pace: Pace,
        in_time: bool,
    ) -> Self {
        Self {
            out: BufWriter::new(out),
            session,
            style,
            writer,
            pace,
            in_time,
            shown: Instant::now(),
            screen: None,
            only: None,
            identity: None,
        }
    }

    /// Puts what masks hid in the place of what the agent got; what keeps it from that.
    pub(super) fn unseal(&self, entry: &mut Entry) -> Option<SealError> {
        let identity = self.identity.as_ref()?;
        if entry.sealed.is_empty() {
            return None;
        }
        match identity.open(&entry.sealed) {
            Ok(plain) => entry.unmask(&plain).err().map(SealError::from),
            Err(error) => Some(error),
        }
    }

    pub(super) fn session(&self) -> &str {
        &self.session
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Something is told beside what is shown, or nothing more is there yet.
    pub(super) fn pause(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub(super) fn begin(&mut self) -> io::Result<()> {
        match &self.writer {
            Writer::Text(..) | Writer::Play(_) => writeln!(self.out, "session {}", self.session),
            Writer::Sql(_) => {
                writeln!(self.out, "-- session {}", self.session)?;
                self.out.write_all(sql::HEADER.as_bytes())
            }
            Writer::Har(har) => self.out.write_all(har.header().as_bytes()),
            Writer::Cast(cast) => self.out.write_all(cast.header().as_bytes()),
            Writer::Json(_) => Ok(()),
        }
    }

    /// What stands behind the last entry.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let text = match &mut self.writer {
            Writer::Har(har) => har.finish(),
            Writer::Cast(cast) => cast.finish(),
            Writer::Text(timeline, lines) => lines
                .finish()
                .iter()
                .filter_map(|entry| timeline.push(entry))
                .map(|item| text::render(&item, self.style))
                .collect(),
            Writer::Play(player) => {
                for step in player.finish() {
                    self.step(step, FlowTime(u64::MAX))?;
                }
                String::new()
            }
            Writer::Json(_) | Writer::Sql(_) => String::new(),
        };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        if let Some(only) = &mut self.only
            && !only.wants(entry)
        {
            return Ok(());
        }
        let is_text = matches!(self.writer, Writer::Text(..));
        if is_text && entry.is_unmasked && self.pace.shows(entry.at) {
            self.wait(entry.at)?;
            let text = text::unmasked(entry, self.style);
            self.out.write_all(text.as_bytes())?;
        }
        // What is not shown is read all the same: later entries lean on it.
        let text = match &mut self.writer {
            Writer::Play(player) => {
                for step in player.push(entry) {
                    self.step(step, entry.at)?;
                }
                return Ok(());
            }
            Writer::Text(timeline, lines) => lines
                .push(entry.clone())
                .iter()
                .filter_map(|entry| timeline.push(entry))
                .map(|item| text::render(&item, self.style))
                .collect(),
            Writer::Json(json) => json.render(&self.session, entry),
            Writer::Sql(sql) => sql.render(entry),
            Writer::Har(har) => har.push(entry),
            Writer::Cast(cast) => cast.push(entry),
        };
        // An archive is whole or it is none, and a picture leans on what was drawn.
        let is_whole = matches!(self.writer, Writer::Har(_) | Writer::Cast(_));
        if text.is_empty() || !(is_whole || self.pace.shows(entry.at)) {
            return Ok(());
        }
        self.wait(entry.at)?;
        self.out.write_all(text.as_bytes())
    }

    fn step(&mut self, step: Step, at: FlowTime) -> io::Result<()> {
        match step {
            Step::Item(item) => {
                if self.pace.shows(item.at) {
                    self.wait(item.at)?;
                    let text = text::render(&item, self.style);
                    self.out.write_all(text.as_bytes())?;
                }
            }
            Step::Begin(size) => {
                self.wait(at)?;
                writeln!(self.out, "{}", screen::told(size))?;
                self.out.flush()?;
                self.screen = Screen::enter();
            }
            // What was drawn before the start is part of the picture.
            Step::Draw(text) => {
                self.wait(at)?;
                self.out.write_all(text.as_bytes())?;
            }
            Step::End(text) => {
                self.out.write_all(text.as_bytes())?;
                self.out.write_all(b"\r\n")?;
                self.out.flush()?;
                self.screen = None;
            }
            Step::More(more) => writeln!(self.out, "… {more} more")?,
        }
        Ok(())
    }

    fn wait(&mut self, at: FlowTime) -> io::Result<()> {
        // What was waited for already, because it had not happened yet, counts.
        let wait = self.pace.wait(at).saturating_sub(self.shown.elapsed());
        if self.in_time && !wait.is_zero() {
            self.out.flush()?;
            std::thread::sleep(wait);
        }
        self.shown = Instant::now();
        Ok(())
    }
}
