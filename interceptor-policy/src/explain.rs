//! Why each rule did or did not apply, for a person.
//!
//! A second walk over the rules, slow and wordy, that asks the same questions
//! as [`Scope::decide`]; a test holds the two together.

use std::sync::Arc;

use crate::matcher::Mode;
use crate::operation::Statement;
use crate::rule::{Match, Rule};
use crate::{Operation, PgOperation, Scope, Subject};

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
    /// What every rule of the set has to say to an operation.
    #[must_use]
    pub fn explain(&self, operation: &Operation<'_>) -> Vec<Explanation> {
        let judged = self.decide(operation);
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
                    because: because(rule, self.subject(), operation, applied),
                }
            })
            .collect()
    }
}

fn because(rule: &Rule, subject: &Subject, operation: &Operation<'_>, applied: bool) -> String {
    let mode = if rule.tightens() {
        Mode::May
    } else {
        Mode::Must
    };
    let statements: Vec<_> = match operation {
        Operation::Postgres(postgres) => postgres
            .sql
            .statements
            .iter()
            .map(|statement| Some((postgres, statement)))
            .collect(),
        Operation::Opaque => vec![None],
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
        let place = match several {
            true => format!("statement {number}: "),
            false => String::new(),
        };
        match against(rule, subject, mode, *asked) {
            None if applied => {
                let mut why = held(rule, subject, *asked);
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
    reasons.join("; ")
}

type Asked<'o> = Option<(&'o PgOperation<'o>, &'o Statement)>;

/// The first thing that keeps a rule from applying.
fn against(rule: &Rule, subject: &Subject, mode: Mode, asked: Asked<'_>) -> Option<String> {
    if let Some(why) = fails(&rule.matches, subject, mode, asked) {
        return Some(why);
    }
    let unless = rule.unless.as_ref()?;
    match fails(unless, subject, mode.flip(), asked) {
        Some(_) => None,
        None => Some(format!("`unless` holds: {}", all(unless, subject, asked))),
    }
}

/// The first field of a match that does not hold.
fn fails(part: &Match, subject: &Subject, mode: Mode, asked: Asked<'_>) -> Option<String> {
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
    let Some(postgres) = &part.postgres else {
        return None;
    };
    let Some((operation, statement)) = asked else {
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

/// Why a rule applied.
fn held(rule: &Rule, subject: &Subject, asked: Asked<'_>) -> String {
    let mut why = all(&rule.matches, subject, asked);
    if rule.unless.is_some() {
        why.push_str("; `unless` does not hold");
    }
    why
}

fn all(part: &Match, subject: &Subject, asked: Asked<'_>) -> String {
    let mut said: Vec<String> = part
        .session
        .fields
        .iter()
        .map(|field| format!("{} is {}", field.name, field.is(subject)))
        .collect();
    if let (Some(postgres), Some((operation, statement))) = (&part.postgres, asked) {
        said.extend(
            postgres
                .fields
                .iter()
                .map(|field| format!("{} is {}", field.name, field.is(operation, statement))),
        );
    }
    if said.is_empty() {
        return "it matches everything".to_owned();
    }
    said.join(", ")
}
