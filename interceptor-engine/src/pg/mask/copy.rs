//! Hiding values in the rows of `COPY … TO STDOUT`.
//!
//! `COPY` has no row description, so columns are hidden by their position in
//! the statement's own column list; [`CopyPlan::new`] says beforehand where that
//! cannot be done. PostgreSQL sends one row in each `CopyData` (manual, page
//! `protocol-flow`), and a message that is not one row of the columns listed is
//! refused.
//!
//! In binary format a hidden value becomes NULL: its type is not known here, and
//! NULL is a value of every type.
//!
//! Formats: manual, page `sql-copy`; how rows are written: `copyto.c`.

use std::sync::Arc;

use interceptor_policy::mask::Masked;
use interceptor_policy::operation::{Output, Statement};
use interceptor_policy::{MaskKey, Masks};

use super::origin::{Hide, by_item, mentioned};
use super::text::mask_text;
use super::{MaskError, Treatment};
use crate::pg::sql::{CopyEncoding, CopyFormat, CopyHeader};

/// First bytes of the binary format.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// What to do with each row of a `COPY … TO STDOUT`.
#[derive(Clone, Debug, Default)]
pub struct CopyPlan {
    hide: Vec<Option<Hide>>,
    layout: Layout,
    /// The first row names the columns.
    header: bool,
    detect: Option<Arc<Masks>>,
}

/// How rows are written, apart from the binary format, which the server's
/// answer tells.
#[derive(Clone, Debug, Default)]
struct Layout {
    csv: bool,
    delimiter: u8,
    null: Vec<u8>,
    quote: u8,
    escape: u8,
}

/// Columns under a mask that cannot be hidden in this `COPY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmaskable;

impl CopyPlan {
    /// The plan for `statement`, whose rows are written in `format`.
    ///
    /// # Errors
    /// [`Unmaskable`] where a masked column would leave unmasked.
    pub fn new(
        statement: &Statement,
        masks: &Arc<Masks>,
        format: &CopyFormat,
    ) -> Result<Self, Unmaskable> {
        let mut plan = Self {
            hide: Vec::new(),
            layout: Layout {
                csv: format.encoding == CopyEncoding::Csv,
                delimiter: format.delimiter,
                null: format.null.as_bytes().to_vec(),
                quote: format.quote,
                escape: format.escape,
            },
            header: format.header != CopyHeader::None,
            detect: masks.has_detectors().then(|| Arc::clone(masks)),
        };
        if !masks.has_columns() {
            return Ok(plan);
        }
        let Output::Items(items) = &statement.output else {
            return match mentioned(statement, masks) {
                None => Ok(plan),
                Some(_) => Err(Unmaskable),
            };
        };
        let hide: Vec<Option<Hide>> = items
            .iter()
            .map(|item| by_item(item, statement, masks))
            .collect();
        if hide.iter().all(Option::is_none) {
            return Ok(plan);
        }
        let counted = items.iter().all(super::origin::is_one);
        if !counted || format.charset.is_some() || format.unclear {
            return Err(Unmaskable);
        }
        plan.hide = hide;
        Ok(plan)
    }

    /// What has to be done with each row.
    #[must_use]
    pub fn treatment(&self) -> Treatment {
        match (self.hide.is_empty(), &self.detect) {
            (false, _) => Treatment::Rewrite,
            (true, Some(_)) => Treatment::Look,
            (true, None) => Treatment::Pass,
        }
    }

