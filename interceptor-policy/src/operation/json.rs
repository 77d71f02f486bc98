//! JSON as it was written: keys that an object has twice, and numbers in the
//! letters they came in.
//!
//! Which of two equal keys counts is up to the reader: most take the last, some
//! the first, some refuse. A parser that builds a map has chosen for all of
//! them, so this one builds a list. `serde_json` hands numbers over as machine
//! numbers, unless built so that it passes them as an object with a key of its
//! own, which a peer could send too; hence a small parser of our own, held to
//! `serde_json` by a property.
//!
//! Strict: what RFC 8259 does not allow is no JSON here (`NaN`, comments,
//! trailing commas, lone surrogates, invalid UTF-8), and whoever asks about it
//! learns that it could not be read. A byte order mark in front is skipped,
//! since readers do (section 8.1).

use super::http::Json;

/// How deep a document may be nested.
pub const DEPTH_LIMIT: usize = 128;
/// Most values of one body, so that a short text does not become a large tree.
pub const VALUES_LIMIT: usize = 1 << 18;

impl Json {
    /// Reads one document; `None` for what is none, is nested deeper than
    /// [`DEPTH_LIMIT`] or has more than [`VALUES_LIMIT`] values.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut parser = Parser::new(text);
        let document = parser.value(DEPTH_LIMIT)?;
        parser.space();
        parser.rest.is_empty().then_some(document)
    }

    /// Reads documents that stand one after the other with white space between
    /// them, as the lines of NDJSON do. `None` where any is none, or all
    /// together have too many values; empty for a text of white space alone.
    #[must_use]
    pub fn parse_lines(text: &[u8]) -> Option<Vec<Self>> {
        let mut parser = Parser::new(text);
        let mut documents = Vec::new();
        parser.space();
        while !parser.rest.is_empty() {
            documents.push(parser.value(DEPTH_LIMIT)?);
            let before = parser.rest.len();
            parser.space();
            if parser.rest.len() == before && before > 0 {
                return None;
            }
        }
        Some(documents)
    }

    /// Every value that an object has under a key, which may be several.
    pub fn at<'j>(&'j self, key: &str) -> impl Iterator<Item = &'j Json> {
        let members = match self {
            Self::Object(members) => members.as_slice(),
            _ => &[],
        };
        members
            .iter()
            .filter(move |(name, _)| **name == *key)
            .map(|(_, value)| value)
    }

    /// The text, where it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

