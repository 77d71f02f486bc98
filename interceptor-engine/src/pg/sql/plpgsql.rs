//! Blocks of PL/pgSQL: each statement and expression in them, read as SQL.
//!
//! PostgreSQL's own compiler (see `parse`) takes a block apart; every piece of
//! SQL in what it gives is read, wherever it stands, whether or not it would be
//! reached.
//!
//! # Variables
//!
//! `ssn` in a body is a variable or a column. It is taken for a variable only
//! where one of that name is certainly in view: there is one block with
//! declarations and no other (in which more could be declared), and no pragma
//! that prefers columns. Where both are in view PostgreSQL refuses the name as
//! ambiguous. Elsewhere it is taken for a column, which it may be.
//!
//! # Functions
//!
//! The compiler's way for blocks knows no parameters, and no result. So a
//! function's body is put into a block that declares its parameters, and its
//! `RETURN`s are written as statements that run the same SQL. This is done on
//! tokens, by a scanner of our own; where that errs, the body is refused, or
//! names what it does not name. Nothing of it runs.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use interceptor_policy::operation::Class;
use pg_query::protobuf as pb;
use serde_json::Value;

use super::ast::{self, Ast};
use super::parse::{self, Grammar};
use super::tokens::{self, Token};
use super::walk::{Variables, Walker};
use super::{constant, inner};

/// Adds what a block runs. False where some of it cannot be seen.
pub(super) fn block(walker: &mut Walker, text: &str) -> bool {
    Body::read(walker, text, 1)
}

/// Adds what a function's body names. False where some of it cannot be seen.
pub(super) fn function(
    walker: &mut Walker,
    text: &str,
    parameters: &[&pb::FunctionParameter],
    is_trigger: bool,
) -> bool {
    Body::read(walker, &as_block(text, parameters, is_trigger), 2)
}

struct Body<'a> {
    walker: &'a mut Walker,
    /// All of it could be seen until now.
    whole: bool,
    /// Names are certain: see the module's text.
    certain: bool,
}

impl Body<'_> {
    fn read(walker: &mut Walker, text: &str, blocks: usize) -> bool {
        walker.spend(text.len());
        let Ok((json, values)) = parse::block(text, walker.setting.dialect) else {
            return false;
        };
        let function = at(&json, "/PLpgSQL_function");
        let certain = count_blocks(at(function, "/action")) <= blocks
            && !text.to_ascii_lowercase().contains("variable_conflict");
        let variables = Arc::new(Variables {
            certain: if certain {
                variables(function)
            } else {
                HashSet::new()
            },
        });
        let mut body = Body {
            walker,
            whole: true,
            certain,
        };
        // An initial value sees only what is declared before it.
        let none = Arc::new(Variables::default());
        body.visit("", at(function, "/datums"), &none);
        for value in values {
            body.fragment(&value, 2, &none);
        }
        body.visit("", at(function, "/action"), &variables);
        body.whole
    }

    fn visit(&mut self, key: &str, value: &Value, variables: &Arc<Variables>) {
        match value {
            Value::Array(items) => {
                for item in items {
                    self.visit(key, item, variables);
                }
            }
            Value::Object(fields) => {
                for (field, value) in fields {
                    match field.as_str() {
                        "PLpgSQL_expr" => self.expression(key == "dynquery", value, variables),
                        "PLpgSQL_stmt_dynexecute" | "PLpgSQL_stmt_dynfors" => {
                            self.dynamic(value, variables);
                        }
                        "PLpgSQL_stmt_fori" => self.counting(value, variables),
                        "PLpgSQL_stmt_commit" => self.transaction("COMMIT"),
                        "PLpgSQL_stmt_rollback" => self.transaction("ROLLBACK"),
                        _ => self.visit(field, value, variables),
                    }
                }
            }
            _ => {}
        }
    }

    fn dynamic(&mut self, statement: &Value, variables: &Arc<Variables>) {
        for (field, value) in statement.as_object().into_iter().flatten() {
            match (field.as_str(), value.get("PLpgSQL_expr")) {
                ("query", Some(expression)) => self.expression(true, expression, variables),
                _ => self.visit(field, value, variables),
            }
        }
    }

    /// `FOR i IN 1 .. 10`: `i` is in view in the loop alone.
    fn counting(&mut self, statement: &Value, variables: &Arc<Variables>) {
        let name = at(statement, "/var/PLpgSQL_var/refname").as_str();
        for (field, value) in statement.as_object().into_iter().flatten() {
            match (field.as_str(), name) {
                ("body", Some(name)) if self.certain => {
                    self.walker.spend(variables.certain.len());
                    if self.walker.is_exhausted() {
                        return;
                    }
                    let mut inside = Variables::clone(variables);
                    inside.certain.insert(name.to_owned());
                    self.visit(field, value, &Arc::new(inside));
                }
                _ => self.visit(field, value, variables),
            }
        }
    }

    fn transaction(&mut self, tag: &'static str) {
        if self.walker.runs {
            self.walker.tag(tag);
            self.walker.class(Class::Session);
        }
    }

    fn expression(&mut self, runs_its_value: bool, expression: &Value, variables: &Arc<Variables>) {
        let (Some(text), Some(mode)) = (
            at(expression, "/query").as_str(),
            at(expression, "/parseMode")
                .as_i64()
                .and_then(|mode| i8::try_from(mode).ok()),
        ) else {
            self.whole = false;
            return;
        };
        self.fragment(text, mode, variables);
        if runs_its_value {
            let seen = value_of(self.walker, text, mode)
                .is_some_and(|text| inner::absorb(self.walker, &text));
            self.whole &= seen;
        }
    }

    fn fragment(&mut self, text: &str, mode: i8, variables: &Arc<Variables>) {
        let grammar = Grammar::Fragment(mode);
        let Some(reads) = inner::read(self.walker, text, grammar, Some(Arc::clone(variables)))
        else {
            self.whole = false;
            return;
        };
        for mut read in reads {
            if mode != 0 {
                // PL/pgSQL makes a SELECT of every expression.
                read.statement.tags.retain(|tag| *tag != "SELECT");
                read.statement.writes_inside_read = false;
            }
            inner::add(self.walker, read);
        }
    }
}

