//! One session shown in every way. It has a bit of everything that a recording can
//! hold, an attack on the terminal included.

use serde_json::{Value, json};

use super::json::Json;
use super::pg::tests::{data_row, description, frame};
use super::sql::Sql;
use super::text::{self, Style};
use super::{Entry, Timeline};
use crate::event::FlowTime;

fn entry(seq: u64, at: u64, kind: &str, exchange: u64, line: &str, meta: Value) -> Entry {
    Entry {
        seq,
        at: FlowTime(at),
        kind: kind.to_owned(),
        exchange: (exchange > 0).then_some(exchange),
        line: line.to_owned(),
        meta,
        ..Entry::default()
    }
}

fn with(mut entry: Entry, data: &[u8]) -> Entry {
    entry.data = data.to_vec();
    entry
}

fn session() -> Vec<Entry> {
    let row = [
        description(&[("id", 23, 0), ("note", 25, 0)]),
        data_row(&[Some(b"1"), Some(b"\x1b[2Jgone")]),
    ]
    .concat();
    let (one, two) = row.split_at(20);
    vec![
        entry(
            0,
            0,
            "open",
            0,
            "psql to orders-db",
            json!({
                "agent": "bot", "process": {"pid": 7, "exe": "/usr/bin/psql"}, "schema": 1,
                "target": "orders-db",
            }),
        ),
        with(
            entry(
                1,
                12_345,
                "command",
                1,
                "SELECT id, note FROM orders",
                json!({
                    "message": "Q", "verdict": "allow", "tags": ["SELECT"],
                }),
            ),
            b"SELECT id, note\n  FROM orders",
        ),
        with(
            entry(2, 13_000, "result", 1, "part 1", json!({"part": 1})),
            one,
        ),
        with(
            entry(
                3,
                14_000,
                "result",
                1,
                "SELECT 1",
                json!({
                    "tag": "SELECT 1", "rows": 1, "duration_us": 1655, "part": 2,
                }),
            ),
            two,
        ),
        entry(
            4,
            14_000,
            "mask",
            1,
            "1 values masked",
            json!({"values": 1}),
        ),
        with(
            entry(
                5,
                1_000_000,
                "command",
                2,
                "DROP TABLE orders",
                json!({
                    "message": "Q", "verdict": "block",
                }),
            ),
            b"DROP TABLE orders",
        ),
        entry(
            6,
            1_000_100,
            "verdict",
            2,
            "block by no-drop: not here",
            json!({
                "verdict": "block", "rule": "no-drop", "message": "not here\x07",
            }),
        ),
        with(
            entry(
                7,
                61_000_000,
                "command",
                3,
                "SELECT $1::int / 0",
                json!({
                    "message": "E", "verdict": "allow", "statement": "s", "parameters": ["1", null],
                }),
            ),
            b"SELECT $1::int / 0",
        ),
        entry(
            8,
            61_000_200,
            "error",
            3,
            "ERROR 22012: division by zero",
            json!({
                "severity": "ERROR", "code": "22012", "message": "division by zero", "hint": "do not",
            }),
        ),
        with(
            entry(
                9,
                61_000_300,
                "command",
                4,
                "COPY t TO STDOUT",
                json!({
                    "message": "Q", "verdict": "allow",
                }),
            ),
            b"COPY t TO STDOUT",
        ),
        with(
            entry(
                10,
                61_000_400,
                "result",
                4,
                "COPY 2",
                json!({"tag": "COPY 2", "rows": 2}),
            ),
            &[frame(b'd', b"1\ta\n"), frame(b'd', b"2\t\x9b31m\n")].concat(),
        ),
        entry(11, 61_000_500, "note", 0, "something", Value::Null),
        entry(
            12,
            3_661_000_500,
            "close",
            0,
            "client closed",
            json!({
                "reason": "client closed", "seconds": 3661, "worst": "block",
            }),
        ),
    ]
}

fn as_text(style: Style) -> String {
    let mut timeline = Timeline::new(100);
    session()
        .iter()
        .filter_map(|entry| timeline.push(entry))
        .map(|item| text::render(&item, style))
        .collect()
}

#[test]
fn a_person_sees_statements_verdicts_tables_and_errors() {
    assert_eq!(
        as_text(Style::default()),
        include_str!("golden/session.txt")
    );
}

#[test]
fn colours_are_the_only_thing_that_a_terminal_is_told() {
    let coloured = as_text(Style {
        colour: true,
        width: Some(80),
    });
    assert!(coloured.contains("\x1b[31mblock\x1b[0m"));
    let mut plain = coloured;
    for colour in ["0", "1", "2", "31", "32", "33", "1;31"] {
        plain = plain.replace(&format!("\x1b[{colour}m"), "");
    }
    assert_eq!(
        plain,
        as_text(Style {
            colour: false,
            width: Some(80)
        })
    );
    assert!(!plain.contains(|c: char| c.is_control() && c != '\n'));
}

#[test]
fn a_database_is_given_what_was_let_through_and_nothing_else() {
    let mut sql = Sql::default();
    let script: String = session().iter().map(|entry| sql.render(entry)).collect();
    assert_eq!(script, include_str!("golden/session.sql"));
}

#[test]
fn a_program_is_given_one_object_a_line_with_rows_decoded() {
    let mut json = Json::default();
    let text: String = session()
        .iter()
        .map(|entry| json.render("s", entry))
        .collect();
    assert_eq!(text, include_str!("golden/session.jsonl"));
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
    for line in text.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
}

#[test]
fn rows_are_shown_under_the_columns_of_their_prepared_statement() {
    let mut timeline = Timeline::new(10);
    let command = |exchange| {
        entry(
            0,
            0,
            "command",
            exchange,
            "SELECT id",
            json!({"message": "E", "statement": "s"}),
        )
    };
    let done = json!({"tag": "SELECT 1"});
    timeline.push(&command(1));
    let first = [description(&[("id", 23, 0)]), data_row(&[Some(b"1")])].concat();
    timeline.push(&with(entry(1, 0, "result", 1, "", done.clone()), &first));
    timeline.push(&command(2));
    let binary = data_row(&[Some(&[0, 0, 0, 7])]);
    let item = timeline
        .push(&with(entry(2, 0, "result", 2, "", done), &binary))
        .unwrap();
    let text = text::render(&item, Style::default());
    assert!(text.starts_with(" id\n----\n  7\n"), "{text}");
}

#[test]
fn a_text_of_several_statements_has_several_tables() {
    let mut timeline = Timeline::new(10);
    let data = [
        description(&[("a", 23, 0)]),
        data_row(&[Some(b"1")]),
        description(&[("b", 25, 0)]),
        description(&[("c", 25, 0)]),
        data_row(&[Some(b"x")]),
    ]
    .concat();
    let item = timeline
        .push(&with(
            entry(0, 0, "result", 1, "", json!({"tag": "SELECT 1"})),
            &data,
        ))
        .unwrap();
    assert_eq!(
        text::render(&item, Style::default()),
        " a\n---\n 1\n(1 row)\n b\n---\n(0 rows)\n c\n---\n x\n(1 row)\n              SELECT 1\n"
    );
}

#[test]
fn exchanges_without_an_end_do_not_gather() {
    let mut timeline = Timeline::new(10);
    for exchange in 1..100_000 {
        timeline.push(&entry(
            0,
            0,
            "command",
            exchange,
            "x",
            json!({"statement": "s"}),
        ));
    }
    assert!(format!("{timeline:?}").len() < 1_000_000);
}
