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

pub(super) fn open(yaml: &str) -> (Talk, u64) {
    open_in(Talk::new(yaml))
}

pub(super) fn open_in(mut talk: Talk) -> (Talk, u64) {
    let id = talk.begin(request("GET", "/ws", &ASKS), true);
    talk.head(id, 101, &AGREES, true);
    assert_eq!(talk.tunnel, Some(true));
    (talk, id)
}

pub(super) fn text(payload: &str, from: Side) -> Vec<u8> {
    let mut out = Vec::new();
    let mask = (from == Side::Downstream).then_some([1, 2, 3, 4]);
    wire::encode(Opcode::Text, payload.as_bytes(), mask, &mut out);
    out
}

pub(super) fn say(talk: &mut Talk, id: u64, from: Side, bytes: &[u8]) {
    let data = Bytes::copy_from_slice(bytes);
    talk.call(|session, now, out| session.tunnel_data(now, id, from, data, out));
}

#[test]
fn the_opening_passes_with_its_wish_and_the_extension_that_can_be_opened() {
    let mut asks = ASKS;
    asks[3].1 = "x-unknown, permessage-deflate; client_max_window_bits";
    let mut talk = Talk::new(NOTHING);
    let id = talk.begin(request("GET", "/ws", &asks), true);
    talk.head(id, 101, &AGREES, true);
    assert_eq!(talk.sent_field("upgrade"), Some("websocket"));
    assert_eq!(talk.sent_field("connection"), Some("Upgrade"));
    assert_eq!(
        talk.sent_field("sec-websocket-extensions"),
        Some("permessage-deflate; client_max_window_bits")
    );
    assert_eq!(talk.status(), 101);
    assert_eq!(talk.field("upgrade"), Some("websocket"));
}

