//! Not reading the same text twice.
//!
//! Two memories: of texts, and of templates (see `template`), for texts that
//! differ only in numbers that their meaning does not rest on. Both are bounded
//! by bytes and forget what was not asked for longest. They are cut into shards,
//! so that sessions on different threads seldom wait for each other; a text is
//! read outside of any lock.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interceptor_policy::operation::{Output, OutputItem, Sql, Statement};
use lru::LruCache;

use super::{Dialect, Effect, Reading, template};

const SHARDS: usize = 16;

/// Longer texts are not remembered: they are loads, and do not come again.
const MAX_TEXT: usize = 64 << 10;

/// A text's meaning, shared between all sessions that send it.
#[derive(Debug)]
pub struct Classified {
    /// Unique to this meaning for the life of the process: what the rules say
    /// of it may be kept under this number, except what depends on the text
    /// while [`Classified::exact`] is false.
    pub id: u64,
    /// What it means.
    pub sql: Sql,
    /// What it does to the session; see [`Reading::effects`].
    pub effects: Vec<(usize, Effect)>,
    /// Every text with this `id` is the very same. Otherwise texts that differ
    /// in their integer constants share it.
    pub exact: bool,
}

/// Reads texts, and remembers what they mean within a bounded memory. Shared
/// between sessions.
#[derive(Debug)]
pub struct Classifier {
    shards: [Mutex<Shard>; SHARDS],
    next: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    /// By dialect: a text may mean something else in the other one.
    conforming: Memory<Arc<Classified>>,
    escaping: Memory<Arc<Classified>>,
    /// `None`: texts of this template are told apart by their numbers.
    templates: Memory<Option<Arc<Classified>>>,
}

/// Values by key, the bytes they take, and how many they may take.
#[derive(Debug)]
struct Memory<V> {
    entries: LruCache<Box<[u8]>, (V, usize)>,
    bytes: usize,
    limit: usize,
}

impl Default for Classifier {
    fn default() -> Self {
        Self::new(32 << 20)
    }
}

impl Classifier {
    /// One that remembers about `bytes` of texts and meanings.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let part = bytes / SHARDS / 8;
        Self {
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard {
                    conforming: Memory::new(part * 4),
                    escaping: Memory::new(part),
                    templates: Memory::new(part * 3),
                })
            }),
            next: AtomicU64::new(1),
        }
    }

    /// Reads `text` as [`super::classify`] does.
    #[must_use]
    pub fn classify(&self, text: &str) -> Arc<Classified> {
        self.classify_with(text, Dialect::default())
    }

    /// Reads `text` in the session's dialect.
    #[must_use]
    pub fn classify_with(&self, text: &str, dialect: Dialect) -> Arc<Classified> {
        thread_local! {
            static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        KEY.with_borrow_mut(|key| {
            if !template::key(text, key) {
                return self.exact(text, dialect, None);
            }
            let known = self.shard(key).templates.find(key).cloned();
            match known {
                Some(Some(shared)) => shared,
                Some(None) => self.exact(text, dialect, None),
                None => self.exact(text, dialect, Some(key)),
            }
        })
    }

    /// Looks a text up, and reads it if it is not known. With a template's key,
    /// it is the first text of that template.
    fn exact(&self, text: &str, dialect: Dialect, template: Option<&[u8]>) -> Arc<Classified> {
        if text.len() > MAX_TEXT {
            return self.new_meaning(super::read(text, dialect), true);
        }
        let bytes = text.as_bytes();
        let known = self.shard(bytes).texts(dialect).find(bytes).cloned();
        if let (Some(known), None) = (known, template) {
            return known;
        }
        let (reading, by_literals) = super::shape(text, dialect);
        let Some(key) = template.filter(|_| !by_literals) else {
            if let Some(key) = template {
                self.shard(key).templates.keep(key, None, 0);
            }
            let meaning = self.new_meaning(reading, true);
            let weight = weight(&meaning);
            return self
                .shard(bytes)
                .texts(dialect)
                .keep(bytes, meaning, weight);
        };
        let meaning = self.new_meaning(reading, false);
        let weight = weight(&meaning);
        let kept = self
            .shard(key)
            .templates
            .keep(key, Some(Arc::clone(&meaning)), weight);
        kept.unwrap_or(meaning)
    }

    fn new_meaning(&self, reading: Reading, exact: bool) -> Arc<Classified> {
        Arc::new(Classified {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            sql: reading.sql,
            effects: reading.effects,
            exact,
        })
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        // Only has to spread; each shard is bounded by itself.
        let byte = |at: usize| key.get(at).map_or(0, |byte| usize::from(*byte));
        let mix = key.len() * 31
            + byte(key.len() / 2) * 7
            + byte(key.len().saturating_sub(3))
            + byte(9) * 3;
        let shard = self.shards.get(mix % SHARDS).or(self.shards.first());
        match shard {
            // A panic elsewhere leaves at worst a wrong count of bytes.
            Some(shard) => shard.lock().unwrap_or_else(PoisonError::into_inner),
            None => unreachable!("there is more than one shard"),
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let bytes = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            shard.conforming.bytes + shard.escaping.bytes + shard.templates.bytes
        };
        self.shards.iter().map(bytes).sum()
    }
}

