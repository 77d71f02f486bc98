//! What a body says, by JSON pointers.

use crate::matcher::pointer::{Pointer, alike};
use crate::matcher::session::Number;
use crate::matcher::text::Text;
use crate::matcher::{Matcher, Mode};
use crate::operation::http::{HttpBody, Json};

use super::NotKnown;

/// What a value has to be.
#[derive(Debug)]
pub(crate) enum Leaf {
    Text(Text),
    Number(Number),
    Bool(bool),
    Null,
}

/// Pointers, with what has to be where they point: all of it in one document.
#[derive(Debug)]
pub(crate) struct BodyMatch {
    pub(crate) parts: Vec<(Pointer, Matcher<Leaf>)>,
}

/// A value, as far as a leaf is concerned.
#[derive(Clone, Copy)]
enum Value<'v> {
    Json(&'v Json),
    /// Of a form, where everything is text.
    Form(&'v str),
}

impl BodyMatch {
    /// # Errors
    /// Why it is not known.
    pub(crate) fn holds(&self, mode: Mode, body: &HttpBody) -> Result<bool, NotKnown> {
        Ok(match body {
            HttpBody::Unread => return Err(NotKnown::Yet),
            HttpBody::Unreadable(why) => return Err(NotKnown::Ever(why)),
            HttpBody::Absent => self.of_nothing(mode),
            // In a form that this does not read, it may say anything.
            HttpBody::Bytes(_) => mode == Mode::May && self.of_nothing(mode),
            HttpBody::Json(documents) if documents.is_empty() => self.of_nothing(mode),
            HttpBody::Json(documents) => match mode {
                Mode::May => documents.iter().any(|json| self.of(mode, json)),
                Mode::Must => documents.iter().all(|json| self.of(mode, json)),
            },
            HttpBody::Form(fields) => self.parts.iter().all(|(pointer, matcher)| {
                let named = fields.iter().filter(|(name, _)| names(pointer, name, mode));
                among(matcher, mode, named.map(|(_, value)| Value::Form(value)))
            }),
        })
    }

    /// Of one document.
    pub(crate) fn of(&self, mode: Mode, json: &Json) -> bool {
        self.parts.iter().all(|(pointer, matcher)| {
            let found = pointer.find(json, mode);
            among(matcher, mode, found.into_iter().map(Value::Json))
        })
    }

    fn of_nothing(&self, mode: Mode) -> bool {
        let mut parts = self.parts.iter();
        parts.all(|(_, matcher)| among(matcher, mode, std::iter::empty()))
    }
}

/// What is not there is certainly none of what is asked for.
fn among<'v>(matcher: &Matcher<Leaf>, mode: Mode, values: impl Iterator<Item = Value<'v>>) -> bool {
    let mut values = values.peekable();
    match values.peek() {
        None => matcher.holds(mode, &|_, _| false),
        Some(_) => matcher.holds_among(mode, values, |leaf, value, mode| leaf.holds(*value, mode)),
    }
}

/// Whether a form's field is what a pointer points at: as a key of its own, or
/// (`user[name]`) as some readers nest them.
fn names(pointer: &Pointer, name: &str, mode: Mode) -> bool {
    let whole = pointer.key(pointer.start(), name, mode);
    if pointer.is_here(whole) {
        return true;
    }
    if mode == Mode::Must || !name.contains('[') {
        return false;
    }
    let mut parts = name.split('[');
    let first = parts.next().unwrap_or_default();
    let mut at = pointer.key(pointer.start(), first, mode);
    let mut nested = false;
    for part in parts {
        let part = part.strip_suffix(']').unwrap_or(part);
        // `a[]` is each of a list.
        nested |= pointer.is_here(at) && part.is_empty();
        at = pointer.key(at, part, mode);
    }
    nested || pointer.is_here(at)
}

impl Leaf {
    fn holds(&self, value: Value<'_>, mode: Mode) -> bool {
        let text = |text: &Text, is: &str| match mode {
            Mode::May => text.loose(is),
            Mode::Must => text.exact(is),
        };
        match (self, value) {
            // `*` asks that there is something.
            (Self::Text(Text::Glob(glob)), _) if glob.is_any() => true,
            (Self::Text(of), Value::Json(Json::Text(is))) => text(of, is),
            (Self::Text(of), Value::Json(Json::Number(is))) => text(of, is),
            (Self::Text(of), Value::Json(Json::Bool(is))) => {
                text(of, if *is { "true" } else { "false" })
            }
            (Self::Text(of), Value::Form(is)) => text(of, is),
            (Self::Number(of), Value::Json(Json::Number(is))) => number(*of, is),
            (Self::Number(of), Value::Form(is)) => number(*of, is.trim()),
            // Some readers take a text for the number or the truth that it says.
            (Self::Number(of), Value::Json(Json::Text(is))) => {
                mode == Mode::May && number(*of, is.trim())
            }
            (Self::Bool(of), Value::Json(Json::Bool(is))) => of == is,
            (Self::Bool(of), Value::Json(Json::Text(is))) => {
                mode == Mode::May && alike(is, if *of { "true" } else { "false" })
            }
            (Self::Bool(of), Value::Json(Json::Number(is))) => {
                mode == Mode::May && **is == *if *of { "1" } else { "0" }
            }
            (Self::Bool(of), Value::Form(is)) => alike(is, if *of { "true" } else { "false" }),
            (Self::Null, Value::Json(is)) => *is == Json::Null,
            _ => false,
        }
    }
}

/// Compares as a whole number where it is one, however it is written, and as a
/// float otherwise.
fn number(of: Number, is: &str) -> bool {
    if let Ok(is) = is.parse::<i128>() {
        return match u64::try_from(is) {
            Ok(is) => of.holds(is),
            Err(_) => is > 0 && matches!(of, Number::Over(_)),
        };
    }
    let Ok(is) = is.parse::<f64>() else {
        return false;
    };
    match of {
        #[expect(clippy::float_cmp, reason = "42.0 is 42, and 42.1 is not")]
        Number::Is(of) => is == of as f64,
        Number::Over(of) => is > of as f64,
    }
}
