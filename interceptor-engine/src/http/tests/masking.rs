//! What is hidden in answers, and what becomes of their fields.

use super::*;
use std::io::Write as _;

const CARD: &str = "4111111111111111";

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_long_answer_is_masked_as_it_comes_whatever_the_pieces() {
    let text = format!("line\n{}\nno {CARD} here\n", "x".repeat(3000));
    for size in [1, 10, 1000, usize::MAX] {
        let mut talk = Talk::new(MASKS);
        let id = talk.get("/");
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        talk.respond(id, &[("content-type", "text/plain")], &pieces);
        assert_eq!(talk.text(), text.replace(CARD, "[redacted]"), "by {size}");
        assert_eq!(talk.recorded(), talk.text());
        assert!(!talk.all().contains(CARD));
        assert_eq!(talk.meta(Kind::Mask)["values"], 1);
    }
}

#[test]
fn what_is_false_of_a_changed_body_is_taken_off() {
    let mut talk = Talk::new(MASKS);
    let id = talk.get("/");
    let body = gzip(format!("a {CARD}\n").as_bytes());
    let fields = [
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("etag", "\"x\""),
        ("digest", "sha-256=x"),
        ("accept-ranges", "bytes"),
        ("x-own", "1"),
    ];
    talk.respond(id, &fields, &[&body]);
    assert_eq!(talk.text(), "a [redacted]\n");
    for gone in [
        "content-encoding",
        "content-length",
        "etag",
        "digest",
        "accept-ranges",
    ] {
        assert_eq!(talk.field(gone), None, "{gone}");
    }
    assert_eq!(talk.field("x-own"), Some("1"));
}

#[test]
fn a_short_answer_in_which_nothing_is_hidden_is_left_as_it_is() {
    let body = gzip(b"nothing here");
    let length = body.len().to_string();
    let fields = [
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("content-length", length.as_str()),
        ("etag", "\"x\""),
    ];
    let mut talk = Talk::new(MASKS);
    let id = talk.get("/");
    talk.respond(id, &fields, &[&body]);
    assert_eq!(talk.down, body);
    assert_eq!(talk.field("etag"), Some("\"x\""));
    assert_eq!(talk.recorded(), "nothing here");
}

#[test]
fn a_short_answer_in_which_something_is_hidden_gets_its_new_length() {
    let body = format!("a {CARD} b");
    let length = body.len().to_string();
    let fields = [
        ("content-type", "text/plain"),
        ("content-length", length.as_str()),
        ("etag", "\"x\""),
    ];
    let mut talk = Talk::new(MASKS);
    let id = talk.get("/");
    talk.head(id, 200, &fields, false);
    assert!(talk.answer.is_none());
    talk.data(id, &body.as_bytes()[..10]);
    talk.data(id, &body.as_bytes()[10..]);
    talk.finish(id);
    assert_eq!(talk.text(), "a [redacted] b");
    assert_eq!(talk.field("content-length"), Some("14"));
    assert_eq!(talk.field("etag"), None);
}

#[test]
fn ranges_and_codings_that_cannot_be_opened_are_not_asked_for_where_something_may_be_hidden() {
    let mut talk = Talk::new(MASKS);
    let fields = [
        ("range", "bytes=0-9"),
        ("if-range", "x"),
        ("accept-encoding", "br, dcb"),
    ];
    let id = talk.begin(request("GET", "/", &fields), true);
    assert_eq!(talk.sent_field("range"), None);
    assert_eq!(talk.sent_field("if-range"), None);
    assert_eq!(talk.sent_field("accept-encoding"), Some("br"));
    talk.head(id, 206, &[("content-type", "text/plain")], false);
    assert_eq!(talk.status(), 502);
}

#[test]
fn a_text_that_cannot_be_opened_is_refused_where_something_may_be_hidden() {
    for coding in ["compress", "gzip"] {
        let mut talk = Talk::new(MASKS);
        let id = talk.get("/");
        let fields = [("content-type", "text/plain"), ("content-encoding", coding)];
        talk.head(id, 200, &fields, false);
        talk.data(id, b"certainly not gzip, nor anything else");
        assert!(!talk.text().contains("certainly"), "{coding}");
        assert!(talk.broken || talk.status() == 502, "{coding}");
    }
}

