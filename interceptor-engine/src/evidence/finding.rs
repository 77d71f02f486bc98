//! What a verifier finds wrong, and where.

use uuid::Uuid;

use super::statement::PublicKey;

/// Something that is not as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub what: What,
}

/// Where something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The session.
    pub session: Option<Uuid>,
    /// The event's number; the first one that cannot be believed.
    pub seq: Option<u64>,
    /// Its kind, as it stands there.
    pub kind: Option<String>,
    /// The ID of the entry, in the session's stream or else in `sessions`.
    pub entry: Option<String>,
    /// Whose statements.
    pub host: Option<String>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    /// The next event fits the chain, and this one does not.
    #[error("the event was changed")]
    Changed,
    /// The event fits the next one, and the value beside it does not.
    #[error("the event's chain value was changed")]
    ChainChanged,
    /// Events before the one that stands there are gone.
    #[error("event {seq} was removed{}", if *.up_to > *.seq { format!(", and those up to {up_to}") } else { String::new() })]
    Removed {
        /// The first.
        seq: u64,
        /// The last.
        up_to: u64,
    },
    /// Two events stand in each other's place.
    #[error("the event was swapped with event {with}")]
    Swapped {
        /// The other one.
        with: u64,
    },
    /// An event stands there a second time.
    #[error("event {seq} stands there again")]
    Again {
        /// Its number.
        seq: u64,
    },
    /// It is no event.
    #[error("what stands there is no event: {0}")]
    NoEvent(&'static str),
    /// It has a field that the chain does not cover.
    #[error("it has the field {0:?}, which no recorder writes")]
    Field(String),
    /// It is as it was chained, and what stands there cannot be unpacked.
    #[error("its `{0}` cannot be read: it is not what a recorder compresses")]
    Unreadable(&'static str),
    /// The entry's ID does not follow from the event.
    #[error("its entry would have the ID {expected}")]
    Id {
        /// The right one.
        expected: String,
    },
    /// The first event opens no session.
    #[error("a session begins with its opening, and not with this")]
    NoOpening,
    /// Something follows the close.
    #[error("it stands behind the session's close")]
    BehindClose,
    /// The chain is consistent, and is not what was signed.
    #[error(
        "an event from {from} to {to} was changed and the chain made anew: it is not what statement {number} of {host} signed"
    )]
    Rewritten {
        /// The first that may be it.
        from: u64,
        /// The last.
        to: u64,
        /// The statement.
        number: u64,
        /// Whose.
        host: String,
    },
    /// The close in `sessions` does not fit the recording.
    #[error("the close in `sessions` says another chain value")]
    Close,
    /// The end is missing.
    #[error("the tail was cut off: there were events up to {}, as {} says", .events.saturating_sub(1), .witness)]
    Cut {
        /// How many there were, at least.
        events: u64,
        /// Who says so.
        witness: Witness,
    },
    /// All of it is missing.
    #[error("the whole recording is gone, of which there {}, as {} says",
        if *.events == 0 { "was the opening".to_owned() } else { format!("were events up to {}", .events - 1) }, .witness)]
    Gone {
        /// How many there were, at least.
        events: u64,
        /// Who says so.
        witness: Witness,
    },
    /// A recording ended and `sessions` does not say so.
    #[error("its close is missing in `sessions`")]
    NoClose,
    /// A recording is there and `sessions` does not say that it began.
    #[error("its opening is missing in `sessions`")]
    NotListed,
    /// The opening or the close in `sessions` says something else than the recording.
    #[error("`sessions` says something else of its {event} than the recording")]
    Listed {
        /// `open` or `close`.
        event: &'static str,
    },
    /// It was removed, and no host signed that.
    #[error("`sessions` says that {told} removed it, and no host signed that")]
    Removal {
        /// Who, and where it is now.
        told: String,
    },
    /// The beginning of `sessions` was taken away, and no host signed that.
    #[error("`sessions` says that its beginning was taken away, and no host signed that")]
    Trimmed,
    /// The close is not signed.
    #[error("its close in `sessions` is not signed")]
    Unsigned,
    /// A statement cannot be read.
    #[error("a statement whose `{0}` is not what a recorder writes")]
    NoStatement(&'static str),
    /// A statement was changed, or signed by somebody else in the name of the key.
    #[error("statement {number} does not bear the signature of its key: it was changed")]
    Signature {
        /// The statement.
        number: u64,
    },
    /// Nobody vouches for the key.
    #[error("statement {number} is signed with the unknown key {key}")]
    Key {
        /// The statement.
        number: u64,
        /// The key.
        key: PublicKey,
    },
    /// The key was replaced before.
    #[error("statement {number} is signed with the key {key}, which statement {replaced} replaced")]
    Replaced {
        /// The statement.
        number: u64,
        /// The key.
        key: PublicKey,
        /// The statement that introduced the next key.
        replaced: u64,
    },
    /// Signed statements were taken away.
    #[error("{}", statements(*.from, *.to))]
    Statements {
        /// The first that is missing.
        from: u64,
        /// The last.
        to: u64,
    },
}

fn statements(from: u64, to: u64) -> String {
    if from >= to {
        format!("signed statement {from} is missing in `sessions`")
    } else {
        format!("signed statements {from} to {to} are missing in `sessions`")
    }
}

/// Who says how far a recording went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// A host's signature.
    Statement {
        /// Its number.
        number: u64,
        /// Whose.
        host: String,
    },
    /// An entry of `sessions` that is not signed.
    Listed,
}

impl std::fmt::Display for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Statement { number, host } => write!(f, "statement {number} of {host}"),
            Self::Listed => f.write_str("`sessions`"),
        }
    }
}

impl What {
    /// A word for scripts.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::ChainChanged => "chain_changed",
            Self::Removed { .. } => "removed",
            Self::Swapped { .. } => "swapped",
            Self::Again { .. } => "again",
            Self::NoEvent(_) => "no_event",
            Self::Field(_) => "field",
            Self::Unreadable(_) => "unreadable",
            Self::Id { .. } => "id",
            Self::NoOpening => "no_opening",
            Self::BehindClose => "behind_close",
            Self::Rewritten { .. } => "rewritten",
            Self::Close => "close",
            Self::Cut { .. } => "cut",
            Self::Gone { .. } => "gone",
            Self::NoClose => "no_close",
            Self::NotListed => "not_listed",
            Self::Listed { .. } => "listed",
            Self::Removal { .. } => "removal",
            Self::Trimmed => "trimmed",
            Self::Unsigned => "unsigned",
            Self::NoStatement(_) => "no_statement",
            Self::Signature { .. } => "signature",
            Self::Key { .. } => "key",
            Self::Replaced { .. } => "replaced",
            Self::Statements { .. } => "statements",
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Place {
            session,
            seq,
            kind,
            entry,
            host,
        } = &self.place;
        let mut parts = Vec::new();
        if let Some(session) = session {
            parts.push(format!("session {session}"));
        }
        if let Some(host) = host {
            parts.push(format!("host {host}"));
        }
        if let Some(seq) = seq {
            let kind = kind.as_ref().map(|kind| format!(" ({kind})"));
            parts.push(format!("event {seq}{}", kind.unwrap_or_default()));
        }
        if let Some(entry) = entry {
            parts.push(format!("entry {entry}"));
        }
        write!(f, "{}: {}", parts.join(", "), self.what)
    }
}
