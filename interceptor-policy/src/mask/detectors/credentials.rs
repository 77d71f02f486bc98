//! Values that open doors: tokens, keys.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memmem;

use super::bytes::{Class, at, run};

/// `{"` in base64: how every token begins.
const JWT: &str = "eyJ";
/// The same with the first letter of a header's parameter behind it: those of
/// the registry (RFC 7515 and its successors) begin with `abceijknpstuvxz`.
#[rustfmt::skip]
pub(super) const JWTS: &[&str] = &[
    "eyJh", "eyJi", "eyJj", "eyJl", "eyJp", "eyJq", "eyJr", "eyJu", "eyJw", "eyJz", "eyJ0", "eyJ1", "eyJ2", "eyJ4", "eyJ6",
];

/// How a PEM block begins.
const PEM: &str = "-----BEGIN ";
/// What the label of every private key holds; rarer than a row of dashes.
pub(super) const PEM_CUE: &str = "VATE KEY";

/// Longest header that is decoded.
const HEADER: usize = 3 << 10;
/// How many places in one run of letters are tried as a token's beginning.
const TRIES: usize = 8;
/// How a PEM block's last line begins.
const PEM_END: &str = "-----END ";
/// Longest label of a PEM block, with its dashes.
const LABEL: usize = 64;
/// As many bytes as tell whether a PEM block ends.
pub(super) const PEM_LAST: usize = PEM_END.len() + LABEL;

const fn is_base64url(byte: u8) -> bool {
    Class::Word.has(byte)
}

/// Three parts in base64url, the first of which is a JSON object with `alg`.
/// The last may be empty: a token that is not signed tells no less.
pub(super) fn jwts(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut from = 0;
    let next = |from: usize| {
        let rest = value.get(from..)?;
        memmem::find_iter(rest, JWT)
            .map(|at| from + at)
            .find(|start| {
                let start = value.get(*start..).unwrap_or_default();
                JWTS.iter().any(|text| start.starts_with(text.as_bytes()))
            })
    };
    while let Some(mut start) = next(from) {
        let header = run(value, start, is_base64url);
        from = header;
        if at(value, header) != b'.' {
            continue;
        }
        let payload = run(value, header + 1, is_base64url);
        if payload == header + 1 || at(value, payload) != b'.' {
            continue;
        }
        let end = run(value, payload + 1, is_base64url);
        for _ in 0..TRIES {
            if is_header(value.get(start..header).unwrap_or_default()) {
                into.push(start..end);
                from = end;
                break;
            }
            match next(start + 1) {
                Some(later) if later < header => start = later,
                _ => break,
            }
        }
    }
}

fn is_header(encoded: &[u8]) -> bool {
    if encoded.len() > HEADER {
        return false;
    }
    URL_SAFE_NO_PAD
        .decode(encoded)
        .ok()
        .and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok())
        .is_some_and(|header| header.get("alg").is_some())
}

/// PEM blocks of private keys, from the first dash to the last; to the value's
/// end where the last is missing.
pub(super) fn private_keys(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut from = 0;
    while let Some(begin) = find(value, from, PEM) {
        let Some(inside) = label(value, begin + PEM.len()) else {
            from = begin + PEM.len();
            continue;
        };
        let end = private_key_end(value, inside).unwrap_or(value.len());
        into.push(begin..end);
        from = end;
    }
}

/// The first private key that begins in `value`: its first dash, and the end of
/// its first line's label.
pub(super) fn private_key_begin(value: &[u8]) -> Option<Range<usize>> {
    memmem::find_iter(value, PEM)
        .find_map(|begin| label(value, begin + PEM.len()).map(|inside| begin..inside))
}

/// The end of the last line's label, from `from` on.
pub(super) fn private_key_end(value: &[u8], from: usize) -> Option<usize> {
    let mut from = from;
    while let Some(footer) = find(value, from, PEM_END) {
        from = footer + PEM_END.len();
        if let Some(behind) = label(value, from) {
            return Some(behind);
        }
    }
    None
}

