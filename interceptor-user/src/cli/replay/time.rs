//! Times as people write them.

use std::time::Duration;

use anyhow::bail;
use interceptor_engine::event::FlowTime;

/// A limit in seconds; none where it is infinite.
pub(super) fn seconds(limit: f64) -> anyhow::Result<Option<Duration>> {
    match Duration::try_from_secs_f64(limit) {
        Ok(limit) => Ok(Some(limit)),
        Err(_) if limit.is_infinite() && limit > 0.0 => Ok(None),
        Err(_) => bail!("--idle-limit is a number of seconds, not below zero"),
    }
}

/// `90`, `90s`, `1m30s`, `1h`, `01:30`, `00:01:30`.
pub(super) fn time_of(text: &str) -> Result<FlowTime, String> {
    let wrong = || format!("{text:?} is not a time: seconds, `90s`, `1m30s` or `00:01:30`");
    let number = |part: &str| match part.parse::<f64>() {
        Ok(value) if value >= 0.0 => Ok(value),
        _ => Err(wrong()),
    };
    let mut total = 0.0;
    if text.contains(':') {
        for part in text.split(':') {
            total = total * 60.0 + number(part)?;
        }
    } else {
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| c.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            let (value, after) = rest.split_at_checked(end).ok_or_else(wrong)?;
            let value = number(value)?;
            let unit = after.chars().next();
            total += value
                * match unit {
                    None | Some('s') => 1.0,
                    Some('m') => 60.0,
                    Some('h') => 3600.0,
                    Some(_) => return Err(wrong()),
                };
            rest = after.get(1..).unwrap_or_default();
        }
    }
    let time = Duration::try_from_secs_f64(total).map_err(|_| wrong())?;
    Ok(FlowTime(
        u64::try_from(time.as_micros()).map_err(|_| wrong())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90", 90.0),
            ("90s", 90.0),
            ("1.5", 1.5),
            ("1m30s", 90.0),
            ("1h", 3600.0),
            ("01:30", 90.0),
            ("00:01:30", 90.0),
        ] {
            let time = time_of(text).unwrap();
            assert!((time.0 as f64 / 1e6 - seconds).abs() < 1e-6, "{text}");
        }
        for text in ["x", "1x", "-1", "1m-30s", "1:-30", "::", "m"] {
            assert!(time_of(text).is_err(), "{text}");
        }
    }
}
