//! The host's signatures on what it recorded.
//!
//! What is signed, and how it is checked, is [`interceptor_engine::evidence`]; here is
//! what needs a file and a clock:
//!
//! * [`keys`] are the host's Ed25519 keys, in `<state_dir>/evidence`;
//! * [`journal`] remembers the last statement over restarts, and what was signed and
//!   may not have reached the store.
//!
//! * [`notary`] signs what is not recorded but done to recordings: removing them.
//!
//! Statements are made where a batch is encoded, so they stand in the batch that has
//! the events. What is signed again after a crash would be a second statement of the
//! same number; so a statement is in the journal before its bytes go anywhere, and
//! after a crash the very same one is sent again.
//!
//! Between the journal and the spool, a daemon may be killed. Its statement is sent by the
//! next one, and may name events that never were in the spool: [`Signer::left`] takes back
//! what it says of them.

mod journal;
pub mod keys;
pub mod notary;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use interceptor_engine::chain::Head;
use interceptor_engine::evidence::statement::{
    Line, PublicKey, SessionHead, Signed, State, Statement, Void,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

pub use journal::last_statement;
use journal::{Journal, Numbers};
pub use keys::KeyError;

/// The folder below the state folder.
pub const FOLDER: &str = "evidence";

/// Heads in one statement; more make a further one.
pub(super) const HEADS_AT_ONCE: usize = 1000;

/// How often the signer looks whether there is a new key.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a signature of Ed25519 is this key's over this message.
#[must_use]
pub fn ed25519(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0)
        .verify(message, signature)
        .is_ok()
}

/// What dead writers left in their spools.
#[derive(Debug, Default)]
pub(super) struct Leavings {
    /// The writers.
    pub(super) writers: HashSet<Uuid>,
    /// Signatures of the statements that are there.
    pub(super) statements: HashSet<String>,
    /// How far each session is there: its events, and the chain's value after them.
    pub(super) sessions: HashMap<Uuid, (u64, Head)>,
}

/// Makes this host's statements.
pub(super) struct Signer {
    host: String,
    folder: PathBuf,
    key: PublicKey,
    pair: Ed25519KeyPair,
    journal: Journal,
    every: Duration,
    next: Instant,
    looked: Instant,
    /// Of the file of public keys, when it was last read.
    keys_len: u64,
    /// Something was signed that no list of heads came after.
    unconfirmed: bool,
    /// Whose spool statements go by.
    writer: Option<Uuid>,
    /// What is in the journal that this process has to deliver.
    undelivered: Numbers,
    /// Statements that are still to be sent.
    unsent: Vec<Signed>,
}

impl Signer {
    /// Opens the host's keys, or makes the first one. What other writers signed and may
    /// not have delivered is sent again where `is_nobodys`: by nobody else.
    pub(super) fn open(
        state_dir: &Path,
        host: &str,
        every: Duration,
        is_nobodys: impl Fn(Option<Uuid>) -> bool,
    ) -> Result<Self, KeyError> {
        let folder = state_dir.join(FOLDER);
        let wanted = keys::open_or_create(&folder, host)?;
        let mut journal = Journal::open(&folder).map_err(|source| KeyError::File {
            path: folder.clone(),
            source,
        })?;
        let unsent = journal.undelivered(is_nobodys);
        let mut undelivered = Numbers::default();
        unsent
            .iter()
            .for_each(|signed| undelivered.add(signed.number));
        let signer = journal.signer();
        let before = signer.filter(|key| *key != wanted);
        let (key, pair) = match before.map(|key| (key, keys::load(&folder, key))) {
            Some((key, Ok(pair))) => (key, pair),
            lost => {
                if let Some((key, Err(error))) = lost {
                    tracing::error!(%key, %error, "the key that signed the recordings so far is lost; the new one stands for itself");
                }
                (wanted, keys::load(&folder, wanted)?)
            }
        };
        let now = Instant::now();
        let mut signer = Self {
            host: host.to_owned(),
            keys_len: keys::len(&folder),
            folder,
            key,
            pair,
            writer: None,
            undelivered,
            unconfirmed: !unsent.is_empty(),
            unsent,
            journal,
            every,
            next: now + every,
            looked: now,
        };
        if before.is_some() || signer.journal.signer().is_none() {
            signer.introduce(wanted)?;
        }
        Ok(signer)
    }

    /// What is signed from now on goes by the spool of `writer`.
    pub(super) fn by(self, writer: Uuid) -> Self {
        let writer = Some(writer);
        Self { writer, ..self }
    }

