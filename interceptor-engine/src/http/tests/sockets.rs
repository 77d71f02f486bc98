//! WebSockets: messages judged, masked, recorded.

use super::*;
use crate::session::Side;
use interceptor_proto::http::websocket::{self as wire, Opcode};

const ASKS: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-extensions", "permessage-deflate"),
];
const AGREES: [(&str, &str); 3] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-accept", "x"),
];

fn open(yaml: &str) -> (Talk, u64) {
    let mut talk = Talk::new(yaml);
    let id = talk.begin(request("GET", "/ws", &ASKS), true);
    talk.head(id, 101, &AGREES, true);
    assert_eq!(talk.tunnel, Some(true));
    (talk, id)
}

fn text(payload: &str, from: Side) -> Vec<u8> {
    let mut out = Vec::new();
    let mask = (from == Side::Downstream).then_some([1, 2, 3, 4]);
    wire::encode(Opcode::Text, payload.as_bytes(), mask, &mut out);
    out
}

fn say(talk: &mut Talk, id: u64, from: Side, bytes: &[u8]) {
    let data = Bytes::copy_from_slice(bytes);
    talk.call(|session, now, out| session.tunnel_data(now, id, from, data, out));
}

#[test]
fn the_opening_passes_without_the_extension_that_would_hide_messages() {
    let (talk, _) = open(NOTHING);
    assert_eq!(talk.sent_field("upgrade"), Some("websocket"));
    assert_eq!(talk.sent_field("connection"), Some("Upgrade"));
    assert_eq!(talk.sent_field("sec-websocket-extensions"), None);
    assert_eq!(talk.status(), 101);
    assert_eq!(talk.field("upgrade"), Some("websocket"));
}

#[test]
fn an_extension_that_nobody_asked_for_is_refused() {
    let mut talk = Talk::new(NOTHING);
    let id = talk.begin(request("GET", "/ws", &ASKS), true);
    let mut agrees = AGREES.to_vec();
    agrees.push(("sec-websocket-extensions", "permessage-deflate"));
    talk.head(id, 101, &agrees, true);
    assert_eq!(talk.status(), 502);
    assert!(talk.tunnel.is_none());
}

#[test]
fn messages_pass_as_they_are_and_are_on_record() {
    let (mut talk, id) = open(NOTHING);
    let sent = text("hello", Side::Downstream);
    say(&mut talk, id, Side::Downstream, &sent[..3]);
    assert!(talk.down.is_empty());
    say(&mut talk, id, Side::Downstream, &sent[3..]);
    assert_eq!(talk.down, sent);
    let got = text("world", Side::Upstream);
    say(&mut talk, id, Side::Upstream, &got);
    assert_eq!(talk.down, [sent, got].concat());
    assert_eq!(talk.of(Kind::Input).last().unwrap().data, b"hello");
    assert_eq!(talk.recorded(), "world");
}

#[test]
fn what_is_hidden_in_answers_is_hidden_in_messages() {
    let (mut talk, id) = open(MASKS);
    let got = text(r#"{"card":4111111111111111}"#, Side::Upstream);
    say(&mut talk, id, Side::Upstream, &got);
    assert_eq!(talk.down, text(r#"{"card":"[redacted]"}"#, Side::Upstream));
    assert!(!talk.all().contains("4111"));
}

#[test]
fn a_message_that_rules_refuse_closes_the_socket_to_both_sides() {
    let rules = "
version: 1
rules:
  - name: no-rm
    match: { http: { websocket: true, body: { /cmd: rm } } }
    verdict: block
    message: No.
";
    let (mut talk, id) = open(rules);
    let fine = text(r#"{"cmd":"ls"}"#, Side::Downstream);
    say(&mut talk, id, Side::Downstream, &fine);
    assert_eq!(talk.down, fine);
    talk.down.clear();
    say(
        &mut talk,
        id,
        Side::Downstream,
        &text(r#"{"cmd":"rm"}"#, Side::Downstream),
    );
    let close = wire::head(&talk.down, false).unwrap().unwrap();
    assert_eq!(close.opcode, Opcode::Close);
    assert_eq!(&talk.down[2..4], &wire::POLICY_VIOLATION.to_be_bytes());
    assert_eq!(talk.meta(Kind::Verdict)["rule"], "no-rm");
    assert_eq!(talk.session.under_way(), 0);
}

#[test]
fn frames_that_are_none_close_the_socket() {
    let (mut talk, id) = open(NOTHING);
    say(
        &mut talk,
        id,
        Side::Downstream,
        &text("unmasked", Side::Upstream),
    );
    assert_eq!(&talk.down[2..4], &wire::PROTOCOL_ERROR.to_be_bytes());
    assert_eq!(talk.session.under_way(), 0);
}
