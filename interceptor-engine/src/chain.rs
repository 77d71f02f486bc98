//! The hash chain of a session: each event's value covers the event and the value
//! before it.
//!
//! ```text
//! chain = SHA-256( "interceptor/event/1\n" ‖ previous chain ‖ field ‖ field ‖ … )
//! field = length in bytes, 8 bytes big-endian ‖ the bytes as they stand in the stream
//! ```
//!
//! An event whose `data` stands there compressed ([`crate::packed`]) has `coding` as well,
//! behind `meta`, and `"interceptor/event/2\n"` in front. One with something sealed beside
//! it has `coding`, perhaps empty, and `sealed`, and `"interceptor/event/3\n"` in front.
//!
//! The fields are `session`, `seq`, `at`, `kind`, `exchange`, `run`, `line`, `data`,
//! `meta`, in that order; one that the stream leaves out has length 0. The value
//! before the first event is 32 zero bytes.
//!
//! SHA-256 and not BLAKE3: an investigator finds it in every language's standard
//! library, and an event is a few hundred bytes, where BLAKE3's parallelism finds
//! nothing to do in parallel.
//!
//! The chain finds what was removed, changed or reordered. It does not find a tail
//! cut off, nor a whole chain made anew: that takes a signed head
//! ([`crate::evidence`]).

use sha2::{Digest, Sha256};

/// Separates this hash from every other use of SHA-256.
const DOMAIN: &[u8] = b"interceptor/event/1\n";

/// The same, of an event whose `data` is compressed.
const CODED_DOMAIN: &[u8] = b"interceptor/event/2\n";

/// The same, of an event with something sealed beside it.
const SEALED_DOMAIN: &[u8] = b"interceptor/event/3\n";

/// Values longer than this are hashed where they lie; shorter ones are gathered
/// first, since one call of the hash is dearer than the copy.
const GATHER_LIMIT: usize = 1024;

/// An event's fields, as they stand in its session's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields' meanings stand in `Event`")]
pub struct Fields<'a> {
    pub session: &'a [u8],
    pub seq: &'a [u8],
    pub at: &'a [u8],
    pub kind: &'a [u8],
    pub exchange: &'a [u8],
    pub run: &'a [u8],
    pub line: &'a [u8],
    pub data: &'a [u8],
    pub meta: &'a [u8],
    pub coding: &'a [u8],
    pub sealed: &'a [u8],
}

/// Hashes events one after another, in one scratch buffer.
#[derive(Debug, Default)]
pub struct Hasher {
    scratch: Vec<u8>,
}

/// A value of the chain: what all events so far come to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head([u8; 32]);

impl Head {
    /// Before the first event.
    pub const START: Self = Self([0; 32]);

    /// As the stream has it: 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> [u8; 64] {
        let mut digits = [0; 64];
        // The lengths agree by type, so this cannot fail.
        let _ = hex::encode_to_slice(self.0, &mut digits);
        digits
    }

    /// The value's bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// A value that [`Head::to_bytes`] gave.
    #[must_use]
    pub const fn from_bytes(value: [u8; 32]) -> Self {
        Self(value)
    }

    /// Reads what [`Head::to_hex`] wrote; nothing else.
    #[must_use]
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        if digits.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut value = [0; 32];
        hex::decode_to_slice(digits, &mut value).ok()?;
        Some(Self(value))
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head({self})")
    }
}

impl Hasher {
    /// The value after `fields`, where `previous` is the one before.
    #[must_use]
    pub fn next(&mut self, previous: Head, fields: &Fields<'_>) -> Head {
        let mut digest = Sha256::new();
        let scratch = &mut self.scratch;
        scratch.clear();
        let (domain, beside): (_, &[&[u8]]) = match (fields.coding, fields.sealed) {
            (b"", b"") => (DOMAIN, &[]),
            (coding, b"") => (CODED_DOMAIN, &[coding]),
            (coding, sealed) => (SEALED_DOMAIN, &[coding, sealed]),
        };
        scratch.extend_from_slice(domain);
        scratch.extend_from_slice(&previous.0);
        let values = [
            fields.session,
            fields.seq,
            fields.at,
            fields.kind,
            fields.exchange,
            fields.run,
            fields.line,
            fields.data,
            fields.meta,
        ];
        for value in values.into_iter().chain(beside.iter().copied()) {
            scratch.extend_from_slice(&(value.len() as u64).to_be_bytes());
            if value.len() <= GATHER_LIMIT {
                scratch.extend_from_slice(value);
            } else {
                digest.update(&scratch);
                digest.update(value);
                scratch.clear();
            }
        }
        digest.update(&scratch);
        Head(digest.finalize().into())
    }
}

