//! Sessions done again, without anything to do them on.

use serde_json::{Value, json};

use super::super::pg::tests::{data_row, description};
use super::*;
use crate::replay::Entry;

fn entry(kind: &str, exchange: u64, data: &[u8], meta: Value) -> Entry {
    Entry {
        kind: kind.to_owned(),
        exchange: (exchange > 0).then_some(exchange),
        data: data.to_vec(),
        meta,
        ..Entry::default()
    }
}

fn collected(protocol: &str, with_refused: bool, entries: &[Entry]) -> Vec<Asked> {
    let mut again = Again::new(with_refused);
    again.push(&entry("open", 0, b"", json!({ "protocol": protocol })));
    let mut all: Vec<Asked> = entries.iter().flat_map(|entry| again.push(entry)).collect();
    all.extend(again.finish());
    all
}

fn statement(exchange: u64, sql: &str, meta: Value) -> Entry {
    let mut whole = json!({"message": "Q", "verdict": "allow"});
    for (name, value) in meta.as_object().unwrap() {
        whole[name] = value.clone();
    }
    entry("command", exchange, sql.as_bytes(), whole)
}

fn rows_of(values: &[&str]) -> Vec<u8> {
    let mut data = description(&[("name", 25, 0)]);
    for value in values {
        data.extend(data_row(&[Some(value.as_bytes())]));
    }
    data
}

fn ended(exchange: u64, values: &[&str]) -> Entry {
    let tag = format!("SELECT {}", values.len());
    let meta = json!({"tag": tag, "rows": values.len()});
    entry("result", exchange, &rows_of(values), meta)
}

fn answered(values: &[&str]) -> Answer {
    let mut rows = Rows {
        tag: format!("SELECT {}", values.len()),
        ..Rows::default()
    };
    let mut frames = super::super::pg::Frames::default();
    frames.push(&rows_of(values), |frame| rows.take(&frame));
    Answer::Rows(rows)
}

#[test]
fn what_passed_is_asked_again_in_order_and_what_was_refused_is_not() {
    let entries = [
        statement(1, "SELECT 1", json!({})),
        statement(2, "DROP TABLE x", json!({"verdict": "block"})),
        statement(3, "DELETE FROM x", json!({"verdict": "hold"})),
        statement(4, "UPDATE x", json!({"verdict": "hold"})),
        ended(1, &["a"]),
        entry("approval", 3, b"", json!({"decision": "denied"})),
        entry("approval", 4, b"", json!({"decision": "approved"})),
        entry("error", 4, b"", json!({"code": "42P01", "message": "no"})),
    ];
    let asked = collected("postgres", false, &entries);
    let sent: Vec<(u64, bool)> = asked
        .iter()
        .map(|one| (one.exchange, one.unsent.is_none()))
        .collect();
    assert_eq!(sent, [(1, true), (2, false), (3, false), (4, true)]);
    assert!(
        collected("postgres", true, &entries)
            .iter()
            .all(|one| one.unsent.is_none())
    );
}

#[test]
fn what_is_not_on_record_as_it_was_sent_is_not_sent() {
    for (command, why) in [
        (statement(1, "", json!({})), "metadata"),
        (statement(1, "SELECT '[redacted]'", json!({})), "hidden"),
        (
            statement(1, "SELECT $1", json!({"message": "E"})),
            "parameters",
        ),
        (
            statement(
                1,
                "SELECT $1",
                json!({"message": "E", "parameters": ["ab… (9 bytes)"]}),
            ),
            "cut",
        ),
        (statement(1, "f", json!({"message": "F"})), "function call"),
    ] {
        let asked = collected("postgres", false, &[command]).pop().unwrap();
        assert!(asked.unsent.unwrap().contains(why), "{asked:?}");
    }
    let request = |meta: Value| {
        let mut whole = json!({
            "verdict": "allow", "method": "POST", "url": "https://a.example/x", "headers": [],
        });
        for (name, value) in meta.as_object().unwrap() {
            whole[name] = value.clone();
        }
        entry("command", 1, b"", whole)
    };
    for (command, why) in [
        (request(json!({"headers": null, "url": null})), "metadata"),
        (request(json!({"size": 9})), "body"),
        (
            request(json!({"query": [["token", "[credential]"]]})),
            "hidden",
        ),
        (request(json!({"websocket": true})), "plain"),
    ] {
        let asked = collected("http", false, &[command]).pop().unwrap();
        assert!(asked.unsent.unwrap().contains(why), "{asked:?}");
    }
}

