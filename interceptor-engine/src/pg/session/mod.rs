//! A PostgreSQL conversation between an agent and a server.
//!
//! * [`downstream`] reads what the agent sends: judges it, and forwards it or
//!   puts something in its place that makes the server answer with an error;
//! * [`upstream`] reads what the server answers: gives each answer to what it is
//!   owed to ([`owed`]), hides what is masked, and turns the error of a refused
//!   message into ours;
//! * [`statements`] knows what names mean, [`exchange`] what has come back.
//!
//! The server keeps the state of transactions and pipelines, always: a refused
//! statement is replaced by one that PostgreSQL itself refuses, so everything
//! after it is exactly as after any error. Whatever cannot be followed with
//! certainty ends the session.
//!
//! Source: PostgreSQL manual, pages `protocol-flow` and `protocol-message-formats`.

mod auth;
mod catalog;
mod downstream;
mod exchange;
mod functions;
mod hold;
mod inbox;
mod judge;
mod limits;
mod literals;
mod naming;
mod notices;
mod owed;
mod record;
mod refuse;
mod rows;
mod statements;
mod unmaskable;
mod upstream;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use interceptor_policy::operation::Table;
use interceptor_policy::{MaskKey, Moment, Scope, Standing};
use interceptor_proto::pg::frame::{self, Head};
use interceptor_proto::pg::sqlstate;

use crate::event::{FlowTime, Kind};
use crate::hold::Decision;
use crate::journal::Journal;
use crate::pg::catalog::TableInfo;
use crate::pg::sql::Classifier;
use crate::session::{End, Outbox, Session, Side};
use crate::totals::Totals;

use inbox::{Inbox, Source, Want};
use owed::{Owed, OwedQueue};
use statements::Statements;

/// Longest message that is read whole because it must be judged, in bytes.
pub const JUDGED_LIMIT: usize = 16 << 20;
/// Longest row or other answer that is read whole because it may have to be
/// masked, in bytes.
pub const MASKED_LIMIT: usize = 64 << 20;

/// What a session is about, and what it works with.
#[derive(Debug)]
pub struct Settings {
    /// The rules that can apply.
    pub scope: Scope,
    /// What is remembered of the session and its principal.
    pub standing: Standing,
    /// When the session opened.
    pub opened: Moment,
    /// The host's key for hashes.
    pub key: MaskKey,
    /// What statements mean; shared between sessions.
    pub classifier: Arc<Classifier>,
    /// Numbers the events.
    pub journal: Journal,
    /// `database` of the startup message.
    pub database: Arc<str>,
    /// `user` of the startup message.
    pub user: Arc<str>,
    /// Whether the startup message asked for a replication connection.
    pub replication: bool,
    /// Whether names of tables can be asked for ([`Outbox::catalog`]).
    pub has_catalog: bool,
    /// Whether the agent's leg is encrypted.
    pub downstream_tls: bool,
    /// Whether the service's leg is encrypted.
    pub upstream_tls: bool,
    /// Whether the server was logged on to already: the agent needs no
    /// authentication messages of its own.
    pub logged_on: bool,
}

/// How far the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The server has not yet accepted the agent.
    Authenticating,
    /// Commands and answers.
    Ready,
    /// Nothing more is read or written.
    Over,
}

/// A PostgreSQL conversation.
#[derive(Debug)]
pub struct PgSession {
    scope: Scope,
    standing: Standing,
    opened: Moment,
    key: MaskKey,
    classifier: Arc<Classifier>,
    journal: Journal,
    database: Arc<str>,
    user: Arc<str>,
    replication: bool,
    has_catalog: bool,
    phase: Phase,
    auth: auth::Auth,
    down: Inbox,
    up: Inbox,
    owed: OwedQueue,
    statements: Statements,
    /// The server ignores everything until a `Sync` that the agent has not sent.
    skipping: bool,
    /// The server reads `COPY` data: it ignores `Sync` and `Flush`.
    copy_in: bool,
    /// `ReadyForQuery`s that will have been owed, for the life of portals.
    ready_sent: u64,
    /// How the server reads statements.
    dialect: judge::SessionDialect,
    /// Names of tables in results.
    tables: crate::pg::mask::TableNames,
    /// When each of them was told.
    tables_since: HashMap<u32, FlowTime>,
    waiting: Option<catalog::Waiting>,
    /// Which tables names mean.
    names: naming::Names,
    /// What a person is asked about; the agent's messages wait behind it.
    held: Option<Box<hold::Held>>,
    /// For the agent, as soon as no message to it is under way.
    later: Vec<u8>,
    meta: HashMap<u64, record::CommandMeta>,
    /// An unnamed statement that was parsed and not yet executed.
    unrecorded: Option<Arc<statements::Prepared>>,
    copied_in: record::CopiedIn,
    totals: Totals,
    closed: bool,
}

