//! What a host signs.
//!
//! ```text
//! statement = "interceptor/head/1\n" ‖ field ‖ field ‖ …
//! field     = length in bytes, 8 bytes big-endian ‖ the bytes
//! ```
//!
//! The fields are `host`, `key` (the signer's public key, 64 hexadecimal digits),
//! `number` (1, 2, 3 …), `previous` (SHA-256 of the host's statement before this one,
//! 64 hexadecimal digits; zeros in the first), `at` (the host's clock, RFC 3339) and
//! `body`, in that order. The signature is Ed25519 over the statement.
//!
//! The body is lines, each ended by a line feed:
//!
//! ```text
//! SESSION EVENTS CHAIN open       a head: so many events, and the chain's value after them
//! SESSION EVENTS CHAIN closed     the same, and nothing follows
//! SESSION EVENTS CHAIN removed    the recording was taken out of the store, by intention
//! SESSION EVENTS CHAIN restored   it was brought back
//! key PUBLIC-KEY                  statements may be signed with this key from now on
//! void NUMBER SESSION EVENTS CHAIN
//!                                 what this host's statement NUMBER says of the session is taken
//!                                 back, for events of it are on no record: this is its real head
//! trimmed ENTRY NUMBER HEAD HOST  the list of sessions was cut off before this entry, and with
//!                                 it HOST's statements up to NUMBER, whose SHA-256 is HEAD
//! ```
//!
//! A host's name is the rest of its line.
//!
//! Numbers and `previous` make the statements of a host a chain of their own: one that
//! is missing is found by the one after it.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::chain::{Head, number};

/// Separates these signatures from every other use of the key.
pub const DOMAIN: &[u8] = b"interceptor/head/1\n";

/// An Ed25519 public key; its own name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads 64 hexadecimal digits, in lower case.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        let mut key = [0; 32];
        hex::decode_to_slice(digits, &mut key).ok()?;
        Some(Self(key))
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Whether a signature of Ed25519 is this key's over this message.
pub type Ed25519 = fn(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool;

/// A statement without its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Who states it.
    pub host: &'a str,
    /// With which key it is signed.
    pub key: PublicKey,
    /// 1, 2, 3 …, for each host.
    pub number: u64,
    /// [`Statement::head`] of the host's statement before this one.
    pub previous: Head,
    /// The host's clock, RFC 3339.
    pub at: &'a str,
    /// Lines; see the module's header.
    pub body: &'a str,
}

impl Statement<'_> {
    /// The bytes that are signed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let key = self.key.to_string();
        let number = self.number.to_string();
        let previous = self.previous.to_string();
        let mut out = DOMAIN.to_vec();
        for value in [self.host, &key, &number, &previous, self.at, self.body] {
            out.extend_from_slice(&(value.len() as u64).to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        out
    }

    /// What the next statement has as its `previous`: SHA-256 of [`Statement::bytes`].
    #[must_use]
    pub fn head(&self) -> Head {
        head(&self.bytes())
    }
}

/// SHA-256 of a statement's bytes.
#[must_use]
pub fn head(statement: &[u8]) -> Head {
    Head::from_bytes(Sha256::digest(statement).into())
}

/// What a head says of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// More may follow.
    Open,
    /// Nothing follows.
    Closed,
    /// It was taken out of the store by intention.
    Removed,
    /// It was brought back.
    Restored,
}

impl State {
    /// The word that stands in a body.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Removed => "removed",
            Self::Restored => "restored",
        }
    }
}

/// How far a session was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionHead {
    /// The session.
    pub session: Uuid,
    /// Its next event's `seq`.
    pub events: u64,
    /// The chain's value after them.
    pub chain: Head,
    /// Whether more may follow.
    pub state: State,
}

/// What a statement says of a session, taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Void {
    /// The statement, of the same host.
    pub number: u64,
    /// The session.
    pub session: Uuid,
    /// How many events there really are.
    pub events: u64,
    /// The chain's value after them.
    pub chain: Head,
}

/// Up to where the list of sessions was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The first entry that may still be there: its milliseconds and its counter.
    pub before: (u64, u64),
    /// A host's statements up to this one went.
    pub number: u64,
    /// [`Statement::head`] of that one.
    pub head: Head,
    /// The host.
    pub host: String,
}

/// A line of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// How far a session was.
    Head(SessionHead),
    /// Another key of the host.
    Key(PublicKey),
    /// A statement named events that are on no record.
    Void(Void),
    /// The list's beginning was taken away by intention.
    Trimmed(Trimmed),
}

