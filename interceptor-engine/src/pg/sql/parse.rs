//! Text to tree.
//!
//! The parser is C and hands its tree over encoded; a tree is as deep as its
//! statement. Three limits hold: the text's size, the parser's own stack check
//! (which measures the calling thread's stack), and 10 000 nested messages in
//! the encoding. What is past them is not read. Decoding a tree, walking it and
//! dropping it recurse too, and do so on a stack that is large enough.
//!
//! Blocks of PL/pgSQL are read by PostgreSQL's compiler of them, which is C too.
//! It knows no catalog, so a block whose variables have types that somebody made
//! may be refused.

use std::ffi::{CString, c_char, c_int, c_void};

use pg_query::protobuf::ParseResult;
use prost::Message as _;
use serde_json::Value;

use super::Dialect;

/// Larger texts are not read. PostgreSQL itself takes up to 1 GiB.
pub(super) const MAX_TEXT: usize = 8 << 20;

/// A tree is as deep as its encoding is long, at most; this much stack is
/// enough for each of its bytes …
const STACK_PER_BYTE: usize = 256;
/// … for the fixed part …
const STACK_LEAST: usize = 128 << 10;
/// … and for the deepest tree that the parser hands over.
const STACK_MOST: usize = 256 << 20;

/// PostgreSQL's scanner looks to the end of a run of operator characters for
/// each token that it cuts off the run's front, and so takes the square of the
/// run's length for `+-+-+-…` and `/*/*/*…`: minutes for a megabyte. More steps
/// than this are not waited for.
const MAX_SCAN: usize = 256 << 20;

/// What the parser needs at most: it measures no more than 2 MiB.
const STACK_INNER: usize = 4 << 20;

/// Larger blocks of PL/pgSQL are not read: their compiler looks every word up
/// in a list of all variables …
const MAX_BLOCK: usize = 128 << 10;
/// … nor such as could be nested deeper than that.
const MAX_OPENINGS: usize = 2000;

/// Why there is no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParseError {
    /// More bytes than [`MAX_TEXT`].
    #[error("a text of {0} bytes is not read")]
    TooLarge(usize),
    /// PostgreSQL's texts end at the first NUL; what is behind it would go unread.
    #[error("a text with a NUL at {0} is not read")]
    Nul(usize),
    /// Operators in a row that would take [`MAX_SCAN`] steps and more to cut apart.
    #[error("a text with so many operators in a row is not read")]
    SlowScan,
    /// The grammar refuses it, or it is nested too deeply.
    #[error("not SQL that can be read")]
    Refused,
}

/// By which grammar a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    /// Statements.
    Statements,
    /// What PL/pgSQL hands to SQL: an expression, as a `SELECT` without the
    /// word, or an assignment of one. The number is a `RawParseMode`.
    Fragment(i8),
    /// A block of PL/pgSQL.
    Block,
}

impl Grammar {
    fn mode(self) -> c_int {
        match self {
            Self::Statements => 0,
            Self::Fragment(mode) => c_int::from(mode),
            Self::Block => -1,
        }
    }
}

/// As C returns it.
#[repr(C)]
struct Encoded {
    len: usize,
    data: *mut c_char,
}

unsafe extern "C" {
    fn interceptor_pg_parse(text: *const c_char, mode: c_int, conforming: bool) -> Encoded;
    fn free(data: *mut c_void);
}

/// The tree's encoding, freed when dropped.
struct Tree(Encoded);

impl Tree {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `data` is not null (checked before a `Tree` is made) and
        // points to `len` bytes that C wrote and that nobody else holds.
        unsafe { std::slice::from_raw_parts(self.0.data.cast::<u8>(), self.0.len) }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // SAFETY: `data` came from C's `malloc`, and is freed here only.
        unsafe { free(self.0.data.cast()) }
    }
}

