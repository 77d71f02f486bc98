//! What a session needs to know of tables: plain data, looked up by the shell.

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
