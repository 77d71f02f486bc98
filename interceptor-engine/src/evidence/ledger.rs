//! All that hosts stated, read from `sessions`.
//!
//! Entries are fed in the stream's order. What is kept of a statement is its number
//! and two digests; of a session, the heads that were signed. So memory grows with the
//! sessions and statements, some hundred bytes each, and not with recordings.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::finding::{Finding, Place, What};
use super::listing::{self, Listing};
use super::statement::{Ed25519, Line, PublicKey, Signed, State};
use crate::chain::{Head, number};

/// Whose keys are believed.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// By host. A host that is among them signs with these keys and with those that
    /// they introduced, and no others.
    pub pins: HashMap<String, Vec<PublicKey>>,
    /// Hosts that are not among them are not believed either.
    pub only_pins: bool,
}

/// What `sessions` says of a session.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Its opening is there.
    pub is_listed: bool,
    /// Its close, where that is there.
    pub close: Option<Close>,
    /// What its openings and closes say there; more than one each only where somebody
    /// wrote there who records nothing.
    pub(super) listings: [Vec<Listing>; 2],
    /// What was signed, by the number of events.
    pub heads: Vec<Signature>,
    /// It was taken out of the store by intention, which was signed.
    pub is_removed: bool,
    /// The same, which was not signed: what it was then.
    pub removal: Option<Removal>,
}