fn encode(text: &str, grammar: Grammar, dialect: Dialect) -> Result<Tree, ParseError> {
    if text.len() > MAX_TEXT {
        return Err(ParseError::TooLarge(text.len()));
    }
    if scan_steps(text.as_bytes()) > MAX_SCAN {
        return Err(ParseError::SlowScan);
    }
    let text = CString::new(text).map_err(|error| ParseError::Nul(error.nul_position()))?;
    // SAFETY: `text` ends with a NUL and lives past the call. The parser keeps
    // its state in thread-local variables, so calls on other threads do not meet.
    let encoded = unsafe {
        interceptor_pg_parse(
            text.as_ptr(),
            grammar.mode(),
            dialect.standard_conforming_strings,
        )
    };
    if encoded.data.is_null() {
        return Err(ParseError::Refused);
    }
    Ok(Tree(encoded))
}

/// About how often the scanner looks at a byte again: in each run of operator
/// characters, the run's length for each place where a token may end early.
fn scan_steps(text: &[u8]) -> usize {
    // Too short for the square to matter.
    if text.len() <= 4096 {
        return 0;
    }
    let (mut steps, mut run, mut cuts, mut last) = (0_usize, 0_usize, 0_usize, 0_u8);
    for byte in text {
        if b"~!@#^&|`?+-*/%<>=".contains(byte) {
            run += 1;
            cuts += usize::from(*byte == b'+' || (last == b'/' && *byte == b'*'));
        } else if run > 0 {
            steps = steps.saturating_add(run.saturating_mul(cuts));
            (run, cuts) = (0, 0);
        }
        last = *byte;
    }
    steps.saturating_add(run.saturating_mul(cuts))
}

/// Reads `text` by PostgreSQL's grammar and gives the tree to `read`, on a
/// stack that the tree's depth does not exhaust.
pub(super) fn with_tree<R>(
    text: &str,
    dialect: Dialect,
    read: impl FnOnce(&ParseResult) -> R,
) -> Result<R, ParseError> {
    decoded(&encode(text, Grammar::Statements, dialect)?, read)
}

/// As [`with_tree`], for a text inside of one that is being read: the stack of
/// now may be one that the parser cannot measure, so it gets its own.
pub(super) fn with_inner_tree<R>(
    text: &str,
    grammar: Grammar,
    dialect: Dialect,
    read: impl FnOnce(&ParseResult) -> R,
) -> Result<R, ParseError> {
    let encoded = stacker::grow(STACK_INNER, || encode(text, grammar, dialect))?;
    decoded(&encoded, read)
}

/// A block of PL/pgSQL as JSON, and the initial values of its records.
pub(super) fn block(text: &str, dialect: Dialect) -> Result<(Value, Vec<String>), ParseError> {
    if text.len() > MAX_BLOCK || openings(text) > MAX_OPENINGS {
        return Err(ParseError::TooLarge(text.len()));
    }
    let encoded = stacker::grow(STACK_INNER, || encode(text, Grammar::Block, dialect))?;
    let mut parts = encoded.bytes().split(|byte| *byte == 0);
    let json = parts.next().unwrap_or_default();
    let json = serde_json::from_slice(json).map_err(|_| ParseError::Refused)?;
    // Each part ends with a NUL, so that the last one is empty.
    let values = parts
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8(part.to_vec()).map_err(|_| ParseError::Refused))
        .collect::<Result<_, _>>()?;
    Ok((json, values))
}

/// An upper bound of how deep the blocks of a text are nested.
fn openings(text: &str) -> usize {
    let text = text.to_ascii_lowercase();
    ["begin", "loop", "if", "case"]
        .iter()
        .map(|word| text.matches(word).count())
        .sum()
}

