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
use super::statement::{
    Ed25519, Line, PublicKey, SessionHead, Signed, State, Trimmed, Void, is_name,
};
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
    /// When it was taken out of the store by intention and brought back: what was
    /// signed of that.
    moves: Vec<Move>,
    /// The same, as nobody signed it: who did it, and where it is now.
    pub removal: Option<String>,
}

/// A removal or return that was signed.
#[derive(Clone, Debug)]
struct Move {
    host: Arc<str>,
    number: u64,
    at: String,
    head: SessionHead,
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
    fn sign(&mut self, signature: Signature) {
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
    /// Its statements up to this one were taken away by intention, and that was signed.
    trimmed: Option<(u64, Head)>,
    /// What it took back: how many events there really are.
    voids: BTreeMap<(u64, Uuid), u64>,
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
    fn in_order(&self) -> Vec<&Known> {
        let mut statements: Vec<&Known> = self.statements.iter().collect();
        statements.sort_by_key(|known| known.number);
        statements
    }

    /// Whether the statement before this one is among `all`, or went by intention.
    fn follows(&self, known: &Known, all: &HashSet<(u64, Head)>) -> bool {
        let before = known.number.saturating_sub(1);
        let went = self.trimmed.is_some_and(|(number, _)| before < number);
        went || match before {
            0 => known.previous == Head::START,
            _ => all.contains(&(before, known.previous)),
        }
    }

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
        if event == "trimmed" && !believed {
            let place = Place {
                host: Some(text("host")),
                entry: Some(id.to_owned()),
                ..Place::default()
            };
            let what = What::Trimmed;
            self.findings.push(Finding { place, what });
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
            let (archive, by, host) = (text("archive"), text("by"), text("host"));
            expected.removal = match archive.as_str() {
                _ if believed => None,
                "" => Some(format!("{by} on {host}")),
                archive => Some(format!("{by} on {host}, to {archive},")),
            };
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
                Some(Line::Head(head)) => self.head(&name, signed, head),
                Some(Line::Void(void)) => self.void(&name, number, void),
                Some(Line::Trimmed(trimmed)) => {
                    let known = &mut self.host(&trimmed.host).1.trimmed;
                    let up_to = (trimmed.number, trimmed.head);
                    if known.is_none_or(|(number, _)| number < up_to.0) {
                        *known = Some(up_to);
                    }
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

    /// Takes what a believed statement says of a session.
    fn head(&mut self, name: &Arc<str>, signed: &Signed, head: SessionHead) {
        let number = signed.number;
        let host = self.host(name).1;
        let void = host.voids.get(&(number, head.session)).copied();
        let expected = self.sessions.entry(head.session).or_default();
        if matches!(head.state, State::Removed | State::Restored) {
            expected.moves.push(Move {
                host: Arc::clone(name),
                number,
                at: signed.at.clone(),
                head,
            });
        }
        if void.is_some_and(|events| events < head.events) {
            return;
        }
        expected.sign(Signature {
            events: head.events,
            chain: head.chain,
            number,
            host: Arc::clone(name),
        });
    }

    /// Takes back what another statement of the host's says of a session.
    fn void(&mut self, name: &Arc<str>, number: u64, void: Void) {
        let host = self.host(name).1;
        host.voids.insert((void.number, void.session), void.events);
        let expected = self.sessions.entry(void.session).or_default();
        expected.heads.retain(|head| {
            head.host != *name || head.number != void.number || head.events <= void.events
        });
        if void.events > 0 {
            expected.sign(Signature {
                events: void.events,
                chain: void.chain,
                number,
                host: Arc::clone(name),
            });
        }
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
