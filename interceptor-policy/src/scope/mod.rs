//! The rules that can apply to one session, and what they decide.
//!
//! What does not change in a session is asked once, here. Then, for every
//! exchange: which rules apply by what its statements say of themselves
//! ([`Scoped::hit`]), what the circumstances make of them ([`Scoped::settle`]),
//! what they come to ([`Sum`]), and what is remembered of it.

mod bits;
mod http;
mod index;
mod judgement;
mod kept;
mod scoped;
mod sum;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use self::bits::Bits;
pub use self::http::HttpNeeds;
pub(crate) use self::index::Index;
use self::kept::Kept;
use self::scoped::{Hit, Scoped, Stage, parts};
use self::sum::{Part, Reason, Sum};
use crate::mask::Masks;
use crate::matcher::Asked;
use crate::matcher::circumstances::Circumstances;
use crate::matcher::expression::Expression;
use crate::matcher::history::By;
use crate::operation::{Class, Classes, Output, SshRequest, Statement};
use crate::rule::{RuleSet, RuleVerdict, spoken};
use crate::state::{Person, Record};
use crate::{
    DefaultVerdict, Judgement, Moment, Operation, Protocol, Refusal, Standing, Subject, Verdict,
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
    /// By a rule's place in the set; `None` for those that cannot apply.
    scoped: Vec<Option<Scoped>>,
    can_allow: bool,
    masks_possible: bool,
    text_dependent: bool,
    /// Whether a field, and not merely an expression, looks at the text.
    text_found: bool,
    kept: Kept,
    /// Whether what was before can decide what is now: then one exchange of a
    /// principal is judged at a time.
    remembering: bool,
    /// Whether anything is remembered of an exchange.
    keeping: bool,
    refused_by_default: Arc<str>,
    refused_unread: Arc<str>,
    refused_forgotten: Arc<str>,
    /// United masks by the rules that give them: nearly always one entry.
    masks: RwLock<Vec<(Bits, Arc<Masks>)>>,
}

/// The rules that apply to one statement, by what it says of itself.
#[derive(Debug)]
struct Found {
    hits: Vec<Hit>,
    unread: bool,
    default: DefaultVerdict,
    /// Whether it only follows what was let pass: a response, a message.
    follows: bool,
}

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

impl Scope {
    pub(crate) fn new(rules: &Arc<RuleSet>, subject: &Subject) -> Self {
        let scoped: Vec<_> = rules
            .rules()
            .iter()
            .map(|rule| Scoped::new(rule, subject, rules.is_traced(rule)))
            .collect();
        let all = || scoped.iter().flatten();
        // Those that any operation of this session's protocol could meet.
        let in_reach = || {
            all().filter(|scoped| {
                !scoped.rule.observe
                    && (subject.protocol == Protocol::Postgres
                        || scoped.rule.matches.postgres.is_none())
                    && (subject.protocol == Protocol::Http || scoped.rule.matches.http.is_none())
                    && (subject.protocol == Protocol::Ssh || scoped.rule.matches.ssh.is_none())
            })
        };
        let refuses = |scoped: &Scoped| scoped.rule.verdict > Some(RuleVerdict::Hold);
        let lets_pass = |scoped: &Scoped| match scoped.rule.verdict {
            _ if scoped.rule.http.response => false,
            Some(RuleVerdict::Allow) => scoped.loosens,
            verdict => verdict == Some(RuleVerdict::Hold),
        };
        let can_allow = !in_reach().any(|s| refuses(s) && s.always())
            && (subject.target.default == DefaultVerdict::Allow || in_reach().any(lets_pass));
        let masks_possible = in_reach().any(|scoped| scoped.rule.masks());
        let text_found = all().any(|scoped| {
            parts(&scoped.rule).any(|part| {
                let fields = part.postgres.as_ref();
                fields.is_some_and(|postgres| postgres.looks_at_text())
            })
        });
        let text_dependent = text_found
            || all().any(|scoped| {
                parts(&scoped.rule).any(|part| {
                    part.circumstances
                        .expressions()
                        .any(Expression::looks_at_text)
                })
            });
        let asks_past =
            |scoped: &Scoped| parts(&scoped.rule).any(|part| part.circumstances.asks_past());
        let remembering = !rules.risk().thresholds.is_empty()
            || all().any(|scoped| asks_past(scoped) || scoped.rule.ban.is_some());
        let keeping = remembering
            || all().any(|scoped| {
                let rule = &scoped.rule;
                scoped.traced || !rule.observe && (rule.risk > 0 || !rule.tags.is_empty())
            });
        Self {
            inner: Arc::new(Inner {
                rules: Arc::clone(rules),
                subject: subject.clone(),
                kept: Kept::default(),
                text_found,
                scoped,
                can_allow,
                masks_possible,
                text_dependent,
                remembering,
                keeping,
                refused_by_default: "no rule allows this".into(),
                refused_unread: "this statement could not be read, and no rule allows that".into(),
                refused_forgotten: "there are more agents at once than are remembered, and the \
                    rules ask what this one did before"
                    .into(),
                masks: RwLock::default(),
            }),
        }
    }

