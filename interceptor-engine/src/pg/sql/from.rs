//! `FROM` clauses: what brings relations into scope.

use std::sync::Arc;

use pg_query::Node;
use pg_query::protobuf as pb;

use super::ast::{self, Ast};
use super::scope::{Reach, Relation, Scope, all_of};
use super::walk::Walker;

impl Walker {
    /// Adds the items of a `FROM` to the scope of now.
    pub(super) fn from(&mut self, items: &[Node]) {
        for item in items {
            if let Some(ast) = ast::from(item) {
                self.item_of_from(ast);
            }
        }
    }

    pub(super) fn item_of_from(&mut self, item: Ast<'_>) {
        self.spend(1);
        if self.is_exhausted() {
            return;
        }
        match item {
            Ast::RangeVar(range) => self.range_var(range),
            Ast::RangeSubselect(range) => {
                let reach = self.subselect(range);
                self.add(
                    alias(range.alias.as_ref()),
                    Relation::Derived(Arc::new(reach)),
                );
            }
            Ast::RangeFunction(range) => {
                let ((), reach) = self.apart(|walker| {
                    walker.nodes(&range.functions);
                    walker.nodes(&range.coldeflist);
                });
                // A function without an alias is known by its own name.
                let name = alias(range.alias.as_ref()).or_else(|| function_name(range));
                self.add(name, Relation::Derived(Arc::new(reach)));
            }
            Ast::RangeTableSample(sample) => {
                if let Some(relation) = ast::of(&sample.relation) {
                    self.item_of_from(relation);
                }
                self.nodes(&sample.args);
                self.optional(&sample.repeatable);
            }
            Ast::JoinExpr(join) => self.join(join),
            Ast::RangeTableFunc(table) => {
                self.made(item, alias(table.alias.as_ref()));
            }
            Ast::JsonTable(table) => {
                self.made(item, alias(table.alias.as_ref()));
            }
            other => self.walk(other),
        }
    }

    /// A relation made from expressions (`XMLTABLE`, `JSON_TABLE`).
    fn made(&mut self, item: Ast<'_>, alias: Option<&str>) {
        let ((), reach) = self.apart(|walker| {
            item.children(&mut |child| walker.walk(child));
        });
        self.add(alias, Relation::Derived(Arc::new(reach)));
    }

    fn add(&mut self, alias: Option<&str>, relation: Relation) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.add(alias, relation);
        }
    }

    fn range_var(&mut self, range: &pb::RangeVar) {
        let name = alias(range.alias.as_ref()).unwrap_or(&range.relname);
        if range.schemaname.is_empty()
            && let Some(reach) = self.cte_named(&range.relname)
        {
            self.add(Some(name), Relation::Derived(reach));
            return;
        }
        self.reads |= self.runs;
        let table = self.table(range);
        let renamed = range
            .alias
            .as_ref()
            .is_some_and(|alias| !alias.colnames.is_empty());
        self.add(
            Some(name),
            if renamed {
                Relation::Renamed(table)
            } else {
                Relation::Table(table)
            },
        );
    }

    /// A subquery in a `FROM` sees its siblings only when it is `LATERAL`.
    fn subselect(&mut self, range: &pb::RangeSubselect) -> Reach {
        let hidden = match self.scopes.last_mut() {
            Some(scope) if !range.lateral => Some(std::mem::take(scope)),
            _ => None,
        };
        let (shape, walked) = self.apart(|walker| match ast::of(&range.subquery) {
            Some(Ast::SelectStmt(select)) => Some(walker.query(select)),
            Some(other) => {
                walker.walk(other);
                None
            }
            None => None,
        });
        if let (Some(hidden), Some(scope)) = (hidden, self.scopes.last_mut()) {
            *scope = hidden;
        }
        shape.map_or(walked, |shape| shape.reach)
    }

    fn join(&mut self, join: &pb::JoinExpr) {
        let start = self.width();
        if let Some(left) = ast::of(&join.larg) {
            self.item_of_from(left);
        }
        let middle = self.width();
        if let Some(right) = ast::of(&join.rarg) {
            self.item_of_from(right);
        }
        let names = ast::names(&join.using_clause);
        if join.is_natural {
            // Compares every column that both have, whichever those are.
            self.natural(start);
        }
        if (join.is_natural || !names.is_empty())
            && let Some(scope) = self.scopes.last_mut()
        {
            scope.merged = true;
        }
        let ((), using) = self.apart(|walker| {
            for name in &names {
                walker.using(name, start, middle);
            }
        });
        self.optional(&join.quals);
        if let Some(alias) = alias(join.join_using_alias.as_ref())
            && let Some(scope) = self.scopes.last_mut()
        {
            scope.add_qualified(alias, Relation::Derived(Arc::new(using)));
        }
        if let Some(alias) = alias(join.alias.as_ref())
            && let Some(scope) = self.scopes.last_mut()
        {
            let reach = scope.fold(start);
            let renamed = Relation::Derived(Arc::new(reach.clone()));
            scope.add(Some(alias), renamed);
            // Its columns are the tables' under the same names, which the
            // names used with it do not tell apart.
            for column in reach.columns {
                self.column(column);
            }
        }
    }

    fn width(&self) -> usize {
        self.scopes.last().map_or(0, Scope::len)
    }

    fn natural(&mut self, start: usize) {
        self.spend(self.width().saturating_sub(start).saturating_mul(8));
        if self.is_exhausted() {
            return;
        }
        let columns: Vec<_> = self
            .scopes
            .last()
            .map(|scope| scope.tables(start, usize::MAX).map(all_of).collect())
            .unwrap_or_default();
        for column in columns {
            self.column(column);
        }
    }

    /// A column of `USING`: each side's, where the side is one table.
    fn using(&mut self, name: &str, start: usize, middle: usize) {
        self.spend(self.width().saturating_sub(start));
        if self.is_exhausted() {
            return;
        }
        for (from, to) in [(start, middle), (middle, usize::MAX)] {
            let (tables, all) = self
                .scopes
                .last()
                .map(|scope| {
                    (
                        scope.tables(from, to).take(2).cloned().collect::<Vec<_>>(),
                        scope.width(from, to),
                    )
                })
                .unwrap_or_default();
            match tables.as_slice() {
                [] => {}
                [table] if all == 1 => self.column_of(&table.clone(), name),
                _ => self.column(interceptor_policy::operation::Column {
                    table: None,
                    name: Arc::from(name),
                }),
            }
        }
    }
}

/// The name of an alias.
pub(super) fn alias(alias: Option<&pb::Alias>) -> Option<&str> {
    alias.map(|alias| alias.aliasname.as_str())
}

fn function_name(range: &pb::RangeFunction) -> Option<&str> {
    let Some(Ast::List(list)) = range.functions.first().and_then(ast::from) else {
        return None;
    };
    match list.items.first().and_then(ast::from) {
        Some(Ast::FuncCall(call)) => call.funcname.last().and_then(ast::name),
        _ => None,
    }
}
