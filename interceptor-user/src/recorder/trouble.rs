//! A time in which something does not take what is recorded: told to the log when it
//! is news, and to `alerts` when it is over.

use std::time::{Duration, Instant};

use interceptor_policy::verdict::Severity;
use serde_json::json;

use super::Alert;

/// How often the log says again what is wrong.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// Between tries, doubling from the first to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LAST_BACKOFF: Duration = Duration::from_secs(1);

/// What goes wrong, in the words of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Redis does not take what is sent.
    Redis,
    /// The spool does not take what is recorded.
    Spool,
}

/// Since when it goes wrong, and what was told of it.
pub(super) struct Trouble {
    what: What,
    since: Instant,
    told: Option<(Instant, String)>,
    faults: u64,
    backoff: Duration,
}

impl Trouble {
    pub(super) fn new(what: What) -> Self {
        Self {
            what,
            since: Instant::now(),
            told: None,
            faults: 0,
            backoff: FIRST_BACKOFF,
        }
    }

    /// How long to wait before the next try.
    pub(super) fn backoff(&mut self) -> Duration {
        let now = self.backoff;
        self.backoff = (now * 2).min(LAST_BACKOFF);
        now
    }

    /// To the operator's log, when it is news.
    pub(super) fn tell(&mut self, fault: &str, waiting_bytes: u64) {
        self.faults += 1;
        let news = self
            .told
            .as_ref()
            .is_none_or(|(at, text)| text != fault || at.elapsed() >= TELL_AGAIN);
        if !news {
            return;
        }
        match self.what {
            What::Redis => tracing::warn!(
                fault,
                waiting_bytes,
                "the recording does not reach Redis; it is in the spool, and sent again"
            ),
            What::Spool => tracing::error!(
                fault,
                waiting_bytes,
                "the spool takes nothing; sessions stop until it does"
            ),
        }
        self.told = Some((Instant::now(), fault.to_owned()));
    }

    /// That the recorder ends before it is over, for `alerts`.
    pub(super) fn unended(self) -> Alert {
        let seconds = self.since.elapsed().as_secs_f64();
        self.alert(
            seconds,
            format!(
                "the recording did not reach Redis for {seconds:.1} s when the daemon ended; \
                 what waited is sent by the next one"
            ),
        )
    }

    /// That it is over: to the log, and for `alerts`.
    pub(super) fn over(self) -> Alert {
        let seconds = self.since.elapsed().as_secs_f64();
        let line = match self.what {
            What::Redis => {
                tracing::info!(seconds, "the recording reaches Redis again");
                format!("the recording did not reach Redis for {seconds:.1} s; nothing was lost")
            }
            What::Spool => {
                tracing::info!(seconds, "the spool takes what is recorded again");
                format!("the spool took nothing for {seconds:.1} s")
            }
        };
        self.alert(seconds, line)
    }

    fn alert(self, seconds: f64, line: String) -> Alert {
        let fault = self.told.map(|(_, text)| text).unwrap_or_default();
        Alert {
            severity: Severity::High,
            kind: "recorder",
            line,
            meta: json!({ "fault": fault, "seconds": seconds, "tries": self.faults }).to_string(),
        }
    }
}