    /// Decides one operation, as of a principal of whom nothing is remembered,
    /// at the beginning of 1970: for what has no history and asks for no time.
    /// Each statement of a message is judged by itself; the strictest verdict is
    /// the message's, and masks, limits, points, tags and records are united. A
    /// rule that applies to several statements counts once.
    #[must_use]
    pub fn decide(&self, operation: &Operation<'_>) -> Judgement {
        self.preview(operation, &Standing::default(), Moment::default())
    }

    /// As [`Scope::decide`], by what is remembered of the session and its
    /// principal, and remembers this exchange: its points and what rates count
    /// whatever becomes of it, since an attempt counts; its tags where it is
    /// allowed. Whoever releases what is held leaves them with
    /// [`Standing::tag`].
    #[must_use]
    pub fn judge(
        &self,
        operation: &Operation<'_>,
        standing: &mut Standing,
        now: Moment,
    ) -> Judgement {
        let found = self.find(operation);
        let Some(person) = standing.person().map(Arc::clone) else {
            let mut nobody = Record::default();
            let (judgement, sum) = self.weigh(&found, operation, &nobody, standing, now, false);
            self.keep(
                &judgement,
                &sum,
                &Person::default(),
                &mut nobody,
                standing,
                now,
            );
            return judgement;
        };
        if self.inner.remembering {
            // Locked from the first question to the last count, so that of two
            // sessions only one is the hundredth.
            let mut record = person.record();
            let (judgement, sum) = self.weigh(&found, operation, &record, standing, now, false);
            self.keep(&judgement, &sum, &person, &mut record, standing, now);
            return judgement;
        }
        let nothing = Record::default();
        let (mut judgement, sum) = self.weigh(&found, operation, &nothing, standing, now, false);
        if self.inner.keeping {
            let mut record = person.record();
            self.keep(&judgement, &sum, &person, &mut record, standing, now);
            judgement.score = record.score.rounded(now, self.inner.rules.risk().half_life);
        }
        judgement
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
        self.preview_at(operation, standing, now, false)
    }

    fn preview_at(
        &self,
        operation: &Operation<'_>,
        standing: &Standing,
        now: Moment,
        early: bool,
    ) -> Judgement {
        let found = self.find(operation);
        let judged = match standing.person() {
            Some(person) if self.inner.keeping => {
                self.weigh(&found, operation, &person.record(), standing, now, early)
            }
            _ => self.weigh(&found, operation, &Record::default(), standing, now, early),
        };
        judged.0
    }

    fn scoped(&self, index: usize) -> Option<&Scoped> {
        self.inner.scoped.get(index)?.as_ref()
    }

    /// Which rules apply to what is asked, by what it says of itself.
    fn find(&self, operation: &Operation<'_>) -> Arc<[Found]> {
        if let Operation::Postgres(postgres) = operation
            && let Some(meaning) = postgres.meaning
            && (meaning.exact || !self.inner.text_found)
        {
            let find = || self.find_anew(operation);
            return self.inner.kept.find(postgres, meaning.id, find);
        }
        self.find_anew(operation)
    }

    fn find_anew(&self, operation: &Operation<'_>) -> Arc<[Found]> {
        let default = self.inner.subject.target.default;
        match operation {
            Operation::Postgres(postgres) if postgres.sql.statements.is_empty() => {
                let asked = Asked::Statement(postgres, &NO_STATEMENT);
                [self.find_one(asked, DefaultVerdict::Allow)].into()
            }
            Operation::Postgres(postgres) => postgres
                .sql
                .statements
                .iter()
                .map(|statement| self.find_one(Asked::Statement(postgres, statement), default))
                .collect(),
            Operation::Http(http) => {
                let follows = Stage::of(http) != Stage::Request;
                // What decides of the request is not asked again.
                let default = match follows {
                    true => DefaultVerdict::Allow,
                    false => default,
                };
                let found = self.find_one(Asked::Http(http), default);
                [Found { follows, ..found }].into()
            }
            Operation::Ssh(request) => ssh_parts(request)
                .map(|asked| {
                    let default = match is_empty_line(asked) {
                        true => DefaultVerdict::Allow,
                        false => default,
                    };
                    self.find_one(asked, default)
                })
                .collect(),
            Operation::Opaque => [self.find_one(Asked::Session, default)].into(),
        }
    }

    fn find_one(&self, asked: Asked<'_>, default: DefaultVerdict) -> Found {
        let unread = asked.statement().is_some_and(|(_, statement)| {
            statement.classes.is_empty() || statement.classes.contains(Class::Unclassified)
        });
        let candidates = self.inner.rules.index().candidates(asked);
        let hits = candidates.iter().filter_map(|index| {
            let scoped = self.scoped(index)?;
            scoped.hit(index, asked, unread)
        });
        Found {
            hits: hits.collect(),
            unread,
            default,
            follows: false,
        }
    }

