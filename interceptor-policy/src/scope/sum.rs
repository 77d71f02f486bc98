//! What the rules that apply come to, a statement at a time.

use std::sync::Arc;
use std::time::Duration;

use super::Found;
use super::bits::Bits;
use super::scoped::{Scoped, Settled};
use crate::matcher::expression::Fault;
use crate::rule::{Rule, RuleVerdict, Threshold};
use crate::verdict::{Limits, RecordLevel, Severity};
use crate::{DefaultVerdict, Refusal};

/// What decided against it.
#[derive(Clone, Debug)]
pub(super) enum Reason {
    /// A rule, by its place in the scope.
    Rule(usize),
    /// A risk threshold, by its place among them.
    Threshold(usize),
    /// The target's default.
    Default,
    /// That it could not be read.
    Unread,
    /// Something else, in words.
    Said(Refusal),
}

impl Reason {
    fn said_by(rule: &Rule, why: impl Into<Arc<str>>) -> Self {
        Self::Said(Refusal {
            rule: Some(Arc::clone(&rule.name)),
            message: why.into(),
        })
    }
}

/// What the statements looked at so far came to.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) refused: Option<(RuleVerdict, Reason)>,
    pub(super) applied: Bits,
    pub(super) observed: Bits,
    /// Rules that asked for a person, and thresholds that did.
    pub(super) holds: Bits,
    pub(super) threshold_holds: Bits,
    pub(super) masks: Bits,
    pub(super) tags: Bits,
    /// Rules whose rates count this exchange: of the match, of the `unless`.
    pub(super) counts: Bits,
    pub(super) unless_counts: Bits,
    stricter: Bits,
    pub(super) record: Option<RecordLevel>,
    pub(super) limits: Limits,
    pub(super) risk: u32,
    pub(super) ban: Option<Duration>,
    pub(super) severity: Option<Severity>,
}

/// One statement's part of it.
#[derive(Debug, Default)]
pub(super) struct Part {
    allowed: bool,
    refused: Option<(RuleVerdict, usize)>,
    record: Option<RecordLevel>,
}

impl Sum {
    /// One rule, settled for one statement. `unread`: the statement could not be.
    pub(super) fn add(
        &mut self,
        part: &mut Part,
        index: usize,
        scoped: &Scoped,
        settled: Settled,
        unread: bool,
    ) {
        let rule = &*scoped.rule;
        let Settled { may, must, .. } = settled;
        if settled.counts {
            self.counts.set(index);
        }
        if settled.unless_counts {
            self.unless_counts.set(index);
        }
        if settled.undecided {
            // It may yet allow; what it may yet refuse is not refused yet.
            part.allowed |= rule.verdict == Some(RuleVerdict::Allow) && !rule.observe;
            return;
        }
        if let Some(fault) = settled.fault {
            self.faulty(index, rule, fault);
            return;
        }
        if !(may || must || settled.unresolved) {
            return;
        }
        if rule.observe {
            self.observed.set(index);
            return;
        }
        self.applied.set(index);
        if settled.unresolved {
            let why = "the catalog does not say which tables this is about";
            self.object(RuleVerdict::Block, Reason::said_by(rule, why));
        }
        if settled.predicate {
            let why = "a masked column would choose which rows there are, and so show";
            self.object(RuleVerdict::Block, Reason::said_by(rule, why));
        }
        match rule.verdict {
            Some(RuleVerdict::Allow) => part.allowed |= must,
            // A person may let pass what nobody could read only where the rule
            // says so, as a rule that allows.
            Some(RuleVerdict::Hold) if unread && !scoped.names_unclassified => {}
            Some(verdict) if may => {
                if verdict == RuleVerdict::Hold {
                    self.holds.set(index);
                }
                self.ban = self.ban.max(rule.ban);
                if part
                    .refused
                    .is_none_or(|(strictest, _)| verdict > strictest)
                {
                    part.refused = Some((verdict, index));
                }
            }
            _ => {}
        }
        match rule.record {
            Some(RecordLevel::Full) if may => part.record = Some(RecordLevel::Full),
            Some(level) if must => part.record = part.record.max(Some(level)),
            _ => {}
        }
        if may && self.stricter.set(index) {
            if rule.masks() {
                self.masks.set(index);
            }
            if !rule.tags.is_empty() {
                self.tags.set(index);
            }
            self.limits = self.limits.unite(rule.limits);
            self.risk = self.risk.saturating_add(rule.risk);
            self.severity = self.severity.max(rule.severity);
        }
    }

    /// A rule of which nobody can say whether it applies: it blocks.
    fn faulty(&mut self, index: usize, rule: &Rule, fault: Fault) {
        if rule.observe {
            self.observed.set(index);
            return;
        }
        self.applied.set(index);
        let why = format!("rule {} could not be evaluated: {fault}", rule.name);
        self.object(RuleVerdict::Block, Reason::said_by(rule, why));
    }

    /// A statement's end: what no rule decided, the default does.
    /// Of what only follows a request, the request's record is as complete as it
    /// was, where no rule says more.
    pub(super) fn close(&mut self, part: Part, found: &Found) {
        let Found {
            unread,
            default,
            follows,
            ..
        } = *found;
        let level = match follows {
            true => RecordLevel::Metadata,
            false => RecordLevel::default(),
        };
        self.record = self.record.max(Some(part.record.unwrap_or(level)));
        match part.refused {
            Some((verdict, index)) => self.object(verdict, Reason::Rule(index)),
            None if part.allowed => {}
            None if unread => self.object(RuleVerdict::Block, Reason::Unread),
            None if default == DefaultVerdict::Allow => {}
            None => self.object(RuleVerdict::Block, Reason::Default),
        }
    }

    /// What a score leads to; of thresholds at or below `settled` it was decided
    /// before.
    pub(super) fn score(&mut self, score: u32, settled: Option<u32>, thresholds: &[Threshold]) {
        for (index, threshold) in thresholds.iter().enumerate() {
            if threshold.at > score {
                break;
            }
            if settled.is_some_and(|settled| threshold.at <= settled) {
                continue;
            }
            if threshold.verdict == RuleVerdict::Hold {
                self.threshold_holds.set(index);
            }
            self.ban = self.ban.max(threshold.ban);
            self.object(threshold.verdict, Reason::Threshold(index));
        }
    }

    /// Something against it. Of two that are as strict the first stays, but a
    /// rule says more than that there was none.
    pub(super) fn object(&mut self, verdict: RuleVerdict, reason: Reason) {
        let names = |reason: &Reason| !matches!(reason, Reason::Default | Reason::Unread);
        let stricter = match &self.refused {
            None => true,
            Some((so_far, why)) => {
                verdict > *so_far || (verdict == *so_far && names(&reason) && !names(why))
            }
        };
        if stricter {
            self.refused = Some((verdict, reason));
        }
    }
}

impl Refusal {
    /// One that no rule gives.
    pub(super) fn said(message: impl Into<Arc<str>>) -> Self {
        Self {
            rule: None,
            message: message.into(),
        }
    }
}
