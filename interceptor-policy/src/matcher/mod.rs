//! Whether a field's value is what a rule asks for, and how sure that is.
//!
//! A statement does not always say what it touches: `users` may be
//! `public.users` or another schema's, `*` stands for columns that nobody
//! named. So every question is asked in one of two [`Mode`]s. What makes a rule
//! set stricter (a block, a mask, points) asks whether the match *may* hold;
//! what makes it milder (an `allow`, an `unless`) asks whether it *must*. `not`
//! turns one into the other. Where several things are looked at (the tables of
//! a statement), one that matches is enough for the first, and all have to for
//! the second: `allow` for `public.*` is no `allow` for a join of it with
//! something else.

pub(crate) mod circumstances;
pub(crate) mod clock;
pub(crate) mod expression;
pub(crate) mod history;
pub(crate) mod http;
pub(crate) mod key;
pub(crate) mod name;
pub(crate) mod pointer;
pub(crate) mod postgres;
pub(crate) mod session;
pub(crate) mod ssh;
pub(crate) mod tags;
pub(crate) mod text;

use crate::PgOperation;
use crate::operation::ssh::{SshProgram, SshRequest};
use crate::operation::{HttpOperation, Statement};

/// What a match is asked of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Asked<'o> {
    /// Nothing but the session.
    #[default]
    Session,
    /// A statement with its message.
    Statement(&'o PgOperation<'o>, &'o Statement),
    /// An HTTP exchange, at some moment of it.
    Http(&'o HttpOperation<'o>),
    /// An SSH request, with one of the programs of its line, where it has some.
    Ssh(&'o SshRequest, Option<&'o SshProgram>),
}

impl<'o> Asked<'o> {
    /// The statement, where it is one.
    pub(crate) const fn statement(self) -> Option<(&'o PgOperation<'o>, &'o Statement)> {
        match self {
            Self::Statement(operation, statement) => Some((operation, statement)),
            _ => None,
        }
    }

    /// The exchange, where it is one of HTTP.
    pub(crate) const fn http(self) -> Option<&'o HttpOperation<'o>> {
        match self {
            Self::Http(operation) => Some(operation),
            _ => None,
        }
    }

    /// The request, where it is one of SSH.
    pub(crate) const fn ssh(self) -> Option<(&'o SshRequest, Option<&'o SshProgram>)> {
        match self {
            Self::Ssh(request, program) => Some((request, program)),
            _ => None,
        }
    }
}

/// How sure a match has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Unless it certainly does not hold.
    May,
    /// Only if it certainly holds.
    Must,
}

impl Mode {
    pub(crate) const fn flip(self) -> Self {
        match self {
            Self::May => Self::Must,
            Self::Must => Self::May,
        }
    }
}

/// What a field has to be: a tree over the leaves of its kind.
#[derive(Debug)]
pub(crate) enum Matcher<L> {
    Leaf(L),
    Not(Box<Matcher<L>>),
    Any(Vec<Matcher<L>>),
    All(Vec<Matcher<L>>),
}

impl<L> Matcher<L> {
    /// One thing, judged leaf by leaf.
    pub(crate) fn holds(&self, mode: Mode, leaf: &impl Fn(&L, Mode) -> bool) -> bool {
        match self {
            Self::Leaf(of) => leaf(of, mode),
            Self::Not(inner) => !inner.holds(mode.flip(), leaf),
            Self::Any(inner) => inner.iter().any(|one| one.holds(mode, leaf)),
            Self::All(inner) => inner.iter().all(|one| one.holds(mode, leaf)),
        }
    }

    /// A fact that may be missing. What is not there matches nothing; that it
    /// does not match is then certain to nobody, so `not` is good for a stricter
    /// rule and not for a milder one.
    pub(crate) fn holds_for<T: ?Sized>(
        &self,
        mode: Mode,
        fact: Option<&T>,
        leaf: impl Fn(&L, &T, Mode) -> bool,
    ) -> bool {
        match fact {
            Some(fact) => self.holds(mode, &|of, mode| leaf(of, fact, mode)),
            None => mode == Mode::May && self.holds(mode, &|_, _| false),
        }
    }