/// The constant text that an expression has.
fn value_of(walker: &Walker, text: &str, mode: i8) -> Option<String> {
    let grammar = Grammar::Fragment(mode);
    parse::with_inner_tree(text, grammar, walker.setting.dialect, |tree| {
        let [raw] = tree.stmts.as_slice() else {
            return None;
        };
        match ast::of(&raw.stmt) {
            Some(Ast::SelectStmt(select))
                if select.from_clause.is_empty()
                    && select.where_clause.is_none()
                    && select.larg.is_none()
                    && select.target_list.len() == 1 =>
            {
                match select.target_list.first().and_then(ast::from) {
                    Some(Ast::ResTarget(target)) => ast::of(&target.val).and_then(constant::text),
                    _ => None,
                }
            }
            _ => None,
        }
    })
    .ok()
    .flatten()
}

/// What stands there; nothing where there is nothing.
fn at<'a>(value: &'a Value, place: &str) -> &'a Value {
    value.pointer(place).unwrap_or(&Value::Null)
}

fn count_blocks(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(count_blocks).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(field, value)| usize::from(field == "PLpgSQL_stmt_block") + count_blocks(value))
            .sum(),
        _ => 0,
    }
}

/// Names that are declared, apart from those of loops and handlers.
fn variables(function: &Value) -> HashSet<String> {
    let mut names: HashSet<String> = at(function, "/datums")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .flat_map(|datum| datum.values())
        .filter_map(|datum| at(datum, "/refname").as_str())
        .map(str::to_owned)
        .collect();
    let mut elsewhere = HashSet::from(["sqlstate".to_owned(), "sqlerrm".to_owned()]);
    loop_variables(at(function, "/action"), &mut elsewhere);
    names.retain(|name| !elsewhere.contains(name));
    names
}

fn loop_variables(value: &Value, found: &mut HashSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| loop_variables(item, found)),
        Value::Object(fields) => {
            for (field, value) in fields {
                if field == "PLpgSQL_stmt_fori"
                    && let Some(name) = at(value, "/var/PLpgSQL_var/refname").as_str()
                {
                    found.insert(name.to_owned());
                }
                loop_variables(value, found);
            }
        }
        _ => {}
    }
}

