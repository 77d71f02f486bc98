//! `if`: an expression in CEL, for what the fields cannot say.
//!
//! The library has no budget of its own, so an expression is bounded by what it
//! may be: so many characters, so deep, so many parts; a macro (`exists`, `all`,
//! `filter`, …) goes over a field or a list that is written out, never over what
//! another macro made and never inside of one, so that no text and no list
//! doubles. What it is asked about is bounded too: a list of more than
//! [`LIST_LIMIT`] entries or a text of more than [`TEXT_LIMIT`] bytes is a fault.
//! Patterns of `matches` are written out, and compiled when the rules are.
//!
//! A fault while it is asked counts as a block, in words that carry none of
//! what was asked about.
//!
//! Language: <https://github.com/google/cel-spec>, its time types left out.

mod check;
mod facts;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::types::CelBool;
use cel::extractors::This;
use cel::{Context, Env, ExecutionError, IdedExpr, Value};
use regex::Regex;

use facts::Facts;
pub(crate) use facts::Leaf;

use crate::Subject;
use crate::matcher::Asked;
use crate::operation::http::{HttpBody, HttpRequest};

/// Longest expression, in characters.
const SOURCE_LIMIT: usize = 4096;
/// How deep its brackets may be.
const DEPTH_LIMIT: u16 = 24;
/// How deep its tree may be: what asks it goes down as deep.
const TREE_LIMIT: usize = 32;
/// Stack for the parser, which takes much for each bracket. Used when rules are
/// read, and given back.
const STACK: usize = 64 << 20;
/// How many parts it may have.
const PARTS_LIMIT: usize = 256;
/// Longest list that is handed in.
pub(crate) const LIST_LIMIT: usize = 128;
/// Longest text that is handed in, in bytes.
pub(crate) const TEXT_LIMIT: usize = 16 << 10;

/// A compiled expression.
pub(crate) struct Expression {
    expr: IdedExpr,
    /// What it asks about.
    leaves: Vec<Leaf>,
    /// Functions and the environment, shared by all evaluations.
    context: Context<'static, 'static>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expression")
            .field("leaves", &self.leaves)
            .finish_non_exhaustive()
    }
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// What.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
    /// Where: characters from its beginning, and how many.
    pub(crate) at: Option<(usize, usize)>,
}

impl Wrong {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            at: None,
        }
    }
}

/// Why an expression has no answer; never with what it was asked about.
pub(crate) type Fault = &'static str;