/// An event as it was read back from a stream.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// What is hashed.
    pub fields: Fields<'a>,
    /// The value that stands beside it.
    pub chain: &'a [u8],
}

/// Where a recording is not what was recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recording is broken at event {seq}: {why}")]
pub struct Broken {
    /// The first event that cannot be believed.
    pub seq: u64,
    /// What is wrong with it.
    pub why: Fault,
}

/// What is wrong with an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Another event stands in its place.
    #[error("an event numbered {found} stands in its place")]
    OutOfPlace {
        /// That event's `seq`.
        found: u64,
    },
    /// Its `seq` is not a number.
    #[error("its `seq` is not a number")]
    Unnumbered,
    /// It has no `chain`, or one that is not 64 hexadecimal digits.
    #[error("its `chain` is not a chain value")]
    Unchained,
    /// Its `chain` is not what the event and the one before it come to.
    #[error("its `chain` does not follow from the events up to it")]
    Mismatch,
}

/// Checks a session's events one after another.
#[derive(Debug)]
pub struct Check {
    hasher: Hasher,
    head: Head,
    next_seq: u64,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            hasher: Hasher::default(),
            head: Head::START,
            next_seq: 0,
        }
    }
}

impl Check {
    /// Checks what follows the event numbered `seq`, at which the chain's value is
    /// taken for what it says.
    #[must_use]
    pub fn behind(seq: u64, head: Head) -> Self {
        Self {
            hasher: Hasher::default(),
            head,
            next_seq: seq.saturating_add(1),
        }
    }

    /// Checks the next event.
    ///
    /// # Errors
    /// The first event that cannot be believed. What follows it proves nothing.
    pub fn event(&mut self, stored: &Stored<'_>) -> Result<(), Broken> {
        let seq = self.next_seq;
        let broken = |why| Err(Broken { seq, why });
        match number(stored.fields.seq) {
            Some(found) if found == seq => {}
            Some(found) => return broken(Fault::OutOfPlace { found }),
            None => return broken(Fault::Unnumbered),
        }
        let Some(claimed) = Head::from_hex(stored.chain) else {
            return broken(Fault::Unchained);
        };
        let head = self.hasher.next(self.head, &stored.fields);
        if head != claimed {
            return broken(Fault::Mismatch);
        }
        // A gap stands for every event that it says is missing.
        let last = gap_end(&stored.fields).unwrap_or(seq);
        if last < seq {
            return broken(Fault::Mismatch);
        }
        self.head = head;
        self.next_seq = last.saturating_add(1);
        Ok(())
    }

    /// What the events so far come to.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// How many events were right or were taken for right, with those that gaps stand for.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.next_seq
    }
}

/// Checks a whole recording.
///
/// # Errors
/// The first event that cannot be believed.
pub fn verify<'a>(events: impl IntoIterator<Item = Stored<'a>>) -> Result<Head, Broken> {
    let mut check = Check::default();
    for event in events {
        check.event(&event)?;
    }
    Ok(check.head())
}

/// The last event that a gap stands for; `None` where `fields` are no gap's.
#[must_use]
pub fn gap_end(fields: &Fields<'_>) -> Option<u64> {
    if fields.kind != b"gap" {
        return None;
    }
    let meta: serde_json::Value = serde_json::from_slice(fields.meta).ok()?;
    meta.get("to")?.as_u64()
}

