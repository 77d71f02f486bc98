//! Why each rule did or did not apply, for a person.
//!
//! A second walk over the rules, slow and wordy, that asks the same questions
//! as [`Scope::decide`]; a test holds the two together.

use std::sync::Arc;

use crate::matcher::circumstances::{CircumstanceField, Circumstances};
use crate::matcher::ssh::Against;
use crate::matcher::{Asked, Mode};
use crate::rule::{Match, Rule};
use crate::scope::ssh_parts;
use crate::state::Record;
use crate::{Moment, Operation, Scope, Standing, Subject};

/// Why a rule did or did not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The rule.
    pub rule: Arc<str>,
    /// Whether it applied, or, observing, would have.
    pub applied: bool,
    /// Why, or why not.
    pub because: String,
}

impl Scope {
    /// What every rule of the set has to say to an operation that nothing came
    /// before; see [`Scope::decide`].
    #[must_use]
    pub fn explain(&self, operation: &Operation<'_>) -> Vec<Explanation> {
        self.explain_at(operation, &Standing::default(), Moment::default())
    }

    /// What every rule of the set has to say to an operation, by what is
    /// remembered of the session and its principal.
    #[must_use]
    pub fn explain_at(
        &self,
        operation: &Operation<'_>,
        standing: &Standing,
        now: Moment,
    ) -> Vec<Explanation> {
        let judged = self.preview(operation, standing, now);
        let nobody = Record::default();
        let record = standing.person().map(|person| person.record());
        let record = record.as_deref().unwrap_or(&nobody);
        let now = Circumstances {
            moment: now,
            score: record.score.rounded(now, self.rules().risk().half_life),
            session: standing.past(),
            principal: &record.past,
            subject: self.subject(),
            asked: Asked::Session,
        };
        self.rules()
            .rules()
            .iter()
            .map(|rule| {
                let applied = judged
                    .applied
                    .iter()
                    .chain(&judged.observed)
                    .any(|name| *name == rule.name);
                Explanation {
                    rule: Arc::clone(&rule.name),
                    applied,
                    because: because(rule, self.subject(), operation, &now, applied),
                }
            })
            .collect()
    }
}

fn because(
    rule: &Rule,
    subject: &Subject,
    operation: &Operation<'_>,
    now: &Circumstances<'_>,
    applied: bool,
) -> String {
    let mode = if rule.tightens() {
        Mode::May
    } else {
        Mode::Must
    };
    if let Operation::Http(operation) = operation
        && let Some(when) = rule.asked_later(operation)
    {
        return when.to_owned();
    }
    let statements: Vec<_> = match operation {
        Operation::Postgres(postgres) => postgres
            .sql
            .statements
            .iter()
            .map(|statement| Asked::Statement(postgres, statement))
            .collect(),
        Operation::Http(http) => vec![Asked::Http(http)],
        Operation::Ssh(request) => ssh_parts(request).collect(),
        Operation::Opaque => vec![Asked::Session],
    };
    if statements.is_empty() {
        return match applied {
            true => "it holds for the whole session".to_owned(),
            false => "there is no statement".to_owned(),
        };
    }
    let several = statements.len() > 1;
    let mut reasons: Vec<String> = Vec::new();
    for (number, asked) in (1..).zip(&statements) {
        let now = &Circumstances {
            asked: *asked,
            ..*now
        };
        let place = match (several, asked) {
            (false, _) => String::new(),
            (true, Asked::Ssh(..)) => format!("program {number}: "),
            (true, _) => format!("statement {number}: "),
        };
        match against(rule, subject, mode, *asked, now) {
            None if applied => {
                let mut why = held(rule, subject, *asked, now);
                if rule.observe {
                    why.push_str("; it only observes");
                }
                return place + &why;
            }
            // Everything asked holds, and yet it did not apply: the one thing
            // beside the fields is that the statement could not be read.
            None => reasons.push(
                place + "the statement could not be read, and the rule does not name `class: unclassified`",
            ),
            Some(why) => reasons.push(place + &why),
        }
    }
    reasons.dedup();
    let reasons = reasons.join("; ");
    if let Operation::Http(_) = operation
        && applied
    {
        return format!("it blocks, since nobody can say whether it applies: {reasons}");
    }
    match applied {
        true => {
            format!("it blocks where the catalog does not say which tables those are: {reasons}")
        }
        false => reasons,
    }
}

/// The first thing that keeps a rule from applying.
fn against(
    rule: &Rule,
    subject: &Subject,
    mode: Mode,
    asked: Asked<'_>,
    now: &Circumstances<'_>,
) -> Option<String> {
    if let Some(why) = fails(&rule.matches, subject, mode, asked, now) {
        return Some(why);
    }
    let unless = rule.unless.as_ref()?;
    match fails(unless, subject, mode.flip(), asked, now) {
        Some(_) => None,
        None => Some(format!(
            "`unless` holds: {}",
            all(unless, subject, asked, now)
        )),
    }
}

