//! Which rules a statement could concern, without asking them all.

use std::collections::HashMap;
use std::sync::Arc;

use super::bits::Bits;
use crate::matcher::Asked;
use crate::matcher::http::key::{Key as HttpKey, lower};
use crate::matcher::http::{HttpMatch, methods};
use crate::matcher::key::{Key, first_word, folded};
use crate::matcher::ssh::{Key as SshKey, SshMatch};
use crate::operation::http::HttpRequest;
use crate::operation::ssh::{SshKind, SshProgram, SshRequest};
use crate::operation::{Class, Statement};
use crate::rule::Rule;

/// Rules, by what a statement has to have for them to apply.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Those that could concern any.
    always: Bits,
    /// Those that ask for no statement at all.
    opaque: Bits,
    tables: HashMap<Box<str>, Vec<usize>>,
    functions: HashMap<Box<str>, Vec<usize>>,
    columns: HashMap<Box<str>, Vec<usize>>,
    /// All that stand under `columns`, for a `*`.
    any_column: Bits,
    words: HashMap<Box<str>, Vec<usize>>,
    classes: Vec<(Class, Bits)>,
    http: HttpIndex,
    ssh: SshIndex,
}

/// Rules, by what a request has to have for them to apply.
#[derive(Debug, Default)]
struct HttpIndex {
    /// Those that could concern any.
    always: Bits,
    hosts: HashMap<Box<str>, Vec<usize>>,
    paths: HashMap<Box<str>, Vec<usize>>,
    methods: HashMap<Box<str>, Vec<usize>>,
}

impl HttpIndex {
    fn put(&mut self, place: usize, key: Option<HttpKey>) {
        let (by, names) = match key {
            None => {
                self.always.set(place);
                return;
            }
            Some(HttpKey::Hosts(names)) => (&mut self.hosts, names),
            Some(HttpKey::Paths(names)) => (&mut self.paths, names),
            Some(HttpKey::Methods(names)) => (&mut self.methods, names),
        };
        for name in names {
            by.entry(name.into()).or_default().push(place);
        }
    }

    fn candidates(&self, request: &HttpRequest) -> Bits {
        let mut found = self.always.clone();
        let mut add = |rules: Option<&Vec<usize>>| {
            for rule in rules.into_iter().flatten() {
                found.set(*rule);
            }
        };
        if !self.hosts.is_empty() {
            add(self.hosts.get(&*lower(&request.host)));
        }
        if !self.methods.is_empty() {
            for method in methods(request) {
                add(self.methods.get(&*lower(method)));
            }
        }
        if !self.paths.is_empty() {
            for path in &request.paths {
                let path = lower(path);
                let path = path.strip_suffix('/').unwrap_or(&path);
                add(self.paths.get(path));
                for (at, _) in path.match_indices('/') {
                    add(path.get(..at).and_then(|above| self.paths.get(above)));
                }
            }
        }
        found
    }
}

/// Rules, by what an SSH request has to have for them to apply.
#[derive(Debug, Default)]
struct SshIndex {
    /// Those that could concern any.
    always: Bits,
    kinds: HashMap<SshKind, Bits>,
    programs: HashMap<Box<str>, Vec<usize>>,
    /// All that stand under `programs`, for one that may be any.
    any_program: Bits,
}

impl SshIndex {
    fn put(&mut self, place: usize, key: Option<SshKey>) {
        match key {
            None => {
                self.always.set(place);
            }
            Some(SshKey::Kinds(kinds)) => {
                for kind in kinds {
                    self.kinds.entry(kind).or_default().set(place);
                }
            }
            Some(SshKey::Programs(names)) => {
                self.any_program.set(place);
                for name in names {
                    self.programs.entry(name.into()).or_default().push(place);
                }
            }
        }
    }

    fn candidates(&self, request: &SshRequest, program: Option<&SshProgram>) -> Bits {
        let mut found = self.always.clone();
        if let Some(rules) = self.kinds.get(&request.kind) {
            found.unite(rules);
        }
        match program.map(SshProgram::name) {
            Some(Some(name)) => {
                for rule in self.programs.get(&*lower(name)).into_iter().flatten() {
                    found.set(*rule);
                }
            }
            // One that may be any, or a shell in which any may be run.
            _ => found.unite(&self.any_program),
        }
        found
    }
}

