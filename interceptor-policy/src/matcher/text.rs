//! Globs and regular expressions over text.

use globset::{GlobBuilder, GlobMatcher};
use regex::{Regex, RegexBuilder};

/// Largest compiled form of one expression, in bytes.
const REGEX_LIMIT: usize = 1 << 20;

/// What `*` may run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stars {
    /// Everything.
    Free,
    /// All but `/`, which takes `**`.
    Path,
}

/// A glob. The common shapes are compared without an automaton.
#[derive(Debug)]
pub(crate) struct Glob {
    source: String,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Any,
    Exact,
    /// How much of the source, from its start.
    Prefix(usize),
    /// Where in the source it begins.
    Suffix(usize),
    /// The source without its first and last letter.
    Infix,
    General {
        exact: Box<GlobMatcher>,
        loose: Box<GlobMatcher>,
    },
}

impl Glob {
    /// Reads a glob.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(source: &str, stars: Stars) -> Result<Self, String> {
        let source = source.to_owned();
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '{', '}', '\\']);
        let free = stars == Stars::Free;
        let shape = if plain(&source) {
            Shape::Exact
        } else if source == "**" || (free && source == "*") {
            Shape::Any
        } else if let Some(prefix) = source.strip_suffix('*').filter(|p| free && plain(p)) {
            Shape::Prefix(prefix.len())
        } else if source.strip_prefix('*').is_some_and(|s| free && plain(s)) {
            Shape::Suffix(1)
        } else if infix(&source).is_some_and(|middle| free && plain(middle)) {
            Shape::Infix
        } else {
            let build = |loose: bool| {
                GlobBuilder::new(&source)
                    .case_insensitive(loose)
                    .literal_separator(!free)
                    .backslash_escape(true)
                    .build()
                    .map(|glob| Box::new(glob.compile_matcher()))
                    .map_err(|error| error.kind().to_string())
            };
            Shape::General {
                exact: build(false)?,
                loose: build(true)?,
            }
        };
        Ok(Self { source, shape })
    }

    /// Whether it is `*`.
    pub(crate) fn is_any(&self) -> bool {
        matches!(self.shape, Shape::Any)
    }

    /// Whether it has no wildcard.
    pub(crate) fn is_exact(&self) -> bool {
        matches!(self.shape, Shape::Exact)
    }

    /// As it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Compares, upper and lower case apart.
    pub(crate) fn exact(&self, text: &str) -> bool {
        match &self.shape {
            Shape::Any => true,
            Shape::Exact => self.source == text,
            Shape::Prefix(len) => text.as_bytes().get(..*len) == self.source.as_bytes().get(..*len),
            Shape::Suffix(from) => self
                .source
                .get(*from..)
                .is_some_and(|suffix| text.ends_with(suffix)),
            Shape::Infix => infix(&self.source).is_some_and(|middle| text.contains(middle)),
            Shape::General { exact, .. } => exact.is_match(text),
        }
    }

    /// Compares, ASCII letters alike in either case.
    pub(crate) fn loose(&self, text: &str) -> bool {
        let alike = |a: Option<&[u8]>, b: Option<&[u8]>| match (a, b) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        };
        let (pattern, text_bytes) = (self.source.as_bytes(), text.as_bytes());
        match &self.shape {
            Shape::Any => true,
            Shape::Exact => alike(Some(pattern), Some(text_bytes)),
            Shape::Prefix(len) => alike(pattern.get(..*len), text_bytes.get(..*len)),
            Shape::Suffix(from) => {
                let suffix = pattern.get(*from..).unwrap_or_default();
                let start = text_bytes.len().checked_sub(suffix.len());
                alike(Some(suffix), start.and_then(|at| text_bytes.get(at..)))
            }
            Shape::Infix => {
                let middle = infix(&self.source).unwrap_or_default().as_bytes();
                text_bytes
                    .windows(middle.len().max(1))
                    .any(|window| window.eq_ignore_ascii_case(middle))
            }
            Shape::General { loose, .. } => loose.is_match(text),
        }
    }
}

/// What stands between a star at the start and one at the end.
fn infix(source: &str) -> Option<&str> {
    source
        .strip_prefix('*')?
        .strip_suffix('*')
        .filter(|middle| !middle.is_empty())
}