/// A decimal number, written in the one way that the recorder writes it.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let canonical = text == "0" || (!text.starts_with('0') && !text.starts_with('+'));
    canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A recording of `lines`, chained.
    fn recording(lines: &[&str]) -> Vec<(String, String, String)> {
        let mut hasher = Hasher::default();
        let mut head = Head::START;
        let mut out = Vec::new();
        for (seq, line) in lines.iter().enumerate() {
            let seq = seq.to_string();
            head = hasher.next(head, &fields(&seq, line));
            out.push((seq, (*line).to_owned(), head.to_string()));
        }
        out
    }

    fn fields<'a>(seq: &'a str, line: &'a str) -> Fields<'a> {
        Fields {
            session: b"s",
            seq: seq.as_bytes(),
            kind: b"note",
            line: line.as_bytes(),
            ..Fields::default()
        }
    }

    fn check(recording: &[(String, String, String)]) -> Result<Head, Broken> {
        verify(recording.iter().map(|(seq, line, chain)| Stored {
            fields: fields(seq, line),
            chain: chain.as_bytes(),
        }))
    }

    #[test]
    fn a_recording_as_it_was_written_is_right() {
        let whole = recording(&["a", "b", "c"]);
        assert_eq!(check(&whole).unwrap().to_string(), whole[2].2);
    }

    /// Worked out by Python's hashlib from the module's header, so that what the
    /// header says and what the code does cannot part.
    #[test]
    fn the_value_is_the_documented_one() {
        let first = Hasher::default().next(
            Head::START,
            &Fields {
                session: b"0199a000-0000-7000-8000-000000000000",
                seq: b"0",
                at: b"0",
                kind: b"open",
                exchange: b"",
                run: b"run-1",
                line: b"psql opens orders-db",
                data: &[b'x'; 2000],
                meta: b"{\"agent\":\"a\"}",
                coding: b"",
                sealed: b"",
            },
        );
        assert_eq!(
            first.to_string(),
            "f5e51ce13407c1e96f0808d50983e19b90e916facdb375f682cf58ead9896c31"
        );
        let second = |coding, sealed| {
            let fields = Fields {
                session: b"0199a000-0000-7000-8000-000000000000",
                seq: b"1",
                at: b"7",
                kind: b"result",
                data: b"bytes",
                coding,
                sealed,
                ..Fields::default()
            };
            Hasher::default().next(first, &fields).to_string()
        };
        assert_eq!(
            second(b"zstd", b""),
            "472e46d6a81299586c1754120b38b7e1d3575c02541e8ae4c1abddfa3f60ad05"
        );
        assert_eq!(
            second(b"", b"age"),
            "69c6cadcf28c758faf38bc2d3f1970b057ad4517386da3a5eec078cb1df44f4a"
        );
        assert_eq!(
            second(b"zstd", b"age"),
            "39bb4cce45c64e052c4d0931b0b2d4a618528626b45cadf81be014de8be8936e"
        );
    }

    #[test]
    fn every_tampering_is_found_and_its_place_named() {
        let whole = recording(&["a", "b", "c", "d"]);

        let mut removed = whole.clone();
        removed.remove(1);
        assert_eq!(
            check(&removed),
            Err(Broken {
                seq: 1,
                why: Fault::OutOfPlace { found: 2 }
            })
        );

        let mut renumbered = removed;
        renumbered[1].0 = "1".into();
        assert_eq!(
            check(&renumbered),
            Err(Broken {
                seq: 1,
                why: Fault::Mismatch
            })
        );

        let mut changed = whole.clone();
        changed[2].1 = "C".into();
        assert_eq!(
            check(&changed),
            Err(Broken {
                seq: 2,
                why: Fault::Mismatch
            })
        );

        let mut swapped = whole.clone();
        swapped.swap(1, 2);
        assert_eq!(
            check(&swapped),
            Err(Broken {
                seq: 1,
                why: Fault::OutOfPlace { found: 2 }
            })
        );

        let mut bare = whole.clone();
        bare[3].2.clear();
        assert_eq!(
            check(&bare),
            Err(Broken {
                seq: 3,
                why: Fault::Unchained
            })
        );

        let mut unnumbered = whole;
        unnumbered[0].0 = "00".into();
        assert_eq!(
            check(&unnumbered),
            Err(Broken {
                seq: 0,
                why: Fault::Unnumbered
            })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Without the lengths, `("ab", "c")` and `("a", "bc")` would hash alike.
        #[test]
        fn moving_a_byte_between_fields_changes_the_value(text in "[a-z]{2,40}", long: bool) {
            let text = if long { text.repeat(60) } else { text };
            let whole = text.as_bytes();
            let at = |cut: usize| {
                let (line, data) = whole.split_at(cut);
                Hasher::default().next(Head::START, &Fields { line, data, ..Fields::default() })
            };
            let heads: Vec<_> = (0..=whole.len()).step_by(7).map(at).collect();
            for (i, head) in heads.iter().enumerate() {
                prop_assert!(!heads[..i].contains(head));
            }
        }
    }
}
