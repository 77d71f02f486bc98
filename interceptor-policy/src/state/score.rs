//! A score that halves with time.

use serde::{Deserialize, Serialize};

use super::Moment;

/// Points, and when they were that many.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Score {
    points: f64,
    at: u64,
}

impl Score {
    /// What is left of it. `half_life` is in microseconds.
    fn exact(self, now: Moment, half_life: u64) -> f64 {
        let since = now.monotonic.saturating_sub(self.at);
        if since == 0 || self.points == 0.0 {
            return self.points;
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "a score is rounded, and needs no microsecond in a century"
        )]
        let halvings = since as f64 / half_life.max(1) as f64;
        self.points * (-halvings).exp2()
    }

    /// What is left of it, rounded: what is shown is what rules compare.
    pub(crate) fn rounded(self, now: Moment, half_life: u64) -> u32 {
        round(self.exact(now, half_life))
    }

    /// What it comes to with more points, rounded.
    pub(crate) fn with(self, points: u32, now: Moment, half_life: u64) -> u32 {
        round(self.exact(now, half_life) + f64::from(points))
    }

    /// Adds points.
    pub(crate) fn add(&mut self, points: u32, now: Moment, half_life: u64) {
        self.points = (self.exact(now, half_life) + f64::from(points)).min(f64::from(u32::MAX));
        self.at = self.at.max(now.monotonic);
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float keeps to the range of the integer"
)]
fn round(points: f64) -> u32 {
    points.round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000;

    fn at(minutes: u64) -> Moment {
        Moment::default().after(minutes * MINUTE)
    }

    #[test]
    fn a_score_halves_in_every_half_life() {
        let mut score = Score::default();
        score.add(80, at(0), 10 * MINUTE);
        assert_eq!(score.rounded(at(0), 10 * MINUTE), 80);
        assert_eq!(score.rounded(at(10), 10 * MINUTE), 40);
        assert_eq!(score.rounded(at(30), 10 * MINUTE), 10);
        assert_eq!(score.with(5, at(30), 10 * MINUTE), 15);
        assert_eq!(score.rounded(at(100_000), 10 * MINUTE), 0);
    }

    #[test]
    fn time_that_goes_backwards_gives_no_points_back_and_takes_none() {
        let mut score = Score::default();
        score.add(80, at(20), 10 * MINUTE);
        score.add(4, at(10), 10 * MINUTE);
        assert_eq!(score.rounded(at(20), 10 * MINUTE), 84);
        assert_eq!(score.rounded(at(30), 10 * MINUTE), 42);
    }

    #[test]
    fn a_score_is_bounded() {
        let mut score = Score::default();
        for _ in 0..10 {
            score.add(u32::MAX, at(0), 10 * MINUTE);
        }
        assert_eq!(score.rounded(at(0), 10 * MINUTE), u32::MAX);
        assert_eq!(score.with(u32::MAX, at(0), 10 * MINUTE), u32::MAX);
    }
}
