//! `RowDescription` and `DataRow`, which is where the bytes are.
//!
//! A row is walked where it lies. [`Columns`] checks as it goes, in one pass,
//! for who rebuilds rows; [`DataRow`] checks first and then cannot fail, for
//! who reads them. Neither allocates.
//!
//! Format: PostgreSQL manual, page `protocol-message-formats`.

use super::{Body, PgError, tag, write};
use crate::pg::Values;

/// The columns of the rows to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowDescription<'a> {
    count: u16,
    /// The fields, already checked.
    bytes: &'a [u8],
}

/// One column as the server describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field<'a> {
    /// The column's label.
    pub name: &'a [u8],
    /// OID of the table that the column is of; 0 for a computed one.
    pub table_oid: u32,
    /// Number of the column in that table; 0 for a computed one.
    pub attribute: i16,
    /// OID of the type.
    pub type_oid: u32,
    /// `pg_type.typlen`; negative for variable sizes.
    pub type_size: i16,
    /// `pg_attribute.atttypmod`.
    pub type_modifier: i32,
    /// Format of the values; 0 (not known yet) when a statement is described.
    pub format: i16,
}

/// One column, kept beyond its message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedField {
    /// The column's label.
    pub name: Vec<u8>,
    /// OID of the table that the column is of; 0 for a computed one.
    pub table_oid: u32,
    /// Number of the column in that table; 0 for a computed one.
    pub attribute: i16,
    /// OID of the type.
    pub type_oid: u32,
    /// `pg_type.typlen`; negative for variable sizes.
    pub type_size: i16,
    /// `pg_attribute.atttypmod`.
    pub type_modifier: i32,
    /// Format of the values.
    pub format: i16,
}

impl Field<'_> {
    /// A copy that outlives the message.
    #[must_use]
    pub fn to_owned(&self) -> OwnedField {
        OwnedField {
            name: self.name.to_vec(),
            table_oid: self.table_oid,
            attribute: self.attribute,
            type_oid: self.type_oid,
            type_size: self.type_size,
            type_modifier: self.type_modifier,
            format: self.format,
        }
    }
}

impl OwnedField {
    /// The same, borrowed.
    #[must_use]
    pub fn as_field(&self) -> Field<'_> {
        Field {
            name: &self.name,
            table_oid: self.table_oid,
            attribute: self.attribute,
            type_oid: self.type_oid,
            type_size: self.type_size,
            type_modifier: self.type_modifier,
            format: self.format,
        }
    }
}

impl<'a> RowDescription<'a> {
    const NAME: &'static str = "RowDescription";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly the announced number of fields.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let count = body.u16()?;
        let bytes = body.remainder();
        let mut body = Body::new(Self::NAME, bytes);
        for _ in 0..count {
            field(&mut body)?;
        }
        body.finish()?;
        Ok(Self { count, bytes })
    }

    /// How many columns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// Whether rows will have no column at all, which PostgreSQL allows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The columns.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let mut body = Body::new(Self::NAME, self.bytes);
        (0..self.count).map_while(move |_| field(&mut body).ok())
    }

    /// The columns, kept beyond the message.
    #[must_use]
    pub fn to_owned_fields(&self) -> Vec<OwnedField> {
        self.fields().map(|field| field.to_owned()).collect()
    }

    /// Appends a message with these columns.
    ///
    /// # Errors
    ///
    /// A label with a zero byte in it, or too many columns or bytes.
    pub fn encode<'f>(
        fields: impl IntoIterator<Item = Field<'f>, IntoIter: ExactSizeIterator>,
        out: &mut Vec<u8>,
    ) -> Result<(), PgError> {
        let fields = fields.into_iter();
        write::message(out, Self::NAME, tag::ROW_DESCRIPTION, |w| {
            w.count(fields.len())?;
            for field in fields {
                w.cstr(field.name)?;
                w.u32(field.table_oid);
                w.i16(field.attribute);
                w.u32(field.type_oid);
                w.i16(field.type_size);
                w.i32(field.type_modifier);
                w.i16(field.format);
            }
            Ok(())
        })
    }
}

fn field<'a>(body: &mut Body<'a>) -> Result<Field<'a>, PgError> {
    Ok(Field {
        name: body.cstr()?,
        table_oid: body.u32()?,
        attribute: body.i16()?,
        type_oid: body.u32()?,
        type_size: body.i16()?,
        type_modifier: body.i32()?,
        format: body.i16()?,
    })
}

/// One row, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataRow<'a> {
    columns: Values<'a>,
}

