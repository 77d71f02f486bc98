//! What is remembered between exchanges: points, tags, counts, bans.
//!
//! Two holders: the session, and the principal over all of its sessions. Time
//! is an argument, and one that goes backwards is harmless: nothing becomes
//! older than it was. What is kept goes by the names of rules and tags, so that
//! it outlives the rule files that gave it.
//!
//! Memory is bounded for any number of principals. The one that was idle for
//! longest is forgotten for a new one; never one with a session that lives, nor
//! one whose ban runs. Where there is no such one either, the new session has
//! no memory, and a scope whose rules ask for any refuses it everything.

mod handed;
mod past;
mod score;
mod window;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

pub use handed::Remembered;
pub(crate) use past::Past;
pub(crate) use score::Score;

use crate::Principal;

/// A point in time, as the shell read its clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// Microseconds of a monotonic clock, from a start that all sessions of one
    /// process share.
    pub monotonic: u64,
    /// Seconds since 1970-01-01T00:00:00Z, for rules that ask for the `time`.
    pub unix: i64,
}

impl Moment {
    /// So many microseconds later.
    #[must_use]
    pub const fn after(self, micros: u64) -> Self {
        Self {
            monotonic: self.monotonic.saturating_add(micros),
            unix: self.unix.saturating_add_unsigned(micros / 1_000_000),
        }
    }
}

/// A time span in microseconds; one that does not fit is for ever.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// What is remembered of all principals. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory {
    people: Arc<Mutex<LruCache<Key, Arc<Person>>>>,
}

/// What principals are told apart by: what the operator and the kernel call
/// them, nothing that they say of themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    agent: Box<str>,
    uid: u32,
}

impl Key {
    fn of(principal: &Principal) -> Self {
        Self {
            agent: principal.agent.as_str().into(),
            uid: principal.uid,
        }
    }
}

/// One principal.
#[derive(Debug, Default)]
pub(crate) struct Person {
    /// On the monotonic clock; 0 where there is no ban. Beside the lock, since
    /// it is asked at every exchange.
    banned_until: AtomicU64,
    /// The rule that banned it for longest.
    banned_by: Mutex<Option<Arc<str>>>,
    record: Mutex<Record>,
}

/// What one principal did.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) past: Past,
    pub(crate) score: Score,
}

impl Person {
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much longer it is banned.
    pub(crate) fn banned(&self, now: Moment) -> Option<Duration> {
        let until = self.banned_until.load(Ordering::Acquire);
        until
            .checked_sub(now.monotonic)
            .filter(|left| *left > 0)
            .map(Duration::from_micros)
    }

    /// Bans it; a ban that runs longer stays.
    pub(crate) fn ban(&self, span: Duration, rule: &Arc<str>, now: Moment) {
        let until = now.monotonic.saturating_add(micros(span));
        let mut by = self
            .banned_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.banned_until.fetch_max(until, Ordering::AcqRel) < until {
            *by = Some(Arc::clone(rule));
        }
    }

