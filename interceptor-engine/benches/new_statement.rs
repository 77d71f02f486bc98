//! How long it takes to read a statement of sixty lines that nobody sent before,
//! and to judge it by a thousand rules.
//!
//! `cargo bench -p interceptor-engine`
#![allow(missing_docs, reason = "the macros of criterion document nothing")]
#![allow(clippy::panic, reason = "without its rules there is nothing to time")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use interceptor_engine::pg::sql;
use interceptor_policy::{
    DefaultVerdict, Operation, PgOperation, Principal, Protocol, RuleSet, Source, Subject, Target,
};

/// A report: two common tables, joins, sixty lines.
fn text() -> String {
    let mut text = "WITH recent AS (\n  SELECT o.id, o.customer_id, o.total\n  FROM sales.orders o\n  WHERE o.placed_at > now() - interval '30 days'\n), spent AS (\n  SELECT customer_id, sum(total) AS total\n  FROM recent\n  GROUP BY customer_id\n)\nSELECT\n".to_owned();
    for number in 0..40 {
        text.push_str(&format!(
            "  coalesce(c.field_{number}, 'none') AS field_{number},\n"
        ));
    }
    text.push_str("  s.total,\n  lower(c.email) AS email\nFROM sales.customers c\nJOIN spent s ON s.customer_id = c.id\nLEFT JOIN sales.addresses a ON a.customer_id = c.id\nLEFT JOIN hr.people p ON p.id = c.keeper_id\nWHERE c.active\n  AND s.total > 100\n  AND a.country IN ('de', 'at', 'ch')\n  AND NOT EXISTS (\n    SELECT 1 FROM sales.blocked b WHERE b.customer_id = c.id\n  )\nORDER BY s.total DESC\nLIMIT 100");
    text
}

fn rules() -> Arc<RuleSet> {
    let mut text = "version: 1\nrules:\n  - { name: reads, match: { postgres: { class: read } }, verdict: allow }\n".to_owned();
    for number in 0..1000 {
        text.push_str(&format!("  - {{ name: r{number}, match: {{ postgres: {{ tables: [public.t{number}] }} }}, verdict: block }}\n"));
    }
    let path = "bench.yaml".into();
    Arc::new(RuleSet::load(&[Source { path, text }]).unwrap_or_else(|faults| panic!("{faults}")))
}

fn new_statement(c: &mut Criterion) {
    let text = text();
    assert!(text.lines().count() >= 60, "{}", text.lines().count());
    let scope = rules().scope(&Subject {
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
    });
    c.bench_function("read and judge a new statement of 60 lines", |b| {
        b.iter(|| {
            let sql = sql::classify(black_box(&text));
            let operation = Operation::Postgres(PgOperation {
                sql: &sql,
                text: &text,
                database: "app",
                user: "agent",
                meaning: None,
            });
            black_box(scope.decide(&operation))
        });
    });
}

criterion_group!(benches, new_statement);
criterion_main!(benches);