impl Index {
    pub(crate) fn new(rules: &[Arc<Rule>]) -> Self {
        let mut index = Self {
            classes: Class::NAMES
                .iter()
                .map(|(_, class)| (*class, Bits::default()))
                .collect(),
            ..Self::default()
        };
        for (place, rule) in rules.iter().enumerate() {
            let postgres = rule.matches.postgres.as_ref();
            let http = rule.matches.http.as_ref();
            let ssh = rule.matches.ssh.as_ref();
            // Nothing is of two protocols.
            let only = |a: bool, b: bool| !a && !b;
            if !rule.matches.asks_of_protocol() {
                index.opaque.set(place);
            }
            if only(postgres.is_some(), ssh.is_some()) {
                index.http.put(place, http.and_then(HttpMatch::key));
            }
            if only(postgres.is_some(), http.is_some()) {
                index.ssh.put(place, ssh.and_then(SshMatch::key));
            }
            if !only(http.is_some(), ssh.is_some()) {
                continue;
            }
            // A rule that blocks what could not be resolved does so whatever
            // the names are.
            let key = postgres.and_then(|postgres| postgres.key(rule.unresolved));
            index.put(place, key);
        }
        index
    }

    fn put(&mut self, place: usize, key: Option<Key>) {
        let (by, names) = match key {
            None => {
                self.always.set(place);
                return;
            }
            Some(Key::Classes(classes)) => {
                for (class, rules) in &mut self.classes {
                    if classes.contains(*class) {
                        rules.set(place);
                    }
                }
                return;
            }
            Some(Key::Tables(names)) => (&mut self.tables, names),
            Some(Key::Functions(names)) => (&mut self.functions, names),
            Some(Key::Words(names)) => (&mut self.words, names),
            Some(Key::Columns(names)) => {
                self.any_column.set(place);
                (&mut self.columns, names)
            }
        };
        for name in names {
            by.entry(name.into()).or_default().push(place);
        }
    }

    /// The rules that could concern what is asked of, in their order.
    pub(super) fn candidates(&self, asked: Asked<'_>) -> Bits {
        match asked {
            Asked::Session => self.opaque.clone(),
            Asked::Http(operation) => self.http.candidates(operation.request),
            Asked::Ssh(request, program) => self.ssh.candidates(request, program),
            Asked::Statement(_, statement) => self.of_statement(statement),
        }
    }

    /// The rules that could concern a request.
    pub(super) fn of_request(&self, request: &HttpRequest) -> Bits {
        self.http.candidates(request)
    }

