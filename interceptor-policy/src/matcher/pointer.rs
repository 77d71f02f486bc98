//! JSON pointers with wildcards: `/customer/email`, `/items/*/price`, `/**/iban`.
//!
//! A pointer is walked in step with the text: a position is a set of steps that
//! may come next, in the bits of a word, so that several `**` cost no more than
//! one, and a document that streams by needs no tree.
//!
//! Keys: RFC 6901, `~0` and `~1` included. `*` is any one key or index, `**` any
//! number of them, none included.

use crate::matcher::Mode;
use crate::operation::http::Json;

/// Most steps of a pointer: a bit each, and one for its end.
const STEPS_LIMIT: usize = 63;

/// A pointer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    source: String,
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A key, or the index of a list.
    Key(String),
    /// `*`
    One,
    /// `**`
    Any,
}

/// Where in a document a pointer stands: the steps that may come next.
pub(crate) type Position = u64;

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let steps = match source.strip_prefix('/') {
            Some(rest) => rest.split('/').map(step).collect::<Result<Vec<_>, _>>()?,
            None if source.is_empty() => Vec::new(),
            None => return Err(format!("it does not begin with `/`; write `/{source}`")),
        };
        if steps.len() > STEPS_LIMIT {
            return Err(format!("it has more than {STEPS_LIMIT} steps"));
        }
        Ok(Self {
            source: source.to_owned(),
            steps,
        })
    }

    /// As it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The whole document.
    pub(crate) fn start(&self) -> Position {
        self.closed(1)
    }

    /// Whether it points at the value of this position.
    pub(crate) fn is_here(&self, position: Position) -> bool {
        position & (1 << self.steps.len()) != 0
    }

    /// The position of an object's member.
    pub(crate) fn key(&self, position: Position, key: &str, mode: Mode) -> Position {
        self.step(position, |known| match mode {
            Mode::May => alike(known, key),
            Mode::Must => known == key,
        })
    }

    /// The position of a list's item.
    pub(crate) fn index(&self, position: Position, index: usize) -> Position {
        self.step(position, |known| {
            known.bytes().all(|byte| byte.is_ascii_digit()) && known.parse() == Ok(index)
        })
    }

    fn step(&self, position: Position, is: impl Fn(&str) -> bool) -> Position {
        let mut next = 0;
        let mut left = position;
        while left != 0 {
            let at = left.trailing_zeros();
            left &= left - 1;
            next |= match self.steps.get(at as usize) {
                Some(Step::Any) => 1 << at,
                Some(Step::One) => 2 << at,
                Some(Step::Key(key)) if is(key) => 2 << at,
                Some(Step::Key(_)) | None => 0,
            };
        }
        self.closed(next)
    }

    /// With the steps behind every `**`, which may stand for nothing.
    fn closed(&self, mut position: Position) -> Position {
        for (at, step) in self.steps.iter().enumerate() {
            if *step == Step::Any && position & (1 << at) != 0 {
                position |= 2 << at;
            }
        }
        position
    }

    /// Every value that it points at. What makes things stricter takes keys in
    /// either case for alike, since readers do.
    pub(crate) fn find<'j>(&self, json: &'j Json, mode: Mode) -> Vec<&'j Json> {
        let mut found = Vec::new();
        self.walk(json, self.start(), mode, &mut found);
        found
    }

    fn walk<'j>(&self, json: &'j Json, at: Position, mode: Mode, found: &mut Vec<&'j Json>) {
        if at == 0 {
            return;
        }
        if self.is_here(at) {
            found.push(json);
        }
        match json {
            Json::Object(members) => {
                for (key, value) in members {
                    self.walk(value, self.key(at, key, mode), mode, found);
                }
            }
            Json::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.walk(item, self.index(at, index), mode, found);
                }
            }
            _ => {}
        }
    }
}

