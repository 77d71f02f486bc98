//! `FunctionCall`: a function called by its number.
//!
//! libpq's large-object interface is the one caller that is left, so its
//! functions have names here; any other is named by its number.
//!
//! Source: PostgreSQL, `pg_proc.dat`.

use std::sync::Arc;

use interceptor_policy::operation::{Class, Classes, Statement};

use super::judge::ad_hoc;
use crate::pg::sql::Classified;

const LARGE_OBJECTS: [(u32, &str, Class); 14] = [
    (715, "lo_create", Class::Write),
    (764, "lo_import", Class::Write),
    (765, "lo_export", Class::Write),
    (952, "lo_open", Class::Read),
    (953, "lo_close", Class::Session),
    (954, "loread", Class::Read),
    (955, "lowrite", Class::Write),
    (956, "lo_lseek", Class::Read),
    (957, "lo_creat", Class::Write),
    (958, "lo_tell", Class::Read),
    (964, "lo_unlink", Class::Write),
    (1004, "lo_truncate", Class::Write),
    (3170, "lo_lseek64", Class::Read),
    (3171, "lo_tell64", Class::Read),
];

/// The call in words, and what it means.
pub(super) fn called(oid: u32) -> (String, Arc<Classified>) {
    let known = LARGE_OBJECTS.iter().find(|(number, _, _)| *number == oid);
    let (name, class) = match known {
        Some((_, name, class)) => ((*name).to_owned(), *class),
        None => (format!("oid:{oid}"), Class::Procedural),
    };
    let statement = Statement {
        tags: vec!["FUNCTION CALL"],
        classes: Classes::of(class),
        functions: vec![Arc::from(name.as_str())],
        ..Statement::default()
    };
    (
        format!("-- function call: {name}"),
        Arc::new(ad_hoc(statement)),
    )
}
