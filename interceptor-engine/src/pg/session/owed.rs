//! The replies that the server still owes, in the order in which it will send them.
//!
//! PostgreSQL answers every message in order, so one queue says what each reply
//! belongs to. Two rules bend the order, and both are the server's own: after
//! an error in the extended protocol it ignores everything up to the next
//! `Sync`, and while it reads `COPY … FROM STDIN` it ignores `Sync` and `Flush`.
//!
//! Source: PostgreSQL manual, page `protocol-flow`; `postgres.c`
//! (`ignore_till_sync`) and `copyfromparse.c` (`CopyGetData`).

use std::collections::VecDeque;
use std::sync::Arc;

use interceptor_policy::Refusal;

use super::exchange::Exchange;
use super::statements::{Portal, Prepared, Undo};

/// Most replies owed before no more is read from the agent.
pub(super) const OWED_LIMIT: usize = 16 * 1024;

/// What a message is owed.
#[derive(Debug)]
pub(super) enum Owed {
    /// Everything up to the first `ReadyForQuery`.
    Startup,
    /// `Query`: everything up to `ReadyForQuery`.
    Query(Box<Exchange>),
    /// `FunctionCall`: a value or an error, then `ReadyForQuery`.
    FunctionCall(Box<Exchange>),
    /// `Parse`: `ParseComplete`; how to take its registration back.
    Parse {
        /// Taken back when the server never comes to it.
        undo: Undo,
        /// Set when what went upstream is not what the agent sent.
        refused: Option<Box<Exchange>>,
    },
    /// `Bind`: `BindComplete`.
    Bind {
        /// Taken back when the server never comes to it.
        undo: Undo,
    },
    /// `Describe` of a statement: `ParameterDescription`, then a row description or none.
    DescribeStatement {
        /// The statement described.
        statement: Option<Arc<Prepared>>,
    },
    /// `Describe` of a portal: a row description or none.
    DescribePortal {
        /// The portal described.
        portal: Option<Arc<Portal>>,
        /// Ours, not the agent's: the answer is kept from the agent.
        ours: bool,
    },
    /// `Execute`: rows, and how it ended.
    Execute(Box<Exchange>),
    /// `Close`: `CloseComplete`.
    Close,
    /// `Sync`: `ReadyForQuery`.
    Sync,
}

impl Owed {
    /// Whether the entry belongs to the extended protocol, where an error makes
    /// the server skip to the next `Sync`.
    pub(super) fn skips_on_error(&self) -> bool {
        !matches!(
            self,
            Self::Startup | Self::Query(_) | Self::FunctionCall(_) | Self::Sync
        )
    }

    /// The exchange whose data the server is sending while this is in front.
    pub(super) fn exchange(&mut self) -> Option<&mut Exchange> {
        match self {
            Self::Query(exchange) | Self::FunctionCall(exchange) | Self::Execute(exchange) => {
                Some(exchange)
            }
            Self::Parse { refused, .. } => refused.as_deref_mut(),
            _ => None,
        }
    }

    /// As [`Owed::exchange`], to look at.
    pub(super) fn exchange_ref(&self) -> Option<&Exchange> {
        match self {
            Self::Query(exchange) | Self::FunctionCall(exchange) | Self::Execute(exchange) => {
                Some(exchange)
            }
            Self::Parse { refused, .. } => refused.as_deref(),
            _ => None,
        }
    }

    /// Why this was refused, or its answer cut, if it was.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        let exchange = self.exchange_ref()?;
        let cut = exchange.cut.as_ref().map(|cut| &cut.refusal);
        exchange.refusal.as_ref().or(cut)
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct OwedQueue {
    entries: VecDeque<Owed>,
}

impl OwedQueue {
    pub(super) fn push(&mut self, owed: Owed) {
        self.entries.push_back(owed);
    }

    pub(super) fn front(&mut self) -> Option<&mut Owed> {
        self.entries.front_mut()
    }

    pub(super) fn first(&self) -> Option<&Owed> {
        self.entries.front()
    }

    pub(super) fn pop(&mut self) -> Option<Owed> {
        self.entries.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes out everything that the server skips after an error: all up to the
    /// next `Sync`. The second value says whether that `Sync` is still to come.
    pub(super) fn skip_to_sync(&mut self) -> (Vec<Owed>, bool) {
        let next_sync = self
            .entries
            .iter()
            .position(|owed| matches!(owed, Owed::Sync));
        let count = next_sync.unwrap_or(self.entries.len());
        (self.entries.drain(..count).collect(), next_sync.is_none())
    }

    /// Takes out the `Sync`s that follow the front directly: the server reads
    /// them as part of `COPY … FROM STDIN` and answers none.
    pub(super) fn swallow_syncs_behind_front(&mut self) {
        while matches!(self.entries.get(1), Some(Owed::Sync)) {
            self.entries.remove(1);
        }
    }

    /// How many `ReadyForQuery` are still owed.
    pub(super) fn ready_owed(&self) -> u64 {
        self.entries
            .iter()
            .filter(|owed| !owed.skips_on_error())
            .count() as u64
    }

    /// Everything still owed.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Owed> + '_ {
        self.entries.drain(..)
    }
}
