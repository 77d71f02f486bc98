//! What an expression may be made of, and what it asks about.
//!
//! The parser takes `postgres.tables` for a selection from a variable; here it
//! becomes a variable of that name, so that a name that there is not is told
//! when the rules are read, and nothing is made that nobody asks for.

use std::collections::HashMap;

use cel::IdedExpr;
use cel::common::ast::{ComprehensionExpr, Expr, LiteralValue, operators};
use regex::{Regex, RegexBuilder};

use super::facts::{Kind, Leaf, NAMES};
use super::{PARTS_LIMIT, TREE_LIMIT, Wrong};
use crate::diagnostic::nearest;

/// What an expression turned out to be.
pub(super) struct Checked {
    pub(super) leaves: Vec<Leaf>,
    pub(super) patterns: HashMap<String, Regex>,
}

/// Functions that may be called, with the kind of what they say, where it is one.
const FUNCTIONS: &[(&str, Option<Kind>)] = &[
    ("contains", Some(Kind::Bool)),
    ("startsWith", Some(Kind::Bool)),
    ("endsWith", Some(Kind::Bool)),
    ("matches", Some(Kind::Bool)),
    ("size", Some(Kind::Number)),
    ("int", Some(Kind::Number)),
    ("string", Some(Kind::Text)),
];
const OPERATORS: &[(&str, Option<Kind>)] = &[
    (operators::CONDITIONAL, None),
    (operators::LOGICAL_AND, Some(Kind::Bool)),
    (operators::LOGICAL_OR, Some(Kind::Bool)),
    (operators::LOGICAL_NOT, Some(Kind::Bool)),
    (operators::SUBSTRACT, Some(Kind::Number)),
    (operators::ADD, None),
    (operators::MULTIPLY, Some(Kind::Number)),
    (operators::DIVIDE, Some(Kind::Number)),
    (operators::MODULO, Some(Kind::Number)),
    (operators::EQUALS, Some(Kind::Bool)),
    (operators::NOT_EQUALS, Some(Kind::Bool)),
    (operators::GREATER_EQUALS, Some(Kind::Bool)),
    (operators::LESS_EQUALS, Some(Kind::Bool)),
    (operators::GREATER, Some(Kind::Bool)),
    (operators::LESS, Some(Kind::Bool)),
    (operators::NEGATE, Some(Kind::Number)),
    (operators::INDEX, None),
    (operators::NOT_STRICTLY_FALSE, Some(Kind::Bool)),
    (operators::IN, Some(Kind::Bool)),
];
/// Largest compiled form of one pattern, in bytes.
const PATTERN_LIMIT: usize = 1 << 20;

/// What is wrong with a part, by its number, and how wide that is where it is
/// more than the token which the part stands at.
type At<T> = Result<T, (u64, Option<usize>, Wrong)>;

/// Checks an expression, and makes variables of the fields that it names.
pub(super) fn check(expr: &mut IdedExpr) -> At<Checked> {
    let mut checker = Checker {
        parts: 0,
        depth: 0,
        bound: Vec::new(),
        leaves: Vec::new(),
        patterns: HashMap::new(),
    };
    let id = expr.id;
    match checker.part(expr)? {
        None | Some(Kind::Bool) => Ok(Checked {
            leaves: checker.leaves,
            patterns: checker.patterns,
        }),
        Some(other) => wrong(
            id,
            format!("the expression is {}, not true or false", other.name()),
            None,
        ),
    }
}

fn wrong<T>(id: u64, message: impl Into<String>, help: Option<String>) -> At<T> {
    let mut wrong = Wrong::new(message);
    wrong.help = help;
    Err((id, None, wrong))
}

struct Checker {
    parts: usize,
    depth: usize,
    /// Variables of the macro that is being looked into; empty outside of one.
    bound: Vec<String>,
    leaves: Vec<Leaf>,
    patterns: HashMap<String, Regex>,
}

