//! What a mask hides, and what is put in its place.
// Interface only, filled in next.

use crate::operation::{Column, Table};

/// Key of the `hash` transform: 32 bytes, of the host, so that equal values stay
/// equal across sessions and nobody without the key can try values.
#[derive(Clone)]
pub struct MaskKey(pub [u8; 32]);

/// What is put in a hidden value's place. Ordered from the mildest to the strictest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transform {
    /// All but the ends.
    Partial {
        /// Characters left at the start.
        keep_first: usize,
        /// Characters left at the end.
        keep_last: usize,
    },
    /// Keyed hash, so that equal values stay equal.
    Hash,
    /// A text of the operator's.
    Constant(String),
    /// NULL.
    Null,
    /// A fixed text that says that something was here.
    Redact,
}

/// The united masks of the rules that apply to one exchange.
#[derive(Clone, Debug, Default)]
pub struct Masks {}

impl Masks {
    /// The transform for a column, where one hides it. `column.table == None`
    /// means that the table is unknown: any pattern whose column part matches hits.
    #[must_use]
    pub fn column(&self, _column: &Column) -> Option<&Transform> {
        None
    }

    /// Whether any column mask could hit a column of this table.
    #[must_use]
    pub fn touches(&self, _table: &Table) -> bool {
        false
    }

    /// Whether there is any mask by column.
    #[must_use]
    pub fn has_columns(&self) -> bool {
        false
    }

    /// Whether there is any mask by detector.
    #[must_use]
    pub fn has_detectors(&self) -> bool {
        false
    }
}
