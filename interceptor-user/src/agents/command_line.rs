//! A process's arguments, as they may stand on record.
//!
//! Rules look at the arguments as the kernel shows them. A record is read by more
//! people than may know what an agent was started with, so what looks like a secret
//! there, or stands behind an option that announces one, is not in it.

use std::sync::OnceLock;

use interceptor_engine::secret_name::is_secret_name;
use interceptor_policy::MaskKey;
use interceptor_policy::mask::DetectPlan;

/// What stands for what is not shown.
const HIDDEN: &str = "[redacted]";

/// The arguments, joined by blanks, without what looks like a secret.
#[must_use]
pub fn recordable(line: &str) -> String {
    static SECRETS: OnceLock<DetectPlan> = OnceLock::new();
    let secrets = SECRETS.get_or_init(DetectPlan::secrets);
    // A fixed text takes their place, so there is no key to know.
    let line = match secrets.hide(line.as_bytes(), &MaskKey([0; 32])) {
        Some((hidden, _)) => String::from_utf8_lossy(&hidden).into_owned(),
        None => line.to_owned(),
    };
    let mut next_is_secret = false;
    let mut next_is_pair = false;
    let words = line.split(' ').map(|word| {
        if std::mem::take(&mut next_is_secret) {
            return HIDDEN.to_owned();
        }
        if std::mem::take(&mut next_is_pair)
            && let Some((name, _)) = word.split_once(':')
        {
            return format!("{name}:{HIDDEN}");
        }
        let option = word.starts_with('-').then(|| word.trim_start_matches('-'));
        match (word.split_once('='), option) {
            (Some((name, value)), _) if !value.is_empty() && is_secret_name(name) => {
                format!("{name}={HIDDEN}")
            }
            (None, Some(name)) => {
                next_is_secret = is_secret_name(name);
                next_is_pair = matches!(name, "u" | "user" | "proxy-user");
                word.to_owned()
            }
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_one_in_is_not_shown() {
        let cases = [
            ("psql -h db -U app orders", "psql -h db -U app orders"),
            (
                "tool --password hunter2 run",
                "tool --password [redacted] run",
            ),
            ("tool --api-key=abc", "tool --api-key=[redacted]"),
            (
                "env DB_PASSWORD=hunter2 tool",
                "env DB_PASSWORD=[redacted] tool",
            ),
            (
                "curl -u me:hunter2 https://x",
                "curl -u me:[redacted] https://x",
            ),
            ("tool --token-file /run/x", "tool --token-file [redacted]"),
        ];
        for (line, shown) in cases {
            assert_eq!(recordable(line), shown);
        }
        for line in [
            "psql postgres://me:hunter2@db/orders",
            "curl -H Authorization: Bearer hunter2hunter2hunter2",
            "tool AKIAIOSFODNN7EXAMPLE hunter2=1 --secret hunter2",
        ] {
            let shown = recordable(line);
            assert!(shown.contains(HIDDEN), "{shown}");
            assert!(!shown.contains("hunter2@"), "{shown}");
            assert!(!shown.contains("AKIAIOSFODNN7"), "{shown}");
        }
    }
}
