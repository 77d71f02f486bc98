//! A rule in a scope, and the question whether it applies, in two parts: what a
//! statement says of itself, which never changes, and the circumstances, which
//! may at every exchange.

use std::sync::Arc;

use crate::Subject;
use crate::matcher::circumstances::Circumstances;
use crate::matcher::expression::Fault;
use crate::matcher::http::NotKnown;
use crate::matcher::{Asked, Mode};
use crate::operation::http::{HttpBody, HttpOperation, HttpRequest};
use crate::rule::{Match, Rule, RuleVerdict};

/// A moment of an HTTP exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Request,
    Response,
    Message,
}

impl Stage {
    pub(super) const fn of(operation: &HttpOperation<'_>) -> Self {
        match (operation.message, operation.response) {
            (Some(_), _) => Self::Message,
            (None, Some(_)) => Self::Response,
            (None, None) => Self::Request,
        }
    }
}

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
    /// Why nobody can say whether it applies, where everything else holds.
    unknown: Option<NotKnown>,
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
    /// Whether it may yet apply, once more is known.
    pub(super) undecided: bool,
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
            .is_some_and(|unless| !unless.asks_of_protocol() && unless.circumstances.is_empty());
        let excepted = scoped.unless_must && session_only;
        ((scoped.tightens || scoped.loosens || rule.unresolved) && !excepted).then_some(scoped)
    }

    /// Whether it applies, by all that the statement says of itself.
    pub(super) fn hit(&self, index: usize, asked: Asked<'_>, unread: bool) -> Option<Hit> {
        if let Some(operation) = asked.http()
            && !self.is_asked_at(operation)
        {
            return None;
        }
        let mut unknown = None;
        let (may, except_may) = self.in_mode(self.tightens, Mode::May, asked, &mut unknown);
        // What could not be read is allowed only by who says so.
        let readable =
            !unread || self.names_unclassified || self.rule.verdict != Some(RuleVerdict::Allow);
        let loosens = self.loosens && (may || !self.tightens) && readable;
        let (must, except_must) = self.in_mode(loosens, Mode::Must, asked, &mut unknown);
        let (unresolved, except_unresolved) = match asked.statement() {
            Some((operation, statement)) if self.rule.unresolved => {
                let settled = operation.sql.resolved || statement.tables.is_empty();
                let unsettled = !settled || !statement.unresolved.is_empty();
                let matches = &self.rule.matches.postgres;
                let elsewhere = unsettled
                    && matches
                        .as_ref()
                        .is_none_or(|postgres| postgres.may_hold_elsewhere(operation, statement));
                self.unless_excepted(elsewhere, Mode::May, asked, &mut unknown)
            }
            _ => (false, false),
        };
        let predicate = may
            && self.rule.masked_in_predicate
            && asked.statement().is_some_and(|(_, statement)| {
                let masks = &self.rule.masks;
                let mut predicates = statement.predicates.iter();
                predicates.any(|column| masks.iter().any(|mask| mask.may_hide(column)))
            });
        (may || must || unresolved || unknown.is_some()).then_some(Hit {
            index,
            may,
            must,
            except_may,
            except_must,
            unresolved,
            except_unresolved,
            predicate,
            unknown,
        })
    }

    /// Whether the match holds, and whether the `unless` may yet hold against it.
    fn in_mode(
        &self,
        asks: bool,
        mode: Mode,
        asked: Asked<'_>,
        unknown: &mut Option<NotKnown>,
    ) -> (bool, bool) {
        // Loosening asks after tightening; where that is not known, this is not.
        let holds = match asks && unknown.is_none() {
            true => part_holds(&self.rule.matches, mode, asked),
            false => Ok(false),
        };
        match holds {
            Ok(holds) => self.unless_excepted(holds, mode, asked, unknown),
            Err(why) => {
                // An exception that is known to hold needs no more to be known.
                let mut neither = None;
                let (stands, _) = self.unless_excepted(true, mode, asked, &mut neither);
                *unknown = (stands || neither.is_some()).then_some(why);
                (false, false)
            }
        }
    }

    fn unless_excepted(
        &self,
        holds: bool,
        mode: Mode,
        asked: Asked<'_>,
        unknown: &mut Option<NotKnown>,
    ) -> (bool, bool) {
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
        let excepts = match session {
            true => part_holds(unless, mode.flip(), asked),
            false => Ok(false),
        };
        let excepts = match excepts {
            Ok(excepts) => excepts,
            Err(why) => {
                *unknown = Some(why);
                return (false, false);
            }
        };
        match unless.circumstances.is_empty() {
            true => (!excepts, false),
            false => (true, excepts),
        }
    }

    /// Asks the circumstances. The rate of an `unless` is asked when the match
    /// and the rest of it hold; the rate of the match last of all, when the rule
    /// would otherwise apply: so each counts what it is written beside.
    /// `early`: what is not known yet may be known when it is asked again.
    pub(super) fn settle(&self, hit: Hit, now: &Circumstances<'_>, early: bool) -> Settled {
        if let Some(unknown) = hit.unknown {
            return self.settle_unknown(unknown, early, now);
        }
        if early && self.reads_body_to_settle(now.asked) {
            return Settled {
                undecided: true,
                ..Settled::default()
            };
        }
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

    /// A rule of which the operation does not say whether it applies: where the
    /// circumstances keep it from that, that is no fault.
    fn settle_unknown(&self, why: NotKnown, early: bool, now: &Circumstances<'_>) -> Settled {
        match self.rule.matches.circumstances.hold(now) {
            Ok(false) => Settled::default(),
            _ if early && why == NotKnown::Yet => Settled {
                undecided: true,
                ..Settled::default()
            },
            _ => Settled::fault(match why {
                NotKnown::Yet => "what it asks for has not been read",
                NotKnown::Ever(why) => why,
            }),
        }
    }

    /// Whether an expression of it waits for a body that has not been read.
    fn reads_body_to_settle(&self, asked: Asked<'_>) -> bool {
        asked.http().is_some_and(|operation| {
            let mut expressions =
                parts(&self.rule).flat_map(|part| part.circumstances.expressions());
            expressions.any(|expression| expression.reads_body(operation.request))
        })
    }

    /// Whether it has something to say at this moment of an exchange: each rule
    /// is asked once, when all that it asks for can be there, and of messages
    /// once for each.
    fn is_asked_at(&self, operation: &HttpOperation<'_>) -> bool {
        self.rule.asked_later(operation).is_none()
    }

    /// Whether it may still apply to a request of which only the head is known.
    pub(super) fn may_apply_later(&self, request: &HttpRequest) -> bool {
        let http = self.rule.matches.http.as_ref();
        let may = |mode| http.is_none_or(|http| http.may_hold_later(mode, request));
        self.rule.matches.can_be_of_http()
            && (self.tightens && may(Mode::May) || self.loosens && may(Mode::Must))
    }

    /// Whether the body has to be read for it to be decided.
    pub(super) fn reads_body(&self, request: &HttpRequest) -> bool {
        parts(&self.rule).any(|part| {
            let http = part.http.as_ref();
            let mut expressions = part.circumstances.expressions();
            http.is_some_and(|http| http.reads_body(request))
                || expressions.any(|expression| expression.reads_body(request))
        })
    }

    /// Whether it holds for everything in this session.
    pub(super) fn always(&self) -> bool {
        !self.rule.matches.asks_of_protocol()
            && !self.rule.http.response
            && !self.unless_may
            && !self.circumstantial
    }
}

