//! Which tables a name can mean.
//!
//! PostgreSQL resolves names against its catalog. Here only the text is known,
//! so resolution answers with every relation that the name could stand for,
//! and with one only where nothing else is in sight.

use std::collections::HashMap;
use std::sync::Arc;

use interceptor_policy::operation::{Column, Table};

/// More columns than this behind one expression are not told apart.
const MAX_REACH: usize = 256;

/// The columns that a value is computed from.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    pub(super) columns: Vec<Column>,
    /// It may come from anywhere: a function whose code is not shown, or too
    /// many columns.
    pub(super) unclear: bool,
}

impl Reach {
    pub(super) fn add(&mut self, column: &Column) {
        if self.columns.contains(column) {
            return;
        }
        if self.columns.len() < MAX_REACH {
            self.columns.push(column.clone());
        } else {
            self.unclear = true;
        }
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.unclear |= other.unclear;
        for column in &other.columns {
            self.add(column);
        }
    }
}

/// Something in a `FROM` clause.
#[derive(Clone, Debug)]
pub(super) enum Relation {
    /// A table (or view) under its own column names.
    Table(Table),
    /// A table whose columns were given other names: which is which is unknown.
    Renamed(Table),
    /// A subquery, CTE, function or join under an alias; what it is made from.
    Derived(Arc<Reach>),
}

/// One query level.
#[derive(Debug, Default)]
pub(super) struct Scope {
    relations: Vec<Entry>,
    by_alias: HashMap<Arc<str>, usize>,
    /// `USING` or `NATURAL` merges columns: `*` is not the tables' columns in
    /// their order.
    pub(super) merged: bool,
}

#[derive(Debug)]
struct Entry {
    relation: Relation,
    /// Seen by unqualified names and by `*`.
    open: bool,
}

impl Scope {
    /// Adds a relation under the name that it is referred to by, if it has one.
    pub(super) fn add(&mut self, alias: Option<&str>, relation: Relation) {
        self.insert(alias, relation, true);
    }

    /// Adds one that only qualified names see (`old`, `excluded`, the tables
    /// of an aliased join).
    pub(super) fn add_qualified(&mut self, alias: &str, relation: Relation) {
        self.insert(Some(alias), relation, false);
    }

    fn insert(&mut self, alias: Option<&str>, relation: Relation, open: bool) {
        if let Some(alias) = alias {
            // The first keeps the name: two equal ones in one FROM are an error,
            // and an implicit `old` yields to an alias.
            self.by_alias
                .entry(Arc::from(alias))
                .or_insert(self.relations.len());
        }
        self.relations.push(Entry { relation, open });
    }

    /// The relation of that name.
    pub(super) fn named(&self, alias: &str) -> Option<&Relation> {
        self.by_alias
            .get(alias)
            .and_then(|at| self.relations.get(*at))
            .map(|entry| &entry.relation)
    }

    /// What an unqualified name or a `*` looks at, in the order of the `FROM`.
    pub(super) fn open(&self) -> impl Iterator<Item = &Relation> {
        self.relations
            .iter()
            .filter(|entry| entry.open)
            .map(|entry| &entry.relation)
    }

    /// How many relations there are.
    pub(super) fn len(&self) -> usize {
        self.relations.len()
    }

    /// The tables among those added from `from` up to `to`, in view.
    pub(super) fn tables(&self, from: usize, to: usize) -> impl Iterator<Item = &Table> {
        self.part(from, to)
            .filter_map(|entry| match &entry.relation {
                Relation::Table(table) | Relation::Renamed(table) => Some(table),
                Relation::Derived(_) => None,
            })
    }

    /// How many there are of those, tables or not.
    pub(super) fn width(&self, from: usize, to: usize) -> usize {
        self.part(from, to).count()
    }

    fn part(&self, from: usize, to: usize) -> impl Iterator<Item = &Entry> {
        self.relations
            .iter()
            .take(to)
            .skip(from)
            .filter(|entry| entry.open)
    }

    /// Everything added since there were `from`, as what an aliased join is
    /// made of; hidden from here on, as the join's own name hides it.
    pub(super) fn fold(&mut self, from: usize) -> Reach {
        let mut reach = Reach::default();
        for entry in self.relations.iter_mut().skip(from) {
            match &entry.relation {
                Relation::Table(table) | Relation::Renamed(table) => reach.add(&all_of(table)),
                Relation::Derived(derived) => reach.extend(derived),
            }
            entry.open = false;
        }
        self.by_alias.retain(|_, at| *at < from);
        reach
    }
}

/// `table.*`
pub(super) fn all_of(table: &Table) -> Column {
    Column {
        table: Some(table.clone()),
        name: Arc::from("*"),
    }
}
