//! What must hold for HTTP/1's messages.
//!
//! The oracle reads what was let through as a plain reader would that believes
//! everything: splits at the first empty line, takes the first field of a name.
//! Where that reader and a second one that takes the last could differ, the
//! message must not have been let through.

use crate::http::websocket::{Opcode, head as frame};
use crate::http::{HttpError, RequestGuard, ResponseGuard};

type Outcome = (Vec<u8>, Result<(), HttpError>);

fn whole_and_cut(feed: impl Fn(usize) -> Outcome) -> Outcome {
    let whole = feed(usize::MAX);
    for size in [1, 7] {
        assert_eq!(feed(size), whole);
    }
    whole
}

/// Reads requests; every cutting gives the same, and what is let through has
/// one reading.
pub fn http_request(input: &[u8]) {
    let (out, _) = whole_and_cut(|size| {
        let (mut guard, mut out) = (RequestGuard::new(), Vec::new());
        let mut pieces = input.chunks(size);
        let fed = pieces.try_for_each(|piece| guard.feed(piece, &mut out));
        (out, fed)
    });
    assert!(input.starts_with(&out));
    let mut rest = &out[..];
    while !rest.is_empty() {
        let whole = head(rest);
        assert!(whole.is_some(), "a head came out before it was whole");
        let Some((head, after)) = whole else {
            return;
        };
        let body = one_reading(&head);
        let method = head.first.split(' ').next();
        match (body, method) {
            (Body::Chunked, _) => match chunks(after) {
                Some(behind) => rest = behind,
                None => return,
            },
            (Body::Length(length), _) => match after.get(length..) {
                Some(behind) => rest = behind,
                None => return,
            },
        }
    }
}

/// Reads the responses to a `GET`, a `HEAD` and a `CONNECT`.
pub fn http_response(input: &[u8]) {
    let (out, _) = whole_and_cut(|size| {
        let (mut guard, mut out) = (ResponseGuard::new(), Vec::new());
        for method in ["GET", "HEAD", "CONNECT"] {
            guard.expect(method);
        }
        let mut pieces = input.chunks(size);
        let fed = pieces.try_for_each(|piece| guard.feed(piece, &mut out));
        (out, fed)
    });
    assert!(input.starts_with(&out));
    if let Some((head, _)) = head(&out) {
        one_reading(&head);
        assert!(head.first.starts_with("HTTP/1."));
    }
}

/// Cuts frames of a WebSocket, from either side; each must be what its parts are
/// written as, by hand.
pub fn websocket(input: &[u8]) {
    for masked in [false, true] {
        let mut rest = input;
        while let Ok(Some(head)) = frame(rest, masked) {
            let Ok(length) = usize::try_from(head.length) else {
                return;
            };
            let Some(payload) = rest.get(head.head..head.head.saturating_add(length)) else {
                return;
            };
            let code = match head.opcode {
                Opcode::Continuation => 0,
                Opcode::Text => 1,
                Opcode::Binary => 2,
                Opcode::Close => 8,
                Opcode::Ping => 9,
                Opcode::Pong => 10,
            };
            let mut written = vec![u8::from(head.last) << 7 | code];
            let flag = u8::from(masked) << 7;
            match u16::try_from(length) {
                Ok(short @ 0..=125) => written.push(flag | short as u8),
                Ok(middle) => {
                    written.push(flag | 126);
                    written.extend_from_slice(&middle.to_be_bytes());
                }
                Err(_) => {
                    written.push(flag | 127);
                    written.extend_from_slice(&head.length.to_be_bytes());
                }
            }
            written.extend_from_slice(head.mask.as_ref().map_or(&[][..], |mask| mask));
            assert_eq!(head.mask.is_some(), masked);
            assert_eq!(rest.get(..head.head), Some(&written[..]));
            assert!(!head.opcode.is_control() || head.last && length <= 125);
            rest = rest.get(head.head + payload.len()..).unwrap_or_default();
        }
    }
}

struct Head {
    first: String,
    fields: Vec<(String, String)>,
}

enum Body {
    Length(usize),
    Chunked,
}

fn head(input: &[u8]) -> Option<(Head, &[u8])> {
    let end = input.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (text, after) = input.split_at_checked(end + 4)?;
    let text: String = text.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next()?.to_owned();
    let fields = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            assert!(!line.contains(['\r', '\n', '\0']));
            assert_eq!(name.trim(), name);
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    Some((Head { first, fields }, after))
}

fn one_reading(head: &Head) -> Body {
    let values = |name: &str| -> Vec<&str> {
        let named = head.fields.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| value.as_str()).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1);
    assert!(values("host").len() <= 1);
    match (lengths.first(), codings.first()) {
        (_, Some(coding)) => {
            assert!(coding.eq_ignore_ascii_case("chunked"));
            Body::Chunked
        }
        (Some(length), _) => {
            assert!(length.bytes().all(|byte| byte.is_ascii_digit()));
            let length: u64 = length.parse().unwrap_or(u64::MAX);
            assert!(i64::try_from(length).is_ok());
            Body::Length(usize::try_from(length).unwrap_or(usize::MAX))
        }
        _ => Body::Length(0),
    }
}

/// What is behind a chunked body; `None` where it is not whole.
fn chunks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        // An extension may have bytes that are no UTF-8.
        let line = rest.get(..end)?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        let digits = digits.trim_end_matches('\r');
        let size = u64::from_str_radix(digits, 16).ok();
        assert!(size.is_some() && !digits.starts_with('+'));
        rest = rest.get(end + 1..)?;
        let size = usize::try_from(size.unwrap_or_default()).ok()?;
        if size == 0 {
            break;
        }
        let tail = rest.get(size..)?;
        assert!(tail.len() < 2 || tail.starts_with(b"\r\n"));
        rest = tail.get(2..)?;
    }
    if let Some(behind) = rest.strip_prefix(b"\r\n") {
        return Some(behind);
    }
    let end = rest.windows(4).position(|window| window == b"\r\n\r\n")?;
    rest.get(end + 4..)
}
