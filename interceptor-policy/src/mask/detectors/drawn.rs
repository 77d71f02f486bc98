//! Whether a run of letters looks drawn at random, or was written by a person.
//!
//! Asked only beside a word that announces a secret. Names in code, paths and
//! slugs are long, mixed and near such words too; what tells them from keys is
//! that they are made of words.

use super::bytes::entropy;

/// Fewest letters.
pub(super) const MIN: usize = 20;
/// As many letters as are weighed.
pub(super) const WEIGHED: usize = 512;
/// Fewest letters of a secret in hex.
const HEX: usize = 32;
/// Bits a letter, of hex and of others.
const HEX_ENTROPY: f64 = 3.0;
const ENTROPY: f64 = 3.5;
/// Small letters in a row that make a word among capitals, and letters of one
/// case that do elsewhere.
const WORD: usize = 8;
const LONG_WORD: usize = 14;
/// The same, between punctuation.
const PART: usize = 4;
/// Changes between letters and digits in a secret of one case.
const CHANGES: usize = 4;

/// Letters of base64 of either kind, without its padding.
pub(super) const fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'_' | b'-')
}

/// Whether `text`, of such letters, looks drawn at random.
pub(super) fn looks_drawn(text: &[u8]) -> bool {
    let any = |is: fn(&u8) -> bool| text.iter().any(is);
    let digits = any(u8::is_ascii_digit);
    if text.len() < MIN || !digits || !any(u8::is_ascii_alphabetic) {
        return false;
    }
    if text.iter().all(u8::is_ascii_hexdigit) {
        return text.len() >= HEX && entropy(text) >= HEX_ENTROPY;
    }
    if is_uuid(text) || has_words(text) || entropy(text) < ENTROPY {
        return false;
    }
    if any(u8::is_ascii_lowercase) && any(u8::is_ascii_uppercase) {
        return true;
    }
    let changes = text
        .windows(2)
        .filter(|pair| matches!(pair, [a, b] if a.is_ascii_digit() != b.is_ascii_digit()))
        .count();
    text.iter().all(u8::is_ascii_alphanumeric) && changes >= CHANGES
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Letters of one case in a row, or two parts between punctuation that are
/// words, a capital at most in front.
fn has_words(text: &[u8]) -> bool {
    let any_run = |is: fn(&u8) -> bool, len| text.split(|b| !is(b)).any(|run| run.len() >= len);
    let mixed = text.iter().any(u8::is_ascii_uppercase);
    let small = if mixed { WORD } else { LONG_WORD };
    let is_word = |part: &&[u8]| {
        let small = part.strip_prefix(&[part.first().copied().unwrap_or(0)]);
        part.len() >= PART
            && part.iter().all(u8::is_ascii_alphabetic)
            && small.is_some_and(|rest| rest.iter().all(u8::is_ascii_lowercase))
    };
    any_run(u8::is_ascii_lowercase, small)
        || any_run(u8::is_ascii_uppercase, LONG_WORD)
        || text
            .split(|byte| !byte.is_ascii_alphanumeric())
            .filter(is_word)
            .count()
            >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_look_drawn_in_any_alphabet() {
        for key in [
            "9aF3kLm0Qz7Xv2Bn5Tc8",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "d41d8cd98f00b204e9800998ecf8427e",
            "k3j9x7q2m5v8b1n4c6z0l2",
            "AbC-dEf_123GhI-456jKl_789",
        ] {
            assert!(looks_drawn(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn what_a_person_wrote_does_not() {
        for written in [
            "short1A",
            "authentication_required",
            "ExpirationPolicyVersion2Enabled",
            "projects/123456/MySecret/versions/1",
            "deploy-prod-eu-west-1-blue-2024",
            "550e8400-e29b-41d4-a716-446655440000",
            "2024-01-15-10-11-12-123456",
            "aaaaaaaaaaaaaaaaaaaaaaaa1",
            "0000000000000000000000000000000a",
        ] {
            assert!(!looks_drawn(written.as_bytes()), "{written}");
        }
    }
}