/// Where in `tail`, the end of a text that goes on, a token begins that is as
/// yet without its end.
pub(super) fn open_jwt(tail: &[u8]) -> Option<usize> {
    let mut closed = tail.to_vec();
    closed.push(b'.');
    let mut found = Vec::new();
    jwts(&closed, &mut found);
    found
        .last()
        .filter(|range| range.end == closed.len())
        .map(|range| range.start)
}

fn find(value: &[u8], from: usize, text: &str) -> Option<usize> {
    memmem::find(value.get(from..)?, text.as_bytes()).map(|at| from + at)
}

/// The end of a label of a private key that starts at `from`, dashes included.
fn label(value: &[u8], from: usize) -> Option<usize> {
    let rest = value.get(from..)?;
    let rest = rest.get(..LABEL).unwrap_or(rest);
    let line = rest.iter().position(|byte| super::is_line_end(*byte));
    let rest = rest.get(..line.unwrap_or(rest.len()))?;
    let dashes = memmem::find(rest, b"-----")?;
    memmem::find(rest.get(..dashes)?, b"PRIVATE KEY")?;
    Some(from + dashes + 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(find: fn(&[u8], &mut Vec<Range<usize>>), text: &str) -> Vec<&str> {
        let mut ranges = Vec::new();
        find(text.as_bytes(), &mut ranges);
        ranges
            .into_iter()
            .map(|range| text.get(range).unwrap())
            .collect()
    }

    fn token(header: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.{}",
            part(header),
            part(r#"{"sub":"1"}"#),
            part("signed")
        )
    }

    #[test]
    fn tokens_are_found_signed_or_not() {
        let signed = token(r#"{"alg":"HS256","typ":"JWT"}"#);
        let unsigned = format!(
            "{}.",
            token(r#"{"alg":"none"}"#).rsplit_once('.').unwrap().0
        );
        for token in [signed, unsigned] {
            for around in ["{}", "Bearer {} ", "\"{}\"", "token={}", "jwt_{}", "eyJ_{}"] {
                let text = around.replace("{}", &token);
                assert_eq!(found(jwts, &text), [token.as_str()], "{text}");
            }
        }
    }

    #[test]
    fn what_only_resembles_a_token_is_none() {
        let good = token(r#"{"alg":"HS256"}"#);
        let (two, _) = good.rsplit_once('.').unwrap();
        for near in [
            token(r#"{"typ":"JWT"}"#),
            two.to_owned(),
            "eyJhbGciOiJIUzI1NiJ9".to_owned(),
            "eyJ.eyJ.eyJ".to_owned(),
            "eyJhbGci!.a.b".to_owned(),
        ] {
            assert_eq!(found(jwts, &near), [""; 0], "{near}");
        }
    }

    #[test]
    fn private_keys_are_hidden_from_the_first_dash_to_the_last() {
        for label in [
            "PRIVATE KEY",
            "RSA PRIVATE KEY",
            "OPENSSH PRIVATE KEY",
            "PGP PRIVATE KEY BLOCK",
        ] {
            let key = format!("-----BEGIN {label}-----\nMIIBVQ==\n-----END {label}-----");
            assert_eq!(
                found(private_keys, &format!("key:\n{key}\nend")),
                [key.as_str()]
            );
        }
    }

    #[test]
    fn a_private_key_that_is_cut_off_is_hidden_to_the_end() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END CERTIFICATE-----\nmore";
        assert_eq!(found(private_keys, key), [key]);
    }

    #[test]
    fn public_keys_and_certificates_are_shown() {
        for near in [
            "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "BEGIN PRIVATE KEY",
        ] {
            assert_eq!(found(private_keys, near), [""; 0], "{near}");
        }
    }

    #[test]
    fn repeated_beginnings_take_time_in_proportion() {
        let many = 1 << 16;
        assert_eq!(found(jwts, &"eyJ".repeat(many)), [""; 0]);
        assert_eq!(found(jwts, &"eyJ.".repeat(many)), [""; 0]);
        assert_eq!(
            found(private_keys, &"-----BEGIN PRIVATE KEY-----".repeat(many)).len(),
            1
        );
        assert_eq!(
            found(private_keys, &"-----BEGIN -----END ".repeat(many)),
            [""; 0]
        );
    }
}