/// A removal that stands in `sessions` and is not signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// How many events there were.
    pub events: u64,
    /// The chain's value after them.
    pub chain: Option<Head>,
    /// Who did it, and where it is now.
    pub told: String,
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
    /// A recording was taken out of the store, and nobody signed that.
    #[error(
        "session {session} was removed by {by}; who can write to the store can say so, and its archive proves it"
    )]
    Removed {
        /// The session.
        session: Uuid,
        /// Who did it, and where it is now.
        by: String,
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

/// What is known of a host.
#[derive(Debug, Default)]
struct Host {
    keys: HashSet<PublicKey>,
    /// The key that is believed because it came first.
    unpinned: Option<PublicKey>,
    /// Keys that were replaced, and by which statement.
    replaced: HashMap<PublicKey, u64>,
    statements: Vec<Known>,
    /// Numbers of statements that are there and cannot be believed.
    bad: BTreeSet<u64>,
}

/// What is kept of a statement.
#[derive(Clone, Debug)]
struct Known {
    number: u64,
    head: Head,
    previous: Head,
    entry: Box<str>,
}

impl Host {
    /// What is missing between two numbers, both among them, where none is believed: all,
    /// or what lies between those that were told as bad.
    fn holes(&self, from: u64, to: u64, are_told: bool) -> Vec<(u64, u64)> {
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

/// What hosts stated.
#[derive(Debug)]
pub struct Ledger {
    ed25519: Ed25519,
    trust: Trust,
    hosts: BTreeMap<Arc<str>, Host>,
    sessions: BTreeMap<Uuid, Expected>,
    findings: Vec<Finding>,
    /// The stream's beginning was taken away, and that is on record.
    trimmed: bool,
}

impl Ledger {
    /// Begins.
    #[must_use]
    pub fn new(trust: Trust, ed25519: Ed25519) -> Self {
        Self {
            ed25519,
            trust,
            hosts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            findings: Vec::new(),
            trimmed: false,
        }
    }

    /// Takes an entry of `sessions`, whose fields `text` gives.
    pub fn entry(&mut self, id: &str, text: impl Fn(&str) -> String) {
        let believed = match Signed::of_entry(&text) {
            Ok(None) => false,
            Ok(Some(signed)) => self.statement(id, &signed, &text("session")),
            Err(unreadable) => {
                let place = Place {
                    session: Uuid::try_parse(&text("session")).ok(),
                    host: Some(text("host")),
                    entry: Some(id.to_owned()),
                    ..Place::default()
                };
                if let Some(number) = number(text("signed_number").as_bytes()) {
                    self.host(&text("host")).1.bad.insert(number);
                }
                let what = What::NoStatement(unreadable.field);
                self.findings.push(Finding { place, what });
                false
            }
        };
        let event = text("event");
        if !["open", "close", "removed", "restored", "trimmed"].contains(&event.as_str()) {
            return;
        }
        if event == "trimmed" {
            self.trimmed = true;
        }
        let Ok(session) = Uuid::try_parse(&text("session")) else {
            return;
        };
        let expected = self.sessions.entry(session).or_default();
        if event == "open" {
            expected.is_listed = true;
            return;
        }
        if event == "restored" {
            expected.removal = None;
            return;
        }
        if event == "removed" {
            let archive = text("archive");
            let (by, host) = (text("by"), text("host"));
            expected.removal = Some(Removal {
                events: number(text("events").as_bytes()).unwrap_or(0),
                chain: Head::from_hex(text("chain").as_bytes()),
                told: match archive.as_str() {
                    "" => format!("{by} on {host}"),
                    archive => format!("{by} on {host}, to {archive}"),
                },
            });
            return;
        }
        // A later one that nobody signed does not stand for one that is signed.
        if expected.close.is_none_or(|close| !close.is_signed) || believed {
            expected.close = Some(Close {
                events: number(text("events").as_bytes()).unwrap_or(0),
                chain: Head::from_hex(text("chain").as_bytes()),
                is_signed: believed,
            });
        }
    }

    /// Keeps what an opening or close says, to be compared with the recording.
    pub fn listed(&mut self, fields: &[(String, Vec<u8>)]) {
        let text = |wanted: &str| {
            let found = fields.iter().find(|(name, _)| name == wanted);
            found.map_or("", |(_, value)| std::str::from_utf8(value).unwrap_or(""))
        };
        let which = match text("event") {
            "open" => 0,
            "close" => 1,
            _ => return,
        };
        let Ok(session) = Uuid::try_parse(text("session")) else {
            return;
        };
        let expected = self.sessions.entry(session).or_default();
        let listing = listing::of_entry(fields);
        if let Some(known) = expected.listings.get_mut(which)
            && !known.contains(&listing)
        {
            known.push(listing);
        }
    }

    fn host(&mut self, name: &str) -> (Arc<str>, &mut Host) {
        let known = self.hosts.get_key_value(name);
        let name: Arc<str> = known.map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
        let pins = &self.trust.pins;
        let host = self.hosts.entry(Arc::clone(&name)).or_insert_with(|| Host {
            keys: pins.get(&*name).into_iter().flatten().copied().collect(),
            ..Host::default()
        });
        (name, host)
    }

    /// Takes a statement; whether it is believed.
    fn statement(&mut self, id: &str, signed: &Signed, session: &str) -> bool {
        let ed25519 = self.ed25519;
        let only_pins = self.trust.only_pins;
        let bytes = signed.statement().bytes();
        let (name, host) = self.host(&signed.host);
        let (number, key) = (signed.number, signed.key);
        if host.keys.is_empty() && !only_pins && ed25519(&key, &bytes, &signed.signature) {
            host.keys.insert(key);
            host.unpinned = Some(key);
        }
        let what = if !host.keys.contains(&key) {
            Some(What::Key { number, key })
        } else if !ed25519(&key, &bytes, &signed.signature) {
            Some(What::Signature { number })
        } else {
            let replaced = host.replaced.get(&key).copied();
            let replaced = replaced.filter(|replaced| number > *replaced);
            replaced.map(|replaced| What::Replaced {
                number,
                key,
                replaced,
            })
        };
        if let Some(what) = what {
            host.bad.insert(number);
            let place = Place {
                session: Uuid::try_parse(session).ok(),
                host: Some(signed.host.clone()),
                entry: Some(id.to_owned()),
                ..Place::default()
            };
            self.findings.push(Finding { place, what });
            return false;
        }
        host.statements.push(Known {
            number,
            head: super::statement::head(&bytes),
            previous: signed.previous,
            entry: id.into(),
        });
        for line in signed.lines() {
            match line {
                Some(Line::Key(next)) => {
                    let host = self.host(&signed.host).1;
                    host.keys.insert(next);
                    if next != key {
                        host.replaced.insert(key, number);
                    }
                }
                Some(Line::Head(head)) => {
                    let expected = self.sessions.entry(head.session).or_default();
                    if head.state == State::Removed {
                        expected.is_removed = true;
                    }
                    let signature = Signature {
                        events: head.events,
                        chain: head.chain,
                        number,
                        host: Arc::clone(&name),
                    };
                    // Mostly they come in order.
                    let after = |known: &Signature| known.events <= signature.events;
                    let at = expected.heads.partition_point(after);
                    expected.heads.insert(at, signature);
                }
                None => {
                    let place = Place {
                        host: Some(signed.host.clone()),
                        entry: Some(id.to_owned()),
                        ..Place::default()
                    };
                    let what = What::NoStatement("heads");
                    self.findings.push(Finding { place, what });
                }
            }
        }
        true
    }

    /// What was found in single entries until now.
    pub fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// What is known of a session.
    #[must_use]
    pub fn session(&self, session: Uuid) -> Option<&Expected> {
        self.sessions.get(&session)
    }

    /// All sessions that are named anywhere, oldest first.
    pub fn sessions(&self) -> impl Iterator<Item = Uuid> {
        self.sessions.keys().copied()
    }

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

    /// Statements that are missing. `from_start` when entries were fed from the first
    /// that there ever was. One that is there and cannot be believed is missing too,
    /// unless `are_told`: all of [`Ledger::findings`] are told beside these.
    #[must_use]
    pub fn missing(&self, from_start: bool, are_told: bool) -> Vec<Finding> {
        let from_start = from_start && !self.trimmed;
        // A host that got another name goes on counting.
        let all: HashSet<(u64, Head)> = self
            .hosts
            .values()
            .flat_map(|host| &host.statements)
            .map(|known| (known.number, known.head))
            .collect();
        let mut findings = Vec::new();
        for (name, host) in &self.hosts {
            let mut statements: Vec<&Known> = host.statements.iter().collect();
            statements.sort_by_key(|known| known.number);
            let mut below = 0;
            for (at, known) in statements.iter().enumerate() {
                let before = known.number.saturating_sub(1);
                let follows = match before {
                    0 => known.previous == Head::START,
                    _ => all.contains(&(before, known.previous)),
                };
                if !follows && (from_start || at > 0) {
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
                below = known.number;
            }
        }
        findings
    }

    /// What a person should know beside what was found.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        for (session, expected) in &self.sessions {
            if let Some(removal) = expected.removal.as_ref().filter(|_| !expected.is_removed) {
                let (session, by) = (*session, removal.told.clone());
                notes.push(Note::Removed { session, by });
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
