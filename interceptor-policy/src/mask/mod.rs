//! What a mask hides, and what is put in its place.
//!
//! Two ways to say *what*: by column, judged from where a value comes from, and
//! by detector, judged from what a value looks like. The first is certain where
//! the origin is known, and fails closed where it is not; the second is a net
//! for what nobody listed, and no more: a value that is encoded in the query
//! itself passes it.

pub mod detectors;
mod transform;

use std::sync::Arc;

pub use detectors::{DetectPlan, DetectStream, Detector, Hit, Looks, Pattern};
pub use transform::{MaskKey, Masked, Transform};

use crate::matcher::Mode;
use crate::matcher::name::ColumnPattern;
use crate::operation::{Column, Table};

/// The united masks of the rules that apply to one exchange.
#[derive(Clone, Debug, Default)]
pub struct Masks {
    columns: Vec<(Arc<ColumnPattern>, Transform)>,
    detect: Option<DetectPlan>,
}

impl Masks {
    /// The strictest transform for a column, where one hides it. Where
    /// `column.table`, or its schema, is `None`, it is unknown, and every
    /// pattern whose other parts match hits; a name of `*` is any column of the
    /// table.
    #[must_use]
    pub fn column(&self, column: &Column) -> Option<&Transform> {
        self.columns
            .iter()
            .filter(|(pattern, _)| pattern.holds(column, Mode::May))
            .map(|(_, transform)| transform)
            .max()
    }

    /// Whether any column mask could hit a column of this table.
    #[must_use]
    pub fn touches(&self, table: &Table) -> bool {
        self.columns
            .iter()
            .any(|(pattern, _)| pattern.may_be_of(table))
    }

    /// The masks by column: each pattern as it was written, and its transform.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Transform)> {
        self.columns
            .iter()
            .map(|(pattern, transform)| (pattern.source(), transform))
    }

    /// Whether there is any mask by column.
    #[must_use]
    pub fn has_columns(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Whether there is any mask by detector.
    #[must_use]
    pub fn has_detectors(&self) -> bool {
        self.detect.is_some()
    }

    /// The masks by detector.
    #[must_use]
    pub fn detect(&self) -> Option<&DetectPlan> {
        self.detect.as_ref()
    }

    /// Adds what one rule masks.
    pub(crate) fn add(&mut self, entry: &MaskEntry) {
        match &entry.what {
            MaskWhat::Columns(patterns) => self.columns.extend(
                patterns
                    .iter()
                    .map(|pattern| (Arc::clone(pattern), entry.with.clone())),
            ),
            MaskWhat::Detect(detectors) => {
                let plan = self.detect.get_or_insert_default();
                for detector in detectors {
                    plan.add(*detector, &entry.with);
                }
            }
            MaskWhat::Patterns(patterns) => {
                let plan = self.detect.get_or_insert_default();
                for pattern in patterns {
                    plan.add_pattern(pattern, &entry.with);
                }
            }
        }
    }
}

/// One entry of a rule's `mask`.
#[derive(Clone, Debug)]
pub(crate) struct MaskEntry {
    pub(crate) what: MaskWhat,
    pub(crate) with: Transform,
}

impl MaskEntry {
    /// Whether a column that chooses rows may be one that it hides. A `*` is all
    /// columns of its table, and without one it is any column there is:
    /// `count(*)` chooses by none, and never gets here.
    pub(crate) fn may_hide(&self, predicate: &Column) -> bool {
        let MaskWhat::Columns(patterns) = &self.what else {
            return false;
        };
        patterns
            .iter()
            .any(|pattern| match (&*predicate.name, &predicate.table) {
                ("*", None) => true,
                ("*", Some(table)) => pattern.may_be_of(table),
                _ => pattern.holds(predicate, Mode::May),
            })
    }
}

/// What an entry hides.
#[derive(Clone, Debug)]
pub(crate) enum MaskWhat {
    Columns(Vec<Arc<ColumnPattern>>),
    Detect(Vec<Detector>),
    Patterns(Vec<Arc<Pattern>>),
}
