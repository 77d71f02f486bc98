//! Rewriting rows.

use interceptor_policy::MaskKey;
use interceptor_proto::pg::tag;

use super::plan::RowPlan;
use super::{MaskError, value};

impl RowPlan {
    /// Writes the masked form of one `DataRow` to `out` and says how many
    /// values were hidden. `body` is the frame without tag and length.
    ///
    /// # Errors
    /// When the row is not one of the described result; nothing is then written.
    pub fn mask_row(
        &self,
        body: &[u8],
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) -> Result<u64, MaskError> {
        let start = out.len();
        let masked = self.mask_row_into(body, key, out);
        if masked.is_err() {
            out.truncate(start);
        }
        masked
    }

    fn mask_row_into(
        &self,
        body: &[u8],
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) -> Result<u64, MaskError> {
        let malformed = MaskError::Malformed { len: body.len() };
        let (count, mut rest) = body.split_first_chunk::<2>().ok_or(malformed)?;
        let got = usize::from(u16::from_be_bytes(*count));
        if got != self.columns.len() {
            return Err(MaskError::Columns {
                expected: self.columns.len(),
                got,
            });
        }
        let detect = self
            .detect
            .as_ref()
            .and_then(|masks| masks.detect())
            .filter(|plan| self.binary_numbers || plan.may_hit(body));
        let start = out.len();
        out.push(tag::backend::DATA_ROW);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(count);
        let mut hidden = 0;
        for column in &self.columns {
            let (len, after) = rest.split_first_chunk::<4>().ok_or(malformed)?;
            let declared = i32::from_be_bytes(*len);
            if declared < 0 && !column.hide.as_ref().is_some_and(|hide| hide.nulls) {
                out.extend_from_slice(len);
                rest = after;
                continue;
            }
            let size = usize::try_from(declared.max(0)).map_err(|_| malformed)?;
            let (bytes, after) = after.split_at_checked(size).ok_or(malformed)?;
            rest = after;
            let at = out.len();
            out.extend_from_slice(len);
            let written = match (&column.hide, detect) {
                (Some(hide), _) => {
                    hidden += 1;
                    value::hide(&hide.with, bytes, column, key, out)
                }
                (None, Some(plan)) => match value::detect(plan, bytes, column, key, out) {
                    value::Detected::Nothing => {
                        out.extend_from_slice(bytes);
                        continue;
                    }
                    value::Detected::Hidden(written) => {
                        hidden += 1;
                        written
                    }
                },
                (None, None) => {
                    out.extend_from_slice(bytes);
                    continue;
                }
            };
            let new_len = match written {
                value::Written::Value => {
                    i32::try_from(out.len() - at - 4).map_err(|_| malformed)?
                }
                value::Written::Null => {
                    out.truncate(at + 4);
                    -1
                }
            };
            put_i32(out, at, new_len);
        }
        if !rest.is_empty() {
            return Err(malformed);
        }
        let total = i32::try_from(out.len() - start - 1).map_err(|_| malformed)?;
        put_i32(out, start + 1, total);
        Ok(hidden)
    }
}

/// Overwrites four bytes that were written before.
fn put_i32(out: &mut [u8], at: usize, value: i32) {
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}