fn step(text: &str) -> Result<Step, String> {
    match text {
        "*" => return Ok(Step::One),
        "**" => return Ok(Step::Any),
        _ => {}
    }
    if text.contains('*') {
        return Err(format!("a star stands alone, and not as in `{text}`"));
    }
    let mut key = String::with_capacity(text.len());
    let mut rest = text.split('~');
    key.push_str(rest.next().unwrap_or_default());
    for part in rest {
        let (letter, after) = match (part.strip_prefix('0'), part.strip_prefix('1')) {
            (Some(after), _) => ('~', after),
            (_, Some(after)) => ('/', after),
            _ => return Err("`~` is written `~0`, and `/` in a key `~1`".to_owned()),
        };
        key.push(letter);
        key.push_str(after);
    }
    Ok(Step::Key(key))
}

/// Whether two keys are alike to a reader that tells no case apart.
pub(crate) fn alike(one: &str, other: &str) -> bool {
    if one.is_ascii() && other.is_ascii() {
        return one.eq_ignore_ascii_case(other);
    }
    one.chars().map(folded).eq(other.chars().map(folded))
}

/// A letter as simple case folding has it (`ſ` is an `s`, the Kelvin sign a `k`).
pub(crate) fn folded(c: char) -> char {
    let mut upper = c.to_uppercase();
    let c = match (upper.next(), upper.next()) {
        (Some(upper), None) => upper,
        _ => c,
    };
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pointer: &str, text: &str, mode: Mode) -> Vec<String> {
        let json = Json::parse(text.as_bytes()).unwrap();
        let pointer = Pointer::new(pointer).unwrap();
        let found = pointer.find(&json, mode);
        found
            .iter()
            .map(|json| match json {
                Json::Number(number) => number.to_string(),
                other => format!("{other:?}").chars().take(4).collect(),
            })
            .collect()
    }

    #[test]
    fn a_pointer_finds_what_it_points_at_and_nothing_else() {
        let text = r#"{"a":{"b":1,"c":[2,{"b":3}]},"b":4,"x/y":5,"m~n":6,"":7,"a*":8}"#;
        for (pointer, numbers) in [
            ("/a/b", &["1"][..]),
            ("/b", &["4"]),
            ("/a/c/0", &["2"]),
            ("/a/c/1/b", &["3"]),
            ("/a/c/00", &["2"]),
            ("/a/*/0", &["2"]),
            ("/**/b", &["1", "3", "4"]),
            ("/a/**/b", &["1", "3"]),
            ("/**/c/**/b", &["3"]),
            ("/*/b", &["1"]),
            ("/x~1y", &["5"]),
            ("/m~0n", &["6"]),
            ("/", &["7"]),
            ("/nothing", &[]),
            ("/b/c", &[]),
            ("", &["Obje"]),
        ] {
            for mode in [Mode::May, Mode::Must] {
                assert_eq!(found(pointer, text, mode), numbers, "{pointer}");
            }
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_found_twice() {
        assert_eq!(found("/a", r#"{"a":1,"a":2}"#, Mode::Must), ["1", "2"]);
        assert_eq!(found("/**", "[1,2]", Mode::Must).len(), 3);
    }

    #[test]
    fn keys_of_either_case_are_alike_to_what_is_stricter() {
        let text = r#"{"Role":1,"ro\u212ae":2,"\u017fkip":3}"#;
        assert_eq!(found("/role", text, Mode::May), ["1"]);
        assert!(found("/role", text, Mode::Must).is_empty());
        assert_eq!(found("/roke", text, Mode::May), ["2"]);
        assert_eq!(found("/skip", text, Mode::May), ["3"]);
    }

    #[test]
    fn a_bad_pointer_says_what_is_wrong() {
        for (bad, part) in [
            ("a", "begin with"),
            ("/a*", "alone"),
            ("/a~2", "~0"),
            ("/~", "~0"),
        ] {
            let fault = Pointer::new(bad).unwrap_err();
            assert!(fault.contains(part), "{fault}");
        }
        assert!(Pointer::new(&"/a".repeat(63)).is_ok());
        assert!(Pointer::new(&"/a".repeat(64)).is_err());
    }

    #[test]
    fn many_stars_over_a_deep_document_take_no_long_time() {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let pointer = "/**/*".repeat(30);
        assert!(!found(&pointer, &deep, Mode::May).is_empty());
    }
}
