//! What may go, goes: closed sessions by age and by size, archived first where that is
//! configured, and what tells of them in the shared streams.
//!
//! Of all interceptors that record under one prefix, one at a time does it: the one that has
//! the [`lease`]. Each step is one that may be done twice.
//!
//! Size is what Redis says that recordings take of its memory (`MEMORY USAGE`), since that is
//! what runs out. An open session counts and stays.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use interceptor_engine::evidence::ledger::Ledger as Evidence;
use interceptor_policy::verdict::Severity;
use redis::{Value, cmd};
use serde_json::json;
use tracing::{info, warn};

use super::ArchiveError;
use super::keep::{Removal, keep, remove};
use super::ledger::{Ledger, Listed, each};
use super::place::Place;
use crate::config::Retention;
use crate::handover::Life;
use crate::lease;
use crate::recorder::evidence::notary::Notary;
use crate::recorder::evidence::{FOLDER, ed25519, keys};
use crate::recorder::read::{ReadError, Reader, number};
use crate::recorder::{Alert, Fault, Recorder};

/// The daemon itself takes over questions that are younger than this.
const APPROVALS: Duration = Duration::from_secs(8 * 24 * 3600);

/// What a daemon needs for it; not to be printed, since the URL may hold a password.
pub struct Keeper {
    /// What is configured.
    pub retention: Retention,
    /// The Redis.
    pub url: String,
    /// What keys begin with.
    pub prefix: String,
    /// This host.
    pub host: String,
    /// The host's key is below it: what is removed is signed.
    pub state_dir: PathBuf,
    /// Whose statements in `sessions` are believed; without a list, this host's own keys.
    pub trusted_keys: Option<PathBuf>,
    /// Tells of what was done.
    pub recorder: Recorder,
    /// Counts it.
    pub figures: Arc<Figures>,
    /// Whether it is this daemon that does it.
    pub life: Arc<Life>,
}

/// What was done since the daemon started.
#[derive(Debug, Default)]
pub struct Figures {
    /// Sessions that were removed.
    pub removed: AtomicU64,
    /// Of those, archived.
    pub archived: AtomicU64,
    /// Rounds that failed.
    pub failed: AtomicU64,
    /// When the last round that was done ended, seconds since 1970.
    pub last_round: AtomicU64,
}

/// Does it, until the daemon takes nothing new any more.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(keeper: Keeper) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("retention".to_owned())
        .spawn(move || {
            let mut memory = Memory::default();
            while keeper.life.is_serving() {
                keeper.round(&mut memory);
                std::thread::sleep(keeper.retention.every);
            }
        })
        .map(drop)
}

/// What is kept from round to round.
#[derive(Default)]
struct Memory {
    /// Of sessions, in bytes.
    sizes: HashMap<String, u64>,
    /// Why a session stays though it is due; it is told once.
    told: HashMap<String, String>,
    notary: Option<Notary>,
}

/// What a round works with.
struct Tools<'a> {
    reader: Reader,
    place: Option<Arc<Place>>,
    ledger: Ledger,
    notary: &'a mut Notary,
    told: &'a mut HashMap<String, String>,
    round: Round,
}

/// What a round came to.
#[derive(Debug, Default)]
struct Round {
    removed: u64,
    archived: u64,
}

impl Keeper {
    fn round(&self, memory: &mut Memory) {
        match self.look(memory) {
            Ok(None) => {}
            Ok(Some(round)) => {
                self.figures
                    .removed
                    .fetch_add(round.removed, Ordering::Relaxed);
                self.figures
                    .archived
                    .fetch_add(round.archived, Ordering::Relaxed);
                let now = since_1970().as_secs();
                self.figures.last_round.store(now, Ordering::Relaxed);
                if round.removed > 0 {
                    let (removed, archived) = (round.removed, round.archived);
                    let line = format!(
                        "retention removed {removed} sessions, {archived} of them to the archive"
                    );
                    info!("{line}");
                    let meta = json!({ "removed": removed, "archived": archived });
                    self.tell(Severity::Info, line, meta);
                }
            }
            Err(error) => {
                let failed = self.figures.failed.fetch_add(1, Ordering::Relaxed);
                warn!(%error, "retention could not be done; trying again");
                if failed == 0 || failed.is_multiple_of(100) {
                    let line = format!("retention could not be done: {error}");
                    self.tell(Severity::High, line, json!({}));
                }
            }
        }
    }

