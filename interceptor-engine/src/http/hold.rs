//! Keeping a request until a person has decided.
//!
//! All of it is kept, its body included: what a person says is said of these
//! bytes. Neither the service nor the agent hears anything meanwhile.

use std::sync::Arc;

use interceptor_policy::verdict::Severity;
use interceptor_policy::{Hold, Refusal};
use serde_json::json;

use super::answer::Reason;
use super::asking::{Asking, Kept};
use super::exchange::Exchange;
use super::outbox::{Act, Outbox};
use super::session::Shared;
use crate::event::FlowTime;
use crate::hold::{Decision, Digest, Question, question_id};
use crate::journal::Settled;

/// Fields that differ between two sendings of one request, and say nothing of
/// what it does.
const VOLATILE: [&str; 14] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "connection",
    "content-length",
    "date",
    "expect",
    "keep-alive",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "user-agent",
    "x-amzn-trace-id",
    "x-request-id",
];

/// A request that waits for a person.
#[derive(Debug)]
pub(super) struct Held {
    kept: Kept,
    hold: Hold,
    since: FlowTime,
}

impl Exchange {
    /// Everything that will be sent: what an answer is bound to.
    fn digest(&self, kept: &Kept, shared: &Shared) -> Digest {
        let uri = kept.head.uri.to_string();
        let mut fields: Vec<(&str, &[u8])> = kept
            .head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .filter(|(name, _)| !VOLATILE.contains(name) && !name.starts_with("x-stainless-"))
            .collect();
        // Their order may differ, but for those of one name.
        fields.sort_by_key(|(name, _)| *name);
        let body = kept.joined();
        let mut parts: Vec<&[u8]> = vec![self.method.as_str().as_bytes(), uri.as_bytes()];
        for (name, value) in &fields {
            parts.push(name.as_bytes());
            parts.push(value);
        }
        parts.push(b"body");
        parts.push(&body);
        Digest::of(shared.scope.subject(), &parts)
    }

    /// Keeps a whole request back, and asks about it.
    pub(super) fn hold(
        &mut self,
        now: FlowTime,
        kept: Kept,
        hold: Hold,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let session = shared.journal.session();
        let id = question_id(session, self.number);
        let rule = hold.reason.rule.clone().unwrap_or_else(|| "default".into());
        let approval = Arc::clone(&hold.approval);
        let question = Question {
            id: id.clone(),
            session,
            exchange: self.number,
            approval: Arc::clone(&approval),
            rule: Arc::clone(&rule),
            message: Arc::clone(&hold.reason.message),
            digest: self.digest(&kept, shared),
            text: self.shown(&kept, shared),
            parameters: None,
            meta: json!({"method": self.method.as_str(), "host": &*self.request.host}).into(),
        };
        let severity = self.severity.unwrap_or(Severity::Medium);
        let digest = shared.scope.rules().digest();
        out.events
            .push(shared.journal.held(now, &question, severity, digest));
        self.asking = Asking::Held(Box::new(Held {
            kept,
            hold,
            since: now,
        }));
        out.acts.push(Act::Ask(Box::new(question)));
    }

    /// A person decided, or time did.
    pub(super) fn decided(
        &mut self,
        now: FlowTime,
        decision: Decision,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let held = match std::mem::replace(&mut self.asking, Asking::Done) {
            Asking::Held(held) => *held,
            other => {
                self.asking = other;
                return;
            }
        };
        let Held { kept, hold, since } = held;
        let why = decision.refusal(&hold.reason.message);
        let said = (decision.word(), decision.by());
        self.record_settled(now, said, why.as_deref(), since, shared, out);
        let refused = why.map(|why| {
            let refusal = Refusal {
                rule: hold.reason.rule.clone(),
                message: why.into(),
            };
            match &decision {
                Decision::Ticket(ticket) => Reason::Ticket(refusal, ticket.clone()),
                _ => Reason::Denied(refusal),
            }
        });
        match (decision, refused) {
            (Decision::Approved { approved, .. }, _) => {
                let tags = std::mem::take(&mut self.tags_held);
                let moment = shared.moment(now);
                shared.standing.tag(&tags, moment);
                let permit = hold.release(approved);
                self.forward(now, permit, kept, shared, out);
            }
            (_, Some(refused)) => {
                shared.totals.blocked += 1;
                self.answer_with(now, &refused, shared, out);
            }
            // Every other decision refuses.
            (_, None) => {}
        }
    }

    /// The agent went away while a person was asked.
    pub(super) fn take_back_question(
        &mut self,
        now: FlowTime,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        match std::mem::replace(&mut self.asking, Asking::Done) {
            Asking::Held(held) => {
                let why = "the agent went away while a person was asked";
                let said = ("withdrawn", "");
                self.record_settled(now, said, Some(why), held.since, shared, out);
            }
            other => self.asking = other,
        }
    }

    fn record_settled(
        &self,
        now: FlowTime,
        (word, by): (&'static str, &str),
        why: Option<&str>,
        since: FlowTime,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let settled = Settled {
            exchange: self.number,
            since,
            word,
            by,
            why,
            severity: self.severity.unwrap_or(Severity::Medium),
        };
        out.events.push(shared.journal.settled(now, &settled));
    }
}