impl PgSession {
    /// A session whose startup message has been sent upstream (and, with
    /// `logged_on`, whose log-on is done, with the server's answer to it next).
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut owed = OwedQueue::default();
        owed.push(Owed::Startup);
        Self {
            scope: settings.scope,
            standing: settings.standing,
            opened: settings.opened,
            key: settings.key,
            classifier: settings.classifier,
            journal: settings.journal,
            database: settings.database,
            user: settings.user,
            replication: settings.replication,
            has_catalog: settings.has_catalog,
            phase: Phase::Authenticating,
            auth: auth::Auth::new(
                settings.downstream_tls,
                settings.upstream_tls,
                settings.logged_on,
            ),
            down: Inbox::default(),
            up: Inbox::default(),
            owed,
            statements: Statements::default(),
            skipping: false,
            copy_in: false,
            ready_sent: 1,
            dialect: judge::SessionDialect::default(),
            tables: HashMap::new(),
            tables_since: HashMap::new(),
            waiting: None,
            names: naming::Names::default(),
            held: None,
            later: Vec::new(),
            meta: HashMap::new(),
            unrecorded: None,
            copied_in: record::CopiedIn::default(),
            totals: Totals::default(),
            closed: false,
        }
    }

    /// Puts other rules in force, from the next message on. Prepared statements
    /// are judged by them when they are executed.
    pub fn set_scope(&mut self, scope: Scope) {
        self.scope = scope;
        self.meta.clear();
    }

    /// Records the opening, with the shell's facts as a JSON object.
    pub fn open(&mut self, now: FlowTime, line: String, meta: String, out: &mut Outbox) {
        let event = self
            .journal
            .event(now, Kind::Open, None, line)
            .with_meta(meta);
        out.events.push(event);
    }

    /// Whether what the agent sends has to wait.
    fn agent_waits(&self) -> bool {
        self.held.is_some() || self.names.waits()
    }

    /// What to do with a message, by its head alone.
    fn want(&mut self, from: Side, head: Head) -> Want {
        match from {
            Side::Downstream => self.want_from_agent(head),
            Side::Upstream => self.want_from_server(head),
        }
    }

    fn inbox(&mut self, side: Side) -> &mut Inbox {
        match side {
            Side::Downstream => &mut self.down,
            Side::Upstream => &mut self.up,
        }
    }

    fn handle_frame(
        &mut self,
        now: FlowTime,
        from: Side,
        head: Head,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        match from {
            Side::Downstream => self.asked(now, head, source, out),
            Side::Upstream => self.answered(now, head, source, out),
        }
    }

    /// First the rest of a message that is passed on as it comes, then a message
    /// whose beginning is kept, then whole messages.
    fn take(&mut self, now: FlowTime, from: Side, input: &[u8], out: &mut Outbox) {
        let mut at = self.pass_rest(now, from, input, out);
        if from == Side::Downstream && self.agent_waits() {
            let rest = input.get(at..).unwrap_or_default();
            self.down.kept.extend_from_slice(rest);
            return;
        }
        if !self.inbox(from).kept.is_empty() {
            at = self.complete_kept(now, from, input, at, out);
        }
        while self.phase != Phase::Over {
            let stops = match from {
                Side::Upstream => self.waiting.is_some(),
                Side::Downstream => self.agent_waits(),
            };
            if stops {
                break;
            }
            let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) else {
                return;
            };
            if from == Side::Upstream {
                let passed = self.pass_rows(now, at, rest, out);
                if passed > 0 {
                    at += passed;
                    continue;
                }
            }
            let head = match frame::head(rest) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(error) => return self.broken(now, from, &error.to_string(), out),
            };
            match (self.want(from, head), rest.get(..head.total())) {
                (Want::Refuse(why), _) => return self.broken(now, from, why, out),
                (Want::Pass, whole) => {
                    let have = whole.map_or(rest.len(), <[u8]>::len);
                    self.begin_passing(now, from, head, out);
                    let source = Source::input(rest.get(..have).unwrap_or_default(), at);
                    self.pass_some(now, from, source, out);
                    at += have;
                }
                (Want::TooLong, _) => return self.too_long(now, from, head, out),
                (Want::Whole, Some(whole)) => {
                    let source = Source::input(whole, at);
                    at += whole.len();
                    self.handle_frame(now, from, head, source, out);
                }
                (Want::Whole, None) => break,
            }
        }
        let rest = input.get(at..).unwrap_or_default();
        if self.phase != Phase::Over && !rest.is_empty() {
            self.inbox(from).kept.extend_from_slice(rest);
        }
    }

    /// Completes the message whose beginning is kept; returns how far the input
    /// is used up.
    fn complete_kept(
        &mut self,
        now: FlowTime,
        from: Side,
        input: &[u8],
        mut at: usize,
        out: &mut Outbox,
    ) -> usize {
        let mut kept = std::mem::take(&mut self.inbox(from).kept);
        loop {
            let head = match frame::head(&kept) {
                Ok(head) => head,
                Err(error) => {
                    self.broken(now, from, &error.to_string(), out);
                    return input.len();
                }
            };
            let needed = match head {
                None => frame::HEADER,
                Some(head) => match self.want(from, head) {
                    Want::Refuse(why) => {
                        self.broken(now, from, why, out);
                        return input.len();
                    }
                    Want::TooLong => {
                        self.too_long(now, from, head, out);
                        return input.len();
                    }
                    Want::Pass => {
                        self.begin_passing(now, from, head, out);
                        self.pass_some(now, from, Source::kept(&kept), out);
                        let rest = input.get(at..).unwrap_or_default();
                        let more = self.inbox(from).passing.min(rest.len());
                        let source = Source::input(rest.get(..more).unwrap_or_default(), at);
                        self.pass_some(now, from, source, out);
                        return at + more;
                    }
                    Want::Whole => head.total(),
                },
            };
            if kept.len() < needed {
                let rest = input.get(at..).unwrap_or_default();
                let more = (needed - kept.len()).min(rest.len());
                kept.extend_from_slice(rest.get(..more).unwrap_or_default());
                at += more;
            }
            if kept.len() < needed {
                self.inbox(from).kept = kept;
                return at;
            }
            if let Some(head) = head {
                self.handle_frame(now, from, head, Source::kept(&kept), out);
                return at;
            }
        }
    }

    fn pass_rest(&mut self, now: FlowTime, from: Side, input: &[u8], out: &mut Outbox) -> usize {
        let more = self.inbox(from).passing.min(input.len());
        if more > 0 {
            let source = Source::input(input.get(..more).unwrap_or_default(), 0);
            self.pass_some(now, from, source, out);
        }
        more
    }

    /// Forwards bytes of a message that is passed on as it comes.
    fn pass_some(&mut self, now: FlowTime, from: Side, source: Source<'_>, out: &mut Outbox) {
        self.inbox(from).passing = self.inbox(from).passing.saturating_sub(source.bytes.len());
        source.forward(other(from), out);
        self.say_later(from, out);
        match from {
            Side::Downstream => self.keep_copied_in(now, source.bytes, out),
            Side::Upstream => self.keep_result(now, source.bytes, out),
        }
    }

    fn begin_passing(&mut self, now: FlowTime, from: Side, head: Head, out: &mut Outbox) {
        self.inbox(from).passing = head.total();
        if from == Side::Upstream {
            self.count_row(head);
        }
        let _ = (now, out);
    }
}

