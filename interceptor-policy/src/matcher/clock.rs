//! `time`: the time of day and the day of the week, somewhere.
//!
//! The zones' rules are part of the program: what they are does not hang on the
//! host. A window that runs over midnight belongs to the day on which it began.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::Moment;

/// The days of the week, by name.
pub(crate) const WEEKDAYS: &[(&str, Weekday)] = &[
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// What `time` asks for.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Empty for any.
    pub(crate) weekdays: Vec<Weekday>,
    /// From the first, and before the second.
    pub(crate) between: Option<(Time, Time)>,
    pub(crate) zone: TimeZone,
}

/// A zone by its name.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// The names of all zones, for suggestions.
pub(crate) fn zones() -> Vec<String> {
    TimeZoneDatabase::bundled()
        .available()
        .map(|name| name.to_string())
        .collect()
}

/// `09:00`; `24:00` is the day's end.
pub(crate) fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    let number = |text: &str| {
        (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<i8>().ok())
            .flatten()
    };
    match (number(hour)?, number(minute)?) {
        (24, 0) => Some(Time::midnight()),
        (hour, minute) => Time::new(hour, minute, 0, 0).ok(),
    }
}

impl Clock {
    pub(crate) fn holds(&self, now: Moment) -> bool {
        let local = self.local(now);
        let (time, day) = (local.time(), local.weekday());
        let (open, day) = match self.between {
            None => (true, day),
            Some((from, to)) if from < to => (from <= time && time < to, day),
            // Over midnight, or all day round where both are the same.
            Some((from, _)) if from <= time => (true, day),
            Some((_, to)) => (time < to, day.previous()),
        };
        open && (self.weekdays.is_empty() || self.weekdays.contains(&day))
    }

    /// What time it is, for a person.
    pub(crate) fn is(&self, now: Moment) -> String {
        let local = self.local(now);
        let day = WEEKDAYS
            .iter()
            .find(|(_, day)| *day == local.weekday())
            .map_or("", |(name, _)| name);
        let zone = self.zone.iana_name().unwrap_or("UTC");
        format!("{day} {:02}:{:02} {zone}", local.hour(), local.minute())
    }

    fn local(&self, now: Moment) -> jiff::civil::DateTime {
        // A clock that is thousands of years off shows the end of its scale.
        let stamp = Timestamp::from_second(now.unix).unwrap_or(match now.unix < 0 {
            true => Timestamp::MIN,
            false => Timestamp::MAX,
        });
        self.zone.to_datetime(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(weekdays: &[Weekday], between: Option<(&str, &str)>, name: &str) -> Clock {
        Clock {
            weekdays: weekdays.to_vec(),
            between: between.map(|(from, to)| (time(from).unwrap(), time(to).unwrap())),
            zone: zone(name).unwrap(),
        }
    }

    fn at(text: &str) -> Moment {
        Moment {
            monotonic: 0,
            unix: text.parse::<Timestamp>().unwrap().as_second(),
        }
    }

    #[test]
    fn a_window_opens_at_its_beginning_and_closes_at_its_end() {
        let clock = clock(&[], Some(("09:00", "17:30")), "UTC");
        for (time, open) in [
            ("08:59:59", false),
            ("09:00:00", true),
            ("17:29:59", true),
            ("17:30:00", false),
        ] {
            let now = at(&format!("2026-01-05T{time}Z"));
            assert_eq!(clock.holds(now), open, "{time}");
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_began_on() {
        // The 5th of January 2026 is a Monday.
        let clock = clock(&[Weekday::Monday], Some(("22:00", "06:00")), "UTC");
        for (stamp, open) in [
            ("2026-01-05T03:00:00Z", false),
            ("2026-01-05T22:00:00Z", true),
            ("2026-01-06T05:59:00Z", true),
            ("2026-01-06T06:00:00Z", false),
            ("2026-01-06T23:00:00Z", false),
        ] {
            assert_eq!(clock.holds(at(stamp)), open, "{stamp}");
        }
    }

    #[test]
    fn a_zone_keeps_its_summer_time() {
        let clock = clock(&[], Some(("09:00", "10:00")), "Europe/Berlin");
        assert!(clock.holds(at("2026-01-05T08:30:00Z")));
        assert!(!clock.holds(at("2026-01-05T07:30:00Z")));
        assert!(clock.holds(at("2026-07-05T07:30:00Z")));
        assert!(!clock.holds(at("2026-07-05T08:30:00Z")));
        assert_eq!(
            clock.is(at("2026-07-05T07:30:00Z")),
            "sun 09:30 Europe/Berlin"
        );
    }

    #[test]
    fn a_day_ends_at_24_and_no_clock_is_too_far_off() {
        let evening = clock(&[], Some(("18:00", "24:00")), "UTC");
        assert!(evening.holds(at("2026-01-05T23:59:59Z")));
        assert!(!evening.holds(at("2026-01-06T00:00:00Z")));
        for unix in [i64::MIN, i64::MAX] {
            let _ = evening.holds(Moment { monotonic: 0, unix });
        }
    }

    #[test]
    fn a_time_of_day_is_two_digits_and_two() {
        for bad in [
            "9:00", "09:60", "25:00", "24:01", "0900", "09:00:00", "-1:00", "+9:00",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
