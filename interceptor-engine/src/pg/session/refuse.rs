//! Refusing: what goes upstream in a refused message's place, and what the
//! agent is told.
//!
//! Each replacement makes PostgreSQL itself answer with an error of the kind
//! that the refused message could have met: a text that is no SQL, a portal that
//! does not exist, a function that does not exist. Transactions and pipelines
//! are then in the very state that any error leaves them in.

use interceptor_policy::{Permit, Refusal};
use interceptor_proto::pg::backend::NoticeBuilder;
use interceptor_proto::pg::frontend::{Describe, Execute, Parse, Query, Subject};
use interceptor_proto::pg::sqlstate;
use interceptor_proto::pg::tag::frontend as tag;
use uuid::Uuid;

use super::{PgSession, Phase};
use crate::event::{FlowTime, Kind};
use crate::hold::question_id;
use crate::journal::exchange_id;
use crate::session::{End, Outbox, Side};
use interceptor_policy::verdict::Severity;

/// In which words something is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Manner {
    /// A rule, or the target's default, refuses it.
    #[default]
    Rule,
    /// A person said no.
    Denied,
    /// Nobody said yes in time.
    TimedOut,
    /// The agent itself took it back.
    Cancelled,
    /// It may be asked again once a person has said yes.
    Ticket,
    /// Its answer grew past a limit.
    Limit,
}

/// A permit is used up by forwarding what it permits, which is what the caller
/// does next.
pub(super) fn spend(permit: Permit) {
    drop(permit);
}

/// Shows up in the server's log as a syntax error at or near "refused".
fn no_sql(exchange: u64) -> String {
    format!("refused by interceptor (exchange {exchange})")
}

pub(super) fn query(exchange: u64) -> Vec<u8> {
    let sql = no_sql(exchange);
    encoded(|out| {
        Query {
            sql: sql.as_bytes(),
        }
        .encode(out)
    })
}

pub(super) fn parse(statement: &[u8], exchange: u64) -> Vec<u8> {
    let sql = no_sql(exchange);
    encoded(|out| {
        Parse {
            statement,
            sql: sql.as_bytes(),
            parameter_types: Default::default(),
        }
        .encode(out)
    })
}

pub(super) fn execute(exchange: u64) -> Vec<u8> {
    let portal = no_sql(exchange);
    encoded(|out| {
        Execute {
            portal: portal.as_bytes(),
            max_rows: 0,
        }
        .encode(out)
    })
}

pub(super) fn describe_portal(portal: &[u8]) -> Vec<u8> {
    encoded(|out| {
        Describe {
            subject: Subject::Portal(portal),
        }
        .encode(out)
    })
}

/// No function has the OID 0.
pub(super) fn function_call() -> Vec<u8> {
    let mut out = vec![tag::FUNCTION_CALL];
    // Length, OID, formats, arguments, format of the result: all but the first 0.
    out.extend_from_slice(&14_u32.to_be_bytes());
    out.extend_from_slice(&[0; 10]);
    out
}

fn encoded<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    // The texts above have no zero byte and names come from a frame, so writing
    // cannot fail; if it did, nothing would be sent, and the session would end
    // at the reply that never fits.
    if write(&mut out).is_err() {
        out.clear();
    }
    out
}

/// Why something is refused that two looks did not agree about.
pub(super) fn changed() -> Refusal {
    Refusal {
        rule: None,
        message: "the rules changed while this was judged; ask again".into(),
    }
}

/// The error in a refused exchange's place.
pub(super) fn error(
    session: Uuid,
    exchange: u64,
    refusal: &Refusal,
    manner: Manner,
    fatal: bool,
) -> Vec<u8> {
    let id = exchange_id(session, exchange);
    let rule = refusal.rule.as_deref();
    let mut hint = match (rule, manner) {
        (Some(rule), _) => format!("Rule: {rule}. Exchange: {id}."),
        (None, Manner::Rule) => format!("No rule allows it. Exchange: {id}."),
        (None, _) => format!("Exchange: {id}."),
    };
    match manner {
        Manner::Ticket => hint.push_str(" Ask for the very same once it is approved."),
        Manner::Denied | Manner::TimedOut | Manner::Cancelled => {
            let question = question_id(session, exchange);
            hint.push_str(&format!(" Question: {question}."));
        }
        Manner::Rule | Manner::Limit => {}
    }
    let state = manner.state();
    let error = if fatal {
        NoticeBuilder::fatal(state, &refusal.message)
    } else {
        NoticeBuilder::error(state, &refusal.message)
    };
    let mut out = Vec::new();
    error.hint(&hint).encode_error(&mut out);
    out
}

impl Manner {
    /// PostgreSQL manual, appendix "PostgreSQL Error Codes".
    const fn state(self) -> &'static str {
        match self {
            Self::Rule | Self::Denied | Self::Ticket => sqlstate::INSUFFICIENT_PRIVILEGE,
            Self::TimedOut | Self::Cancelled => sqlstate::QUERY_CANCELED,
            Self::Limit => sqlstate::PROGRAM_LIMIT_EXCEEDED,
        }
    }
}

impl PgSession {
    /// A peer broke the protocol: nothing that follows can be trusted.
    pub(super) fn broken(&mut self, now: FlowTime, from: Side, why: &str, out: &mut Outbox) {
        let whose = match from {
            Side::Downstream => "the client",
            Side::Upstream => "the server",
        };
        let why = format!("protocol violation by {whose}: {why}");
        self.end_with(now, sqlstate::PROTOCOL_VIOLATION, &why, out);
    }

    /// Ends the session with an error that says why.
    pub(super) fn end_with(&mut self, now: FlowTime, state: &str, why: &str, out: &mut Outbox) {
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Over;
        let mut error = Vec::new();
        NoticeBuilder::fatal(state, why)
            .hint(&format!("Session: {}.", self.journal.session()))
            .encode_error(&mut error);
        out.write(Side::Downstream, &error);
        let event = self
            .journal
            .event(now, Kind::Error, None, why)
            .with_meta(serde_json::json!({"severity": "FATAL", "code": state}).to_string())
            .with_alert(Severity::Medium);
        out.events.push(event);
        out.end = Some(End::Refused(why.to_owned()));
    }

    pub(super) fn end_killed(&mut self, exchange: u64, refusal: &Refusal, out: &mut Outbox) {
        self.totals.killed = true;
        self.phase = Phase::Over;
        let error = error(
            self.journal.session(),
            exchange,
            refusal,
            Manner::Rule,
            true,
        );
        out.write(Side::Downstream, &error);
        out.end = Some(End::Refused(refusal.message.to_string()));
    }
}
