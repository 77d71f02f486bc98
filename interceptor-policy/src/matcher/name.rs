//! Patterns of SQL names: tables, functions, columns.
//!
//! Written with dots; a part that is left out on the left is any. PostgreSQL
//! finds an unqualified name by `search_path`, which the session may set to
//! anything, so an unqualified name is in an unknown schema: it *may* be any,
//! and *must* be none but what `*` covers. Case is compared loosely for `May`
//! (a quoted `"SSN"` is as secret as `ssn`) and exactly for `Must`.

use super::Mode;
use super::text::{Expression, Glob, Stars, Text};
use crate::operation::{Column, Table};

/// A pattern of a table or a function: `name` or `schema.name`.
#[derive(Debug)]
pub(crate) struct TablePattern {
    schema: Option<Glob>,
    name: Text,
}

/// A pattern of a column: `column`, `table.column` or `schema.table.column`.
#[derive(Debug)]
pub(crate) struct ColumnPattern {
    table: Option<TablePattern>,
    column: Text,
    source: String,
}

/// A dotted pattern that is none.
pub(crate) const TABLE_FORM: &str = "write `table` or `schema.table`";
/// A dotted pattern that is none.
pub(crate) const COLUMN_FORM: &str = "write `column`, `table.column` or `schema.table.column`";

fn glob(part: &str) -> Result<Glob, String> {
    if part.is_empty() {
        return Err("a part of the name is empty".to_owned());
    }
    Glob::new(part, Stars::Free)
}

impl TablePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let mut parts = source.rsplit('.');
        let name = glob(parts.next().unwrap_or_default())?;
        let schema = parts.next().map(glob).transpose()?;
        if parts.next().is_some() {
            return Err(format!("too many parts; {TABLE_FORM}"));
        }
        Ok(Self {
            // `*.x` is the same as `x`.
            schema: schema.filter(|schema| !schema.is_any()),
            name: Text::Glob(name),
        })
    }

    /// A regular expression over the name alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn regex(source: &str) -> Result<Self, String> {
        Ok(Self {
            schema: None,
            name: Text::Regex(Expression::new(source)?),
        })
    }

    /// What the name has to be.
    pub(crate) const fn name(&self) -> &Text {
        &self.name
    }

    fn is_any(&self) -> bool {
        self.schema.is_none() && matches!(&self.name, Text::Glob(name) if name.is_any())
    }

    pub(crate) fn holds(&self, schema: Option<&str>, name: &str, mode: Mode) -> bool {
        match mode {
            Mode::May => {
                self.name.loose(name)
                    && match (&self.schema, schema) {
                        (Some(pattern), Some(schema)) => pattern.loose(schema),
                        _ => true,
                    }
            }
            Mode::Must => {
                self.name.exact(name)
                    && match (&self.schema, schema) {
                        (None, _) => true,
                        (Some(pattern), Some(schema)) => pattern.exact(schema),
                        (Some(_), None) => false,
                    }
            }
        }
    }

    pub(crate) fn holds_table(&self, table: &Table, mode: Mode) -> bool {
        self.holds(table.schema.as_deref(), &table.name, mode)
    }

    /// A function's name, in one text, qualified or not.
    pub(crate) fn holds_function(&self, function: &str, mode: Mode) -> bool {
        match function.rsplit_once('.') {
            Some((schema, name)) => self.holds(Some(schema), name, mode),
            None => self.holds(None, function, mode),
        }
    }
}

