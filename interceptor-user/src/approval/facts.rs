//! A question, as people and Redis see it.

use std::sync::Arc;
use std::time::Duration;

use interceptor_engine::hold::Question;
use interceptor_policy::Approval;
use interceptor_policy::approval::{HoldMode, OnTimeout, Requirement};
use serde::{Deserialize, Serialize};

/// Bytes of a command that a question shows; its recording has all of them.
const TEXT_LIMIT: usize = 64 << 10;

/// Where a question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for answers.
    Open,
    /// Approved, and not used yet.
    Approved,
    /// Approved, and done.
    Spent,
    /// Somebody said no.
    Denied,
    /// Nobody answered in time.
    TimedOut,
    /// The agent took it back, or went away.
    Withdrawn,
}

impl State {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Spent => "spent",
            Self::Denied => "denied",
            Self::TimedOut => "timed_out",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Who has to say yes for one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asks {
    /// The rule.
    pub rule: String,
    /// Groups of which an answerer must be in one; empty for any approver.
    pub from: Vec<String>,
    /// How many different people.
    pub quorum: u32,
}

/// One answer that counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Who.
    pub by: String,
    /// Their user id, where the answer was given on this host.
    pub uid: Option<u32>,
    /// The groups that they were in.
    pub groups: Vec<String>,
    /// Yes or no.
    pub approves: bool,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When, seconds since 1970.
    pub at: i64,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// The session.
    pub session: String,
    /// The exchange.
    pub exchange: u64,
    /// The agent.
    pub agent: String,
    /// The agent's user id.
    pub uid: u32,
    /// Who the agent is, as the kernel and the host say.
    pub principal: Arc<serde_json::Value>,
    /// The process, as the kernel saw it: pid, executable with its digest, parents.
    pub process: Arc<serde_json::Value>,
    /// The target's name, or the destination's address.
    pub target: String,
    /// The destination.
    pub origin: String,
    /// The agent's host.
    pub host: String,
    /// What it speaks.
    pub protocol: String,
    /// The rule that asks.
    pub rule: String,
    /// Why, in the rule's words.
    pub message: String,
    /// What would run.
    pub text: String,
    /// Its parameters, a JSON array.
    pub parameters: Option<String>,
    /// What the protocol's parser saw of it.
    pub meta: Arc<serde_json::Value>,
    /// BLAKE3 of everything that would run, hex: the answer is to these bytes.
    pub digest: String,
    /// Who has to say yes.
    pub asks: Vec<Asks>,
    /// `wait` or `ticket`.
    pub mode: String,
    /// What silence means.
    pub on_timeout: String,
    /// When it was asked, seconds since 1970.
    pub asked_at: i64,
    /// Until when it stands.
    pub expires_at: i64,
    /// Seconds that an approval of a ticket is good for.
    pub timeout_s: u64,
    /// The answers that counted.
    pub answers: Vec<Answered>,
}

/// Who asks, and where: what the session does not know.
#[derive(Clone, Debug)]
pub struct Context {
    /// The agent.
    pub agent: String,
    /// The agent's user id.
    pub uid: u32,
    /// See [`Facts::principal`].
    pub principal: Arc<serde_json::Value>,
    /// See [`Facts::process`].
    pub process: Arc<serde_json::Value>,
    /// See [`Facts::target`].
    pub target: String,
    /// See [`Facts::origin`].
    pub origin: String,
    /// See [`Facts::host`].
    pub host: String,
    /// See [`Facts::protocol`].
    pub protocol: &'static str,
}

impl Facts {
    /// A question that is asked now.
    #[must_use]
    pub fn new(question: &Question, context: &Context, now: i64) -> Self {
        let approval = &question.approval;
        let timeout = i64::try_from(approval.timeout.as_secs()).unwrap_or(i64::MAX);
        Self {
            id: question.id.clone(),
            state: State::Open,
            session: question.session.to_string(),
            exchange: question.exchange,
            agent: context.agent.clone(),
            uid: context.uid,
            principal: Arc::clone(&context.principal),
            process: Arc::clone(&context.process),
            target: context.target.clone(),
            origin: context.origin.clone(),
            host: context.host.clone(),
            protocol: context.protocol.to_owned(),
            rule: question.rule.to_string(),
            message: question.message.to_string(),
            text: cut(&question.text),
            parameters: question.parameters.as_deref().map(cut),
            meta: Arc::clone(&question.meta),
            digest: question.digest.to_string(),
            asks: approval
                .requirements
                .iter()
                .map(|requirement| Asks {
                    rule: requirement.rule.to_string(),
                    from: requirement.from.iter().map(ToString::to_string).collect(),
                    quorum: requirement.quorum,
                })
                .collect(),
            mode: approval.mode.name().to_owned(),
            on_timeout: approval.on_timeout.name().to_owned(),
            asked_at: now,
            expires_at: now.saturating_add(timeout),
            timeout_s: approval.timeout.as_secs(),
            answers: Vec::new(),
        }
    }

    /// What it asks for, in the rule language's form.
    #[must_use]
    pub fn approval(&self) -> Approval {
        Approval {
            requirements: self
                .asks
                .iter()
                .map(|asks| Requirement {
                    rule: asks.rule.as_str().into(),
                    from: asks
                        .from
                        .iter()
                        .map(|from| Arc::from(from.as_str()))
                        .collect(),
                    quorum: asks.quorum,
                })
                .collect(),
            timeout: Duration::from_secs(self.timeout_s),
            on_timeout: if self.on_timeout == OnTimeout::Allow.name() {
                OnTimeout::Allow
            } else {
                OnTimeout::Block
            },
            mode: if self.mode == HoldMode::Ticket.name() {
                HoldMode::Ticket
            } else {
                HoldMode::Wait
            },
        }
    }

    /// One line for a person.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text: String = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.chars().count() > 200 {
            text = text.chars().take(200).chain(['…']).collect();
        }
        format!("{} at {}: {text}", self.agent, self.target)
    }
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_LIMIT {
        return text.to_owned();
    }
    let mut end = TEXT_LIMIT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!(
        "{}… ({} bytes in all; the digest is of all of them)",
        text.get(..end).unwrap_or_default(),
        text.len()
    )
}
