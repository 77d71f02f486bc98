//! Holding an exchange until a person has decided.
//!
//! The message that would run it is kept, and with it everything that the agent
//! sends behind it. A statement's `Parse` and `Bind` were forwarded before: they
//! run nothing. The agent's client is told by a notice, which every client may
//! get at any time (PostgreSQL manual, page `protocol-async`).

use std::sync::Arc;

use interceptor_policy::verdict::Severity;
use interceptor_policy::{Hold, HoldMode, Permit, Refusal};
use interceptor_proto::pg::backend::{NoticeBuilder, Severity as Level};
use serde_json::json;

use super::exchange::Exchange;
use super::inbox::Source;
use super::judge::Asked;
use super::refuse::{self, Manner};
use super::{PgSession, Phase};
use crate::event::{FlowTime, Kind};
use crate::hold::{Decision, Digest, Question, question_id};
use crate::journal::Settled;
use crate::session::{End, Outbox, Piece, Side};

/// Bytes of the agent's that are kept behind a held message before no more is
/// read from it.
pub(super) const KEPT_LIMIT: usize = 16 << 10;

/// Which message runs an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `Query`.
    Query,
    /// `Execute`.
    Execute,
    /// `FunctionCall`.
    FunctionCall,
}

/// An exchange that waits for a person.
#[derive(Debug)]
pub(super) struct Held {
    /// The message that runs it, whole.
    frame: Vec<u8>,
    command: Command,
    exchange: Exchange,
    hold: Hold,
    since: FlowTime,
}

impl PgSession {
    /// Everything that will run, and where: what an answer is bound to.
    pub(super) fn digest(&self, asked: &Asked<'_>, exchange: &Exchange) -> Digest {
        let bound = exchange.portal.as_ref().map(|portal| portal.bound);
        let mut parts: Vec<&[u8]> = vec![
            self.database.as_bytes(),
            self.user.as_bytes(),
            asked.message.as_bytes(),
            asked.text.as_bytes(),
            bound.as_ref().map_or(&[], |bound| bound.as_slice()),
        ];
        // What `EXECUTE` and `FETCH` stand for.
        let inner = exchange
            .classified
            .as_deref()
            .map(|classified| self.stands_for(classified))
            .unwrap_or_default();
        parts.extend(inner.iter().map(|text| text.as_bytes()));
        Digest::of(self.scope.subject(), &parts)
    }

