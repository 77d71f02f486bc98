//! What is remembered, in a form that goes from one process to the next.
//!
//! Times are those of the monotonic clock that all sessions of one process share, so
//! whoever takes it over has to count from the same start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Key, Memory, Past, Person, Record, Score};

/// What is remembered of all principals, to be handed on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Remembered {
    /// The one that was idle for longest first.
    people: Vec<One>,
}

#[derive(Debug, Serialize, Deserialize)]
struct One {
    agent: Box<str>,
    uid: u32,
    banned_until: u64,
    banned_by: Option<Arc<str>>,
    past: Past,
    score: Score,
}

impl Memory {
    /// What is remembered now; of sessions that live, only what counts for the principal.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        let people = self.people();
        let one = |(key, person): (&Key, &Arc<Person>)| {
            let record = person.record();
            One {
                agent: key.agent.clone(),
                uid: key.uid,
                banned_until: person.banned_until.load(Ordering::Acquire),
                banned_by: person.banned_by(),
                past: record.past.clone(),
                score: record.score,
            }
        };
        Remembered {
            people: people.iter().rev().map(one).collect(),
        }
    }

    /// Remembers what another process did. Call it before any session begins.
    pub fn recall(&self, remembered: Remembered) {
        let mut people = self.people();
        for one in remembered.people {
            let key = Key {
                agent: one.agent,
                uid: one.uid,
            };
            let person = Person {
                banned_until: AtomicU64::new(one.banned_until),
                banned_by: Mutex::new(one.banned_by),
                record: Mutex::new(Record {
                    past: one.past,
                    score: one.score,
                }),
            };
            people.put(key, Arc::new(person));
        }
    }

    /// What is remembered of those who are banned, or have a session that lives: what two
    /// processes that serve the same principals tell each other.
    #[must_use]
    pub fn alive(&self) -> Remembered {
        let alive: Vec<Key> = self
            .people()
            .iter()
            .filter(|(_, person)| {
                Arc::strong_count(person) > 1 || person.banned_until.load(Ordering::Acquire) > 0
            })
            .map(|(key, _)| key.clone())
            .collect();
        let mut all = self.remembered();
        all.people.retain(|one| {
            let key = Key {
                agent: one.agent.clone(),
                uid: one.uid,
            };
            alive.contains(&key)
        });
        all
    }

    /// Takes over what another process says of principals that both serve: bans, of which
    /// the longer one counts, tags, and rules that were met. Points and counts add up, and
    /// cannot be told twice: each process has its own.
    pub fn merge(&self, remembered: Remembered) {
        let mut people = self.people();
        for one in remembered.people {
            let key = Key {
                agent: one.agent,
                uid: one.uid,
            };
            if people.peek(&key).is_none() {
                if people.len() >= people.cap().get() {
                    continue;
                }
                people.put(key.clone(), Arc::default());
            }
            let Some(person) = people.peek(&key) else {
                continue;
            };
            let mut by = person
                .banned_by
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let before = person
                .banned_until
                .fetch_max(one.banned_until, Ordering::AcqRel);
            if before < one.banned_until {
                *by = one.banned_by;
            }
            drop(by);
            person.record().past.merge(&one.past);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{Memory, Moment, Principal};

    fn bot() -> Principal {
        Principal {
            agent: "bot".to_owned(),
            ..Principal::default()
        }
    }

    #[test]
    fn what_one_process_remembers_the_next_one_does() {
        let at = |seconds: u64| Moment::default().after(seconds * 1_000_000);
        let first = Memory::new();
        let mut standing = first.standing(&bot(), at(0));
        standing.tag(&["seen".into()], at(1));
        standing.start_with(40, at(1));
        let person = standing.person().unwrap();
        person.ban(Duration::from_secs(60), &"thrown-out".into(), at(1));

        let text = serde_json::to_string(&first.remembered()).unwrap();
        let second = Memory::new();
        second.recall(serde_json::from_str(&text).unwrap());
        assert_eq!(second.banned(&bot(), at(11)), Some(Duration::from_secs(50)));
        let standing = second.standing(&bot(), at(11));
        let person = standing.person().unwrap();
        assert_eq!(person.banned_by().as_deref(), Some("thrown-out"));
        assert_eq!(person.record().past.tagged("seen"), Some(1_000_000));
        assert_eq!(person.record().score.rounded(at(1), 1), 40);
    }

    #[test]
    fn of_two_bans_the_longer_one_counts() {
        let at = Moment::default();
        let ban = |memory: &Memory, seconds| {
            let standing = memory.standing(&bot(), at);
            let person = standing.person().unwrap();
            person.ban(Duration::from_secs(seconds), &"r".into(), at);
        };
        let (one, other) = (Memory::new(), Memory::new());
        ban(&one, 60);
        other.merge(one.alive());
        assert_eq!(other.banned(&bot(), at), Some(Duration::from_secs(60)));
        let tagged = Moment::default().after(7);
        one.standing(&bot(), at).tag(&["seen".into()], tagged);
        other.merge(one.alive());
        let standing = other.standing(&bot(), at);
        let seen = standing.person().unwrap().record().past.tagged("seen");
        assert_eq!(seen, Some(7));
        ban(&other, 90);
        other.merge(one.alive());
        assert_eq!(other.banned(&bot(), at), Some(Duration::from_secs(90)));
    }
}
