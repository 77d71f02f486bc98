//! Values that go elsewhere than into the result.
//!
//! A mask hides a column by where a value comes from. Once a statement has put
//! the value somewhere else (another column, another table, a function's body, a
//! file), it comes from there, and no mask follows it. What stays in its own
//! column stays under its mask and is no move.

use std::sync::Arc;

use interceptor_policy::operation::{Column, Move, MoveTo, Output, OutputItem, Statement, Table};
use pg_query::Node;
use pg_query::protobuf as pb;
use pg_query::protobuf::AlterTableType;

use super::ast::{self, Ast};
use super::scope::{Relation, Scope, all_of};
use super::shape::{Item, Reach, Shape};
use super::walk::{Walker, table_of};

/// The column that a value is written to, where that is certain.
pub(super) struct Assigned(Option<Column>);

impl Assigned {
    pub(super) fn of(table: Option<&Table>, name: &str) -> Self {
        Self(table.filter(|_| !name.is_empty()).map(|table| Column {
            table: Some(table.clone()),
            name: Arc::from(name),
        }))
    }
}

impl Walker {
    /// Notes what is written to a column, but for its own values.
    pub(super) fn assigned_to(&mut self, to: Assigned, reach: &Reach) {
        for column in &reach.columns {
            if to.0.as_ref() != Some(column) {
                self.add_move(Move {
                    column: column.clone(),
                    to: MoveTo::Table,
                });
            }
        }
    }

    /// What an `INSERT` writes, column by column where both sides are listed.
    pub(super) fn inserted(&mut self, table: Option<&Table>, columns: &[Node], source: &Shape) {
        let names: Vec<Option<&str>> = columns
            .iter()
            .map(|node| match ast::from(node) {
                Some(Ast::ResTarget(target)) if target.indirection.is_empty() => {
                    Some(target.name.as_str())
                }
                _ => None,
            })
            .collect();
        let told_apart =
            source.outs.len() <= names.len() && source.outs.iter().all(|out| out.item.is_one());
        for (at, out) in source.outs.iter().enumerate() {
            let name = names.get(at).copied().flatten().filter(|_| told_apart);
            self.assigned_to(
                Assigned::of(table, name.unwrap_or_default()),
                &out.item.reach(),
            );
        }
    }

    /// What an `INSERT` of a `MERGE` writes.
    pub(super) fn merge_values(&mut self, table: Option<&Table>, clause: &pb::MergeWhenClause) {
        let names: Vec<&str> = clause
            .target_list
            .iter()
            .filter_map(|node| match ast::from(node) {
                Some(Ast::ResTarget(target)) => Some(target.name.as_str()),
                _ => None,
            })
            .collect();
        for (at, value) in clause.values.iter().enumerate() {
            let ((), reach) = self.apart(|walker| walker.node(value));
            self.reach(&reach);
            let name = names.get(at).copied().unwrap_or_default();
            self.assigned_to(Assigned::of(table, name), &reach);
        }
    }

    /// What a statement that is no query moves by being what it is. Everything
    /// that it names has been noted.
    pub(super) fn moved_by(&mut self, ast: Ast<'_>) {
        let everything = |walker: &Self| walker.found.columns.clone();
        let (columns, to) = match ast {
            Ast::ViewStmt(_) => (everything(self), MoveTo::View),
            Ast::CreateFunctionStmt(_) | Ast::DoStmt(_) | Ast::AlterFunctionStmt(_) => {
                (everything(self), MoveTo::Code)
            }
            Ast::RuleStmt(rule) => (self.with_whole(rule.relation.as_ref()), MoveTo::Code),
            Ast::CreateTrigStmt(trigger) => {
                (self.with_whole(trigger.relation.as_ref()), MoveTo::Code)
            }
            Ast::CreatePublicationStmt(_) | Ast::AlterPublicationStmt(_) => {
                let mut columns: Vec<Column> = self.found.tables.iter().map(all_of).collect();
                if columns.is_empty() {
                    columns = Reach::anything().columns;
                }
                (columns, MoveTo::File)
            }
            Ast::RenameStmt(rename) => match &rename.relation {
                Some(range) if rename.rename_type() == pb::ObjectType::ObjectColumn => {
                    let column = Column {
                        table: Some(table_of(range)),
                        name: Arc::from(rename.subname.as_str()),
                    };
                    (vec![column], MoveTo::Name)
                }
                Some(range) if names_a_relation(rename.rename_type()) => {
                    (vec![all_of(&table_of(range))], MoveTo::Name)
                }
                None if rename.rename_type() == pb::ObjectType::ObjectSchema => {
                    (Reach::anything().columns, MoveTo::Name)
                }
                _ => return,
            },
            Ast::AlterObjectSchemaStmt(alter) => match &alter.relation {
                Some(range) => (vec![all_of(&table_of(range))], MoveTo::Name),
                None => return,
            },
            Ast::AlterTableStmt(alter) => return self.moved_by_altering(alter),
            _ => return,
        };
        for column in columns {
            self.add_move(Move { column, to });
        }
    }

