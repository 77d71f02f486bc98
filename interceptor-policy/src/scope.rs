//! The rules that can apply to one session, and what they decide.
// Interface only, filled in next.

use std::sync::Arc;

use crate::rule::RuleSet;
use crate::{Judgement, Operation, Subject};

/// The rules that can apply to one session.
#[derive(Clone, Debug)]
pub struct Scope {
    rules: Arc<RuleSet>,
    subject: Subject,
}

/// Why a rule did or did not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The rule.
    pub rule: Arc<str>,
    /// Whether it applied.
    pub applied: bool,
    /// Why, or why not.
    pub because: String,
}

impl Scope {
    pub(crate) fn new(rules: &Arc<RuleSet>, subject: &Subject) -> Self {
        Self {
            rules: Arc::clone(rules),
            subject: subject.clone(),
        }
    }

    /// Decides one operation.
    #[must_use]
    pub fn decide(&self, _operation: &Operation<'_>) -> Judgement {
        let _ = (&self.rules, &self.subject);
        unreachable!("interface only")
    }

    /// What every rule of the set has to say to an operation.
    #[must_use]
    pub fn explain(&self, _operation: &Operation<'_>) -> Vec<Explanation> {
        Vec::new()
    }

    /// Whether any operation could be allowed in this session.
    #[must_use]
    pub fn can_allow(&self) -> bool {
        true
    }

    /// Whether any rule in scope masks; if not, no judgement carries masks.
    #[must_use]
    pub fn masks_possible(&self) -> bool {
        true
    }

    /// Whether any rule in scope looks at a statement's text, so that a
    /// judgement of one text says nothing of another of the same shape.
    #[must_use]
    pub fn is_text_dependent(&self) -> bool {
        true
    }

    /// Whose session it is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The rules it was narrowed from.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }
}
