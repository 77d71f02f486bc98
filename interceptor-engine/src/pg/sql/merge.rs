//! Two statements in one: `EXECUTE` and what it executes, `FETCH` and the
//! cursor's query.

use std::sync::Arc;

use interceptor_policy::operation::{Class, Classes, MoveTo, Statement};

use super::{functions, inner as text, moves};

/// What `EXECUTE` or `FETCH` (`outer`) means once the statement that it runs
/// (`inner`) is known: both. `EXPLAIN EXECUTE` without `ANALYZE` does not run it.
#[must_use]
pub fn merge(outer: &Statement, inner: &Statement) -> Statement {
    let runs = outer.tags.first() != Some(&"EXPLAIN") || outer.tags.contains(&"EXECUTE");
    let mut merged = outer.clone();
    // `procedural` stood for what was not known yet, unless a function among
    // the parameters says so too.
    let own = outer.functions.iter().any(|name| {
        let (schema, name) = match name.rsplit_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, &**name),
        };
        functions::classes(schema, name).contains(Class::Procedural) || text::runs_text(name)
    });
    merged.classes = Classes::default();
    for (_, class) in Class::NAMES {
        if outer.classes.contains(*class) && (*class != Class::Procedural || own) {
            merged.classes.insert(*class);
        }
    }
    if runs {
        merged.classes = merged.classes.union(inner.classes);
        for tag in &inner.tags {
            if !merged.tags.contains(tag) {
                merged.tags.push(tag);
            }
        }
        merged.where_clause = match (merged.where_clause, inner.where_clause) {
            (Some(known), Some(more)) => Some(known.min(more)),
            (known, more) => known.or(more),
        };
        let changes = Classes::of(Class::Write).union(Classes::of(Class::Ddl));
        merged.writes_inside_read |= inner.writes_inside_read
            || (outer.tags.first() == Some(&"EXPLAIN") && inner.classes.intersects(changes));
    } else if inner.classes.contains(Class::Procedural) {
        merged.classes.insert(Class::Procedural);
    }
    for table in &inner.tables {
        if !merged.tables.contains(table) {
            merged.tables.push(table.clone());
        }
    }
    for column in &inner.columns {
        if !merged.columns.contains(column) {
            merged.columns.push(column.clone());
        }
    }
    for function in &inner.functions {
        if !merged.functions.contains(function) {
            merged.functions.push(Arc::clone(function));
        }
    }
    for column in &inner.predicates {
        if !merged.predicates.contains(column) {
            merged.predicates.push(column.clone());
        }
    }
    let mut more = if runs {
        inner.moves.clone()
    } else {
        Vec::new()
    };
    match outer.tags.first() {
        Some(&("EXECUTE" | "FETCH")) => merged.output = inner.output.clone(),
        // `CREATE TABLE … AS EXECUTE`
        Some(tag) if tag.starts_with("CREATE ") => {
            more.extend(moves::of_output(inner, MoveTo::Table));
        }
        _ => {}
    }
    for moved in more {
        if !merged.moves.contains(&moved) {
            merged.moves.push(moved);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::super::classify;
    use super::*;
    use interceptor_policy::operation::{Output, WhereClause};

    fn merged(outer: &str, inner: &str) -> Statement {
        merge(
            &classify(outer).statements[0],
            &classify(inner).statements[0],
        )
    }

    #[test]
    fn an_execute_means_what_it_executes() {
        let merged = merged("EXECUTE p(1)", "DELETE FROM users RETURNING ssn");
        assert_eq!(merged.tags, ["EXECUTE", "DELETE"]);
        assert_eq!(merged.where_clause, Some(WhereClause::Missing));
        assert!(merged.classes.contains(Class::Write));
        assert!(
            !merged.classes.contains(Class::Procedural),
            "it is known now"
        );
        assert_ne!(merged.output, Output::Unclear);
    }

    #[test]
    fn what_the_parameters_of_an_execute_run_stays() {
        let merged = merged("EXECUTE p(my_function())", "SELECT 1");
        assert!(merged.classes.contains(Class::Procedural));
    }

    #[test]
    fn an_explain_runs_what_it_executes_only_when_it_analyzes() {
        let plain = merged("EXPLAIN EXECUTE p", "DELETE FROM users");
        assert!(!plain.classes.contains(Class::Write));
        let analyzed = merged("EXPLAIN ANALYZE EXECUTE p", "DELETE FROM users");
        assert!(analyzed.classes.contains(Class::Write) && analyzed.writes_inside_read);
        assert_eq!(analyzed.output, Output::Nothing);
    }
}
