//! A replay for a database: what was asked, as a script that `psql` can run.
//!
//! Only what was let through stands there to be run; refused statements are
//! comments. Parameters are bound by `PREPARE` and `EXECUTE`.
//!
//! The script's reader is `psql`, which has commands of its own (`\!` runs a
//! program) wherever a backslash stands outside of a quoted text. PostgreSQL's
//! grammar has none there, so no honest statement needs one; but what stands in a
//! recording was written by an agent. Each statement is read as `psql` would read
//! it, and one that `psql` would not simply send on is made a comment.

use std::collections::HashMap;

use super::Entry;
use super::escape;
use super::http;
use super::text::clock;
use super::timeline::flat;
use serde_json::Value;

/// What stands at the beginning of every script. `psql` and the check below must
/// agree on whether a backslash in a text means anything.
pub const HEADER: &str = "SET standard_conforming_strings = on;\n";

/// Prepared statements that are remembered.
const STATEMENT_LIMIT: usize = 1024;

/// Under this name, statements with parameters are prepared.
const PREPARED: &str = "interceptor_replay";

/// Writes commands as SQL.
#[derive(Debug, Default)]
pub struct Sql {
    statements: HashMap<String, String>,
}

impl Sql {
    /// Writes `entry`; nothing where it has no place in a script.
    pub fn render(&mut self, entry: &Entry) -> String {
        match entry.kind.as_str() {
            "open" => comment(&format!("session opened: {}", entry.line)),
            "close" => comment(&format!("session closed: {}", entry.line)),
            "command" if http::is_http(entry) => comment(&format!(
                "not SQL: {} {}",
                entry.meta_text("verdict").unwrap_or_default(),
                entry.line
            )),
            "command" => self.command(entry),
            "verdict" => comment(&format!(
                "{}: {}",
                entry.meta_text("verdict").unwrap_or("verdict"),
                entry.meta_text("message").unwrap_or(&entry.line)
            )),
            "error" => comment(&format!(
                "error {}: {}",
                entry.meta_text("code").unwrap_or_default(),
                entry.meta_text("message").unwrap_or(&entry.line)
            )),
            _ => String::new(),
        }
    }

    fn command(&mut self, entry: &Entry) -> String {
        let verdict = entry.meta_text("verdict").unwrap_or("allow");
        let step = entry.meta_text("message").unwrap_or("Q");
        let name = entry.meta.get("statement").and_then(Value::as_str);
        let exchange = entry
            .exchange
            .map_or(String::new(), |exchange| format!(" #{exchange}"));
        let head = comment(&format!("{}{exchange} {verdict}", clock(entry.at)));
        if verdict != "allow" {
            return head + &comment(&entry.command());
        }
        match step {
            "P" => {
                if self.statements.len() < STATEMENT_LIMIT {
                    let name = name.unwrap_or_default().to_owned();
                    self.statements.insert(name, entry.command());
                }
                // It does nothing until it is executed.
                String::new()
            }
            "F" => head + &comment(&format!("function call, not in SQL: {}", entry.line)),
            _ => {
                let prepared = name.and_then(|name| self.statements.get(name));
                let text = match prepared {
                    Some(text) if entry.data.is_empty() => text.clone(),
                    _ => entry.command(),
                };
                let parameters = entry.meta.get("parameters").and_then(Value::as_array);
                let parameters = parameters.map(Vec::as_slice).unwrap_or_default();
                head + &statement(&text, parameters)
            }
        }
    }
}

/// `text` to be run, or as a comment where `psql` would not simply send it on.
fn statement(text: &str, parameters: &[Value]) -> String {
    let read = Reading::of(text);
    let unbound = (read.has_parameters && parameters.is_empty())
        .then_some("the values of its parameters are not on record");
    if let Some(why) = read.refusal().or(unbound) {
        return comment(&format!("not made to be run: {why}")) + &comment(text);
    }
    let text = text.trim();
    // A comment that runs to the end of the line would swallow the semicolon.
    let end = if read.ends_in_comment { "\n;\n" } else { ";\n" };
    let end = if read.ends_with_semicolon { "\n" } else { end };
    if parameters.is_empty() {
        return format!("{text}{end}");
    }
    let values: Vec<String> = parameters.iter().map(literal).collect();
    format!(
        "PREPARE {PREPARED} AS {text}{end}EXECUTE {PREPARED}({});\nDEALLOCATE {PREPARED};\n",
        values.join(", ")
    )
}

/// A parameter as a literal that needs no setting of the server's to be read.
fn literal(value: &Value) -> String {
    if value.is_null() {
        return "NULL".to_owned();
    }
    let text = flat(value);
    let quoted = text.replace('\'', "''");
    if text.contains(|c: char| c == '\\' || escape::is_obeyed(c)) {
        let quoted: String = quoted.chars().fold(String::new(), |mut out, char| {
            match char {
                '\\' => out.push_str("\\\\"),
                char if escape::is_obeyed(char) => {
                    out.push_str(&format!("\\U{:08x}", u32::from(char)));
                }
                char => out.push(char),
            }
            out
        });
        return format!("E'{quoted}'");
    }
    format!("'{quoted}'")
}

