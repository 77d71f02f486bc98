//! The rule language: YAML as an operator writes it, to verdicts and masks.
//!
//! Pure: no I/O, no clock, no runtime. A caller loads a [`RuleSet`], narrows it
//! to one session with [`RuleSet::scope`], and asks [`Scope::decide`] for every
//! operation. What an operation *is* (which tables a statement reads, say) is
//! worked out elsewhere and handed in as [`operation::Operation`].

pub mod approval;
pub mod diagnostic;
pub mod explain;
pub mod mask;
mod matcher;
pub mod operation;
pub mod principal;
pub mod rule;
pub mod scope;
pub mod state;
pub mod target;
pub mod testing;
pub mod verdict;

pub use approval::{Approval, Hold, HoldMode};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use explain::Explanation;
pub use mask::{
    DetectPlan, DetectStream, Detector, Direction, Hidden, Hit, JsonFault, JsonMasker, Looks,
    MaskKey, Masked, Masks, Transform,
};
pub use operation::{HttpOperation, Operation, PgOperation, SshRequest};
pub use principal::Principal;
pub use rule::{Rule, RuleSet, RuleVerdict, Source};
pub use scope::{HttpNeeds, Scope};
pub use state::{Memory, Moment, Remembered, Standing};
pub use target::{DefaultVerdict, Protocol, Target};
pub use verdict::{Judgement, Limits, Permit, RecordLevel, Refusal, Verdict};

/// The JSON schema of rule files, for editors. What it accepts is not all
/// correct; [`RuleSet::load`] is the judge.
pub const SCHEMA: &str = include_str!("rule/schema.json");

/// Who acts, on what, in which protocol: what does not change in a session.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Who acts.
    pub principal: Principal,
    /// What is acted on.
    pub target: Target,
    /// In which protocol.
    pub protocol: Protocol,
}
