//! Which statements are there, and which are missing.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::Ledger;
use crate::chain::Head;
use crate::evidence::finding::{Finding, Place, What};
use crate::evidence::statement::{Line, PublicKey, Trimmed, is_name};

/// Something that a person should know, and that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// The host's key comes from the store itself.
    #[error(
        "the key {key} of {host} is known from the store alone, which whoever could write there may have made: pin it (--trusted-keys)"
    )]
    Unpinned {
        /// The host.
        host: String,
        /// Its first key.
        key: PublicKey,
    },
    /// A host took back what it had signed.
    #[error(
        "{host} took back what its statement {number} says of session {session}: it was killed before all that it had signed was on record, and that is {events} events"
    )]
    Void {
        /// The host.
        host: String,
        /// The statement.
        number: u64,
        /// The session.
        session: Uuid,
        /// How many there are.
        events: u64,
    },
    /// Two statements have the same number.
    #[error(
        "{host} signed two statements with the number {number}: its state was lost in a power cut or came from a backup, or its key is in use in two places"
    )]
    Twice {
        /// The host.
        host: String,
        /// The number.
        number: u64,
    },
}

impl Ledger {
    /// How many statements are believed.
    #[must_use]
    pub fn statements(&self) -> usize {
        self.hosts.values().map(|host| host.statements.len()).sum()
    }

    /// Whether a statement is there.
    #[must_use]
    pub fn has(&self, host: &str, head: Head) -> bool {
        self.hosts
            .get(host)
            .is_some_and(|host| host.statements.iter().any(|known| known.head == head))
    }

    /// The number of a host's last statement that is there; 0 where there is none.
    #[must_use]
    pub fn last(&self, host: &str) -> u64 {
        let host = self.hosts.get(host);
        let statements = host.into_iter().flat_map(|host| &host.statements);
        statements.map(|known| known.number).max().unwrap_or(0)
    }

    /// Up to which number a host's statements were taken away, as a believed host says.
    #[must_use]
    pub fn trimmed(&self, host: &str) -> u64 {
        let trimmed = self.hosts.get(host).and_then(|host| host.trimmed);
        trimmed.map_or(0, |(number, _)| number)
    }

    /// Statements that are missing. `from_start` when entries were fed from the first
    /// that there ever was. One that is there and cannot be believed is missing too,
    /// unless `are_told`: all of [`Ledger::findings`] are told beside these.
    #[must_use]
    pub fn missing(&self, from_start: bool, are_told: bool) -> Vec<Finding> {
        let all = self.numbered();
        let mut findings = Vec::new();
        for (name, host) in &self.hosts {
            let mut below = self.trimmed(name);
            for (at, known) in host.in_order().into_iter().enumerate() {
                let before = known.number.saturating_sub(1);
                if !host.follows(known, &all) && (from_start || at > 0) {
                    let holes = host.holes((below + 1).min(before), before, are_told);
                    findings.extend(holes.into_iter().map(|(from, to)| Finding {
                        place: Place {
                            host: Some(name.to_string()),
                            entry: Some(known.entry.to_string()),
                            ..Place::default()
                        },
                        what: What::Statements { from, to },
                    }));
                }
                below = below.max(known.number);
            }
        }
        findings
    }

    /// Statements that are there, and those that the cut-off beginning ended with. A host
    /// that got another name goes on counting, so they are of all hosts.
    fn numbered(&self) -> HashSet<(u64, Head)> {
        let there = self.hosts.values().flat_map(|host| &host.statements);
        let there = there.map(|known| (known.number, known.head));
        let gone = self.hosts.values().filter_map(|host| host.trimmed);
        there.chain(gone).collect()
    }

    /// What is to be signed when entries go that are before `before`: for each host, up to
    /// which statement that is. Not beyond one that is missing, so that what was taken away
    /// before is still found missing afterwards.
    #[must_use]
    pub fn trim(&self, before: (u64, u64), id: impl Fn(&str) -> (u64, u64)) -> Vec<Line> {
        let all = self.numbered();
        let mut lines = Vec::new();
        for (name, host) in self.hosts.iter().filter(|(name, _)| is_name(name)) {
            let mut up_to = host.trimmed;
            for known in host.in_order() {
                if !host.follows(known, &all) {
                    break;
                }
                let is_new = up_to.is_none_or(|(number, _)| number < known.number);
                if is_new && id(&known.entry) < before {
                    up_to = Some((known.number, known.head));
                }
            }
            let line = up_to.map(|(number, head)| {
                Line::Trimmed(Trimmed {
                    before,
                    number,
                    head,
                    host: name.to_string(),
                })
            });
            lines.extend(line);
        }
        lines
    }

    /// What a person should know beside what was found.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        for (name, host) in &self.hosts {
            for ((number, session), events) in &host.voids {
                notes.push(Note::Void {
                    host: name.to_string(),
                    number: *number,
                    session: *session,
                    events: *events,
                });
            }
        }
        for (name, host) in &self.hosts {
            if let Some(key) = host.unpinned {
                let host = name.to_string();
                notes.push(Note::Unpinned { host, key });
            }
            let mut heads: HashMap<u64, Head> = HashMap::new();
            let mut twice: Option<u64> = None;
            for known in &host.statements {
                let head = *heads.entry(known.number).or_insert(known.head);
                if head != known.head {
                    twice = Some(twice.map_or(known.number, |number| number.min(known.number)));
                }
            }
            if let Some(number) = twice {
                let host = name.to_string();
                notes.push(Note::Twice { host, number });
            }
        }
        notes
    }
}
