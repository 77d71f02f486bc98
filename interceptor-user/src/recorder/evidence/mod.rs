//! The host's signatures on what it recorded.
//!
//! What is signed, and how it is checked, is [`interceptor_engine::evidence`]; here is
//! what needs a file and a clock:
//!
//! * [`keys`] are the host's Ed25519 keys, in `<state_dir>/evidence`;
//! * [`journal`] remembers the last statement over restarts, and what was signed and
//!   may not have reached the store.
//!
//! Statements are made where a batch is encoded, so they stand in the batch that has
//! the events. What is signed again after a crash would be a second statement of the
//! same number; so a statement is in the journal before its bytes go anywhere, and
//! after a crash the very same one is sent again.

mod journal;
pub mod keys;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use interceptor_engine::chain::Head;
use interceptor_engine::evidence::statement::{
    Line, PublicKey, SessionHead, Signed, State, Statement,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use journal::Journal;
pub use journal::last_statement;
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
    /// Something is in the journal that is not known to be in the store.
    undelivered: bool,
    /// Statements that are still to be sent.
    unsent: Vec<Signed>,
}

impl Signer {
    /// Opens the host's keys, or makes the first one.
    pub(super) fn open(state_dir: &Path, host: &str, every: Duration) -> Result<Self, KeyError> {
        let folder = state_dir.join(FOLDER);
        let wanted = keys::open_or_create(&folder, host)?;
        let (journal, unsent) = Journal::open(&folder).map_err(|source| KeyError::File {
            path: folder.clone(),
            source,
        })?;
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
            undelivered: !unsent.is_empty(),
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

    /// Everything that was signed is in the store, or will be.
    pub(super) fn delivered(&mut self) {
        if std::mem::take(&mut self.undelivered) {
            self.journal.delivered();
        }
    }

    fn state(&mut self, body: String) -> Signed {
        self.undelivered = true;
        let at = OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default();
        let (host, key, pair) = (&self.host, self.key, &self.pair);
        self.journal.state(|number: u64, previous: Head| {
            let statement = Statement {
                host,
                key,
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
                key,
                number,
                previous,
                at: at.clone(),
                body: body.clone(),
                signature,
            }
        })
    }
}
