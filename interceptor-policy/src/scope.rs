//! The rules that can apply to one session, and what they decide.
//!
//! What does not change in a session is asked once, here; what is left for
//! every statement is a walk over the rules that can still apply, cheapest
//! question first, without an allocation but for the names of those that do.

use std::sync::{Arc, PoisonError, RwLock};

use crate::mask::Masks;
use crate::matcher::Mode;
use crate::operation::{Class, Classes, Output, Statement};
use crate::rule::{Match, Rule, RuleSet, RuleVerdict};
use crate::verdict::{RecordLevel, Severity};
use crate::{
    DefaultVerdict, Judgement, Limits, Moment, Operation, Permit, PgOperation, Protocol, Refusal,
    Standing, Subject, Verdict,
};

/// The rules that can apply to one session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scope {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rules: Arc<RuleSet>,
    subject: Subject,
    scoped: Vec<Scoped>,
    can_allow: bool,
    masks_possible: bool,
    text_dependent: bool,
    refused_by_default: Arc<str>,
    refused_unread: Arc<str>,
    /// United masks by the rules that give them: nearly always one entry.
    masks: RwLock<Vec<(Bits, Arc<Masks>)>>,
}

/// Most sets of masks that are kept; past it they are made anew.
const MASKS_KEPT: usize = 64;

/// A rule whose session part may hold.
#[derive(Debug)]
struct Scoped {
    rule: Arc<Rule>,
    tightens: bool,
    /// Whether it makes anything milder, and its session part must hold.
    loosens: bool,
    names_unclassified: bool,
    /// Whether the session part of `unless` may hold, and must.
    unless_may: bool,
    unless_must: bool,
}

/// A statement with its message.
type Asked<'o> = Option<(&'o PgOperation<'o>, &'o Statement)>;

/// What an empty query is judged as.
static NO_STATEMENT: Statement = Statement {
    tags: Vec::new(),
    classes: Classes::of(Class::Session),
    tables: Vec::new(),
    columns: Vec::new(),
    through: Vec::new(),
    unresolved: Vec::new(),
    predicates: Vec::new(),
    moves: Vec::new(),
    functions: Vec::new(),
    where_clause: None,
    writes_inside_read: false,
    output: Output::Nothing,
};

impl Scoped {
    fn new(rule: &Arc<Rule>, subject: &Subject) -> Option<Self> {
        if !rule.matches.session.holds(Mode::May, subject) {
            return None;
        }
        let unless = |mode| {
            rule.unless
                .as_ref()
                .is_some_and(|unless| unless.session.holds(mode, subject))
        };
        let scoped = Self {
            tightens: rule.tightens(),
            loosens: rule.loosens() && rule.matches.session.holds(Mode::Must, subject),
            names_unclassified: rule
                .matches
                .postgres
                .as_ref()
                .is_some_and(|postgres| postgres.names_unclassified()),
            unless_may: unless(Mode::May),
            unless_must: unless(Mode::Must),
            rule: Arc::clone(rule),
        };
        let excepted = scoped.unless_must && !asks_of_statements(rule.unless.as_ref());
        ((scoped.tightens || scoped.loosens) && !excepted).then_some(scoped)
    }

    /// Whether what is left to ask holds.
    fn holds(&self, mode: Mode, asked: Asked<'_>) -> bool {
        part_holds(&self.rule.matches, mode, asked)
            && !self.rule.unless.as_ref().is_some_and(|unless| {
                let mode = mode.flip();
                let session = match mode {
                    Mode::May => self.unless_may,
                    Mode::Must => self.unless_must,
                };
                session && part_holds(unless, mode, asked)
            })
    }

    /// Whether it holds for everything in this session.
    fn always(&self) -> bool {
        self.rule.matches.postgres.is_none() && !self.unless_may
    }
}

fn asks_of_statements(part: Option<&Match>) -> bool {
    part.is_some_and(|part| part.postgres.is_some())
}

/// The part of a match that asks of statements.
fn part_holds(part: &Match, mode: Mode, asked: Asked<'_>) -> bool {
    match (&part.postgres, asked) {
        (None, _) => true,
        (Some(postgres), Some((operation, statement))) => {
            postgres.holds(mode, operation, statement)
        }
        (Some(_), None) => false,
    }
}