impl ColumnPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let (table, column) = match source.rsplit_once('.') {
            Some((table, column)) => {
                if table.matches('.').count() > 1 {
                    return Err(format!("too many parts; {COLUMN_FORM}"));
                }
                (Some(TablePattern::new(table)?), column)
            }
            None => (None, source),
        };
        Ok(Self {
            table: table.filter(|table| !table.is_any()),
            column: Text::Glob(glob(column)?),
            source: source.to_owned(),
        })
    }

    /// A regular expression over the column's name alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn regex(source: &str) -> Result<Self, String> {
        Ok(Self {
            table: None,
            column: Text::Regex(Expression::new(source)?),
            source: source.to_owned(),
        })
    }

    /// As it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// What the column's own name has to be.
    pub(crate) const fn column(&self) -> &Text {
        &self.column
    }

    pub(crate) fn holds(&self, column: &Column, mode: Mode) -> bool {
        let star = &*column.name == "*";
        let name = match (mode, star) {
            (Mode::May, true) => true,
            (Mode::May, false) => self.column.loose(&column.name),
            (Mode::Must, true) => matches!(&self.column, Text::Glob(glob) if glob.is_any()),
            (Mode::Must, false) => self.column.exact(&column.name),
        };
        name && match (&self.table, &column.table) {
            (None, _) => true,
            (Some(pattern), Some(table)) => pattern.holds_table(table, mode),
            (Some(_), None) => mode == Mode::May,
        }
    }

    /// Whether it may be of a column of this table.
    pub(crate) fn may_be_of(&self, table: &Table) -> bool {
        match &self.table {
            Some(pattern) => pattern.holds_table(table, Mode::May),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        match text.split_once('.') {
            Some((schema, name)) => Table {
                schema: Some(schema.into()),
                name: name.into(),
            },
            None => Table {
                schema: None,
                name: text.into(),
            },
        }
    }

    fn column(of: Option<&str>, name: &str) -> Column {
        Column {
            table: of.map(table),
            name: name.into(),
        }
    }

    /// What a pattern says in both modes: (may, must).
    fn says(pattern: &str, of: &str) -> (bool, bool) {
        let pattern = TablePattern::new(pattern).unwrap();
        (
            pattern.holds_table(&table(of), Mode::May),
            pattern.holds_table(&table(of), Mode::Must),
        )
    }

    fn column_says(pattern: &str, of: &Column) -> (bool, bool) {
        let pattern = ColumnPattern::new(pattern).unwrap();
        (pattern.holds(of, Mode::May), pattern.holds(of, Mode::Must))
    }

    #[test]
    fn a_pattern_without_a_dot_is_of_any_schema() {
        for of in ["users", "public.users", "secret.users"] {
            assert_eq!(says("users", of), (true, true), "{of}");
            assert_eq!(says("*.users", of), (true, true), "{of}");
        }
        assert_eq!(says("users", "public.orders"), (false, false));
    }

    #[test]
    fn a_table_of_unknown_schema_may_be_of_any_and_must_be_of_none() {
        assert_eq!(says("public.users", "users"), (true, false));
        assert_eq!(says("secret.*", "users"), (true, false));
        assert_eq!(says("public.users", "public.users"), (true, true));
        assert_eq!(says("public.users", "other.users"), (false, false));
    }

    #[test]
    fn case_is_loose_for_may_and_exact_for_must() {
        assert_eq!(says("users", "Users"), (true, false));
        assert_eq!(says("Public.users", "public.users"), (true, false));
    }

    #[test]
    fn a_star_column_may_be_any_column_and_must_be_only_a_star() {
        let star = column(Some("public.users"), "*");
        assert_eq!(column_says("users.ssn", &star), (true, false));
        assert_eq!(column_says("users.*", &star), (true, true));
        assert_eq!(column_says("orders.ssn", &star), (false, false));
    }

    #[test]
    fn a_column_of_unknown_table_may_be_of_any_table_and_must_be_of_none() {
        let ssn = column(None, "ssn");
        assert_eq!(column_says("users.ssn", &ssn), (true, false));
        assert_eq!(column_says("*.ssn", &ssn), (true, true));
        assert_eq!(column_says("ssn", &ssn), (true, true));
        assert_eq!(column_says("users.name", &ssn), (false, false));
    }

    #[test]
    fn three_parts_name_the_schema_of_a_column() {
        let known = column(Some("hr.people"), "password_hash");
        assert_eq!(column_says("*.*.password*", &known), (true, true));
        assert_eq!(column_says("hr.people.password*", &known), (true, true));
        assert_eq!(column_says("crm.people.password*", &known), (false, false));
        let unknown = column(Some("people"), "password_hash");
        assert_eq!(column_says("crm.people.password*", &unknown), (true, false));
    }

    #[test]
    fn a_function_matches_with_and_without_its_schema() {
        let pattern = TablePattern::new("pg_read_*").unwrap();
        for name in ["pg_read_file", "pg_catalog.pg_read_file"] {
            assert!(pattern.holds_function(name, Mode::May), "{name}");
            assert!(pattern.holds_function(name, Mode::Must), "{name}");
        }
        let pattern = TablePattern::new("pg_catalog.lower").unwrap();
        assert!(pattern.holds_function("lower", Mode::May));
        assert!(!pattern.holds_function("lower", Mode::Must));
        assert!(!pattern.holds_function("evil.lower", Mode::May));
    }

    #[test]
    fn patterns_with_too_many_or_empty_parts_are_refused() {
        for bad in ["a.b.c", "a.", ".a", "", "[a.b"] {
            assert!(TablePattern::new(bad).is_err(), "{bad}");
        }
        for bad in ["a.b.c.d", "a..b", ""] {
            assert!(ColumnPattern::new(bad).is_err(), "{bad}");
        }
    }
}
