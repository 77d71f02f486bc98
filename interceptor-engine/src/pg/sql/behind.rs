//! Functions that a statement puts behind something else: a trigger, an
//! operator, a cast, an aggregate. What uses that thing later names it, and not
//! the function; so the statement that makes it does.

use pg_query::Node;
use pg_query::protobuf as pb;

use super::ast::{self, Ast};
use super::walk::Walker;

/// Names the functions that `ast` puts behind what it makes.
pub(super) fn name(walker: &mut Walker, ast: Ast<'_>) {
    match ast {
        Ast::CreateTrigStmt(trigger) => function(walker, &trigger.funcname),
        Ast::CreateEventTrigStmt(trigger) => function(walker, &trigger.funcname),
        Ast::CreateCastStmt(cast) => object(walker, cast.func.as_ref()),
        Ast::CreateConversionStmt(conversion) => function(walker, &conversion.func_name),
        Ast::CreateTransformStmt(transform) => {
            object(walker, transform.fromsql.as_ref());
            object(walker, transform.tosql.as_ref());
        }
        Ast::CreatePLangStmt(language) => {
            function(walker, &language.plhandler);
            function(walker, &language.plinline);
            function(walker, &language.plvalidator);
        }
        Ast::CreateAmStmt(method) => function(walker, &method.handler_name),
        Ast::CreateOpClassStmt(class) => items(walker, &class.items),
        Ast::AlterOpFamilyStmt(family) => items(walker, &family.items),
        Ast::DefineStmt(define) => options(walker, &define.definition),
        Ast::AlterOperatorStmt(alter) => options(walker, &alter.options),
        Ast::AlterTypeStmt(alter) => options(walker, &alter.options),
        Ast::CreateFdwStmt(wrapper) => options(walker, &wrapper.func_options),
        Ast::AlterFdwStmt(wrapper) => options(walker, &wrapper.func_options),
        _ => {}
    }
}

fn function(walker: &mut Walker, names: &[Node]) {
    // It does not run now: a name, and no class.
    let runs = std::mem::replace(&mut walker.runs, false);
    match ast::names(names).as_slice() {
        [] => {}
        [name] => walker.function(None, name),
        [.., schema, name] => walker.function(Some(schema), name),
    }
    walker.runs = runs;
}

fn object(walker: &mut Walker, object: Option<&pb::ObjectWithArgs>) {
    if let Some(object) = object {
        function(walker, &object.objname);
    }
}

fn items(walker: &mut Walker, items: &[Node]) {
    for item in items {
        if let Some(Ast::CreateOpClassItem(item)) = ast::from(item) {
            // Operators have names of symbols, which no rule asks for.
            object(walker, item.name.as_ref());
        }
    }
}

/// Options that name a function: `PROCEDURE = f` is read as a type's name.
fn options(walker: &mut Walker, options: &[Node]) {
    const FUNCTIONS: &[&str] = &[
        "procedure",
        "function",
        "restrict",
        "join",
        "sfunc",
        "finalfunc",
        "combinefunc",
        "serialfunc",
        "deserialfunc",
        "msfunc",
        "minvfunc",
        "mfinalfunc",
        "sfunc1",
        "input",
        "output",
        "receive",
        "send",
        "typmod_in",
        "typmod_out",
        "analyze",
        "subscript",
        "subtype_diff",
        "canonical",
        "start",
        "gettoken",
        "end",
        "lextypes",
        "headline",
        "init",
        "lexize",
        "handler",
        "validator",
    ];
    for option in options {
        let Some(Ast::DefElem(option)) = ast::from(option) else {
            continue;
        };
        if !FUNCTIONS.contains(&option.defname.to_ascii_lowercase().as_str()) {
            continue;
        }
        match ast::of(&option.arg) {
            Some(Ast::TypeName(name)) => function(walker, &name.names),
            Some(Ast::List(list)) => function(walker, &list.items),
            Some(Ast::String(_)) => {
                if let Some(node) = option.arg.as_deref() {
                    function(walker, std::slice::from_ref(node));
                }
            }
            _ => {}
        }
    }
}
