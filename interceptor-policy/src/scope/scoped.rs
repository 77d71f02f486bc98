//! A rule in a scope, and the question whether it applies, in two parts: what a
//! statement says of itself, which never changes, and the circumstances, which
//! may at every exchange.

use std::sync::Arc;

use crate::matcher::Mode;
use crate::matcher::circumstances::Circumstances;
use crate::matcher::expression::Fault;
use crate::operation::Statement;
use crate::rule::{Match, Rule, RuleVerdict};
use crate::{PgOperation, Subject};

/// A statement with its message.
pub(super) type Asked<'o> = Option<(&'o PgOperation<'o>, &'o Statement)>;

/// A rule whose session part may hold.
#[derive(Debug)]
pub(super) struct Scoped {
    pub(super) rule: Arc<Rule>,
    tightens: bool,
    /// Whether it makes anything milder, and its session part must hold.
    pub(super) loosens: bool,
    pub(super) names_unclassified: bool,
    /// Whether the session part of `unless` may hold, and must.
    unless_may: bool,
    unless_must: bool,
    /// Whether its match or its `unless` asks for circumstances.
    pub(super) circumstantial: bool,
    /// Whether another rule asks whether this one applied.
    pub(super) traced: bool,
}

/// A rule that applies to a statement, by all that the statement says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// Its place in the scope.
    pub(super) index: usize,
    /// Whether what makes it stricter applies, and what makes it milder.
    may: bool,
    must: bool,
    /// Whether its `unless` would hold against either, if the circumstances do.
    except_may: bool,
    except_must: bool,
    /// Whether it blocks since its names may be what nobody could resolve, and
    /// whether its `unless` would hold against that.
    unresolved: bool,
    except_unresolved: bool,
    /// Whether it blocks, if it applies, for a masked column that chooses rows.
    predicate: bool,
}

/// How a hit is settled by the circumstances.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settled {
    pub(super) may: bool,
    pub(super) must: bool,
    /// What it blocks for beside its verdict.
    pub(super) unresolved: bool,
    pub(super) predicate: bool,
    /// Whether the rates of its match and its `unless` count this exchange.
    pub(super) counts: bool,
    pub(super) unless_counts: bool,
    /// Why it could not be settled.
    pub(super) fault: Option<Fault>,
}

impl Settled {
    fn fault(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::default()
        }
    }
}

impl Scoped {
    pub(super) fn new(rule: &Arc<Rule>, subject: &Subject, traced: bool) -> Option<Self> {
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
            circumstantial: parts(rule).any(|part| !part.circumstances.is_empty()),
            traced,
            rule: Arc::clone(rule),
        };
        let session_only = rule
            .unless
            .as_ref()
            .is_some_and(|unless| unless.postgres.is_none() && unless.circumstances.is_empty());
        let excepted = scoped.unless_must && session_only;
        ((scoped.tightens || scoped.loosens || rule.unresolved) && !excepted).then_some(scoped)
    }

    /// Whether it applies, by all that the statement says of itself.
    pub(super) fn hit(&self, index: usize, asked: Asked<'_>, unread: bool) -> Option<Hit> {
        let (may, except_may) = self.in_mode(self.tightens, Mode::May, asked);
        // What could not be read is allowed only by who says so.
        let readable =
            !unread || self.names_unclassified || self.rule.verdict != Some(RuleVerdict::Allow);
        let loosens = self.loosens && (may || !self.tightens) && readable;
        let (must, except_must) = self.in_mode(loosens, Mode::Must, asked);
        let (unresolved, except_unresolved) = match asked {
            Some((operation, statement)) if self.rule.unresolved => {
                let settled = operation.sql.resolved || statement.tables.is_empty();
                let unsettled = !settled || !statement.unresolved.is_empty();
                let matches = &self.rule.matches.postgres;
                let elsewhere = unsettled
                    && matches
                        .as_ref()
                        .is_none_or(|postgres| postgres.may_hold_elsewhere(operation, statement));
                self.unless_excepted(elsewhere, Mode::May, asked)
            }
            _ => (false, false),
        };
        let predicate = may
            && self.rule.masked_in_predicate
            && asked.is_some_and(|(_, statement)| {
                let masks = &self.rule.masks;
                let mut predicates = statement.predicates.iter();
                predicates.any(|column| masks.iter().any(|mask| mask.may_hide(column)))
            });
        (may || must || unresolved).then_some(Hit {
            index,
            may,
            must,
            except_may,
            except_must,
            unresolved,
            except_unresolved,
            predicate,
        })
    }

    /// Whether the match holds, and whether the `unless` may yet hold against it.
    fn in_mode(&self, asks: bool, mode: Mode, asked: Asked<'_>) -> (bool, bool) {
        let holds = asks && part_holds(&self.rule.matches, mode, asked);
        self.unless_excepted(holds, mode, asked)
    }

    fn unless_excepted(&self, holds: bool, mode: Mode, asked: Asked<'_>) -> (bool, bool) {
        if !holds {
            return (false, false);
        }
        let Some(unless) = &self.rule.unless else {
            return (true, false);
        };
        let session = match mode.flip() {
            Mode::May => self.unless_may,
            Mode::Must => self.unless_must,
        };
        let excepts = session && part_holds(unless, mode.flip(), asked);
        match unless.circumstances.is_empty() {
            true => (!excepts, false),
            false => (true, excepts),
        }
    }

    /// Asks the circumstances. The rate of an `unless` is asked when the match
    /// and the rest of it hold; the rate of the match last of all, when the rule
    /// would otherwise apply: so each counts what it is written beside.
    pub(super) fn settle(&self, hit: Hit, now: &Circumstances<'_>) -> Settled {
        let mut settled = Settled {
            may: hit.may,
            must: hit.must,
            unresolved: hit.unresolved,
            predicate: hit.predicate,
            ..Settled::default()
        };
        if !self.circumstantial {
            return settled;
        }
        let matches = &self.rule.matches.circumstances;
        match matches.hold(now) {
            Ok(true) => {}
            Ok(false) => return Settled::default(),
            Err(fault) => return Settled::fault(fault),
        }
        if (hit.except_may || hit.except_must || hit.except_unresolved)
            && let Some(unless) = &self.rule.unless
        {
            let excepts = match (unless.circumstances.hold(now), &unless.circumstances.rate) {
                (Err(fault), _) => return Settled::fault(fault),
                (Ok(false), _) => false,
                (Ok(true), None) => true,
                (Ok(true), Some(field)) => {
                    settled.unless_counts = true;
                    field.rate.holds(now)
                }
            };
            settled.may &= !(excepts && hit.except_may);
            settled.must &= !(excepts && hit.except_must);
            settled.unresolved &= !(excepts && hit.except_unresolved);
        }
        if (settled.may || settled.must || settled.unresolved)
            && let Some(field) = &matches.rate
        {
            settled.counts = true;
            let over = field.rate.holds(now);
            settled.may &= over;
            settled.must &= over;
            settled.unresolved &= over;
        }
        settled.predicate &= settled.may;
        settled
    }

    /// Whether it holds for everything in this session.
    pub(super) fn always(&self) -> bool {
        self.rule.matches.postgres.is_none() && !self.unless_may && !self.circumstantial
    }
}

/// A rule's match, and its `unless`.
pub(super) fn parts(rule: &Rule) -> impl Iterator<Item = &Match> {
    [Some(&rule.matches), rule.unless.as_ref()]
        .into_iter()
        .flatten()
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
