//! Texts made to break a reader: none crashes it, each is read or refused.

use interceptor_engine::pg::sql::classify;
use interceptor_policy::operation::{Class, Sql};

fn is_refused(sql: &Sql) -> bool {
    match sql.statements.as_slice() {
        [only] => only.classes.contains(Class::Unclassified),
        _ => false,
    }
}

#[test]
fn what_is_nested_too_deeply_is_refused_and_not_crashed_on() {
    let deep = [
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {}1", "NOT ".repeat(500_000)),
        format!("SELECT {}1", "+-".repeat(500_000)),
        format!("SELECT 1{}", " || 1".repeat(200_000)),
        format!("SELECT {}1", "CASE WHEN true THEN ".repeat(100_000)),
        format!(
            "SELECT {}1{}",
            "(SELECT ".repeat(50_000),
            ")".repeat(50_000)
        ),
        format!(
            "SELECT * FROM {}t{}",
            "(SELECT * FROM ".repeat(50_000),
            ") x".repeat(50_000)
        ),
        format!("SELECT 1{}", "[1]".repeat(200_000)),
        format!("SELECT 1{}", "::int".repeat(200_000)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(200_000)),
    ];
    for text in deep {
        let sql = classify(&text);
        assert!(
            is_refused(&sql) || sql.statements.len() == 1,
            "{}",
            text.get(..40).unwrap_or_default()
        );
    }
    assert!(is_refused(&classify(&format!(
        "SELECT 1{}",
        " || 1".repeat(200_000)
    ))));
}

#[test]
fn what_is_only_long_is_read() {
    let and = format!("DELETE FROM t WHERE a = 1{}", " AND a = 1".repeat(50_000));
    let sql = classify(&and);
    assert_eq!(sql.statements[0].tags, ["DELETE"]);
    let in_list = format!("DELETE FROM t WHERE a IN (1{})", ", 1".repeat(100_000));
    assert_eq!(classify(&in_list).statements[0].tags, ["DELETE"]);
    let concat = format!("SELECT a{} FROM t", " || a".repeat(500));
    assert_eq!(classify(&concat).statements[0].tags, ["SELECT"]);
    let union = format!("SELECT a FROM t{}", " UNION SELECT a FROM t".repeat(300));
    assert_eq!(classify(&union).statements[0].tags, ["SELECT"]);
    let nested = format!("SELECT {}a{} FROM t", "lower(".repeat(100), ")".repeat(100));
    assert_eq!(classify(&nested).statements[0].functions.len(), 1);
}

#[test]
fn a_small_stack_refuses_more_and_still_does_not_crash() {
    let union = format!("SELECT a FROM t{}", " UNION SELECT a FROM t".repeat(10_000));
    let handle = std::thread::Builder::new()
        .stack_size(512 << 10)
        .spawn(move || classify(&union).statements.len())
        .unwrap();
    assert_eq!(handle.join().unwrap(), 1);
}

#[test]
fn names_without_end_do_not_take_time_without_end() {
    // Each takes a second at most; by the square it would be hours.
    let many: Vec<String> = (0..20_000).map(|at| format!("c{at}")).collect();
    let tables: Vec<String> = (0..20_000).map(|at| format!("t{at}")).collect();
    let texts = [
        format!("SELECT {} FROM {}", many.join(","), tables.join(",")),
        format!("SELECT * FROM {}", tables.join(" NATURAL JOIN ")),
        format!(
            "WITH {} SELECT 1",
            tables
                .iter()
                .map(|table| format!("{table} AS (SELECT 1)"))
                .collect::<Vec<_>>()
                .join(",")
        ),
        format!("SELECT concat({}) FROM t", many.join(",")),
    ];
    for text in texts {
        let sql = classify(&text);
        assert_eq!(sql.statements.len(), 1);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "time is what this is about")]
fn texts_in_texts_do_not_take_time_without_end() {
    let many = 100_000;
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut nested = "SELECT E'\\\\' || ssn FROM users".to_owned();
    for _ in 0..12 {
        nested = format!("DO $a$ BEGIN EXECUTE {}; END $a$", quoted(&nested)).replace("$a$", "'");
        nested.truncate(1 << 20);
    }
    let texts = [
        // Many texts.
        format!(
            "SELECT {}1",
            "query_to_xml('SELECT 1', true, true, ''), ".repeat(many)
        ),
        format!("DO $$ BEGIN {} END $$", "PERFORM 1; ".repeat(2_000)),
        format!(
            "DO $$ BEGIN {} END $$",
            "EXECUTE 'SELECT 1'; ".repeat(1_000)
        ),
        // One that grows: each piece stands for all of the one before.
        format!(
            "DO $$ BEGIN EXECUTE format('{}', {}); END $$",
            "%1$s".repeat(10_000),
            quoted(&"SELECT 1;".repeat(1_000))
        ),
        format!(
            "DO $$ BEGIN {} END $$",
            format!("EXECUTE format('{}', 'SELECT 1;'); ", "%1$s".repeat(500)).repeat(20)
        ),
        // Every word looked up among many variables; every loop with one more.
        format!(
            "DO $$ DECLARE {} BEGIN PERFORM {}; END $$",
            (0..8_000)
                .map(|at| format!("v{at} int; "))
                .collect::<String>(),
            vec!["v1"; 10_000].join(" + ")
        ),
        format!(
            "DO $$ DECLARE {} BEGIN {} END $$",
            (0..6_000)
                .map(|at| format!("v{at} int; "))
                .collect::<String>(),
            "FOR i IN 1 .. 2 LOOP NULL; END LOOP; ".repeat(950)
        ),
        // Deep.
        format!(
            "DO $$ {} NULL; {} $$",
            "BEGIN ".repeat(990),
            "END; ".repeat(990)
        ),
        format!(
            "DO $$ BEGIN {} NULL; {} END $$",
            "IF a THEN ".repeat(900),
            "END IF; ".repeat(900)
        ),
        format!(
            "DO $$ BEGIN x := {}1{}; END $$",
            "(".repeat(20_000),
            ")".repeat(20_000)
        ),
        nested,
        format!(
            "CREATE FUNCTION f({}) RETURNS int LANGUAGE plpgsql AS $$ BEGIN {} END $$",
            (0..5_000)
                .map(|at| format!("p{at} int"))
                .collect::<Vec<_>>()
                .join(", "),
            "RETURN NEXT p1; ".repeat(5_000)
        ),
    ];
    for text in texts {
        let start = std::time::Instant::now();
        let read = classify(&text).statements.len();
        assert!(read >= 1);
        let took = start.elapsed();
        assert!(
            took.as_secs() < 20,
            "{took:?}: {}",
            text.get(..60).unwrap_or_default()
        );
    }
}
