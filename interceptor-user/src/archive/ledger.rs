//! Which sessions there are in Redis, and which of them must stay there.
//!
//! What is read is `sessions`, in its order. An entry's `event` is
//!
//! * `open`, `close` and whatever else is said of a session while it is in Redis;
//! * `removed`: from here on its recording is there no more;
//! * `restored`: it is there again; where its entries were trimmed away meanwhile, they have
//!   new IDs, and `archived_id` says what theirs was.
//!
//! A session without a close is open, even where its host has not been heard of for long:
//! it may be cut off, and bring what it has yet to say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use redis::{Value, cmd};

use super::ArchiveError;
use crate::approval::Facts;
use crate::approval::State;
use crate::approval::store::{question_key, stream_key};
use crate::recorder::read::{self, Reader, StreamEntry};

/// Entries that are read at a time.
const PAGE: usize = 1000;

/// The field that says which ID an entry had before it was archived.
pub const ARCHIVED_ID: &str = "archived_id";

/// Why a session stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stays {
    /// It is not recorded here.
    #[error("it is not recorded there")]
    Unknown,
    /// It is under way, or was never closed.
    #[error("it is open")]
    Open,
    /// Somebody is asked.
    #[error("a question of it waits for an answer")]
    Held,
    /// Its recording has no end.
    #[error("its recording does not end with its close")]
    Unfinished,
    /// Its recording is not as it was recorded.
    #[error("{0}; it is kept as it is, for whoever looks into that")]
    Broken(String),
    /// Something came to it in the meantime.
    #[error("it changed in the meantime")]
    Changed,
}

/// What `sessions` says of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub session: String,
    /// IDs of its entries.
    pub entries: Vec<String>,
    /// The agent.
    pub agent: String,
    /// The target.
    pub target: String,
    /// When it closed, by the server's clock, milliseconds since 1970.
    pub closed_ms: Option<u64>,
    /// How many events its close says there are, and the last one's chain.
    pub close: Option<(String, String)>,
    /// When it came back from an archive.
    pub restored_ms: Option<u64>,
    /// It was removed, and did not come back.
    pub removed: bool,
}

impl Listed {
    /// Since when it could be removed, milliseconds since 1970; `None` while it is open.
    #[must_use]
    pub fn since_ms(&self) -> Option<u64> {
        self.closed_ms
            .map(|closed| closed.max(self.restored_ms.unwrap_or_default()))
    }
}

/// All sessions that `sessions` knows.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    sessions: BTreeMap<String, Listed>,
    held: HashSet<String>,
}

impl Ledger {
    /// Reads it.
    ///
    /// # Errors
    /// When Redis does not answer as it should.
    pub fn read(reader: &mut Reader) -> Result<Self, ArchiveError> {
        let mut ledger = Self {
            sessions: BTreeMap::new(),
            held: held(reader)?,
        };
        let key = reader.key("sessions");
        each(reader, &key, |entry| ledger.enter(entry))?;
        Ok(ledger)
    }

    fn enter(&mut self, entry: &StreamEntry) {
        let session = entry.text("session");
        if session.is_empty() {
            return;
        }
        let at = millis(&entry.id);
        let listed = self.sessions.entry(session.clone()).or_default();
        listed.session = session;
        match entry.text("event").as_str() {
            "removed" => {
                listed.removed = true;
                listed.restored_ms = None;
                return;
            }
            "restored" => {
                listed.removed = false;
                listed.restored_ms = Some(at);
                return;
            }
            "close" => {
                let before = entry.text(ARCHIVED_ID);
                let first = if before.is_empty() {
                    at
                } else {
                    millis(&before)
                };
                listed.closed_ms = Some(first);
                listed.close = Some((entry.text("events"), entry.text("chain")));
            }
            _ => {}
        }
        for (known, name) in [(&mut listed.agent, "agent"), (&mut listed.target, "target")] {
            let text = entry.text(name);
            if !text.is_empty() {
                *known = text;
            }
        }
        listed.entries.push(entry.id.clone());
    }

    /// Those with a recording in Redis, in the order in which they opened.
    pub fn sessions(&self) -> impl Iterator<Item = &Listed> {
        self.sessions
            .values()
            .filter(|listed| !listed.entries.is_empty() && !listed.removed)
    }

