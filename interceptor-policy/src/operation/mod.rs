//! What a message asks to do, in the words that rules match on.

pub mod http;
pub mod json;
pub mod path;
pub mod sample;
pub mod ssh;

use std::fmt;
use std::sync::Arc;

pub use http::HttpOperation;
pub use ssh::SshRequest;

/// One thing that an agent asks to do.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// One message of SQL, or a prepared statement's execution.
    Postgres(PgOperation<'a>),
    /// A request, its response's head, or a message of a WebSocket.
    Http(HttpOperation<'a>),
    /// A request of an SSH connection.
    Ssh(&'a SshRequest),
    /// The opening of a session whose protocol has no operations of its own
    /// (`tls`, `unknown`).
    Opaque,
}

/// An SQL message with the session's facts that rules may ask about.
#[derive(Clone, Copy, Debug)]
pub struct PgOperation<'a> {
    /// What the text means.
    pub sql: &'a Sql,
    /// The text as it was sent.
    pub text: &'a str,
    /// `database` of the startup message.
    pub database: &'a str,
    /// `user` of the startup message.
    pub user: &'a str,
    /// The number of what it means, where it has one.
    pub meaning: Option<Meaning>,
}

/// The number of a meaning: what a scope found for it, it finds for every
/// operation of the same number without looking. Two [`Sql`] that differ, be it
/// in what the catalog said, have different numbers for the life of the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Meaning {
    /// The number.
    pub id: u64,
    /// Whether every text of this number is the very same; otherwise what looks
    /// at the text is asked every time.
    pub exact: bool,
}

/// What one SQL message means: every statement that it would run, nested ones
/// included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sql {
    /// Top-level statements of the message, in order. Empty for an empty query.
    pub statements: Vec<Statement>,
    /// Whether the catalog was asked which tables the statements name. Where it
    /// was not, a table may be another than it seems, or a view of one.
    pub resolved: bool,
}

/// One statement. What is nested in it (a CTE that writes, the statement under
/// `EXPLAIN ANALYZE`) adds its own tags, classes, tables and so on to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// The command as PostgreSQL tags it (`SELECT`, `DROP TABLE`, …), the
    /// statement's own first, then those nested in it. A rule's `DROP` matches
    /// the tag `DROP TABLE`.
    pub tags: Vec<&'static str>,
    /// What kinds of effect it has.
    pub classes: Classes,
    /// Tables named anywhere in it.
    pub tables: Vec<Table>,
    /// Columns named anywhere in it, `*` included.
    pub columns: Vec<Column>,
    /// Tables that it reaches through views that it names, from the catalog: a
    /// rule that makes things stricter matches them too.
    pub through: Vec<Table>,
    /// Tables of `tables` that the catalog was asked for and does not know.
    pub unresolved: Vec<Table>,
    /// Columns that choose, join, group or order rows anywhere in it (`WHERE`,
    /// `ON`, `USING`, `GROUP BY`, `HAVING`, `ORDER BY`, `DISTINCT`, window
    /// clauses): what a result tells of them is told by which rows there are.
    pub predicates: Vec<Column>,
    /// Columns whose values it hands on to where no mask follows them.
    pub moves: Vec<Move>,
    /// Functions called anywhere in it, lower case, schema-qualified where written so.
    pub functions: Vec<Arc<str>>,
    /// For an `UPDATE`, `DELETE` or `MERGE`: its `WHERE`. The weakest of all nested ones.
    pub where_clause: Option<WhereClause>,
    /// A `SELECT` or other reading statement that changes data inside (a CTE
    /// that writes, `SELECT INTO`, a function known to write).
    pub writes_inside_read: bool,
    /// Where its output columns come from, as far as the text says.
    pub output: Output,
}

/// A table as the statement names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// Schema, where the statement or the catalog says one.
    pub schema: Option<Arc<str>>,
    /// Name, folded as PostgreSQL folds it.
    pub name: Arc<str>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// A column as the statement names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Column {
    /// The table it belongs to, where the statement leaves no doubt: qualified,
    /// or the only table in scope.
    pub table: Option<Table>,
    /// Its name; `*` for all of a table's columns, whole-row references included.
    pub name: Arc<str>,
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(table) = &self.table {
            write!(f, "{table}.")?;
        }
        f.write_str(&self.name)
    }
}