/// The first field of a match that does not hold.
fn fails(
    part: &Match,
    subject: &Subject,
    mode: Mode,
    asked: Asked<'_>,
    now: &Circumstances<'_>,
) -> Option<String> {
    for field in &part.session.fields {
        if !field.holds(mode, subject) {
            return Some(format!(
                "{} is {}, not {}",
                field.name,
                field.is(subject),
                field.shown
            ));
        }
    }
    fails_statement(part, mode, asked)
        .or_else(|| fails_http(part, mode, asked))
        .or_else(|| fails_ssh(part, mode, asked))
        .or_else(|| fails_now(part, now))
}

/// The first circumstance that does not hold.
fn fails_now(part: &Match, now: &Circumstances<'_>) -> Option<String> {
    let circumstances = &part.circumstances;
    let fails = |field: &&CircumstanceField| !matches!(field.holds(now), Ok(true));
    if let Some(field) = circumstances.fields.iter().find(fails) {
        return Some(format!(
            "{} is {}, not {}",
            field.name,
            field.is(now),
            field.shown
        ));
    }
    let field = circumstances.rate.as_ref()?;
    (!field.rate.holds(now)).then(|| format!("the rate is not {}", field.shown))
}

fn fails_statement(part: &Match, mode: Mode, asked: Asked<'_>) -> Option<String> {
    let postgres = part.postgres.as_ref()?;
    let Some((operation, statement)) = asked.statement() else {
        return Some("it asks for `postgres` fields".to_owned());
    };
    let field = postgres
        .fields
        .iter()
        .find(|field| !field.holds(mode, operation, statement))?;
    let is = field.is(operation, statement);
    // What makes things milder has to be certain.
    if mode == Mode::Must && field.holds(Mode::May, operation, statement) {
        return Some(format!(
            "{} is {is}, which is not certainly, or not only, {}",
            field.name, field.shown
        ));
    }
    Some(format!("{} is {is}, not {}", field.name, field.shown))
}

fn fails_http(part: &Match, mode: Mode, asked: Asked<'_>) -> Option<String> {
    let http = part.http.as_ref()?;
    let Some(operation) = asked.http() else {
        return Some("it asks for `http` fields".to_owned());
    };
    let field = http
        .fields
        .iter()
        .find(|field| field.holds(mode, operation) != Ok(true))?;
    let is = field.is(operation);
    if mode == Mode::Must && field.holds(Mode::May, operation) == Ok(true) {
        return Some(format!(
            "{} is {is}, which is not certainly, or not only, {}",
            field.name, field.shown
        ));
    }
    Some(format!("{} is {is}, not {}", field.name, field.shown))
}

fn fails_ssh(part: &Match, mode: Mode, asked: Asked<'_>) -> Option<String> {
    let ssh = part.ssh.as_ref()?;
    let Some((request, program)) = asked.ssh() else {
        return Some("it asks for `ssh` fields".to_owned());
    };
    let field = match ssh.against(mode, request, program)? {
        Against::Writes => {
            return Some(
                "it writes a file by redirection, and the rule does not name `writes`".to_owned(),
            );
        }
        Against::Reads => {
            return Some(
                "it reads a file by redirection, and the rule does not name `reads`".to_owned(),
            );
        }
        Against::Field(field) => field,
    };
    let is = field.is(request, program);
    if mode == Mode::Must && field.holds(Mode::May, request, program) {
        return Some(format!(
            "{} is {is}, which is not certainly {}",
            field.name, field.shown
        ));
    }
    Some(format!("{} is {is}, not {}", field.name, field.shown))
}

/// Why a rule applied.
fn held(rule: &Rule, subject: &Subject, asked: Asked<'_>, now: &Circumstances<'_>) -> String {
    let mut why = all(&rule.matches, subject, asked, now);
    if rule.unless.is_some() {
        why.push_str("; `unless` does not hold");
    }
    why
}

fn all(part: &Match, subject: &Subject, asked: Asked<'_>, now: &Circumstances<'_>) -> String {
    let mut said: Vec<String> = part
        .session
        .fields
        .iter()
        .map(|field| format!("{} is {}", field.name, field.is(subject)))
        .collect();
    if let (Some(http), Some(operation)) = (&part.http, asked.http()) {
        let fields = http.fields.iter();
        said.extend(fields.map(|field| format!("{} is {}", field.name, field.is(operation))));
    }
    if let (Some(postgres), Some((operation, statement))) = (&part.postgres, asked.statement()) {
        said.extend(
            postgres
                .fields
                .iter()
                .map(|field| format!("{} is {}", field.name, field.is(operation, statement))),
        );
    }
    if let (Some(ssh), Some((request, program))) = (&part.ssh, asked.ssh()) {
        let fields = ssh.fields.iter();
        said.extend(
            fields.map(|field| format!("{} is {}", field.name, field.is(request, program))),
        );
    }
    let circumstances = &part.circumstances;
    said.extend(
        circumstances
            .fields
            .iter()
            .map(|field| format!("{} is {}", field.name, field.is(now))),
    );
    if let Some(field) = &circumstances.rate {
        said.push(format!("the rate is {}", field.shown));
    }
    if said.is_empty() {
        return "it matches everything".to_owned();
    }
    said.join(", ")
}
