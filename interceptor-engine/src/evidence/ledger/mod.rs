//! All that hosts stated, read from `sessions`.
//!
//! Entries are fed in the stream's order. What is kept of a statement is its number
//! and two digests; of a session, the heads that were signed. So memory grows with the
//! sessions and statements, some hundred bytes each, and not with recordings.
//!
//! * [`expected`] is what is known of a session;
//! * [`host`] is what is known of a host;
//! * [`statements`] says which statements are there, and which are missing.

mod expected;
mod host;
mod statements;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use self::expected::Move;
pub use self::expected::{Close, Expected, Signature};
use self::host::{Host, Known};
pub use self::statements::Note;
use super::finding::{Finding, Place, What};
use super::listing;
use super::statement::{Ed25519, Line, PublicKey, SessionHead, Signed, State, Void, head};
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
            head: head(&bytes),
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
}