/// A column whose value goes somewhere else than into the result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Move {
    /// The column; `*` for any of its table's, and of any table where that is
    /// not known.
    pub column: Column,
    /// Where it goes.
    pub to: MoveTo,
}

/// Where a value goes that does not go into the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveTo {
    /// Into another column or another table.
    Table,
    /// Behind the name of a view, which only the catalog can look behind.
    View,
    /// Into code that is kept or run: a function's body, a rule, a `DO` block.
    Code,
    /// Into a function that keeps or sends it, or may do so.
    Function,
    /// Into a file or a program of the server.
    File,
    /// It stays, but under another name.
    Name,
}

impl MoveTo {
    /// In words, behind "would put a masked column".
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Table => "into another column or table",
            Self::View => "behind a view",
            Self::Code => "into code that runs out of sight",
            Self::Function => "into a function that may keep or send it",
            Self::File => "into a file or program of the server",
            Self::Name => "under another name",
        }
    }
}

/// The `WHERE` of a statement that changes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhereClause {
    /// None.
    Missing,
    /// One that is true for every row (`1 = 1`, `true`).
    AlwaysTrue,
    /// One that selects.
    Present,
}

impl WhereClause {
    /// The name that rules use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::AlwaysTrue => "always_true",
            Self::Present => "present",
        }
    }
}

/// Where the values in a statement's result come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// It returns no rows, or rows that carry no table's data.
    #[default]
    Nothing,
    /// One entry for each item of the target list, in order.
    Items(Vec<OutputItem>),
    /// It returns rows, but their origin could not be worked out: any column of
    /// any table named may be in any of them.
    Unclear,
}

/// One item of a target list (or of `RETURNING`, or of a `COPY` column list).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputItem {
    /// A plain column.
    Column(Column),
    /// `*` or `table.*`: as many result columns as the tables have.
    Star(Vec<Table>),
    /// An expression; the columns that it is computed from.
    Expression(Vec<Column>),
    /// As many result columns as something has whose columns are not told
    /// apart; each may be computed from any of these.
    Spread(Vec<Column>),
    /// One result column that may be computed from anything: by a function
    /// whose code is not shown.
    Unclear,
}

/// A set of [`Class`]es.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Classes(u16);

/// What kind of effect a statement has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Class {
    /// Reads rows.
    Read = 1,
    /// Changes rows.
    Write = 1 << 1,
    /// Changes the schema.
    Ddl = 1 << 2,
    /// Changes rights or roles.
    Dcl = 1 << 3,
    /// `COPY … FROM`.
    CopyIn = 1 << 4,
    /// `COPY … TO`.
    CopyOut = 1 << 5,
    /// Runs code that the statement does not show (`DO`, `CALL`, text as SQL).
    Procedural = 1 << 6,
    /// Changes or shows the session: `SET`, `BEGIN`, `LISTEN`, `PREPARE`.
    Session = 1 << 7,
    /// `VACUUM`, `ANALYZE`, `CHECKPOINT`, `REINDEX`, …
    Maintenance = 1 << 8,
    /// The replication protocol's commands.
    Replication = 1 << 9,
    /// Could not be read. No allow rule but one that names this class, and no
    /// default, lets it pass.
    Unclassified = 1 << 10,
}

impl Class {
    /// Every class, with the name that rules use.
    pub const NAMES: &'static [(&'static str, Class)] = &[
        ("read", Class::Read),
        ("write", Class::Write),
        ("ddl", Class::Ddl),
        ("dcl", Class::Dcl),
        ("copy_in", Class::CopyIn),
        ("copy_out", Class::CopyOut),
        ("procedural", Class::Procedural),
        ("session", Class::Session),
        ("maintenance", Class::Maintenance),
        ("replication", Class::Replication),
        ("unclassified", Class::Unclassified),
    ];
}

impl Classes {
    /// The set of one class.
    #[must_use]
    pub const fn of(class: Class) -> Self {
        Self(class as u16)
    }

    /// Adds one class.
    pub fn insert(&mut self, class: Class) {
        self.0 |= class as u16;
    }

    /// Whether `class` is in the set.
    #[must_use]
    pub const fn contains(self, class: Class) -> bool {
        self.0 & class as u16 != 0
    }

    /// Whether the sets share a class.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether every class of `other` is in the set.
    #[must_use]
    pub const fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names, in [`Class::NAMES`]' order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Class::NAMES
            .iter()
            .filter(move |(_, class)| self.contains(*class))
            .map(|(name, _)| *name)
    }
}
