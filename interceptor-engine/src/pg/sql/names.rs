//! References to columns, whole rows and all columns.

use std::sync::Arc;

use interceptor_policy::operation::{Column, Table};
use pg_query::protobuf as pb;

use super::query::is_star;
use super::scope::{Relation, all_of};
use super::shape::{Found, Item, Out, Reach};
use super::walk::{Walker, named};
use super::{ast, functions};

impl Walker {
    /// Walks a reference to a column, a whole row or all columns: what it is, as
    /// columns of a result.
    pub(super) fn column_ref(&mut self, reference: &pb::ColumnRef) -> Vec<Out> {
        let names = ast::names(&reference.fields);
        let star = is_star(&reference.fields);
        match (names.as_slice(), star) {
            ([], true) => {
                let outs = self
                    .scopes
                    .last()
                    .map(|scope| scope.star.clone())
                    .unwrap_or_default();
                self.spend(outs.len());
                self.noted(&outs);
                outs
            }
            ([.., schema, table], true) => {
                let table = named(Some(schema), table);
                self.column(all_of(&table));
                vec![Out::unnamed(Item::Star(vec![table]))]
            }
            ([alias], true) => {
                let outs = match self.find(alias) {
                    Some(relation) => relation.outs(),
                    None => vec![Out::unnamed(Item::Star(vec![named(None, alias)]))],
                };
                self.spend(outs.len());
                self.noted(&outs);
                outs
            }
            ([], false) => Vec::new(),
            ([.., name], false) => {
                let (item, reach) = self.apart(|walker| match names.as_slice() {
                    [.., schema, table, name] => {
                        Some(walker.of_table(&named(Some(schema), table), name))
                    }
                    [alias, name] => walker.qualified(alias, name),
                    [name] => walker.unqualified(name),
                    [] => None,
                });
                self.reach(&reach);
                vec![Out {
                    name: Some(Arc::from(*name)),
                    item: item.unwrap_or(Item::Expression(reach)),
                }]
            }
        }
    }

    /// Notes the columns of a `*`; neighbouring tables make one star.
    pub(super) fn noted(&mut self, outs: &[Out]) {
        for out in outs {
            match &out.item {
                Item::Star(tables) => tables.iter().for_each(|table| self.column(all_of(table))),
                Item::Spread(reach) => {
                    for column in reach.columns.iter().filter(|of| of.table.is_some()) {
                        self.column(column.clone());
                    }
                    self.reach(reach);
                }
                one => self.reach(&one.reach()),
            }
        }
    }

    /// All columns of a relation.
    pub(super) fn whole(&mut self, relation: &Relation) {
        match relation {
            Relation::Table(table) | Relation::Renamed(table) => self.column(all_of(table)),
            Relation::Derived(shape) => self.reach(&Arc::clone(shape).reach),
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

    /// A column of a table, or a function of its row: `t.f` may also be `f(t)`.
    fn of_table(&mut self, table: &Table, name: &str) -> Item {
        let column = Column {
            table: Some(table.clone()),
            name: Arc::from(name),
        };
        self.column(column.clone());
        if !functions::takes_a_row(name) {
            return Item::Column(column);
        }
        self.column(all_of(table));
        let mut reach = Reach::of(column);
        reach.add(&all_of(table));
        Item::Expression(reach)
    }

    /// `None` where it is computed from whatever was noted of it.
    fn qualified(&mut self, alias: &str, name: &str) -> Option<Item> {
        match self.find(alias) {
            Some(Relation::Table(table)) => Some(self.of_table(&table, name)),
            Some(relation @ Relation::Renamed(_)) => {
                self.column(Column {
                    table: None,
                    name: Arc::from(name),
                });
                self.whole(&relation);
                None
            }
            Some(Relation::Derived(shape)) => match shape.column(name) {
                Found::Certain(item) => {
                    self.reach(&item.reach());
                    Some(item)
                }
                Found::Maybe(reach) => {
                    self.reach(&reach);
                    if functions::takes_a_row(name) {
                        self.reach(&shape.reach);
                    }
                    None
                }
                // A function of the row, or a mistake.
                Found::No => {
                    self.reach(&shape.reach);
                    None
                }
            },
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

    /// As [`Walker::qualified`]. PostgreSQL looks level by level, from the
    /// innermost; where a level certainly has the column, none beyond it counts.
    fn unqualified(&mut self, name: &str) -> Option<Item> {
        if self.is_variable(name) && self.find(name).is_none() {
            return None;
        }
        let mut tables: Vec<Table> = Vec::new();
        let mut made = Reach::default();
        let mut only_made = true;
        let mut blurred = false;
        let mut any = false;
        let mut certain: Option<Item> = None;
        let mut looked_at = 0;
        for scope in self.scopes.iter().rev() {
            let mut here: Vec<Item> = Vec::new();
            let (mut tables_here, mut made_here) = (Vec::new(), Reach::default());
            for relation in scope.open() {
                looked_at += 1;
                any = true;
                match relation {
                    Relation::Table(table) => {
                        // Two are as good as many.
                        if tables_here.len() < 2 && !tables_here.contains(table) {
                            tables_here.push(table.clone());
                        }
                    }
                    Relation::Renamed(table) => {
                        only_made = false;
                        made_here.add(&all_of(table));
                    }
                    Relation::Derived(shape) => {
                        looked_at += shape.outs.len() / 8;
                        match shape.column(name) {
                            Found::Certain(item) => here.push(item),
                            Found::Maybe(reach) => {
                                blurred = true;
                                made_here.extend(&reach);
                            }
                            Found::No => {}
                        }
                    }
                }
            }
            match here.as_slice() {
                [] => {}
                // Nothing else can have it, or PostgreSQL would not know which.
                [item] if !scope.merged => {
                    if tables.is_empty() && made.is_empty() {
                        certain = Some(item.clone());
                    }
                    made.extend(&item.reach());
                    break;
                }
                several => {
                    for item in several {
                        made.extend(&item.reach());
                    }
                    if !scope.merged {
                        break;
                    }
                }
            }
            made.extend(&made_here);
            only_made &= tables_here.is_empty();
            for table in tables_here {
                if tables.len() < 2 && !tables.contains(&table) {
                    tables.push(table);
                }
            }
        }
        self.spend(looked_at);
        if let Some(item) = certain {
            self.reach(&made);
            return Some(item);
        }
        // `u` of `FROM users u` is the whole row, unless some table has a
        // column of that name.
        let row = self.find(name);
        let only = match tables.as_slice() {
            [table] if !blurred && made.is_empty() => Some(table.clone()),
            _ => None,
        };
        let plain = only.is_some() && row.is_none();
        let column = Column {
            table: only,
            name: Arc::from(name),
        };
        // What a subquery returns was noted where the subquery named it.
        if !(any && only_made) {
            self.column(column.clone());
        }
        self.reach(&made);
        if let Some(row) = row {
            self.whole(&row);
        }
        plain.then_some(Item::Column(column))
    }
}
