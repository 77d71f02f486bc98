//! Errors and notices without the values that they quote.
//!
//! PostgreSQL quotes values in the words that it tells a client: those that it
//! could not convert, keys that are there already, rows that fail a check, the
//! arguments of a function that raised something. What may hold a masked value
//! is left out; severity, SQLSTATE, position and the names of what was violated
//! stay.
//!
//! An error with a position in the statement comes from reading the statement,
//! before any row was looked at, and is about its text: it stays whole. What
//! goes wrong in a statement inside of a function has another position, which
//! does not count (`elog.c`, `errposition` and `internalerrposition`).

use interceptor_policy::operation::{Class, Column, Output, Sql, Statement, Table};
use interceptor_policy::{MaskKey, Masks};
use interceptor_proto::pg::backend::Notice;
use interceptor_proto::pg::backend::notice::code;

use super::mentions_masked;
use super::origin::is_hidden;
use super::text::mask_text;

/// What a message of the server may quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Quotes {
    /// Nothing that a column mask hides.
    Nothing,
    /// Rows of a table that has masked columns, in its details.
    Rows,
    /// Values that the statement computes with, anywhere.
    Values,
    /// Whatever the code says that runs, in any field.
    Anything,
}

/// The fields of `notice` without what a mask hides; `None` where nothing is.
/// `sql` is the message that it answers.
#[must_use]
pub fn without_values(
    notice: &Notice<'_>,
    sql: Option<&Sql>,
    masks: &Masks,
    key: &MaskKey,
) -> Option<Vec<(u8, String)>> {
    let field = |wanted| {
        notice
            .fields()
            .find(|(letter, _)| *letter == wanted)
            .map(|(_, text)| text)
    };
    let about_the_text = field(code::POSITION).is_some() && field(code::INTERNAL_QUERY).is_none();
    let table = field(code::TABLE).map(|name| Table {
        schema: field(code::SCHEMA).map(|schema| String::from_utf8_lossy(schema).into()),
        name: String::from_utf8_lossy(name).into(),
    });
    let quotes = match about_the_text {
        true => Quotes::Nothing,
        false => quoted(sql, table.as_ref(), masks),
    };
    let state = field(code::SQLSTATE).unwrap_or_default();
    let mut changed = false;
    let fields = notice
        .fields()
        .filter_map(|(letter, text)| {
            let stays = match letter {
                code::MESSAGE => {
                    if quotes >= Quotes::Values && !says_nothing_of_values(state, quotes) {
                        changed = true;
                        return Some((letter, words(state)));
                    }
                    true
                }
                code::DETAIL => match quotes {
                    Quotes::Nothing => true,
                    Quotes::Rows => quotes_a_key(text, table.as_ref(), masks),
                    _ => false,
                },
                code::WHERE | code::INTERNAL_QUERY => quotes == Quotes::Nothing,
                code::HINT => quotes < Quotes::Values,
                code::SCHEMA | code::TABLE | code::COLUMN | code::DATA_TYPE | code::CONSTRAINT => {
                    quotes < Quotes::Anything
                }
                _ => true,
            };
            if !stays {
                changed = true;
                return None;
            }
            let text = match mask_text(masks, text, key) {
                Some(masked) => {
                    changed = true;
                    masked
                }
                None => text.to_vec(),
            };
            Some((letter, String::from_utf8_lossy(&text).into_owned()))
        })
        .collect();
    changed.then_some(fields)
}

fn quoted(sql: Option<&Sql>, table: Option<&Table>, masks: &Masks) -> Quotes {
    if !masks.has_columns() {
        return Quotes::Nothing;
    }
    let Some(sql) = sql else {
        return Quotes::Anything;
    };
    let by_statement = sql.statements.iter().map(|statement| {
        if is_unclear(statement) {
            Quotes::Anything
        } else if mentions_masked(statement, masks) {
            Quotes::Values
        } else if statement.tables.iter().any(|table| masks.touches(table)) {
            Quotes::Rows
        } else {
            Quotes::Nothing
        }
    });
    // A constraint that is checked at the end of a transaction.
    let by_table = match table {
        Some(table) if masks.touches(table) => Quotes::Rows,
        _ => Quotes::Nothing,
    };
    by_statement
        .chain([by_table])
        .max()
        .unwrap_or(Quotes::Nothing)
}

/// Code runs that the statement does not show.
fn is_unclear(statement: &Statement) -> bool {
    statement.output == Output::Unclear
        || statement.classes.contains(Class::Procedural)
        || statement.classes.contains(Class::Unclassified)
}

/// The server's own messages about connections, transactions, resources and
/// cancelling. Code that runs may raise anything under any state.
fn says_nothing_of_values(state: &[u8], quotes: Quotes) -> bool {
    quotes < Quotes::Anything
        && matches!(state.get(..2), Some(b"08" | b"25" | b"40" | b"53" | b"57"))
}

/// `Key (a, b)=(…)` with columns that no mask hides.
fn quotes_a_key(detail: &[u8], table: Option<&Table>, masks: &Masks) -> bool {
    let Ok(detail) = std::str::from_utf8(detail) else {
        return false;
    };
    let Some((columns, _)) = detail
        .strip_prefix("Key (")
        .and_then(|rest| rest.split_once(")=("))
    else {
        return false;
    };
    columns.split(", ").all(|name| {
        let plain = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let column = Column {
            table: table.cloned(),
            name: name.into(),
        };
        plain && !is_hidden(&column, masks)
    })
}

/// What a state says. Source: manual, page `errcodes-appendix`.
fn words(state: &[u8]) -> String {
    let condition = match state {
        b"21000" => "a subquery returned more than one row",
        b"22001" => "a value is too long",
        b"22003" => "a number is out of range",
        b"22007" => "a date or time is not written as one",
        b"22008" => "a date or time is out of range",
        b"22012" => "division by zero",
        b"22023" => "a parameter has a value that is not allowed",
        b"22P02" => "a value is not written as its type demands",
        b"23502" => "a NULL where none may be",
        b"23503" => "a foreign key is violated",
        b"23505" => "a unique key is violated",
        b"23514" => "a check is violated",
        b"23P01" => "an exclusion is violated",
        b"P0001" => "raised by a function",
        _ => match state.get(..2) {
            Some(b"00" | b"01" | b"02") => "a notice",
            Some(b"22") => "a value is wrong",
            Some(b"23") => "a constraint is violated",
            Some(b"42") => "something is not there, is not allowed or cannot be read",
            _ => "an error",
        },
    };
    format!("{condition} (the server's own words may quote masked values and are hidden)")
}