impl Checker {
    /// One part; the kind of its value, where it is sure.
    fn part(&mut self, expr: &mut IdedExpr) -> At<Option<Kind>> {
        if self.depth >= TREE_LIMIT {
            return wrong(expr.id, "the expression is nested too deep", None);
        }
        self.depth += 1;
        let kind = self.one(expr);
        self.depth -= 1;
        kind
    }

    fn one(&mut self, expr: &mut IdedExpr) -> At<Option<Kind>> {
        self.parts += 1;
        let id = expr.id;
        if self.parts > PARTS_LIMIT {
            return wrong(
                id,
                format!("the expression has more than {PARTS_LIMIT} parts"),
                None,
            );
        }
        if let Some(name) = dotted(&expr.expr)
            && !self.bound.iter().any(|bound| is_of(bound, &name))
        {
            let (leaf, kind) = field(root(expr), &name)?;
            expr.expr = Expr::Ident(leaf.name().into_owned());
            if !self.leaves.contains(&leaf) {
                self.leaves.push(leaf);
            }
            return Ok(Some(kind));
        }
        match &mut expr.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Some(Kind::Bool),
                LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => {
                    Some(Kind::Number)
                }
                LiteralValue::String(_) => Some(Kind::Text),
                LiteralValue::Bytes(_) | LiteralValue::Null => {
                    return wrong(
                        id,
                        "the expression has bytes or null, which no field has",
                        None,
                    );
                }
            }),
            // One of the macro's own.
            Expr::Ident(_) => Ok(None),
            Expr::Select(select) => {
                let kind = self.part(&mut select.operand)?;
                if matches!(kind, Some(Kind::Map)) {
                    return Ok(select.test.then_some(Kind::Bool));
                }
                let help = select
                    .test
                    .then(|| "a text that is not known is empty: compare it with \"\"".to_owned());
                wrong(id, format!("nothing here has a `{}`", select.field), help)
            }
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.part(element)?;
                }
                Ok(Some(Kind::List))
            }
            Expr::Comprehension(comprehension) => self.comprehension(id, comprehension),
            Expr::Call(_) => self.call(id, expr),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => wrong(
                id,
                "the expression makes a mapping, which no field is",
                None,
            ),
        }
    }

    fn call(&mut self, id: u64, expr: &mut IdedExpr) -> At<Option<Kind>> {
        let Expr::Call(call) = &mut expr.expr else {
            return Ok(None);
        };
        let name = call.func_name.as_str();
        let known = FUNCTIONS
            .iter()
            .chain(OPERATORS)
            .find(|(known, _)| *known == name);
        let Some((_, says)) = known else {
            let help = nearest(name, FUNCTIONS.iter().map(|(known, _)| *known));
            let all: Vec<_> = FUNCTIONS.iter().map(|(known, _)| *known).collect();
            let help = help.or_else(|| Some(format!("there are {}", all.join(", "))));
            return wrong(id, format!("there is no function `{name}`"), help);
        };
        let name = name.to_owned();
        if name == "matches" {
            self.pattern(id, call.args.last())?;
        }
        if let Some(target) = &mut call.target {
            self.part(target)?;
        }
        let mut kinds = Vec::new();
        for argument in &mut call.args {
            kinds.push(self.part(argument)?);
        }
        if let [Some(left), Some(right)] = kinds.as_slice() {
            never_alike(id, &name, *left, *right)?;
        }
        Ok(*says)
    }

    /// Compiles what `matches` looks for.
    fn pattern(&mut self, id: u64, argument: Option<&IdedExpr>) -> At<()> {
        let Some(Expr::Literal(LiteralValue::String(pattern))) = argument.map(|arg| &arg.expr)
        else {
            return wrong(
                id,
                "the pattern of `matches` must be written out",
                Some("as in postgres.text.matches(\"^SELECT\")".to_owned()),
            );
        };
        let pattern = pattern.inner();
        match RegexBuilder::new(pattern).size_limit(PATTERN_LIMIT).build() {
            Ok(regex) => {
                self.patterns.insert(pattern.to_owned(), regex);
                Ok(())
            }
            Err(error) => {
                let error = error.to_string();
                let last = error.lines().last().unwrap_or_default();
                wrong(id, format!("bad regular expression: {last}"), None)
            }
        }
    }

    fn comprehension(&mut self, id: u64, of: &mut ComprehensionExpr) -> At<Option<Kind>> {
        if !self.bound.is_empty() {
            return wrong(id, "a macro inside of a macro", Some(ONE_MACRO.to_owned()));
        }
        if !is_list(&of.iter_range.expr) {
            return wrong(
                id,
                "a macro goes over a field, or a list that is written out",
                Some(ONE_MACRO.to_owned()),
            );
        }
        self.part(&mut of.iter_range)?;
        let roots = NAMES
            .iter()
            .map(|(name, ..)| name.split('.').next().unwrap_or(name));
        if roots.clone().any(|root| root == of.iter_var) {
            return wrong(id, format!("`{}` is a field's name", of.iter_var), None);
        }
        self.bound = vec![of.iter_var.clone(), of.accu_var.clone()];
        self.bound.extend(of.iter_var2.clone());
        let mut kind = None;
        for part in [
            &mut of.accu_init,
            &mut of.loop_cond,
            &mut of.loop_step,
            &mut of.result,
        ] {
            kind = self.part(part)?;
        }
        self.bound.clear();
        // The accumulator says what the whole is, and is not looked into.
        Ok(kind)
    }
}