/// What an expression is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) asked: Asked<'a>,
    pub(crate) score: u32,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(crate) fn new(source: &str) -> Result<Self, Wrong> {
        if source.chars().count() > SOURCE_LIMIT {
            return Err(Wrong::new(format!(
                "the expression has more than {SOURCE_LIMIT} characters"
            )));
        }
        stacker::grow(STACK, || Self::read(source))
    }

    fn read(source: &str) -> Result<Self, Wrong> {
        let env = Env::default().with_optional_support(false).with_stdlib();
        let parser = Env::stdlib()
            .with_optional_support(false)
            .parser()
            .max_recursion_depth(DEPTH_LIMIT);
        // The parser is generated, and this is not its first fault if it has one.
        let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse_with_source_info(source)))
            .map_err(|_| Wrong::new("the expression cannot be read"))?;
        let (mut expr, places) = parsed.map_err(|errors| unread(source, &errors))?;
        let checked = check::check(&mut expr).map_err(|(id, width, wrong)| {
            let at = places.offset_for(id).map(|(from, to)| {
                let (from, to) = (from as usize, to as usize);
                (from, width.unwrap_or(to.saturating_sub(from) + 1))
            });
            Wrong { at, ..wrong }
        })?;
        let mut context = Context::with_env(Arc::new(env));
        let patterns = checked.patterns;
        context
            .add_function(
                "matches",
                move |This(text): This<Arc<String>>, pattern: Arc<String>| {
                    matches(&patterns, &text, &pattern)
                },
            )
            .map_err(|_| Wrong::new("the expression cannot be prepared"))?;
        let expression = Self {
            expr,
            leaves: checked.leaves,
            context,
        };
        expression.tried()
    }

    /// Asks it once about something made up: what is no answer for that, by the
    /// kinds of its values, is none for anything.
    fn tried(self) -> Result<Self, Wrong> {
        let trial = facts::trial(&self.leaves);
        match self.evaluate(&trial) {
            Ok(Ok(Some(_))) => Ok(self),
            Ok(Ok(None)) => Err(Wrong::new("the expression does not say true or false")),
            Ok(Err(error)) => match error {
                ExecutionError::NoSuchOverload(_)
                | ExecutionError::ValuesNotComparable(..)
                | ExecutionError::UnsupportedBinaryOperator(..)
                | ExecutionError::UnexpectedType { .. }
                | ExecutionError::UnsupportedIndex(..)
                | ExecutionError::UndeclaredReference(_)
                | ExecutionError::InvalidArgumentCount { .. }
                | ExecutionError::MissingArgumentOrTarget
                | ExecutionError::NotSupportedAsMethod { .. }
                | ExecutionError::UnsupportedTargetType { .. } => Err(Wrong::new(format!(
                    "the expression has no answer: {}",
                    // Of made-up values, so that it may be told in full.
                    error
                ))),
                // What else is wrong may be so for these values alone.
                _ => Ok(self),
            },
            Err(_) => Err(Wrong::new("the expression cannot be asked")),
        }
    }

    /// Whether it asks about statements.
    fn asks_of_statements(&self) -> bool {
        self.leaves.iter().any(Leaf::is_of_statements)
    }

    /// Whether it asks about requests or responses.
    fn asks_of_http(&self) -> bool {
        self.leaves.iter().any(Leaf::is_of_http)
    }

    /// Whether it asks about SSH requests.
    fn asks_of_ssh(&self) -> bool {
        self.leaves.iter().any(Leaf::is_of_ssh)
    }

    /// Whether it asks about a response.
    pub(crate) fn asks_response(&self) -> bool {
        self.leaves.iter().any(Leaf::is_of_response)
    }

    /// Whether it cannot be asked before the body is read.
    pub(crate) fn reads_body(&self, request: &HttpRequest) -> bool {
        request.body == HttpBody::Unread && self.leaves.iter().any(|leaf| leaf.reads_body(request))
    }

    /// Whether it asks for the score.
    pub(crate) fn asks_past(&self) -> bool {
        self.leaves.contains(&Leaf::Risk)
    }

    /// Whether it looks at the text.
    pub(crate) fn looks_at_text(&self) -> bool {
        self.leaves.contains(&Leaf::Text)
    }

    /// Its answer.
    ///
    /// # Errors
    /// Why it has none.
    pub(crate) fn holds(&self, about: &About<'_>) -> Result<bool, Fault> {
        if about.asked.statement().is_none() && self.asks_of_statements()
            || about.asked.http().is_none() && self.asks_of_http()
            || about.asked.ssh().is_none() && self.asks_of_ssh()
        {
            return Ok(false);
        }
        let facts = Facts::of(&self.leaves, about)?;
        match self.evaluate(&facts) {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err("its `if` says neither true nor false"),
            Ok(Err(error)) => Err(said(&error)),
            Err(_) => Err("its `if` failed"),
        }
    }

    /// The answer, `None` for one that is neither; an error; or that it panicked.
    #[allow(
        clippy::type_complexity,
        reason = "three ways to have no answer, told apart by the two callers"
    )]
    fn evaluate(
        &self,
        facts: &Facts<'_>,
    ) -> Result<Result<Option<bool>, ExecutionError>, Box<dyn std::any::Any + Send>> {
        catch_unwind(AssertUnwindSafe(|| {
            let mut context = self.context.new_inner_scope();
            context.set_variable_resolver(facts);
            let value = Value::resolve_val(&self.expr, &context)?;
            Ok(value
                .downcast_ref::<CelBool>()
                .map(|answer| *answer.inner()))
        }))
    }
}

fn matches(
    patterns: &HashMap<String, Regex>,
    text: &str,
    pattern: &str,
) -> Result<bool, ExecutionError> {
    patterns
        .get(pattern)
        .map(|pattern| pattern.is_match(text))
        .ok_or_else(|| ExecutionError::function_error("matches", "an unknown pattern"))
}

/// What the parser said, of its first fault.
fn unread(source: &str, errors: &cel::ParseErrors) -> Wrong {
    let Some(first) = errors.errors.first() else {
        return Wrong::new("the expression cannot be read");
    };
    let (line, column) = first.pos;
    let line = usize::try_from(line).unwrap_or(1).max(1);
    let column = usize::try_from(column).unwrap_or(1).max(1);
    let before: usize = source
        .split_inclusive('\n')
        .take(line - 1)
        .map(|line| line.chars().count())
        .sum();
    let message = first.msg.lines().next().unwrap_or_default();
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let message = match message.contains("Recursion limit") {
        true => "it is nested too deep",
        false => message,
    };
    Wrong {
        message: format!("the expression cannot be read: {message}"),
        help: None,
        at: Some((before + column - 1, 1)),
    }
}

/// An error without the values that it is about.
fn said(error: &ExecutionError) -> Fault {
    match error {
        ExecutionError::NoSuchKey(_) => "its `if` asks for a key that is not there",
        ExecutionError::IndexOutOfBounds(_) => "its `if` asks for an entry that is not there",
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "its `if` divides by zero"
        }
        ExecutionError::Overflow(..) => "its `if` comes to a number that is too large",
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnexpectedType { .. } => "its `if` mixes kinds of values",
        _ => "its `if` has no answer",
    }
}
