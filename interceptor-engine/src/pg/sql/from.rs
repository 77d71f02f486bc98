//! `FROM` clauses: what brings relations into scope.

use std::sync::Arc;

use pg_query::Node;
use pg_query::protobuf as pb;

use super::ast::{self, Ast};
use super::scope::{Relation, all_of};
use super::shape::{Found, Item, Out, Reach, Shape};
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
                let mut shape = self.subselect(range);
                rename(&mut shape, range.alias.as_ref());
                self.derived(alias(range.alias.as_ref()), Arc::new(shape));
            }
            Ast::RangeFunction(range) => {
                let ((), reach) = self.apart(|walker| {
                    walker.nodes(&range.functions);
                    walker.nodes(&range.coldeflist);
                });
                // How many rows there are is told by what it is called with.
                self.tell(&reach);
                // A function without an alias is known by its own name.
                let name = alias(range.alias.as_ref()).or_else(|| function_name(range));
                self.derived(name, Arc::new(Shape::blurred(reach)));
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
        self.tell(&reach);
        self.derived(alias, Arc::new(Shape::blurred(reach)));
    }

    fn add(&mut self, alias: Option<&str>, relation: Relation) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.add(alias, relation);
        }
    }

    fn derived(&mut self, alias: Option<&str>, shape: Arc<Shape>) {
        self.spend(shape.outs.len());
        self.tell_again(&shape.told);
        self.add(alias, Relation::Derived(shape));
    }

    fn range_var(&mut self, range: &pb::RangeVar) {
        let name = alias(range.alias.as_ref()).unwrap_or(&range.relname);
        if range.schemaname.is_empty()
            && let Some(mut shape) = self.cte_named(&range.relname)
        {
            if range
                .alias
                .as_ref()
                .is_some_and(|alias| !alias.colnames.is_empty())
            {
                rename(Arc::make_mut(&mut shape), range.alias.as_ref());
            }
            self.derived(Some(name), shape);
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
    fn subselect(&mut self, range: &pb::RangeSubselect) -> Shape {
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
        shape.unwrap_or_else(|| Shape::blurred(walked))
    }

    fn join(&mut self, join: &pb::JoinExpr) {
        let (start, star) = self.width();
        if let Some(left) = ast::of(&join.larg) {
            self.item_of_from(left);
        }
        let (middle, star_middle) = self.width();
        if let Some(right) = ast::of(&join.rarg) {
            self.item_of_from(right);
        }
        let names = ast::names(&join.using_clause);
        if join.is_natural {
            // Compares every column that both have, whichever those are.
            self.natural(start);
        }
        let mut merged = Vec::with_capacity(names.len());
        for name in &names {
            let reach = self.predicate(|walker| walker.using(name, start, middle));
            merged.push(Out {
                name: Some(Arc::from(*name)),
                item: Item::Expression(reach),
            });
        }
        self.predicate(|walker| walker.optional(&join.quals));
        if (join.is_natural || !names.is_empty())
            && let Some(scope) = self.scopes.last_mut()
        {
            scope.merged = true;
            let right = scope.star.split_off(star_middle.min(scope.star.len()));
            let left = scope.star.split_off(star.min(scope.star.len()));
            scope
                .star
                .extend(merge(left, right, &merged, join.is_natural));
        }
        if let Some(alias) = alias(join.join_using_alias.as_ref())
            && let Some(scope) = self.scopes.last_mut()
        {
            scope.add_qualified(alias, Relation::Derived(Arc::new(Shape::of(merged))));
        }
        if let Some(alias) = &join.alias
            && let Some(scope) = self.scopes.last_mut()
        {
            scope.fold(start, star, &alias.aliasname, !alias.colnames.is_empty());
            // Its columns are the tables' under the same names, which the names
            // used with it do not tell apart.
            let all = scope.star.get(star..).unwrap_or_default().to_vec();
            self.noted(&all);
        }
    }

    fn width(&self) -> (usize, usize) {
        self.scopes
            .last()
            .map_or((0, 0), |scope| (scope.len(), scope.star.len()))
    }

    fn natural(&mut self, start: usize) {
        self.spend(self.width().0.saturating_sub(start).saturating_mul(8));
        if self.is_exhausted() {
            return;
        }
        let relations: Vec<Relation> = self
            .scopes
            .last()
            .map(|scope| scope.between(start, usize::MAX).cloned().collect())
            .unwrap_or_default();
        self.predicate(|walker| {
            for relation in &relations {
                walker.whole(relation);
            }
        });
    }

    /// A column of `USING`: each side's, where the side is one table.
    fn using(&mut self, name: &str, start: usize, middle: usize) {
        self.spend(self.width().0.saturating_sub(start));
        if self.is_exhausted() {
            return;
        }
        for (from, to) in [(start, middle), (middle, usize::MAX)] {
            let mut tables = Vec::new();
            let mut made = Reach::default();
            let mut all = 0;
            for relation in self.scopes.last().iter().flat_map(|s| s.between(from, to)) {
                all += 1;
                match relation {
                    Relation::Table(table) => tables.push(table.clone()),
                    Relation::Renamed(table) => {
                        tables.push(table.clone());
                        made.add(&all_of(table));
                    }
                    Relation::Derived(shape) => match shape.column(name) {
                        Found::Certain(item) => made.extend(&item.reach()),
                        Found::Maybe(reach) => made.extend(&reach),
                        Found::No => {}
                    },
                }
            }
            self.reach(&made);
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

/// What `*` stands for behind a join that merges columns: those first, then the
/// rest of each side.
fn merge(left: Vec<Out>, right: Vec<Out>, merged: &[Out], natural: bool) -> Vec<Out> {
    let mut tables = Vec::new();
    let only_tables = left.iter().chain(&right).all(|out| match &out.item {
        Item::Star(these) => {
            tables.extend(these.iter().cloned());
            true
        }
        _ => false,
    });
    if only_tables {
        // Each column under its own name, wherever it stands.
        return vec![Out::unnamed(Item::Star(tables))];
    }
    let named = |outs: &[Out]| {
        outs.iter()
            .all(|out| out.name.is_some() && out.item.is_one())
    };
    if natural || !named(&left) || !named(&right) {
        let both = left.into_iter().chain(right).collect();
        return vec![Out::unnamed(Item::Spread(Shape::of(both).reach))];
    }
    let is_rest = |out: &Out| !merged.iter().any(|merged| merged.name == out.name);
    let mut outs = merged.to_vec();
    outs.extend(left.into_iter().filter(is_rest));
    outs.extend(right.into_iter().filter(is_rest));
    outs
}

/// Gives a relation the column names of its alias.
fn rename(shape: &mut Shape, alias: Option<&pb::Alias>) {
    if let Some(alias) = alias {
        shape.rename(&ast::names(&alias.colnames));
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
