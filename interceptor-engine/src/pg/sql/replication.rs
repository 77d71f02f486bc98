//! The commands of a replication connection.
//!
//! A connection opened with `replication` in its startup message speaks a
//! grammar of its own beside SQL (PostgreSQL manual, page
//! `protocol-replication`). The server picks the grammar by the first keyword,
//! and so does this: what follows it is not read.

use interceptor_policy::operation::{Class, Classes, Sql, Statement};

/// The keywords by which a replication command is told from SQL, each with its
/// tag. `SHOW` is in both grammars and means the same.
const COMMANDS: &[(&str, &str)] = &[
    ("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM"),
    ("READ_REPLICATION_SLOT", "READ_REPLICATION_SLOT"),
    ("BASE_BACKUP", "BASE_BACKUP"),
    ("CREATE_REPLICATION_SLOT", "CREATE_REPLICATION_SLOT"),
    ("DROP_REPLICATION_SLOT", "DROP_REPLICATION_SLOT"),
    ("ALTER_REPLICATION_SLOT", "ALTER_REPLICATION_SLOT"),
    ("START_REPLICATION", "START_REPLICATION"),
    ("TIMELINE_HISTORY", "TIMELINE_HISTORY"),
    ("UPLOAD_MANIFEST", "UPLOAD_MANIFEST"),
];

/// Reads a text sent on a replication connection; `None` when its first
/// keyword is none of the replication grammar's, so that it is SQL.
#[must_use]
pub fn classify_replication(text: &str) -> Option<Sql> {
    let start = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let end = start
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(start.len());
    let word = start.get(..end)?;
    let (_, tag) = COMMANDS
        .iter()
        .find(|(keyword, _)| keyword.eq_ignore_ascii_case(word))?;
    Some(Sql {
        statements: vec![Statement {
            tags: vec![tag],
            classes: Classes::of(Class::Replication),
            ..Statement::default()
        }],
        resolved: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replication_command_is_known_by_its_first_word() {
        for text in [
            "IDENTIFY_SYSTEM",
            "identify_system;",
            " \n START_REPLICATION SLOT \"a\" LOGICAL 0/0",
            "BASE_BACKUP(LABEL 'x')",
        ] {
            let sql = classify_replication(text).expect(text);
            assert!(sql.statements[0].classes.contains(Class::Replication));
        }
    }

    #[test]
    fn sql_on_a_replication_connection_is_left_to_the_sql_grammar() {
        for text in [
            "SELECT 1",
            "SHOW x",
            "",
            "IDENTIFY_SYSTEMS",
            "\"IDENTIFY_SYSTEM\"",
        ] {
            assert!(classify_replication(text).is_none(), "{text}");
        }
    }
}