    /// Keeps an exchange back and asks about it.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, and each is one fact of it"
    )]
    pub(super) fn hold(
        &mut self,
        now: FlowTime,
        command: Command,
        exchange: Exchange,
        hold: Hold,
        asked: &Asked<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        let number = exchange.number;
        let id = question_id(self.journal.session(), number);
        let rule = hold.reason.rule.clone().unwrap_or_else(|| "default".into());
        let (text, parameters) = self.shown(asked, &exchange);
        let approval = &hold.approval;
        let groups: Vec<String> = approval
            .requirements
            .iter()
            .map(ToString::to_string)
            .collect();
        let question = Question {
            id: id.clone(),
            session: self.journal.session(),
            exchange: number,
            approval: Arc::clone(approval),
            rule: Arc::clone(&rule),
            message: Arc::clone(&hold.reason.message),
            digest: self.digest(asked, &exchange),
            text,
            parameters,
            meta: Arc::new(json!({"database": &*self.database, "user": &*self.user})),
        };
        let severity = exchange.severity.unwrap_or(Severity::Medium);
        let digest = self.scope.rules().digest();
        out.events
            .push(self.journal.held(now, &question, severity, digest));
        if approval.mode == HoldMode::Wait {
            let mut notice = Vec::new();
            NoticeBuilder::new(
                Level::Notice,
                "00000",
                &format!("held until a person decides: {}", hold.reason.message),
            )
            .detail(&format!(
                "Asked: {}, for {} seconds.",
                groups.join("; "),
                approval.timeout.as_secs()
            ))
            .hint(&format!("Rule: {rule}. Question: {id}."))
            .encode_notice(&mut notice);
            self.say(&notice, out);
        }
        self.held = Some(Box::new(Held {
            frame: source.bytes.to_vec(),
            command,
            exchange,
            hold,
            since: now,
        }));
        out.ask = Some(Box::new(question));
    }

    /// A message of our own for the agent: at once, or behind the message that
    /// is being passed on.
    fn say(&mut self, message: &[u8], out: &mut Outbox) {
        if self.up.passing > 0 {
            self.later.extend_from_slice(message);
        } else {
            out.write(Side::Downstream, message);
        }
    }

    /// What waited for a message to end.
    pub(super) fn say_later(&mut self, from: Side, out: &mut Outbox) {
        if from == Side::Upstream && self.up.passing == 0 && !self.later.is_empty() {
            let later = std::mem::take(&mut self.later);
            out.write(Side::Downstream, &later);
        }
    }

    /// A person decided, or time did.
    pub(super) fn decided(&mut self, now: FlowTime, decision: Decision, out: &mut Outbox) {
        if self.phase == Phase::Over {
            return;
        }
        let Some(held) = self.held.take() else {
            return;
        };
        let Held {
            frame,
            command,
            mut exchange,
            hold,
            since,
        } = *held;
        let reason = hold.reason.clone();
        let manner = match &decision {
            Decision::Approved { .. } => None,
            Decision::Denied { .. } | Decision::Unasked(_) => Some(Manner::Denied),
            Decision::TimedOut => Some(Manner::TimedOut),
            Decision::Cancelled => Some(Manner::Cancelled),
            Decision::Ticket(_) => Some(Manner::Ticket),
        };
        let why = match &decision {
            // As the server itself says it.
            Decision::Cancelled => Some(
                "canceling statement due to user request, while a person was asked about it"
                    .to_owned(),
            ),
            other => other.refusal(&reason.message),
        };
        let said = (decision.word(), decision.by());
        self.record_settled(now, &exchange, said, why.as_deref(), since, out);
        // The server ignores it since the error that came meanwhile.
        if self.skipping {
            let event = self.journal.event(
                now,
                Kind::Note,
                Some(exchange.number),
                "skipped by the server after the error before it",
            );
            out.events.push(event);
            Source::kept(&frame).forward(Side::Upstream, out);
            return self.go_on(now, out);
        }
        exchange.started = now;
        match decision {
            Decision::Approved { approved, .. } => {
                let tags = std::mem::take(&mut exchange.tags_held);
                self.standing.tag(&tags, self.opened.after(now.0));
                let permit = hold.release(approved);
                self.run(command, exchange, permit, Source::kept(&frame), out);
            }
            _ => {
                exchange.refusal = Some(Refusal {
                    rule: reason.rule,
                    message: why.unwrap_or_default().into(),
                });
                exchange.manner = manner.unwrap_or_default();
                self.totals.blocked += 1;
                self.run_nothing(command, exchange, out);
            }
        }
        self.go_on(now, out);
    }

    /// Acts on what the agent sent meanwhile.
    pub(super) fn go_on(&mut self, now: FlowTime, out: &mut Outbox) {
        let kept = std::mem::take(&mut self.down.kept);
        let (before_down, before_up) = (out.downstream.len(), out.upstream.len());
        self.take(now, Side::Downstream, &kept, out);
        // Those ranges are of bytes that nobody else has.
        own(&mut out.downstream, before_down, &kept);
        own(&mut out.upstream, before_up, &kept);
    }

    fn record_settled(
        &mut self,
        now: FlowTime,
        exchange: &Exchange,
        (word, by): (&'static str, &str),
        why: Option<&str>,
        since: FlowTime,
        out: &mut Outbox,
    ) {
        let settled = Settled {
            exchange: exchange.number,
            since,
            word,
            by,
            why,
            severity: exchange.severity.unwrap_or(Severity::Medium),
        };
        out.events.push(self.journal.settled(now, &settled));
    }

    /// Forwards what was permitted.
    pub(super) fn run(
        &mut self,
        command: Command,
        mut exchange: Exchange,
        permit: Permit,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        if command != Command::Execute {
            self.ready_sent += 1;
        }
        if let Some(classified) = exchange.classified.clone() {
            exchange.undos = self.statements.begin_effects(&classified.effects);
        }
        if command == Command::Execute {
            self.ask_description(&exchange, out);
        }
        self.owe(command, exchange);
        refuse::spend(permit);
        source.forward(Side::Upstream, out);
    }

    /// Sends what makes the server answer with an error, in a refused one's place.
    pub(super) fn run_nothing(&mut self, command: Command, exchange: Exchange, out: &mut Outbox) {
        let poison = match command {
            Command::Query => refuse::query(exchange.number),
            Command::Execute => refuse::execute(exchange.number),
            Command::FunctionCall => refuse::function_call(),
        };
        if command != Command::Execute {
            self.ready_sent += 1;
        }
        self.owe(command, exchange);
        out.write(Side::Upstream, &poison);
    }

    /// The agent went away while a person was asked.
    pub(super) fn take_back_question(&mut self, now: FlowTime, from: Side, out: &mut Outbox) {
        let Some(held) = self.held.take() else {
            return;
        };
        let why = match from {
            Side::Downstream => "the agent went away while a person was asked",
            Side::Upstream => "the service went away while a person was asked",
        };
        let said = ("withdrawn", "");
        self.record_settled(now, &held.exchange, said, Some(why), held.since, out);
        out.end.get_or_insert(End::Closed);
    }
}

pub(super) fn own(pieces: &mut [Piece], from: usize, bytes: &[u8]) {
    for piece in pieces.iter_mut().skip(from) {
        if let Piece::Input(range) = piece {
            *piece = Piece::Owned(bytes.get(range.clone()).unwrap_or_default().to_vec());
        }
    }
}
