//! Properties of reading statements.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "what cannot be read or cut fails the test"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use interceptor_engine::pg::sql::{
    Classifier, Dialect, Resolved, classify, classify_replication, read, resolve,
};
use interceptor_policy::operation::{Class, Classes, Column, Sql, Table};
use interceptor_policy::testing::run;
use interceptor_policy::{RuleSet, Source};
use proptest::prelude::*;
use proptest::sample::{Index, select};

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

/// Every statement of both corpora, and the lines of their bodies.
static CORPUS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: Vec<String> = Vec::new();
    for folder in ["tests/sql_corpus", "../tests/corpus/sql"] {
        let mut files: Vec<_> = std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
            .collect();
        files.sort();
        for file in files {
            let mut open = false;
            for line in std::fs::read_to_string(file).unwrap().lines() {
                if let Some(text) = line.strip_prefix("> ") {
                    texts.push(text.to_owned());
                    open = true;
                } else if let (Some(more), Some(text), true) =
                    (line.strip_prefix("  "), texts.last_mut(), open)
                {
                    text.push('\n');
                    text.push_str(more);
                } else {
                    open = false;
                }
            }
        }
    }
    assert!(texts.len() > 600, "{} statements", texts.len());
    texts
});

/// The rules that ship, with their tests, which bring subjects.
static RULES: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    let sources: Vec<Source> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .map(|path| Source {
            text: std::fs::read_to_string(&path).unwrap(),
            path,
        })
        .collect();
    Arc::new(RuleSet::load(&sources).unwrap())
});

/// A place where a text may be cut.
fn cut(text: &str, at: Index) -> usize {
    let places: Vec<usize> = text
        .char_indices()
        .map(|(place, _)| place)
        .chain([text.len()])
        .collect();
    places[at.index(places.len())]
}

