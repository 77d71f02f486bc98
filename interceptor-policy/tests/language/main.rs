//! The rule language as operators read it: one sentence, one test.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod diagnostics;
mod documents;
mod effects;
mod expression;
mod history;
mod holds;
mod http;
mod inline;
mod masks;
mod matching;
mod meanings;
mod precedence;
mod resolving;
mod risk;
mod ssh;
mod time;

use std::net::IpAddr;
use std::sync::Arc;

use interceptor_policy::operation::{Class, Column, Sql, Statement, Table, WhereClause};
use interceptor_policy::{
    DefaultVerdict, Judgement, Memory, Moment, Operation, PgOperation, Principal, Protocol,
    RuleSet, Scope, Source, Standing, Subject, Target, Verdict,
};

/// A rule set of one file, without its `version` line.
fn rules(yaml: &str) -> Arc<RuleSet> {
    match RuleSet::load(&[source("test.yaml", yaml)]) {
        Ok(rules) => Arc::new(rules),
        Err(faults) => panic!("{faults}"),
    }
}

fn source(path: &str, yaml: &str) -> Source {
    Source {
        path: path.into(),
        text: format!("version: 1\n{yaml}"),
    }
}

/// A rule set of rules that are only a match and an effect.
fn rule(body: &str) -> Arc<RuleSet> {
    rules(&format!("rules:\n  - {{ name: r, {body} }}\n"))
}

fn subject() -> Subject {
    Subject {
        principal: Principal {
            agent: "deploy-bot".into(),
            user: Some("coder".into()),
            uid: 1000,
            group: Some("staff".into()),
            exe: Some("/usr/bin/psql".into()),
            command_line: Some("psql -h db orders".into()),
            cgroup: Some("interceptor/agents/run-1".into()),
            unit: Some("deploy.service".into()),
            container: None,
            groups: Vec::new(),
            claims: std::collections::BTreeMap::new(),
            labels: [("team".to_owned(), "platform".to_owned())].into(),
        },
        target: Target {
            name: Some("orders-db".into()),
            host: Some("DB.internal".into()),
            address: Some(IpAddr::from([10, 0, 0, 7])),
            origin: "10.0.0.7".into(),
            port: 5432,
            tls: true,
            default: DefaultVerdict::Block,
        },
        protocol: Protocol::Postgres,
    }
}

fn allowing() -> Subject {
    let mut subject = subject();
    subject.target.default = DefaultVerdict::Allow;
    subject
}

/// A statement, built a part at a time.
#[derive(Clone, Default)]
struct Say(Statement);

fn say(tag: &'static str, class: Class) -> Say {
    Say::default().and(tag, class)
}

fn select() -> Say {
    say("SELECT", Class::Read)
}

impl Say {
    fn and(mut self, tag: &'static str, class: Class) -> Self {
        self.0.tags.push(tag);
        self.0.classes.insert(class);
        self
    }

    fn table(mut self, name: &str) -> Self {
        self.0.tables.push(table(name));
        self
    }

    fn column(mut self, name: &str) -> Self {
        self.0.columns.push(column(name));
        self
    }

    fn function(mut self, name: &str) -> Self {
        self.0.functions.push(name.into());
        self
    }

    /// A table that a view among the others reaches.
    fn through(mut self, name: &str) -> Self {
        self.0.through.push(table(name));
        self
    }

    /// A table that the catalog does not know.
    fn unresolved(mut self, name: &str) -> Self {
        self.0.unresolved.push(table(name));
        self.table(name)
    }

    /// A column that chooses rows.
    fn predicate(mut self, name: &str) -> Self {
        self.0.predicates.push(column(name));
        self.column(name)
    }

    fn filtered(mut self, clause: WhereClause) -> Self {
        self.0.where_clause = Some(clause);
        self
    }
}

fn table(name: &str) -> Table {
    match name.split_once('.') {
        Some((schema, name)) => Table {
            schema: Some(schema.into()),
            name: name.into(),
        },
        None => Table {
            schema: None,
            name: name.into(),
        },
    }
}

fn column(name: &str) -> Column {
    match name.rsplit_once('.') {
        Some((of, name)) => Column {
            table: Some(table(of)),
            name: name.into(),
        },
        None => Column {
            table: None,
            name: name.into(),
        },
    }
}

fn decide_in(scope: &Scope, text: &str, statements: &[Say]) -> Judgement {
    let sql = sql(statements);
    scope.decide(&message(&sql, text))
}

fn decide(rules: &Arc<RuleSet>, subject: &Subject, statement: Say) -> Judgement {
    decide_in(&rules.scope(subject), "", &[statement])
}

/// So many seconds after the beginning.
fn at(seconds: u64) -> Moment {
    Moment::default().after(seconds * 1_000_000)
}

/// A session, and the memory that it is part of.
struct Session {
    scope: Scope,
    standing: Standing,
}

impl Session {
    fn new(memory: &Memory, rules: &Arc<RuleSet>, subject: &Subject) -> Self {
        Self {
            scope: rules.scope(subject),
            standing: memory.standing(&subject.principal, at(0)),
        }
    }

    fn judge(&mut self, statement: Say, now: Moment) -> Judgement {
        self.judge_all(&[statement], now)
    }

    fn judge_all(&mut self, statements: &[Say], now: Moment) -> Judgement {
        let sql = sql(statements);
        self.scope
            .judge(&message(&sql, ""), &mut self.standing, now)
    }

    fn preview(&self, statement: Say, now: Moment) -> Judgement {
        let sql = sql(&[statement]);
        self.scope.preview(&message(&sql, ""), &self.standing, now)
    }

    /// The verdict's name alone.
    fn says(&mut self, statement: Say, now: Moment) -> &'static str {
        word(&self.judge(statement, now))
    }
}

fn sql(statements: &[Say]) -> Sql {
    Sql {
        statements: statements.iter().map(|say| say.0.clone()).collect(),
        resolved: false,
    }
}

fn message<'a>(sql: &'a Sql, text: &'a str) -> Operation<'a> {
    Operation::Postgres(PgOperation {
        sql,
        text,
        database: "orders",
        user: "agent_rw",
        meaning: None,
    })
}

/// The verdict's name, and the rule's that refused.
fn verdict(judgement: &Judgement) -> (&'static str, Option<&str>) {
    match &judgement.verdict {
        Verdict::Allow(_) => ("allow", None),
        Verdict::Hold(hold) => ("hold", hold.reason.rule.as_deref()),
        Verdict::Block(refusal) => ("block", refusal.rule.as_deref()),
        Verdict::Kill(refusal) => ("kill", refusal.rule.as_deref()),
    }
}

fn word(judgement: &Judgement) -> &'static str {
    verdict(judgement).0
}

/// Whether a match holds for a statement, to make things stricter: what a block
/// rule with it does where everything is allowed.
fn blocks(match_: &str, statement: Say) -> bool {
    let rules = rule(&format!("match: {match_}, verdict: block"));
    word(&decide(&rules, &allowing(), statement)) == "block"
}

/// Whether a match holds to make things milder: what an allow rule with it does
/// where nothing is allowed.
fn allows(match_: &str, statement: Say) -> bool {
    let rules = rule(&format!("match: {match_}, verdict: allow"));
    word(&decide(&rules, &subject(), statement)) == "allow"
}

/// Whether a match holds, in a case in which that is certain either way.
fn holds(match_: &str, statement: Say) -> bool {
    let blocks = blocks(match_, statement.clone());
    assert_eq!(blocks, allows(match_, statement), "uncertain: {match_}");
    blocks
}