impl Session for PgSession {
    fn handle_bytes(&mut self, now: FlowTime, from: Side, input: &[u8], out: &mut Outbox) {
        match from {
            Side::Downstream => self.totals.bytes_up += input.len() as u64,
            Side::Upstream => self.totals.bytes_down += input.len() as u64,
        }
        if self.phase != Phase::Over {
            self.take(now, from, input, out);
        }
    }

    fn handle_eof(&mut self, now: FlowTime, from: Side, out: &mut Outbox) {
        self.take_back_question(now, from, out);
        self.phase = Phase::Over;
        out.end.get_or_insert(End::Closed);
    }

    fn wants_read(&self, side: Side) -> bool {
        if self.phase == Phase::Over {
            return false;
        }
        match side {
            // Held, it is read only to notice that the agent goes away.
            Side::Downstream if self.agent_waits() => self.down.kept.len() < hold::KEPT_LIMIT,
            Side::Downstream => self.owed.len() < owed::OWED_LIMIT,
            Side::Upstream => self.waiting.is_none(),
        }
    }

    fn handle_catalog(&mut self, now: FlowTime, tables: Vec<TableInfo>, out: &mut Outbox) {
        self.names_arrived(now, tables, out);
    }

    fn handle_tables(
        &mut self,
        now: FlowTime,
        tables: Vec<(Table, Vec<TableInfo>)>,
        out: &mut Outbox,
    ) {
        self.tables_arrived(now, tables, out);
    }

    fn handle_decision(&mut self, now: FlowTime, decision: Decision, out: &mut Outbox) {
        self.decided(now, decision, out);
    }

    fn deadline(&self) -> Option<FlowTime> {
        self.answer_due()
    }

    fn handle_time(&mut self, now: FlowTime, out: &mut Outbox) {
        self.time_is(now, out);
    }

    fn refuse(&mut self, now: FlowTime, why: &str, out: &mut Outbox) {
        let mid_message = self.up.passing > 0;
        self.end_with(now, sqlstate::ADMIN_SHUTDOWN, why, out);
        if mid_message {
            out.downstream.clear();
        }
    }

    fn close(&mut self, now: FlowTime, reason: &str, out: &mut Outbox) {
        if !std::mem::replace(&mut self.closed, true) {
            self.take_back_question(now, Side::Downstream, out);
            self.record_close(now, reason, out);
        }
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Downstream => Side::Upstream,
        Side::Upstream => Side::Downstream,
    }
}