    fn of_statement(&self, statement: &Statement) -> Bits {
        let mut found = self.always.clone();
        let mut add = |by: &HashMap<Box<str>, Vec<usize>>, name: &str| {
            if let Some(rules) = by.get(&*folded(name)) {
                for rule in rules {
                    found.set(*rule);
                }
            }
        };
        if !self.tables.is_empty() {
            for table in statement.tables.iter().chain(&statement.through) {
                add(&self.tables, &table.name);
            }
        }
        if !self.functions.is_empty() {
            for function in &statement.functions {
                let name = function.rsplit('.').next().unwrap_or(function);
                add(&self.functions, name);
            }
        }
        if !self.words.is_empty() {
            for tag in &statement.tags {
                add(&self.words, first_word(tag));
            }
        }
        let mut star = false;
        if !self.columns.is_empty() {
            for column in &statement.columns {
                star |= &*column.name == "*";
                add(&self.columns, &column.name);
            }
        }
        if star {
            found.unite(&self.any_column);
        }
        for (class, rules) in &self.classes {
            // Whoever could not say what kind of statement it is could not read it.
            let unread = statement.classes.is_empty() && *class == Class::Unclassified;
            if statement.classes.contains(*class) || unread {
                found.unite(rules);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::scoped::Scoped;
    use super::*;
    use crate::operation::{Classes, Column, Sql, Table};
    use crate::{PgOperation, Principal, Protocol, RuleSet, Source, Subject, Target};

    const NAMES: &[&str] = &[
        "users",
        "Users",
        "orders",
        "hr.users",
        "ord*",
        "{ regex: us }",
    ];
    const FIELDS: &[&str] = &["tables", "functions", "columns"];

    fn matcher(names: &'static [&'static str]) -> impl Strategy<Value = String> {
        let leaf = select(names).prop_map(|name| match name.starts_with('{') {
            true => name.to_owned(),
            false => format!("\"{name}\""),
        });
        leaf.prop_recursive(2, 6, 3, |inner| {
            let list = prop::collection::vec(inner.clone(), 1..3);
            prop_oneof![
                inner.prop_map(|inner| format!("{{ not: {inner} }}")),
                list.clone().prop_map(|all| format!("[{}]", all.join(", "))),
                list.prop_map(|all| format!("{{ all: [{}] }}", all.join(", "))),
            ]
        })
    }

    fn field() -> impl Strategy<Value = String> {
        prop_oneof![
            (select(FIELDS), matcher(NAMES)).prop_map(|(field, of)| format!("{field}: {of}")),
            matcher(&["SELECT", "DROP", "DROP TABLE", "D*"])
                .prop_map(|of| format!("statement: {of}")),
            matcher(&["read", "ddl", "unclassified"]).prop_map(|of| format!("class: {of}")),
        ]
    }

    fn statement() -> impl Strategy<Value = Statement> {
        let named = || {
            prop::collection::vec(
                select(&["users", "USERS", "orders", "hr.users", "x"][..]),
                0..3,
            )
        };
        let table = |name: &str| match name.split_once('.') {
            Some((schema, name)) => Table {
                schema: Some(schema.into()),
                name: name.into(),
            },
            None => Table {
                schema: None,
                name: name.into(),
            },
        };
        (
            named(),
            named(),
            prop::collection::vec(select(&["users", "USERS", "orders", "*", "x"][..]), 0..3),
            named(),
            prop::collection::vec(select(&["SELECT", "DROP TABLE", "DO"][..]), 0..2),
            prop::collection::vec(select(&[Class::Read, Class::Ddl, Class::Write][..]), 0..2),
        )
            .prop_map(
                move |(tables, through, columns, functions, tags, classes)| {
                    let mut all = Classes::default();
                    for class in classes {
                        all.insert(class);
                    }
                    Statement {
                        tags,
                        classes: all,
                        tables: tables.into_iter().map(table).collect(),
                        through: through.into_iter().map(table).collect(),
                        columns: columns
                            .into_iter()
                            .map(|name| Column {
                                table: None,
                                name: name.into(),
                            })
                            .collect(),
                        functions: functions.into_iter().map(Arc::from).collect(),
                        ..Statement::default()
                    }
                },
            )
    }

    fn subject() -> Subject {
        Subject {
            principal: Principal::default(),
            target: Target {
                name: None,
                host: None,
                address: Some(std::net::IpAddr::from([127, 0, 0, 1])),
                origin: "".into(),
                port: 5432,
                tls: false,
                default: crate::DefaultVerdict::Block,
            },
            protocol: Protocol::Postgres,
        }
    }

    proptest! {
        #[test]
        fn no_rule_that_applies_is_left_out(
            rules in prop::collection::vec((field(), field(), select(&["verdict: block", "verdict: allow"][..]), any::<bool>()), 1..4),
            statement in statement(),
        ) {
            let mut yaml = "version: 1\nrules:\n".to_owned();
            for (index, (one, two, effect, unresolved)) in rules.iter().enumerate() {
                let names = ["tables", "columns"].iter().any(|name| one.starts_with(name));
                let more = if *unresolved && names { ", unresolved: block" } else { "" };
                let two = if one.split(':').next() == two.split(':').next() { String::new() } else { format!(", {two}") };
                yaml.push_str(&format!("  - {{ name: r{index}, match: {{ postgres: {{ {one}{two} }} }}, {effect}{more} }}\n"));
            }
            let source = Source { path: "x.yaml".into(), text: yaml };
            let rules = Arc::new(RuleSet::load(&[source]).map_err(|faults| TestCaseError::fail(faults.to_string()))?);
            let scoped = rules.rules().iter().map(|rule| Scoped::new(rule, &subject(), false));
            let scoped: Vec<_> = scoped.collect();
            let sql = Sql { statements: vec![statement], resolved: false };
            let statement = &sql.statements[0];
            let operation = PgOperation { sql: &sql, text: "", database: "", user: "", meaning: None };
            let candidates: Vec<_> = rules.index().candidates(Asked::Statement(&operation, statement)).iter().collect();
            for (index, scoped) in scoped.iter().enumerate() {
                let hit = scoped.as_ref().and_then(|scoped| scoped.hit(index, Asked::Statement(&operation, statement), false));
                prop_assert!(hit.is_none() || candidates.contains(&index), "{index}");
            }
        }
    }

    fn http_field() -> impl Strategy<Value = String> {
        prop_oneof![
            matcher(&["/a/b", "/a/*", "/A/**", "/a/", "/**", "{ regex: b }"])
                .prop_map(|of| format!("path: {of}")),
            matcher(&["a.com", "A.com", "*.com", "b.com"]).prop_map(|of| format!("host: {of}")),
            matcher(&["GET", "POST", "P*", "get"]).prop_map(|of| format!("method: {of}")),
        ]
    }

    proptest! {
        #[test]
        fn no_rule_that_applies_to_a_request_is_left_out(
            rules in prop::collection::vec((http_field(), http_field(), select(&["verdict: block", "verdict: allow"][..])), 1..4),
            path in select(&["/a/b", "/A/B", "/a", "/a/", "/a//b", "/x/../a/b", "/a/b;x", "/%61/b", "/", "/\u{212a}/b", "/a/b/"][..]),
            host in select(&["a.com", "b.com", "c.org", ""][..]),
            method in select(&["GET", "POST", "post"][..]),
            overridden in any::<bool>(),
        ) {
            let mut yaml = "version: 1\nrules:\n".to_owned();
            for (index, (one, two, effect)) in rules.iter().enumerate() {
                let two = if one.split(':').next() == two.split(':').next() { String::new() } else { format!(", {two}") };
                yaml.push_str(&format!("  - {{ name: r{index}, match: {{ http: {{ {one}{two} }} }}, {effect} }}\n"));
            }
            let source = Source { path: "x.yaml".into(), text: yaml };
            let rules = Arc::new(RuleSet::load(&[source]).map_err(|faults| TestCaseError::fail(faults.to_string()))?);
            let subject = Subject { protocol: Protocol::Http, ..subject() };
            let request = HttpRequest {
                method: method.into(),
                host: host.into(),
                paths: crate::operation::path::readings(path),
                headers: match overridden {
                    true => vec![("x-http-method-override".into(), "get".into())],
                    false => Vec::new(),
                },
                ..HttpRequest::default()
            };
            let operation = crate::HttpOperation { request: &request, response: None, message: None };
            let asked = Asked::Http(&operation);
            let candidates: Vec<_> = rules.index().candidates(asked).iter().collect();
            for (index, rule) in rules.rules().iter().enumerate() {
                let scoped = Scoped::new(rule, &subject, false);
                let hit = scoped.as_ref().and_then(|scoped| scoped.hit(index, asked, false));
                prop_assert!(hit.is_none() || candidates.contains(&index), "{index}");
            }
        }
    }

    #[test]
    fn a_request_meets_few_of_a_thousand_rules() {
        let mut yaml = "version: 1\nrules:\n".to_owned();
        for index in 0..1000 {
            let field = match index % 3 {
                0 => format!("path: '/api/v1/r{index}/**'"),
                1 => format!("host: [h{index}.com]"),
                _ => format!("method: M{index}, header.x: y"),
            };
            yaml.push_str(&format!(
                "  - {{ name: r{index}, match: {{ http: {{ {field} }} }}, verdict: block }}\n"
            ));
        }
        let source = Source {
            path: "x.yaml".into(),
            text: yaml,
        };
        let rules = Arc::new(RuleSet::load(&[source]).unwrap());
        let request = HttpRequest {
            method: "M2".into(),
            host: "h1.com".into(),
            paths: vec!["/api/v1/r3/x".into()],
            ..HttpRequest::default()
        };
        let met: Vec<_> = rules.index().of_request(&request).iter().collect();
        assert_eq!(met, [1, 2, 3]);
    }
}
