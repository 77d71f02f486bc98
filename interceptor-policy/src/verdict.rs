//! What the rule set decided.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::approval::Hold;
use crate::mask::Masks;
use crate::rule::spoken;

/// Proof of an allowing verdict, spent to forward. Only this crate makes one.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit is spent by forwarding what it permits"]
pub struct Permit(pub(crate) ());

/// The verdict alone; the strictest of the rules that apply.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a verdict does nothing until the engine acts on it"]
pub enum Verdict {
    /// Forward.
    Allow(Permit),
    /// Keep it back, and ask a person.
    Hold(Hold),
    /// Refuse this exchange; the session goes on.
    Block(Refusal),
    /// End the session.
    Kill(Refusal),
}

/// Why something is refused, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that refused, or `None` where the target's default did.
    pub rule: Option<Arc<str>>,
    /// The rule's message, or one that says what decided.
    pub message: Arc<str>,
}

impl Refusal {
    /// The message, and behind it the rule where the message does not name it.
    #[must_use]
    pub fn told(&self) -> Arc<str> {
        match self.unnamed_rule() {
            Some(rule) => format!("{} (rule {rule})", self.message).into(),
            None => Arc::clone(&self.message),
        }
    }

    /// The rule, where the message does not name it: the one that a rule without a
    /// message gets does.
    #[must_use]
    pub fn unnamed_rule(&self) -> Option<&Arc<str>> {
        let rule = self.rule.as_ref()?;
        let named = format!("rule {rule}");
        let is_whole = |at: usize| {
            let rest = self.message.get(at + named.len()..).unwrap_or_default();
            let longer = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
            !rest.starts_with(longer)
        };
        let mut places = self.message.match_indices(&*named);
        (!places.any(|(at, _)| is_whole(at))).then_some(rule)
    }
}

/// How much of an exchange is recorded; the most complete of the rules that apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordLevel {
    /// That it took place: tags, classes, counts, times.
    Metadata,
    /// And the commands.
    Commands,
    /// And the results, in full.
    #[default]
    Full,
}

impl RecordLevel {
    /// The name that rules and records use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Commands => "commands",
            Self::Full => "full",
        }
    }
}

/// How bad the alert is that a verdict raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For the record.
    Info,
    /// Worth a look some day.
    Low,
    /// Worth a look.
    Medium,
    /// Worth a look now.
    High,
    /// Wake somebody.
    Critical,
}

impl Severity {
    /// The name that rules and records use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// How big an answer may get, and how long it may take: the smallest of the
/// rules that apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Rows of one exchange.
    pub rows: Option<u64>,
    /// Bytes of one exchange's answer, as the agent gets them.
    pub bytes: Option<u64>,
    /// From forwarding the command to the end of its answer.
    pub duration: Option<Duration>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_none() && self.bytes.is_none() && self.duration.is_none()
    }

    /// The smaller of each.
    #[must_use]
    pub fn unite(self, other: Self) -> Self {
        fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            rows: smaller(self.rows, other.rows),
            bytes: smaller(self.bytes, other.bytes),
            duration: smaller(self.duration, other.duration),
        }
    }
}

impl fmt::Display for Limits {
    /// In one line; empty where nothing is limited.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.rows.map(|rows| format!("{rows} rows")),
            self.bytes.map(|bytes| format!("{bytes} bytes")),
            self.duration.map(spoken),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

/// A verdict with everything else that the applying rules ask for.
#[derive(Debug)]
pub struct Judgement {
    /// What to do.
    pub verdict: Verdict,
    /// What to hide in the answer; `None` where no mask can apply.
    pub masks: Option<Arc<Masks>>,
    /// How much to record.
    pub record: RecordLevel,
    /// What the answer may come to, where it is let pass.
    pub limits: Limits,
    /// Risk points that this exchange adds.
    pub risk: u32,
    /// The principal's score with them, rounded.
    pub score: u32,
    /// Tags that this exchange leaves.
    pub tags: Vec<Arc<str>>,
    /// With `kill`: for how long the principal may open no session.
    pub ban: Option<Duration>,
    /// Names of the rules that applied, in file order; observing ones are named
    /// in `observed`.
    pub applied: Vec<Arc<str>>,
    /// Rules in `mode: observe` that would have applied.
    pub observed: Vec<Arc<str>>,
    /// Severity of the alert, where a rule gives one.
    pub severity: Option<Severity>,
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[test]
    fn a_refusal_names_its_rule_once() {
        for (rule, message, told) in [
            (Some("a"), "no", "no (rule a)"),
            (Some("a"), "refused by rule a", "refused by rule a"),
            (
                Some("a"),
                "denied by ann: rule a asks a person first",
                "denied by ann: rule a asks a person first",
            ),
            (Some("a"), "see rule a-b", "see rule a-b (rule a)"),
            (Some("a"), "see rule ab, rule a", "see rule ab, rule a"),
            (Some("ä"), "rule ä", "rule ä"),
            (None, "no", "no"),
        ] {
            let refusal = Refusal {
                rule: rule.map(Into::into),
                message: message.into(),
            };
            assert_eq!(&*refusal.told(), told);
        }
    }
}
