//! Bodies: `DO` blocks, which run, and functions', which are written down.
//!
//! A block that could be read whole is as harmless as what is in it. What could
//! not be read (a text that is put together when it runs, a language other than
//! SQL and PL/pgSQL) leaves it `procedural`: code that the statement does not
//! show. A function that is made does nothing yet, but what its body names is
//! named, as in a view.

use std::sync::Arc;

use interceptor_policy::operation::{Class, Classes};
use pg_query::Node;
use pg_query::protobuf as pb;

use super::ast::{self, Ast};
use super::parse::Grammar;
use super::statement::Reader;
use super::walk::{Variables, Walker};
use super::{inner, plpgsql};

/// Adds what a `DO` block runs.
pub(super) fn run(reader: &mut Reader, block: &pb::DoStmt) {
    let walker = &mut reader.walker;
    let code = Code::of(&block.args);
    walker.found.classes = Classes::default();
    if !code.read(walker, &[], false) {
        walker.class(Class::Procedural);
    }
    if walker.classes().is_empty() {
        // It only computes, as `SELECT 1` does.
        walker.class(Class::Read);
    }
}

/// Adds what the body of a function names.
pub(super) fn written_down(reader: &mut Reader, create: &pb::CreateFunctionStmt) {
    let walker = &mut reader.walker;
    let code = Code::of(&create.options);
    let native = matches!(code.language, Some("c" | "internal"));
    if native {
        // Making it loads the library, and runs what the library begins with.
        walker.class(Class::Procedural);
        return;
    }
    if create.sql_body.is_some() {
        return;
    }
    let parameters: Vec<&pb::FunctionParameter> = create
        .parameters
        .iter()
        .filter_map(|node| match ast::from(node) {
            Some(Ast::FunctionParameter(parameter)) => Some(parameter),
            _ => None,
        })
        .collect();
    let is_trigger = create.return_type.as_ref().is_some_and(|of| {
        matches!(
            of.names.last().and_then(ast::name),
            Some("trigger" | "event_trigger")
        )
    });
    walker.runs = false;
    let whole = code.read(walker, &parameters, is_trigger);
    walker.runs = true;
    if !whole {
        walker.class(Class::Procedural);
    }
}

/// A body as it is written.
struct Code<'a> {
    text: Option<&'a str>,
    language: Option<&'a str>,
}

impl<'a> Code<'a> {
    fn of(options: &'a [Node]) -> Self {
        let mut code = Self {
            text: None,
            language: None,
        };
        for option in options {
            let Some(Ast::DefElem(option)) = ast::from(option) else {
                continue;
            };
            let text = match ast::of(&option.arg) {
                Some(Ast::String(text)) => Some(text.sval.as_str()),
                Some(Ast::List(list)) => match ast::names(&list.items).as_slice() {
                    [only] => Some(*only),
                    _ => None,
                },
                _ => None,
            };
            match option.defname.as_str() {
                "as" => code.text = text,
                "language" => code.language = text,
                _ => {}
            }
        }
        code
    }

    /// Adds what the body names, and does where it runs. False where some of
    /// that cannot be seen.
    fn read(
        &self,
        walker: &mut Walker,
        parameters: &[&pb::FunctionParameter],
        is_trigger: bool,
    ) -> bool {
        let Some(text) = self.text else { return false };
        match self.language {
            Some("sql") => {
                // A column is meant before a parameter of its name.
                let variables = Arc::new(Variables::default());
                match inner::read(walker, text, Grammar::Statements, Some(variables)) {
                    Some(reads) => {
                        for read in reads {
                            inner::add(walker, read);
                        }
                        true
                    }
                    None => false,
                }
            }
            // Only `DO` may leave the language out.
            None | Some("plpgsql") if walker.runs => plpgsql::block(walker, text),
            Some("plpgsql") => plpgsql::function(walker, text, parameters, is_trigger),
            _ => false,
        }
    }
}
