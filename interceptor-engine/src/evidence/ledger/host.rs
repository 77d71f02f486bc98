//! What hosts stated of themselves, by host.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use crate::chain::Head;
use crate::evidence::statement::PublicKey;

/// What is known of a host.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) keys: HashSet<PublicKey>,
    /// The key that is believed because it came first.
    pub(super) unpinned: Option<PublicKey>,
    /// Keys that were replaced, and by which statement.
    pub(super) replaced: HashMap<PublicKey, u64>,
    pub(super) statements: Vec<Known>,
    /// Numbers of statements that are there and cannot be believed.
    pub(super) bad: BTreeSet<u64>,
    /// Its statements up to this one were taken away by intention, and that was signed.
    pub(super) trimmed: Option<(u64, Head)>,
    /// What it took back: how many events there really are.
    pub(super) voids: BTreeMap<(u64, Uuid), u64>,
}

/// What is kept of a statement.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) number: u64,
    pub(super) head: Head,
    pub(super) previous: Head,
    pub(super) entry: Box<str>,
}

impl Host {
    pub(super) fn in_order(&self) -> Vec<&Known> {
        let mut statements: Vec<&Known> = self.statements.iter().collect();
        statements.sort_by_key(|known| known.number);
        statements
    }

    /// Whether the statement before this one is among `all`, or went by intention.
    pub(super) fn follows(&self, known: &Known, all: &HashSet<(u64, Head)>) -> bool {
        let before = known.number.saturating_sub(1);
        let went = self.trimmed.is_some_and(|(number, _)| before < number);
        went || match before {
            0 => known.previous == Head::START,
            _ => all.contains(&(before, known.previous)),
        }
    }

    /// What is missing between two numbers, both among them, where none is believed: all,
    /// or what lies between those that were told as bad.
    pub(super) fn holes(&self, from: u64, to: u64, are_told: bool) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut from = from;
        for bad in self.bad.range(from..=to).filter(|_| are_told) {
            if from < *bad {
                holes.push((from, bad - 1));
            }
            from = bad.saturating_add(1);
        }
        if from <= to {
            holes.push((from, to));
        }
        holes
    }
}