impl Scope {
    pub(crate) fn new(rules: &Arc<RuleSet>, subject: &Subject) -> Self {
        let scoped: Vec<_> = rules
            .rules()
            .iter()
            .filter_map(|rule| Scoped::new(rule, subject))
            .collect();
        // Those that any operation of this session's protocol could meet.
        let in_reach = || {
            scoped.iter().filter(|scoped| {
                !scoped.rule.observe
                    && (subject.protocol == Protocol::Postgres
                        || scoped.rule.matches.postgres.is_none())
            })
        };
        let refuses = |scoped: &Scoped| scoped.rule.verdict > Some(RuleVerdict::Allow);
        let allows =
            |scoped: &Scoped| scoped.loosens && scoped.rule.verdict == Some(RuleVerdict::Allow);
        let can_allow = !in_reach().any(|s| refuses(s) && s.always())
            && (subject.target.default == DefaultVerdict::Allow || in_reach().any(allows));
        let masks_possible = in_reach().any(|scoped| scoped.rule.masks());
        let text_dependent = scoped.iter().any(|scoped| {
            [Some(&scoped.rule.matches), scoped.rule.unless.as_ref()]
                .into_iter()
                .flatten()
                .filter_map(|part| part.postgres.as_ref())
                .any(|postgres| postgres.looks_at_text())
        });
        Self {
            inner: Arc::new(Inner {
                rules: Arc::clone(rules),
                subject: subject.clone(),
                scoped,
                can_allow,
                masks_possible,
                text_dependent,
                refused_by_default: "no rule allows this".into(),
                refused_unread: "this statement could not be read, and no rule allows that".into(),
                masks: RwLock::default(),
            }),
        }
    }

    /// Decides one operation. Each statement of a message is judged by itself;
    /// the strictest verdict is the message's, and masks, points and records are
    /// united. A rule that applies to several statements counts once.
    #[must_use]
    pub fn decide(&self, operation: &Operation<'_>) -> Judgement {
        let mut sum = Sum::default();
        match operation {
            Operation::Postgres(postgres) if postgres.sql.statements.is_empty() => {
                self.add(
                    &mut sum,
                    Some((postgres, &NO_STATEMENT)),
                    DefaultVerdict::Allow,
                );
            }
            Operation::Postgres(postgres) => {
                for statement in &postgres.sql.statements {
                    let default = self.inner.subject.target.default;
                    self.add(&mut sum, Some((postgres, statement)), default);
                }
            }
            Operation::Opaque => self.add(&mut sum, None, self.inner.subject.target.default),
        }
        self.finish(sum)
    }

    /// As [`Scope::decide`], by what is remembered of the session and its
    /// principal, and remembers this exchange.
    #[must_use]
    pub fn judge(
        &self,
        operation: &Operation<'_>,
        standing: &mut Standing,
        now: Moment,
    ) -> Judgement {
        let _ = (standing, now);
        self.decide(operation)
    }

    /// As [`Scope::judge`], and remembers nothing: for what is judged again
    /// when it runs.
    #[must_use]
    pub fn preview(
        &self,
        operation: &Operation<'_>,
        standing: &Standing,
        now: Moment,
    ) -> Judgement {
        let _ = (standing, now);
        self.decide(operation)
    }

    /// Adds what the rules say to one statement.
    fn add(&self, sum: &mut Sum, asked: Asked<'_>, default: DefaultVerdict) {
        let unread = asked.is_some_and(|(_, statement)| {
            statement.classes.is_empty() || statement.classes.contains(Class::Unclassified)
        });
        let mut allowed = false;
        let mut refused: Option<(RuleVerdict, usize)> = None;
        let mut record: Option<RecordLevel> = None;
        for (index, scoped) in self.inner.scoped.iter().enumerate() {
            let rule = &*scoped.rule;
            let may = scoped.tightens && scoped.holds(Mode::May, asked);
            let must = scoped.loosens
                && (may || !scoped.tightens)
                && scoped.holds(Mode::Must, asked)
                // What could not be read is allowed only by who says so.
                && (rule.verdict != Some(RuleVerdict::Allow) || !unread || scoped.names_unclassified);
            if !(may || must) {
                continue;
            }
            if rule.observe {
                sum.observed.set(index);
                continue;
            }
            sum.applied.set(index);
            match rule.verdict {
                Some(RuleVerdict::Allow) => allowed |= must,
                Some(verdict) if refused.is_none_or(|(strictest, _)| verdict > strictest) => {
                    refused = Some((verdict, index));
                }
                _ => {}
            }
            match rule.record {
                Some(RecordLevel::Full) if may => record = Some(RecordLevel::Full),
                Some(level) if must => record = record.max(Some(level)),
                _ => {}
            }
            if may {
                if rule.masks() {
                    sum.masks.set(index);
                }
                if sum.counted.set(index) {
                    sum.risk = sum.risk.saturating_add(rule.risk);
                }
                sum.severity = sum.severity.max(rule.severity);
            }
        }
        sum.record = sum.record.max(Some(record.unwrap_or_default()));
        let outcome = match refused {
            Some((verdict, index)) => Some((verdict, Reason::Rule(index))),
            None if allowed => None,
            None if unread => Some((RuleVerdict::Block, Reason::Unread)),
            None if default == DefaultVerdict::Allow => None,
            None => Some((RuleVerdict::Block, Reason::Default)),
        };
        if let Some((verdict, reason)) = outcome {
            let stricter = match sum.refused {
                None => true,
                Some((so_far, why)) => {
                    verdict > so_far
                        || (verdict == so_far
                            && matches!(reason, Reason::Rule(_))
                            && !matches!(why, Reason::Rule(_)))
                }
            };
            if stricter {
                sum.refused = Some((verdict, reason));
            }
        }
    }

