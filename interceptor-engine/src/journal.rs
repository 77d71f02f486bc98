//! Numbers a session's events.

use std::sync::Arc;

use interceptor_policy::Refusal;
use interceptor_policy::verdict::Severity;
use serde_json::json;
use uuid::Uuid;

use crate::event::{Event, FlowTime, Kind, LINE_LIMIT, Sealed};
use crate::hold::{Question, question_id};

/// Makes the events of one session, in order and without a gap.
#[derive(Debug)]
pub struct Journal {
    session: Uuid,
    run: Option<Arc<str>>,
    next_seq: u64,
    seals: bool,
}

impl Journal {
    /// A journal that has written nothing.
    #[must_use]
    pub fn new(session: Uuid, run: Option<Arc<str>>) -> Self {
        Self {
            session,
            run,
            next_seq: 0,
            seals: false,
        }
    }

    /// The same, of a session whose unmasked bytes are sealed.
    #[must_use]
    pub fn sealing(mut self, seals: bool) -> Self {
        self.seals = seals;
        self
    }

    /// Whether unmasked bytes are kept to be sealed.
    #[must_use]
    pub fn seals(&self) -> bool {
        self.seals
    }

    /// The session's id.
    #[must_use]
    pub fn session(&self) -> Uuid {
        self.session
    }

    /// The next event, without data or meta.
    pub fn event(
        &mut self,
        at: FlowTime,
        kind: Kind,
        exchange: Option<u64>,
        line: impl Into<String>,
    ) -> Event {
        let seq = self.next_seq;
        self.next_seq += 1;
        let mut line = line.into();
        truncate_at_char(&mut line, LINE_LIMIT);
        Event {
            session: self.session,
            run: self.run.clone(),
            seq,
            at,
            kind,
            exchange,
            line,
            data: Vec::new(),
            meta: String::new(),
            sealed: Sealed::Nothing,
            alert: None,
        }
    }

    /// A verdict (`block`, `kill`) that refuses an exchange.
    pub(crate) fn refused(
        &mut self,
        at: FlowTime,
        exchange: u64,
        verdict: &str,
        refusal: &Refusal,
        severity: Severity,
        rules_digest: &str,
    ) -> Event {
        let rule = refusal.rule.as_deref();
        let line = format!(
            "{verdict} by {}: {}",
            rule.unwrap_or("default"),
            refusal.message
        );
        let meta = json!({
            "verdict": verdict,
            "rule": rule,
            "message": &*refusal.message,
            "severity": severity.name(),
            "rules_digest": rules_digest,
            "exchange_id": exchange_id(self.session, exchange),
        });
        self.event(at, Kind::Verdict, Some(exchange), line)
            .with_meta(meta.to_string())
            .with_alert(severity)
    }

    /// A person is asked.
    pub(crate) fn held(
        &mut self,
        at: FlowTime,
        question: &Question,
        severity: Severity,
        rules_digest: &str,
    ) -> Event {
        let approval = &question.approval;
        let asks: Vec<String> = approval
            .requirements
            .iter()
            .map(ToString::to_string)
            .collect();
        let meta = json!({
            "question": question.id,
            "rule": &*question.rule,
            "message": &*question.message,
            "digest": question.digest.to_string(),
            "asks": asks,
            "mode": approval.mode.name(),
            "timeout_s": approval.timeout.as_secs(),
            "on_timeout": approval.on_timeout.name(),
            "rules_digest": rules_digest,
            "severity": severity.name(),
        });
        let line = format!("held by {}: {}", question.rule, question.message);
        self.event(at, Kind::Hold, Some(question.exchange), line)
            .with_meta(meta.to_string())
            .with_alert(severity)
    }

    /// What became of a question.
    pub(crate) fn settled(&mut self, at: FlowTime, settled: &Settled<'_>) -> Event {
        let Settled { word, by, why, .. } = *settled;
        let waited = at.0.saturating_sub(settled.since.0) / 1000;
        let line = match why {
            None => format!("approved by {by} after {waited} ms"),
            Some(why) => format!("{why} (after {waited} ms)"),
        };
        let meta = json!({
            "question": question_id(self.session, settled.exchange),
            "decision": word,
            "by": (!by.is_empty()).then_some(by),
            "waited_ms": waited,
            "message": why,
        });
        self.event(at, Kind::Approval, Some(settled.exchange), line)
            .with_meta(meta.to_string())
            .with_alert(settled.severity)
    }
}

/// What became of a question, for the record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled<'a> {
    /// The exchange that was held.
    pub(crate) exchange: u64,
    /// Since when.
    pub(crate) since: FlowTime,
    /// See [`crate::hold::Decision::word`]; `withdrawn` where the agent left.
    pub(crate) word: &'static str,
    /// Who decided; empty where nobody did.
    pub(crate) by: &'a str,
    /// Why nothing runs; `None` where it was approved.
    pub(crate) why: Option<&'a str>,
    /// Of the alert that it is.
    pub(crate) severity: Severity,
}

/// The name of an exchange that a person can look up.
pub(crate) fn exchange_id(session: Uuid, exchange: u64) -> String {
    format!("{session}/{exchange}")
}

impl Event {
    /// With these bytes.
    #[must_use]
    pub fn with_data(mut self, data: Vec<u8>) -> Self {
        self.data = data;
        self
    }

    /// With these bytes beside its own, as they were before masking.
    #[must_use]
    pub fn with_sealed(mut self, sealed: Sealed) -> Self {
        self.sealed = sealed;
        self
    }

    /// With this JSON object.
    #[must_use]
    pub fn with_meta(mut self, meta: String) -> Self {
        self.meta = meta;
        self
    }

    /// Also an alert.
    #[must_use]
    pub fn with_alert(mut self, severity: Severity) -> Self {
        self.alert = Some(severity);
        self
    }
}

/// Cuts `text` to at most `limit` bytes, never inside a character.
fn truncate_at_char(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}
