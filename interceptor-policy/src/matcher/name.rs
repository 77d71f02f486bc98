//! Patterns of SQL names.
use crate::operation::{Column, Table};

/// A pattern of a column.
#[derive(Debug)]
pub(crate) struct ColumnPattern {}

impl ColumnPattern {
    pub(crate) fn may(&self, _column: &Column) -> bool {
        true
    }
    pub(crate) fn may_be_of(&self, _table: &Table) -> bool {
        true
    }
}
