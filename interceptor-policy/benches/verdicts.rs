//! How long a verdict takes: of a statement seen before and of a new one, with
//! few rules and with many, and where the rules ask what was before.
//!
//! `cargo bench -p interceptor-policy`
#![allow(missing_docs, reason = "the macros of criterion document nothing")]
#![allow(clippy::panic, reason = "without its rules there is nothing to time")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use interceptor_policy::operation::{
    Class, Classes, Column, Meaning, Output, OutputItem, Sql, Statement, Table,
};
use interceptor_policy::{
    DefaultVerdict, Memory, Moment, Operation, PgOperation, Principal, Protocol, RuleSet, Scope,
    Source, Subject, Target,
};

/// So many rules, of which a handful concern the statement.
fn rules(count: usize, more: &str) -> Arc<RuleSet> {
    let mut text = "version: 1\nrules:\n  - { name: reads, match: { postgres: { class: read } }, verdict: allow }\n  - { name: pii, match: { protocol: postgres }, mask: [{ columns: [users.ssn], with: redact }] }\n".to_owned();
    text.push_str(more);
    for number in 0..count {
        let rule = match number % 5 {
            0 | 1 => format!(
                "match: {{ postgres: {{ tables: [public.t{number}, u{number}] }} }}, verdict: block"
            ),
            2 => format!("match: {{ postgres: {{ functions: [f{number}] }} }}, risk: 5"),
            3 => format!(
                "match: {{ postgres: {{ statement: DROP, tables: [\"s{number}.*\"] }} }}, verdict: kill"
            ),
            _ => format!(
                "match: {{ postgres: {{ class: write, where: missing, database: d{number} }} }}, verdict: block"
            ),
        };
        text.push_str(&format!("  - {{ name: r{number}, {rule} }}\n"));
    }
    let path = "bench.yaml".into();
    Arc::new(RuleSet::load(&[Source { path, text }]).unwrap_or_else(|faults| panic!("{faults}")))
}

fn scope(rules: &Arc<RuleSet>) -> Scope {
    rules.scope(&subject())
}

fn subject() -> Subject {
    Subject {
        principal: Principal::default(),
        target: Target {
            name: None,
            host: None,
            address: Some(IpAddr::from([127, 0, 0, 1])),
            origin: "".into(),
            port: 5432,
            tls: false,
            default: DefaultVerdict::Block,
        },
        protocol: Protocol::Postgres,
    }
}

/// A join of four tables with a dozen columns.
fn statement() -> Sql {
    let table = |name: &str| Table {
        schema: Some("public".into()),
        name: name.into(),
    };
    let columns: Vec<_> = (0..12)
        .map(|number| Column {
            table: Some(table("users")),
            name: format!("column_{number}").into(),
        })
        .collect();
    Sql {
        statements: vec![Statement {
            tags: vec!["SELECT"],
            classes: Classes::of(Class::Read),
            tables: ["users", "orders", "items", "t10000"].map(table).to_vec(),
            functions: vec!["count".into(), "lower".into()],
            output: Output::Items(columns.iter().cloned().map(OutputItem::Column).collect()),
            columns,
            ..Statement::default()
        }],
        resolved: true,
    }
}

fn operation(sql: &Sql, meaning: Option<u64>) -> Operation<'_> {
    Operation::Postgres(PgOperation {
        sql,
        text: "SELECT",
        database: "app",
        user: "agent",
        meaning: meaning.map(|id| Meaning { id, exact: true }),
    })
}

const STATE: &str = "  - { name: often, match: { postgres: { class: read }, rate: { over: 1000000, per: 1m } }, verdict: block }
  - { name: mark, match: { postgres: { tables: [users] } }, tag: seen, risk: 1 }
  - { name: sends, match: { postgres: { class: write }, after: { tag: seen } }, verdict: kill }
  - { name: hours, match: { postgres: { class: read }, time: { between: \"00:00-24:00\", zone: Europe/Berlin } }, record: full }
";
const EXPRESSION: &str = "  - { name: wide, match: { postgres: { class: read }, if: 'size(postgres.tables) > 8 && postgres.tables.exists(t, t.startsWith(\"hr.\"))' }, verdict: block }
";

fn verdicts(c: &mut Criterion) {
    let sql = statement();
    for (name, meaning) in [("seen before", Some(1)), ("new", None)] {
        let mut group = c.benchmark_group(name);
        for (kind, more) in [("", ""), (" with state", STATE), (" with if", EXPRESSION)] {
            for count in [10, 100, 1000] {
                let scope = scope(&rules(count, more));
                let memory = Memory::new();
                let mut standing = memory.standing(&Principal::default(), Moment::default());
                let operation = operation(&sql, meaning);
                let mut now = Moment::default();
                group.bench_function(BenchmarkId::new(format!("rules{kind}"), count), |b| {
                    b.iter(|| {
                        now = now.after(100);
                        black_box(scope.judge(black_box(&operation), &mut standing, now))
                    });
                });
            }
        }
        group.finish();
    }
    let many = rules(1000, "");
    let subject = subject();
    c.bench_function("scope of 1000 rules", |b| {
        b.iter(|| black_box(many.scope(black_box(&subject))));
    });
}

criterion_group!(benches, verdicts);
criterion_main!(benches);
