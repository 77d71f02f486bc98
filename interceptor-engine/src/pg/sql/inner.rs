//! Texts inside of a statement that run as SQL: what `query_to_xml` and its
//! like are given, and the pieces of a body.
//!
//! A text that is a constant is read as a part of the statement: its tags,
//! classes, tables, columns and functions are the statement's. Any other text
//! cannot be seen, and is `procedural`.

use std::sync::Arc;

use interceptor_policy::operation::Class;
use pg_query::Node;
use pg_query::protobuf as pb;

use super::ast::{self, Ast};
use super::parse::{self, Grammar, ParseError};
use super::statement::{self, Read};
use super::walk::{Setting, Variables, Walker};
use super::{Dialect, Effect, constant};

/// Texts in texts in texts: deeper ones are not seen.
const MAX_DEPTH: u8 = 4;

/// What it costs to begin with a text, in steps.
const STEPS_PER_TEXT: usize = 1000;

/// Reads a text inside of what `walker` walks. `None` where it cannot be seen.
pub(super) fn read(
    walker: &mut Walker,
    text: &str,
    grammar: Grammar,
    variables: Option<Arc<Variables>>,
) -> Option<Vec<Read>> {
    if walker.setting.depth >= MAX_DEPTH {
        return None;
    }
    walker.spend(text.len().saturating_add(STEPS_PER_TEXT));
    if walker.is_exhausted() {
        return None;
    }
    let setting = Setting {
        dialect: walker.setting.dialect,
        depth: walker.setting.depth + 1,
        variables,
        steps: walker.steps(),
    };
    let reads = all(walker, text, grammar, &setting)?;
    // The statement may change the dialect before it runs the text.
    if text.contains('\\') {
        let other = Setting {
            dialect: Dialect {
                standard_conforming_strings: !setting.dialect.standard_conforming_strings,
            },
            steps: walker.steps(),
            ..setting
        };
        let reads_so = all(walker, text, grammar, &other)?;
        let same = reads.len() == reads_so.len()
            && reads
                .iter()
                .zip(&reads_so)
                .all(|(one, other)| one.statement == other.statement);
        if !same {
            return None;
        }
    }
    Some(reads)
}

fn all(walker: &mut Walker, text: &str, grammar: Grammar, setting: &Setting) -> Option<Vec<Read>> {
    let mut setting = setting.clone();
    let reads = parse::with_inner_tree(text, grammar, setting.dialect, |tree| {
        let mut reads = Vec::with_capacity(tree.stmts.len().min(64));
        for raw in &tree.stmts {
            let read = match ast::of(&raw.stmt).map(|ast| statement::read(ast, &setting)) {
                Some(Ok(read)) => read,
                // Too much here is too much for the whole.
                Some(Err(_)) => {
                    setting.steps = u64::MAX;
                    return Err(ParseError::Refused);
                }
                None => return Err(ParseError::Refused),
            };
            setting.steps = read.steps;
            reads.push(read);
        }
        Ok(reads)
    });
    walker.resume_at(setting.steps);
    reads.ok()?.ok()
}

/// Reads a text and adds it to what `walker` walks. False where it cannot be seen.
pub(super) fn absorb(walker: &mut Walker, text: &str) -> bool {
    let Some(reads) = read(walker, text, Grammar::Statements, None) else {
        return false;
    };
    for read in reads {
        add(walker, read);
    }
    true
}

/// Adds what was read of a text.
pub(super) fn add(walker: &mut Walker, read: Read) {
    let runs = walker.runs;
    walker.absorb(&read.statement, runs);
    if runs {
        walker
            .effects
            .extend(read.effects.into_iter().filter_map(quiet));
    }
}

/// What an effect is to the session where nobody can say whether the text runs,
/// and how often: a name means nothing certain afterwards.
fn quiet(effect: Effect) -> Option<Effect> {
    match effect {
        Effect::Prepare { name, .. } => Some(Effect::Deallocate { name: Some(name) }),
        Effect::DeclareCursor { name, .. } => Some(Effect::Close { cursor: Some(name) }),
        Effect::SetParameter { name, value, local } => {
            Some(Effect::SetParameter { name, value, local })
        }
        Effect::Deallocate { .. }
        | Effect::Close { .. }
        | Effect::DiscardAll
        | Effect::ResetAll
        | Effect::Temporary { .. } => Some(effect),
        // The server refuses these there, or they say nothing that is not in
        // the statement's classes.
        _ => None,
    }
}

