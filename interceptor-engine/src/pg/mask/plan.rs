//! A result's row description, and what to do with each of its columns.

use std::sync::Arc;

use interceptor_policy::Masks;
use interceptor_policy::operation::Sql;
use interceptor_proto::pg::backend::RowDescription;
use interceptor_proto::pg::types::{self, TypeKind};

use super::Treatment;
use super::origin::{self, Evidence, Hide, TableNames};

/// One column of a result, as the server described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the result.
    pub name: Arc<str>,
    /// The table it comes from; 0 where it is computed.
    pub table_oid: u32,
    /// The column's number in that table; 0 where it is computed.
    pub attribute: i16,
    /// Its type.
    pub type_oid: u32,
    /// Whether its values come in binary format.
    pub binary: bool,
}

/// A row description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Its columns.
    pub fields: Vec<Field>,
    /// The message, for the record.
    pub raw: Vec<u8>,
}

impl Fields {
    /// The message as it would be with these formats, for rows of a statement
    /// that was described before its formats were known.
    #[must_use]
    pub fn raw_with_formats(&self, formats: &[i16]) -> Vec<u8> {
        let body = self.raw.get(interceptor_proto::pg::frame::HEADER..);
        let Some(Ok(description)) = body.map(RowDescription::parse) else {
            return self.raw.clone();
        };
        let mut fields: Vec<_> = description.fields().collect();
        for (index, field) in fields.iter_mut().enumerate() {
            field.format = match formats {
                [] => 0,
                [all] => *all,
                each => each.get(index).copied().unwrap_or_default(),
            };
        }
        let mut out = Vec::with_capacity(self.raw.len());
        match RowDescription::encode(fields, &mut out) {
            Ok(()) => out,
            Err(_) => self.raw.clone(),
        }
    }
}

/// What to do with one column.
#[derive(Clone, Debug)]
pub(super) struct ColumnPlan {
    pub(super) hide: Option<Hide>,
    pub(super) kind: TypeKind,
    pub(super) binary: bool,
}

/// What to do with each row of a result.
#[derive(Clone, Debug)]
pub struct RowPlan {
    pub(super) columns: Vec<ColumnPlan>,
    pub(super) hides_columns: bool,
    /// Numbers come as bytes that do not look like them: frames tell nothing.
    pub(super) binary_numbers: bool,
    pub(super) detect: Option<Arc<Masks>>,
}

impl RowPlan {
    /// A plan that touches nothing.
    #[must_use]
    pub fn untouched() -> Self {
        Self {
            columns: Vec::new(),
            hides_columns: false,
            binary_numbers: false,
            detect: None,
        }
    }

    /// The plan for a result of statement `place` of `sql`, with these masks.
    #[must_use]
    pub fn new(
        fields: &Fields,
        masks: &Arc<Masks>,
        sql: Option<&Sql>,
        place: usize,
        names: &TableNames,
    ) -> Self {
        let evidence = Evidence {
            masks,
            sql,
            place,
            names,
        };
        let columns: Vec<ColumnPlan> = fields
            .fields
            .iter()
            .enumerate()
            .map(|(index, field)| ColumnPlan {
                hide: masks
                    .has_columns()
                    .then(|| origin::transform(fields, index, &evidence))
                    .flatten(),
                kind: types::kind(field.type_oid),
                binary: field.binary,
            })
            .collect();
        Self {
            hides_columns: columns.iter().any(|column| column.hide.is_some()),
            // A card's number has 13 digits and more, which shorter integers have not.
            binary_numbers: columns
                .iter()
                .any(|column| column.binary && column.kind == TypeKind::Integer { size: 8 }),
            columns,
            detect: masks.has_detectors().then(|| Arc::clone(masks)),
        }
    }

    /// What has to be done with each row.
    #[must_use]
    pub fn treatment(&self) -> Treatment {
        match (self.hides_columns, &self.detect) {
            (true, _) => Treatment::Rewrite,
            (false, Some(_)) => Treatment::Look,
            (false, None) => Treatment::Pass,
        }
    }

    /// Whether rows pass as they are.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        !self.hides_columns && self.detect.is_none()
    }

    /// Whether these bytes, whole frames of rows, certainly pass as they are.
    #[must_use]
    pub fn passes(&self, frames: &[u8]) -> bool {
        !self.hides_columns
            && self
                .detect
                .as_ref()
                .and_then(|masks| masks.detect())
                .is_none_or(|plan| !self.binary_numbers && !plan.may_hit(frames))
    }

    /// How many columns are hidden whole.
    #[must_use]
    pub fn hidden_columns(&self) -> usize {
        self.columns
            .iter()
            .filter(|column| column.hide.is_some())
            .count()
    }
}
