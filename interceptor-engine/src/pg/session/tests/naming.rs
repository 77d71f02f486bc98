use super::*;
use crate::pg::catalog::BaseColumn;

fn table(oid: u32, schema: &str, name: &str, columns: &[&str]) -> TableInfo {
    TableInfo {
        oid,
        schema: schema.to_owned(),
        name: name.to_owned(),
        columns: (1..).zip(columns.iter().map(|c| (*c).to_owned())).collect(),
        ..TableInfo::default()
    }
}

fn view(oid: u32, name: &str, definition: &str, reads: &[(&str, &str)]) -> TableInfo {
    TableInfo {
        definition: Some(definition.to_owned()),
        view_of: reads
            .iter()
            .map(|(table, column)| BaseColumn {
                schema: "public".to_owned(),
                table: (*table).to_owned(),
                column: (*column).to_owned(),
            })
            .collect(),
        ..table(oid, "public", name, &["id"])
    }
}

/// A view of the users.
fn people() -> TableInfo {
    view(
        3,
        "people",
        " SELECT users.id\n   FROM public.users;",
        &[("users", "id")],
    )
}

fn talk(rules: &str, catalog: Vec<TableInfo>) -> Talk {
    let mut talk = Talk::with(&format!("version: 1\nrules:\n{rules}"), true);
    talk.catalog = catalog;
    talk
}

fn refused(talk: &mut Talk, text: &str) -> bool {
    talk.to_server.clear();
    talk.agent(&query(text));
    let sent = talk.server_got();
    assert_eq!(tags(&sent), "Q", "{text}");
    String::from_utf8_lossy(&sent[0].1).contains("refused by interceptor")
}

const NOT_USERS: &str =
    "  - { name: no-users, match: { postgres: { tables: public.users } }, verdict: block }";

#[test]
fn a_name_is_asked_for_once_and_stands_for_what_the_catalog_says() {
    let users = table(1, "public", "users", &["id"]);
    let other = table(2, "app", "orders", &["id"]);
    let mut talk = talk(NOT_USERS, vec![users, other]);
    assert!(refused(&mut talk, "SELECT id FROM users"));
    assert!(!refused(&mut talk, "SELECT id FROM orders"));
    assert!(!refused(&mut talk, "SELECT id FROM orders LIMIT 7"));
    assert_eq!(talk.named, ["users", "orders"]);
}

#[test]
fn a_name_of_another_schema_s_table_is_not_taken_for_ours() {
    let mut talk = talk(NOT_USERS, vec![table(1, "app", "users", &["id"])]);
    assert!(!refused(&mut talk, "SELECT id FROM users"));
}

#[test]
fn a_view_is_as_forbidden_as_what_it_reads() {
    let people = people();
    let mut talk = talk(NOT_USERS, vec![people]);
    assert!(refused(&mut talk, "SELECT id FROM people"));
}

#[test]
fn what_the_catalog_does_not_know_is_asked_again() {
    let mut talk = talk(NOT_USERS, Vec::new());
    assert!(!refused(&mut talk, "SELECT id FROM people"));
    talk.catalog = vec![people()];
    assert!(refused(&mut talk, "SELECT id FROM people"));
}

#[test]
fn a_change_of_the_schema_makes_answers_old() {
    let mut talk = talk(NOT_USERS, vec![table(1, "public", "people", &["id"])]);
    assert!(!refused(&mut talk, "SELECT id FROM people"));
    assert!(!refused(&mut talk, "DROP TABLE people"));
    talk.catalog = vec![people()];
    assert!(refused(&mut talk, "SELECT id FROM people"));
}

#[test]
fn what_is_executed_by_name_is_asked_for_too() {
    let people = people();
    let mut talk = talk(NOT_USERS, vec![people]);
    talk.agent(
        &[
            parse("p", "SELECT id FROM people"),
            bind("", "p"),
            execute(""),
        ]
        .concat(),
    );
    let sent = String::from_utf8_lossy(&talk.to_server).into_owned();
    assert!(sent.contains("refused by interceptor"), "{sent}");
}

#[test]
fn messages_behind_one_that_waits_for_names_keep_their_order() {
    let mut talk = talk("  - { name: x, match: {}, severity: low }", Vec::new());
    let asked = [
        query("SELECT 1"),
        query("SELECT a FROM t"),
        query("SELECT 2"),
    ]
    .concat();
    talk.agent(&asked);
    assert_eq!(talk.to_server, asked);
}
