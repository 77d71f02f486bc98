//! The fields of `postgres`: what one statement of a message does.
//!
//! All fields of one `postgres` are asked of one and the same statement, so that
//! `{ statement: UPDATE, where: missing }` never takes the verb of one statement
//! and the missing `WHERE` of another.

use super::name::{ColumnPattern, TablePattern};
use super::session::Number;
use super::tags::Tag;
use super::text::Text;
use super::{Matcher, Mode};
use crate::PgOperation;
use crate::operation::{Class, Classes, Statement, Table, WhereClause};

/// What one field asks for. In the order of what it costs to ask.
#[derive(Debug)]
pub(crate) enum Asks {
    Class(ClassMatch),
    Where(Matcher<WhereClause>),
    WritesInsideRead(bool),
    Statements(Matcher<Number>),
    Statement(Matcher<Tag>),
    Database(Matcher<Text>),
    User(Matcher<Text>),
    Functions(Matcher<TablePattern>),
    Tables(Matcher<TablePattern>),
    Columns(Matcher<ColumnPattern>),
    Text(Matcher<Text>),
}

/// A matcher of classes, worked out in advance.
#[derive(Debug)]
pub(crate) struct ClassMatch {
    /// The classes for which it holds.
    holds: Classes,
    /// Whether it names `unclassified`, not merely includes it.
    pub(crate) names_unclassified: bool,
}

impl ClassMatch {
    pub(crate) fn new(matcher: &Matcher<Class>) -> Self {
        let mut holds = Classes::default();
        for (_, class) in Class::NAMES {
            // A class is or is not: both modes say the same.
            if matcher.holds(Mode::Must, &|leaf, _| leaf == class) {
                holds.insert(*class);
            }
        }
        let mut names_unclassified = false;
        matcher.plain_leaves(&mut |leaf| names_unclassified |= *leaf == Class::Unclassified);
        Self {
            names_unclassified: names_unclassified && holds.contains(Class::Unclassified),
            holds,
        }
    }

    /// The classes for which it holds.
    pub(crate) const fn classes(&self) -> Classes {
        self.holds
    }

    fn among(&self, mode: Mode, statement: &Statement) -> bool {
        // Whoever could not say what kind of statement it is could not read it.
        let classes = if statement.classes.is_empty() {
            Classes::of(Class::Unclassified)
        } else {
            statement.classes
        };
        match mode {
            Mode::May => self.holds.intersects(classes),
            Mode::Must => self.holds.contains_all(classes),
        }
    }
}

/// One field.
#[derive(Debug)]
pub(crate) struct PgField {
    /// `postgres.tables`
    pub(crate) name: &'static str,
    /// What it asks for, as it was written.
    pub(crate) shown: String,
    pub(crate) asks: Asks,
}

impl PgField {
    pub(crate) fn holds(&self, mode: Mode, of: &PgOperation<'_>, statement: &Statement) -> bool {
        match &self.asks {
            Asks::Class(class) => class.among(mode, statement),
            Asks::Where(matcher) => {
                matcher.holds_for(mode, statement.where_clause.as_ref(), |leaf, is, _| {
                    leaf == is
                })
            }
            Asks::WritesInsideRead(is) => statement.writes_inside_read == *is,
            Asks::Statements(matcher) => {
                matcher.holds(mode, &|n, _| n.holds(of.sql.statements.len() as u64))
            }
            Asks::Statement(matcher) => {
                matcher.holds_among(mode, &statement.tags, |tag, is, _| tag.holds(is))
            }
            Asks::Database(matcher) => matcher.holds(mode, &|text, _| text.exact(of.database)),
            Asks::User(matcher) => matcher.holds(mode, &|text, _| text.exact(of.user)),
            Asks::Functions(matcher) => {
                matcher.holds_among(mode, &statement.functions, |pattern, is, mode| {
                    pattern.holds_function(is, mode)
                })
            }
            Asks::Tables(matcher) => {
                let named = statement.tables.iter();
                // What stands behind a view makes stricter and never milder.
                let through: &[Table] = match mode {
                    Mode::May => &statement.through,
                    Mode::Must => &[],
                };
                matcher.holds_among(mode, named.chain(through), |pattern, is, mode| {
                    pattern.holds_table(is, mode)
                })
            }
            Asks::Columns(matcher) => {
                matcher.holds_among(mode, &statement.columns, |pattern, is, mode| {
                    pattern.holds(is, mode)
                })
            }
            Asks::Text(matcher) => matcher.holds(mode, &|text, mode| match mode {
                Mode::May => text.loose(of.text),
                Mode::Must => text.exact(of.text),
            }),
        }
    }

