//! How long to wait before the next thing is shown.

use std::time::Duration;

use crate::event::FlowTime;

/// The tempo of a replay.
#[derive(Clone, Debug)]
pub struct Pace {
    speed: f64,
    idle_limit: Option<Duration>,
    from: FlowTime,
    last: FlowTime,
}

/// A speed that is not above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a replay's speed is a number above zero")]
pub struct NoSpeed;

impl Pace {
    /// `speed` times as fast as it was, never waiting longer than `idle_limit`, from
    /// `from` on.
    ///
    /// # Errors
    /// A speed that is not a number above zero.
    pub fn new(speed: f64, idle_limit: Option<Duration>, from: FlowTime) -> Result<Self, NoSpeed> {
        if !(speed.is_finite() && speed > 0.0) {
            return Err(NoSpeed);
        }
        Ok(Self {
            speed,
            idle_limit,
            from,
            last: from,
        })
    }

    /// Whether what happened at `at` is to be shown.
    #[must_use]
    pub fn shows(&self, at: FlowTime) -> bool {
        at >= self.from
    }

    /// How long to wait before what happened at `at` is shown.
    pub fn wait(&mut self, at: FlowTime) -> Duration {
        let gap = at.0.saturating_sub(self.last.0);
        self.last = self.last.max(at);
        let gap =
            Duration::try_from_secs_f64(Duration::from_micros(gap).as_secs_f64() / self.speed)
                .unwrap_or(Duration::MAX);
        self.idle_limit.map_or(gap, |limit| gap.min(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_replay_keeps_the_time_that_it_was_recorded_in() {
        let mut pace = Pace::new(1.0, None, FlowTime(0)).unwrap();
        assert_eq!(pace.wait(FlowTime(0)), Duration::ZERO);
        assert_eq!(pace.wait(FlowTime(SECOND)), Duration::from_secs(1));
        assert_eq!(pace.wait(FlowTime(SECOND)), Duration::ZERO);
        assert_eq!(pace.wait(FlowTime(61 * SECOND)), Duration::from_secs(60));
    }

    #[test]
    fn speed_divides_and_the_idle_limit_bounds_what_is_left() {
        let mut pace = Pace::new(10.0, Some(Duration::from_secs(2)), FlowTime(0)).unwrap();
        assert_eq!(pace.wait(FlowTime(SECOND)), Duration::from_millis(100));
        assert_eq!(pace.wait(FlowTime(3600 * SECOND)), Duration::from_secs(2));
    }

    #[test]
    fn what_came_before_the_start_is_neither_shown_nor_waited_for() {
        let mut pace = Pace::new(1.0, None, FlowTime(10 * SECOND)).unwrap();
        assert!(!pace.shows(FlowTime(9 * SECOND)));
        assert!(pace.shows(FlowTime(10 * SECOND)));
        assert_eq!(pace.wait(FlowTime(11 * SECOND)), Duration::from_secs(1));
    }

    #[test]
    fn no_speed_is_refused() {
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Pace::new(speed, None, FlowTime(0)).is_err());
        }
    }
}
