//! Through all sessions, closed and live ones, from where the last walk ended.
//!
//! What is remembered is how far `sessions` was read, and of each session that is not over how
//! far its events were. Memory is bounded by the sessions that are open and by one batch.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use interceptor_engine::replay::Raw;
use serde::{Deserialize, Serialize};

use super::event::{Exported, Whose};
use super::{SendError, Sink};
use crate::recorder::read::{Reader, StreamEntry, number};

/// Sessions that are taken up at a time.
const SESSIONS: usize = 200;
/// Events and bytes of a batch, about.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1 << 20;
/// Entries that are read at a time, where they are large and where they are not.
const FEW: usize = 16;
/// Between looks for what is new.
const LOOK: Duration = Duration::from_secs(1);
/// Between tries, doubling from the first to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LAST_BACKOFF: Duration = Duration::from_secs(30);

/// How far it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// The destination.
    to: String,
    /// The last entry of `sessions` that was read.
    sessions: String,
    /// The sessions that are not over.
    open: BTreeMap<String, Reached>,
}

impl Positions {
    /// The beginning, or with the first session that opened then.
    #[must_use]
    pub fn new(to: &str, since_ms: Option<u64>) -> Self {
        Self {
            to: to.to_owned(),
            sessions: format!("{}-0", since_ms.unwrap_or(0)),
            open: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reached {
    /// The last entry that was brought.
    after: String,
    whose: Whose,
}

/// The last entries of sessions that are brought.
type Ends = BTreeMap<String, (u64, u64)>;

/// Where positions are kept.
#[derive(Clone, Debug)]
pub struct State(pub Option<PathBuf>);

impl State {
    /// What is kept for this destination, where something is.
    ///
    /// # Errors
    /// When the file is another destination's, or none of ours.
    pub fn load(&self, to: &str) -> anyhow::Result<Option<Positions>> {
        let Some(path) = &self.0 else {
            return Ok(None);
        };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {} (--state)", path.display()));
            }
        };
        let positions: Positions = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no state of an export's", path.display()))?;
        if positions.to != to {
            bail!(
                "{} says how far {:?} got, and this goes to {to:?}: use another --state",
                path.display(),
                positions.to
            );
        }
        Ok(Some(positions))
    }

    fn save(&self, positions: &Positions) -> anyhow::Result<()> {
        let Some(path) = &self.0 else {
            return Ok(());
        };
        let done = || -> std::io::Result<()> {
            let draft = path.with_extension("draft");
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(&serde_json::to_vec(positions)?)?;
            file.sync_all()?;
            std::fs::rename(&draft, path)?;
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        done().with_context(|| format!("writing {}", path.display()))
    }
}

/// What is told of a walk.
pub trait Progress {
    /// So many events more are there.
    fn brought(&mut self, events: usize);
    /// A session was removed before all of it was brought.
    fn lost(&mut self, session: &str);
    /// The destination does not take them now.
    fn waits(&mut self, why: &str);
}

/// A walk.
pub struct Walk<'a> {
    /// Where recordings are.
    pub reader: &'a mut Reader,
    /// Where events go.
    pub sink: &'a mut dyn Sink,
    /// Where it is remembered how far it came.
    pub state: State,
    /// Bytes of an event's data that are brought.
    pub data_limit: usize,
    /// Whether to go on with what is new.
    pub follow: bool,
    /// Is told.
    pub progress: &'a mut dyn Progress,
}

impl Walk<'_> {
    /// Brings everything from `positions` on. Without `follow`, up to what was there: of
    /// sessions when it began, and of each session when it came to it; so it ends, however
    /// much is recorded meanwhile.
    ///
    /// # Errors
    /// When recordings cannot be read, the destination refuses them for good, or it cannot be
    /// remembered how far it came.
    pub fn run(&mut self, mut positions: Positions) -> anyhow::Result<()> {
        let key = self.reader.key("sessions");
        let mut ends = Ends::default();
        let end = match self.follow {
            true => None,
            false => Some(number(&self.reader.last_id(&key)?)),
        };
        loop {
            let mut page = self.reader.after(&key, &positions.sessions, SESSIONS)?;
            page.retain(|entry| end.is_none_or(|end| number(&entry.id) <= end));
            for entry in &page {
                if let Some(lost) = take_up(entry, &mut positions) {
                    self.progress.lost(&lost);
                }
            }
            if let Some(last) = page.last() {
                positions.sessions.clone_from(&last.id);
                self.state.save(&positions)?;
            }
            let sessions: Vec<String> = positions.open.keys().cloned().collect();
            let mut any = !page.is_empty();
            for session in sessions {
                any |= self.session(&session, &mut positions, &mut ends)?;
            }
            if !any {
                if !self.follow {
                    return Ok(());
                }
                std::thread::sleep(LOOK);
            }
        }
    }

