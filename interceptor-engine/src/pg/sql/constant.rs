//! Texts that are constants, or put together from constants alone.
//!
//! Only what PostgreSQL certainly makes of them: literals, `||`, `format`,
//! `concat`, quoting. Anything else has no constant text.

use pg_query::Node;
use pg_query::protobuf as pb;
use pg_query::protobuf::AExprKind;
use pg_query::protobuf::a_const::Val;

use super::ast::{self, Ast};

/// Longer texts are not put together.
const MAX_TEXT: usize = 64 << 10;

/// The text that an expression certainly has.
pub(super) fn text(ast: Ast<'_>) -> Option<String> {
    let text = match ast {
        Ast::AConst(constant) => match &constant.val {
            Some(Val::Sval(text)) => text.sval.clone(),
            _ => return None,
        },
        Ast::TypeCast(cast) => {
            let name = cast.type_name.as_ref()?;
            // Other types change what they are given, or cut it off.
            let kept = matches!(
                name.names.last().and_then(ast::name),
                Some("text" | "varchar" | "regclass" | "refcursor" | "unknown")
            );
            if !kept || !name.typmods.is_empty() || !name.array_bounds.is_empty() {
                return None;
            }
            ast::of(&cast.arg).and_then(text)?
        }
        Ast::CollateClause(collate) => ast::of(&collate.arg).and_then(text)?,
        Ast::AExpr(expr) if is_concatenation(expr) => {
            let mut whole = ast::of(&expr.lexpr).and_then(piece)?;
            whole.push_str(&ast::of(&expr.rexpr).and_then(piece)?);
            whole
        }
        Ast::FuncCall(call) => called(call)?,
        _ => return None,
    };
    (text.len() <= MAX_TEXT).then_some(text)
}

/// A text, or a number that becomes one among texts.
fn piece(ast: Ast<'_>) -> Option<String> {
    match ast {
        Ast::AConst(constant) if !constant.isnull => match &constant.val {
            Some(Val::Ival(number)) => Some(number.ival.to_string()),
            _ => text(ast),
        },
        _ => text(ast),
    }
}

fn is_concatenation(expr: &pb::AExpr) -> bool {
    expr.kind() == AExprKind::AexprOp && ast::names(&expr.name) == ["||"]
}

fn called(call: &pb::FuncCall) -> Option<String> {
    let name = match ast::names(&call.funcname).as_slice() {
        [name] | ["pg_catalog", name] => (*name).to_owned(),
        _ => return None,
    };
    let plain = !call.func_variadic
        && !call.agg_distinct
        && call.agg_filter.is_none()
        && call.over.is_none()
        && call.agg_order.is_empty();
    if !plain {
        return None;
    }
    match name.as_str() {
        "format" => format(&call.args),
        "concat" => call.args.iter().map(node).collect(),
        "quote_ident" => only(&call.args).map(|text| quoted_name(&text)),
        "quote_literal" => only(&call.args).map(|text| quoted_text(&text)),
        _ => None,
    }
}

fn node(node: &Node) -> Option<String> {
    ast::from(node).and_then(piece)
}

fn only(args: &[Node]) -> Option<String> {
    match args {
        [only] => ast::from(only).and_then(text),
        _ => None,
    }
}

/// `format` with plain `%s`, `%I`, `%L`, with or without a position.
fn format(args: &[Node]) -> Option<String> {
    let (pattern, args) = args.split_first()?;
    let pattern = ast::from(pattern).and_then(text)?;
    let mut out = String::new();
    let mut next = 0_usize;
    let mut rest = pattern.as_str();
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (position, after) = after.split_at_checked(digits)?;
        let after = match (position.is_empty(), after.strip_prefix('$')) {
            (true, _) => after,
            (false, Some(after)) => {
                next = position.parse::<usize>().ok()?.checked_sub(1)?;
                after
            }
            // A width.
            (false, None) => return None,
        };
        let mut letters = after.chars();
        match letters.next()? {
            '%' => out.push('%'),
            kind @ ('s' | 'I' | 'L') => {
                let arg = args.get(next).and_then(node)?;
                next += 1;
                match kind {
                    's' => out.push_str(&arg),
                    'I' => out.push_str(&quoted_name(&arg)),
                    _ => out.push_str(&quoted_text(&arg)),
                }
            }
            _ => return None,
        }
        if out.len() > MAX_TEXT {
            return None;
        }
        rest = letters.as_str();
    }
    out.push_str(rest);
    Some(out)
}

/// Quoted in every case, which means the same.
fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quoted_text(text: &str) -> String {
    let text = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\"))
    } else {
        format!("'{text}'")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, parse};
    use super::*;

    fn constant(expression: &str) -> Option<String> {
        let sql = format!("SELECT {expression}");
        parse::with_tree(&sql, Dialect::default(), |tree| {
            let Some(Ast::SelectStmt(select)) = ast::of(&tree.stmts[0].stmt) else {
                panic!("{sql}");
            };
            match ast::from(&select.target_list[0]) {
                Some(Ast::ResTarget(target)) => ast::of(&target.val).and_then(text),
                _ => None,
            }
        })
        .unwrap()
    }

    #[test]
    fn what_is_put_together_from_constants_is_one() {
        for (expression, expected) in [
            ("'a'", "a"),
            ("'a' || 'b' || 5", "ab5"),
            ("$q$DROP$q$::text || E' TABLE\\n'", "DROP TABLE\n"),
            (
                "format('a %s %% %I %L', 'x', 'A\"b', 'o''c')",
                "a x % \"A\"\"b\" 'o''c'",
            ),
            ("format('%2$s %1$s', 1, 2)", "2 1"),
            ("concat('a', 1, 'b')", "a1b"),
            ("quote_ident('t')", "\"t\""),
            ("pg_catalog.quote_literal('a\\b')", "E'a\\\\b'"),
        ] {
            assert_eq!(
                constant(expression).as_deref(),
                Some(expected),
                "{expression}"
            );
        }
    }

    #[test]
    fn what_rests_on_anything_else_is_none() {
        for expression in [
            "a",
            "$1",
            "'a' || b",
            "'abc'::varchar(2)",
            "'abc'::name",
            "upper('a')",
            "format('%5s', 'a')",
            "format('%s', a)",
            "format('%s')",
            "mine.format('a')",
            "NULL",
            "5",
            "(SELECT 'a')",
        ] {
            assert_eq!(constant(expression), None, "{expression}");
        }
    }
}