    /// What is known of one.
    #[must_use]
    pub fn of(&self, session: &str) -> Option<&Listed> {
        self.sessions.get(session)
    }

    /// Whether a session may go.
    ///
    /// # Errors
    /// Why it stays.
    pub fn may_go(&self, listed: &Listed) -> Result<(), Stays> {
        if listed.closed_ms.is_none() {
            return Err(Stays::Open);
        }
        if self.held.contains(&listed.session) {
            return Err(Stays::Held);
        }
        Ok(())
    }
}

/// The sessions with a question that waits, or an answer that was not used yet.
fn held(reader: &mut Reader) -> Result<HashSet<String>, ArchiveError> {
    let prefix = reader.key("");
    let prefix = prefix.trim_end_matches(':');
    let mut states: HashMap<String, bool> = HashMap::new();
    each(reader, &stream_key(prefix), |entry| {
        let id = entry.text("id");
        match entry.text("state").as_str() {
            "" => {}
            state => {
                let waits = [State::Open.name(), State::Approved.name()].contains(&state);
                states.insert(id, waits);
            }
        }
    })?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let mut held = HashSet::new();
    for (id, _) in states.into_iter().filter(|(_, waits)| *waits) {
        let mut get = cmd("HGET");
        get.arg(question_key(prefix, &id)).arg("json");
        let Value::BulkString(json) = reader.run(&get)? else {
            continue;
        };
        let Ok(facts) = serde_json::from_slice::<Facts>(&json) else {
            continue;
        };
        // The daemon that asked may be gone; nobody is asked for longer than that.
        let waits = matches!(facts.state, State::Open | State::Approved);
        if waits && facts.expires_at >= now {
            held.insert(facts.session);
        }
    }
    Ok(held)
}

/// Every entry of a stream.
pub(super) fn each(
    reader: &mut Reader,
    key: &str,
    mut see: impl FnMut(&StreamEntry),
) -> Result<(), ArchiveError> {
    let mut after = "0-0".to_owned();
    loop {
        let page = reader.after(key, &after, PAGE)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after.clone_from(&last.id);
        page.iter().for_each(&mut see);
    }
}

/// The time in an entry's ID.
pub(super) fn millis(id: &str) -> u64 {
    read::number(id).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, event: &str, more: &[(&str, &str)]) -> StreamEntry {
        let fields = [("event", event), ("session", "a"), ("agent", "bot")];
        StreamEntry {
            id: id.to_owned(),
            fields: fields
                .iter()
                .chain(more)
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
        }
    }

    #[test]
    fn a_session_goes_and_comes_back() {
        let mut ledger = Ledger::default();
        ledger.enter(&entry("10-0", "open", &[]));
        let of = |ledger: &Ledger| ledger.of("a").cloned().unwrap();
        assert_eq!(ledger.may_go(&of(&ledger)), Err(Stays::Open));
        ledger.enter(&entry("20-0", "close", &[]));
        assert_eq!(ledger.may_go(&of(&ledger)), Ok(()));
        assert_eq!(of(&ledger).since_ms(), Some(20));
        assert_eq!(of(&ledger).entries, ["10-0", "20-0"]);

        ledger.enter(&entry("30-0", "removed", &[]));
        assert!(of(&ledger).removed);
        assert_eq!(ledger.sessions().count(), 0);

        // Its entries are trimmed away, and come back.
        let mut ledger = Ledger::default();
        ledger.enter(&entry("30-0", "removed", &[]));
        assert!(of(&ledger).removed);
        assert_eq!(ledger.sessions().count(), 0);

        ledger.enter(&entry("40-0", "open", &[(ARCHIVED_ID, "10-0")]));
        ledger.enter(&entry("40-1", "close", &[(ARCHIVED_ID, "20-0")]));
        ledger.enter(&entry("40-2", "restored", &[]));
        let back = of(&ledger);
        assert!(!back.removed);
        assert_eq!((back.closed_ms, back.since_ms()), (Some(20), Some(40)));
    }

    #[test]
    fn a_session_of_which_somebody_is_asked_stays() {
        let mut ledger = Ledger::default();
        ledger.enter(&entry("10-0", "open", &[]));
        ledger.enter(&entry("20-0", "close", &[]));
        ledger.held.insert("a".to_owned());
        let listed = ledger.of("a").unwrap();
        assert_eq!(ledger.may_go(listed), Err(Stays::Held));
    }
}
