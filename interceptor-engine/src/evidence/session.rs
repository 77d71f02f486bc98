//! One recording, against its chain and what was signed of it.
//!
//! Entries are fed in the stream's order, one at a time; nothing is kept but the one
//! that does not fit, until the next one says in which way it does not. The first
//! thing that is wrong ends the check: what follows proves nothing.

use uuid::Uuid;

use super::finding::{Finding, Place, What, Witness};
use super::ledger::Expected;
use super::listing::{self, Listing};
use super::statement::SessionHead;
use crate::chain::{Broken, Check, Fault, Fields, Hasher, Head, number};
use crate::event::opened_ms;
use crate::replay::Raw;

/// Checks one recording.
#[derive(Debug)]
pub struct SessionCheck<'a> {
    session: Uuid,
    text: String,
    expected: &'a Expected,
    chain: Check,
    /// The next of the signed heads.
    next_head: usize,
    /// Up to where the chain is what was signed.
    signed: u64,
    /// Of the last entry's ID.
    last_ms: u64,
    is_closed: bool,
    is_removed: bool,
    /// Names of agent and target, as the opening has them.
    names: [String; 2],
    /// The opening or close that `sessions` says something else of.
    mislisted: Option<&'static str>,
    /// The entry that does not fit.
    held: Option<Held>,
    finding: Option<Finding>,
}

#[derive(Debug)]
struct Held {
    broken: Broken,
    id: String,
    raw: Raw,
}

/// What a recording is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Events that are right, one after another.
    pub events: u64,
    /// So many of them are covered by a signature.
    pub signed: u64,
    /// Whether the recording has its end.
    pub is_closed: bool,
    /// It is not there, and a host signed that it took it away, all of it.
    pub is_removed: bool,
    /// What is wrong, where something is.
    pub finding: Option<Finding>,
}

impl<'a> SessionCheck<'a> {
    /// Begins; `expected` is what `sessions` says of it.
    #[must_use]
    pub fn new(session: Uuid, expected: &'a Expected) -> Self {
        Self {
            session,
            text: session.to_string(),
            expected,
            chain: Check::default(),
            next_head: 0,
            signed: 0,
            last_ms: 0,
            is_closed: false,
            is_removed: false,
            names: Default::default(),
            mislisted: None,
            held: None,
            finding: None,
        }
    }

    /// Takes the next entry; whether to go on.
    pub fn entry(&mut self, id: &str, fields: Vec<(String, Vec<u8>)>) -> bool {
        if self.finding.is_some() {
            return false;
        }
        let raw = Raw::from_fields(fields);
        if let Some(held) = self.held.take() {
            self.diagnose(held, Some(&raw));
            return false;
        }
        let seq = self.chain.events();
        let stored = raw.stored(&self.text);
        if let Err(broken) = self.chain.event(&stored) {
            // Unless it says itself what is wrong, the next one does.
            let id = id.to_owned();
            self.held = Some(Held { broken, id, raw });
            return true;
        }
        let at = number(stored.fields.at);
        let kind = stored.fields.kind;
        let what = if let Some(field) = raw.stranger() {
            Some(What::Field(field.to_owned()))
        } else if let Some(field) = raw.unreadable() {
            Some(What::Unreadable(field))
        } else if self.is_closed {
            Some(What::BehindClose)
        } else if seq == 0 && kind != b"open" {
            Some(What::NoOpening)
        } else if let Some(at) = at {
            let opened = opened_ms(self.session);
            self.last_ms = self.last_ms.max(opened.saturating_add(at / 1000));
            let expected = entry_id(self.last_ms, seq);
            (id != expected).then_some(What::Id { expected })
        } else {
            Some(What::NoEvent("its `at` is not a number"))
        };
        self.is_closed = kind == b"close";
        let [open, close] = &self.expected.listings;
        match kind {
            b"open" => self.compare_listing(raw.clone(), "open", open),
            b"close" => self.compare_listing(raw.clone(), "close", close),
            _ => {}
        }
        match what {
            Some(what) => self.found(seq, id, &raw, what),
            None => self.compare(id, &raw),
        }
        self.finding.is_none()
    }

    /// Compares an opening or close with what `sessions` says of it.
    fn compare_listing(&mut self, raw: Raw, name: &'static str, listed: &[Listing]) {
        let Ok(event) = raw.read() else { return };
        if name == "open" {
            let text = |name| event.meta.get(name).map(listing::flat);
            self.names = [text("agent"), text("target")].map(Option::unwrap_or_default);
        }
        let [agent, target] = &self.names;
        let own = listing::of_event(&event, agent, target);
        if listed.iter().any(|listed| *listed != own) {
            self.mislisted.get_or_insert(name);
        }
    }

    /// Compares the chain with what was signed of so many events.
    fn compare(&mut self, id: &str, raw: &Raw) {
        let events = self.chain.events();
        while let Some(head) = self.expected.heads.get(self.next_head)
            && head.events <= events
        {
            if head.events != events || head.chain != self.chain.head() {
                let what = What::Rewritten {
                    from: self.signed,
                    to: events.saturating_sub(1),
                    number: head.number,
                    host: head.host.to_string(),
                };
                let seq = self.signed;
                if seq + 1 == events {
                    self.found(seq, id, raw, what);
                } else {
                    self.found_at(Some(seq), None, None, what);
                }
                return;
            }
            self.signed = events;
            self.next_head += 1;
        }
    }

