//! What a session, or a principal, did: tags it left, rules it met, counts.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Moment;
use super::window::Window;
use crate::matcher::history::Rate;

/// Most tags, rules and counts that are kept of one holder, of each. Rule files
/// name fewer; it bounds what many reloads under new names come to.
const KEPT: usize = 1024;

/// What one holder did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Past {
    tags: HashMap<Arc<str>, u64>,
    rules: HashMap<Arc<str>, u64>,
    counts: HashMap<Arc<str>, Window>,
}

impl Past {
    /// Tags and rules of another record of the same holder; the later time counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.tags, &other.tags),
            (&mut self.rules, &other.rules),
        ] {
            for (name, at) in theirs {
                let at = Moment {
                    monotonic: *at,
                    unix: 0,
                };
                keep(mine, name, at);
            }
        }
    }

    /// When an exchange left this tag last.
    pub(crate) fn tagged(&self, tag: &str) -> Option<u64> {
        self.tags.get(tag).copied()
    }

    /// When this rule applied last.
    pub(crate) fn met(&self, rule: &str) -> Option<u64> {
        self.rules.get(rule).copied()
    }

    /// Whether one more exchange would be over a rate.
    pub(crate) fn is_over(&self, rate: &Rate, now: Moment) -> bool {
        let count = self
            .counts
            .get(&rate.key)
            .map_or(0, |window| window.count(now.monotonic, rate.per));
        count.saturating_add(1) > rate.over
    }

    pub(crate) fn tag(&mut self, tags: &[Arc<str>], now: Moment) {
        for tag in tags {
            keep(&mut self.tags, tag, now);
        }
    }

    pub(crate) fn meet(&mut self, rule: &Arc<str>, now: Moment) {
        keep(&mut self.rules, rule, now);
    }

    pub(crate) fn count(&mut self, rate: &Rate, now: Moment) {
        if !self.counts.contains_key(&rate.key) && self.counts.len() >= KEPT {
            let oldest = self
                .counts
                .iter()
                .min_by_key(|(_, window)| window.last())
                .map(|(key, _)| Arc::clone(key));
            if let Some(oldest) = oldest {
                self.counts.remove(&oldest);
            }
        }
        self.counts.entry(Arc::clone(&rate.key)).or_default().add(
            now.monotonic,
            rate.per,
            rate.over,
        );
    }
}

fn keep(kept: &mut HashMap<Arc<str>, u64>, name: &Arc<str>, now: Moment) {
    if let Some(last) = kept.get_mut(name) {
        *last = now.monotonic.max(*last);
        return;
    }
    if kept.len() >= KEPT {
        let oldest = kept
            .iter()
            .min_by_key(|(_, last)| **last)
            .map(|(name, _)| Arc::clone(name));
        if let Some(oldest) = oldest {
            kept.remove(&oldest);
        }
    }
    kept.insert(Arc::clone(name), now.monotonic);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tag_makes_room_for_a_new_one() {
        let mut past = Past::default();
        for number in 0..2000_u64 {
            let tag: Arc<str> = format!("t{number}").into();
            past.tag(&[tag], Moment::default().after(number));
        }
        assert_eq!(past.tags.len(), KEPT);
        assert_eq!(past.tagged("t1999"), Some(1999));
        assert_eq!(past.tagged("t0"), None);
    }

    #[test]
    fn time_that_goes_backwards_makes_nothing_older() {
        let mut past = Past::default();
        past.tag(&["t".into()], Moment::default().after(100));
        past.tag(&["t".into()], Moment::default().after(50));
        assert_eq!(past.tagged("t"), Some(100));
    }
}