#[test]
fn an_event_reaches_its_reader_as_soon_as_it_is_whole() {
    let mut talk = Talk::new(MASKS);
    let id = talk.get("/");
    talk.head(id, 200, &[("content-type", "text/event-stream")], false);
    talk.data(id, b"data: one\n");
    talk.data(id, b"\n");
    assert_eq!(talk.text(), "data: one\n\n");
    let event = format!("data: see {CARD}\n\n");
    talk.data(id, event.as_bytes());
    assert_eq!(talk.text(), "data: one\n\ndata: see [redacted]\n\n");
}

#[test]
fn pictures_and_other_bytes_pass_as_they_are() {
    let mut talk = Talk::new(MASKS);
    let id = talk.get("/");
    let fields = [("content-type", "image/png"), ("content-length", "16")];
    talk.respond(id, &fields, &[CARD.as_bytes()]);
    assert_eq!(talk.text(), CARD);
}

#[test]
fn what_nobody_says_the_kind_of_is_masked_where_it_begins_like_text_and_left_otherwise() {
    for (fields, ends) in [
        (vec![], true),
        (vec![("content-type", "application/octet-stream")], true),
        (vec![("content-length", "28")], true),
    ] {
        let mut talk = Talk::new(MASKS);
        let id = talk.get("/");
        let text = format!("see {CARD} there...");
        talk.respond(id, &fields, &[&text.as_bytes()[..3], &text.as_bytes()[3..]]);
        assert_eq!(talk.text(), "see [redacted] there...", "{fields:?}");
        assert_eq!(talk.down_ended, ends);
        assert_eq!(talk.recorded(), talk.text());
        let mut talk = Talk::new(MASKS);
        let id = talk.get("/");
        let bytes = format!("\u{1f}\0{CARD}..........");
        talk.respond(
            id,
            &fields,
            &[&bytes.as_bytes()[..3], &bytes.as_bytes()[3..]],
        );
        assert_eq!(talk.text(), bytes, "{fields:?}");
        assert_eq!(talk.recorded(), bytes);
        assert_eq!(talk.meta(Kind::Result)["unmasked"], "it is no text");
    }
    let mut talk = Talk::new(MASKS);
    let id = talk.get("/");
    talk.respond(id, &[], &[]);
    assert!(talk.down_ended && talk.down.is_empty());
    assert_eq!(talk.status(), 200);
}

#[test]
fn an_answer_to_head_says_nothing_of_a_body_that_would_be_another() {
    let mut talk = Talk::new(MASKS);
    let id = talk.begin(request("HEAD", "/", &[]), true);
    let fields = [
        ("content-type", "text/plain"),
        ("content-length", "16"),
        ("etag", "\"x\""),
    ];
    talk.head(id, 200, &fields, true);
    assert_eq!(talk.field("content-length"), None);
    assert_eq!(talk.field("etag"), None);
}

#[test]
fn text_without_a_line_s_end_goes_on_after_a_pause_but_for_what_may_be_a_secret() {
    let mut talk = Talk::new(MASKS);
    let id = talk.get("/stream");
    talk.head(id, 200, &[("content-type", "text/plain")], false);
    talk.data(id, b"pay with 4111 1111 ");
    assert_eq!(talk.text(), "");
    let due = talk.session.deadline(id).unwrap();
    talk.now = FlowTime(due.0 - 1001);
    talk.call(|session, now, out| session.time_is(now, id, out));
    assert_eq!(talk.text(), "", "not before its time");
    talk.call(|session, now, out| session.time_is(now, id, out));
    assert_eq!(talk.text(), "pay with ");
    assert_eq!(talk.session.deadline(id), None);
    talk.data(id, b"1111 1111 please do");
    talk.now.0 += 100_000;
    talk.call(|session, now, out| session.time_is(now, id, out));
    assert_eq!(talk.text(), "pay with [redacted] please ");
    talk.finish(id);
    assert_eq!(talk.text(), "pay with [redacted] please do");
    assert_eq!(talk.recorded(), "pay with [redacted] please do");
}