    fn found(&mut self, seq: u64, id: &str, raw: &Raw, what: What) {
        let kind = raw.stored("").fields.kind;
        let kind = String::from_utf8_lossy(kind).into_owned();
        self.found_at(Some(seq), Some(kind), Some(id.to_owned()), what);
    }

    fn found_at(
        &mut self,
        seq: Option<u64>,
        kind: Option<String>,
        entry: Option<String>,
        what: What,
    ) {
        self.finding = Some(Finding {
            place: Place {
                session: Some(self.session),
                seq,
                kind,
                entry,
                host: None,
            },
            what,
        });
    }

    /// Says what is wrong with an entry that does not fit.
    fn diagnose(&mut self, held: Held, next: Option<&Raw>) {
        let Held { broken, id, raw } = held;
        let seq = broken.seq;
        let next = next.map(|next| next.stored(&self.text));
        let next_seq = next.and_then(|next| number(next.fields.seq));
        let what = match broken.why {
            Fault::OutOfPlace { found } if found > seq => match next_seq {
                Some(next) if next == seq => What::Swapped { with: found },
                _ => What::Removed {
                    seq,
                    up_to: found.saturating_sub(1),
                },
            },
            Fault::OutOfPlace { found } => What::Again { seq: found },
            Fault::Unnumbered => What::NoEvent("its `seq` is not a number"),
            Fault::Unchained => What::NoEvent("its `chain` is not a chain value"),
            _ => self.mismatch(seq, &raw, next),
        };
        self.found(seq, &id, &raw, what);
    }

    /// Which part of an event, or which of two, makes that the chain does not fit.
    fn mismatch(&self, seq: u64, raw: &Raw, next: Option<crate::chain::Stored<'_>>) -> What {
        let mut hasher = Hasher::default();
        let this = raw.stored(&self.text);
        let head = hasher.next(self.chain.head(), &this.fields);
        if let Some(next) = next {
            let claimed = Head::from_hex(next.chain);
            let own = seq.to_string();
            let in_its_place = Fields {
                seq: own.as_bytes(),
                ..next.fields
            };
            if Some(hasher.next(self.chain.head(), &in_its_place)) == claimed {
                return What::Swapped { with: seq + 1 };
            }
            if Some(hasher.next(head, &next.fields)) == claimed {
                return What::ChainChanged;
            }
        }
        let signed = self.expected.heads.iter();
        let mut signed = signed.filter(|signed| signed.events == seq + 1);
        if signed.any(|signed| signed.chain == head) {
            return What::ChainChanged;
        }
        What::Changed
    }

    /// All entries were fed.
    #[must_use]
    pub fn end(mut self) -> Outcome {
        if let Some(held) = self.held.take() {
            self.diagnose(held, None);
        }
        if self.finding.is_none() {
            self.completeness();
        }
        Outcome {
            events: self.chain.events(),
            signed: self.signed,
            is_closed: self.is_closed,
            is_removed: self.is_removed,
            finding: self.finding,
        }
    }

    /// Whether all is there that was.
    fn completeness(&mut self) {
        let expected = self.expected;
        let events = self.chain.events();
        let removed = expected.removed();
        if events == 0 && removed.is_some_and(|removed| was_all(expected, &removed)) {
            self.is_removed = true;
            return;
        }
        if removed.is_none()
            && let Some(told) = expected.removal.clone()
        {
            return self.found_at(None, None, None, What::Removal { told });
        }
        let last = expected.heads.last().filter(|head| head.events > events);
        let signed = last.map(|head| {
            let (number, host) = (head.number, head.host.to_string());
            (head.events, Witness::Statement { number, host })
        });
        let listed = expected.close.filter(|close| close.events > events);
        let more = signed.or(listed.map(|close| (close.events, Witness::Listed)));
        if let Some((more, witness)) = more {
            let what = match events {
                0 => What::Gone {
                    events: more,
                    witness,
                },
                _ => What::Cut {
                    events: more,
                    witness,
                },
            };
            return self.found_at(Some(events), None, None, what);
        }
        if events == 0 {
            if expected.is_listed {
                let what = What::Gone {
                    events: 0,
                    witness: Witness::Listed,
                };
                self.found_at(Some(0), None, None, what);
            }
            return;
        }
        let what = match expected.close {
            None if self.is_closed => Some(What::NoClose),
            Some(close) if close.chain != Some(self.chain.head()) || !self.is_closed => {
                Some(What::Close)
            }
            Some(close) if !close.is_signed => Some(What::Unsigned),
            _ if !expected.is_listed => Some(What::NotListed),
            _ => self.mislisted.map(|event| What::Listed { event }),
        };
        if let Some(what) = what {
            self.found_at(None, None, None, what);
        }
    }
}

/// An entry's ID, by the milliseconds of the session's UUIDv7 and `at`.
fn entry_id(ms: u64, seq: u64) -> String {
    format!("{ms}-{}", seq.saturating_add(1))
}

/// Whether what was removed is all that there was: no less than what was signed, and no
/// other than the close.
fn was_all(expected: &Expected, removed: &SessionHead) -> bool {
    let is_all = expected.heads.last().is_none_or(|head| {
        head.events < removed.events
            || (head.events == removed.events && head.chain == removed.chain)
    });
    let is_closed = expected
        .close
        .is_none_or(|close| close.events == removed.events && close.chain == Some(removed.chain));
    is_all && is_closed
}
