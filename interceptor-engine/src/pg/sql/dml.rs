//! `INSERT`, `UPDATE`, `DELETE`, `MERGE`.

use interceptor_policy::operation::{Class, Table, WhereClause};
use pg_query::Node;
use pg_query::protobuf as pb;
use pg_query::protobuf::{CmdType, MergeMatchKind, ReturningOptionKind};

use super::ast::{self, Ast};
use super::from::alias;
use super::moves::Assigned;
use super::scope::{Relation, Scope, all_of};
use super::shape::Shape;
use super::walk::Walker;
use super::{rights, where_clause};

impl Walker {
    /// Walks a statement that writes, at the top or nested.
    pub(super) fn write(&mut self, ast: Ast<'_>) -> Shape {
        self.spend(1);
        if self.is_exhausted() {
            return Shape::default();
        }
        match ast {
            Ast::InsertStmt(insert) => self.insert(insert),
            Ast::UpdateStmt(update) => self.update(update),
            Ast::DeleteStmt(delete) => self.delete(delete),
            Ast::MergeStmt(merge) => self.merge(merge),
            other => {
                self.walk(other);
                Shape::default()
            }
        }
    }

    fn writes(&mut self, tag: &'static str) {
        if self.runs {
            self.tag(tag);
            self.class(Class::Write);
        }
    }

    /// The table that is written, in a scope of its own. It is never a CTE.
    fn target_table(&mut self, range: Option<&pb::RangeVar>) -> Option<Table> {
        let mut scope = Scope::default();
        let table = range.map(|range| {
            let table = self.table(range);
            rights::written(self, &table);
            let name = alias(range.alias.as_ref()).unwrap_or(&range.relname);
            scope.add(Some(name), Relation::Table(table.clone()));
            table
        });
        self.scopes.push(scope);
        table
    }

    fn insert(&mut self, insert: &pb::InsertStmt) -> Shape {
        self.writes("INSERT");
        self.enter_with(insert.with_clause.as_ref());
        let source = match ast::of(&insert.select_stmt) {
            Some(Ast::SelectStmt(select)) => self.apart(|walker| walker.query(select)).0,
            _ => Shape::default(),
        };
        let table = self.target_table(insert.relation.as_ref());
        self.inserted(table.as_ref(), &insert.cols, &source);
        if let Some(table) = &table {
            self.apart(|walker| {
                if insert.cols.is_empty() {
                    walker.column(all_of(table));
                }
                walker.assigned(table, &insert.cols);
            });
        }
        if let (Some(table), Some(conflict)) = (&table, &insert.on_conflict_clause) {
            self.on_conflict(table, conflict);
        }
        let shape = self.returning(table.as_ref(), insert.returning_clause.as_ref());
        self.scopes.pop();
        self.leave_with(insert.with_clause.as_ref());
        shape
    }

