//! Times of the calendar as people write them, and the time between two of them.

use std::time::{SystemTime, UNIX_EPOCH};

use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, Time};

use crate::config::units;

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const TO_THE_MINUTE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]");
const TO_THE_SECOND: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// A moment, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) u64);

/// The time that is looked at; flattened into the commands that look at some.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Window {
    /// From then on: `7d` or `2h` ago, a date, or a time as 2026-11-30T08:00:00Z (in UTC where no zone is said)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(super) since: Option<Moment>,
    /// Until then; a date is meant with its whole day
    #[arg(long, value_name = "TIME", value_parser = until)]
    pub(super) until: Option<Moment>,
}

impl Window {
    /// Whether something that began and ended then was at least partly inside.
    pub(super) fn touches(&self, began: Moment, ended: Option<Moment>) -> bool {
        self.until.is_none_or(|until| began <= until)
            && self
                .since
                .is_none_or(|since| ended.is_none_or(|ended| ended >= since))
    }

    /// Whether this moment is inside.
    pub(super) fn holds(&self, moment: Moment) -> bool {
        self.touches(moment, Some(moment))
    }

    /// An error where nothing can be inside.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            return Err(super::Misused::say("--since is later than --until"));
        }
        Ok(())
    }
}

/// A moment, or the first one of a day.
pub(super) fn since(text: &str) -> Result<Moment, String> {
    read(text, Time::MIDNIGHT)
}

/// A moment, or the last one of a day.
pub(super) fn until(text: &str) -> Result<Moment, String> {
    read(text, Time::MAX)
}

fn read(text: &str, of_day: Time) -> Result<Moment, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "{text:?} is not a time: how long ago (`30m`, `2h`, `7d`), a date (`2026-11-30`) or a \
             time (`2026-11-30T08:00:00Z`)"
        )
    };
    if let Some(ago) = units::duration(text) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let then = now.unwrap_or_default().saturating_sub(ago);
        return Ok(Moment(u64::try_from(then.as_millis()).unwrap_or(u64::MAX)));
    }
    let plain = text.replacen(['T', 't'], " ", 1);
    let moment = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| Date::parse(text, DATE).map(|date| date.with_time(of_day).assume_utc()))
        .or_else(|_| PrimitiveDateTime::parse(&plain, TO_THE_SECOND).map(|it| it.assume_utc()))
        .or_else(|_| PrimitiveDateTime::parse(&plain, TO_THE_MINUTE).map(|it| it.assume_utc()))
        .map_err(|_| wrong())?;
    let since_1970 = moment - OffsetDateTime::UNIX_EPOCH;
    if since_1970 < Duration::ZERO {
        return Err(wrong());
    }
    u64::try_from(since_1970.whole_milliseconds())
        .map(Moment)
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let day = 1_796_000_000_000 / 86_400_000 * 86_400_000;
        let date = OffsetDateTime::from_unix_timestamp(day / 1000).unwrap();
        let date = date.date().to_string();
        let day = u64::try_from(day).unwrap();
        assert_eq!(since(&date), Ok(Moment(day)));
        assert_eq!(until(&date), Ok(Moment(day + 86_399_999)));
        for text in [
            format!("{date}T02:00:00Z"),
            format!("{date}T04:00:00+02:00"),
            format!("{date} 02:00:00"),
            format!("{date}T02:00"),
            format!("{date} 02:00"),
        ] {
            assert_eq!(since(&text), Ok(Moment(day + 7_200_000)), "{text}");
        }
        let (old, new) = (since("2h").unwrap(), since("1h").unwrap());
        assert!(new.0 - old.0 >= 3_599_000 && new.0 - old.0 <= 3_601_000);
    }

    #[test]
    fn what_is_no_time_is_told_with_what_would_be() {
        for text in ["", "x", "7", "2026-13-01", "1969-01-01", "7w", "25:00"] {
            let error = since(text).unwrap_err();
            assert!(error.contains("2026-11-30"), "{text}: {error}");
        }
    }

    #[test]
    fn a_window_holds_what_touches_it() {
        let window = Window {
            since: Some(Moment(10)),
            until: Some(Moment(20)),
        };
        assert!(window.touches(Moment(5), None));
        assert!(window.touches(Moment(5), Some(Moment(10))));
        assert!(!window.touches(Moment(5), Some(Moment(9))));
        assert!(window.touches(Moment(20), None));
        assert!(!window.touches(Moment(21), None));
        assert!(!window.holds(Moment(9)) && window.holds(Moment(15)));
    }
}
