//! `ErrorResponse` and `NoticeResponse`: fields by a letter each.
//!
//! Writing one cannot fail, since it is how failures are told: a zero byte in a
//! text becomes a space, and a text is cut at 16 KiB.
//!
//! Format: PostgreSQL manual, page `protocol-error-fields`.

use super::{Body, PgError, tag};

/// Letters of the fields.
pub mod code {
    /// Severity, translated.
    pub const SEVERITY: u8 = b'S';
    /// Severity, never translated.
    pub const SEVERITY_PLAIN: u8 = b'V';
    /// SQLSTATE.
    pub const SQLSTATE: u8 = b'C';
    /// What happened.
    pub const MESSAGE: u8 = b'M';
    /// More about it.
    pub const DETAIL: u8 = b'D';
    /// What to do about it.
    pub const HINT: u8 = b'H';
    /// Where in the text, in characters from 1.
    pub const POSITION: u8 = b'P';
    /// Where in a text that the server made itself.
    pub const INTERNAL_POSITION: u8 = b'p';
    /// That text.
    pub const INTERNAL_QUERY: u8 = b'q';
    /// The call stack of procedures.
    pub const WHERE: u8 = b'W';
    /// Schema of the object.
    pub const SCHEMA: u8 = b's';
    /// Table.
    pub const TABLE: u8 = b't';
    /// Column.
    pub const COLUMN: u8 = b'c';
    /// Data type.
    pub const DATA_TYPE: u8 = b'd';
    /// Constraint.
    pub const CONSTRAINT: u8 = b'n';
    /// Source file of the report.
    pub const FILE: u8 = b'F';
    /// Line in it.
    pub const LINE: u8 = b'L';
    /// Function in it.
    pub const ROUTINE: u8 = b'R';
}

/// The longest text that is written.
const TEXT_MAX: usize = 16 << 10;

/// Past this many bytes no further field is written.
const FIELDS_MAX: usize = 1 << 20;

/// An error or a notice, which have the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice<'a> {
    /// The fields, already checked.
    bytes: &'a [u8],
}

impl<'a> Notice<'a> {
    const NAME: &'static str = "ErrorResponse or NoticeResponse";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly fields and a zero byte.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let bytes = body;
        let mut body = Body::new(Self::NAME, body);
        while body.u8()? != 0 {
            body.cstr()?;
        }
        body.finish()?;
        Ok(Self { bytes })
    }

    /// The fields in the order in which they came.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields { rest: self.bytes }
    }

    /// The first field of that letter; see [`code`].
    #[must_use]
    pub fn get(&self, code: u8) -> Option<&'a [u8]> {
        self.fields()
            .find(|(given, _)| *given == code)
            .map(|(_, text)| text)
    }

    /// The severity, untranslated where the server says it.
    #[must_use]
    pub fn severity(&self) -> Option<&'a [u8]> {
        self.get(code::SEVERITY_PLAIN)
            .or_else(|| self.get(code::SEVERITY))
    }

    /// Whether the server ends the session with it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity(), Some(b"FATAL" | b"PANIC"))
    }

    /// SQLSTATE.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&'a [u8]> {
        self.get(code::SQLSTATE)
    }

    /// What happened.
    #[must_use]
    pub fn message(&self) -> Option<&'a [u8]> {
        self.get(code::MESSAGE)
    }
}

/// Letters and texts of a [`Notice`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (code, rest) = self.rest.split_first().filter(|(code, _)| **code != 0)?;
        let (text, rest) = rest.split_at_checked(memchr::memchr(0, rest)?)?;
        self.rest = rest.get(1..)?;
        Some((*code, text))
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement fails.
    Error,
    /// The session ends.
    Fatal,
    /// Nothing fails, somebody should look.
    Warning,
    /// Nothing fails.
    Notice,
}

impl Severity {
    /// PostgreSQL's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// An error or notice to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeBuilder<'a> {
    severity: Severity,
    sqlstate: &'a str,
    message: &'a str,
    more: Vec<(u8, &'a str)>,
}

impl<'a> NoticeBuilder<'a> {
    /// With the three fields that are always there.
    #[must_use]
    pub fn new(severity: Severity, sqlstate: &'a str, message: &'a str) -> Self {
        Self {
            severity,
            sqlstate,
            message,
            more: Vec::new(),
        }
    }

    /// An error; see [`crate::pg::sqlstate`].
    #[must_use]
    pub fn error(sqlstate: &'a str, message: &'a str) -> Self {
        Self::new(Severity::Error, sqlstate, message)
    }

    /// An error that ends the session.
    #[must_use]
    pub fn fatal(sqlstate: &'a str, message: &'a str) -> Self {
        Self::new(Severity::Fatal, sqlstate, message)
    }

    /// More about it.
    #[must_use]
    pub fn detail(self, text: &'a str) -> Self {
        self.field(code::DETAIL, text)
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(self, text: &'a str) -> Self {
        self.field(code::HINT, text)
    }

    /// Any other field; see [`code`]. The zero letter, which would end the
    /// message, is left out.
    #[must_use]
    pub fn field(mut self, code: u8, text: &'a str) -> Self {
        if code != 0 {
            self.more.push((code, text));
        }
        self
    }

    /// Appends an `ErrorResponse`.
    pub fn encode_error(&self, out: &mut Vec<u8>) {
        self.encode(tag::ERROR_RESPONSE, out);
    }

    /// Appends a `NoticeResponse`.
    pub fn encode_notice(&self, out: &mut Vec<u8>) {
        self.encode(tag::NOTICE_RESPONSE, out);
    }

    fn encode(&self, tag: u8, out: &mut Vec<u8>) {
        let severity = self.severity.as_str();
        let mut body = Vec::with_capacity(128);
        for (code, text) in [
            (code::SEVERITY, severity),
            (code::SEVERITY_PLAIN, severity),
            (code::SQLSTATE, self.sqlstate),
            (code::MESSAGE, self.message),
        ]
        .into_iter()
        .chain(self.more.iter().copied())
        {
            // Whatever a caller adds, the length fits its field.
            if body.len() > FIELDS_MAX {
                break;
            }
            body.push(code);
            body.extend(clip(text).bytes().map(|b| if b == 0 { b' ' } else { b }));
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        out.push(tag);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&body);
    }
}

/// The text, or as many whole characters of it as are written.
fn clip(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX))
        .unwrap_or(text)
}
