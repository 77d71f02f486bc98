//! Statements that carry passwords, on record without their literals.

/// The statement with every string constant replaced, by PostgreSQL's own
/// scanner; where it cannot be scanned, nothing of it.
pub(super) fn without_literals(text: &str) -> String {
    const HIDDEN: &str = "[a statement with secrets that could not be scanned]";
    let Ok(scanned) = pg_query::scan(text) else {
        return HIDDEN.to_owned();
    };
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for token in &scanned.tokens {
        if !matches!(
            token.token(),
            pg_query::protobuf::Token::Sconst
                | pg_query::protobuf::Token::Usconst
                | pg_query::protobuf::Token::Bconst
                | pg_query::protobuf::Token::Xconst
                | pg_query::protobuf::Token::SqlComment
                | pg_query::protobuf::Token::CComment
        ) {
            continue;
        }
        let (Ok(start), Ok(end)) = (usize::try_from(token.start), usize::try_from(token.end))
        else {
            return HIDDEN.to_owned();
        };
        let Some(kept) = text.get(done..start) else {
            return HIDDEN.to_owned();
        };
        out.push_str(kept);
        out.push_str("'[redacted]'");
        done = end;
    }
    let Some(kept) = text.get(done..) else {
        return HIDDEN.to_owned();
    };
    out.push_str(kept);
    out
}

#[cfg(test)]
mod tests {
    use super::without_literals;

    #[test]
    fn a_password_is_never_on_record() {
        for text in [
            "ALTER ROLE app PASSWORD 'hunter2'",
            "ALTER ROLE app PASSWORD $$hunter2$$",
            "ALTER ROLE app PASSWORD E'hunter2' -- hunter2",
            "ALTER ROLE app PASSWORD 'hunter2",
        ] {
            assert!(!without_literals(text).contains("hunter2"), "{text}");
        }
        assert_eq!(
            without_literals("ALTER ROLE app PASSWORD 'hunter2' VALID UNTIL 'infinity'"),
            "ALTER ROLE app PASSWORD '[redacted]' VALID UNTIL '[redacted]'"
        );
    }
}
