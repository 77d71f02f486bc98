//! The `postgres` fields of a match.

use super::reader::{Reader, shown};
use super::yaml::{Key, Node, Value};
use crate::diagnostic::nearest;
use crate::matcher::name::{ColumnPattern, TablePattern};
use crate::matcher::postgres::{self, ClassMatch, PgField, PgMatch};
use crate::matcher::tags::{self, Tag};
use crate::matcher::text::{Expression, Glob, Stars, Text};
use crate::matcher::{Matcher, Mode};
use crate::operation::{Class, WhereClause};

const POSTGRES: &[&str] = &[
    "statement",
    "class",
    "tables",
    "columns",
    "functions",
    "where",
    "database",
    "user",
    "text",
    "statements",
    "writes_inside_read",
];
const WHERE: &[(&str, WhereClause)] = &[
    ("missing", WhereClause::Missing),
    ("always_true", WhereClause::AlwaysTrue),
    ("present", WhereClause::Present),
];

impl<'a> Reader<'a> {
    pub(super) fn postgres(&mut self, node: &'a Node) -> Option<PgMatch> {
        let mut fields = Some(Vec::new());
        for (key, value) in self.mapping(node, "`postgres`")? {
            match self.postgres_field(key, value) {
                Some((name, asks)) => {
                    if let Some(fields) = &mut fields {
                        fields.push(PgField {
                            name,
                            shown: shown(value),
                            asks,
                        });
                    }
                }
                None => fields = None,
            }
        }
        let fields = fields?;
        self.where_without_rows(node, &fields);
        Some(PgMatch::new(fields))
    }

    fn postgres_field(
        &mut self,
        key: &'a Key,
        node: &'a Node,
    ) -> Option<(&'static str, postgres::Asks)> {
        use postgres::Asks;
        Some(match key.text.as_str() {
            "statement" => {
                let tags = self.matcher(node, "`statement`", &mut |r, n| r.tag(n))?;
                ("postgres.statement", Asks::Statement(tags))
            }
            "class" => {
                let classes = self.matcher(node, "`class`", &mut |reader, node| {
                    reader.word(node, "`class`", Class::NAMES)
                })?;
                ("postgres.class", Asks::Class(ClassMatch::new(&classes)))
            }
            "tables" => (
                "postgres.tables",
                Asks::Tables(self.tables(node, "`tables`")?),
            ),
            "functions" => (
                "postgres.functions",
                Asks::Functions(self.tables(node, "`functions`")?),
            ),
            "columns" => {
                let columns =
                    self.matcher(node, "`columns`", &mut |reader, node| reader.column(node))?;
                ("postgres.columns", Asks::Columns(columns))
            }
            "where" => {
                let clauses = self.matcher(node, "`where`", &mut |reader, node| {
                    reader.word(node, "`where`", WHERE)
                })?;
                ("postgres.where", Asks::Where(clauses))
            }
            "database" => {
                let text = self.texts(node, "`database`", Stars::Free)?;
                ("postgres.database", Asks::Database(text))
            }
            "user" => {
                let text = self.texts(node, "`user`", Stars::Free)?;
                ("postgres.user", Asks::User(text))
            }
            "text" => {
                let text = self.texts(node, "`text`", Stars::Free)?;
                ("postgres.text", Asks::Text(text))
            }
            "statements" => {
                let number = self.numbers(node, "`statements`", u64::from(u32::MAX))?;
                ("postgres.statements", Asks::Statements(number))
            }
            "writes_inside_read" => (
                "postgres.writes_inside_read",
                Asks::WritesInsideRead(self.boolean(node, "`writes_inside_read`")?),
            ),
            _ => {
                self.unknown(key, "`postgres`", POSTGRES);
                return None;
            }
        })
    }

    /// A `where` beside commands that have none never holds.
    fn where_without_rows(&mut self, node: &'a Node, fields: &[PgField]) {
        let clause = fields
            .iter()
            .any(|field| matches!(field.asks, postgres::Asks::Where(_)));
        let rows = fields.iter().all(|field| match &field.asks {
            postgres::Asks::Statement(tags) => ["UPDATE", "DELETE", "MERGE"]
                .iter()
                .any(|tag| tags.holds(Mode::May, &|leaf, _| leaf.holds(tag))),
            _ => true,
        });
        if clause && !rows {
            self.report.warning(
                node.at,
                "this can never hold: only UPDATE, DELETE and MERGE have a `where`",
                None,
            );
        }
    }

    fn tables(&mut self, node: &'a Node, what: &str) -> Option<Matcher<TablePattern>> {
        self.matcher(node, what, &mut |reader, node| {
            if let Some(pattern) = reader.regex(node, what, TablePattern::regex) {
                return pattern;
            }
            let source = reader.text(node, what)?;
            reader.built(node, "name", TablePattern::new(source))
        })
    }

    /// A column; also read for masks.
    pub(super) fn column(&mut self, node: &'a Node) -> Option<ColumnPattern> {
        if let Some(pattern) = self.regex(node, "`columns`", ColumnPattern::regex) {
            return pattern;
        }
        let source = self.text(node, "`columns`")?;
        self.built(node, "column", ColumnPattern::new(source))
    }

    fn tag(&mut self, node: &'a Node) -> Option<Tag> {
        let tag = if let Some(expression) = self.regex(node, "`statement`", Expression::new) {
            Tag::Text(Text::Regex(expression?))
        } else {
            let source = self.text(node, "`statement`")?;
            let words = source.split_whitespace().collect::<Vec<_>>().join(" ");
            let glob = self.built(node, "glob", Glob::new(&words, Stars::Free))?;
            if glob.is_exact() {
                Tag::Words(words)
            } else {
                Tag::Text(Text::Glob(glob))
            }
        };
        if !tag.exists() {
            let written = match &node.value {
                Value::Text(text) => text.to_uppercase(),
                _ => shown(node),
            };
            self.report.error(
                node.at,
                format!("PostgreSQL has no command `{written}`"),
                nearest(&written, tags::known()),
            );
            return None;
        }
        Some(tag)
    }
}