fn decoded<R>(encoded: &Tree, read: impl FnOnce(&ParseResult) -> R) -> Result<R, ParseError> {
    let stack = STACK_PER_BYTE
        .saturating_mul(encoded.bytes().len())
        .saturating_add(STACK_LEAST)
        .min(STACK_MOST);
    stacker::maybe_grow(stack, stack, || {
        let tree = ParseResult::decode(encoded.bytes()).map_err(|_| ParseError::Refused)?;
        Ok(read(&tree))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parses(text: &str) -> bool {
        with_tree(text, Dialect::default(), |_| ()).is_ok()
    }

    #[test]
    fn a_text_that_is_too_large_or_holds_a_nul_is_not_read() {
        let large = format!("SELECT 1{}", " ".repeat(MAX_TEXT));
        assert_eq!(
            with_tree(&large, Dialect::default(), |_| ()),
            Err(ParseError::TooLarge(large.len()))
        );
        assert_eq!(
            with_tree("SELECT 1\0; DROP TABLE users", Dialect::default(), |_| ()),
            Err(ParseError::Nul(8))
        );
    }

    #[test]
    fn a_backslash_ends_a_string_only_in_the_dialect_where_it_does() {
        let text = r"SELECT '\'; DROP TABLE users; --'";
        let count = |conforming| {
            let dialect = Dialect {
                standard_conforming_strings: conforming,
            };
            with_tree(text, dialect, |tree| tree.stmts.len()).unwrap()
        };
        assert_eq!((count(true), count(false)), (2, 1));
        assert_eq!(count(true), 2, "one text's dialect is not the next one's");
    }

    #[test]
    fn operators_in_a_row_do_not_take_the_square_of_their_number() {
        for text in [
            "SELECT ".to_owned() + &"+-".repeat(500_000) + "1",
            "/*".repeat(500_000),
        ] {
            assert_eq!(
                with_tree(&text, Dialect::default(), |_| ()),
                Err(ParseError::SlowScan)
            );
        }
        let banner = format!("/*{}*/ SELECT 1 -- {}", "*".repeat(9000), "=".repeat(9000));
        assert!(parses(&banner));
    }

    fn reads_block(text: &str) -> bool {
        block(text, Dialect::default()).is_ok()
    }

    #[test]
    fn blocks_with_any_type_of_variable_are_read() {
        for text in [
            "BEGIN NULL; END",
            "DECLARE a int; b text := 'x'; c numeric(5, 2); d timestamptz; BEGIN NULL; END;",
            "DECLARE a users.ssn%TYPE; b users%ROWTYPE; c public.users%ROWTYPE; BEGIN NULL; END",
            "DECLARE a my_type; b public.my_type; BEGIN a := NULL; END",
            "DECLARE r record; c CURSOR FOR SELECT 1; BEGIN FOR r IN c LOOP NULL; END LOOP; END",
            "DECLARE a int[]; BEGIN a[1] := 2; END",
            "DECLARE a users; BEGIN a.ssn := 2; END",
        ] {
            assert!(reads_block(text), "{text}");
        }
    }

    #[test]
    fn a_record_s_initial_value_is_found() {
        let (_, values) = block(
            "DECLARE r record := (SELECT 1); s record; BEGIN NULL; END",
            Dialect::default(),
        )
        .unwrap();
        assert_eq!(values, ["(SELECT 1)"]);
    }

    #[test]
    fn blocks_that_are_wrong_or_too_deep_are_refused() {
        let deep = format!("{}NULL;{}", "BEGIN ".repeat(1900), " END;".repeat(1900));
        for text in [
            "",
            "BEGIN",
            "SELECT 1",
            "BEGIN SELEC 1; x; END",
            deep.as_str(),
        ] {
            assert!(!reads_block(text));
        }
        assert!(parses("SELECT 1"), "what comes next is read as ever");
    }

    #[test]
    fn many_threads_parse_at_once() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        assert!(parses("SELECT a, b FROM t WHERE c = 1"));
                        assert!(!parses("SELECT FROM WHERE"));
                        assert!(reads_block("BEGIN PERFORM 1; END"));
                        assert!(!reads_block("BEGIN PERFORM 1 END"));
                    }
                });
            }
        });
    }

    #[test]
    fn warnings_of_the_parser_go_nowhere() {
        assert!(parses(&"CREATE GLOBAL TEMP TABLE a(); ".repeat(3000)));
    }
}
