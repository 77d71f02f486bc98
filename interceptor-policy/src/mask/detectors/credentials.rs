//! Values that open doors: tokens, keys.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memmem;

/// `{"` in base64: how every token begins.
pub(super) const JWT: &str = "eyJ";
/// What an AWS key id begins with, and what stands beside a secret key in any
/// of its usual spellings.
pub(super) const AWS: &[&str] = &["AKIA", "ASIA", "ecret", "ECRET"];
/// How a PEM block begins.
pub(super) const PEM: &str = "-----BEGIN ";

/// Longest header that is decoded.
const HEADER: usize = 16 << 10;
/// How many places in one run of letters are tried as a token's beginning.
const TRIES: usize = 8;
/// How far behind the word `secret` its key may begin.
const REACH: usize = 48;
/// Length of an AWS secret key.
const SECRET: usize = 40;
/// Letters of a key id behind its first four.
const KEY_ID: usize = 16;
/// Longest label of a PEM block.
const LABEL: usize = 64;

const fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn run(value: &[u8], from: usize, is: impl Fn(u8) -> bool) -> usize {
    let rest = value.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| is(**byte)).count()
}

fn at(value: &[u8], index: usize) -> u8 {
    value.get(index).copied().unwrap_or(0)
}

/// Three parts in base64url, the first of which is a JSON object with `alg`.
/// The last may be empty: a token that is not signed tells no less.
pub(super) fn jwts(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut from = 0;
    let next = |from: usize| {
        let rest = value.get(from..)?;
        memmem::find(rest, JWT.as_bytes()).map(|at| from + at)
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

/// Key ids, and secret keys that are called so.
pub(super) fn aws_keys(value: &[u8], into: &mut Vec<Range<usize>>) {
    for first in ["AKIA", "ASIA"] {
        for start in memmem::find_iter(value, first) {
            let is = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
            let end = run(
                value
                    .get(..start + first.len() + KEY_ID + 1)
                    .unwrap_or(value),
                start,
                is,
            );
            let alone = start
                .checked_sub(1)
                .is_none_or(|before| !is(at(value, before)));
            if alone && end - start == first.len() + KEY_ID {
                into.push(start..end);
            }
        }
    }
    for word in ["ecret", "ECRET"] {
        for start in memmem::find_iter(value, word) {
            into.extend(secret_behind(value, start + word.len()));
        }
    }
}

/// A run of exactly 40 letters of base64 that begins soon.
fn secret_behind(value: &[u8], from: usize) -> Option<Range<usize>> {
    let is = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'/' || byte == b'+';
    let mut start = from;
    loop {
        start = run(value, start, |byte| !is(byte));
        if start > from + REACH || start >= value.len() {
            return None;
        }
        let within = value.get(..start + SECRET + 1).unwrap_or(value);
        let end = run(within, start, is);
        if end - start == SECRET {
            return Some(start..end);
        }
        if end - start > SECRET {
            return None;
        }
        start = end;
    }
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
        let mut end = inside;
        let end = loop {
            match find(value, end, "-----END ") {
                Some(footer) => {
                    end = footer + 9;
                    if let Some(behind) = label(value, end) {
                        break behind;
                    }
                }
                None => break value.len(),
            }
        };
        into.push(begin..end);
        from = end;
    }
}

fn find(value: &[u8], from: usize, text: &str) -> Option<usize> {
    memmem::find(value.get(from..)?, text.as_bytes()).map(|at| from + at)
}

/// The end of a label of a private key that starts at `from`, dashes included.
fn label(value: &[u8], from: usize) -> Option<usize> {
    let rest = value.get(from..)?;
    let rest = rest.get(..LABEL).unwrap_or(rest);
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
    fn aws_key_ids_stand_alone() {
        assert_eq!(
            found(aws_keys, "id=AKIAIOSFODNN7EXAMPLE,"),
            ["AKIAIOSFODNN7EXAMPLE"]
        );
        assert_eq!(
            found(aws_keys, "ASIAIOSFODNN7EXAMPLE"),
            ["ASIAIOSFODNN7EXAMPLE"]
        );
        for near in [
            "AKIAIOSFODNN7EXAMPL",
            "AKIAIOSFODNN7EXAMPLES",
            "XAKIAIOSFODNN7EXAMPLE",
            "akiaiosfodnn7example",
        ] {
            assert_eq!(found(aws_keys, near), [""; 0], "{near}");
        }
    }

    #[test]
    fn aws_secrets_stand_beside_a_word_that_says_so() {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        for around in [
            "aws_secret_access_key = {}",
            "AWS_SECRET_ACCESS_KEY={}",
            "\"SecretAccessKey\": \"{}\"",
            "secret: {}",
        ] {
            let text = around.replace("{}", secret);
            assert_eq!(found(aws_keys, &text), [secret], "{text}");
        }
        for near in [
            secret.to_owned(),
            format!("secret {secret}x"),
            format!("secret {}", secret.trim_start_matches('w')),
            format!("secret {} {secret}", "word ".repeat(20)),
        ] {
            assert_eq!(found(aws_keys, &near), [""; 0], "{near}");
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
        assert_eq!(found(aws_keys, &"AKIA".repeat(many)), [""; 0]);
        assert_eq!(found(aws_keys, &"secret".repeat(many)), [""; 0]);
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