impl std::fmt::Display for Line {
    /// As it stands in a body, with its line feed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Head(head) => writeln!(
                f,
                "{} {} {} {}",
                head.session,
                head.events,
                head.chain,
                head.state.name()
            ),
            Self::Key(key) => writeln!(f, "key {key}"),
            Self::Void(void) => writeln!(
                f,
                "void {} {} {} {}",
                void.number, void.session, void.events, void.chain
            ),
            Self::Trimmed(trimmed) => {
                let (millis, counter) = trimmed.before;
                let (number, head) = (trimmed.number, trimmed.head);
                writeln!(
                    f,
                    "trimmed {millis}-{counter} {number} {head} {}",
                    trimmed.host
                )
            }
        }
    }
}

impl Line {
    /// Reads what its `Display` wrote, without the line feed; nothing else.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        // A host's name may have spaces in it, and is the last of five.
        let mut words = line.splitn(5, ' ');
        let first = words.next()?;
        let read = match first {
            "key" => Self::Key(PublicKey::from_hex(words.next()?)?),
            "void" => Self::Void(Void {
                number: number(words.next()?.as_bytes())?,
                session: Uuid::try_parse(words.next()?).ok()?,
                events: number(words.next()?.as_bytes())?,
                chain: Head::from_hex(words.next()?.as_bytes())?,
            }),
            "trimmed" => {
                let (millis, counter) = words.next()?.split_once('-')?;
                let whole = |text: &str| number(text.as_bytes());
                Self::Trimmed(Trimmed {
                    before: (whole(millis)?, whole(counter)?),
                    number: whole(words.next()?)?,
                    head: Head::from_hex(words.next()?.as_bytes())?,
                    host: words.next().filter(|host| is_name(host))?.to_owned(),
                })
            }
            session => Self::Head(SessionHead {
                session: Uuid::try_parse(session).ok()?,
                events: number(words.next()?.as_bytes())?,
                chain: Head::from_hex(words.next()?.as_bytes())?,
                state: match words.next()? {
                    "open" => State::Open,
                    "closed" => State::Closed,
                    "removed" => State::Removed,
                    "restored" => State::Restored,
                    _ => return None,
                },
            }),
        };
        // One way to write it, so that nothing hides in another.
        (read.to_string().strip_suffix('\n') == Some(line)).then_some(read)
    }
}

/// Whether a host's name can stand in a line.
#[must_use]
pub fn is_name(host: &str) -> bool {
    !host.is_empty() && !host.chars().any(char::is_control)
}

/// A statement as an entry of `sessions` carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Who states it.
    pub host: String,
    /// The signer.
    pub key: PublicKey,
    /// 1, 2, 3 …
    pub number: u64,
    /// The statement before.
    pub previous: Head,
    /// The host's clock.
    pub at: String,
    /// Lines.
    pub body: String,
    /// Over the statement.
    pub signature: [u8; 64],
}

/// The fields of an entry that make it a statement; each begins with `sign`.
pub const SIGNED_FIELDS: [&str; 5] = [
    "signed_at",
    "signed_number",
    "signed_after",
    "signed_by",
    "signature",
];

/// Why an entry's statement cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the statement's `{field}` is not what a recorder writes")]
pub struct Unreadable {
    /// The field.
    pub field: &'static str,
}