    fn tell(&self, severity: Severity, line: String, meta: serde_json::Value) {
        self.recorder.alert(Alert {
            severity,
            kind: "retention",
            line,
            meta: meta.to_string(),
        });
    }

    /// One round; nothing where another interceptor does it.
    fn look(&self, memory: &mut Memory) -> Result<Option<Round>, ArchiveError> {
        let mut reader = Reader::open(&self.url, &self.prefix)?;
        if !self.lease(&mut reader)? {
            return Ok(None);
        }
        let notary = match &mut memory.notary {
            Some(notary) => notary,
            none => none.insert(Notary::open(&self.state_dir)?),
        };
        let place = match &self.retention.archive_to {
            Some(to) => Some(Arc::new(Place::open(to)?)),
            None => None,
        };
        let ledger = Ledger::read(&mut reader)?;
        let listed: Vec<Listed> = ledger.sessions().cloned().collect();
        let mut tools = Tools {
            reader,
            place,
            ledger,
            notary,
            told: &mut memory.told,
            round: Round::default(),
        };
        let now = u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX);

        // By age first: what goes for its age needs no room.
        let mut left = Vec::new();
        for listed in listed {
            let age = self.retention.age_of(&listed.target);
            let is_over = match (listed.since_ms(), age) {
                (Some(since), Some(age)) => {
                    u128::from(now.saturating_sub(since)) >= age.as_millis()
                }
                _ => false,
            };
            if !is_over || !self.go(&mut tools, &listed, "age")? {
                left.push(listed);
            }
        }
        let there: HashSet<&str> = left.iter().map(|listed| listed.session.as_str()).collect();
        memory
            .sizes
            .retain(|session, _| there.contains(session.as_str()));
        if self.retention.bytes.is_some() {
            self.by_size(&mut tools, left, &mut memory.sizes)?;
        }
        self.trim(&mut tools, now)?;
        Ok(Some(tools.round))
    }

    /// The oldest go until the rest fits.
    fn by_size(
        &self,
        tools: &mut Tools<'_>,
        mut left: Vec<Listed>,
        sizes: &mut HashMap<String, u64>,
    ) -> Result<(), ArchiveError> {
        let limit = self.retention.bytes.unwrap_or(u64::MAX);
        let mut each = Vec::with_capacity(left.len());
        left.sort_by_key(|listed| listed.since_ms().unwrap_or(u64::MAX));
        for listed in left {
            let known = sizes.get(&listed.session).copied();
            let bytes = match known {
                // A closed recording does not grow.
                Some(bytes) if listed.closed_ms.is_some() => bytes,
                _ => {
                    let reader = &mut tools.reader;
                    let key = reader.session_key(&listed.session);
                    match reader.run(cmd("MEMORY").arg("USAGE").arg(key))? {
                        Value::Int(bytes) => u64::try_from(bytes).unwrap_or_default(),
                        _ => 0,
                    }
                }
            };
            sizes.insert(listed.session.clone(), bytes);
            each.push((listed, bytes));
        }
        let mut total: u64 = each.iter().map(|(_, bytes)| bytes).sum();
        for (listed, bytes) in each {
            if total <= limit || listed.closed_ms.is_none() {
                break;
            }
            if self.go(tools, &listed, "bytes")? {
                sizes.remove(&listed.session);
                total = total.saturating_sub(bytes);
            }
        }
        Ok(())
    }

    /// Archives a session where that is configured, and removes it; whether it is gone. One
    /// that must stay is told of once, and the others go on.
    fn go(&self, tools: &mut Tools<'_>, listed: &Listed, why: &str) -> Result<bool, ArchiveError> {
        if tools.ledger.may_go(listed).is_err() {
            return Ok(false);
        }
        if !self.life.is_serving() || !self.lease(&mut tools.reader)? {
            return Ok(false);
        }
        match self.archive_and_remove(tools, listed, why) {
            Ok(archived) => {
                tools.round.removed += 1;
                tools.round.archived += u64::from(archived);
                Ok(true)
            }
            Err(error) => {
                let Some(advice) = advice(&error) else {
                    return Err(error);
                };
                let session = listed.session.clone();
                let why = error.to_string();
                if tools.told.insert(session.clone(), why.clone()).as_ref() != Some(&why) {
                    let line = format!("retention leaves one where it is: {why}{advice}");
                    warn!("{line}");
                    self.tell(Severity::Medium, line, json!({ "session": session }));
                }
                Ok(false)
            }
        }
    }

    /// Whether it was archived.
    fn archive_and_remove(
        &self,
        tools: &mut Tools<'_>,
        listed: &Listed,
        why: &str,
    ) -> Result<bool, ArchiveError> {
        let reader = &mut tools.reader;
        let kept = match &tools.place {
            Some(place) => Some((place.name(), keep(reader, place, listed, &self.host)?)),
            None => None,
        };
        let removal = Removal {
            by: "retention",
            why,
            user: None,
            kept: kept.as_ref().map(|(place, kept)| (*place, kept)),
        };
        match remove(reader, listed, &removal, tools.notary) {
            // What is removed cannot be said while there is no room to say it.
            Err(error) if is_full(&error) => {
                let live = reader.key("live");
                reader.run(cmd("XTRIM").arg(live).arg("MAXLEN").arg(0))?;
                remove(reader, listed, &removal, tools.notary)?;
            }
            other => other?,
        }
        Ok(kept.is_some())
    }

    /// Whether this interceptor is the one that does it.
    fn lease(&self, reader: &mut Reader) -> Result<bool, ArchiveError> {
        Ok(lease::hold(reader, "retention", &self.host)?)
    }

    /// The shared streams lose what is older than any session that may still be there.
    fn trim(&self, tools: &mut Tools<'_>, now: u64) -> Result<(), ArchiveError> {
        let reader = &mut tools.reader;
        let retention = &self.retention;
        let ages = retention.targets.values().chain(retention.age.as_ref());
        let (Some(_), Some(longest)) = (retention.age, ages.max().copied()) else {
            // Something is to stay for ever.
            return Ok(());
        };
        let before =
            |age: Duration| now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        for (stream, age) in [("alerts", longest), ("approvals", longest.max(APPROVALS))] {
            let key = reader.key(stream);
            let from = format!("{}-0", before(age));
            reader.run(cmd("XTRIM").arg(key).arg("MINID").arg("~").arg(from))?;
        }
        self.trim_sessions(tools, before(longest.saturating_mul(2)), longest)
    }

    /// `sessions` up to the first line of a session that is there, or that went not long ago.
    /// Up to which statement of which host that is, is signed first.
    fn trim_sessions(
        &self,
        tools: &mut Tools<'_>,
        before: u64,
        longest: Duration,
    ) -> Result<(), ArchiveError> {
        let reader = &mut tools.reader;
        let key = reader.key("sessions");
        let Some(first) = reader.after(&key, "0-0", 1)?.pop() else {
            return Ok(());
        };
        let first = number(&first.id);
        let slack = u64::try_from((longest / 10).as_millis()).unwrap_or(u64::MAX);
        if first.0.saturating_add(slack) >= before {
            return Ok(());
        }
        // Read again: much may have come since.
        let ledger = Ledger::read(reader)?;
        let stays = ledger.sessions().flat_map(|listed| &listed.entries);
        let stays = stays.map(|id| number(id)).min();
        let from = stays.map_or((before, 0), |stays| stays.min((before, 0)));
        if from <= first {
            // Nothing would go, and nothing is to be said of it.
            return Ok(());
        }
        let folder = self.state_dir.join(FOLDER);
        let trust = keys::trust(self.trusted_keys.as_deref(), &folder)?;
        let mut evidence = Evidence::new(trust, ed25519);
        each(reader, &key, |entry| {
            evidence.entry(&entry.id, |name| entry.text(name));
        })?;
        let lines = evidence.trim(from, number);
        let from = format!("{}-{}", from.0, from.1);
        let pairs = [("event", "trimmed"), ("by", "retention"), ("before", &from)];
        tools.notary.say(reader, &pairs, &lines)?;
        reader.run(cmd("XTRIM").arg(&key).arg("MINID").arg(&from))?;
        Ok(())
    }
}

/// What is to be done where one session cannot go; nothing where none can.
fn advice(error: &ArchiveError) -> Option<&'static str> {
    match error {
        ArchiveError::Stays { .. } => Some(""),
        ArchiveError::Differs { .. } => Some(
            "; compare them (`interceptor verify ID`, and with `--archive`), and move the one that is no good out of the way",
        ),
        ArchiveError::Broken { .. } => Some(
            "; what was written to the archive does not read back: check its disk or bucket (`interceptor archive check ID`)",
        ),
        _ => None,
    }
}

fn is_full(error: &ArchiveError) -> bool {
    matches!(error, ArchiveError::Read(inner) if matches!(**inner, ReadError::Redis(Fault::Memory)))
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
