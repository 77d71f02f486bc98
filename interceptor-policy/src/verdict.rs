//! What the rule set decided.

use std::sync::Arc;

use crate::mask::Masks;

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

/// A verdict with everything else that the applying rules ask for.
#[derive(Debug)]
pub struct Judgement {
    /// What to do.
    pub verdict: Verdict,
    /// What to hide in the answer; `None` where no mask can apply.
    pub masks: Option<Arc<Masks>>,
    /// How much to record.
    pub record: RecordLevel,
    /// Risk points to add.
    pub risk: u32,
    /// Names of the rules that applied, in file order; observing ones are named
    /// in `observed`.
    pub applied: Vec<Arc<str>>,
    /// Rules in `mode: observe` that would have applied.
    pub observed: Vec<Arc<str>>,
    /// Severity of the alert, where a rule gives one.
    pub severity: Option<Severity>,
}