/// A regular expression, in both manners of comparing.
#[derive(Debug)]
pub(crate) struct Expression {
    exact: Regex,
    loose: Regex,
}

impl Expression {
    /// Reads an expression; it may match anywhere in a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let build = |loose: bool| {
            RegexBuilder::new(source)
                .case_insensitive(loose)
                .size_limit(REGEX_LIMIT)
                .build()
                .map_err(|error| match error {
                    regex::Error::CompiledTooBig(limit) => {
                        format!("it compiles to more than {limit} bytes")
                    }
                    // The parser's message is a drawing of several lines, of which
                    // the last says what is wrong.
                    other => other
                        .to_string()
                        .lines()
                        .last()
                        .unwrap_or_default()
                        .trim_start_matches("error: ")
                        .to_owned(),
                })
        };
        Ok(Self {
            exact: build(false)?,
            loose: build(true)?,
        })
    }

    pub(crate) fn exact(&self, text: &str) -> bool {
        self.exact.is_match(text)
    }

    pub(crate) fn loose(&self, text: &str) -> bool {
        self.loose.is_match(text)
    }
}

/// A leaf over text.
#[derive(Debug)]
pub(crate) enum Text {
    Glob(Glob),
    Regex(Expression),
}

impl Text {
    /// The one text that it holds for, but for case.
    pub(crate) fn exact_text(&self) -> Option<&str> {
        match self {
            Self::Glob(glob) if glob.is_exact() => Some(glob.source()),
            _ => None,
        }
    }

    pub(crate) fn exact(&self, text: &str) -> bool {
        match self {
            Self::Glob(glob) => glob.exact(text),
            Self::Regex(expression) => expression.exact(text),
        }
    }

    pub(crate) fn loose(&self, text: &str) -> bool {
        match self {
            Self::Glob(glob) => glob.loose(text),
            Self::Regex(expression) => expression.loose(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(source: &str) -> Glob {
        Glob::new(source, Stars::Free).unwrap()
    }

    #[test]
    fn every_shape_of_glob_compares_as_a_glob() {
        for (pattern, yes, no) in [
            ("*", "anything/at all\n", None),
            ("users", "users", Some("users2")),
            ("deploy-*", "deploy-", Some("deploy")),
            ("*_log", "a_log", Some("a_logs")),
            ("a*b", "a/x\ny/b", Some("a")),
            ("a?c", "abc", Some("ac")),
            ("[ab]c", "bc", Some("cc")),
            ("{one,two}", "two", Some("three")),
            ("*mid*", "a mid b", Some("md")),
        ] {
            assert!(free(pattern).exact(yes), "{pattern} {yes}");
            assert!(free(pattern).loose(&yes.to_uppercase()), "{pattern} {yes}");
            if let Some(no) = no {
                assert!(!free(pattern).exact(no), "{pattern} {no}");
                assert!(!free(pattern).loose(no), "{pattern} {no}");
            }
        }
    }

    #[test]
    fn the_exact_comparison_tells_case_apart() {
        for pattern in ["users", "use*", "*ers", "u*s"] {
            assert!(!free(pattern).exact("USERS"), "{pattern}");
            assert!(free(pattern).loose("USERS"), "{pattern}");
        }
    }

    #[test]
    fn a_star_in_a_path_stops_at_a_slash_and_two_do_not() {
        let glob = |source| Glob::new(source, Stars::Path).unwrap();
        assert!(glob("/usr/bin/*").exact("/usr/bin/psql"));
        assert!(!glob("/usr/bin/*").exact("/usr/bin/x/psql"));
        assert!(glob("/usr/**").exact("/usr/bin/x/psql"));
        assert!(!glob("*").exact("/usr"));
        assert!(glob("**").exact("/usr"));
    }

    #[test]
    fn multibyte_text_is_cut_nowhere() {
        assert!(free("ä*").loose("äö"));
        assert!(!free("ab*").loose("ä"));
        assert!(!free("*xy").loose("ä"));
    }

    #[test]
    fn a_bad_glob_and_a_bad_expression_say_what_is_wrong() {
        assert!(Glob::new("[a", Stars::Free).is_err());
        let error = Expression::new("(a").unwrap_err();
        assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        assert!(Expression::new("(a{1000}){1000}").is_err());
    }
}
