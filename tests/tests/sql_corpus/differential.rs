//! Random statements: what is called a mere read changes nothing in a real
//! database.
//!
//! Statements are made to be read and to write alike, with what writes hidden
//! in CTEs, functions, texts, blocks and `EXPLAIN ANALYZE`. Whether one changed
//! anything is the server's word: it gave the transaction no number, and the
//! digest of everything is as before.
//!
//! `SQL_SEED` repeats a run, `SQL_CASES` makes it longer.

use anyhow::{Result, ensure};
use interceptor_engine::pg::sql::classify;
use interceptor_policy::operation::{Class, Classes};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::{BoxedStrategy, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::classes;
use super::client::Client;
use super::laboratory::{laboratory, state};

const CASES: u32 = 400;

/// A whole number, in view of `orders o` and `people p`.
fn number(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        6 => select(vec!["1", "2", "o.id", "o.price", "p.id", "length(o.item)", "length(p.name)"])
            .prop_map(str::to_owned),
        1 => select(vec![
            "purge()",
            "nextval('numbers')::int",
            "setval('numbers', 7)::int",
            "currval('numbers')::int",
            "id_of(o)",
            "length(set_config('application_name', 'x', true))",
            "lo_unlink(4711)",
            "lo_creat(-1)::int",
            "length(lo_get(4711))",
            "lowrite(lo_open(4711, 131072), 'x')",
            "length(current_setting('work_mem'))",
            "pg_stat_get_backend_pid(1)",
            "length(pg_advisory_xact_lock(1)::text)",
            "length(pg_notify('a', 'b')::text)",
            "length(pg_logical_emit_message(true, 'a', 'b')::text)",
        ])
        .prop_map(str::to_owned),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || number(depth - 1);
    prop_oneof![
        4 => leaf,
        2 => (inner(), select(vec!["+", "-", "*"]), inner())
            .prop_map(|(one, operator, other)| format!("({one} {operator} {other})")),
        1 => inner().prop_map(|one| format!("abs({one})")),
        1 => (inner(), inner()).prop_map(|(one, other)| format!("coalesce({one}, {other})")),
        1 => (inner(), inner(), inner()).prop_map(|(one, two, three)| {
            format!("CASE WHEN {one} > {two} THEN {three} ELSE 0 END")
        }),
        1 => (inner(), inner()).prop_map(|(one, other)| {
            format!("(SELECT count(*) FROM notes WHERE {one} > {other})::int")
        }),
        1 => query(depth - 1).prop_map(|query| format!("(SELECT count(*) FROM ({query}) s)::int")),
        1 => query(depth - 1).prop_map(|query| format!("(EXISTS ({query}))::int")),
        1 => query(depth - 1).prop_map(|query| {
            format!("length(query_to_xml({}, true, false, '')::text)", quoted(&query))
        }),
        1 => inner().prop_map(|one| format!("sum({one}) OVER ()::int")),
    ]
    .boxed()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What returns rows of one column.
fn query(depth: u32) -> BoxedStrategy<String> {
    let plain = (
        number(depth),
        select(vec![
            "JOIN people p ON p.id = o.user_id",
            "CROSS JOIN people p",
            "LEFT JOIN people p ON true",
        ]),
        prop::option::weighted(0.5, (number(depth.saturating_sub(1)), number(0))),
        select(vec![
            "",
            "",
            "",
            " ORDER BY 1",
            " LIMIT 3",
            " LIMIT 1 OFFSET 1",
            " FOR UPDATE OF o",
            " FOR SHARE OF o",
        ]),
    )
        .prop_map(|(item, join, condition, end)| {
            let condition = condition
                .map(|(one, other)| format!(" WHERE {one} > {other}"))
                .unwrap_or_default();
            format!("SELECT {item} AS x FROM orders o {join}{condition}{end}")
        });
    if depth == 0 {
        return plain.boxed();
    }
    prop_oneof![
        4 => plain,
        1 => (query(depth - 1), select(vec!["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]), query(depth - 1))
            .prop_map(|(one, operator, other)| format!("({one}) {operator} ({other})")),
        2 => (query(depth - 1), query(depth - 1))
            .prop_map(|(one, other)| format!("WITH c AS ({one}), notes AS ({other}) SELECT x FROM c UNION ALL SELECT x FROM notes")),
        1 => (write(), query(depth - 1))
            .prop_map(|(write, query)| format!("WITH w AS ({write}) {query}")),
        1 => (write(), query(depth - 1))
            .prop_map(|(write, query)| format!("WITH q AS ({query}), w AS ({write} RETURNING id) SELECT q.x FROM q, w")),
        1 => query(depth - 1).prop_map(|query| format!("SELECT s.x FROM ({query}) s")),
        1 => number(0).prop_map(|one| format!("SELECT x FROM orders o, people p, LATERAL (SELECT {one} AS x) l")),
        1 => Just("VALUES (1), (2)".to_owned()),
    ]
    .boxed()
}

fn write() -> BoxedStrategy<String> {
    select(vec![
        "DELETE FROM notes",
        "UPDATE notes SET body = 'x'",
        "INSERT INTO notes (id) VALUES (77) ON CONFLICT DO NOTHING",
    ])
    .prop_map(str::to_owned)
    .boxed()
}

fn statement() -> BoxedStrategy<String> {
    let block = |body: String| format!("DO $b$ DECLARE n bigint; BEGIN {body}; END $b$");
    prop_oneof![
        6 => query(2),
        1 => (select(vec!["EXPLAIN", "EXPLAIN ANALYZE", "EXPLAIN (ANALYZE off)", "EXPLAIN (ANALYZE true, TIMING off)"]), query(1))
            .prop_map(|(explain, query)| format!("{explain} {query}")),
        1 => (select(vec!["EXPLAIN", "EXPLAIN ANALYZE"]), write())
            .prop_map(|(explain, write)| format!("{explain} {write}")),
        1 => query(1).prop_map(|query| format!("COPY ({query}) TO STDOUT")),
        1 => query(1).prop_map(move |query| block(format!("PERFORM x FROM ({query}) s"))),
        1 => query(1).prop_map(move |query| block(format!("n := (SELECT count(*) FROM ({query}) s)"))),
        1 => query(1).prop_map(move |query| block(format!("EXECUTE {}", quoted(&query)))),
        1 => (query(0), write()).prop_map(move |(query, write)| block(format!("IF EXISTS ({query}) THEN {write}; END IF"))),
        1 => write().prop_map(move |write| block(format!("EXECUTE {}", quoted(&write)))),
        1 => write(),
        1 => query(0).prop_map(|query| query.replacen(" FROM", " INTO TEMP made FROM", 1)),
        1 => query(0).prop_map(|query| format!("CREATE TEMP TABLE made AS {query}")),
        1 => query(1).prop_map(|query| format!("SELECT 1; {query}")),
    ]
    .boxed()
}

fn variable(name: &str, otherwise: u32) -> u32 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

#[test]
fn what_is_called_a_read_changes_nothing_in_a_real_database() -> Result<()> {
    let laboratory = laboratory()?;
    let mut client = laboratory.connect("postgres")?;
    let (seed, cases) = (variable("SQL_SEED", 1), variable("SQL_CASES", CASES));
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let reads = Classes::of(Class::Read).union(Classes::of(Class::CopyOut));
    let (mut judged_reads, mut ran, mut wrote) = (0, 0, 0);
    let mut known = None;
    let strategy = statement();
    for _ in 0..cases {
        let text = strategy
            .new_tree(&mut runner)
            .map_err(|why| anyhow::anyhow!("{why}"))?
            .current();
        let is_read = reads.contains_all(classes(&classify(&text)));
        client.query("BEGIN; SELECT 1", "")?;
        let before = match known.take() {
            Some(state) => state,
            None => state(&mut client)?,
        };
        let failed = client.query(&text, "")?.error.is_some();
        if is_read {
            judged_reads += 1;
            if !failed {
                ran += 1;
                let changed = changed(&mut client, &before)?;
                ensure!(
                    !changed,
                    "called a read, and changed something (seed {seed}):\n{text}"
                );
                known = Some(before);
            }
        } else if !failed && wrote < 40 {
            // The measure would see it: of the others, many are found to write.
            wrote += usize::from(changed(&mut client, &before)?);
        }
        client.query("ROLLBACK", "")?;
        client.query("DISCARD ALL", "")?;
    }
    println!(
        "{cases} statements: {judged_reads} called reads, of which {ran} ran; {wrote} seen to write"
    );
    assert!(
        ran * 5 >= cases,
        "only {ran} reads of {cases} statements ran"
    );
    assert!(
        wrote * 20 >= usize::try_from(cases)?.min(800),
        "only {wrote} were seen to write"
    );
    Ok(())
}

fn changed(client: &mut Client, before: &[String]) -> Result<bool> {
    let answer = client.query(
        "SELECT 'number ' || coalesce(pg_catalog.pg_current_xact_id_if_assigned()::text, 'none')",
        "",
    )?;
    // Even to plan a statement takes locks on its tables.
    let after = state(client)?;
    Ok(!answer.text.contains("number none") || after.get(..2) != before.get(..2))
}