/// Every line of `text` as a comment.
fn comment(text: &str) -> String {
    let text = escape::lines(text.trim_end());
    text.split('\n')
        .map(|line| format!("-- {line}\n"))
        .collect()
}

/// What `psql` finds in a statement.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    backslash: bool,
    /// `$1` and the like.
    has_parameters: bool,
    /// Where a quoted text begins or ends depends on the reader's version or mode.
    unclear: bool,
    unfinished: bool,
    from_stdin: bool,
    obeyed: bool,
    ends_in_comment: bool,
    ends_with_semicolon: bool,
}

impl Reading {
    /// Reads `text` as `psqlscan.l` does with `standard_conforming_strings` on.
    fn of(text: &str) -> Self {
        // A carriage return alone ends a comment for `psql`.
        let obeyed = |c| escape::is_obeyed(c) && !matches!(c, '\n' | '\t');
        let mut reading = Self {
            obeyed: text.replace("\r\n", "\n").contains(obeyed),
            ..Self::default()
        };
        let (mut copy, mut stdin) = (false, false);
        // A text goes on, in the mode of its beginning, where only a line end stands
        // between two quotes; and `1e'…'` is read differently by different versions.
        // Neither matters as long as no plain quote has a backslash.
        let (mut prefixed, mut plain_backslash) = (false, false);
        let mut rest = text;
        let mut word = String::new();
        while let Some(char) = rest.chars().next() {
            let is_word = char.is_alphanumeric() || matches!(char, '_' | '$') || !char.is_ascii();
            // A dollar inside of a word begins no quote.
            if is_word && !(char == '$' && word.is_empty()) {
                // A number may end before the dollar, which then begins a quote.
                reading.unclear |= char == '$' && word.starts_with(|c: char| c.is_ascii_digit());
                word.push(char.to_ascii_lowercase());
                rest = rest.get(char.len_utf8()..).unwrap_or_default();
                reading.ends_in_comment = false;
                reading.ends_with_semicolon = false;
                continue;
            }
            copy |= word == "copy";
            stdin |= word == "stdin";
            let escapes = word == "e";
            let (length, kind) = token(rest, escapes);
            if char == '\'' {
                prefixed |= !word.is_empty();
                let quoted = rest.get(..length).unwrap_or_default();
                plain_backslash |= !escapes && quoted.contains('\\');
            }
            word.clear();
            match kind {
                Token::Unfinished => reading.unfinished = true,
                Token::LineComment => reading.ends_in_comment = true,
                Token::BlockComment | Token::Space => {}
                Token::Quoted => {
                    reading.ends_in_comment = false;
                    reading.ends_with_semicolon = false;
                }
                Token::Char => {
                    let next = rest.as_bytes().get(1);
                    reading.has_parameters |= char == '$' && next.is_some_and(u8::is_ascii_digit);
                    reading.backslash |= char == '\\';
                    reading.ends_in_comment = false;
                    reading.ends_with_semicolon = char == ';';
                }
            }
            if kind == Token::Space && char == '\n' {
                reading.ends_in_comment = false;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        copy |= word == "copy";
        stdin |= word == "stdin";
        reading.from_stdin = copy && stdin;
        reading.unclear |= prefixed && plain_backslash;
        reading
    }

    fn refusal(&self) -> Option<&'static str> {
        if self.backslash {
            Some("psql would take the backslash for a command of its own")
        } else if self.unclear {
            Some("where a quoted text ends in it depends on who reads it")
        } else if self.unfinished {
            Some("a quote or comment is not closed")
        } else if self.from_stdin {
            Some("its data is not part of a script")
        } else if self.obeyed {
            Some("it has characters that a terminal would obey")
        } else {
            None
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Space,
    Char,
    Quoted,
    LineComment,
    BlockComment,
    /// A quote or comment that goes on to the end.
    Unfinished,
}

/// The token at the beginning of `text`, which is not empty: its length and kind.
fn token(text: &str, escapes: bool) -> (usize, Token) {
    let whole = text.len();
    let quoted = |end: Option<usize>| match end {
        Some(end) => (end, Token::Quoted),
        None => (whole, Token::Unfinished),
    };
    match text.as_bytes() {
        [b'\'', ..] => quoted(quote_end(text, b'\'', escapes)),
        [b'"', ..] => quoted(quote_end(text, b'"', false)),
        [b'-', b'-', ..] => (text.find('\n').unwrap_or(whole), Token::LineComment),
        [b'/', b'*', ..] => match comment_end(text) {
            Some(end) => (end, Token::BlockComment),
            None => (whole, Token::Unfinished),
        },
        [b'$', ..] => match dollar_tag(text) {
            Some(tag) => {
                let body = text.get(tag.len()..).unwrap_or_default();
                quoted(body.find(tag).map(|at| at + 2 * tag.len()))
            }
            None => (1, Token::Char),
        },
        _ => {
            let char = text.chars().next().unwrap_or(' ');
            let kind = if char.is_whitespace() {
                Token::Space
            } else {
                Token::Char
            };
            (char.len_utf8(), kind)
        }
    }
}

/// Where a quoted text that begins at 0 is over.
fn quote_end(text: &str, quote: u8, escapes: bool) -> Option<usize> {
    let mut bytes = text.bytes().enumerate().skip(1).peekable();
    while let Some((at, byte)) = bytes.next() {
        if byte == b'\\' && escapes {
            bytes.next();
        } else if byte == quote {
            match bytes.peek() {
                Some((_, next)) if *next == quote => {
                    bytes.next();
                }
                _ => return Some(at + 1),
            }
        }
    }
    None
}

/// Where a block comment that begins at 0 is over; they nest.
fn comment_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut rest = text.as_bytes();
    loop {
        match rest {
            [b'/', b'*', after @ ..] => {
                depth += 1;
                rest = after;
            }
            [b'*', b'/', after @ ..] => {
                depth = depth.saturating_sub(1);
                rest = after;
                if depth == 0 {
                    return Some(text.len() - rest.len());
                }
            }
            [_, after @ ..] => rest = after,
            [] => return None,
        }
    }
}

/// `$tag$` at the beginning of `text`.
fn dollar_tag(text: &str) -> Option<&str> {
    let body = text.get(1..)?;
    let end = body.find('$')?;
    let tag = body.get(..end)?;
    let first_is_digit = tag.starts_with(|c: char| c.is_ascii_digit());
    let is_tag = !first_is_digit
        && tag
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii());
    if is_tag { text.get(..end + 2) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs(text: &str) -> String {
        let script = statement(text, &[]);
        script
            .lines()
            .filter(|line| !line.starts_with("-- "))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn honest_statements_are_made_to_be_run() {
        for (text, script) in [
            ("select 1", "select 1;"),
            ("select 1;", "select 1;"),
            ("select 1 -- one", "select 1 -- one\n;"),
            (
                "select '\\', $$\\$$, $a$\\$$\\$a$",
                "select '\\', $$\\$$, $a$\\$$\\$a$;",
            ),
            ("select e'\\'', 'x'", "select e'\\'', 'x';"),
            (
                "select 1 from t\r\nwhere a = 'b'",
                "select 1 from t\nwhere a = 'b';",
            ),
            (
                "select \"a\\b\" /* \\ /* */ \\ */",
                "select \"a\\b\" /* \\ /* */ \\ */;",
            ),
            ("select a$1$b from t", "select a$1$b from t;"),
            ("copy t to stdout", "copy t to stdout;"),
        ] {
            assert_eq!(runs(text), script);
        }
    }

    #[test]
    fn a_statement_cannot_give_psql_a_command_of_its_own() {
        for text in [
            "select 1 \\! touch /tmp/owned",
            "select '\\' \\! id --'",
            "select e'\\'' \\! id",
            "select $$ $$ \\! id",
            "select a$x$ \\! id $x$",
            "select 1 /* /* */ \\! id */ */ \\! id",
            "-- x\n\\! id",
            "\\copy t from program 'id'",
            "select 1e'\\'' \\! id '",
            "select e'a'\n'\\'' \\! id '",
            "select 1$x$ ' $x$ \\! id '",
            "select $1$x$ ' $x$ \\! id '",
            "select 1 -- x\r\\! id",
        ] {
            assert_eq!(runs(text), "", "{text}");
        }
    }

    #[test]
    fn a_statement_cannot_swallow_the_next_one() {
        for text in [
            "select '",
            "select \"",
            "select $x$ $y$",
            "/* ",
            "copy t from stdin",
        ] {
            assert_eq!(runs(text), "", "{text}");
        }
    }

    #[test]
    fn a_statement_whose_parameters_are_not_on_record_is_not_run() {
        assert_eq!(runs("select $1"), "");
        assert_eq!(runs("select '$1', a$1"), "select '$1', a$1;");
    }

    #[test]
    fn parameters_are_bound_and_cannot_leave_their_quotes() {
        let script = statement(
            "select $1, $2, $3",
            &[
                "O'Brien".into(),
                Value::Null,
                "\\'; drop table t; --\x1b".into(),
            ],
        );
        assert_eq!(
            script,
            "PREPARE interceptor_replay AS select $1, $2, $3;\n\
             EXECUTE interceptor_replay('O''Brien', NULL, E'\\\\''; drop table t; --\\U0000001b');\n\
             DEALLOCATE interceptor_replay;\n"
        );
    }

    proptest! {
        #[test]
        fn what_is_run_has_no_backslash_but_in_quotes(text in "[a-zE'\"$\\\\/*\\- \n;]{0,24}") {
            let reading = Reading::of(&text);
            if reading.refusal().is_none() && !text.contains(['\'', '"', '$']) && !text.contains("--") && !text.contains("/*") {
                prop_assert!(!text.contains('\\'));
            }
            // Never a panic, and comments stay comments.
            for line in comment(&text).lines() {
                prop_assert!(line.starts_with("-- "));
            }
        }
    }
}