/// A statement of the corpus, and what somebody does to it who looks for a way
/// past the reader.
fn mangled() -> impl Strategy<Value = String> {
    let one = || any::<Index>().prop_map(|at| CORPUS[at.index(CORPUS.len())].clone());
    let places = (any::<Index>(), any::<Index>(), any::<Index>());
    (one(), one(), 0_u8..10, places, select(WORDS.to_vec())).prop_map(
        |(one, other, how, (a, b, c), word)| {
            let (mut from, mut to) = (cut(&one, a), cut(&one, b));
            if from > to {
                std::mem::swap(&mut from, &mut to);
            }
            match how {
                0 => format!("{}{}", &one[..from], &one[to..]),
                1 => format!("{}{}{}", &one[..to], &one[from..to], &one[to..]),
                2 => format!("{}{}", &one[..from], &other[cut(&other, c)..]),
                3 => format!("{} {word} {}", &one[..from], &one[from..]),
                4 => format!("{one};{other}"),
                5 => format!("DO $body$ BEGIN {one}; {} END $body$", &other[..cut(&other, c)]),
                6 => format!("DO $body$ DECLARE x text; BEGIN EXECUTE {}; END $body$", quoted(&one)),
                7 => format!("SELECT query_to_xml({}, true, true, '')", quoted(&one[from..])),
                8 => format!(
                    "CREATE FUNCTION f(a int) RETURNS text LANGUAGE plpgsql AS $body$ BEGIN {one}; RETURN {word}; RETURN QUERY {}; END $body$",
                    &other[..cut(&other, c)]
                ),
                _ => format!("{}\0{}", &one[..from], &one[from..]),
            }
        },
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An answer of a catalog that knows some tables, and views of others.
fn facts(table: &Table) -> Option<Resolved> {
    let in_schema = |schema: &str| Table {
        schema: Some(schema.into()),
        name: Arc::clone(&table.name),
    };
    let base = Table {
        schema: Some("public".into()),
        name: "users".into(),
    };
    let ssn = Column {
        table: Some(base.clone()),
        name: "ssn".into(),
    };
    match table.name.len() % 4 {
        0 => None,
        1 => Some(Resolved {
            tables: vec![in_schema("public")],
            ..Resolved::default()
        }),
        2 => Some(Resolved {
            tables: vec![in_schema("a"), in_schema("b")],
            through: vec![(base, vec![ssn.clone()])],
            columns: Some(vec![("x".into(), vec![ssn])]),
        }),
        _ => Some(Resolved {
            tables: vec![in_schema("public")],
            through: vec![(base, vec![ssn])],
            columns: None,
        }),
    }
}

/// Classes, tables and functions of all statements.
fn summary(sql: &Sql) -> (Classes, BTreeSet<String>, BTreeSet<String>) {
    let mut classes = Classes::default();
    let (mut tables, mut functions) = (BTreeSet::new(), BTreeSet::new());
    for statement in &sql.statements {
        classes = classes.union(statement.classes);
        tables.extend(statement.tables.iter().map(ToString::to_string));
        functions.extend(statement.functions.iter().map(ToString::to_string));
    }
    (classes, tables, functions)
}

#[test]
fn a_statement_in_a_text_is_never_milder_than_by_itself() {
    let mut seen = 0;
    for text in CORPUS.iter() {
        let bare = classify(text);
        let (classes, tables, functions) = summary(&bare);
        if classes.contains(Class::Unclassified) {
            continue;
        }
        let in_texts = [
            format!("DO $body$ BEGIN EXECUTE {}; END $body$", quoted(text)),
            format!("SELECT query_to_xml({}, true, true, '')", quoted(text)),
            format!("SELECT 1 FROM dblink({}) AS t(a int)", quoted(text)),
        ];
        for wrapped in in_texts {
            let (classes_then, tables_then, functions_then) = summary(&classify(&wrapped));
            if classes_then.contains(Class::Procedural) {
                continue;
            }
            seen += 1;
            assert!(classes_then.contains_all(classes), "{wrapped}");
            assert!(tables_then.is_superset(&tables), "{wrapped}");
            assert!(functions_then.is_superset(&functions), "{wrapped}");
        }
    }
    assert!(seen > 1000, "only {seen} texts could be seen");
}

#[test]
fn a_block_of_statements_is_never_milder_than_they_are() {
    let mut seen = 0;
    for text in CORPUS.iter() {
        let (classes, tables, functions) = summary(&classify(text));
        if classes.contains(Class::Unclassified) || text.contains("$body$") {
            continue;
        }
        let block = format!("DO $body$ BEGIN {text}\n; END $body$");
        let (classes_then, tables_then, functions_then) = summary(&classify(&block));
        // What PL/pgSQL has no statement for is refused there.
        if classes_then.contains(Class::Procedural) {
            continue;
        }
        seen += 1;
        // Its own words for cursors and transactions are no SQL.
        let mut expected = Classes::default();
        for (_, class) in Class::NAMES {
            if classes.contains(*class) && *class != Class::Session {
                expected.insert(*class);
            }
        }
        assert!(classes_then.contains_all(expected), "{block}");
        assert!(tables_then.is_superset(&tables), "{block}");
        assert!(functions_then.is_superset(&functions), "{block}");
    }
    assert!(seen > 100, "only {seen} blocks could be read");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn nothing_that_is_done_to_a_statement_makes_a_panic(text in mangled(), number in any::<Index>()) {
        let conforming = Dialect::default();
        let escaping = Dialect { standard_conforming_strings: false };
        let reading = read(&text, conforming);
        let _ = read(&text, escaping);
        let resolved = resolve(&reading.sql, &facts);
        prop_assert_eq!(resolved.statements.len(), reading.sql.statements.len());
        for (place, _) in &reading.effects {
            prop_assert!(*place < reading.sql.statements.len());
        }
        // A verdict of all the rules that ship, masks among them.
        let tests = RULES.tests();
        let mut case = tests[number.index(tests.len())].clone();
        case.asks = interceptor_policy::testing::Exchange::Sql(text);
        let _ = run(&case, &RULES, |_| reading.sql.clone());
        let _ = run(&case, &RULES, |_| resolved.clone());
    }

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