impl Signed {
    /// The statement without its signature.
    #[must_use]
    pub fn statement(&self) -> Statement<'_> {
        Statement {
            host: &self.host,
            key: self.key,
            number: self.number,
            previous: self.previous,
            at: &self.at,
            body: &self.body,
        }
    }

    /// The statement of an entry of `sessions`, whose fields `text` gives; nothing
    /// where the entry carries none.
    ///
    /// # Errors
    /// A field that is not what a recorder writes.
    pub fn of_entry(text: impl Fn(&str) -> String) -> Result<Option<Self>, Unreadable> {
        if SIGNED_FIELDS.iter().all(|field| text(field).is_empty()) {
            return Ok(None);
        }
        let bad = |field| Unreadable { field };
        let body = match text("event").as_str() {
            "close" => format!(
                "{} {} {} closed\n",
                text("session"),
                text("events"),
                text("chain")
            ),
            _ => text("heads"),
        };
        let mut signature = [0; 64];
        hex::decode_to_slice(text("signature"), &mut signature).map_err(|_| bad("signature"))?;
        Ok(Some(Self {
            host: text("host"),
            key: PublicKey::from_hex(&text("signed_by")).ok_or(bad("signed_by"))?,
            number: number(text("signed_number").as_bytes()).ok_or(bad("signed_number"))?,
            previous: Head::from_hex(text("signed_after").as_bytes()).ok_or(bad("signed_after"))?,
            at: text("signed_at"),
            body,
            signature,
        }))
    }

    /// The body's lines; nothing for one that cannot be read.
    pub fn lines(&self) -> impl Iterator<Item = Option<Line>> {
        self.body.split_inclusive('\n').map(|line| {
            let line = line.strip_suffix('\n')?;
            Line::parse(line)
        })
    }

    /// The fields that carry it in an entry, beside those of its body.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, String); 5] {
        let [at, number, after, by, signature] = SIGNED_FIELDS;
        [
            (at, self.at.clone()),
            (number, self.number.to_string()),
            (after, self.previous.to_string()),
            (by, self.key.to_string()),
            (signature, hex::encode(self.signature)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session() -> Uuid {
        Uuid::parse_str("0199a000-0000-7000-8000-000000000000").unwrap()
    }

    fn closed() -> Line {
        Line::Head(SessionHead {
            session: session(),
            events: 7,
            chain: Head::from_bytes([0xab; 32]),
            state: State::Closed,
        })
    }

    /// Worked out by Python from the module's header, so that what the header says and
    /// what the code does cannot part.
    #[test]
    fn the_bytes_are_the_documented_ones() {
        let body = closed().to_string();
        let statement = Statement {
            host: "proxy-1",
            key: PublicKey([0x11; 32]),
            number: 42,
            previous: Head::START,
            at: "2026-01-02T03:04:05Z",
            body: &body,
        };
        assert_eq!(
            statement.head().to_string(),
            "35569d7ebd7e6eac571f34a4b352d6107f6baea28d7f48b58612c4b254dbebe1"
        );
    }

    #[test]
    fn a_line_is_written_in_one_way_alone() {
        let chain = "ab".repeat(32);
        let line = format!("{} 7 {chain} closed", session());
        assert_eq!(Line::parse(&line), Some(closed()));
        for other in [
            line.to_uppercase(),
            line.replace(" 7 ", " 07 "),
            line.replace(" 7 ", "  7 "),
            line.replace("closed", "shut"),
            format!("{line} more"),
            format!("{{{}}} 7 {chain} closed", session()),
            format!("key {}", "ab".repeat(31)),
            String::new(),
        ] {
            assert_eq!(Line::parse(&other), None, "{other}");
        }
        let key = Line::Key(PublicKey([0xab; 32]));
        assert_eq!(Line::parse(&format!("key {chain}")), Some(key));
        let void = format!("void 12 {} 7 {chain}", session());
        assert!(matches!(Line::parse(&void), Some(Line::Void(_))));
        let trimmed = format!("trimmed 1700-3 12 {chain} proxy of the first floor");
        let Some(Line::Trimmed(read)) = Line::parse(&trimmed) else {
            panic!("{trimmed}")
        };
        assert_eq!(read.host, "proxy of the first floor");
        assert_eq!((read.before, read.number), ((1700, 3), 12));
        for other in [
            format!("{void} more"),
            void.replace(" 12 ", " 012 "),
            trimmed.replace("1700-3", "1700"),
            trimmed.replace("1700-3", "1700-03"),
            format!("trimmed 1700-3 12 {chain} "),
            format!("trimmed 1700-3 12 {chain} a\u{7}b"),
        ] {
            assert_eq!(Line::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn what_an_entry_carries_comes_back() {
        let signed = Signed {
            host: "h".into(),
            key: PublicKey([1; 32]),
            number: 3,
            previous: Head::from_bytes([2; 32]),
            at: "2026-01-02T03:04:05Z".into(),
            body: closed().to_string(),
            signature: [3; 64],
        };
        let fields = signed.fields();
        let text = |name: &str| match name {
            "host" => "h".to_owned(),
            "event" => "close".to_owned(),
            "session" => session().to_string(),
            "events" => "7".to_owned(),
            "chain" => "ab".repeat(32),
            _ => fields
                .iter()
                .find(|(field, _)| *field == name)
                .map_or(String::new(), |(_, value)| value.clone()),
        };
        assert_eq!(Signed::of_entry(text), Ok(Some(signed.clone())));
        let unsigned = |name: &str| {
            if name.starts_with("sign") {
                String::new()
            } else {
                text(name)
            }
        };
        assert_eq!(Signed::of_entry(unsigned), Ok(None));
        let cut = |name: &str| {
            if name == "signature" {
                "ab".to_owned()
            } else {
                text(name)
            }
        };
        assert_eq!(
            Signed::of_entry(cut),
            Err(Unreadable { field: "signature" })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Without the lengths, `("ab", "c")` and `("a", "bc")` would be signed alike.
        #[test]
        fn moving_a_byte_between_fields_changes_the_statement(text in "[a-z]{2,40}") {
            let of = |cut: usize| {
                let (host, at) = text.split_at(cut);
                let key = PublicKey([0; 32]);
                Statement { host, at, key, number: 1, previous: Head::START, body: "" }.bytes()
            };
            let all: std::collections::HashSet<_> = (0..=text.len()).map(of).collect();
            prop_assert_eq!(all.len(), text.len() + 1);
        }
    }
}