    /// How long until heads are due.
    pub(super) fn until_due(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Whether heads are due; then the next ones are due a while later.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.every;
        }
        due
    }

    /// Whether something was signed since the last list of heads.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed
    }

    /// Takes over a new key where there is one; then what is to be sent by itself.
    pub(super) fn unsent(&mut self, now: Instant) -> Vec<Signed> {
        if now.saturating_duration_since(self.looked) >= LOOK {
            self.looked = now;
            self.look();
        }
        std::mem::take(&mut self.unsent)
    }

    fn look(&mut self) {
        let len = keys::len(&self.folder);
        if len == self.keys_len {
            return;
        }
        self.keys_len = len;
        let wanted = keys::published(&self.folder).map(|keys| keys.last().map(|key| key.key));
        let done = match wanted {
            Ok(Some(wanted)) if wanted != self.key => self.introduce(wanted),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => tracing::info!(key = %self.key, "recordings are signed with this key"),
            Err(error) => {
                tracing::error!(%error, "the new key cannot be used; the one before goes on signing");
            }
        }
    }

    /// The key in use states that `wanted` is this host's, too; that one is used from
    /// now on, and the one before is deleted.
    fn introduce(&mut self, wanted: PublicKey) -> Result<(), KeyError> {
        let pair = keys::load(&self.folder, wanted)?;
        let signed = self.state(Line::Key(wanted).to_string());
        self.unsent.push(signed);
        let before = std::mem::replace(&mut self.key, wanted);
        self.pair = pair;
        if before != wanted {
            keys::forget(&self.folder, before)?;
        }
        Ok(())
    }

    /// Signs the end of a session.
    pub(super) fn close(&mut self, head: SessionHead) -> Signed {
        debug_assert_eq!(head.state, State::Closed);
        self.unconfirmed = true;
        self.state(Line::Head(head).to_string())
    }

    /// Signs a list of heads, of [`HEADS_AT_ONCE`] at most.
    pub(super) fn heads(&mut self, heads: &[SessionHead]) -> Signed {
        self.unconfirmed = false;
        let lines = heads.iter().map(|head| Line::Head(*head).to_string());
        let signed = self.state(lines.collect());
        self.journal.sync();
        signed
    }

    /// Signs something else, so that it survives a power cut.
    pub(super) fn say(&mut self, lines: &[Line]) -> Signed {
        let signed = self.state(lines.iter().map(Line::to_string).collect());
        self.journal.sync();
        signed
    }

    /// Sends on what dead writers signed and did not bring to their spools, and takes back
    /// what they said there of events that are not there either.
    pub(super) fn left(&mut self, left: &Leavings) -> Vec<Signed> {
        let is_theirs =
            |writer: Option<Uuid>| writer.is_some_and(|writer| left.writers.contains(&writer));
        let (mut unsent, mut voids) = (Vec::new(), Vec::new());
        for signed in self.journal.undelivered(is_theirs) {
            self.undelivered.add(signed.number);
            if left.statements.contains(&hex::encode(signed.signature)) {
                continue;
            }
            for line in signed.lines().flatten() {
                let Line::Head(head) = line else { continue };
                let there = left.sessions.get(&head.session);
                let (events, chain) = there.copied().unwrap_or((0, Head::START));
                if events < head.events {
                    voids.push(Line::Void(Void {
                        number: signed.number,
                        session: head.session,
                        events,
                        chain,
                    }));
                }
            }
            unsent.push(signed);
        }
        for voids in voids.chunks(HEADS_AT_ONCE) {
            tracing::warn!(
                sessions = voids.len(),
                "a daemon that was lost had signed more than it brought to its spool; that is taken back"
            );
            unsent.push(self.say(voids));
        }
        self.unconfirmed |= !unsent.is_empty();
        unsent
    }

    /// Everything that was signed is in the store, or will be.
    pub(super) fn delivered(&mut self) {
        if !self.undelivered.is_empty() && self.journal.delivered(&self.undelivered) {
            self.undelivered = Numbers::default();
        }
    }

    fn state(&mut self, body: String) -> Signed {
        let at = OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default();
        let (host, folder) = (&self.host, &self.folder);
        let (key, pair) = (&mut self.key, &mut self.pair);
        let signed = self.journal.state(self.writer, |number, previous, signer| {
            // Another process of this host may have introduced the next key.
            if let Some(next) = signer.filter(|signer| signer != key) {
                match keys::load(folder, next) {
                    Ok(loaded) => (*key, *pair) = (next, loaded),
                    Err(error) => {
                        tracing::error!(key = %next, %error, "the key that another process introduced cannot be used");
                    }
                }
            }
            let statement = Statement {
                host,
                key: *key,
                number,
                previous,
                at: &at,
                body: &body,
            };
            let mut signature = [0; 64];
            let made = pair.sign(&statement.bytes());
            // The lengths agree by the algorithm.
            if let Some(bytes) = made.as_ref().first_chunk::<64>() {
                signature = *bytes;
            }
            Signed {
                host: host.clone(),
                key: *key,
                number,
                previous,
                at: at.clone(),
                body: body.clone(),
                signature,
            }
        });
        self.undelivered.add(signed.number);
        signed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);

    fn signer(folder: &Path) -> Signer {
        Signer::open(folder, "h", EVERY, |writer| writer.is_none()).unwrap()
    }

    fn closed(session: Uuid, events: u64) -> SessionHead {
        SessionHead {
            session,
            events,
            chain: Head::from_bytes([7; 32]),
            state: State::Closed,
        }
    }

    fn numbers(signed: &[Signed]) -> Vec<u64> {
        signed.iter().map(|signed| signed.number).collect()
    }

    #[test]
    fn processes_of_a_host_go_on_counting_and_deliver_their_own_statements_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = signer(folder.path()).by(Uuid::now_v7());
        let mut two = signer(folder.path());
        assert_eq!(numbers(&one.unsent(Instant::now())), [1]);
        assert_eq!(one.close(closed(Uuid::nil(), 3)).number, 2);
        assert_eq!(two.say(&[]).number, 3);
        assert_eq!(one.close(closed(Uuid::nil(), 4)).number, 4);
        two.delivered();
        let left = |is_meant: fn(Option<Uuid>) -> bool| {
            let again = Signer::open(folder.path(), "h", EVERY, is_meant).unwrap();
            numbers(&again.unsent)
        };
        // The first of all was found by both, and brought by the second.
        assert_eq!(left(|_| true), [2, 4]);
        assert_eq!(left(|writer| writer.is_none()), [0; 0]);
        one.delivered();
        assert_eq!(left(|_| true), [0; 0]);
    }

    #[test]
    fn a_key_that_another_process_introduced_signs_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = signer(folder.path());
        let before = one.say(&[]).key;
        let next = keys::rotate(&folder.path().join(FOLDER)).unwrap().key;
        let mut two = signer(folder.path());
        assert_eq!(two.say(&[]).key, next);
        let signed = one.say(&[]);
        assert_ne!(before, next);
        assert_eq!(signed.key, next);
        let bytes = signed.statement().bytes();
        assert!(ed25519(&next, &bytes, &signed.signature));
    }

    #[test]
    fn what_a_dead_writer_signed_beyond_its_spool_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, other) = (Uuid::now_v7(), Uuid::now_v7());
        let (known, unknown) = (Uuid::now_v7(), Uuid::now_v7());
        let mut dead = signer(folder.path()).by(writer);
        dead.unsent(Instant::now());
        dead.delivered();
        let spooled = dead.close(closed(Uuid::now_v7(), 9));
        let fits = dead.heads(&[closed(known, 5)]);
        let beyond = dead.heads(&[closed(known, 6), closed(unknown, 2)]);
        let mut alive = signer(folder.path()).by(other);
        alive.close(closed(known, 99));

        let mut next = signer(folder.path());
        assert_eq!(numbers(&next.unsent), [0; 0], "each has a spool");
        let mut left = Leavings::default();
        assert_eq!(next.left(&left), [], "of nobody");
        left.writers.insert(writer);
        left.statements.insert(hex::encode(spooled.signature));
        left.sessions.insert(known, (5, Head::from_bytes([7; 32])));
        let sent = next.left(&left);
        let own = beyond.number + 2;
        assert_eq!(numbers(&sent), [fits.number, beyond.number, own]);
        let void = |session, events, chain| {
            Line::Void(Void {
                number: beyond.number,
                session,
                events,
                chain,
            })
        };
        let lines: Vec<Line> = sent[2].lines().flatten().collect();
        assert_eq!(
            lines,
            [
                void(known, 5, Head::from_bytes([7; 32])),
                void(unknown, 0, Head::START)
            ]
        );
        next.delivered();
        assert_eq!(next.left(&left), [], "once");
    }
}
