//! Where a result's column comes from, and whether a mask hides that.
//!
//! The server says it for plain columns (`RowDescription` carries the table's
//! OID and the column's number, also through subqueries), and the catalog gives
//! the names. A computed column is judged by the columns that the statement
//! computes it from; without a catalog, the statement speaks for plain columns
//! too. What the statement leaves open is hidden when any masked column is
//! mentioned anywhere in it.

use std::collections::HashMap;
use std::sync::Arc;

use interceptor_policy::operation::{Column, Output, OutputItem, Sql, Statement, Table};
use interceptor_policy::{Masks, Transform};

use super::plan::Fields;
use crate::pg::catalog::TableInfo;
use crate::pg::sql;

/// Names of tables by OID; `None` for one that the catalog does not know.
pub type TableNames = HashMap<u32, Option<Arc<TableInfo>>>;

/// What a result's columns are judged by.
#[derive(Clone, Copy)]
pub(super) struct Evidence<'a> {
    /// The masks that apply.
    pub(super) masks: &'a Masks,
    /// The message; `None` where nothing is known of it.
    pub(super) sql: Option<&'a Sql>,
    /// Which of its statements the result is of.
    pub(super) place: usize,
    /// What the catalog says.
    pub(super) names: &'a TableNames,
}

/// How a value is hidden.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hide {
    pub(super) with: Transform,
    /// NULL is hidden as any other value is: whether something computed is NULL
    /// tells what it was computed from (`NULLIF(ssn, 'a guess')`).
    pub(super) nulls: bool,
}

impl Hide {
    /// A column as it is stored.
    fn stored(with: &Transform) -> Self {
        Self {
            with: with.clone(),
            nulls: false,
        }
    }

    fn redacted() -> Self {
        Self {
            with: Transform::Redact,
            nulls: true,
        }
    }

    /// Something computed. What keeps a part of a column or its equality would
    /// give the whole of it away over a choice of expressions (`substr`, a
    /// `UNION` with guesses), so such a value is hidden whole.
    fn computed(self) -> Self {
        let with = match self.with {
            Transform::Partial { .. } | Transform::Hash => Transform::Redact,
            whole => whole,
        };
        Self { with, nulls: true }
    }
}

/// How column `index` is hidden, if it is.
pub(super) fn transform(fields: &Fields, index: usize, evidence: &Evidence<'_>) -> Option<Hide> {
    let field = fields.fields.get(index)?;
    // A whole row has its table and no number. Of a column that the catalog's
    // answer lacks, since it was added after, only the statement can speak.
    if field.table_oid != 0
        && let Some(Some(info)) = evidence.names.get(&field.table_oid)
        && let Some(name) = info.column(field.attribute)
    {
        return by_catalog(info, field.attribute, name, evidence.masks);
    }
    by_statement(fields, index, evidence)
}

/// By the catalog's name of the column, of the table, of the tables that it is
/// a part of, and, for a view, of everything that the view reads.
fn by_catalog(info: &TableInfo, attribute: i16, name: &str, masks: &Masks) -> Option<Hide> {
    let name = Arc::<str>::from(name);
    let own = std::iter::once((info.schema.as_str(), info.name.as_str()));
    let parents = info
        .parents
        .iter()
        .map(|parent| (parent.schema.as_str(), parent.name.as_str()));
    let by_name = own.chain(parents).filter_map(|(schema, table)| {
        hidden(
            masks,
            Column {
                table: Some(Table {
                    schema: Some(Arc::from(schema)),
                    name: Arc::from(table),
                }),
                name: Arc::clone(&name),
            },
        )
    });
    let by_view = by_view(info, attribute, masks);
    strictest(by_name.chain(by_view))
}

/// For a view: by the expression of its definition that stands at the column's
/// place, or, where the definition does not tell, by everything that it reads.
fn by_view(info: &TableInfo, attribute: i16, masks: &Masks) -> Option<Hide> {
    let definition = info.definition.as_deref()?;
    let statement = match sql::classify(definition).statements.as_mut_slice() {
        [statement] => std::mem::take(statement),
        _ => return Some(Hide::redacted()),
    };
    // A view below it would need its own definition.
    let reads_tables_only = info.reads_only(&statement.tables);
    let item = match &statement.output {
        Output::Items(items) if reads_tables_only && items.len() == info.columns.len() => {
            usize::try_from(attribute - 1)
                .ok()
                .and_then(|index| items.get(index))
        }
        _ => None,
    };
    match item {
        Some(OutputItem::Column(column)) => by_column(column, masks),
        Some(OutputItem::Expression(columns)) => computed_from(columns, masks),
        Some(OutputItem::Star(_) | OutputItem::Spread(_) | OutputItem::Unclear) | None => {
            let by_base = info.view_of.iter().filter_map(|base| {
                hidden(
                    masks,
                    Column {
                        table: Some(Table {
                            schema: Some(Arc::from(base.schema.as_str())),
                            name: Arc::from(base.table.as_str()),
                        }),
                        name: Arc::from(base.column.as_str()),
                    },
                )
            });
            strictest(by_base.chain(mentioned(&statement, masks)))
        }
    }
}

fn hidden(masks: &Masks, column: Column) -> Option<Hide> {
    masks.column(&column).map(Hide::stored)
}