    fn on_conflict(&mut self, table: &Table, conflict: &pb::OnConflictClause) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.add_qualified("excluded", Relation::Table(table.clone()));
        }
        self.apart(|walker| {
            if let Some(infer) = &conflict.infer {
                for element in &infer.index_elems {
                    if let Some(Ast::IndexElem(element)) = ast::from(element)
                        && !element.name.is_empty()
                    {
                        walker.column_of(table, &element.name);
                    }
                }
                walker.walk(Ast::InferClause(infer));
            }
            walker.assigned(table, &conflict.target_list);
            walker.predicate(|walker| walker.optional(&conflict.where_clause));
        });
    }

    fn update(&mut self, update: &pb::UpdateStmt) -> Shape {
        self.writes("UPDATE");
        self.enter_with(update.with_clause.as_ref());
        let table = self.target_table(update.relation.as_ref());
        self.apart(|walker| {
            walker.from(&update.from_clause);
            if let Some(table) = &table {
                walker.assigned(table, &update.target_list);
            }
            walker.condition(&update.where_clause);
        });
        let shape = self.returning(table.as_ref(), update.returning_clause.as_ref());
        self.scopes.pop();
        self.leave_with(update.with_clause.as_ref());
        shape
    }

    fn delete(&mut self, delete: &pb::DeleteStmt) -> Shape {
        self.writes("DELETE");
        self.enter_with(delete.with_clause.as_ref());
        let table = self.target_table(delete.relation.as_ref());
        self.apart(|walker| {
            walker.from(&delete.using_clause);
            walker.condition(&delete.where_clause);
        });
        let shape = self.returning(table.as_ref(), delete.returning_clause.as_ref());
        self.scopes.pop();
        self.leave_with(delete.with_clause.as_ref());
        shape
    }

    fn condition(&mut self, condition: &Option<Box<Node>>) {
        self.predicate(|walker| walker.optional(condition));
        if self.runs {
            let judged = where_clause::judge(ast::of(condition));
            self.by_literals |= judged.by_literals;
            self.weakest_where(judged.clause);
        }
    }

    fn merge(&mut self, merge: &pb::MergeStmt) -> Shape {
        self.writes("MERGE");
        self.enter_with(merge.with_clause.as_ref());
        let table = self.target_table(merge.relation.as_ref());
        self.apart(|walker| {
            if let Some(source) = ast::of(&merge.source_relation) {
                walker.item_of_from(source);
            }
            walker.predicate(|walker| walker.optional(&merge.join_condition));
            for clause in &merge.merge_when_clauses {
                let Some(Ast::MergeWhenClause(clause)) = ast::from(clause) else {
                    continue;
                };
                walker.predicate(|walker| walker.optional(&clause.condition));
                if let Some(table) = &table {
                    if clause.command_type() == CmdType::CmdInsert && clause.target_list.is_empty()
                    {
                        walker.column(all_of(table));
                    }
                    walker.assigned(table, &clause.target_list);
                }
                walker.merge_values(table.as_ref(), clause);
                if walker.runs {
                    walker.merge_where(merge, clause);
                }
            }
        });
        let shape = self.returning(table.as_ref(), merge.returning_clause.as_ref());
        self.scopes.pop();
        self.leave_with(merge.with_clause.as_ref());
        shape
    }

    /// The rows that a `WHEN` changes are chosen by its own condition, and by
    /// the `ON`: those that meet it, or (by source) those that do not.
    fn merge_where(&mut self, merge: &pb::MergeStmt, when: &pb::MergeWhenClause) {
        if !matches!(when.command_type(), CmdType::CmdUpdate | CmdType::CmdDelete) {
            return;
        }
        let on = ast::of(&merge.join_condition);
        let joined = match when.match_kind() {
            MergeMatchKind::MergeWhenNotMatchedBySource => {
                let (never, by_literals) = where_clause::never(on);
                self.by_literals |= by_literals;
                never
            }
            _ => {
                let judged = where_clause::judge(on);
                self.by_literals |= judged.by_literals;
                judged.clause == WhereClause::AlwaysTrue
            }
        };
        let own = where_clause::judge(ast::of(&when.condition));
        self.by_literals |= own.by_literals;
        self.weakest_where(if joined && own.clause != WhereClause::Present {
            WhereClause::AlwaysTrue
        } else {
            WhereClause::Present
        });
    }

    /// Columns that are written, and what is written to them.
    fn assigned(&mut self, table: &Table, list: &[Node]) {
        for node in list {
            if let Some(Ast::ResTarget(target)) = ast::from(node) {
                if !target.name.is_empty() {
                    self.column_of(table, &target.name);
                }
                self.nodes(&target.indirection);
                let ((), reach) = self.apart(|walker| walker.optional(&target.val));
                self.reach(&reach);
                self.assigned_to(Assigned::of(Some(table), &target.name), &reach);
            }
        }
    }

    fn returning(&mut self, table: Option<&Table>, clause: Option<&pb::ReturningClause>) -> Shape {
        let Some(clause) = clause else {
            return Shape::default();
        };
        self.reads |= self.runs;
        // The row before and the row after, under names that the clause may choose.
        let (mut old, mut new) = ("old", "new");
        for option in &clause.options {
            if let Some(Ast::ReturningOption(option)) = ast::from(option) {
                match option.option() {
                    ReturningOptionKind::ReturningOptionOld => old = &option.value,
                    ReturningOptionKind::ReturningOptionNew => new = &option.value,
                    ReturningOptionKind::Undefined => {}
                }
            }
        }
        if let (Some(table), Some(scope)) = (table, self.scopes.last_mut()) {
            scope.add_qualified(old, Relation::Table(table.clone()));
            scope.add_qualified(new, Relation::Table(table.clone()));
        }
        self.targets(&clause.exprs)
    }
}
