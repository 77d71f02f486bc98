//! How fast all detectors together go over text that holds nothing for them,
//! and over text that does.
//!
//! `cargo bench -p interceptor-policy --bench detectors`. The promise is at
//! least 1 GB/s a core for `may_hit` of everyday text; a session asks it of
//! blocks of 16 KiB, and scans only a block that says yes.
#![allow(
    missing_docs,
    reason = "the macros of Criterion write functions without"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may stop")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use interceptor_policy::operation::Sql;
use interceptor_policy::{
    DefaultVerdict, Detector, Masks, Operation, PgOperation, Principal, Protocol, RuleSet, Source,
    Subject, Target,
};

/// As much as a session hands to the detectors in one go.
const CHUNK: usize = 16 << 10;

/// Texts as they pass through, without a hit.
#[rustfmt::skip]
const EVERYDAY: &[(&str, &[u8])] = &[
    ("json rows", br#"{"id":48213,"status":"shipped","customer":{"name":"Ada Lovelace","city":"London"},"items":[{"sku":"CH-204","title":"a chair, oak, four legs","price":129.90,"quantity":2},{"sku":"TB-100","title":"round table","price":349.00,"quantity":1}],"total":608.80,"currency":"EUR","created_at":"2024-01-15T10:11:12Z","paid":true,"note":null,"request_id":"7f3c1d0e-52a4-4b7e-9f61-0c2d8a5be913"}
"#),
    ("log lines", b"2024-01-15T10:11:12.123456Z  INFO orders::worker: request finished method=GET path=/v1/orders/48213 status=200 elapsed_ms=12.7 bytes=5132 trace=4bf92f3577b34da6a3ce929d0e0e4736
2024-01-15T10:11:12.223456Z DEBUG sqlx::query: slow statement rows=100 elapsed=1.2s db=orders table=public.order_items
"),
    ("rows of orders", b"D\0\0\0\x4f\0\x04\0\0\0\x041234\0\0\0\x07ordered\0\0\0\x132024-01-15 10:11:12\0\0\0\x1ba chair, four legs, oak wood"),
    ("rows of pgbench", b"D\0\0\0\x7f\0\x04\0\0\0\x0512345\0\0\0\x011\0\0\0\x010\0\0\0\x54                                                                                    "),
    ("prose", b"The quick brown fox jumps over the lazy dog, and the dog sleeps on in the sun. Nobody there wants to wake it, since the day is long and the grass is soft; a stranger may pass in the evening. "),
    ("source code", b"    pub fn decide(&self, operation: &Operation<'_>) -> Judgement {\n        let mut judged = self.rules.iter().filter(|rule| rule.applies(operation));\n        match judged.next() { Some(rule) => rule.verdict(), None => Verdict::Block(None) }\n    }\n"),
    ("csv", b"48213,2024-01-15,12.50,EUR,shipped,0.07,\"a chair, oak\",7f3c1d0e52a44b7e9f610c2d8a5be913\n48214,2024-01-16,349.00,EUR,paid,0.19,\"round table\",4bf92f3577b34da6a3ce929d0e0e4736\n"),
];

/// Every detector, as a rule brings it into force.
fn masks() -> Arc<Masks> {
    let names: Vec<_> = Detector::NAMES.iter().map(|(name, _)| *name).collect();
    let text = format!(
        "version: 1\nrules:\n  - {{ name: all, match: {{}}, mask: [{{ detect: [{}], with: redact }}] }}\n",
        names.join(", ")
    );
    let source = Source {
        path: "bench.yaml".into(),
        text,
    };
    let rules = Arc::new(RuleSet::load(&[source]).expect("the rule is right"));
    let scope = rules.scope(&Subject {
        principal: Principal::default(),
        target: Target {
            name: None,
            host: None,
            address: Some(IpAddr::from([127, 0, 0, 1])),
            origin: "".into(),
            port: 5432,
            tls: false,
            default: DefaultVerdict::Allow,
        },
        protocol: Protocol::Postgres,
    });
    let sql = Sql::default();
    let judged = scope.decide(&Operation::Postgres(PgOperation {
        sql: &sql,
        text: "",
        database: "",
        user: "",
        meaning: None,
    }));
    judged.masks.expect("the rule masks")
}

fn chunk(row: &[u8]) -> Vec<u8> {
    row.repeat(CHUNK / row.len())
}

fn detectors(criterion: &mut Criterion) {
    let masks = masks();
    let plan = masks.detect().expect("the rule detects");
    let mut group = criterion.benchmark_group("may_hit");
    for (name, row) in EVERYDAY {
        let chunk = chunk(row);
        assert!(!plan.may_hit(&chunk), "{name} holds something");
        group.throughput(Throughput::Bytes(chunk.len() as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| plan.may_hit(black_box(&chunk)))
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("scan");
    for (name, row) in EVERYDAY {
        let chunk = chunk(row);
        group.throughput(Throughput::Bytes(chunk.len() as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| plan.scan(black_box(&chunk)).len())
        });
    }
    let hits =
        b"48213,alice@example.com,4111 1111 1111 1111,2024-01-15,10.0.0.1,a chair with four legs\n";
    let chunk = chunk(hits);
    group.throughput(Throughput::Bytes(chunk.len() as u64));
    group.bench_function("three hits a line", |bencher| {
        bencher.iter(|| plan.scan(black_box(&chunk)).len());
    });
    let value = b"a chair, four legs, oak wood";
    group.throughput(Throughput::Bytes(value.len() as u64));
    group.bench_function("one short value", |bencher| {
        bencher.iter(|| plan.scan(black_box(value)).len());
    });
    group.finish();
}

criterion_group!(benches, detectors);
criterion_main!(benches);
