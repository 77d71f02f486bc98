//! The names of commands, as PostgreSQL tags them.
//!
//! The list is `cmdtaglist.h` of PostgreSQL 18 and the replication protocol's
//! commands. A rule that names another is refused: a block rule with a slip of
//! the pen in it would otherwise stand there and block nothing.

use super::text::Text;

/// A leaf over tags.
#[derive(Debug)]
pub(crate) enum Tag {
    /// Words that a tag begins with: `DROP` for `DROP TABLE`.
    Words(String),
    /// A glob or an expression over the whole tag.
    Text(Text),
}

impl Tag {
    /// Case is of no matter.
    pub(crate) fn holds(&self, tag: &str) -> bool {
        match self {
            Self::Words(words) => begins(tag, words),
            Self::Text(text) => text.loose(tag),
        }
    }

    /// Whether it holds for any command that there is.
    pub(crate) fn exists(&self) -> bool {
        KNOWN.iter().any(|tag| self.holds(tag))
    }
}

fn begins(tag: &str, words: &str) -> bool {
    let (tag, words) = (tag.as_bytes(), words.as_bytes());
    tag.get(..words.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(words))
        && matches!(tag.get(words.len()), None | Some(b' '))
}

/// Words to suggest: every tag, and every first word of one.
pub(crate) fn known() -> impl Iterator<Item = &'static str> {
    KNOWN
        .iter()
        .flat_map(|tag| [*tag, tag.split(' ').next().unwrap_or(tag)])
}

