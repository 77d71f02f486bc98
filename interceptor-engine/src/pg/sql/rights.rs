//! Who the session acts as, and what the server believes, changed by other
//! statements than those made for it.

use std::sync::Arc;

use interceptor_policy::operation::{Class, Table};

use super::ast::Ast;
use super::effects;
use super::walk::Walker;

/// Adds the class of a `set_config` that sets a role, or may.
pub(super) fn add(walker: &mut Walker, ast: Ast<'_>) {
    // One that is only written down (in a view) adds no class.
    if !walker.calls("set_config") || !walker.found.classes.contains(Class::Session) {
        return;
    }
    let harmless = effects::configured(ast).is_some_and(|names| {
        names
            .iter()
            .all(|name| !matches!(&**name, "role" | "session_authorization"))
    });
    if !harmless {
        walker.class(Class::Dcl);
    }
}

/// Adds what writing rows of a system catalog does.
pub(super) fn written(walker: &mut Walker, table: &Table) {
    let system = match table.schema.as_deref() {
        Some(schema) => schema == "pg_catalog",
        None => table.name.starts_with("pg_"),
    };
    if !system || !walker.runs {
        return;
    }
    if &*table.name == "pg_settings" {
        // A rule makes an `UPDATE` of it a `set_config` of each row.
        walker.add_function(Arc::from("set_config"));
        // Roles are none of these rows.
        walker.class(Class::Session);
    } else {
        walker.class(Class::Ddl);
        walker.class(Class::Dcl);
    }
}