fn by_statement(fields: &Fields, index: usize, evidence: &Evidence<'_>) -> Option<Hide> {
    let masks = evidence.masks;
    let by_name = || by_field_name(fields, index, masks);
    let Some(sql) = evidence.sql else {
        return by_name();
    };
    let Some(statement) = sql.statements.get(evidence.place) else {
        let anywhere = sql.statements.iter().filter_map(|s| mentioned(s, masks));
        return strictest(by_name().into_iter().chain(anywhere));
    };
    match &statement.output {
        Output::Items(items) => {
            if let Some(found) = by_items(items, fields, index, statement, masks) {
                return found;
            }
        }
        // A plan quotes the statement and counts rows.
        Output::Nothing if statement.tags.first() == Some(&"EXPLAIN") => return None,
        _ => {}
    }
    strictest(by_name().into_iter().chain(mentioned(statement, masks)))
}

/// By the target list; the outer `None` means that positions do not tell.
#[allow(
    clippy::option_option,
    reason = "not known, and known to be harmless, are different answers"
)]
fn by_items(
    items: &[OutputItem],
    fields: &Fields,
    index: usize,
    statement: &Statement,
    masks: &Masks,
) -> Option<Option<Hide>> {
    let field = fields.fields.get(index)?;
    let stored = field.table_oid != 0 && field.attribute != 0;
    let one = |item: &OutputItem| {
        Some(match item {
            // What the server does not call a table's column is a function of
            // the row, written like one.
            OutputItem::Column(column) if !stored => {
                let row = column.table.iter().map(all_of);
                let columns: Vec<Column> = row.chain([column.clone()]).collect();
                computed_from(&columns, masks)
            }
            item => by_item(item, statement, masks),
        })
    };
    let wide: Vec<usize> = items
        .iter()
        .enumerate()
        .filter(|(_, item)| !is_one(item))
        .map(|(position, _)| position)
        .collect();
    let (first, last) = match (wide.first(), wide.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ if items.len() == fields.fields.len() => return one(items.get(index)?),
        _ => return None,
    };
    let after = items.len() - 1 - last;
    if fields.fields.len() < first + after {
        return None;
    }
    if index < first {
        return one(items.get(index)?);
    }
    let from_end = fields.fields.len() - 1 - index;
    if from_end < after {
        return one(items.get(items.len() - 1 - from_end)?);
    }
    // Somewhere from the first star to the last: a star's columns keep their
    // names, and anything explicit between two stars may be any of these.
    let name = &fields.fields.get(index)?.name;
    Some(strictest(items.get(first..=last)?.iter().filter_map(
        |item| match item {
            OutputItem::Star(tables) => strictest(tables.iter().filter_map(|table| {
                hidden(
                    masks,
                    Column {
                        table: Some(table.clone()),
                        name: Arc::clone(name),
                    },
                )
            })),
            other => by_item(other, statement, masks),
        },
    )))
}

/// How one item of a target list is hidden, whatever its name in the result.
pub(super) fn by_item(item: &OutputItem, statement: &Statement, masks: &Masks) -> Option<Hide> {
    match item {
        OutputItem::Column(column) => by_column(column, masks),
        OutputItem::Expression(columns) | OutputItem::Spread(columns) => {
            computed_from(columns, masks)
        }
        OutputItem::Star(tables) => tables
            .iter()
            .any(|table| masks.touches(table))
            .then(Hide::redacted),
        OutputItem::Unclear => mentioned(statement, masks),
    }
}

/// Whether it is one column, and not as many as something has.
pub(super) fn is_one(item: &OutputItem) -> bool {
    !matches!(item, OutputItem::Star(_) | OutputItem::Spread(_))
}

/// `table.*`
fn all_of(table: &Table) -> Column {
    Column {
        table: Some(table.clone()),
        name: Arc::from("*"),
    }
}

fn by_field_name(fields: &Fields, index: usize, masks: &Masks) -> Option<Hide> {
    hidden(
        masks,
        Column {
            table: None,
            name: Arc::clone(&fields.fields.get(index)?.name),
        },
    )
}

/// A masked column that the statement mentions anywhere.
pub(crate) fn mentioned(statement: &Statement, masks: &Masks) -> Option<Hide> {
    computed_from(&statement.columns, masks)
}

/// By the columns that a value is computed from.
fn computed_from(columns: &[Column], masks: &Masks) -> Option<Hide> {
    strictest(columns.iter().filter_map(|column| by_column(column, masks))).map(Hide::computed)
}

/// Whether a mask hides a column that a statement names.
pub(super) fn is_hidden(column: &Column, masks: &Masks) -> bool {
    by_column(column, masks).is_some()
}

/// By one column that a statement names; `*` without a table is any column.
fn by_column(column: &Column, masks: &Masks) -> Option<Hide> {
    if &*column.name != "*" {
        return masks.column(column).map(Hide::stored);
    }
    let touched = match &column.table {
        Some(table) => masks.touches(table),
        None => masks.has_columns(),
    };
    touched.then(Hide::redacted)
}

fn strictest(hides: impl Iterator<Item = Hide>) -> Option<Hide> {
    hides.max()
}