struct Parser<'t> {
    rest: &'t [u8],
    values: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t [u8]) -> Self {
        Self {
            rest: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text),
            values: 0,
        }
    }

    fn space(&mut self) {
        let end = self
            .rest
            .iter()
            .position(|byte| !b" \t\r\n".contains(byte))
            .unwrap_or(self.rest.len());
        self.rest = self.rest.get(end..).unwrap_or_default();
    }

    /// Takes a byte, if it is the next one.
    fn eat(&mut self, byte: u8) -> bool {
        match self.rest.strip_prefix(&[byte]) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self, word: &[u8], value: Json) -> Option<Json> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(value)
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.values += 1;
        if self.values > VALUES_LIMIT {
            return None;
        }
        self.space();
        match self.rest.first()? {
            b'n' => self.word(b"null", Json::Null),
            b't' => self.word(b"true", Json::Bool(true)),
            b'f' => self.word(b"false", Json::Bool(false)),
            b'"' => self.string().map(Json::Text),
            b'[' => self.list(depth.checked_sub(1)?),
            b'{' => self.object(depth.checked_sub(1)?),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        self.eat(b'[');
        let mut items = Vec::new();
        self.space();
        if self.eat(b']') {
            return Some(Json::List(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            if self.eat(b']') {
                return Some(Json::List(items));
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.eat(b'{');
        let mut members = Vec::new();
        self.space();
        if self.eat(b'}') {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            if !self.eat(b':') {
                return None;
            }
            members.push((key, self.value(depth)?));
            self.space();
            if self.eat(b'}') {
                return Some(Json::Object(members));
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn number(&mut self) -> Option<Json> {
        let len = number(self.rest)?;
        let (number, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let number = std::str::from_utf8(number).ok()?;
        Some(Json::Number(number.into()))
    }

    fn string(&mut self) -> Option<Box<str>> {
        let rest = self.rest.strip_prefix(b"\"")?;
        let mut end = 0;
        let mut escaped = false;
        loop {
            match rest.get(end)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    end += 2;
                }
                _ => end += 1,
            }
        }
        let inside = rest.get(..end)?;
        self.rest = rest.get(end + 1..)?;
        match escaped {
            false if inside.iter().all(|byte| *byte >= 0x20) => {
                std::str::from_utf8(inside).ok().map(Into::into)
            }
            false => None,
            true => unescaped(inside).map(Into::into),
        }
    }
}

/// The length of the number that a text begins with (RFC 8259, section 6).
pub(crate) fn number(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (len > 0).then_some(from + len)
    };
    let sign = usize::from(text.first() == Some(&b'-'));
    let mut end = digits(sign)?;
    if text.get(sign) == Some(&b'0') && end > sign + 1 {
        return None;
    }
    if text.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        end = digits(end + 1 + sign)?;
    }
    Some(end)
}

/// What stands between the quotes of a string, decoded; `None` where it is no
/// string's inside.
pub(crate) fn unescaped(inside: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\' || *byte < 0x20) {
        let (plain, from) = rest.split_at_checked(at)?;
        text.push_str(std::str::from_utf8(plain).ok()?);
        let (letter, after) = from.strip_prefix(b"\\")?.split_first()?;
        rest = after;
        text.push(match letter {
            b'u' => {
                let first = unit(&mut rest)?;
                match first {
                    0xd800..=0xdbff => {
                        rest = rest.strip_prefix(b"\\u")?;
                        let second = unit(&mut rest)?;
                        char::decode_utf16([first, second]).next()?.ok()?
                    }
                    _ => char::from_u32(u32::from(first))?,
                }
            }
            letter => short_escape(*letter)?,
        });
    }
    text.push_str(std::str::from_utf8(rest).ok()?);
    Some(text)
}

/// What a letter stands for behind a backslash, beside `u` (RFC 8259, section 7).
pub(crate) const fn short_escape(letter: u8) -> Option<char> {
    Some(match letter {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    })
}

/// Four hexadecimal digits.
fn unit(rest: &mut &[u8]) -> Option<u16> {
    let (digits, after) = rest.split_at_checked(4)?;
    *rest = after;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Json {
        Json::Text(text.into())
    }

    #[test]
    fn keys_that_are_there_twice_are_both_there_and_numbers_stay_as_written() {
        let read = Json::parse(br#" {"a": 1.50, "a": [1E400, -0], "b": {}} "#).unwrap();
        let Json::Object(members) = &read else {
            panic!("{read:?}");
        };
        assert_eq!(members.len(), 3);
        let both: Vec<_> = read.at("a").collect();
        assert_eq!(both[0], &Json::Number("1.50".into()));
        let numbers = ["1E400", "-0"].map(|number| Json::Number(number.into()));
        assert_eq!(both[1], &Json::List(numbers.into()));
    }

    #[test]
    fn escapes_are_decoded_in_texts_and_in_keys() {
        for (written, read) in [
            (r#""\u0034\u0031""#, "41"),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""a\"b\\c\/\b\f\n\r\t""#, "a\"b\\c/\u{8}\u{c}\n\r\t"),
            (r#""\u0000""#, "\0"),
        ] {
            assert_eq!(
                Json::parse(written.as_bytes()),
                Some(text(read)),
                "{written}"
            );
        }
        let keyed = Json::parse(br#"{"\u0061": 1}"#).unwrap();
        assert_eq!(keyed.at("a").count(), 1);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            "",
            " ",
            "nul",
            "[1,]",
            "{,}",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "--1",
            "NaN",
            "\"",
            "\"\\",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\x41\"",
            "\"\u{1}\"",
            "\"a\\n\u{1}\"",
            "'a'",
            "// c\n1",
            "1 1",
            "[",
            "{",
            "\"\\u+123\"",
        ] {
            assert_eq!(Json::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Json::parse(b"\"\xff\""), None);
        assert_eq!(Json::parse(b"\"\xc0\xaf\""), None);
    }

    #[test]
    fn a_document_may_be_as_deep_as_the_limit_and_no_deeper() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(nested(DEPTH_LIMIT).as_bytes()).is_some());
        assert!(Json::parse(nested(DEPTH_LIMIT + 1).as_bytes()).is_none());
        assert!(Json::parse("[".repeat(1 << 20).as_bytes()).is_none());
    }

    #[test]
    fn a_short_text_does_not_become_a_large_tree() {
        let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(Json::parse(zeros(VALUES_LIMIT - 1).as_bytes()).is_some());
        assert!(Json::parse(zeros(VALUES_LIMIT).as_bytes()).is_none());
    }

    #[test]
    fn lines_are_documents_and_a_broken_one_spoils_them_all() {
        let lines = Json::parse_lines(b"{\"a\":1}\n\n [2]\r\n\"x\"\n").unwrap();
        assert_eq!(lines.len(), 3);
        assert_eq!(Json::parse_lines(b" \n"), Some(Vec::new()));
        assert_eq!(Json::parse_lines(b"{}\n{"), None);
        assert_eq!(Json::parse_lines(b"{}{}"), None);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_document() {
        assert_eq!(Json::parse(b"\xef\xbb\xbfnull"), Some(Json::Null));
    }

    /// What `serde_json` makes of it: the last of equal keys.
    fn plain(json: &Json) -> serde_json::Value {
        match json {
            Json::Null => serde_json::Value::Null,
            Json::Bool(is) => (*is).into(),
            Json::Number(number) => serde_json::from_str(number).unwrap(),
            Json::Text(text) => (**text).into(),
            Json::List(items) => items.iter().map(plain).collect(),
            Json::Object(members) => members
                .iter()
                .map(|(key, value)| (key.to_string(), plain(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn document() -> impl Strategy<Value = String> {
        let string = prop::collection::vec(
            prop::sample::select(
                &[
                    "a",
                    "ä",
                    "\\n",
                    "\\u00e9",
                    "\\ud83d\\ude00",
                    "\\/",
                    " ",
                    "\\x",
                    "\\ud800",
                    "\t",
                ][..],
            ),
            0..4,
        )
        .prop_map(|parts| format!("\"{}\"", parts.concat()));
        let leaf = prop_oneof![
            prop::sample::select(
                &[
                    "null", "true", "false", "0", "-1.5e3", "1E-2", "01", "1.", "nul", "-", ""
                ][..]
            )
            .prop_map(str::to_owned),
            string.clone(),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            let string = string.clone();
            let list = prop::collection::vec(inner.clone(), 0..4);
            let object = prop::collection::vec((string, inner), 0..4);
            prop_oneof![
                list.prop_map(|items| format!("[ {} ]", items.join(" ,"))),
                object.prop_map(|members| {
                    let members: Vec<_> =
                        members.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads_and_as_it_does(text in document()) {
            let theirs: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let ours = Json::parse(text.as_bytes());
            prop_assert_eq!(ours.as_ref().map(plain), theirs);
        }
    }
}
