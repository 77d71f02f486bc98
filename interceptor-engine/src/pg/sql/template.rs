//! Texts that differ only in their numbers.
//!
//! A program that writes its parameters into the text sends a new text each
//! time, and nearly always the same statement. Here such texts get one key: the
//! text with each plain integer replaced by a mark. Two texts with one key are
//! the same token by token but for the values of integer constants, so the
//! grammar makes the same tree of them, but for those values (or refuses one of
//! them for its value, as it does `float(99)`; then the server refuses it too).
//! Whether a meaning may be shared among them is the classifier's to say: it
//! knows whether it looked at a value.
//!
//! Why the tokens are the same, by PostgreSQL's `scan.l`:
//!
//! * Quotes, double quotes, dollars, backslashes, comments, NULs and anything
//!   beyond ASCII rule a text out, so that every byte is scanned in the
//!   scanner's initial state.
//! * A replaced integer is a run of 1 to 9 digits, which fits 31 bits and is
//!   always an `ICONST`. Before it is one of `( , = < > + - * / [`, white space
//!   or the text's beginning; after it one of `) , ; = < > + - * / ]`, white
//!   space or the text's end. So it is no part of a name, of a number with
//!   point, exponent, underscore or base, or of a parameter: each of those would
//!   put a letter, digit, point, underscore or dollar next to it; only an
//!   exponent's sign (`1e+5`) would not, so a sign behind an `e` does not count.
//!   No rule of the scanner that ends before the digits looks at the digits, and
//!   none that begins with them looks past a byte of the second set.

/// Stands for an integer. Texts that hold this byte are ruled out.
const MARK: u8 = 0x01;

/// Longer texts are remembered as they are.
const MAX_TEXT: usize = 1024;

/// Longer numbers may not be an `ICONST`.
const MAX_DIGITS: usize = 9;

/// What a byte is to the scan, as bits.
const BEFORE: u8 = 1;
const AFTER: u8 = 2;
const DIGIT: u8 = 4;
const RULED_OUT: u8 = 8;
const COMMENT: u8 = 16;

static KIND: [u8; 256] = kinds();

#[expect(
    clippy::indexing_slicing,
    reason = "worked out by the compiler, which would say so"
)]
const fn kinds() -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        kinds[at] = match byte {
            b'0'..=b'9' => DIGIT,
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b'=' | b'<' | b'>' | b'+' => BEFORE | AFTER,
            b'-' | b'*' | b'/' => BEFORE | AFTER | COMMENT,
            b'(' | b'[' => BEFORE,
            b')' | b']' | b';' => AFTER,
            b'\'' | b'"' | b'$' | b'\\' => RULED_OUT,
            0..=31 | 127..=255 => RULED_OUT,
            _ => 0,
        };
        at += 1;
    }
    kinds
}

/// Writes `text`'s key to `key`. False when it has none, or no integer to
/// replace.
pub(super) fn key(text: &str, key: &mut Vec<u8>) -> bool {
    key.clear();
    let text = text.as_bytes();
    if text.len() > MAX_TEXT {
        return false;
    }
    let kind = |at: usize| text.get(at).map(|byte| kind_of(*byte));
    let mut replaced = false;
    let mut at = 0;
    let mut last = 0_u8;
    let mut last_but_one = 0_u8;
    // The beginning counts as a byte that an integer may follow.
    let mut before = BEFORE;
    while let Some(&byte) = text.get(at) {
        let this = kind_of(byte);
        if this & RULED_OUT != 0 {
            return false;
        }
        if this & COMMENT != 0 && ((byte == b'-' && last == b'-') || (byte == b'*' && last == b'/'))
        {
            return false;
        }
        let exponent = matches!(last, b'+' | b'-') && last_but_one | 0x20 == b'e';
        if this & DIGIT != 0 && before & BEFORE != 0 && !exponent {
            let start = at;
            while kind(at).is_some_and(|kind| kind & DIGIT != 0) {
                at += 1;
            }
            let ends = kind(at).is_none_or(|kind| kind & AFTER != 0);
            if ends && at - start <= MAX_DIGITS {
                key.push(MARK);
                replaced = true;
            } else if let Some(digits) = text.get(start..at) {
                key.extend_from_slice(digits);
            }
            (last_but_one, last, before) = (b'0', b'0', DIGIT);
            continue;
        }
        key.push(byte);
        (last_but_one, last, before) = (last, byte, this);
        at += 1;
    }
    replaced
}

fn kind_of(byte: u8) -> u8 {
    // The table has an entry for every byte.
    KIND.get(usize::from(byte)).copied().unwrap_or(RULED_OUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Option<String> {
        let mut bytes = Vec::new();
        key(text, &mut bytes).then(|| String::from_utf8(bytes).unwrap().replace('\x01', "#"))
    }

    #[test]
    fn plain_integers_are_replaced() {
        for (text, expected) in [
            (
                "SELECT a FROM t WHERE id = 12345;",
                "SELECT a FROM t WHERE id = #;",
            ),
            (
                "UPDATE t SET a = a + -17 WHERE b=5",
                "UPDATE t SET a = a + -# WHERE b=#",
            ),
            ("VALUES (1, 2,3)", "VALUES (#, #,#)"),
            (
                "SELECT t1.a1 FROM t1 LIMIT 5",
                "SELECT t1.a1 FROM t1 LIMIT #",
            ),
            ("SELECT a[1]", "SELECT a[#]"),
        ] {
            assert_eq!(template(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn digits_that_are_part_of_something_else_stay() {
        for (text, expected) in [
            (
                "SELECT 1.5, .5, 5., 1e5, 1e+5, 1E-5, 0x1F, 1_000, 7",
                "SELECT 1.5, .5, 5., 1e5, 1e+5, 1E-5, 0x1F, 1_000, #",
            ),
            ("SELECT a1, 1234567890, 7", "SELECT a1, 1234567890, #"),
            ("SELECT x[1:2], 7", "SELECT x[1:2], #"),
        ] {
            assert_eq!(template(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn texts_whose_bytes_could_be_anything_have_no_template() {
        for text in [
            "SELECT 'a', 5",
            "SELECT \"a\", 5",
            "SELECT $1, 5",
            "SELECT $$5$$, 5",
            "SELECT 5 -- 5",
            "SELECT 5 /* 5 */",
            "SELECT 5 -/* 5",
            "SELECT é, 5",
            "SELECT \\5, 5",
            "SELECT \x01, 5",
            "SELECT a",
        ] {
            assert_eq!(template(text), None, "{text}");
        }
    }
}