    /// Brings what is new of a session; whether anything was.
    fn session(
        &mut self,
        session: &str,
        positions: &mut Positions,
        ends: &mut Ends,
    ) -> anyhow::Result<bool> {
        let key = self.reader.session_key(session);
        let end = match (self.follow, ends.get(session)) {
            (true, _) => None,
            (false, Some(end)) => Some(*end),
            (false, None) => {
                let end = number(&self.reader.last_id(&key)?);
                ends.insert(session.to_owned(), end);
                Some(end)
            }
        };
        let mut any = false;
        let mut batch = Vec::new();
        let mut bytes = 0;
        loop {
            let Some(reached) = positions.open.get(session) else {
                return Ok(any);
            };
            let whose = reached.whose.clone();
            let mut after = reached.after.clone();
            let mut over = false;
            let mut more = true;
            while more && batch.len() < BATCH && bytes < BATCH_BYTES {
                // As many as the last ones were small.
                let each = (bytes / batch.len().max(1)).max(1);
                let count = (BATCH_BYTES / each).clamp(1, BATCH);
                let count = if batch.is_empty() { FEW } else { count };
                let mut page = self.reader.after(&key, &after, count)?;
                page.retain(|entry| end.is_none_or(|end| number(&entry.id) <= end));
                more = !page.is_empty();
                for entry in page {
                    // What was small in the store may be large now; the rest is read again.
                    if bytes >= BATCH_BYTES {
                        break;
                    }
                    after.clone_from(&entry.id);
                    let read = Raw::from_fields(entry.fields).read();
                    let entry = read.with_context(|| format!("reading session {session}"))?;
                    over |= entry.kind == "close";
                    let event = Exported::new(session, &whose, entry, self.data_limit);
                    bytes += event.weight();
                    batch.push(event);
                }
            }
            if batch.is_empty() {
                return Ok(any);
            }
            self.bring(&batch)?;
            any = true;
            self.progress.brought(batch.len());
            batch.clear();
            bytes = 0;
            if over {
                positions.open.remove(session);
                ends.remove(session);
            } else if let Some(reached) = positions.open.get_mut(session) {
                reached.after = after;
            }
            self.state.save(positions)?;
        }
    }

    /// Until the destination has it.
    fn bring(&mut self, batch: &[Exported]) -> anyhow::Result<()> {
        let mut backoff = FIRST_BACKOFF;
        loop {
            match self.sink.send(batch) {
                Ok(()) => return Ok(()),
                Err(SendError::Never(why)) => bail!("{why}"),
                Err(SendError::Gone(error)) => return Err(error.into()),
                Err(SendError::Later(why)) => self.progress.waits(&why),
            }
            std::thread::sleep(backoff);
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }
}

/// A session begins, or will bring nothing more; the session of which something is lost.
fn take_up(entry: &StreamEntry, positions: &mut Positions) -> Option<String> {
    let session = entry.text("session");
    match entry.text("event").as_str() {
        // One that comes back from an archive was brought when it was new.
        "open" if entry.text(crate::archive::ledger::ARCHIVED_ID).is_empty() => {
            let whose = Whose {
                agent: entry.text("agent"),
                target: entry.text("target"),
                host: entry.text("host"),
                protocol: entry.text("protocol"),
            };
            let reached = Reached {
                after: "0-0".to_owned(),
                whose,
            };
            positions.open.entry(session).or_insert(reached);
            None
        }
        "removed" => positions.open.remove(&session).map(|_| session),
        _ => None,
    }
}
