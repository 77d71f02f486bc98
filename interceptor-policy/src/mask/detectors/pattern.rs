//! The operator's own patterns: regular expressions, asked of one line at a time.
//!
//! One line at a time, so that a text gives the same hits whole and in pieces;
//! `^` and `$` are a line's ends. Expressions of the `regex` crate take time in
//! proportion to the text and to their own size, which is limited.

use std::ops::Range;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};

/// Largest compiled form of one expression, in bytes.
const SIZE: usize = 1 << 20;
/// How deep groups may stand in groups.
const NESTING: u32 = 50;

/// One pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: Arc<str>,
    exact: Regex,
    /// The same without what it says of its surroundings: bytes of the wire
    /// stand around a value, and none of them may hide a hit in it.
    loose: Regex,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let hir = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .nest_limit(NESTING)
            .build()
            .parse(source)
            .map_err(|error| match error {
                regex_syntax::Error::Parse(error) => error.kind().to_string(),
                regex_syntax::Error::Translate(error) => error.kind().to_string(),
                _ => "it cannot be read".to_owned(),
            })?;
        match hir.properties().minimum_len() {
            Some(0) => return Err("it matches the empty text, which is everywhere".to_owned()),
            None => return Err("it matches nothing".to_owned()),
            Some(_) => {}
        }
        let build = |text: &str| {
            RegexBuilder::new(text)
                .size_limit(SIZE)
                .dfa_size_limit(SIZE)
                .nest_limit(NESTING)
                .build()
                .map_err(|error| match error {
                    regex::Error::CompiledTooBig(_) => "it is too big".to_owned(),
                    _ => "it cannot be read".to_owned(),
                })
        };
        let exact = build(source)?;
        let loose = if hir.properties().look_set().is_empty() {
            exact.clone()
        } else {
            build(&without_looks(&hir).to_string())?
        };
        Ok(Self {
            source: source.into(),
            exact,
            loose,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its hits, in order.
    pub(super) fn find(&self, value: &[u8], into: &mut Vec<Range<usize>>) {
        let mut start = 0;
        for line in value.split(|byte| super::is_line_end(*byte)) {
            into.extend(
                self.exact
                    .find_iter(line)
                    .map(|hit| start + hit.start()..start + hit.end())
                    .filter(|hit| !hit.is_empty()),
            );
            start += line.len() + 1;
        }
    }

    /// Whether any value inside of `chunk` could hit.
    pub(super) fn may_hit(&self, chunk: &[u8]) -> bool {
        self.loose.is_match(chunk)
    }
}

/// The expression without its assertions: it matches wherever the whole does.
fn without_looks(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Look(_) => Hir::empty(),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => hir.clone(),
        HirKind::Repetition(repetition) => {
            Hir::repetition(repetition.with(without_looks(&repetition.sub)))
        }
        HirKind::Capture(capture) => without_looks(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(without_looks).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(without_looks).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
        let mut ranges = Vec::new();
        Pattern::new(pattern)
            .unwrap()
            .find(text.as_bytes(), &mut ranges);
        ranges
            .into_iter()
            .map(|range| text.get(range).unwrap())
            .collect()
    }

    #[test]
    fn every_place_that_a_pattern_matches_is_a_hit() {
        assert_eq!(
            found(r"EMP-\d{6}", "EMP-123456, EMP-12345; xEMP-6543210"),
            ["EMP-123456", "EMP-654321"]
        );
        assert_eq!(found(r"(?i)\bkd\d+\b", "KD12 kd3x kd4"), ["KD12", "kd4"]);
        assert_eq!(found("é+", "aéé"), ["éé"]);
    }

    #[test]
    fn a_pattern_sees_one_line_at_a_time() {
        assert_eq!(found(r"a\s*b", "a b a\nb a\r\nb"), ["a b"]);
        assert_eq!(found("(?s)x.*y", "x1\n2y x3y"), ["x3y"]);
        assert_eq!(found("^id.+$", "id 1\nmy id\nid 2"), ["id 1", "id 2"]);
    }

    #[test]
    fn what_would_hit_everywhere_or_nowhere_is_no_pattern() {
        for (pattern, why) in [
            ("", "empty"),
            ("a*", "empty"),
            (r"\b", "empty"),
            ("^|x", "empty"),
            ("(?:a|)", "empty"),
            ("[a&&b]", "nothing"),
            ("(a", "unclosed"),
            (r"\w{500}{500}", "too big"),
        ] {
            let error = Pattern::new(pattern).unwrap_err();
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }

    #[test]
    fn what_stands_around_a_value_never_hides_a_hit_in_it() {
        for (pattern, value) in [
            (r"\bEMP-\d+\b", "EMP-1"),
            ("^EMP-[0-9]+$", "EMP-1"),
            (r"(?:^|,)x\b", "x"),
            (r"\B-(?m:^|\b)z\z", "-z"),
        ] {
            let pattern = Pattern::new(pattern).unwrap();
            let chunk = format!("A{value}A");
            assert!(pattern.may_hit(chunk.as_bytes()), "{}", pattern.source());
        }
    }
}
