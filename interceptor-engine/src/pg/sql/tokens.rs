//! The tokens of SQL and PL/pgSQL, as far as telling words from strings goes.

/// A token; positions are bytes of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A word without quotes.
    Word { start: usize, end: usize },
    /// A string or a quoted name.
    Quoted { start: usize, end: usize },
    /// Anything else, byte by byte.
    Symbol { at: usize, byte: u8 },
}

impl Token {
    pub(super) fn start(&self) -> usize {
        match self {
            Self::Word { start, .. } | Self::Quoted { start, .. } => *start,
            Self::Symbol { at, .. } => *at,
        }
    }

    pub(super) fn end(&self) -> usize {
        match self {
            Self::Word { end, .. } | Self::Quoted { end, .. } => *end,
            Self::Symbol { at, .. } => at + 1,
        }
    }

    pub(super) fn word<'a>(&self, text: &'a str) -> Option<&'a str> {
        match self {
            Self::Word { start, end } => text.get(*start..*end),
            _ => None,
        }
    }
}

/// Cuts a text into tokens; white space and comments are left out.
pub(super) fn scan(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        match byte(at) {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => at += 1,
            b'-' if byte(at + 1) == b'-' => {
                while at < bytes.len() && byte(at) != b'\n' {
                    at += 1;
                }
            }
            b'/' if byte(at + 1) == b'*' => at = comment(bytes, at),
            b'\'' => {
                at = string(bytes, at, false);
                tokens.push(Token::Quoted { start, end: at });
            }
            b'e' | b'E' if byte(at + 1) == b'\'' => {
                at = string(bytes, at + 1, true);
                tokens.push(Token::Quoted { start, end: at });
            }
            b'"' => {
                at = string(bytes, at, false);
                tokens.push(Token::Quoted { start, end: at });
            }
            b'$' => match dollar(bytes, at) {
                Some(end) => {
                    at = end;
                    tokens.push(Token::Quoted { start, end });
                }
                None => {
                    tokens.push(Token::Symbol { at, byte: b'$' });
                    at += 1;
                }
            },
            first if is_word(first) => {
                while is_word(byte(at)) || byte(at) == b'$' {
                    at += 1;
                }
                tokens.push(Token::Word { start, end: at });
            }
            other => {
                tokens.push(Token::Symbol { at, byte: other });
                at += 1;
            }
        }
    }
    tokens
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn comment(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                at += 2;
            }
            Some(b"*/") => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a string; a doubled quote ends one and begins the next.
fn string(bytes: &[u8], mut at: usize, escapes: bool) -> usize {
    let quote = bytes.get(at).copied().unwrap_or_default();
    at += 1;
    while let Some(byte) = bytes.get(at) {
        match *byte {
            b'\\' if escapes => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn dollar(bytes: &[u8], at: usize) -> Option<usize> {
    let tag_end = bytes
        .get(at + 1..)?
        .iter()
        .position(|byte| *byte == b'$' || !is_word(*byte))
        .map(|length| at + 1 + length)?;
    let tag = bytes.get(at..=tag_end)?;
    if tag.last() != Some(&b'$') || tag.get(1).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let body = bytes.get(tag_end + 1..)?;
    let close = memchr::memmem::find(body, tag)?;
    Some(tag_end + 1 + close + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<&str> {
        scan(text)
            .iter()
            .map(|token| text.get(token.start()..token.end()).unwrap())
            .collect()
    }

    #[test]
    fn words_are_told_from_strings_and_comments() {
        assert_eq!(
            shown("a 'b; c' \"d e\" -- f\n $x$ g $x$ /* h /* i */ */ E'j\\'k' l$m $1;"),
            [
                "a",
                "'b; c'",
                "\"d e\"",
                "$x$ g $x$",
                "E'j\\'k'",
                "l$m",
                "$",
                "1",
                ";"
            ]
        );
    }

    #[test]
    fn what_never_ends_ends_with_the_text() {
        for text in ["'a", "\"a", "E'a\\", "/* a", "$x$ a", "$", "a--"] {
            assert!(scan(text).iter().all(|token| token.end() <= text.len() + 1));
        }
    }
}
