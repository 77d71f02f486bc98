//! What of a result is hidden, and how it is hidden without breaking a type.
//!
//! A [`RowPlan`] is made once for a result, from its row description, the masks
//! of the rules that apply, and what is known of where each column comes from;
//! then every row is rewritten by it. Where it is not certain that a column is
//! harmless, it is hidden.

mod copy;
mod notice;
mod origin;
mod plan;
mod row;
mod text;
mod value;

use interceptor_policy::operation::{Column, MoveTo};

pub use copy::CopyPlan;
pub use notice::without_values;
pub use origin::TableNames;
pub use plan::{Field, Fields, RowPlan};
pub use text::mask_text;

/// What has to be done with each row of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Nothing.
    Pass,
    /// Detectors must look at it.
    Look,
    /// A column of it is hidden.
    Rewrite,
}

/// Why a row could not be masked; the row is then refused, never passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// The frame is not a row of the described result.
    #[error("row of {got} columns where {expected} were described")]
    Columns {
        /// Described.
        expected: usize,
        /// Found.
        got: usize,
    },
    /// The frame's lengths do not fit together.
    #[error("row of {len} bytes is malformed")]
    Malformed {
        /// Length of the frame's body.
        len: usize,
    },
    /// Something in a `COPY` cannot be masked in part.
    #[error("row {row} of a COPY cannot be masked")]
    Copy {
        /// Counted from 1.
        row: u64,
    },
}

/// A masked column whose value a statement puts where no mask follows it.
pub(crate) fn hidden_move<'a>(
    statement: &'a interceptor_policy::operation::Statement,
    masks: &interceptor_policy::Masks,
) -> Option<(&'a Column, MoveTo)> {
    statement
        .moves
        .iter()
        .find(|moved| origin::is_hidden(&moved.column, masks))
        .map(|moved| (&moved.column, moved.to))
}

/// Whether a statement mentions a column that a mask hides.
pub(crate) fn mentions_masked(
    statement: &interceptor_policy::operation::Statement,
    masks: &interceptor_policy::Masks,
) -> bool {
    origin::mentioned(statement, masks).is_some()
}
