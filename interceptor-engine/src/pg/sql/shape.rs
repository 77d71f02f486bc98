//! What values are computed from, and what queries return.
//!
//! The answer is given column by column wherever the text tells columns apart:
//! through subqueries, CTEs, set operations and aliases. Where it does not (a
//! `*` over tables whose columns are not listed, a function that returns rows),
//! a column may be any of what is there.

use std::sync::Arc;

use interceptor_policy::operation::{Column, Output, OutputItem, Table};

use super::scope::all_of;

/// More columns than this behind one expression are not told apart.
const MAX_REACH: usize = 256;

/// The columns that a value is computed from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) columns: Vec<Column>,
    /// A function whose code is not shown had a part in it.
    pub(super) unclear: bool,
    /// Recursive CTEs that it comes from and that were not walked yet.
    pub(super) pending: Vec<usize>,
}

impl Reach {
    pub(super) fn of(column: Column) -> Self {
        Self {
            columns: vec![column],
            ..Self::default()
        }
    }

    /// It may be any column there is.
    pub(super) fn anything() -> Self {
        Self::of(any_column())
    }

    pub(super) fn add(&mut self, column: &Column) {
        if self.columns.contains(column) {
            return;
        }
        if self.columns.len() < MAX_REACH {
            self.columns.push(column.clone());
        } else if self.columns.len() == MAX_REACH {
            self.columns.push(any_column());
        }
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.unclear |= other.unclear;
        for column in &other.columns {
            self.add(column);
        }
        for id in &other.pending {
            if !self.pending.contains(id) {
                self.pending.push(*id);
            }
        }
    }

    /// Nothing has gone into it.
    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty() && !self.unclear && self.pending.is_empty()
    }

    /// A function whose code is not shown had a part in it, and nothing in the
    /// statement says more.
    fn is_unclear(&self) -> bool {
        self.unclear && !self.columns.contains(&any_column())
    }

    /// Puts in what the recursive CTE `id` was found to be made from.
    fn settle(&mut self, id: usize, whole: &Self) {
        let before = self.pending.len();
        self.pending.retain(|pending| *pending != id);
        if self.pending.len() < before {
            self.extend(whole);
        }
    }
}

/// Any column of any table.
fn any_column() -> Column {
    Column {
        table: None,
        name: Arc::from("*"),
    }
}

/// Where one column of a result comes from, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A table's column as it is.
    Column(Column),
    /// One column, computed.
    Expression(Reach),
    /// The columns of these tables under their own names.
    Star(Vec<Table>),
    /// An unknown number of columns, each from any of these.
    Spread(Reach),
}

impl Item {
    /// What it is computed from.
    pub(super) fn reach(&self) -> Reach {
        match self {
            Self::Column(column) => Reach::of(column.clone()),
            Self::Expression(reach) | Self::Spread(reach) => reach.clone(),
            Self::Star(tables) => {
                let mut reach = Reach::default();
                tables.iter().for_each(|table| reach.add(&all_of(table)));
                reach
            }
        }
    }

    /// It is one column.
    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::Column(_) | Self::Expression(_))
    }
}

/// A column of a result, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Out {
    /// Its name, where that is certain.
    pub(super) name: Option<Arc<str>>,
    pub(super) item: Item,
}

impl Out {
    pub(super) fn unnamed(item: Item) -> Self {
        Self { name: None, item }
    }
}

/// What a name is among a result's columns.
pub(super) enum Found {
    /// It is certainly this.
    Certain(Item),
    /// If it is one of them, it comes from these.
    Maybe(Reach),
    /// It is none of them.
    No,
}

/// What a query returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Its columns, in order.
    pub(super) outs: Vec<Out>,
    /// Everything that any of them is computed from.
    pub(super) reach: Reach,
    /// What decides which rows there are, and in which order.
    pub(super) told: Reach,
}

impl Shape {
    /// One with these columns.
    pub(super) fn of(outs: Vec<Out>) -> Self {
        let mut reach = Reach::default();
        for out in &outs {
            reach.extend(&out.item.reach());
        }
        Self {
            outs,
            reach,
            told: Reach::default(),
        }
    }

    /// One whose columns are not told apart.
    pub(super) fn blurred(reach: Reach) -> Self {
        Self {
            outs: vec![Out::unnamed(Item::Spread(reach.clone()))],
            reach,
            told: Reach::default(),
        }
    }

    /// Tells its columns apart no more.
    pub(super) fn blur(&mut self) {
        self.outs = vec![Out::unnamed(Item::Spread(self.reach.clone()))];
    }