/// A rule's match, and its `unless`.
pub(super) fn parts(rule: &Rule) -> impl Iterator<Item = &Match> {
    [Some(&rule.matches), rule.unless.as_ref()]
        .into_iter()
        .flatten()
}

impl Rule {
    /// When it is asked, where that is at another moment of the exchange.
    pub(crate) fn asked_later(&self, operation: &HttpOperation<'_>) -> Option<&'static str> {
        let asks = self.http;
        let messages = asks.body && asks.websocket && opens_messages(operation.request);
        match Stage::of(operation) {
            Stage::Request if asks.response => Some("it is asked when there is a response"),
            Stage::Request if messages => Some("it is asked of each message"),
            Stage::Response if !asks.response => Some("it was asked of the request"),
            Stage::Message if !asks.body || asks.response => Some("it was asked of the request"),
            _ => None,
        }
    }
}

/// Whether messages may follow a request, which rules of WebSockets that ask for
/// the body are asked of instead. Of other rules a request does not get rid by
/// asking for a WebSocket.
fn opens_messages(request: &HttpRequest) -> bool {
    request.websocket && request.body == HttpBody::Absent
}

/// The part of a match that asks of statements or requests.
fn part_holds(part: &Match, mode: Mode, asked: Asked<'_>) -> Result<bool, NotKnown> {
    let of_statement = match (&part.postgres, asked.statement()) {
        (None, _) => true,
        (Some(postgres), Some((operation, statement))) => {
            postgres.holds(mode, operation, statement)
        }
        (Some(_), None) => false,
    };
    let of_ssh = match (&part.ssh, asked.ssh()) {
        (None, _) => true,
        (Some(ssh), Some((request, program))) => ssh.holds(mode, request, program),
        (Some(_), None) => false,
    };
    match (&part.http, asked.http()) {
        _ if !of_statement || !of_ssh => Ok(false),
        (None, _) => Ok(true),
        (Some(http), Some(operation)) => http.holds(mode, operation),
        (Some(_), None) => Ok(false),
    }
}