#[test]
fn what_was_copied_is_what_stood_in_the_messages() {
    let copied = |cut: usize, data: &[u8]| {
        let (a, b) = data.split_at(cut);
        let entries = [
            statement(1, "COPY x FROM STDIN", json!({})),
            entry("input", 1, a, json!({})),
            entry("input", 1, b, json!({})),
            entry("result", 1, b"", json!({"tag": "COPY 2", "rows": 2})),
        ];
        collected("postgres", false, &entries).pop().unwrap()
    };
    let frame = super::super::pg::tests::frame;
    let data = [frame(b'd', b"1\n"), frame(b'd', b"2\n")].concat();
    for cut in 0..=data.len() {
        let asked = copied(cut, &data);
        assert!(matches!(&asked.what, What::Statement { copied, .. } if copied == b"1\n2\n"));
        assert_eq!(asked.unsent, None);
    }
    assert!(copied(3, &data[..data.len() - 1]).unsent.is_some());
}

#[test]
fn a_request_keeps_what_is_its_own_and_loses_credentials() {
    let meta = json!({
        "verdict": "allow", "method": "PUT", "url": "https://a.example/x/y", "query": [["q", "a b"]],
        "headers": [["x-team", "1"], ["Authorization", "[credential]"], ["x-key", "[credential]"],
                    ["host", "a.example"], ["content-length", "3"]],
    });
    let entries = [
        entry("command", 1, b"", meta),
        entry("input", 1, b"{1}", json!({"part": 1})),
    ];
    let asked = collected("http", false, &entries).pop().unwrap();
    assert_eq!(
        asked.what,
        What::Request {
            method: "PUT".to_owned(),
            path: "/x/y?q=a%20b".to_owned(),
            headers: vec![("x-team".to_owned(), "1".to_owned())],
            body: b"{1}".to_vec(),
        }
    );
}

fn compared(masked: Option<u64>, then: &[&str], now: &Answer) -> Compared {
    let mut entries = vec![statement(1, "SELECT 1", json!({}))];
    entries.extend(masked.map(|values| entry("mask", 1, b"", json!({ "values": values }))));
    entries.push(ended(1, then));
    compare(&collected("postgres", false, &entries)[0], now)
}

#[test]
fn rows_are_compared_value_by_value_and_hidden_ones_are_not() {
    assert_eq!(
        compared(None, &["a", "b"], &answered(&["a", "b"])),
        Compared::default()
    );
    let other = compared(None, &["a", "b"], &answered(&["a", "c"]));
    assert_eq!(other.differences[0].what, "row 2, name");
    let fewer = compared(None, &["a", "b"], &answered(&["a"]));
    let what: Vec<&str> = fewer
        .differences
        .iter()
        .map(|one| one.what.as_str())
        .collect();
    assert_eq!(what, ["tag", "rows"]);
    let redacted = compared(Some(1), &["[redacted]", "b"], &answered(&["a", "b"]));
    assert_eq!((redacted.differences.len(), redacted.masked), (0, 1));
    let hashed = compared(Some(1), &["3f1c", "b"], &answered(&["a", "b"]));
    assert_eq!((hashed.differences.len(), hashed.masked), (0, 1));
    let both = compared(Some(1), &["3f1c", "b"], &answered(&["a", "c"]));
    assert_eq!(
        both.differences.len(),
        2,
        "no more differ than were hidden, or all are told"
    );
    let failed = Answer::Rows(Rows {
        error: Some(("42P01".to_owned(), "no table".to_owned())),
        ..Rows::default()
    });
    assert_eq!(compared(None, &["a"], &failed).differences[0].what, "error");
}

#[test]
fn bodies_of_json_are_compared_by_value() {
    let response = |body: &str, status: u16| {
        Answer::Response(Response {
            status,
            headers: Vec::new(),
            body: Some(body.as_bytes().to_vec()),
        })
    };
    let asked = |body: &str| Asked {
        exchange: 1,
        line: String::new(),
        what: What::Request {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        },
        unsent: None,
        answer: response(body, 200),
        masked: 0,
    };
    let then = r#"{"a": 1, "b": ["x", "[redacted]"]}"#;
    let same = compare(
        &asked(then),
        &response(r#"{"b":["x","secret"],"a":1}"#, 200),
    );
    assert_eq!((same.differences.len(), same.masked), (0, 1));
    let other = compare(
        &asked(then),
        &response(r#"{"b":["y","secret"],"a":1}"#, 404),
    );
    let what: Vec<&str> = other
        .differences
        .iter()
        .map(|one| one.what.as_str())
        .collect();
    assert_eq!(what, ["status", "body at /b/0"]);
    assert_eq!(
        compare(&asked("x"), &response("y", 200)).differences[0].what,
        "body"
    );
}
