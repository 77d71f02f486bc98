//! Text to tree.

use std::sync::Mutex;

use pg_query::protobuf::ParseResult;

use super::Dialect;

/// Larger texts are not read. PostgreSQL itself takes up to 1 GiB.
pub(super) const MAX_TEXT: usize = 8 << 20;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Why there is no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParseError {
    /// More bytes than [`MAX_TEXT`].
    #[error("a text of {0} bytes is not read")]
    TooLarge(usize),
    /// The grammar refuses it, or it is nested too deeply.
    #[error("not SQL that can be read")]
    Refused,
}

/// Reads `text` by PostgreSQL's grammar.
pub(super) fn parse(text: &str, dialect: Dialect) -> Result<ParseResult, ParseError> {
    if text.len() > MAX_TEXT {
        return Err(ParseError::TooLarge(text.len()));
    }
    let mut options = pg_query::ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
    if !dialect.standard_conforming_strings {
        options |= pg_query::ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
    }
    let _guard = ONE_AT_A_TIME.lock();
    pg_query::parse(text, options)
        .map(|result| result.protobuf)
        .map_err(|_| ParseError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings() {
        let text = "CREATE GLOBAL TEMP TABLE a(); ".repeat(3000);
        assert!(parse(&text, Dialect::default()).is_ok());
    }
}
