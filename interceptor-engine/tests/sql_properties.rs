//! Properties of reading statements.

use interceptor_engine::pg::sql::{Classifier, Dialect, classify, classify_replication, read};
use proptest::prelude::*;
use proptest::sample::select;

/// A number, or something that looks like one.
fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_u32..3).prop_map(|number| number.to_string()),
        (0_u64..99_999_999_999).prop_map(|number| number.to_string()),
        select(vec![
            "a", "t.b", "1.5", "1e+5", "1e+6", "0x1F", "x1", "c2", "-1", "- 2", "true", "false",
            "null", "007", "1_0", ".5", "1.",
        ])
        .prop_map(str::to_owned),
    ]
}

/// An expression, with numbers where PostgreSQL takes them.
fn expression() -> impl Strategy<Value = String> {
    leaf().prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (
                inner.clone(),
                select(vec![
                    "+", "-", "*", "/", "=", "<>", "<", ">=", " AND ", " OR ", "||"
                ]),
                inner.clone()
            )
                .prop_map(|(left, operator, right)| format!("{left}{operator}{right}")),
            (
                inner.clone(),
                select(vec!["=", "<>", "<", " = ", " IS DISTINCT FROM "]),
                inner.clone()
            )
                .prop_map(|(left, operator, right)| format!("({left}){operator}({right})")),
            inner.clone().prop_map(|inner| format!("NOT ({inner})")),
            inner.clone().prop_map(|inner| format!("({inner}) IS NULL")),
            inner.clone().prop_map(|inner| format!("a[{inner}]")),
            inner.clone().prop_map(|inner| format!("lower({inner})")),
            inner.clone().prop_map(|inner| format!("(SELECT {inner})")),
            inner
                .clone()
                .prop_map(|inner| format!("set_config({inner}, 1, true)")),
            (inner.clone(), inner.clone())
                .prop_map(|(one, other)| format!("{one} IN ({other}, {one})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(one, two, three)| format!(
                "CASE WHEN {one} THEN {two} ELSE {three} END"
            )),
            (inner.clone(), inner.clone())
                .prop_map(|(one, other)| format!("coalesce({one}, {other})")),
            (inner.clone(), inner)
                .prop_map(|(one, other)| format!("{one} BETWEEN {other} AND {other}")),
        ]
    })
}

fn statement() -> impl Strategy<Value = String> {
    let compared = (
        leaf(),
        select(vec!["=", "<>", "<", " <> ", " IS DISTINCT FROM "]),
        leaf(),
    )
        .prop_map(|(one, operator, other)| format!("DELETE FROM t WHERE {one}{operator}{other}"));
    prop_oneof![any_statement(), compared]
}

fn any_statement() -> impl Strategy<Value = String> {
    (expression(), expression(), 0_u32..3, 0_usize..11).prop_map(|(one, other, number, kind)| {
        match kind {
            0 => format!("SELECT {one} FROM t WHERE {other}"),
            1 => format!("DELETE FROM t WHERE {one}"),
            2 => format!("UPDATE t SET a = {one} WHERE {other}"),
            3 => format!("INSERT INTO t (a, b) VALUES ({one}, {number})"),
            4 => format!("MERGE INTO t USING s ON {one} WHEN MATCHED AND {other} THEN DELETE"),
            5 => format!("SELECT {one} ORDER BY {number} LIMIT {number}"),
            6 => format!("DELETE FROM t WHERE {one};SELECT {number}"),
            7 => format!("SET x = {number}"),
            8 => format!("FETCH {number} FROM c"),
            9 => format!("EXPLAIN (ANALYZE {number}) DELETE FROM t WHERE {one}"),
            _ => format!("MERGE INTO t USING s ON {one} WHEN NOT MATCHED BY SOURCE THEN DELETE"),
        }
    })
}

/// The text with some of its digits changed, so that it often has the same
/// template. Few digits to choose from, so that numbers are often equal.
fn renumbered(text: &str, seed: u64) -> String {
    let mut state = seed | 1;
    text.chars()
        .map(|c| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match (c, state % 4) {
                ('0'..='9', 0) => '1',
                ('0'..='9', 1) => '2',
                (other, _) => other,
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn what_is_remembered_is_what_would_be_read(texts in prop::collection::vec(statement(), 1..4), seed in any::<u64>()) {
        let classifier = Classifier::default();
        for text in &texts {
            // The first of its template speaks for all of it, if it may: so one
            // that differs comes before it, and another after.
            for text in [renumbered(text, seed), text.clone(), renumbered(text, !seed)] {
                let remembered = classifier.classify(&text);
                let read = read(&text, Dialect::default());
                // Except that one of the texts may be refused for a value in it,
                // by the server as well.
                if read.sql.statements.first().is_some_and(|statement| statement.tags == ["UNCLASSIFIED"]) {
                    continue;
                }
                prop_assert_eq!(&remembered.sql, &read.sql, "{}", text);
                prop_assert_eq!(&remembered.effects, &read.effects, "{}", text);
            }
        }
    }

    #[test]
    fn no_text_is_too_strange(text in ".{0,80}") {
        let _ = classify(&text);
        let _ = classify_replication(&text);
    }

    #[test]
    fn no_heap_of_words_is_too_strange(words in prop::collection::vec(select(WORDS.to_vec()), 0..20)) {
        let text = words.join(" ");
        let conforming = read(&text, Dialect::default());
        let classifier = Classifier::default();
        let remembered = classifier.classify(&text);
        prop_assert_eq!(&remembered.sql, &conforming.sql);
        let _ = read(&text, Dialect { standard_conforming_strings: false });
    }
}

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "INSERT INTO",
    "UPDATE",
    "SET",
    "DELETE FROM",
    "MERGE INTO",
    "USING",
    "ON",
    "WITH",
    "AS",
    "(",
    ")",
    ",",
    "*",
    "a",
    "b",
    "t",
    "t.a",
    "u.*",
    "1",
    "2",
    "'x'",
    "=",
    "<>",
    "AND",
    "OR",
    "NOT",
    "VALUES",
    "RETURNING",
    "UNION",
    "JOIN",
    "NATURAL",
    "LATERAL",
    "COPY",
    "TO STDOUT",
    "EXPLAIN",
    "ANALYZE",
    "PREPARE",
    "EXECUTE",
    "DECLARE",
    "CURSOR FOR",
    "CREATE",
    "TABLE",
    "DROP",
    "ALTER",
    "GRANT",
    "REVOKE",
    "ORDER BY",
    "GROUP BY",
    "LIMIT",
    "CASE",
    "WHEN",
    "THEN",
    "END",
    ";",
    "$1",
    "::int",
    "[1]",
];
