//! Which tables a name can mean.
//!
//! PostgreSQL resolves names against its catalog. Here only the text is known,
//! so resolution answers with every relation that the name could stand for,
//! and with one only where nothing else is in sight.

use std::collections::HashMap;
use std::sync::Arc;

use interceptor_policy::operation::{Column, Table};

use super::shape::{Item, Out, Reach, Shape};

/// Something in a `FROM` clause.
#[derive(Clone, Debug)]
pub(super) enum Relation {
    /// A table (or view) under its own column names.
    Table(Table),
    /// A table whose columns were given other names: which is which is unknown.
    Renamed(Table),
    /// A subquery, CTE, function or join under an alias; what it returns.
    Derived(Arc<Shape>),
}

impl Relation {
    /// What a `*` over it stands for.
    pub(super) fn outs(&self) -> Vec<Out> {
        match self {
            Self::Table(table) => vec![Out::unnamed(Item::Star(vec![table.clone()]))],
            Self::Renamed(table) => vec![Out::unnamed(Item::Spread(Reach::of(all_of(table))))],
            Self::Derived(shape) => shape.outs.clone(),
        }
    }
}

/// One query level.
#[derive(Debug, Default)]
pub(super) struct Scope {
    relations: Vec<Entry>,
    by_alias: HashMap<Arc<str>, usize>,
    /// What `*` stands for: the columns of what is open, in order, those that a
    /// `USING` merges once.
    pub(super) star: Vec<Out>,
    /// `USING` or `NATURAL` merges columns: a name may be several relations'.
    pub(super) merged: bool,
    /// What the named windows are made from.
    pub(super) windows: Reach,
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
        self.star.extend(relation.outs());
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

    fn part(&self, from: usize, to: usize) -> impl Iterator<Item = &Entry> {
        self.relations
            .iter()
            .take(to)
            .skip(from)
            .filter(|entry| entry.open)
    }

    /// Hides everything added since there were `from`, as the name of an aliased
    /// join hides what it is made of, and puts the join in its place: `star` is
    /// where its columns begin in the `*`.
    pub(super) fn fold(&mut self, from: usize, star: usize, alias: &str, renamed: bool) {
        for entry in self.relations.iter_mut().skip(from) {
            entry.open = false;
        }
        self.by_alias.retain(|_, at| *at < from);
        let mut shape = Shape::of(self.star.split_off(star.min(self.star.len())));
        if renamed {
            shape.forget_names();
        }
        self.add(Some(alias), Relation::Derived(Arc::new(shape)));
    }

    /// The relations among those added from `from` up to `to`, in view.
    pub(super) fn between(&self, from: usize, to: usize) -> impl Iterator<Item = &Relation> {
        self.part(from, to).map(|entry| &entry.relation)
    }
}

/// `table.*`
pub(super) fn all_of(table: &Table) -> Column {
    Column {
        table: Some(table.clone()),
        name: Arc::from("*"),
    }
}
