//! Keeping an exchange back until a person has decided.
//!
//! A session that holds hands a [`Question`] to the shell and reads on nothing
//! of what the agent sends; the shell asks, and answers with a [`Decision`].

use std::sync::Arc;

use interceptor_policy::approval::Approved;
use interceptor_policy::{Approval, Subject};
use uuid::Uuid;

/// What a person is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Names the question: the session and the exchange.
    pub id: String,
    /// The session.
    pub session: Uuid,
    /// The exchange.
    pub exchange: u64,
    /// What the rules ask for.
    pub approval: Arc<Approval>,
    /// The rule that holds.
    pub rule: Arc<str>,
    /// Why, in the rule's words.
    pub message: Arc<str>,
    /// Of everything that will run: an answer is to these bytes and no others.
    pub digest: Digest,
    /// What will run, for a person, as it may be recorded: what masks hide in
    /// records is hidden here too, and the digest still covers it.
    pub text: String,
    /// Its parameters, a JSON array.
    pub parameters: Option<String>,
    /// What the protocol's parser saw of it, a JSON object.
    pub meta: Arc<serde_json::Value>,
}

/// The name of the question about an exchange.
pub(crate) fn question_id(session: Uuid, exchange: u64) -> String {
    format!("{session}-{exchange}")
}

/// BLAKE3 over who, where and what.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Digest {
    /// Of what one principal would do at one target. Every part is preceded by
    /// its length, so that no two lists of parts read as one stream.
    #[must_use]
    pub fn of(subject: &Subject, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(b"interceptor question 1");
        add(subject.principal.agent.as_bytes());
        add(&subject.principal.uid.to_le_bytes());
        add(subject.protocol.name().as_bytes());
        add(subject.target.name.as_deref().unwrap_or("").as_bytes());
        match subject.target.address {
            Some(address) => add(address.to_canonical().to_string().as_bytes()),
            None => add(subject.target.origin.as_bytes()),
        }
        add(&subject.target.port.to_le_bytes());
        for part in parts {
            add(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// What became of a question.
#[derive(Debug)]
pub enum Decision {
    /// It may go on.
    Approved {
        /// Spent on it.
        approved: Approved,
        /// Who said so, for the record.
        by: String,
    },
    /// It may not.
    Denied {
        /// Who said so.
        by: String,
        /// Why, in their words.
        reason: Option<String>,
    },
    /// Nobody answered in time, and silence means no.
    TimedOut,
    /// The agent took it back.
    Cancelled,
    /// It is refused for now, and may be asked again once the question of this
    /// name is answered.
    Ticket(String),
    /// It could not be asked.
    Unasked(String),
}

impl Decision {
    /// Its word on record.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Approved { .. } => "approved",
            Self::Denied { .. } => "denied",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Ticket(_) => "ticket",
            Self::Unasked(_) => "unasked",
        }
    }

    /// Who decided; empty where nobody did.
    pub(crate) fn by(&self) -> &str {
        match self {
            Self::Approved { by, .. } | Self::Denied { by, .. } => by,
            _ => "",
        }
    }

    /// Why nothing runs, for the agent; `None` where it may go on. `message` is of the
    /// rule that held.
    pub(crate) fn refusal(&self, message: &str) -> Option<String> {
        Some(match self {
            Self::Approved { .. } => return None,
            Self::Denied { by, reason } => {
                format!("denied by {by}: {}", reason.as_deref().unwrap_or(message))
            }
            Self::TimedOut => format!("nobody decided in time: {message}"),
            Self::Cancelled => "taken back while a person was asked".to_owned(),
            Self::Ticket(ticket) => {
                format!("a person is asked first (ticket {ticket}): {message}")
            }
            Self::Unasked(why) => format!("nobody could be asked: {why}"),
        })
    }
}
