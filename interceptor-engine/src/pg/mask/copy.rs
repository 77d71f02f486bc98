//! Hiding values in the rows of `COPY … TO STDOUT`.
//!
//! `COPY` has no row description, so columns are hidden by their position in
//! the statement's own column list, in text format only; [`CopyPlan::new`] says
//! beforehand where that cannot be done. Detectors work in every format, on one
//! `CopyData` at a time: PostgreSQL sends one row in each (manual, page
//! `protocol-flow`), and a message that is not one row is refused.
//!
//! Formats: manual, page `sql-copy`.

use std::sync::Arc;

use interceptor_policy::mask::Masked;
use interceptor_policy::operation::{Output, OutputItem, Statement};
use interceptor_policy::{MaskKey, Masks, Transform};

use super::origin::mentioned;
use super::text::mask_text;
use super::{MaskError, Treatment};

/// First bytes of the binary format.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// What to do with each row of a `COPY … TO STDOUT`.
#[derive(Clone, Debug, Default)]
pub struct CopyPlan {
    hide: Vec<Option<Transform>>,
    detect: Option<Arc<Masks>>,
}

/// Columns under a mask that cannot be hidden in this `COPY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmaskable;

impl CopyPlan {
    /// The plan for `statement`; `plain_text` says that its format is text with
    /// the default delimiter and NULL.
    ///
    /// # Errors
    /// [`Unmaskable`] where a masked column would leave unmasked.
    pub fn new(
        statement: &Statement,
        masks: &Arc<Masks>,
        plain_text: bool,
    ) -> Result<Self, Unmaskable> {
        let detect = masks.has_detectors().then(|| Arc::clone(masks));
        if !masks.has_columns() || mentioned(statement, masks).is_none() {
            return Ok(Self {
                hide: Vec::new(),
                detect,
            });
        }
        let Output::Items(items) = &statement.output else {
            return Err(Unmaskable);
        };
        let hide: Option<Vec<Option<Transform>>> = items
            .iter()
            .map(|item| match item {
                OutputItem::Column(column) => Some(masks.column(column).cloned()),
                _ => None,
            })
            .collect();
        match hide {
            Some(hide) if plain_text => Ok(Self { hide, detect }),
            _ => Err(Unmaskable),
        }
    }

    /// What has to be done with each row.
    #[must_use]
    pub fn treatment(&self) -> Treatment {
        match (self.hide.iter().any(Option::is_some), &self.detect) {
            (true, _) => Treatment::Rewrite,
            (false, Some(_)) => Treatment::Look,
            (false, None) => Treatment::Pass,
        }
    }

    /// Whether rows pass as they are.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.hide.iter().all(Option::is_none) && self.detect.is_none()
    }

    /// Whether these bytes, whole frames of rows, certainly pass as they are.
    #[must_use]
    pub fn passes(&self, frames: &[u8]) -> bool {
        self.hide.iter().all(Option::is_none)
            && self
                .detect
                .as_ref()
                .and_then(|masks| masks.detect())
                .is_none_or(|plan| !plan.may_hit(frames))
    }

    /// The masked form of one `CopyData`'s payload, `None` where nothing is
    /// hidden in it, and how many values were.
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
        if self.hide.iter().any(Option::is_some) {
            if binary {
                return Err(MaskError::Copy { row });
            }
            return self.mask_text_row(row, payload, key).map(Some);
        }
        let Some(masks) = &self.detect else {
            return Ok(None);
        };
        if !binary {
            return Ok(mask_text(masks, payload, key).map(|masked| (masked, 1)));
        }
        mask_binary_row(masks, row, payload)
    }

    fn mask_text_row(
        &self,
        row: u64,
        payload: &[u8],
        key: &MaskKey,
    ) -> Result<(Vec<u8>, u64), MaskError> {
        let line = payload
            .strip_suffix(b"\n")
            .filter(|line| !line.contains(&b'\n'))
            .ok_or(MaskError::Copy { row })?;
        let mut out = Vec::with_capacity(payload.len());
        let mut hidden = 0;
        let mut count = 0;
        for (index, field) in line.split(|byte| *byte == b'\t').enumerate() {
            count += 1;
            if index > 0 {
                out.push(b'\t');
            }
            match self.hide.get(index) {
                Some(Some(_)) if field == b"\\N" => out.extend_from_slice(field),
                Some(Some(transform)) => {
                    hidden += 1;
                    let mut value = Vec::new();
                    match transform.apply(&unescape(field), key, &mut value) {
                        Masked::Null => out.extend_from_slice(b"\\N"),
                        Masked::Text => escape(&value, &mut out),
                    }
                }
                Some(None) => match self.detect.as_ref().and_then(|m| mask_text(m, field, key)) {
                    Some(masked) => {
                        hidden += 1;
                        out.extend_from_slice(&masked);
                    }
                    None => out.extend_from_slice(field),
                },
                None => return Err(MaskError::Copy { row }),
            }
        }
        if count != self.hide.len() {
            return Err(MaskError::Copy { row });
        }
        out.push(b'\n');
        Ok((out, hidden))
    }
}

/// A field that holds something becomes NULL: its type is not known here, and
/// NULL is a value of every type.
fn mask_binary_row(
    masks: &Masks,
    row: u64,
    payload: &[u8],
) -> Result<Option<(Vec<u8>, u64)>, MaskError> {
    let Some(plan) = masks.detect() else {
        return Ok(None);
    };
    if !plan.may_hit(payload) || plan.scan(payload).is_empty() {
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
    let (count, mut rest) = rest.split_first_chunk::<2>().ok_or(wrong)?;
    out.extend_from_slice(count);
    let mut hidden = 0;
    for _ in 0..i16::from_be_bytes(*count).max(0) {
        let (len, after) = rest.split_first_chunk::<4>().ok_or(wrong)?;
        let declared = i32::from_be_bytes(*len);
        let size = usize::try_from(declared.max(0)).map_err(|_| wrong)?;
        let (value, after) = after.split_at_checked(size).ok_or(wrong)?;
        rest = after;
        if plan.scan(value).is_empty() {
            out.extend_from_slice(len);
            out.extend_from_slice(value);
        } else {
            hidden += 1;
            out.extend_from_slice(&(-1_i32).to_be_bytes());
        }
    }
    if rest.is_empty() && hidden > 0 {
        Ok(Some((out, hidden)))
    } else {
        // A hit across the fields' borders is one nobody can place.
        Err(wrong)
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

fn escape(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => out.push(*other),
        }
    }
}
