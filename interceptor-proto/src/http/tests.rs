//! The corpus of messages, and what holds for any cutting of any of them.

use proptest::prelude::*;

use super::{HttpError, RequestGuard, ResponseGuard};

/// One entry: its name, what is expected, and the bytes.
struct Entry {
    name: String,
    expected: String,
    bytes: Vec<u8>,
}

/// The entries of a file of the corpus.
fn corpus(file: &str) -> Vec<Entry> {
    let path = format!(
        "{}/../tests/corpus/http/{file}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    lines
        .chunks(3)
        .map(|entry| Entry {
            name: entry[0].to_owned(),
            expected: entry[1].to_owned(),
            bytes: spelled_out(entry[2].as_bytes()),
        })
        .collect()
}

/// The bytes that an entry spells.
fn spelled_out(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [byte, after @ ..] = rest {
        if *byte == b'{' {
            let mut depth = 0;
            let end = rest.iter().position(|byte| {
                depth += i32::from(*byte == b'{') - i32::from(*byte == b'}');
                depth == 0
            });
            let (inside, after) = rest.split_at(end.unwrap());
            let star = inside.iter().position(|byte| *byte == b'*').unwrap();
            let times = std::str::from_utf8(&inside[1..star]).unwrap();
            let what = spelled_out(&inside[star + 1..]);
            out.extend(what.repeat(times.parse().unwrap()));
            rest = &after[1..];
        } else if let [b'\\', kind, after @ ..] = rest {
            rest = after;
            out.push(match kind {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'x' => {
                    let (digits, after) = after.split_at(2);
                    rest = after;
                    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
                }
                _ => b'\\',
            });
        } else {
            out.push(*byte);
            rest = after;
        }
    }
    out
}

type Outcome = (Vec<u8>, Result<(), HttpError>);

fn request(pieces: &[&[u8]]) -> Outcome {
    let (mut guard, mut out) = (RequestGuard::new(), Vec::new());
    let fed = pieces
        .iter()
        .try_for_each(|piece| guard.feed(piece, &mut out));
    (out, fed)
}

fn response(pieces: &[&[u8]]) -> Outcome {
    let (mut guard, mut out) = (ResponseGuard::new(), Vec::new());
    for method in ["GET", "HEAD", "GET"] {
        guard.expect(method);
    }
    let fed = pieces
        .iter()
        .try_for_each(|piece| guard.feed(piece, &mut out));
    (out, fed)
}

fn said(outcome: &Outcome) -> String {
    match &outcome.1 {
        Ok(()) => "accepted".to_owned(),
        Err(error) => format!("{} {}", error.name(), error.status()),
    }
}

fn cuts(bytes: &[u8]) -> Vec<usize> {
    // Long ones are long in the middle.
    let ends = 300.min(bytes.len());
    let mut cuts: Vec<usize> = (0..ends).chain(bytes.len() - ends..=bytes.len()).collect();
    cuts.dedup();
    cuts
}

fn run(file: &str, least: usize, feed: fn(&[&[u8]]) -> Outcome) {
    let entries = corpus(file);
    assert!(entries.len() >= least, "{} entries", entries.len());
    for entry in entries {
        let whole = feed(&[&entry.bytes]);
        assert_eq!(said(&whole), entry.expected, "{file}: {}", entry.name);
        let single: Vec<&[u8]> = entry.bytes.chunks(1).collect();
        assert_eq!(feed(&single), whole, "{file}: {} byte by byte", entry.name);
        for cut in cuts(&entry.bytes) {
            let (a, b) = entry.bytes.split_at(cut);
            assert_eq!(feed(&[a, b]), whole, "{file}: {} cut at {cut}", entry.name);
        }
    }
}

#[test]
fn every_request_of_the_corpus_comes_to_what_it_says_however_it_is_cut() {
    run("requests", 100, request);
}

#[test]
fn every_response_of_the_corpus_comes_to_what_it_says_however_it_is_cut() {
    run("responses", 20, response);
}

#[test]
fn a_head_that_is_refused_never_comes_out_nor_anything_behind_it() {
    let bad = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut guard, mut out) = (RequestGuard::new(), Vec::new());
    assert!(guard.feed(bad, &mut out).is_err());
    assert_eq!(out, b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let again = guard.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut out);
    assert_eq!(again, Err(HttpError::Over));
    assert_eq!(out, b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn a_body_comes_out_as_it_comes_and_a_head_when_it_is_whole() {
    let (mut guard, mut out) = (RequestGuard::new(), Vec::new());
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    guard.feed(&head[..head.len() - 1], &mut out).unwrap();
    assert!(out.is_empty());
    guard.feed(b"\nhel", &mut out).unwrap();
    assert!(out.ends_with(b"\r\n\r\nhel"));
}

#[test]
fn what_comes_before_a_switch_is_agreed_is_kept_and_read_as_what_it_then_is() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for agreed in [true, false] {
        let (mut guard, mut out) = (RequestGuard::new(), Vec::new());
        guard.feed(head, &mut out).unwrap();
        assert!(guard.waits_for_switch());
        guard.feed(b"\x81\x00", &mut out).unwrap();
        assert_eq!(out, head);
        if agreed {
            guard.switched(&mut out);
            guard.feed(b"\n\0", &mut out).unwrap();
            assert!(guard.is_opaque());
            assert_eq!(out, [&head[..], b"\x81\x00\n\0"].concat());
        } else {
            guard.refused_switch(&mut out).unwrap();
            assert!(guard.feed(b"\r\n\r\n", &mut out).is_err());
            assert_eq!(out, head);
        }
    }
}

#[test]
fn an_upgrade_in_http_1_0_is_none() {
    let head = b"GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (mut guard, mut out) = (RequestGuard::new(), Vec::new());
    guard.feed(head, &mut out).unwrap();
    assert!(!guard.waits_for_switch());
}

#[test]
fn a_connection_that_ends_inside_a_message_is_told_from_one_that_ends_behind_it() {
    let whole = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    for cut in 1..whole.len() {
        let (mut guard, mut out) = (RequestGuard::new(), Vec::new());
        guard.feed(&whole[..cut], &mut out).unwrap();
        assert!(guard.eof().is_err(), "cut at {cut}");
    }
    let (mut guard, mut out) = (RequestGuard::new(), Vec::new());
    guard.feed(whole, &mut out).unwrap();
    assert_eq!(guard.eof(), Ok(()));
}

#[test]
fn the_end_of_a_body_without_length_is_the_connections() {
    let (mut guard, mut out) = (ResponseGuard::new(), Vec::new());
    guard.expect("GET");
    assert!(guard.eof().is_err());
    guard
        .feed(b"HTTP/1.1 200 OK\r\n\r\nsome", &mut out)
        .unwrap();
    assert_eq!(guard.eof(), Ok(()));
}

#[test]
fn a_tunnel_begins_only_behind_a_success() {
    for (status, opaque) in [("200", true), ("407", false)] {
        let (mut guard, mut out) = (ResponseGuard::new(), Vec::new());
        guard.expect("CONNECT");
        let head = format!("HTTP/1.1 {status} X\r\n\r\n");
        guard.feed(head.as_bytes(), &mut out).unwrap();
        assert_eq!(guard.is_opaque(), opaque);
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_come_to_the_same(
        entry in 0usize..100, at in 0.0..1.0, byte: u8, sizes in prop::collection::vec(1usize..40, 1..40)
    ) {
        // A message of the corpus with one byte changed: mostly still near a message.
        let entries = corpus("requests");
        let mut bytes = entries[entry % entries.len()].bytes.clone();
        bytes.truncate(4000);
        let place = (bytes.len() as f64 * at) as usize;
        bytes[place] = byte;
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for size in sizes.iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(request(&pieces), request(&[&bytes]));
        prop_assert_eq!(response(&pieces), response(&[&bytes]));
        crate::fuzzing::http_request(&bytes);
    }
}
