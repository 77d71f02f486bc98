//! Rules: YAML as written (private) to the checked form (public).
// Interface only, filled in next.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{Judgement, Operation, Subject};

/// One rule file, read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it was read from, for messages.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// All rules in force, checked.
#[derive(Debug)]
pub struct RuleSet {
    digest: String,
}

impl RuleSet {
    /// BLAKE3 over the files' names and texts, hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The rules that can apply to one session.
    #[must_use]
    pub fn scope(self: &Arc<Self>, subject: &Subject) -> Scope {
        Scope {
            rules: Arc::clone(self),
            subject: subject.clone(),
        }
    }
}

/// The rules that can apply to one session.
#[derive(Clone, Debug)]
pub struct Scope {
    rules: Arc<RuleSet>,
    subject: Subject,
}

impl Scope {
    /// Decides one operation.
    #[must_use]
    pub fn decide(&self, _operation: &Operation<'_>) -> Judgement {
        let _ = (&self.rules, &self.subject);
        unreachable!("interface only")
    }
}