#[rustfmt::skip]
const KNOWN: &[&str] = &[
    "ALTER ACCESS METHOD",
    "ALTER AGGREGATE",
    "ALTER CAST",
    "ALTER COLLATION",
    "ALTER CONSTRAINT",
    "ALTER CONVERSION",
    "ALTER DATABASE",
    "ALTER DEFAULT PRIVILEGES",
    "ALTER DOMAIN",
    "ALTER EVENT TRIGGER",
    "ALTER EXTENSION",
    "ALTER FOREIGN DATA WRAPPER",
    "ALTER FOREIGN TABLE",
    "ALTER FUNCTION",
    "ALTER INDEX",
    "ALTER LANGUAGE",
    "ALTER LARGE OBJECT",
    "ALTER MATERIALIZED VIEW",
    "ALTER OPERATOR",
    "ALTER OPERATOR CLASS",
    "ALTER OPERATOR FAMILY",
    "ALTER POLICY",
    "ALTER PROCEDURE",
    "ALTER PUBLICATION",
    "ALTER ROLE",
    "ALTER ROUTINE",
    "ALTER RULE",
    "ALTER SCHEMA",
    "ALTER SEQUENCE",
    "ALTER SERVER",
    "ALTER STATISTICS",
    "ALTER SUBSCRIPTION",
    "ALTER SYSTEM",
    "ALTER TABLE",
    "ALTER TABLESPACE",
    "ALTER TEXT SEARCH CONFIGURATION",
    "ALTER TEXT SEARCH DICTIONARY",
    "ALTER TEXT SEARCH PARSER",
    "ALTER TEXT SEARCH TEMPLATE",
    "ALTER TRANSFORM",
    "ALTER TRIGGER",
    "ALTER TYPE",
    "ALTER USER MAPPING",
    "ALTER VIEW",
    "ALTER_REPLICATION_SLOT",
    "ANALYZE",
    "BASE_BACKUP",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLOSE CURSOR",
    "CLOSE CURSOR ALL",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COMMIT PREPARED",
    "COPY",
    "COPY FROM",
    "CREATE ACCESS METHOD",
    "CREATE AGGREGATE",
    "CREATE CAST",
    "CREATE COLLATION",
    "CREATE CONSTRAINT",
    "CREATE CONVERSION",
    "CREATE DATABASE",
    "CREATE DOMAIN",
    "CREATE EVENT TRIGGER",
    "CREATE EXTENSION",
    "CREATE FOREIGN DATA WRAPPER",
    "CREATE FOREIGN TABLE",
    "CREATE FUNCTION",
    "CREATE INDEX",
    "CREATE LANGUAGE",
    "CREATE MATERIALIZED VIEW",
    "CREATE OPERATOR",
    "CREATE OPERATOR CLASS",
    "CREATE OPERATOR FAMILY",
    "CREATE POLICY",
    "CREATE PROCEDURE",
    "CREATE PUBLICATION",
    "CREATE ROLE",
    "CREATE ROUTINE",
    "CREATE RULE",
    "CREATE SCHEMA",
    "CREATE SEQUENCE",
    "CREATE SERVER",
    "CREATE STATISTICS",
    "CREATE SUBSCRIPTION",
    "CREATE TABLE",
    "CREATE TABLE AS",
    "CREATE TABLESPACE",
    "CREATE TEXT SEARCH CONFIGURATION",
    "CREATE TEXT SEARCH DICTIONARY",
    "CREATE TEXT SEARCH PARSER",
    "CREATE TEXT SEARCH TEMPLATE",
    "CREATE TRANSFORM",
    "CREATE TRIGGER",
    "CREATE TYPE",
    "CREATE USER MAPPING",
    "CREATE VIEW",
    "CREATE_REPLICATION_SLOT",
    "DEALLOCATE",
    "DEALLOCATE ALL",
    "DECLARE CURSOR",
    "DELETE",
    "DISCARD",
    "DISCARD ALL",
    "DISCARD PLANS",
    "DISCARD SEQUENCES",
    "DISCARD TEMP",
    "DO",
    "DROP ACCESS METHOD",
    "DROP AGGREGATE",
    "DROP CAST",
    "DROP COLLATION",
    "DROP CONSTRAINT",
    "DROP CONVERSION",
    "DROP DATABASE",
    "DROP DOMAIN",
    "DROP EVENT TRIGGER",
    "DROP EXTENSION",
    "DROP FOREIGN DATA WRAPPER",
    "DROP FOREIGN TABLE",
    "DROP FUNCTION",
    "DROP INDEX",
    "DROP LANGUAGE",
    "DROP MATERIALIZED VIEW",
    "DROP OPERATOR",
    "DROP OPERATOR CLASS",
    "DROP OPERATOR FAMILY",
    "DROP OWNED",
    "DROP POLICY",
    "DROP PROCEDURE",
    "DROP PUBLICATION",
    "DROP ROLE",
    "DROP ROUTINE",
    "DROP RULE",
    "DROP SCHEMA",
    "DROP SEQUENCE",
    "DROP SERVER",
    "DROP STATISTICS",
    "DROP SUBSCRIPTION",
    "DROP TABLE",
    "DROP TABLESPACE",
    "DROP TEXT SEARCH CONFIGURATION",
    "DROP TEXT SEARCH DICTIONARY",
    "DROP TEXT SEARCH PARSER",
    "DROP TEXT SEARCH TEMPLATE",
    "DROP TRANSFORM",
    "DROP TRIGGER",
    "DROP TYPE",
    "DROP USER MAPPING",
    "DROP VIEW",
    "DROP_REPLICATION_SLOT",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "GRANT ROLE",
    "IDENTIFY_SYSTEM",
    "IMPORT FOREIGN SCHEMA",
    "INSERT",
    "LISTEN",
    "LOAD",
    "LOCK TABLE",
    "LOGIN",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "PREPARE TRANSACTION",
    "READ_REPLICATION_SLOT",
    "REASSIGN OWNED",
    "REFRESH MATERIALIZED VIEW",
    "REINDEX",
    "RELEASE",
    "RESET",
    "REVOKE",
    "REVOKE ROLE",
    "ROLLBACK",
    "ROLLBACK PREPARED",
    "SAVEPOINT",
    "SECURITY LABEL",
    "SELECT",
    "SELECT FOR KEY SHARE",
    "SELECT FOR NO KEY UPDATE",
    "SELECT FOR SHARE",
    "SELECT FOR UPDATE",
    "SELECT INTO",
    "SET",
    "SET CONSTRAINTS",
    "SHOW",
    "START TRANSACTION",
    "START_REPLICATION",
    "TIMELINE_HISTORY",
    "TRUNCATE TABLE",
    "UNLISTEN",
    "UPDATE",
    "UPLOAD_MANIFEST",
    "VACUUM",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_whole_words_from_the_start_in_any_case() {
        let drop = Tag::Words("drop".to_owned());
        assert!(drop.holds("DROP TABLE"));
        assert!(drop.holds("DROP"));
        assert!(!drop.holds("DROPS"));
        assert!(!drop.holds("DROP_REPLICATION_SLOT"));
        assert!(!Tag::Words("TABLE".to_owned()).holds("DROP TABLE"));
        assert!(Tag::Words("DROP TABLE".to_owned()).holds("DROP TABLE"));
        assert!(!Tag::Words("DROP TABLE".to_owned()).holds("DROP"));
    }

    #[test]
    fn a_command_that_does_not_exist_is_known_as_such() {
        assert!(Tag::Words("TRUNCATE".to_owned()).exists());
        assert!(!Tag::Words("TRUNCATES".to_owned()).exists());
    }
}
