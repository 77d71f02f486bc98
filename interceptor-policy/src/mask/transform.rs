//! What is put in a hidden value's place.

use std::cmp::Ordering;

/// Key of the `hash` transform: 32 bytes, of the host, so that equal values stay
/// equal across sessions and nobody without the key can try values.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct MaskKey(pub [u8; 32]);

impl std::fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskKey(hidden)")
    }
}

/// What is put in a hidden value's place. Ordered from the mildest to the strictest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transform {
    /// All but the ends. Of two, the one that shows less is the stricter.
    Partial {
        /// Characters left at the start.
        keep_first: usize,
        /// Characters left at the end.
        keep_last: usize,
    },
    /// Keyed hash, so that equal values stay equal.
    Hash,
    /// A text of the operator's.
    Constant(String),
    /// NULL.
    Null,
    /// A fixed text that says that something was here.
    Redact,
}

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a value to be sent as NULL is not in the buffer"]
pub enum Masked {
    /// What to send instead was appended to the buffer.
    Text,
    /// Nothing was appended; send NULL, or nothing where there is no NULL.
    Null,
}

/// Most stars that `partial` puts; a longer value's length is not told.
const STARS: usize = 64;

impl Transform {
    /// Appends what is sent in `value`'s place. `value` is text, in UTF-8 where
    /// it can be read so; what cannot be cut into characters is redacted.
    pub fn apply(&self, value: &[u8], key: &MaskKey, out: &mut Vec<u8>) -> Masked {
        match self {
            Self::Null => return Masked::Null,
            Self::Constant(text) => out.extend_from_slice(text.as_bytes()),
            Self::Redact => out.extend_from_slice(b"[redacted]"),
            Self::Hash => {
                let hash = blake3::keyed_hash(&key.0, value);
                let (short, _) = hash.as_bytes().split_at(8);
                out.extend_from_slice(b"[hash:");
                out.extend_from_slice(hex::encode(short).as_bytes());
                out.push(b']');
            }
            Self::Partial {
                keep_first,
                keep_last,
            } => match std::str::from_utf8(value) {
                Ok(text) => partial(text, *keep_first, *keep_last, out),
                Err(_) => out.extend_from_slice(b"[redacted]"),
            },
        }
        Masked::Text
    }

    /// What is sent in an integer's place, where it must stay an integer of
    /// `bits` (16, 32 or 64); `None` for NULL. A hash is never negative and is
    /// of the number's decimal digits, so it is the same in every width that
    /// holds it and in both wire formats; the ends of a number cannot be shown
    /// as a number without looking like another, so `partial` gives NULL.
    #[must_use]
    pub fn apply_integer(&self, value: i64, bits: u32, key: &MaskKey) -> Option<i64> {
        let most = i64::MAX >> (64 - bits.clamp(2, 64));
        match self {
            Self::Null | Self::Redact | Self::Partial { .. } => None,
            Self::Constant(text) => text
                .trim()
                .parse()
                .ok()
                .filter(|number| (-most - 1..=most).contains(number)),
            Self::Hash => {
                let hash = blake3::keyed_hash(&key.0, value.to_string().as_bytes());
                let folded = hash
                    .as_bytes()
                    .iter()
                    .take(8)
                    .fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte));
                Some(folded & most)
            }
        }
    }

    /// The name that rules use.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Partial { .. } => "partial",
            Self::Hash => "hash",
            Self::Constant(_) => "constant",
            Self::Null => "null",
            Self::Redact => "redact",
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Partial { .. } => 0,
            Self::Hash => 1,
            Self::Constant(_) => 2,
            Self::Null => 3,
            Self::Redact => 4,
        }
    }
}

impl PartialOrd for Transform {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Transform {
    /// From the mildest to the strictest. Total, so that the strictest of
    /// several does not hang on the order of rules.
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank()
            .cmp(&other.rank())
            .then_with(|| match (self, other) {
                (
                    Self::Partial {
                        keep_first: a,
                        keep_last: b,
                    },
                    Self::Partial {
                        keep_first: c,
                        keep_last: d,
                    },
                ) => (c.saturating_add(*d), c).cmp(&(a.saturating_add(*b), a)),
                (Self::Constant(a), Self::Constant(b)) => a.cmp(b),
                _ => Ordering::Equal,
            })
    }
}