    /// Whether it asks which tables or columns a statement names.
    pub(crate) const fn names_tables(&self) -> bool {
        matches!(self.asks, Asks::Tables(_) | Asks::Columns(_))
    }

    /// What the statement has there, for a person.
    pub(crate) fn is(&self, of: &PgOperation<'_>, statement: &Statement) -> String {
        let list = |names: Vec<String>| match names.len() {
            0 => "none".to_owned(),
            _ => names.join(", "),
        };
        match &self.asks {
            Asks::Class(_) => list(statement.classes.names().map(str::to_owned).collect()),
            Asks::Where(_) => match statement.where_clause {
                None => "not of that kind".to_owned(),
                Some(clause) => clause.name().to_owned(),
            },
            Asks::WritesInsideRead(_) => statement.writes_inside_read.to_string(),
            Asks::Statements(_) => of.sql.statements.len().to_string(),
            Asks::Statement(_) => list(statement.tags.iter().map(|t| (*t).to_owned()).collect()),
            Asks::Database(_) => format!("`{}`", of.database),
            Asks::User(_) => format!("`{}`", of.user),
            Asks::Functions(_) => list(statement.functions.iter().map(|f| f.to_string()).collect()),
            Asks::Tables(_) => {
                let through = statement.through.iter();
                let through = through.map(|table| format!("{table} (through a view)"));
                let tables = statement.tables.iter().map(ToString::to_string);
                list(tables.chain(through).collect())
            }
            Asks::Columns(_) => list(statement.columns.iter().map(ToString::to_string).collect()),
            Asks::Text(_) => "the text as it was sent".to_owned(),
        }
    }
}

/// All of them, cheapest first.
#[derive(Debug, Default)]
pub(crate) struct PgMatch {
    pub(crate) fields: Vec<PgField>,
}

impl PgMatch {
    pub(crate) fn new(mut fields: Vec<PgField>) -> Self {
        fields.sort_by_key(|field| field.cost());
        Self { fields }
    }

    pub(crate) fn holds(&self, mode: Mode, of: &PgOperation<'_>, statement: &Statement) -> bool {
        self.fields
            .iter()
            .all(|field| field.holds(mode, of, statement))
    }

    /// Whether all but the tables and columns may hold.
    pub(crate) fn may_hold_elsewhere(&self, of: &PgOperation<'_>, statement: &Statement) -> bool {
        self.fields
            .iter()
            .filter(|field| !field.names_tables())
            .all(|field| field.holds(Mode::May, of, statement))
    }

    /// Whether it names the class `unclassified`.
    pub(crate) fn names_unclassified(&self) -> bool {
        self.fields
            .iter()
            .any(|field| matches!(&field.asks, Asks::Class(class) if class.names_unclassified))
    }

    /// Whether it looks at the text.
    pub(crate) fn looks_at_text(&self) -> bool {
        self.fields
            .iter()
            .any(|field| matches!(field.asks, Asks::Text(_)))
    }
}

impl PgField {
    const fn cost(&self) -> u8 {
        match self.asks {
            Asks::Class(_) => 0,
            Asks::Where(_) => 1,
            Asks::WritesInsideRead(_) => 2,
            Asks::Statements(_) => 3,
            Asks::Statement(_) => 4,
            Asks::Database(_) => 5,
            Asks::User(_) => 6,
            Asks::Functions(_) => 7,
            Asks::Tables(_) => 8,
            Asks::Columns(_) => 9,
            Asks::Text(_) => 10,
        }
    }
}
