//! How many exchanges there were in the last so many seconds.
//!
//! What is asked is only whether there were *more than* a number, so no more
//! than that number and one are kept. Up to [`EXACT`] each is kept by its own
//! time; past it they are kept by slots of a 1024th of the span, and one counts
//! until the end of its slot has left the span: by that much at most a count is
//! too high, and never too low.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Most times that are kept one by one.
const EXACT: u64 = 1024;

/// A sliding window. Times are microseconds of the monotonic clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Window {
    /// A time, and how many count by it; oldest first.
    kept: VecDeque<(u64, u64)>,
    total: u64,
}

impl Window {
    /// How many there were within `per` of `now`; exact up to what the rate
    /// that it was kept for asks.
    pub(crate) fn count(&self, now: u64, per: u64) -> u64 {
        let gone: u64 = self
            .kept
            .iter()
            .take_while(|(at, _)| is_gone(*at, now, per))
            .map(|(_, count)| count)
            .sum();
        self.total.saturating_sub(gone)
    }

    /// Adds one.
    pub(crate) fn add(&mut self, now: u64, per: u64, over: u64) {
        let slot = if over < EXACT {
            1
        } else {
            (per / EXACT).max(1)
        };
        let end = (now / slot).saturating_mul(slot).saturating_add(slot - 1);
        // Time that went backwards leaves the order as it is.
        let at = end.max(self.last());
        match self.kept.back_mut() {
            Some((last, count)) if *last == at => *count = count.saturating_add(1),
            _ => self.kept.push_back((at, 1)),
        }
        self.total = self.total.saturating_add(1);
        while let Some((oldest, count)) = self.kept.front().copied() {
            let without = self.total.saturating_sub(count);
            if !is_gone(oldest, now, per) && without <= over {
                break;
            }
            self.kept.pop_front();
            self.total = without;
        }
    }

    /// The time that the newest counts by.
    pub(crate) fn last(&self) -> u64 {
        self.kept.back().map_or(0, |(at, _)| *at)
    }
}

/// `per` after it, it is gone.
const fn is_gone(at: u64, now: u64, per: u64) -> bool {
    at.saturating_add(per) <= now
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn what_is_older_than_the_span_counts_no_more() {
        let mut window = Window::default();
        for second in 0..10 {
            window.add(second * SECOND, 5 * SECOND, 100);
        }
        assert_eq!(window.count(9 * SECOND, 5 * SECOND), 5);
        assert_eq!(window.count(14 * SECOND - 1, 5 * SECOND), 1);
        assert_eq!(window.count(14 * SECOND, 5 * SECOND), 0);
    }

    #[test]
    fn no_more_is_kept_than_is_asked_for() {
        let mut window = Window::default();
        for at in 0..100_000 {
            window.add(at, 1000 * SECOND, 100);
        }
        assert!(window.kept.len() <= 101, "{}", window.kept.len());
        let mut window = Window::default();
        for at in 0..100_000 {
            window.add(at * 1000, SECOND, 1_000_000);
        }
        assert!(window.kept.len() <= 1026, "{}", window.kept.len());
    }

    proptest! {
        #[test]
        fn it_never_says_fewer_than_there_were_and_hardly_ever_more(
            steps in prop::collection::vec(0_u64..40_000, 1..3000),
            over in prop_oneof![1_u64..60, 1024_u64..2000],
        ) {
            let per = SECOND;
            let slack = per / EXACT;
            let mut window = Window::default();
            let mut now = 0;
            let mut times = Vec::new();
            for step in steps {
                now += step / if over < EXACT { 1 } else { 40 };
                let within = |span| times.iter().filter(|at| !is_gone(**at, now, span)).count() as u64;
                let says = window.count(now, per) > over;
                prop_assert!(says || within(per) <= over, "too few");
                let most = if over < EXACT { per } else { per + slack };
                prop_assert!(!says || within(most) > over, "too many");
                window.add(now, per, over);
                times.push(now);
            }
        }
    }
}
