//! What hosts stated of a session.

use std::sync::Arc;

use crate::chain::Head;
use crate::evidence::listing::Listing;
use crate::evidence::statement::{SessionHead, State};

/// What `sessions` says of a session.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Its opening is there.
    pub is_listed: bool,
    /// Its close, where that is there.
    pub close: Option<Close>,
    /// What its openings and closes say there; more than one each only where somebody
    /// wrote there who records nothing.
    pub(in crate::evidence) listings: [Vec<Listing>; 2],
    /// What was signed, by the number of events.
    pub heads: Vec<Signature>,
    /// When it was taken out of the store by intention and brought back: what was
    /// signed of that.
    pub(super) moves: Vec<Move>,
    /// The same, as nobody signed it: who did it, and where it is now.
    pub removal: Option<String>,
}

/// A removal or return that was signed.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) host: Arc<str>,
    pub(super) number: u64,
    pub(super) at: String,
    pub(super) head: SessionHead,
}

impl Move {
    /// Whether this is the later one. A host numbers what it signs; between two, their
    /// clocks have to say it.
    fn is_after(&self, other: &Self) -> bool {
        // 05.5Z is after 05Z.
        let clock = |at: &Self| at.at.trim_end_matches('Z').to_owned();
        if self.host == other.host {
            self.number > other.number
        } else {
            clock(self) > clock(other)
        }
    }
}

impl Expected {
    pub(super) fn sign(&mut self, signature: Signature) {
        // Mostly they come in order.
        let after = |known: &Signature| known.events <= signature.events;
        let at = self.heads.partition_point(after);
        self.heads.insert(at, signature);
    }

    /// Where a believed host says that it was taken out of the store, and none that it
    /// was brought back: what it was then.
    #[must_use]
    pub fn removed(&self) -> Option<SessionHead> {
        let moves = self.moves.iter();
        let last = moves.reduce(|last, next| if next.is_after(last) { next } else { last })?;
        (last.head.state == State::Removed).then_some(last.head)
    }
}

/// A close in `sessions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// How many events there were.
    pub events: u64,
    /// The chain's value after them.
    pub chain: Option<Head>,
    /// By a key that is believed.
    pub is_signed: bool,
}

/// A head that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// How many events there were.
    pub events: u64,
    /// The chain's value after them.
    pub chain: Head,
    /// The statement.
    pub number: u64,
    /// Whose.
    pub host: Arc<str>,
}
