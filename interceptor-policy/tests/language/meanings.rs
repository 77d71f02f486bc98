//! What is kept of a meaning, and what is asked every time.

use interceptor_policy::operation::Meaning;

use super::*;

/// The verdict of a statement under a meaning's number.
fn says(scope: &Scope, statement: Say, text: &str, meaning: (u64, bool)) -> &'static str {
    let sql = sql(&[statement]);
    let Operation::Postgres(mut operation) = message(&sql, text) else {
        panic!("no statement");
    };
    let (id, exact) = meaning;
    operation.meaning = Some(Meaning { id, exact });
    word(&scope.decide(&Operation::Postgres(operation)))
}

#[test]
fn a_meaning_is_looked_at_once() {
    let scope = rule("match: { postgres: { class: ddl } }, verdict: block").scope(&allowing());
    let ddl = || say("DROP TABLE", Class::Ddl);
    assert_eq!(says(&scope, ddl(), "", (1, true)), "block");
    assert_eq!(says(&scope, ddl(), "", (1, true)), "block");
    // Who gives two meanings one number gets one answer: it was not looked at.
    assert_eq!(says(&scope, select(), "", (1, true)), "block");
    assert_eq!(says(&scope, select(), "", (2, true)), "allow");
}

#[test]
fn what_looks_at_the_text_is_asked_where_texts_of_a_meaning_differ() {
    let scope = rule("match: { postgres: { text: '*7*' } }, verdict: block").scope(&allowing());
    assert_eq!(says(&scope, select(), "SELECT 1", (1, false)), "allow");
    assert_eq!(says(&scope, select(), "SELECT 7", (1, false)), "block");
    let with_if = rule("match: { if: postgres.text.contains('7') }, verdict: block");
    let scope = with_if.scope(&allowing());
    assert_eq!(says(&scope, select(), "SELECT 1", (1, false)), "allow");
    assert_eq!(says(&scope, select(), "SELECT 7", (1, false)), "block");
}

#[test]
fn what_is_kept_is_of_one_database_and_user() {
    let rules = rule("match: { postgres: { database: orders } }, verdict: block");
    let scope = rules.scope(&allowing());
    let sql = sql(&[select()]);
    let of = |database: &str| {
        let operation = PgOperation {
            sql: &sql,
            text: "",
            database,
            user: "u",
            meaning: Some(Meaning { id: 1, exact: true }),
        };
        word(&scope.decide(&Operation::Postgres(operation)))
    };
    assert_eq!(of("orders"), "block");
    assert_eq!(of("other"), "allow");
    assert_eq!(of("orders"), "block");
}

#[test]
fn circumstances_are_asked_though_the_meaning_is_kept() {
    let rules = rule("match: { time: { between: '00:00-12:00' } }, verdict: block");
    let scope = rules.scope(&allowing());
    let sql = sql(&[select()]);
    let Operation::Postgres(mut operation) = message(&sql, "") else {
        panic!("no statement");
    };
    operation.meaning = Some(Meaning { id: 1, exact: true });
    let operation = Operation::Postgres(operation);
    let of = |hour: i64| {
        let now = Moment {
            monotonic: 0,
            unix: hour * 3600,
        };
        word(&scope.judge(&operation, &mut Standing::default(), now))
    };
    assert_eq!(of(1), "block");
    assert_eq!(of(13), "allow");
    assert_eq!(of(25), "block");
}

#[test]
fn more_meanings_than_are_kept_are_found_anew() {
    let scope = rule("match: { postgres: { class: ddl } }, verdict: block").scope(&allowing());
    for id in 0..1000 {
        assert_eq!(says(&scope, select(), "", (id, true)), "allow");
    }
    let ddl = say("DROP TABLE", Class::Ddl);
    assert_eq!(says(&scope, ddl, "", (0, true)), "block");
}