impl<'a> DataRow<'a> {
    const NAME: &'static str = "DataRow";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly the announced number of values.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let columns = body.values()?;
        body.finish()?;
        Ok(Self { columns })
    }

    /// How many columns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is no column at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values; `None` is NULL.
    #[must_use]
    pub fn columns(&self) -> Values<'a> {
        self.columns.clone()
    }
}

/// The values of a row, checked while they are walked.
///
/// After the last value, bytes that are left over come as one more item, which
/// is an error; so does the value that reaches past the end, and nothing after
/// it. Who stops early has not checked the rest.
#[derive(Clone, Debug)]
pub struct Columns<'a> {
    left: u16,
    rest: &'a [u8],
}

impl<'a> Columns<'a> {
    /// Starts on the body of a `DataRow`'s frame.
    ///
    /// # Errors
    ///
    /// A body too short for the number of columns.
    #[inline]
    pub fn new(body: &'a [u8]) -> Result<Self, PgError> {
        let Some((left, rest)) = body.split_first_chunk::<2>() else {
            return Err(truncated(2, body.len()));
        };
        Ok(Self {
            left: u16::from_be_bytes(*left),
            rest,
        })
    }

    /// How many values are still to come, if the row is well formed.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.left.into()
    }

    /// Ends the walk.
    fn fail(&mut self, error: PgError) -> Option<Result<Option<&'a [u8]>, PgError>> {
        self.left = 0;
        self.rest = &[];
        Some(Err(error))
    }
}

impl<'a> Iterator for Columns<'a> {
    type Item = Result<Option<&'a [u8]>, PgError>;

    // By hand instead of by `Body`: this runs once a value of every masked
    // result, and the errors are built out of line.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Some(left) = self.left.checked_sub(1) else {
            return match self.rest.len() {
                0 => None,
                extra => self.fail(PgError::TrailingBytes {
                    message: DataRow::NAME,
                    extra,
                }),
            };
        };
        let Some((length, rest)) = self.rest.split_first_chunk::<4>() else {
            return self.fail(truncated(4, self.rest.len()));
        };
        let length = i32::from_be_bytes(*length);
        let value = match usize::try_from(length) {
            Ok(wanted) => match rest.split_at_checked(wanted) {
                Some((value, rest)) => {
                    self.rest = rest;
                    Some(value)
                }
                None => return self.fail(truncated(wanted, rest.len())),
            },
            Err(_) if length == -1 => {
                self.rest = rest;
                None
            }
            Err(_) => {
                return self.fail(PgError::NegativeLength {
                    message: DataRow::NAME,
                    length,
                });
            }
        };
        self.left = left;
        Some(Ok(value))
    }
}

#[cold]
fn truncated(wanted: usize, left: usize) -> PgError {
    PgError::Truncated {
        message: DataRow::NAME,
        wanted,
        left,
    }
}

/// Writes one row to the end of a buffer, value by value.
///
/// A row that is dropped unfinished, or cannot be finished, leaves no trace in
/// the buffer.
#[must_use = "a row that is not finished is taken back"]
pub struct DataRowBuilder<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    columns: usize,
    oversized: Option<usize>,
    finished: bool,
}

impl<'o> DataRowBuilder<'o> {
    /// Starts a row at the end of `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[tag::DATA_ROW, 0, 0, 0, 0, 0, 0]);
        Self {
            out,
            start,
            columns: 0,
            oversized: None,
            finished: false,
        }
    }

    /// Appends a value; `None` is NULL.
    #[inline]
    pub fn column(&mut self, value: Option<&[u8]>) {
        self.columns += 1;
        let Some(value) = value else {
            self.out.extend_from_slice(&(-1_i32).to_be_bytes());
            return;
        };
        match i32::try_from(value.len()) {
            Ok(length) => {
                self.out.extend_from_slice(&length.to_be_bytes());
                self.out.extend_from_slice(value);
            }
            Err(_) => self.oversized = Some(value.len()),
        }
    }

    /// Fills in length and count.
    ///
    /// # Errors
    ///
    /// More columns or bytes than a row can have.
    pub fn finish(mut self) -> Result<(), PgError> {
        let too_long = |length| PgError::TooLong {
            message: DataRow::NAME,
            length,
        };
        if let Some(length) = self.oversized {
            return Err(too_long(length));
        }
        let count = u16::try_from(self.columns).map_err(|_| too_long(self.columns))?;
        write::patch(self.out, DataRow::NAME, self.start + 1)?;
        if let Some(field) = self
            .out
            .get_mut(self.start + 5..)
            .and_then(<[u8]>::first_chunk_mut)
        {
            *field = count.to_be_bytes();
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for DataRowBuilder<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}