/// A function's body as a block; see the module's text.
fn as_block(text: &str, parameters: &[&pb::FunctionParameter], is_trigger: bool) -> String {
    let mut block = String::from("DECLARE \"$c\" refcursor; ");
    for (at, parameter) in parameters.iter().enumerate() {
        let kind = kind_of(parameter.arg_type.as_ref());
        let _ = write!(block, "\"${}\" {kind}; ", at + 1);
        if !parameter.name.is_empty() {
            let _ = write!(
                block,
                "\"{}\" {kind}; ",
                parameter.name.replace('"', "\"\"")
            );
        }
    }
    if is_trigger {
        block.push_str(
            "new record; old record; tg_argv text[]; tg_name text; tg_when text; tg_level text; \
             tg_op text; tg_relid oid; tg_relname text; tg_table_name text; \
             tg_table_schema text; tg_nargs int; tg_event text; tg_tag text; ",
        );
    }
    block.push_str("BEGIN ");
    rewritten(text, &mut block);
    block.push_str("\n; END");
    block
}

/// A type that takes what a parameter's takes, as far as the compiler looks.
fn kind_of(of: Option<&pb::TypeName>) -> &'static str {
    let name = of
        .and_then(|of| of.names.last())
        .and_then(ast::name)
        .unwrap_or_default();
    if of.is_some_and(|of| !of.array_bounds.is_empty()) {
        return "text[]";
    }
    match name {
        "refcursor" => "refcursor",
        "int2" | "int4" | "int8" | "text" | "varchar" | "bpchar" | "bool" | "numeric"
        | "float4" | "float8" | "date" | "time" | "timetz" | "timestamp" | "timestamptz"
        | "interval" | "uuid" | "json" | "jsonb" | "bytea" | "inet" | "oid" | "regclass"
        | "name" => "text",
        _ => "record",
    }
}

/// Writes a body with its `RETURN`s as other statements, without the `;` at its
/// end and the `#` options at its beginning.
fn rewritten(text: &str, out: &mut String) {
    let all = tokens::scan(text);
    let word = |at: usize| all.get(at).and_then(|token| token.word(text));
    let is = |at: usize, expected: &str| {
        word(at).is_some_and(|word| word.eq_ignore_ascii_case(expected))
    };
    let symbol = |at: usize, expected: u8| matches!(all.get(at), Some(Token::Symbol { byte, .. }) if *byte == expected);
    let mut first = 0;
    // `#variable_conflict error`: two words a line.
    while symbol(first, b'#') && word(first + 1).is_some() && word(first + 2).is_some() {
        first += 3;
    }
    let mut last = all.len();
    while last > first && symbol(last - 1, b';') {
        last -= 1;
    }
    let end = match last.checked_sub(1).and_then(|at| all.get(at)) {
        Some(token) => token.end(),
        None => return,
    };
    let mut from = all.get(first).map_or(0, Token::start);
    let mut copy = |from: usize, to: usize, instead: &str| {
        out.push_str(text.get(from..to).unwrap_or_default());
        out.push_str(instead);
    };
    for at in first..last {
        let begins = at == first
            || symbol(at - 1, b';')
            || (symbol(at - 1, b'>') && at >= 2 && symbol(at - 2, b'>'))
            || ["begin", "then", "else", "loop"]
                .iter()
                .any(|word| is(at - 1, word));
        if !begins || !is(at, "return") {
            continue;
        }
        let (replaced, instead) = if is(at + 1, "query") {
            (at + 1, "OPEN \"$c\" FOR")
        } else if is(at + 1, "next") && symbol(at + 2, b';') {
            (at + 1, "RETURN")
        } else if is(at + 1, "next") {
            (at + 1, "PERFORM")
        } else if symbol(at + 1, b';') || symbol(at + 1, b'=') || symbol(at + 1, b':') {
            continue;
        } else {
            (at, "PERFORM")
        };
        if let (Some(start), Some(stop)) = (all.get(at), all.get(replaced)) {
            copy(from, start.start(), instead);
            from = stop.end();
        }
    }
    copy(from, end, "");
}
