//! `match` and `unless`.

use ipnet::IpNet;

use super::Match;
use super::reader::{Reader, shown};
use super::yaml::{Key, Node, Value};
use crate::Protocol;
use crate::diagnostic::nearest;
use crate::matcher::name::{ColumnPattern, TablePattern};
use crate::matcher::postgres::{self, ClassMatch, PgField, PgMatch};
use crate::matcher::session::{self, Fact, Number, SessionField, SessionMatch};
use crate::matcher::tags::{self, Tag};
use crate::matcher::text::{Expression, Glob, Stars, Text};
use crate::matcher::{Matcher, Mode};
use crate::operation::{Class, WhereClause};

const FIELDS: &[&str] = &["principal", "target", "protocol", "postgres"];
const LATER: &[&str] = &["http", "ssh", "after", "rate", "risk", "time", "if"];
pub(super) const PRINCIPAL: &[&str] = &[
    "agent",
    "user",
    "uid",
    "group",
    "exe",
    "command_line",
    "cgroup",
    "unit",
    "container",
    "labels",
];
const TARGET: &[&str] = &["name", "host", "address", "port", "tls"];
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
    /// A `match` or an `unless`.
    pub(super) fn match_(&mut self, node: &'a Node, what: &str) -> Option<Match> {
        let mut whole = true;
        let mut fields = Vec::new();
        let mut postgres = None;
        for (key, value) in self.mapping(node, what)? {
            match key.text.as_str() {
                "principal" => whole &= self.principal(value, &mut fields),
                "target" => whole &= self.target(value, &mut fields),
                "protocol" => match self.protocol(value) {
                    Some(field) => fields.push(field),
                    None => whole = false,
                },
                "postgres" => match self.postgres(value) {
                    Some(read) => postgres = Some(read),
                    None => whole = false,
                },
                later if LATER.contains(&later) => {
                    self.unsupported(key.at, later);
                    whole = false;
                }
                _ => {
                    self.unknown(key, what, FIELDS);
                    whole = false;
                }
            }
        }
        let excluded = fields.iter().any(|field| match &field.asks {
            session::Asks::Protocol(matcher) => {
                !matcher.holds(Mode::May, &|leaf, _| *leaf == Protocol::Postgres)
            }
            _ => false,
        });
        if postgres.is_some() && excluded {
            self.report.warning(
                node.at,
                format!("{what} can never hold: it asks for `postgres` fields of another protocol"),
                Some("drop `protocol`; `postgres` implies it".to_owned()),
            );
        }
        whole.then_some(Match {
            session: SessionMatch { fields },
            postgres,
        })
    }

    fn principal(&mut self, node: &'a Node, into: &mut Vec<SessionField>) -> bool {
        let Some(entries) = self.mapping(node, "`principal`") else {
            return false;
        };
        let mut whole = true;
        for (key, value) in entries {
            let (fact, stars) = match key.text.as_str() {
                "agent" => (Fact::Agent, Stars::Free),
                "user" => (Fact::User, Stars::Free),
                "group" => (Fact::Group, Stars::Free),
                "exe" => (Fact::Exe, Stars::Path),
                "command_line" => (Fact::CommandLine, Stars::Free),
                "cgroup" => (Fact::Cgroup, Stars::Path),
                "unit" => (Fact::Unit, Stars::Free),
                "container" => (Fact::Container, Stars::Free),
                "labels" => {
                    let Some(labels) = self.mapping(value, "`labels`") else {
                        whole = false;
                        continue;
                    };
                    for (label, value) in labels {
                        let fact = Fact::Label(label.text.clone());
                        let name = format!("principal.labels.{}", label.text);
                        whole &= self.session_text(name, fact, Stars::Free, value, into);
                    }
                    continue;
                }
                "uid" => {
                    let matcher = self.numbers(value, "`uid`", u64::from(u32::MAX));
                    let matcher = matcher.map(session::Asks::Uid);
                    whole &= push(into, "principal.uid".to_owned(), value, matcher);
                    continue;
                }
                later @ ("claims" | "groups") => {
                    self.unsupported(key.at, &format!("principal.{later}"));
                    whole = false;
                    continue;
                }
                dotted => match dotted.strip_prefix("labels.") {
                    Some(label) if !label.is_empty() => {
                        (Fact::Label(label.to_owned()), Stars::Free)
                    }
                    _ => {
                        self.unknown(key, "`principal`", PRINCIPAL);
                        whole = false;
                        continue;
                    }
                },
            };
            let name = format!("principal.{}", key.text);
            whole &= self.session_text(name, fact, stars, value, into);
        }
        whole
    }

    fn target(&mut self, node: &'a Node, into: &mut Vec<SessionField>) -> bool {
        let Some(entries) = self.mapping(node, "`target`") else {
            return false;
        };
        let mut whole = true;
        for (key, value) in entries {
            let name = format!("target.{}", key.text);
            let asks = match key.text.as_str() {
                "name" => {
                    whole &= self.session_text(name, Fact::TargetName, Stars::Free, value, into);
                    continue;
                }
                "host" => {
                    whole &= self.session_text(name, Fact::Host, Stars::Free, value, into);
                    continue;
                }
                "address" => self
                    .matcher(value, "`address`", &mut |reader, node| reader.network(node))
                    .map(session::Asks::Address),
                "port" => self
                    .numbers(value, "`port`", u64::from(u16::MAX))
                    .map(session::Asks::Port),
                "tls" => self.boolean(value, "`tls`").map(session::Asks::Tls),
                _ => {
                    self.unknown(key, "`target`", TARGET);
                    None
                }
            };
            whole &= push(into, name, value, asks);
        }
        whole
    }

    fn protocol(&mut self, node: &'a Node) -> Option<SessionField> {
        let matcher = self.matcher(node, "`protocol`", &mut |reader, node| {
            reader.word(node, "`protocol`", Protocol::NAMES)
        })?;
        Some(SessionField {
            name: "protocol".to_owned(),
            shown: shown(node),
            asks: session::Asks::Protocol(matcher),
        })
    }

    fn postgres(&mut self, node: &'a Node) -> Option<PgMatch> {
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

    fn session_text(
        &mut self,
        name: String,
        fact: Fact,
        stars: Stars,
        node: &'a Node,
        into: &mut Vec<SessionField>,
    ) -> bool {
        let asks = self
            .texts(node, &format!("`{name}`"), stars)
            .map(|matcher| session::Asks::Text(fact, matcher));
        push(into, name, node, asks)
    }

    fn texts(&mut self, node: &'a Node, what: &str, stars: Stars) -> Option<Matcher<Text>> {
        let matcher = self.matcher(node, what, &mut |reader, node| {
            reader.text_leaf(node, what, stars)
        })?;
        if contradicts(&matcher) {
            self.report.warning(
                node.at,
                format!("{what} can never hold: it asks for two different texts at once"),
                Some("`any` is satisfied by one of several".to_owned()),
            );
        }
        Some(matcher)
    }

    fn text_leaf(&mut self, node: &'a Node, what: &str, stars: Stars) -> Option<Text> {
        if let Some(expression) = self.regex(node, what, Expression::new) {
            return expression.map(Text::Regex);
        }
        let source = self.text(node, what)?;
        if source.is_empty() {
            self.error(node.at, format!("{what} is empty"));
            return None;
        }
        self.built(node, "glob", Glob::new(source, stars))
            .map(Text::Glob)
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

    fn network(&mut self, node: &'a Node) -> Option<IpNet> {
        let source = self.text(node, "`address`")?;
        let network = source.parse::<IpNet>().or_else(|_| {
            source
                .parse()
                .map(|address: std::net::IpAddr| address.into())
        });
        match network {
            Ok(network) => {
                if network.trunc() != network {
                    self.report.warning(
                        node.at,
                        format!("`{source}` has bits set below its prefix"),
                        Some(format!("`{}` is the same network", network.trunc())),
                    );
                }
                Some(network)
            }
            Err(_) => {
                self.report.error(
                    node.at,
                    format!("`{source}` is no address and no network"),
                    Some("write it as in 10.0.0.0/8, 192.0.2.7 or fd00::/8".to_owned()),
                );
                None
            }
        }
    }

    fn numbers(&mut self, node: &'a Node, what: &str, most: u64) -> Option<Matcher<Number>> {
        self.matcher(node, what, &mut |reader, node| {
            if let Value::Map(entries) = &node.value {
                let (key, value) = entries.first()?;
                if key.text != "over" {
                    reader.unknown(key, what, &["over", "not", "any", "all"]);
                    return None;
                }
                return reader.number(value, what, most).map(Number::Over);
            }
            reader.number(node, what, most).map(Number::Is)
        })
    }

    /// `{ regex: … }`; `None` when it is something else.
    fn regex<T>(
        &mut self,
        node: &'a Node,
        what: &str,
        build: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Value::Map(entries) = &node.value else {
            return None;
        };
        let (key, value) = entries.first()?;
        if key.text != "regex" {
            self.unknown(key, what, &["regex", "not", "any", "all"]);
            return Some(None);
        }
        let Some(source) = self.text(value, "`regex`") else {
            return Some(None);
        };
        Some(self.built(value, "regular expression", build(source)))
    }

    fn built<T>(&mut self, node: &'a Node, what: &str, built: Result<T, String>) -> Option<T> {
        match built {
            Ok(built) => Some(built),
            Err(fault) => {
                self.error(node.at, format!("bad {what}: {fault}"));
                None
            }
        }
    }
}

fn push(
    into: &mut Vec<SessionField>,
    name: String,
    node: &Node,
    asks: Option<session::Asks>,
) -> bool {
    let Some(asks) = asks else {
        return false;
    };
    into.push(SessionField {
        name,
        shown: shown(node),
        asks,
    });
    true
}

/// Whether it asks one text to equal two.
fn contradicts(matcher: &Matcher<Text>) -> bool {
    let Matcher::All(inner) = matcher else {
        return false;
    };
    let mut exact = inner.iter().filter_map(|one| match one {
        Matcher::Leaf(Text::Glob(glob)) if glob.is_exact() => Some(glob.source()),
        _ => None,
    });
    match exact.next() {
        Some(first) => exact.any(|other| other != first),
        None => false,
    }
}