    /// All columns of a table that code is put on, and all that the code names.
    fn with_whole(&self, range: Option<&pb::RangeVar>) -> Vec<Column> {
        let mut columns = self.found.columns.clone();
        columns.extend(range.map(|range| all_of(&table_of(range))));
        columns
    }

    fn moved_by_altering(&mut self, alter: &pb::AlterTableStmt) {
        for command in &alter.cmds {
            let Some(Ast::AlterTableCmd(command)) = ast::from(command) else {
                continue;
            };
            match command.subtype() {
                // A column computed from others, now or with every row.
                AlterTableType::AtAddColumn
                | AlterTableType::AtAlterColumnType
                | AlterTableType::AtSetExpression => {
                    let own = match ast::of(&command.def) {
                        Some(Ast::ColumnDef(definition)) if !definition.colname.is_empty() => {
                            definition.colname.as_str()
                        }
                        _ => command.name.as_str(),
                    };
                    let table = alter.relation.as_ref().map(table_of);
                    let mut scope = Scope::default();
                    if let Some(table) = &table {
                        scope.add(Some(&table.name), Relation::Table(table.clone()));
                    }
                    self.scopes.push(scope);
                    let ((), reach) = self.apart(|walker| walker.optional(&command.def));
                    self.scopes.pop();
                    self.assigned_to(Assigned::of(table.as_ref(), own), &reach);
                }
                // Its rows are read by way of another table, or were.
                AlterTableType::AtAttachPartition
                | AlterTableType::AtDetachPartition
                | AlterTableType::AtAddInherit
                | AlterTableType::AtDropInherit => {
                    for table in self.found.tables.clone() {
                        self.add_move(Move {
                            column: all_of(&table),
                            to: MoveTo::Name,
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

fn names_a_relation(kind: pb::ObjectType) -> bool {
    matches!(
        kind,
        pb::ObjectType::ObjectTable
            | pb::ObjectType::ObjectView
            | pb::ObjectType::ObjectMatview
            | pb::ObjectType::ObjectForeignTable
    )
}

/// The moves of a statement whose result goes to `to` and not to the client.
pub(super) fn of_output(statement: &Statement, to: MoveTo) -> Vec<Move> {
    let columns: Vec<Column> = match &statement.output {
        Output::Nothing => Vec::new(),
        Output::Unclear => statement.columns.clone(),
        Output::Items(items) => items
            .iter()
            .flat_map(|item| match item {
                OutputItem::Column(column) => vec![column.clone()],
                OutputItem::Expression(columns) | OutputItem::Spread(columns) => columns.clone(),
                OutputItem::Star(tables) => tables.iter().map(all_of).collect(),
                OutputItem::Unclear => statement.columns.clone(),
            })
            .collect(),
    };
    columns
        .into_iter()
        .map(|column| Move { column, to })
        .collect()
}

/// Everything that a shape is made from, item by item.
pub(super) fn of_shape(walker: &mut Walker, shape: &Shape, to: MoveTo) {
    for out in &shape.outs {
        match &out.item {
            Item::Column(column) => walker.add_move(Move {
                column: column.clone(),
                to,
            }),
            other => walker.moved(&other.reach(), to),
        }
    }
}