    /// Whether rows pass as they are.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.hide.is_empty() && self.detect.is_none()
    }

    /// Whether these bytes, whole frames of rows, certainly pass as they are.
    #[must_use]
    pub fn passes(&self, frames: &[u8]) -> bool {
        self.hide.is_empty()
            && self
                .detect
                .as_ref()
                .and_then(|masks| masks.detect())
                .is_none_or(|plan| !plan.may_hit(frames))
    }

    /// The masked form of one `CopyData`'s payload, `None` where nothing is
    /// hidden in it, and how many values were. Rows are counted from 1.
    ///
    /// # Errors
    /// When the payload is not one whole row where it must be.
    pub fn mask(
        &self,
        row: u64,
        payload: &[u8],
        binary: bool,
        key: &MaskKey,
    ) -> Result<Option<(Vec<u8>, u64)>, MaskError> {
        if binary {
            return self.mask_binary_row(row, payload);
        }
        if self.hide.is_empty() {
            let masks = self.detect.as_ref();
            return Ok(masks
                .and_then(|masks| mask_text(masks, payload, key))
                .map(|masked| (masked, 1)));
        }
        if self.header && row == 1 {
            return Ok(None);
        }
        let line = payload.strip_suffix(b"\n").ok_or(MaskError::Copy { row })?;
        let fields = match self.layout.csv {
            true => csv_fields(line, &self.layout),
            false => text_fields(line, self.layout.delimiter),
        };
        let fields = fields
            .filter(|fields| fields.len() == self.hide.len())
            .ok_or(MaskError::Copy { row })?;
        let mut out = Vec::with_capacity(payload.len());
        let mut hidden = 0;
        for (index, (raw, hide)) in fields.iter().zip(&self.hide).enumerate() {
            if index > 0 {
                out.push(self.layout.delimiter);
            }
            let is_null = *raw == self.layout.null.as_slice();
            match hide {
                Some(hide) if hide.nulls || !is_null => {
                    hidden += 1;
                    let value = match is_null {
                        true => Vec::new(),
                        false => self.layout.read(raw),
                    };
                    let mut masked = Vec::new();
                    match hide.with.apply(&value, key, &mut masked) {
                        Masked::Null => out.extend_from_slice(&self.layout.null),
                        Masked::Text => self.layout.write(&masked, &mut out),
                    }
                }
                _ => {
                    let detect = self.detect.as_ref().filter(|_| !is_null);
                    match detect.and_then(|m| mask_text(m, &self.layout.read(raw), key)) {
                        Some(masked) => {
                            hidden += 1;
                            self.layout.write(&masked, &mut out);
                        }
                        None => out.extend_from_slice(raw),
                    }
                }
            }
        }
        out.push(b'\n');
        Ok(Some((out, hidden)))
    }

    fn mask_binary_row(
        &self,
        row: u64,
        payload: &[u8],
    ) -> Result<Option<(Vec<u8>, u64)>, MaskError> {
        let detect = self
            .detect
            .as_ref()
            .and_then(|masks| masks.detect())
            .filter(|plan| plan.may_hit(payload) && !plan.scan(payload).is_empty());
        if self.hide.is_empty() && detect.is_none() {
            return Ok(None);
        }
        let wrong = MaskError::Copy { row };
        let mut out = Vec::with_capacity(payload.len());
        let mut rest = payload;
        if let Some(after) = rest.strip_prefix(SIGNATURE) {
            let (head, after) = after.split_first_chunk::<8>().ok_or(wrong)?;
            let [_, _, _, _, extension @ ..] = head;
            let extension = u32::from_be_bytes(*extension);
            let size = usize::try_from(extension).map_err(|_| wrong)?;
            let (_, tuple) = after.split_at_checked(size).ok_or(wrong)?;
            out.extend_from_slice(rest.get(..rest.len() - tuple.len()).ok_or(wrong)?);
            rest = tuple;
        }
        if rest.is_empty() && self.hide.is_empty() {
            return Ok(None);
        }
        let (count, mut rest) = rest.split_first_chunk::<2>().ok_or(wrong)?;
        out.extend_from_slice(count);
        let count = i16::from_be_bytes(*count);
        // -1 ends the data.
        if !self.hide.is_empty() && count != -1 && usize::try_from(count) != Ok(self.hide.len()) {
            return Err(wrong);
        }
        let mut hidden = 0;
        for index in 0..usize::try_from(count.max(0)).map_err(|_| wrong)? {
            let (len, after) = rest.split_first_chunk::<4>().ok_or(wrong)?;
            let declared = i32::from_be_bytes(*len);
            let size = usize::try_from(declared.max(0)).map_err(|_| wrong)?;
            let (value, after) = after.split_at_checked(size).ok_or(wrong)?;
            rest = after;
            let hide = matches!(self.hide.get(index), Some(Some(_)))
                || detect.is_some_and(|plan| !plan.scan(value).is_empty());
            if hide && declared >= 0 {
                hidden += 1;
                out.extend_from_slice(&(-1_i32).to_be_bytes());
            } else {
                out.extend_from_slice(len);
                out.extend_from_slice(value);
            }
        }
        if !rest.is_empty() || (hidden == 0 && detect.is_some() && self.hide.is_empty()) {
            // A hit across the fields' borders is one nobody can place.
            return Err(wrong);
        }
        Ok(Some((out, hidden)))
    }
}

/// The fields of a line in text format, as they stand.
fn text_fields(line: &[u8], delimiter: u8) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(byte) = line.get(at) {
        match *byte {
            b'\\' => at += 1,
            // One in the data is written with a backslash.
            b'\n' | b'\r' => return None,
            byte if byte == delimiter => {
                fields.push(line.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    fields.push(line.get(start..)?);
    Some(fields)
}

/// The fields of a record in CSV format, as they stand, quotes included.
fn csv_fields<'a>(record: &'a [u8], layout: &Layout) -> Option<Vec<&'a [u8]>> {
    let mut fields = Vec::new();
    let (mut start, mut at, mut quoted) = (0, 0, false);
    while let Some(byte) = record.get(at) {
        if quoted {
            let next = record.get(at + 1);
            if *byte == layout.escape
                && next.is_some_and(|next| *next == layout.quote || *next == layout.escape)
            {
                at += 1;
            } else if *byte == layout.quote {
                quoted = false;
            }
        } else if *byte == layout.quote {
            // A value is quoted whole or not at all.
            if at != start {
                return None;
            }
            quoted = true;
        } else if *byte == layout.delimiter {
            fields.push(record.get(start..at)?);
            start = at + 1;
        } else if matches!(byte, b'\n' | b'\r') {
            return None;
        }
        at += 1;
    }
    if quoted {
        return None;
    }
    fields.push(record.get(start..)?);
    Some(fields)
}

impl Layout {
    /// The value that a field stands for.
    fn read(&self, raw: &[u8]) -> Vec<u8> {
        if !self.csv {
            return unescape(raw);
        }
        let Some(inside) = raw
            .strip_prefix(&[self.quote])
            .and_then(|raw| raw.strip_suffix(&[self.quote]))
        else {
            return raw.to_vec();
        };
        let mut out = Vec::with_capacity(inside.len());
        let mut bytes = inside.iter().peekable();
        while let Some(byte) = bytes.next() {
            match bytes.peek() {
                Some(next)
                    if *byte == self.escape && (**next == self.quote || **next == self.escape) =>
                {
                    out.extend(bytes.next());
                }
                _ => out.push(*byte),
            }
        }
        out
    }

    /// Writes a value as a field.
    fn write(&self, value: &[u8], out: &mut Vec<u8>) {
        if !self.csv {
            return escape(value, self.delimiter, out);
        }
        out.push(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.push(self.escape);
            }
            out.push(*byte);
        }
        out.push(self.quote);
    }
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(other) => *other,
            None => b'\\',
        });
    }
    out
}

fn escape(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                if *other == delimiter {
                    out.push(b'\\');
                }
                out.push(*other);
            }
        }
    }
}