    /// Each of its columns may have any name.
    pub(super) fn forget_names(&mut self) {
        if self.outs.iter().all(|out| out.item.is_one()) {
            self.outs.iter_mut().for_each(|out| out.name = None);
        } else {
            self.blur();
        }
    }

    /// Gives the first columns these names.
    pub(super) fn rename(&mut self, names: &[&str]) {
        let certain = self
            .outs
            .iter()
            .take(names.len())
            .take_while(|out| out.item.is_one())
            .count();
        if certain < names.len() {
            if !names.is_empty() {
                self.blur();
            }
            return;
        }
        for (out, name) in self.outs.iter_mut().zip(names) {
            out.name = Some(Arc::from(*name));
        }
    }

    /// The column of that name.
    pub(super) fn column(&self, name: &str) -> Found {
        let mut certain: Option<Item> = None;
        let mut maybe: Option<Reach> = None;
        for out in &self.outs {
            match (&out.name, &out.item) {
                (Some(own), item) if **own == *name => {
                    certain = Some(match certain {
                        None => item.clone(),
                        // PostgreSQL refuses it as ambiguous.
                        Some(other) => {
                            let mut reach = other.reach();
                            reach.extend(&item.reach());
                            Item::Expression(reach)
                        }
                    });
                }
                (Some(_), _) => {}
                (None, Item::Star(tables)) => {
                    let maybe = maybe.get_or_insert_default();
                    for table in tables {
                        maybe.add(&Column {
                            table: Some(table.clone()),
                            name: Arc::from(name),
                        });
                    }
                }
                (None, item) => maybe.get_or_insert_default().extend(&item.reach()),
            }
        }
        match (certain, maybe) {
            (Some(item), _) => Found::Certain(item),
            (None, Some(reach)) => Found::Maybe(reach),
            (None, None) => Found::No,
        }
    }

    /// Puts in what the recursive CTE `id`, whose shape this is, is made from.
    pub(super) fn settle(&mut self, id: usize) {
        let mut whole = self.reach.clone();
        whole.pending.retain(|pending| *pending != id);
        for out in &mut self.outs {
            if let Item::Expression(reach) | Item::Spread(reach) = &mut out.item {
                reach.settle(id, &whole);
            }
        }
        self.told.settle(id, &whole);
        self.reach = whole;
    }

    /// In the words of the rules.
    pub(super) fn output(self) -> Output {
        if self.outs.is_empty() {
            return Output::Nothing;
        }
        let items: Option<Vec<OutputItem>> = self
            .outs
            .into_iter()
            .map(|out| {
                Some(match out.item {
                    Item::Column(column) => OutputItem::Column(column),
                    Item::Star(tables) => OutputItem::Star(tables),
                    Item::Expression(reach) if reach.is_unclear() => OutputItem::Unclear,
                    Item::Expression(reach) => OutputItem::Expression(reach.columns),
                    Item::Spread(reach) if reach.is_unclear() => return None,
                    Item::Spread(reach) => OutputItem::Spread(reach.columns),
                })
            })
            .collect();
        items.map_or(Output::Unclear, Output::Items)
    }
}

/// What two arms of a set operation return.
pub(super) fn union(left: Shape, right: Shape) -> Shape {
    let mut reach = left.reach.clone();
    reach.extend(&right.reach);
    let mut told = left.told;
    told.extend(&right.told);
    let counted = |outs: &[Out]| outs.iter().all(|out| out.item.is_one());
    let both = |one: &Reach, other: &Reach| {
        let mut reach = one.clone();
        reach.extend(other);
        Item::Expression(reach)
    };
    let outs = match (counted(&left.outs), counted(&right.outs)) {
        (true, true) if left.outs.len() == right.outs.len() => left
            .outs
            .into_iter()
            .zip(&right.outs)
            .map(|(left, right)| Out {
                name: left.name,
                item: both(&left.item.reach(), &right.item.reach()),
            })
            .collect(),
        (true, false) => left
            .outs
            .into_iter()
            .map(|left_out| Out {
                item: both(&left_out.item.reach(), &right.reach),
                name: left_out.name,
            })
            .collect(),
        (false, true) => right
            .outs
            .iter()
            .map(|right| Out::unnamed(both(&left.reach, &right.item.reach())))
            .collect(),
        (false, false) if left.outs == right.outs => left.outs,
        _ => vec![Out::unnamed(Item::Spread(reach.clone()))],
    };
    Shape { outs, reach, told }
}
