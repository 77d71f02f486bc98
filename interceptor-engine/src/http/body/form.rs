//! Names and values as queries and forms have them.
//!
//! Spec: URL Standard, section 5 (application/x-www-form-urlencoded).

use std::sync::Arc;

/// Most pairs that are read of one text; more are too many to be looked at.
pub const PAIRS_LIMIT: usize = 4096;

/// Decodes a query or a form: pairs in order, repeated names included. `+` is a
/// space; what is no percent-encoding stays as it is.
#[must_use]
pub fn decode(text: &str) -> Vec<(Arc<str>, Arc<str>)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (part(name).into(), part(value).into())
        })
        .collect()
}

/// As [`decode`], of a body; `None` where there are too many pairs.
#[must_use]
pub fn decode_body(body: &[u8]) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let pairs = memchr::memchr_iter(b'&', body).count();
    (pairs < PAIRS_LIMIT).then(|| decode(&String::from_utf8_lossy(body)))
}

fn part(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'+', _) => out.push(b' '),
            (b'%', [a, b, after @ ..]) => match (hex(*a), hex(*b)) {
                (Some(a), Some(b)) => {
                    out.push(a << 4 | b);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Vec<(String, String)> {
        decode(text)
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn pairs_keep_their_order_and_their_repetitions() {
        let pairs = decoded("a=1&b=&a=2&c&&=x");
        let expected = [("a", "1"), ("b", ""), ("a", "2"), ("c", ""), ("", "x")];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn what_is_encoded_is_decoded_and_what_is_not_is_left() {
        let pairs = decoded("a%20b=c+d%26&x=%4&y=%zz&z=%");
        let expected = [("a b", "c d&"), ("x", "%4"), ("y", "%zz"), ("z", "%")];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_body_of_too_many_pairs_is_not_read() {
        assert!(decode_body("a&".repeat(PAIRS_LIMIT).as_bytes()).is_none());
        assert!(decode_body(b"a=1&b=2").is_some());
    }
}