    /// Several things of one statement: one is enough for `May`, all have to
    /// for `Must`. Of none, only a negation holds, and that for `Must` alone.
    pub(crate) fn holds_among<T>(
        &self,
        mode: Mode,
        things: impl IntoIterator<Item = T>,
        leaf: impl Fn(&L, &T, Mode) -> bool,
    ) -> bool {
        let mut things = things.into_iter();
        let one = |thing: T| self.holds(mode, &|of, mode| leaf(of, &thing, mode));
        match mode {
            Mode::May => things.any(one),
            Mode::Must => match things.next() {
                Some(first) => one(first) && things.all(one),
                None => self.holds(mode, &|_, _| false),
            },
        }
    }

    /// Every leaf that is not under a `not`.
    pub(crate) fn plain_leaves(&self, each: &mut impl FnMut(&L)) {
        match self {
            Self::Leaf(leaf) => each(leaf),
            Self::Not(_) => {}
            Self::Any(inner) | Self::All(inner) => {
                for one in inner {
                    one.plain_leaves(each);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(of: &u8, thing: &u8, _mode: Mode) -> bool {
        of == thing
    }

    fn not(of: u8) -> Matcher<u8> {
        Matcher::Not(Box::new(Matcher::Leaf(of)))
    }

    #[test]
    fn one_of_several_is_enough_to_be_stricter_and_all_are_needed_to_be_milder() {
        let one = Matcher::Leaf(1);
        assert!(one.holds_among(Mode::May, [1, 2], leaf));
        assert!(!one.holds_among(Mode::Must, [1, 2], leaf));
        assert!(one.holds_among(Mode::Must, [1, 1], leaf));
        assert!(not(1).holds_among(Mode::May, [1, 2], leaf));
        assert!(!not(1).holds_among(Mode::Must, [1, 2], leaf));
        assert!(not(1).holds_among(Mode::Must, [3, 2], leaf));
    }

    #[test]
    fn of_nothing_only_a_negation_holds_and_only_to_be_milder() {
        for mode in [Mode::May, Mode::Must] {
            assert!(!Matcher::Leaf(1).holds_among(mode, [], leaf));
        }
        assert!(not(1).holds_among(Mode::Must, [], leaf));
        assert!(!not(1).holds_among(Mode::May, [], leaf));
    }

    #[test]
    fn a_missing_fact_matches_nothing_and_its_negation_serves_only_stricter_rules() {
        for mode in [Mode::May, Mode::Must] {
            assert!(!Matcher::Leaf(1).holds_for(mode, None, leaf));
        }
        assert!(not(1).holds_for(Mode::May, None, leaf));
        assert!(!not(1).holds_for(Mode::Must, None, leaf));
    }

    #[test]
    fn not_asks_its_leaves_the_other_way_round() {
        let unsure = |_: &u8, mode: Mode| mode == Mode::May;
        assert!(Matcher::Leaf(1).holds(Mode::May, &unsure));
        assert!(!Matcher::Leaf(1).holds(Mode::Must, &unsure));
        assert!(not(1).holds(Mode::May, &unsure));
        assert!(!not(1).holds(Mode::Must, &unsure));
    }

    #[test]
    fn any_is_a_disjunction_and_all_a_conjunction() {
        let any = Matcher::Any(vec![Matcher::Leaf(1), Matcher::Leaf(2)]);
        let all = Matcher::All(vec![Matcher::Leaf(1), Matcher::Leaf(2)]);
        assert!(any.holds_for(Mode::Must, Some(&2), leaf));
        assert!(!any.holds_for(Mode::May, Some(&3), leaf));
        assert!(!all.holds_for(Mode::May, Some(&2), leaf));
    }
}