    fn finish(&self, sum: Sum) -> Judgement {
        let verdict = match sum.refused {
            None => Verdict::Allow(Permit(())),
            Some((verdict, reason)) => {
                let refusal = self.refusal(reason);
                match verdict {
                    RuleVerdict::Kill => Verdict::Kill(refusal),
                    RuleVerdict::Block | RuleVerdict::Allow => Verdict::Block(refusal),
                }
            }
        };
        let masks = match verdict {
            Verdict::Allow(_) if !sum.masks.is_empty() => Some(self.masks(sum.masks)),
            _ => None,
        };
        Judgement {
            verdict,
            masks,
            record: sum.record.unwrap_or_default(),
            limits: Limits::default(),
            risk: sum.risk,
            score: sum.risk,
            tags: Vec::new(),
            ban: None,
            applied: self.names(&sum.applied),
            observed: self.names(&sum.observed),
            severity: sum.severity,
        }
    }

    fn refusal(&self, reason: Reason) -> Refusal {
        let by_default = || Refusal {
            rule: None,
            message: Arc::clone(&self.inner.refused_by_default),
        };
        match reason {
            Reason::Default => by_default(),
            Reason::Unread => Refusal {
                rule: None,
                message: Arc::clone(&self.inner.refused_unread),
            },
            Reason::Rule(index) => self
                .inner
                .scoped
                .get(index)
                .map_or_else(by_default, |scoped| Refusal {
                    rule: Some(Arc::clone(&scoped.rule.name)),
                    message: Arc::clone(&scoped.rule.message),
                }),
        }
    }

    fn names(&self, bits: &Bits) -> Vec<Arc<str>> {
        let mut names = Vec::with_capacity(bits.count());
        for (index, scoped) in self.inner.scoped.iter().enumerate() {
            if bits.has(index) {
                names.push(Arc::clone(&scoped.rule.name));
            }
        }
        names
    }

    /// The united masks of some rules, made once.
    fn masks(&self, of: Bits) -> Arc<Masks> {
        let kept = self
            .inner
            .masks
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, masks)) = kept.iter().find(|(bits, _)| *bits == of) {
            return Arc::clone(masks);
        }
        drop(kept);
        let mut masks = Masks::default();
        for (index, scoped) in self.inner.scoped.iter().enumerate() {
            if of.has(index) {
                for entry in &scoped.rule.masks {
                    masks.add(entry);
                }
            }
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
        kept.push((of, Arc::clone(&masks)));
        masks
    }

    /// Whether any operation could be allowed in this session.
    #[must_use]
    pub fn can_allow(&self) -> bool {
        self.inner.can_allow
    }

    /// Whether any rule in scope masks; if not, no judgement carries masks.
    #[must_use]
    pub fn masks_possible(&self) -> bool {
        self.inner.masks_possible
    }

    /// Whether any rule in scope looks at a statement's text, so that a
    /// judgement of one text says nothing of another of the same shape.
    #[must_use]
    pub fn is_text_dependent(&self) -> bool {
        self.inner.text_dependent
    }

    /// Whose session it is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.inner.subject
    }

    /// The rules it was narrowed from.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.inner.rules
    }
}

/// What decided against it.
#[derive(Clone, Copy, Debug)]
enum Reason {
    /// A rule, by its place in the scope.
    Rule(usize),
    /// The target's default.
    Default,
    /// That it could not be read.
    Unread,
}

/// What the statements looked at so far came to.
#[derive(Debug, Default)]
struct Sum {
    refused: Option<(RuleVerdict, Reason)>,
    applied: Bits,
    observed: Bits,
    counted: Bits,
    masks: Bits,
    record: Option<RecordLevel>,
    risk: u32,
    severity: Option<Severity>,
}

/// A set of small numbers; the first 64 without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bits {
    first: u64,
    rest: Vec<u64>,
}

impl Bits {
    /// Adds one; whether it was not there.
    fn set(&mut self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        let word = match (index / 64).checked_sub(1) {
            None => &mut self.first,
            Some(at) => {
                if self.rest.len() <= at {
                    self.rest.resize(at + 1, 0);
                }
                match self.rest.get_mut(at) {
                    Some(word) => word,
                    None => return false,
                }
            }
        };
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    fn has(&self, index: usize) -> bool {
        let word = match (index / 64).checked_sub(1) {
            None => self.first,
            Some(at) => self.rest.get(at).copied().unwrap_or(0),
        };
        word & (1 << (index % 64)) != 0
    }

    fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.iter().all(|word| *word == 0)
    }

    fn count(&self) -> usize {
        let rest: u32 = self.rest.iter().map(|word| word.count_ones()).sum();
        (self.first.count_ones() + rest) as usize
    }
}