    /// The rule that bans it.
    pub(crate) fn banned_by(&self) -> Option<Arc<str>> {
        let by = self.banned_by.lock();
        by.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is remembered of one session and its principal.
#[derive(Debug)]
pub struct Standing {
    memory: Memory,
    /// `None` where there was no room for it.
    person: Option<Arc<Person>>,
    /// Of this session alone.
    past: Past,
}

impl Default for Standing {
    /// Of a principal that nothing else knows.
    fn default() -> Self {
        Self {
            memory: Memory::with_room_for(1),
            person: Some(Arc::default()),
            past: Past::default(),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// How many principals are remembered where nobody says how many.
    pub const PRINCIPALS: usize = 65_536;

    /// A memory of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::with_room_for(Self::PRINCIPALS)
    }

    /// A memory of so many principals, at least one.
    #[must_use]
    pub fn with_room_for(principals: usize) -> Self {
        // Made for as many as come, not for as many as may.
        let mut people = LruCache::unbounded();
        people.resize(NonZeroUsize::new(principals).unwrap_or(NonZeroUsize::MIN));
        Self {
            people: Arc::new(Mutex::new(people)),
        }
    }

    fn people(&self) -> MutexGuard<'_, LruCache<Key, Arc<Person>>> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a session of this principal stands as it begins.
    #[must_use]
    pub fn standing(&self, principal: &Principal, now: Moment) -> Standing {
        Standing {
            memory: self.clone(),
            person: self.person(principal, now),
            past: Past::default(),
        }
    }

    fn person(&self, principal: &Principal, now: Moment) -> Option<Arc<Person>> {
        let key = Key::of(principal);
        let mut people = self.people();
        if let Some(known) = people.get(&key) {
            return Some(Arc::clone(known));
        }
        if people.len() >= people.cap().get() {
            // Whoever holds the map holds the only way to a second reference.
            let idle = people
                .iter()
                .rev()
                .find(|(_, person)| Arc::strong_count(person) == 1 && person.banned(now).is_none())
                .map(|(key, _)| key.clone())?;
            people.pop(&idle);
        }
        let person = Arc::<Person>::default();
        people.put(key, Arc::clone(&person));
        Some(person)
    }

    /// Whether this principal may have no session now, and for how much longer.
    #[must_use]
    pub fn banned(&self, principal: &Principal, now: Moment) -> Option<Duration> {
        self.people().peek(&Key::of(principal))?.banned(now)
    }

    /// How many principals are remembered.
    #[must_use]
    pub fn principals(&self) -> usize {
        self.people().len()
    }
}

impl Standing {
    /// The memory that it is part of.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Leaves the tags of an exchange that was held when it was judged, and is
    /// let pass now. What is allowed at once has left them already, and what is
    /// refused leaves none.
    pub fn tag(&mut self, tags: &[Arc<str>], now: Moment) {
        if tags.is_empty() {
            return;
        }
        self.past.tag(tags, now);
        if let Some(person) = &self.person {
            person.record().past.tag(tags, now);
        }
    }

    /// Points of before, for a test or a question that begins with some.
    pub fn start_with(&mut self, points: u32, now: Moment) {
        if let Some(person) = &self.person {
            // No time passes between, so that any half-life will do.
            person.record().score.add(points, now, 1);
        }
    }

    pub(crate) fn person(&self) -> Option<&Arc<Person>> {
        self.person.as_ref()
    }

    pub(crate) fn past(&self) -> &Past {
        &self.past
    }

    pub(crate) fn past_mut(&mut self) -> &mut Past {
        &mut self.past
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn principal(agent: &str, uid: u32) -> Principal {
        Principal {
            agent: agent.to_owned(),
            uid,
            ..Principal::default()
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment::default().after(seconds * SECOND)
    }

    fn ban(standing: &Standing, seconds: u64, now: Moment) {
        let span = Duration::from_secs(seconds);
        standing.person().unwrap().ban(span, &"r".into(), now);
    }

    #[test]
    fn a_ban_is_of_one_principal_and_ends() {
        let memory = Memory::new();
        let bot = principal("bot", 1000);
        ban(&memory.standing(&bot, at(0)), 60, at(0));
        assert_eq!(memory.banned(&bot, at(20)), Some(Duration::from_secs(40)));
        assert_eq!(memory.banned(&bot, at(60)), None);
        for other in [principal("bot", 1001), principal("cat", 1000)] {
            assert_eq!(memory.banned(&other, at(20)), None);
        }
    }

    #[test]
    fn a_shorter_ban_never_ends_a_longer_one() {
        let memory = Memory::new();
        let bot = principal("bot", 0);
        let standing = memory.standing(&bot, at(0));
        ban(&standing, 60, at(0));
        ban(&standing, 5, at(1));
        assert_eq!(memory.banned(&bot, at(10)), Some(Duration::from_secs(50)));
    }

    #[test]
    fn who_was_idle_for_longest_is_forgotten_and_never_who_lives_or_is_banned() {
        let memory = Memory::with_room_for(3);
        let alive = memory.standing(&principal("alive", 0), at(0));
        ban(
            &memory.standing(&principal("banned", 0), at(0)),
            1000,
            at(0),
        );
        let idle = principal("idle", 0);
        memory.standing(&idle, at(0)).tag(&["mark".into()], at(0));
        assert!(
            memory
                .standing(&principal("new", 0), at(1))
                .person
                .is_some()
        );
        assert_eq!(memory.principals(), 3);
        assert!(memory.banned(&principal("banned", 0), at(2)).is_some());
        let person = alive.person().unwrap();
        let again = memory.standing(&principal("alive", 0), at(2));
        assert!(Arc::ptr_eq(person, again.person().unwrap()));
        let idle = memory.standing(&idle, at(3));
        let forgotten = idle.person().unwrap().record().past.tagged("mark");
        assert_eq!(forgotten, None);
    }

    #[test]
    fn where_nobody_can_be_forgotten_a_new_session_has_no_memory() {
        let memory = Memory::with_room_for(1);
        let first = memory.standing(&principal("first", 0), at(0));
        assert!(
            memory
                .standing(&principal("second", 0), at(0))
                .person
                .is_none()
        );
        drop(first);
        assert!(
            memory
                .standing(&principal("second", 0), at(0))
                .person
                .is_some()
        );
    }
}