/// Which argument of a call runs.
enum Runs<'a> {
    /// These are SQL.
    Sql(Vec<&'a Node>),
    /// This is the name of a table that is read whole.
    Table(&'a Node),
    /// One of them, but which is not certain.
    Unknown,
}

/// Whether functions of that name run a text that they are given.
pub(super) fn runs_text(name: &str) -> bool {
    matches!(
        name,
        "query_to_xml"
            | "query_to_xmlschema"
            | "query_to_xml_and_xmlschema"
            | "table_to_xml"
            | "table_to_xmlschema"
            | "table_to_xml_and_xmlschema"
            | "ts_stat"
            | "ts_rewrite"
            | "dblink"
            | "dblink_exec"
            | "dblink_open"
            | "dblink_send_query"
            | "crosstab"
            | "crosstab2"
            | "crosstab3"
            | "crosstab4"
    )
}

fn which<'a>(name: &str, args: &'a [Node]) -> Option<Runs<'a>> {
    // By name, arguments are in any order.
    if let Some(value) = args.iter().find_map(|arg| match ast::from(arg) {
        Some(Ast::NamedArgExpr(named)) if named.name == "query" => named.arg.as_deref(),
        _ => None,
    }) {
        return Some(Runs::Sql(vec![value]));
    }
    if args
        .iter()
        .any(|arg| matches!(ast::from(arg), Some(Ast::NamedArgExpr(_))))
    {
        return Some(Runs::Unknown);
    }
    let sql = |at: usize| {
        args.get(at)
            .map_or(Runs::Unknown, |arg| Runs::Sql(vec![arg]))
    };
    let is_boolean = |at: usize| {
        matches!(
            args.get(at).and_then(ast::from),
            Some(Ast::AConst(constant))
                if matches!(&constant.val, Some(pb::a_const::Val::Boolval(_)))
        )
    };
    Some(match (name, args.len()) {
        ("table_to_xml" | "table_to_xmlschema" | "table_to_xml_and_xmlschema", _) => {
            args.first().map_or(Runs::Unknown, Runs::Table)
        }
        ("ts_rewrite", 3) => return None,
        ("ts_rewrite" | "dblink_send_query", _) => sql(1),
        ("dblink" | "dblink_exec", 1) => sql(0),
        ("dblink" | "dblink_exec", 2) if is_boolean(1) => sql(0),
        ("dblink" | "dblink_exec", 2 | 3) => sql(1),
        ("dblink_open", 2) => sql(1),
        ("dblink_open", 3) if is_boolean(2) => sql(1),
        ("dblink_open", 3 | 4) => sql(2),
        // The second text of two is SQL too; a number is a count of columns.
        ("crosstab", 2) => match args.get(1).and_then(ast::from) {
            Some(Ast::AConst(constant))
                if matches!(&constant.val, Some(pb::a_const::Val::Ival(_))) =>
            {
                sql(0)
            }
            _ => Runs::Sql(args.iter().collect()),
        },
        ("query_to_xml" | "query_to_xmlschema" | "query_to_xml_and_xmlschema", _) => sql(0),
        ("ts_stat" | "crosstab" | "crosstab2" | "crosstab3" | "crosstab4", _) => sql(0),
        _ => Runs::Unknown,
    })
}

/// Adds what the text runs that a call is given.
pub(super) fn text_of_call(walker: &mut Walker, call: &pb::FuncCall) {
    let Some(name) = call.funcname.last().and_then(ast::name) else {
        return;
    };
    if !runs_text(name) {
        return;
    }
    let Some(runs) = which(name, &call.args) else {
        return;
    };
    // What comes back is whatever the text reads.
    walker.unclear();
    let seen = match runs {
        Runs::Unknown => false,
        Runs::Table(arg) => ast::from(arg)
            .and_then(constant::text)
            .is_some_and(|name| absorb_table(walker, &name)),
        Runs::Sql(args) => args.into_iter().all(|arg| {
            ast::from(arg)
                .and_then(constant::text)
                .is_some_and(|text| absorb(walker, &text))
        }),
    };
    if !seen && walker.runs {
        walker.class(Class::Procedural);
    }
}

fn absorb_table(walker: &mut Walker, name: &str) -> bool {
    let text = format!("SELECT * FROM {name}");
    match read(walker, &text, Grammar::Statements, None) {
        Some(mut reads) if reads.len() == 1 => {
            if let Some(read) = reads.pop() {
                add(walker, read);
            }
            true
        }
        _ => false,
    }
}
