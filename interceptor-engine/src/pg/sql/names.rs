//! References to columns, whole rows and all columns.

use std::sync::Arc;

use interceptor_policy::operation::{Column, Table};
use pg_query::NodeEnum;
use pg_query::protobuf as pb;

use super::scope::{Relation, all_of};
use super::walk::{Walker, named};
use super::{ast, functions};

impl Walker {
    /// Walks a reference to a column, a whole row or all columns. The answer
    /// is the column, where it is one table's and nothing else.
    pub(super) fn column_ref(&mut self, reference: &pb::ColumnRef) -> Option<Column> {
        let names = ast::names(&reference.fields);
        let star = matches!(
            reference
                .fields
                .last()
                .and_then(|field| field.node.as_ref()),
            Some(NodeEnum::AStar(_))
        );
        match (names.as_slice(), star) {
            ([], true) => {
                let open: Vec<Relation> = self
                    .scopes
                    .last()
                    .map(|scope| scope.open().cloned().collect())
                    .unwrap_or_default();
                self.spend(open.len());
                for relation in &open {
                    self.whole(relation);
                }
                None
            }
            ([.., schema, table], true) => {
                self.column(all_of(&named(Some(schema), table)));
                None
            }
            ([alias], true) => {
                match self.find(alias) {
                    Some(relation) => self.whole(&relation),
                    None => self.column(all_of(&named(None, alias))),
                }
                None
            }
            ([name], false) => self.unqualified(name),
            ([alias, name], false) => self.qualified(alias, name),
            ([.., schema, table, name], false) => {
                let column = Column {
                    table: Some(named(Some(schema), table)),
                    name: Arc::from(*name),
                };
                self.column(column.clone());
                self.row_function(&named(Some(schema), table), name);
                Some(column)
            }
            ([], false) => None,
        }
    }

    /// All columns of a relation.
    fn whole(&mut self, relation: &Relation) {
        match relation {
            Relation::Table(table) | Relation::Renamed(table) => self.column(all_of(table)),
            Relation::Derived(reach) => self.reach(&Arc::clone(reach)),
        }
    }

    /// `t.f` may also be `f(t)`.
    fn row_function(&mut self, table: &Table, name: &str) {
        if functions::takes_a_row(name) {
            self.column(all_of(table));
        }
    }

    /// The relation that a qualification names, innermost first.
    pub(super) fn find(&mut self, alias: &str) -> Option<Relation> {
        self.spend(self.scopes.len());
        self.scopes
            .iter()
            .rev()
            .find_map(|scope| scope.named(alias))
            .cloned()
    }

    fn qualified(&mut self, alias: &str, name: &str) -> Option<Column> {
        match self.find(alias) {
            Some(Relation::Table(table)) => {
                let column = Column {
                    table: Some(table.clone()),
                    name: Arc::from(name),
                };
                self.column(column.clone());
                if functions::takes_a_row(name) {
                    self.row_function(&table, name);
                    return None;
                }
                Some(column)
            }
            Some(relation @ Relation::Renamed(_)) => {
                self.column(Column {
                    table: None,
                    name: Arc::from(name),
                });
                self.whole(&relation);
                None
            }
            Some(relation @ Relation::Derived(_)) => {
                self.whole(&relation);
                None
            }
            None if self.is_variable(alias) => None,
            // A trigger's or rule's `new`, a function's argument, a mistake.
            None => {
                self.column(Column {
                    table: Some(named(None, alias)),
                    name: Arc::from(name),
                });
                None
            }
        }
    }

    fn unqualified(&mut self, name: &str) -> Option<Column> {
        if self.is_variable(name) && self.find(name).is_none() {
            return None;
        }
        // `u` of `FROM users u` is the whole row, unless some table has a
        // column of that name.
        let row = self.find(name);
        let mut tables: Vec<Table> = Vec::new();
        let mut others: Vec<Relation> = Vec::new();
        let mut any = false;
        let mut looked_at = 0;
        for scope in self.scopes.iter().rev() {
            for relation in scope.open() {
                looked_at += 1;
                any = true;
                match relation {
                    Relation::Table(table) => {
                        // Two are as good as many.
                        if tables.len() < 2 && !tables.contains(table) {
                            tables.push(table.clone());
                        }
                    }
                    other => others.push(other.clone()),
                }
            }
        }
        self.spend(looked_at);
        let only = match tables.as_slice() {
            [table] if others.is_empty() => Some(table.clone()),
            _ => None,
        };
        let certain = only.is_some() && row.is_none();
        let column = Column {
            table: only,
            name: Arc::from(name),
        };
        let derived_only = tables.is_empty()
            && any
            && others
                .iter()
                .all(|relation| matches!(relation, Relation::Derived(_)));
        // What a subquery returns was noted where the subquery named it.
        if !derived_only {
            self.column(column.clone());
        }
        for relation in &others {
            self.whole(relation);
        }
        if let Some(row) = row {
            self.whole(&row);
        }
        certain.then_some(column)
    }
}