#[test]
fn an_extension_that_nobody_asked_for_is_refused() {
    let mut talk = Talk::new(NOTHING);
    let id = talk.begin(request("GET", "/ws", &ASKS[..3]), true);
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

/// A WebSocket on which both sides may compress.
fn open_compressed(yaml: &str, agreed: &'static str) -> (Talk, u64) {
    let mut talk = Talk::new(yaml);
    let id = talk.begin(request("GET", "/ws", &ASKS), true);
    let mut agrees = AGREES.to_vec();
    agrees.push(("sec-websocket-extensions", agreed));
    talk.head(id, 101, &agrees, true);
    assert_eq!(talk.tunnel, Some(true));
    assert_eq!(talk.field("sec-websocket-extensions"), Some(agreed));
    (talk, id)
}

/// One side's compressor, whose messages refer to its earlier ones.
struct Deflater(flate2::Compress);

impl Deflater {
    fn new() -> Self {
        Self(flate2::Compress::new(flate2::Compression::best(), false))
    }

    fn text(&mut self, payload: &str, from: Side) -> Vec<u8> {
        let mut deflated = Vec::with_capacity(payload.len() + 100);
        let flush = flate2::FlushCompress::Sync;
        let done = self
            .0
            .compress_vec(payload.as_bytes(), &mut deflated, flush);
        done.unwrap();
        deflated.truncate(deflated.len() - 4);
        let mut out = Vec::new();
        let mask = (from == Side::Downstream).then_some([1, 2, 3, 4]);
        wire::encode_compressed(Opcode::Text, &deflated, mask, &mut out);
        out
    }
}

/// What an endpoint makes of the frames that it gets from a service.
fn received(bytes: &[u8]) -> Vec<String> {
    let mut state = flate2::Decompress::new(false);
    let mut rest = bytes;
    let mut messages = Vec::new();
    while let Some(head) = wire::head_with(rest, false, true).unwrap() {
        let end = head.head + head.length as usize;
        let payload = &rest[head.head..end];
        let text = if head.compressed {
            let mut text = Vec::with_capacity(10_000);
            let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
            let flush = flate2::FlushDecompress::None;
            state.decompress_vec(&whole, &mut text, flush).unwrap();
            text
        } else {
            payload.to_vec()
        };
        messages.push(String::from_utf8(text).unwrap());
        rest = &rest[end..];
    }
    messages
}

#[test]
fn compressed_messages_pass_as_they_are_and_are_on_record_opened() {
    let (mut talk, id) = open_compressed(NOTHING, "permessage-deflate");
    let (mut up, mut down) = (Deflater::new(), Deflater::new());
    for _ in 0..3 {
        let sent = up.text("hello, hello, hello", Side::Downstream);
        say(&mut talk, id, Side::Downstream, &sent);
        assert_eq!(talk.down, sent);
        talk.down.clear();
        assert_eq!(
            talk.of(Kind::Input).last().unwrap().data,
            b"hello, hello, hello"
        );
        let got = down.text("and good day to you", Side::Upstream);
        say(&mut talk, id, Side::Upstream, &got);
        assert_eq!(talk.down, got);
        talk.down.clear();
    }
    assert_eq!(talk.recorded(), "and good day to you".repeat(3));
}

#[test]
fn a_compressed_message_in_which_something_is_hidden_is_written_anew_and_so_are_later_ones() {
    let answers = [
        r#"{"note":"nothing to hide in this one, which is rather long","n":1}"#,
        r#"{"note":"nothing to hide in this one, which is rather long","card":"4111 1111 1111 1111"}"#,
        r#"{"note":"nothing to hide in this one, which is rather long","n":2}"#,
    ];
    for agreed in [
        "permessage-deflate",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10",
    ] {
        let (mut talk, id) = open_compressed(MASKS, agreed);
        let mut service = Deflater::new();
        for (index, answer) in answers.iter().enumerate() {
            if agreed.contains("no_context") {
                service = Deflater::new();
            }
            let before = talk.down.len();
            let got = service.text(answer, Side::Upstream);
            say(&mut talk, id, Side::Upstream, &got);
            let as_it_was = talk.down[before..] == got[..];
            let fresh = agreed.contains("no_context") && index == 2;
            assert_eq!(as_it_was, index == 0 || fresh, "{agreed}, message {index}");
        }
        let read = received(&talk.down);
        assert_eq!(read[0], answers[0]);
        assert_eq!(
            read[1],
            answers[1].replace("4111 1111 1111 1111", "[redacted]")
        );
        assert_eq!(read[2], answers[2], "{agreed}");
        assert!(!talk.all().contains("4111"));
    }
}

#[test]
fn a_compressed_message_is_judged_by_what_it_opens_to() {
    let rules = "
version: 1
rules:
  - name: no-rm
    match: { http: { websocket: true, body: { /cmd: rm } } }
    verdict: block
";
    let (mut talk, id) = open_compressed(rules, "permessage-deflate");
    let mut agent = Deflater::new();
    let fine = agent.text(r#"{"cmd":"ls"}"#, Side::Downstream);
    say(&mut talk, id, Side::Downstream, &fine);
    assert_eq!(talk.down, fine);
    talk.down.clear();
    let bad = agent.text(r#"{"cmd":"rm"}"#, Side::Downstream);
    say(&mut talk, id, Side::Downstream, &bad);
    assert_eq!(&talk.down[2..4], &wire::POLICY_VIOLATION.to_be_bytes());
}

#[test]
fn a_message_that_is_a_bomb_closes_the_socket() {
    let (mut talk, id) = open_compressed(NOTHING, "permessage-deflate");
    let mut state = flate2::Compress::new(flate2::Compression::best(), false);
    let mut bomb = Vec::with_capacity(1 << 20);
    let flush = flate2::FlushCompress::Sync;
    state
        .compress_vec(&vec![0; 64 << 20], &mut bomb, flush)
        .unwrap();
    let mut frame = Vec::new();
    wire::encode_compressed(Opcode::Binary, &bomb, Some([1, 2, 3, 4]), &mut frame);
    say(&mut talk, id, Side::Downstream, &frame);
    assert_eq!(&talk.down[2..4], &wire::TOO_BIG.to_be_bytes());
    assert_eq!(talk.session.under_way(), 0);
}

#[test]
fn nothing_but_empty_frames_does_not_fill_the_memory() {
    let (mut talk, id) = open(NOTHING);
    let empty = |first: u8| [first, 0x80, 1, 2, 3, 4];
    say(&mut talk, id, Side::Downstream, &empty(0x01));
    for _ in 0..400 {
        let many = empty(0x00).repeat(1000);
        say(&mut talk, id, Side::Downstream, &many);
    }
    assert!(talk.down.len() > 2 << 20, "kept {}", talk.down.len());
}
