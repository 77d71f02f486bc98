//! What a sum is said as: a verdict with its permit, and everything beside it.

use std::sync::{Arc, PoisonError};

use super::Scope;
use super::bits::Bits;
use super::scoped::Scoped;
use super::sum::{Reason, Sum};
use crate::approval::Hold;
use crate::mask::Masks;
use crate::rule::RuleVerdict;
use crate::{Approval, Judgement, Limits, Permit, Refusal, Verdict};

/// Most sets of masks that are kept; past it they are made anew.
const MASKS_KEPT: usize = 64;

impl Scope {
    pub(super) fn judgement(&self, sum: &Sum, score: u32) -> Judgement {
        let verdict = match &sum.refused {
            None => Verdict::Allow(Permit(())),
            Some((verdict, reason)) => {
                let refusal = self.refusal(reason);
                match verdict {
                    RuleVerdict::Kill => Verdict::Kill(refusal),
                    RuleVerdict::Hold => match self.approval(sum) {
                        Some(approval) => Verdict::Hold(Hold::new(refusal, approval)),
                        // Nobody to ask: never, and refused if it were.
                        None => Verdict::Block(refusal),
                    },
                    RuleVerdict::Block | RuleVerdict::Allow => Verdict::Block(refusal),
                }
            }
        };
        let passes = matches!(verdict, Verdict::Allow(_) | Verdict::Hold(_));
        let kills = matches!(verdict, Verdict::Kill(_));
        Judgement {
            masks: (passes && !sum.masks.is_empty()).then(|| self.masks(&sum.masks)),
            record: sum.record.unwrap_or_default(),
            limits: if passes {
                sum.limits
            } else {
                Limits::default()
            },
            risk: sum.risk,
            score,
            tags: if passes {
                self.tags(&sum.tags)
            } else {
                Vec::new()
            },
            ban: sum.ban.filter(|_| kills),
            applied: self.names(&sum.applied),
            observed: self.names(&sum.observed),
            severity: sum.severity,
            verdict,
        }
    }

    /// What all that holds asks for.
    fn approval(&self, sum: &Sum) -> Option<Arc<Approval>> {
        let rules = self
            .of(&sum.holds)
            .filter_map(|scoped| scoped.rule.approval.as_ref());
        let thresholds = &self.inner.rules.risk().thresholds;
        let thresholds = sum
            .threshold_holds
            .iter()
            .filter_map(|index| thresholds.get(index)?.approval.as_ref());
        let mut asked = rules.chain(thresholds);
        let mut all = Arc::clone(asked.next()?);
        for more in asked {
            Arc::make_mut(&mut all).unite(more);
        }
        Some(all)
    }

    fn refusal(&self, reason: &Reason) -> Refusal {
        let by_default = || Refusal::said(Arc::clone(&self.inner.refused_by_default));
        match reason {
            Reason::Default => by_default(),
            Reason::Unread => Refusal::said(Arc::clone(&self.inner.refused_unread)),
            Reason::Said(refusal) => refusal.clone(),
            Reason::Threshold(index) => self.inner.rules.risk().thresholds.get(*index).map_or_else(
                by_default,
                |threshold| Refusal {
                    rule: Some(Arc::clone(&threshold.name)),
                    message: Arc::clone(&threshold.message),
                },
            ),
            Reason::Rule(index) => self
                .scoped(*index)
                .map_or_else(by_default, |scoped| Refusal {
                    rule: Some(Arc::clone(&scoped.rule.name)),
                    message: Arc::clone(&scoped.rule.message),
                }),
        }
    }

    fn tags(&self, of: &Bits) -> Vec<Arc<str>> {
        let mut tags: Vec<Arc<str>> = Vec::new();
        for tag in self.of(of).flat_map(|scoped| &scoped.rule.tags) {
            if !tags.contains(tag) {
                tags.push(Arc::clone(tag));
            }
        }
        tags
    }

    /// The rules of a set, in the order of files and lines.
    pub(super) fn of(&self, bits: &Bits) -> impl Iterator<Item = &Scoped> {
        bits.iter().filter_map(|index| self.scoped(index))
    }

    fn names(&self, bits: &Bits) -> Vec<Arc<str>> {
        self.of(bits)
            .map(|scoped| Arc::clone(&scoped.rule.name))
            .collect()
    }

    /// The united masks of some rules, made once.
    fn masks(&self, of: &Bits) -> Arc<Masks> {
        let kept = self
            .inner
            .masks
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, masks)) = kept.iter().find(|(bits, _)| bits == of) {
            return Arc::clone(masks);
        }
        drop(kept);
        let mut masks = Masks::default();
        for entry in self.of(of).flat_map(|scoped| &scoped.rule.masks) {
            masks.add(entry);
        }
        let masks = Arc::new(masks);
        let mut kept = self
            .inner
            .masks
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MASKS_KEPT {
            kept.clear();
        }
        kept.push((of.clone(), Arc::clone(&masks)));
        masks
    }
}