/// Never more than half of the value is shown; where that leaves less than was
/// asked for, nothing is.
fn partial(text: &str, keep_first: usize, keep_last: usize, out: &mut Vec<u8>) {
    let characters = text.chars().count();
    let kept = keep_first.saturating_add(keep_last);
    if kept > characters / 2 {
        out.extend_from_slice(b"[redacted]");
        return;
    }
    let end = characters - keep_last;
    let mut buffer = [0; 4];
    for (index, c) in text.chars().enumerate() {
        if index < keep_first || index >= end {
            out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
        } else if index - keep_first < STARS {
            out.push(b'*');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: MaskKey = MaskKey([7; 32]);

    fn masked(transform: &Transform, value: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(
            transform.apply(value.as_bytes(), &KEY, &mut out),
            Masked::Text
        );
        String::from_utf8(out).unwrap()
    }

    fn partial(keep_first: usize, keep_last: usize) -> Transform {
        Transform::Partial {
            keep_first,
            keep_last,
        }
    }

    #[test]
    fn redact_says_that_something_was_here_and_nothing_else() {
        assert_eq!(masked(&Transform::Redact, "4111111111111111"), "[redacted]");
        assert_eq!(masked(&Transform::Redact, ""), "[redacted]");
    }

    #[test]
    fn equal_values_hash_alike_and_others_do_not() {
        let a = masked(&Transform::Hash, "alice@example.com");
        assert_eq!(a, masked(&Transform::Hash, "alice@example.com"));
        assert_ne!(a, masked(&Transform::Hash, "alice@example.org"));
        assert!(
            a.starts_with("[hash:") && a.ends_with(']') && a.len() == 6 + 16 + 1,
            "{a}"
        );
    }

    #[test]
    fn a_hash_depends_on_the_key() {
        let mut other = Vec::new();
        let _ = Transform::Hash.apply(b"x", &MaskKey([8; 32]), &mut other);
        assert_ne!(masked(&Transform::Hash, "x").into_bytes(), other);
    }

    #[test]
    fn partial_keeps_the_ends_and_counts_characters_not_bytes() {
        assert_eq!(
            masked(&partial(0, 4), "4111111111111234"),
            "************1234"
        );
        assert_eq!(masked(&partial(1, 1), "äöüß"), "ä**ß");
    }

    #[test]
    fn partial_never_shows_more_than_half() {
        assert_eq!(masked(&partial(2, 2), "1234567"), "[redacted]");
        assert_eq!(masked(&partial(2, 2), "12345678"), "12****78");
        assert_eq!(masked(&partial(0, usize::MAX), "12345678"), "[redacted]");
        assert_eq!(
            masked(&partial(usize::MAX, usize::MAX), "12345678"),
            "[redacted]"
        );
    }

    #[test]
    fn partial_of_what_is_no_text_is_redacted() {
        let mut out = Vec::new();
        let _ = partial(0, 1).apply(&[0xff; 16], &KEY, &mut out);
        assert_eq!(out, b"[redacted]");
    }

    #[test]
    fn partial_does_not_tell_the_length_of_a_long_value() {
        assert_eq!(
            masked(&partial(0, 1), &"x".repeat(5000)),
            format!("{}x", "*".repeat(STARS))
        );
    }

    #[test]
    fn null_writes_nothing() {
        let mut out = Vec::new();
        assert_eq!(Transform::Null.apply(b"x", &KEY, &mut out), Masked::Null);
        assert!(out.is_empty());
    }

    #[test]
    fn a_masked_integer_fits_its_width_and_is_not_negative() {
        for bits in [16, 32, 64] {
            let most = i64::MAX >> (64 - bits);
            for value in [i64::MIN, -1, 0, 1, 42, i64::MAX] {
                let hashed = Transform::Hash.apply_integer(value, bits, &KEY).unwrap();
                assert!((0..=most).contains(&hashed), "{bits} {value} {hashed}");
            }
        }
        assert_ne!(
            Transform::Hash.apply_integer(1, 64, &KEY),
            Transform::Hash.apply_integer(2, 64, &KEY)
        );
    }

    #[test]
    fn an_integer_that_cannot_be_shown_as_one_is_null() {
        assert_eq!(Transform::Redact.apply_integer(5, 32, &KEY), None);
        assert_eq!(Transform::Null.apply_integer(5, 32, &KEY), None);
        assert_eq!(partial(0, 4).apply_integer(5, 32, &KEY), None);
        let constant = |text: &str| Transform::Constant(text.to_owned());
        assert_eq!(constant("x").apply_integer(5, 32, &KEY), None);
        assert_eq!(constant("-7").apply_integer(5, 32, &KEY), Some(-7));
        assert_eq!(constant("32768").apply_integer(5, 16, &KEY), None);
        assert_eq!(constant("-32768").apply_integer(5, 16, &KEY), Some(-32768));
    }

    #[test]
    fn transforms_are_ordered_from_the_mildest_to_the_strictest() {
        let order = [
            partial(4, 4),
            partial(0, 4),
            Transform::Hash,
            Transform::Constant("x".into()),
            Transform::Null,
            Transform::Redact,
        ];
        assert!(order.is_sorted());
        assert!(order.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