const ONE_MACRO: &str = "write two of them side by side, with && or ||";

fn is_list(expr: &Expr) -> bool {
    matches!(expr, Expr::List(_)) || dotted(expr).is_some()
}

/// `a` of `a`, `a.b` and so on.
fn is_of(bound: &str, name: &str) -> bool {
    name.strip_prefix(bound)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The dotted name that an expression is; `labels["x"]` is `labels.x`.
fn dotted(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            let operand = dotted(&select.operand.expr)?;
            Some(format!("{operand}.{}", select.field))
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [of, Expr::Literal(LiteralValue::String(key))] =
                [&call.args.first()?.expr, &call.args.get(1)?.expr]
            else {
                return None;
            };
            let of = dotted(of)?;
            super::facts::has_named_members(&of).then(|| format!("{of}.{}", key.inner()))
        }
        _ => None,
    }
}

fn field(id: u64, name: &str) -> At<(Leaf, Kind)> {
    if let Some(found) = Leaf::named(name) {
        return Ok(found);
    }
    let names = NAMES.iter().map(|(known, ..)| *known);
    let inside = format!("{name}.");
    let help = if names.clone().any(|known| known.starts_with(&inside)) {
        let of: Vec<_> = names.filter(|known| known.starts_with(&inside)).collect();
        Some(format!("one of {}", of.join(", ")))
    } else {
        nearest(name, names)
    };
    let mut wrong = Wrong::new(format!("there is no `{name}`"));
    wrong.help = help;
    Err((id, Some(name.chars().count()), wrong))
}

/// Where a dotted name begins.
fn root(expr: &IdedExpr) -> u64 {
    match &expr.expr {
        Expr::Select(select) => root(&select.operand),
        Expr::Call(call) => call.args.first().map_or(expr.id, root),
        _ => expr.id,
    }
}

/// A comparison of two kinds has one answer, which nobody wants to ask for.
fn never_alike(id: u64, operator: &str, left: Kind, right: Kind) -> At<()> {
    let compares = [
        operators::EQUALS,
        operators::NOT_EQUALS,
        operators::LESS,
        operators::LESS_EQUALS,
        operators::GREATER,
        operators::GREATER_EQUALS,
    ]
    .contains(&operator);
    if compares && left != right {
        let lists = left == Kind::List || right == Kind::List;
        return wrong(
            id,
            format!("this compares {} with {}", left.name(), right.name()),
            lists.then(|| "write `\"x\" in list`, or list.exists(one, one == \"x\")".to_owned()),
        );
    }
    if operator == operators::IN && !matches!(right, Kind::List | Kind::Map) {
        return wrong(
            id,
            format!("`in` looks into a list, not into {}", right.name()),
            None,
        );
    }
    Ok(())
}
