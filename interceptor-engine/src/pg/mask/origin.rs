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

/// The transform that hides column `index`, if one does.
pub(super) fn transform(
    fields: &Fields,
    index: usize,
    masks: &Masks,
    sql: Option<&Sql>,
    names: &TableNames,
) -> Option<Transform> {
    let field = fields.fields.get(index)?;
    if field.table_oid != 0
        && let Some(Some(info)) = names.get(&field.table_oid)
    {
        return by_catalog(info, field.attribute, &field.name, masks);
    }
    by_statement(fields, index, masks, sql)
}

/// By the catalog's name of the column, of the table, of the tables that it is
/// a part of, and, for a view, of everything that the view reads.
fn by_catalog(
    info: &TableInfo,
    attribute: i16,
    field_name: &Arc<str>,
    masks: &Masks,
) -> Option<Transform> {
    let name = info
        .columns
        .iter()
        .find(|(number, _)| *number == attribute)
        .map(|(_, name)| Arc::<str>::from(name.as_str()));
    // A column that the catalog's answer lacks (added since) is judged by its
    // name in the result as well as by nothing being known of it.
    let name = name.unwrap_or_else(|| Arc::clone(field_name));
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
fn by_view(info: &TableInfo, attribute: i16, masks: &Masks) -> Option<Transform> {
    let definition = info.definition.as_deref()?;
    let statement = match sql::classify(definition).statements.as_mut_slice() {
        [statement] => std::mem::take(statement),
        _ => return Some(Transform::Redact),
    };
    // A view below it would need its own definition.
    let reads_tables_only = statement
        .tables
        .iter()
        .all(|table| info.view_of.iter().any(|base| base.table == *table.name));
    let item = match &statement.output {
        Output::Items(items) if reads_tables_only && items.len() == info.columns.len() => {
            usize::try_from(attribute - 1)
                .ok()
                .and_then(|index| items.get(index))
        }
        _ => None,
    };
    match item {
        Some(OutputItem::Column(column)) => by_column(column, &[], masks),
        Some(OutputItem::Expression(columns)) => strictest(
            columns
                .iter()
                .filter_map(|column| by_column(column, &statement.tables, masks)),
        ),
        Some(OutputItem::Star(_)) | None => {
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

fn hidden(masks: &Masks, column: Column) -> Option<Transform> {
    masks.column(&column).cloned()
}

fn by_statement(
    fields: &Fields,
    index: usize,
    masks: &Masks,
    sql: Option<&Sql>,
) -> Option<Transform> {
    let Some(sql) = sql else {
        return by_field_name(fields, index, masks);
    };
    if let [statement] = sql.statements.as_slice()
        && let Output::Items(items) = &statement.output
        && let Some(found) = by_items(items, fields, index, masks)
    {
        return found;
    }
    strictest(
        by_field_name(fields, index, masks)
            .into_iter()
            .chain(sql.statements.iter().filter_map(|s| mentioned(s, masks))),
    )
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
    masks: &Masks,
) -> Option<Option<Transform>> {
    let stars: Vec<usize> = items
        .iter()
        .enumerate()
        .filter(|(_, item)| matches!(item, OutputItem::Star(_)))
        .map(|(position, _)| position)
        .collect();
    let (first, last) = match (stars.first(), stars.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ if items.len() == fields.fields.len() => {
            return items.get(index).map(|item| by_item(item, masks));
        }
        _ => return None,
    };
    let after = items.len() - 1 - last;
    if fields.fields.len() < first + after {
        return None;
    }
    if index < first {
        return items.get(index).map(|item| by_item(item, masks));
    }
    let from_end = fields.fields.len() - 1 - index;
    if from_end < after {
        return items
            .get(items.len() - 1 - from_end)
            .map(|item| by_item(item, masks));
    }
    // Somewhere from the first star to the last: a star's columns keep their
    // names, and anything explicit between two stars may be any of these.
    let name = &fields.fields.get(index)?.name;
    Some(strictest(items.get(first..=last)?.iter().filter_map(
        |item| match item {
            OutputItem::Star(tables) if tables.is_empty() => hidden(
                masks,
                Column {
                    table: None,
                    name: Arc::clone(name),
                },
            ),
            OutputItem::Star(tables) => strictest(tables.iter().filter_map(|table| {
                hidden(
                    masks,
                    Column {
                        table: Some(table.clone()),
                        name: Arc::clone(name),
                    },
                )
            })),
            other => by_item(other, masks),
        },
    )))
}

fn by_item(item: &OutputItem, masks: &Masks) -> Option<Transform> {
    match item {
        OutputItem::Column(column) => by_column(column, &[], masks),
        OutputItem::Expression(columns) => {
            strictest(columns.iter().filter_map(|c| by_column(c, &[], masks)))
        }
        OutputItem::Star(tables) => tables
            .iter()
            .any(|table| masks.touches(table))
            .then_some(Transform::Redact),
    }
}

fn by_field_name(fields: &Fields, index: usize, masks: &Masks) -> Option<Transform> {
    hidden(
        masks,
        Column {
            table: None,
            name: Arc::clone(&fields.fields.get(index)?.name),
        },
    )
}

/// A masked column that the statement mentions anywhere.
pub(crate) fn mentioned(statement: &Statement, masks: &Masks) -> Option<Transform> {
    strictest(
        statement
            .columns
            .iter()
            .filter_map(|column| by_column(column, &statement.tables, masks)),
    )
}

/// By one column that a statement names; `*` without a table means all of `tables`.
fn by_column(column: &Column, tables: &[Table], masks: &Masks) -> Option<Transform> {
    if &*column.name != "*" {
        return masks.column(column).cloned();
    }
    let touched = match &column.table {
        Some(table) => masks.touches(table),
        None => tables.is_empty() || tables.iter().any(|table| masks.touches(table)),
    };
    touched.then_some(Transform::Redact)
}

fn strictest(transforms: impl Iterator<Item = Transform>) -> Option<Transform> {
    transforms.max()
}
