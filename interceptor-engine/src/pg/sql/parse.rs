//! Text to tree.
//!
//! The parser is C and hands its tree over encoded; a tree is as deep as its
//! statement. Three limits hold: the text's size, the parser's own stack check
//! (which measures the calling thread's stack), and 10 000 nested messages in
//! the encoding. What is past them is not read. Decoding a tree, walking it and
//! dropping it recurse too, and do so on a stack that is large enough.

use std::ffi::{CString, c_char, c_void};

use pg_query::protobuf::ParseResult;
use prost::Message as _;

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

/// As C returns it.
#[repr(C)]
struct Encoded {
    len: usize,
    data: *mut c_char,
}

unsafe extern "C" {
    fn interceptor_pg_parse(text: *const c_char, conforming: bool) -> Encoded;
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

fn encode(text: &str, dialect: Dialect) -> Result<Tree, ParseError> {
    if text.len() > MAX_TEXT {
        return Err(ParseError::TooLarge(text.len()));
    }
    if scan_steps(text.as_bytes()) > MAX_SCAN {
        return Err(ParseError::SlowScan);
    }
    let text = CString::new(text).map_err(|error| ParseError::Nul(error.nul_position()))?;
    // SAFETY: `text` ends with a NUL and lives past the call. The parser keeps
    // its state in thread-local variables, so calls on other threads do not meet.
    let encoded =
        unsafe { interceptor_pg_parse(text.as_ptr(), dialect.standard_conforming_strings) };
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
    let encoded = encode(text, dialect)?;
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

    #[test]
    fn many_threads_parse_at_once() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        assert!(parses("SELECT a, b FROM t WHERE c = 1"));
                        assert!(!parses("SELECT FROM WHERE"));
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
