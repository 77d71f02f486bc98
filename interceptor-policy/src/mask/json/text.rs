//! A string as JSON spells it, and as it reads (RFC 8259, section 7).

use crate::operation::json::short_escape;

/// How much of a string's inside can be decoded by itself: up to an escape, a
/// pair of surrogates or a character that goes on behind it.
pub(super) fn whole_part(inside: &[u8]) -> usize {
    let mut at = 0;
    let mut whole = 0;
    while let Some(byte) = inside.get(at) {
        let len = match (byte, inside.get(at + 1)) {
            (b'\\', None) => break,
            (b'\\', Some(b'u')) => {
                let high = matches!(inside.get(at + 2), Some(b'd' | b'D'))
                    && matches!(
                        inside.get(at + 3),
                        Some(b'8' | b'9' | b'a' | b'b' | b'A' | b'B')
                    );
                // What may be a pair is one, and is looked at whole.
                let pair = high && !matches!(inside.get(at + 6), Some(byte) if *byte != b'\\');
                if pair { 12 } else { 6 }
            }
            (b'\\', Some(_)) => 2,
            (0xc0..=0xdf, _) => 2,
            (0xe0..=0xef, _) => 3,
            (0xf0..=0xff, _) => 4,
            _ => 1,
        };
        at += len;
        if at > inside.len() {
            break;
        }
        whole = at;
    }
    whole
}

/// The inside of a string, decoded; a lone surrogate is U+FFFD. `None` where it
/// is no string's.
pub(super) fn decoded(inside: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, from) = rest.split_at_checked(at)?;
        text.push_str(std::str::from_utf8(plain).ok()?);
        let (letter, after) = from.get(1..)?.split_first()?;
        rest = after;
        text.push(match letter {
            b'u' => {
                let first = unit(rest)?;
                rest = rest.get(4..)?;
                let second = rest.strip_prefix(b"\\u").and_then(unit);
                match char::from_u32(u32::from(first)) {
                    Some(c) => c,
                    None => {
                        let pair = [Some(first), second].into_iter().flatten();
                        let mut pair = char::decode_utf16(pair);
                        match pair.next() {
                            Some(Ok(c)) => {
                                rest = rest.get(6..)?;
                                c
                            }
                            _ => char::REPLACEMENT_CHARACTER,
                        }
                    }
                }
            }
            letter => short_escape(*letter)?,
        });
    }
    text.push_str(std::str::from_utf8(rest).ok()?);
    Some(text)
}

/// Four hexadecimal digits.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

pub(super) fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

/// Appends a string's inside. What is no UTF-8, which only a constant could be,
/// does not get here.
pub(super) fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}