    /// What the rules found come to in the circumstances.
    fn weigh(
        &self,
        found: &[Found],
        operation: &Operation<'_>,
        record: &Record,
        standing: &Standing,
        now: Moment,
        early: bool,
    ) -> (Judgement, Sum) {
        let risk = self.inner.rules.risk();
        let circumstances = Circumstances {
            moment: now,
            score: record.score.rounded(now, risk.half_life),
            session: standing.past(),
            principal: &record.past,
            subject: &self.inner.subject,
            asked: Asked::Session,
        };
        let mut sum = Sum::default();
        for (place, found) in found.iter().enumerate() {
            let circumstances = Circumstances {
                asked: asked(operation, place),
                ..circumstances
            };
            let mut part = Part::default();
            for hit in &found.hits {
                if let Some(scoped) = self.scoped(hit.index) {
                    let settled = scoped.settle(*hit, &circumstances, early);
                    sum.add(&mut part, hit.index, scoped, settled, found.unread);
                }
            }
            sum.close(part, found);
        }
        let score = record.score.with(sum.risk, now, risk.half_life);
        let follows = found.iter().any(|found| found.follows);
        let settled = follows.then_some(circumstances.score);
        sum.score(score, settled, &risk.thresholds);
        match standing.person() {
            None if self.inner.remembering => {
                let message = Arc::clone(&self.inner.refused_forgotten);
                sum.object(RuleVerdict::Block, Reason::Said(Refusal::said(message)));
            }
            None => {}
            Some(person) => {
                if let Some(left) = person.banned(now) {
                    sum.object(RuleVerdict::Kill, Reason::Said(banned(person, left)));
                }
            }
        }
        (self.judgement(&sum, score), sum)
    }

    /// Remembers an exchange.
    fn keep(
        &self,
        judgement: &Judgement,
        sum: &Sum,
        person: &Person,
        record: &mut Record,
        standing: &mut Standing,
        now: Moment,
    ) {
        let half_life = self.inner.rules.risk().half_life;
        if sum.risk > 0 {
            record.score.add(sum.risk, now, half_life);
        }
        let counting = self
            .of(&sum.counts)
            .map(|scoped| Some(&scoped.rule.matches))
            .chain(self.of(&sum.unless_counts).map(|s| s.rule.unless.as_ref()));
        for part in counting.flatten() {
            if let Some(field) = &part.circumstances.rate {
                let past = match field.rate.by {
                    By::Session => standing.past_mut(),
                    By::Principal => &mut record.past,
                };
                past.count(&field.rate, now);
            }
        }
        for scoped in self.of(&sum.applied).filter(|scoped| scoped.traced) {
            standing.past_mut().meet(&scoped.rule.name, now);
            record.past.meet(&scoped.rule.name, now);
        }
        match &judgement.verdict {
            Verdict::Allow(_) => {
                standing.past_mut().tag(&judgement.tags, now);
                record.past.tag(&judgement.tags, now);
            }
            Verdict::Kill(refusal) => {
                if let (Some(span), Some(rule)) = (judgement.ban, &refusal.rule) {
                    person.ban(span, rule, now);
                }
            }
            _ => {}
        }
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

/// What a principal is told whose ban runs.
fn banned(person: &Person, left: Duration) -> Refusal {
    // In whole seconds, and never none.
    let left = Duration::from_secs(left.as_secs().max(1));
    Refusal {
        rule: person.banned_by(),
        message: format!("banned for another {}", spoken(left)).into(),
    }
}

/// What is asked of, by its place: a statement, or all there is.
fn asked<'o>(operation: &'o Operation<'_>, place: usize) -> Asked<'o> {
    match operation {
        Operation::Postgres(postgres) => {
            let statement = postgres.sql.statements.get(place);
            Asked::Statement(postgres, statement.unwrap_or(&NO_STATEMENT))
        }
        Operation::Http(http) => Asked::Http(http),
        Operation::Ssh(request) => ssh_parts(request).nth(place).unwrap_or(Asked::Session),
        Operation::Opaque => Asked::Session,
    }
}

/// What is judged of an SSH request, each by itself: the programs of its line,
/// or the request where it has none.
pub(crate) fn ssh_parts(request: &SshRequest) -> impl Iterator<Item = Asked<'_>> {
    let programs = request.line.iter().flat_map(|line| &line.programs);
    let without = match programs.clone().next() {
        Some(_) => None,
        None => Some(Asked::Ssh(request, None)),
    };
    let each = programs.map(|program| Asked::Ssh(request, Some(program)));
    each.chain(without)
}

/// Whether it is a line that runs nothing: no default refuses it.
fn is_empty_line(asked: Asked<'_>) -> bool {
    matches!(asked, Asked::Ssh(request, None) if request.line.is_some())
}
