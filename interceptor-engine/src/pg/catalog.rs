//! What a session needs to know of tables: plain data, looked up by the shell.

use std::collections::BTreeMap;
use std::sync::Arc;

use interceptor_policy::operation::{Column, Output, OutputItem, Table};

use super::sql::{self, Resolved};

/// A table, view, materialized view, partition or foreign table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableInfo {
    /// Its object id, as result columns name it.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Numbers and names of its columns, dropped ones left out.
    pub columns: Vec<(i16, String)>,
    /// For a view: the columns that it reads, through views on views down to
    /// tables, sorted. The catalog does not tell which of the view's own columns
    /// shows which of them.
    pub view_of: Vec<BaseColumn>,
    /// For a view: which of the relations that it reads are views.
    pub inner_views: Vec<TableName>,
    /// For a view: the statement that it stands for, as PostgreSQL prints it.
    pub definition: Option<String>,
    /// Tables that it inherits from or is a partition of, nearest first: a mask
    /// on those holds for it too.
    pub parents: Vec<TableName>,
}

/// A column that a view reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseColumn {
    /// Its table's schema.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// The column.
    pub column: String,
}

/// A table's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl TableInfo {
    /// The name of column `number`.
    #[must_use]
    pub fn column(&self, number: i16) -> Option<&str> {
        self.columns
            .iter()
            .find(|(at, _)| *at == number)
            .map(|(_, name)| name.as_str())
    }
}

impl TableInfo {
    /// Whether these are all tables that the view reads columns of, and none is a
    /// view: that one's columns come from elsewhere again.
    #[must_use]
    pub fn reads_only(&self, tables: &[Table]) -> bool {
        let is = |table: &Table, schema: &str, name: &str| {
            *table.name == *name
                && table
                    .schema
                    .as_deref()
                    .is_none_or(|written| written == schema)
        };
        tables.iter().all(|table| {
            self.view_of
                .iter()
                .any(|base| is(table, &base.schema, &base.table))
                && !self
                    .inner_views
                    .iter()
                    .any(|view| is(table, &view.schema, &view.name))
        })
    }
}

impl From<&TableName> for Table {
    fn from(name: &TableName) -> Self {
        Self {
            schema: Some(Arc::from(name.schema.as_str())),
            name: Arc::from(name.name.as_str()),
        }
    }
}

/// What a name means that can mean each of these.
#[must_use]
pub fn meaning_of(candidates: &[TableInfo]) -> Resolved {
    let mut resolved = Resolved::default();
    for info in candidates {
        resolved.tables.push(Table {
            schema: Some(Arc::from(info.schema.as_str())),
            name: Arc::from(info.name.as_str()),
        });
        let mut bases: BTreeMap<TableName, Vec<Column>> = BTreeMap::new();
        for base in &info.view_of {
            let name = TableName {
                schema: base.schema.clone(),
                name: base.table.clone(),
            };
            let column = Column {
                table: Some(Table::from(&name)),
                name: Arc::from(base.column.as_str()),
            };
            bases.entry(name).or_default().push(column);
        }
        // A partition's rows are its parents' rows, column by column.
        for parent in &info.parents {
            let table = Table::from(parent);
            let columns = info.columns.iter().map(|(_, name)| Column {
                table: Some(table.clone()),
                name: Arc::from(name.as_str()),
            });
            bases.insert(parent.clone(), columns.collect());
        }
        let bases = bases
            .into_iter()
            .map(|(name, columns)| (Table::from(&name), columns));
        resolved.through.extend(bases);
    }
    if let [only] = candidates {
        resolved.columns = columns_of(only);
    }
    resolved
}

/// What each column is computed from, where that is certain.
fn columns_of(info: &TableInfo) -> Option<Vec<(Arc<str>, Vec<Column>)>> {
    let Some(definition) = &info.definition else {
        let columns = info.columns.iter().map(|(_, name)| {
            let parents = info.parents.iter().map(|parent| Column {
                table: Some(Table::from(parent)),
                name: Arc::from(name.as_str()),
            });
            (Arc::from(name.as_str()), parents.collect())
        });
        return Some(columns.collect());
    };
    let read = sql::classify(definition);
    let [statement] = read.statements.as_slice() else {
        return None;
    };
    // A view below it would need its own definition.
    let tables_only = info.reads_only(&statement.tables);
    let Output::Items(items) = &statement.output else {
        return None;
    };
    if !tables_only || items.len() != info.columns.len() {
        return None;
    }
    let columns = info.columns.iter().zip(items).map(|((_, name), item)| {
        let bases = match item {
            OutputItem::Column(column) => vec![column.clone()],
            OutputItem::Expression(columns) => columns.clone(),
            _ => return None,
        };
        Some((Arc::from(name.as_str()), bases))
    });
    columns.collect()
}