impl Shard {
    fn texts(&mut self, dialect: Dialect) -> &mut Memory<Arc<Classified>> {
        if dialect.standard_conforming_strings {
            &mut self.conforming
        } else {
            &mut self.escaping
        }
    }
}

impl<V: Clone> Memory<V> {
    fn new(limit: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            limit,
        }
    }

    fn find(&mut self, key: &[u8]) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Keeps a value, unless another thread was faster: then gives that one's.
    fn keep(&mut self, key: &[u8], value: V, weight: usize) -> V {
        if let Some((known, _)) = self.entries.get(key) {
            return known.clone();
        }
        // The map's own part of an entry, roughly.
        let weight = weight + key.len() + 96;
        if weight > self.limit {
            return value;
        }
        self.entries.put(Box::from(key), (value.clone(), weight));
        self.bytes += weight;
        while self.bytes > self.limit {
            match self.entries.pop_lru() {
                Some((_, (_, weight))) => self.bytes = self.bytes.saturating_sub(weight),
                None => break,
            }
        }
        value
    }
}

/// About how many bytes a meaning takes.
fn weight(meaning: &Classified) -> usize {
    let effects: usize = meaning
        .effects
        .iter()
        .map(|(_, effect)| match effect {
            Effect::Prepare { inner, .. } | Effect::DeclareCursor { inner, .. } => {
                128 + of_statement(inner)
            }
            Effect::CopyIn(format) | Effect::CopyOut(format) => 256 + format.columns.len() * 48,
            _ => 192,
        })
        .sum();
    size_of::<Classified>()
        + effects
        + meaning
            .sql
            .statements
            .iter()
            .map(of_statement)
            .sum::<usize>()
}

fn of_statement(statement: &Statement) -> usize {
    // Names are counted at a length that few exceed; each has a counter beside.
    const NAME: usize = 48;
    let columns = |count: usize| count * (3 * NAME + 32);
    let output = match &statement.output {
        Output::Items(items) => items
            .iter()
            .map(|item| match item {
                OutputItem::Column(_) => columns(1),
                OutputItem::Star(tables) => 48 + tables.len() * 2 * NAME,
                OutputItem::Expression(of) | OutputItem::Spread(of) => 48 + columns(of.len()),
                OutputItem::Unclear => 48,
            })
            .sum(),
        _ => 0,
    };
    size_of::<Statement>()
        + statement.tags.len() * 16
        + statement.tables.len() * 2 * NAME
        + columns(statement.columns.len() + statement.predicates.len() + statement.moves.len())
        + statement.functions.len() * NAME
        + output
}

#[cfg(test)]
mod tests {
    use super::*;
    use interceptor_policy::operation::WhereClause;

    #[test]
    fn texts_that_differ_in_numbers_share_a_meaning() {
        let classifier = Classifier::default();
        let one = classifier.classify("SELECT abalance FROM accounts WHERE aid = 1");
        let other = classifier.classify("SELECT abalance FROM accounts WHERE aid = 777777");
        assert_eq!(one.id, other.id);
        assert!(!one.exact);
    }

    #[test]
    fn texts_whose_numbers_decide_do_not_share_one() {
        let classifier = Classifier::default();
        let clause = |text: &str| classifier.classify(text).sql.statements[0].where_clause;
        // In both orders: the first of a template must not speak for the rest.
        assert_eq!(
            clause("DELETE FROM t WHERE 1 = 2"),
            Some(WhereClause::Present)
        );
        assert_eq!(
            clause("DELETE FROM t WHERE 1 = 1"),
            Some(WhereClause::AlwaysTrue)
        );
        assert_eq!(
            clause("DELETE FROM u WHERE a + 1 = a + 1"),
            Some(WhereClause::AlwaysTrue)
        );
        assert_eq!(
            clause("DELETE FROM u WHERE a + 1 = a + 2"),
            Some(WhereClause::Present)
        );
    }

    #[test]
    fn the_same_text_is_the_same_meaning_in_its_dialect_only() {
        let classifier = Classifier::default();
        let text = r"SELECT '\'; DROP TABLE users; --'";
        let escaping = Dialect {
            standard_conforming_strings: false,
        };
        let one = classifier.classify(text);
        assert_eq!(one.id, classifier.classify(text).id);
        let other = classifier.classify_with(text, escaping);
        assert_eq!(
            (one.sql.statements.len(), other.sql.statements.len()),
            (2, 1)
        );
    }

    #[test]
    fn memory_is_bounded_whatever_is_sent() {
        let limit = 256 << 10;
        let classifier = Classifier::new(limit);
        for at in 0..5_000 {
            let _ = classifier.classify(&format!("SELECT c{at} FROM t{at} WHERE id = {at}"));
            let _ = classifier.classify(&format!("SELECT '{at}', c{at} FROM t"));
        }
        assert!(classifier.bytes() <= limit, "{} bytes", classifier.bytes());
        assert!(classifier.bytes() > limit / 4, "it forgets everything");
    }
}
