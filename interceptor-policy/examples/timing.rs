//! How long a judgement takes, and how fast a chunk is told to hold nothing.
//!
//! `cargo run --release -p interceptor-policy --example timing`, from the
//! source tree; numbers of a debug build mean nothing.
#![allow(clippy::print_stdout, reason = "a stopwatch prints")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use interceptor_policy::operation::{
    Class, Column, Output, OutputItem, Sql, Statement, Table, WhereClause,
};
use interceptor_policy::{
    DefaultVerdict, Operation, PgOperation, Principal, Protocol, RuleSet, Source, Subject, Target,
};

const ROUNDS: u32 = 200_000;

/// Time on a processor: on a busy machine the clock on the wall tells of others.
fn spent() -> Result<Duration, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir("rules")? {
        let path = entry?.path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path)?;
            sources.push(Source { path, text });
        }
    }
    let rules = Arc::new(RuleSet::load(&sources)?);
    let scope = rules.scope(&Subject {
        principal: Principal::default(),
        target: Target {
            name: None,
            host: None,
            address: IpAddr::from([127, 0, 0, 1]),
            port: 5432,
            tls: false,
            default: DefaultVerdict::Block,
        },
        protocol: Protocol::Postgres,
    });
    println!("{} shipped rules", rules.rules().len());

    // One statement of pgbench.
    let table = Table {
        schema: None,
        name: "pgbench_accounts".into(),
    };
    let column = |name: &str| Column {
        table: Some(table.clone()),
        name: name.into(),
    };
    let statement = Statement {
        tags: vec!["UPDATE"],
        classes: Class::NAMES
            .iter()
            .filter(|(name, _)| *name == "write")
            .fold(
                Default::default(),
                |mut classes: interceptor_policy::operation::Classes, (_, class)| {
                    classes.insert(*class);
                    classes
                },
            ),
        tables: vec![table.clone()],
        columns: vec![column("abalance"), column("aid")],
        functions: Vec::new(),
        where_clause: Some(WhereClause::Present),
        writes_inside_read: false,
        output: Output::Items(vec![OutputItem::Column(column("abalance"))]),
        ..Statement::default()
    };
    let sql = Sql {
        statements: vec![statement],
        resolved: false,
    };
    let operation = Operation::Postgres(PgOperation {
        sql: &sql,
        text: "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 1",
        database: "bench",
        user: "bench",
        meaning: None,
    });
    let start = spent()?;
    for _ in 0..ROUNDS {
        black_box(scope.decide(black_box(&operation)));
    }
    println!("decide: {:?} a statement", (spent()? - start) / ROUNDS);

    let masks = scope.decide(&operation).masks.ok_or("no masks")?;
    let plan = masks.detect().ok_or("no detectors")?;
    let start = spent()?;
    for _ in 0..ROUNDS {
        for name in ["aid", "bid", "abalance", "filler"] {
            black_box(masks.column(black_box(&column(name))));
        }
    }
    println!(
        "mask by column: {:?} a column",
        (spent()? - start) / ROUNDS / 4
    );

    let chunks = [
        ("rows of pgbench", &b"D\0\0\0\x7f\0\x04\0\0\0\x0512345\0\0\0\x011\0\0\0\x010\0\0\0\x54                                                                                    "[..]),
        ("rows of orders", &b"D\0\0\0\x2a\0\x04\0\0\0\x041234\0\0\0\x07ordered\0\0\0\x132024-01-15 10:11:12\0\0\0\x1ba chair, four legs, oak wood"[..]),
        ("prose", b"The quick brown fox jumps over the lazy dog, and the dog sleeps on in the sun. "),
    ];
    for (name, row) in chunks {
        let chunk = row.repeat((64 << 10) / row.len());
        let rounds = 20_000;
        let start = spent()?;
        let mut hits = 0;
        for _ in 0..rounds {
            hits += u32::from(plan.may_hit(black_box(&chunk)));
        }
        let bytes = chunk.len() as f64 * f64::from(rounds);
        println!(
            "may_hit, {name}: {:.1} GB/s{}",
            bytes / (spent()? - start).as_secs_f64() / 1e9,
            if hits > 0 { " (hits)" } else { "" }
        );
    }
    Ok(())
}
