//! Queries: `WITH`, `SELECT`, `VALUES`, `UNION`, and what they return.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use interceptor_policy::operation::{Class, OutputItem, Table};
use pg_query::protobuf as pb;
use pg_query::{Node, NodeEnum};

use super::ast::{self, Ast};
use super::scope::{Reach, Relation, Scope};
use super::tags;
use super::walk::{Walker, named};

/// What a query returns, as far as the text says.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// One for each item of the target list; `None` where that is not certain.
    pub(super) items: Option<Vec<OutputItem>>,
    /// Everything that any of them is computed from.
    pub(super) reach: Reach,
}
impl Walker {
    /// Brings the names of a `WITH` into view; [`Walker::leave_with`] takes
    /// them out again.
    pub(super) fn enter_with(&mut self, with: Option<&pb::WithClause>) {
        let Some(with) = with else { return };
        self.ctes.push(HashMap::new());
        let queries: Vec<&pb::CommonTableExpr> = with
            .ctes
            .iter()
            .filter_map(|node| match ast::from(node) {
                Some(Ast::CommonTableExpr(query)) => Some(query),
                _ => None,
            })
            .collect();
        if with.recursive {
            // All see each other; one that is used before it was walked could
            // return anything.
            let unknown = Arc::new(Reach {
                unclear: true,
                ..Reach::default()
            });
            for query in &queries {
                self.bind(&query.ctename, Arc::clone(&unknown));
            }
        }
        for query in queries {
            if with.recursive {
                // Itself adds nothing that its other arms do not.
                self.bind(&query.ctename, Arc::default());
            }
            let shape = self.cte(query);
            self.bind(&query.ctename, Arc::new(shape.reach));
        }
    }

    fn cte(&mut self, query: &pb::CommonTableExpr) -> Shape {
        let (shape, _) = self.apart(|walker| {
            let shape = match ast::of(&query.ctequery) {
                Some(Ast::SelectStmt(select)) => walker.query(select),
                Some(write) => walker.write(write),
                None => Shape::default(),
            };
            walker.search_and_cycle(query);
            shape
        });
        shape
    }

    fn search_and_cycle(&mut self, query: &pb::CommonTableExpr) {
        if let Some(cycle) = &query.cycle_clause {
            self.optional(&cycle.cycle_mark_value);
            self.optional(&cycle.cycle_mark_default);
        }
    }

    fn bind(&mut self, name: &str, reach: Arc<Reach>) {
        if let Some(frame) = self.ctes.last_mut() {
            frame.insert(name.to_owned(), reach);
        }
    }

    /// See [`Walker::enter_with`].
    pub(super) fn leave_with(&mut self, with: Option<&pb::WithClause>) {
        if with.is_some() {
            self.ctes.pop();
        }
    }

    /// The CTE that an unqualified name means.
    pub(super) fn cte_named(&mut self, name: &str) -> Option<Arc<Reach>> {
        self.spend(self.ctes.len());
        self.ctes
            .iter()
            .rev()
            .find_map(|frame| frame.get(name))
            .cloned()
    }

    /// Walks a query.
    pub(super) fn query(&mut self, select: &pb::SelectStmt) -> Shape {
        self.spend(1);
        if self.is_exhausted() {
            return Shape::default();
        }
        if self.runs && !select.locking_clause.is_empty() {
            // Row locks, as `LOCK` takes a table's.
            self.class(Class::Session);
        }
        self.enter_with(select.with_clause.as_ref());
        let shape = match (&select.larg, &select.rarg) {
            (Some(left), Some(right)) => {
                let left = self.query(left);
                let right = self.query(right);
                self.apart(|walker| {
                    walker.scopes.push(Scope::default());
                    walker.sort(&select.sort_clause, |_| true);
                    walker.limits(select);
                    walker.scopes.pop();
                });
                union(left, right)
            }
            _ if !select.values_lists.is_empty() => self.values(select),
            _ => self.plain(select),
        };
        self.leave_with(select.with_clause.as_ref());
        shape
    }

    fn plain(&mut self, select: &pb::SelectStmt) -> Shape {
        self.scopes.push(Scope::default());
        if let Some(into) = &select.into_clause {
            self.into |= self.runs;
            self.walk(Ast::IntoClause(into));
        }
        self.apart(|walker| {
            walker.from(&select.from_clause);
            walker.optional(&select.where_clause);
        });
        let shape = self.targets(&select.target_list);
        self.apart(|walker| {
            walker.nodes(&select.distinct_clause);
            walker.nodes(&select.group_clause);
            walker.optional(&select.having_clause);
            walker.nodes(&select.window_clause);
            let outputs: HashSet<&str> = select
                .target_list
                .iter()
                .filter_map(|node| match ast::from(node) {
                    Some(Ast::ResTarget(target)) if !target.name.is_empty() => {
                        Some(target.name.as_str())
                    }
                    _ => None,
                })
                .collect();
            walker.sort(&select.sort_clause, |name| outputs.contains(name));
            walker.limits(select);
        });
        self.scopes.pop();
        shape
    }

    fn limits(&mut self, select: &pb::SelectStmt) {
        self.optional(&select.limit_offset);
        self.optional(&select.limit_count);
    }

    /// Walks an `ORDER BY`, where a bare name is first an output column's.
    fn sort(&mut self, clause: &[Node], is_output: impl Fn(&str) -> bool) {
        for node in clause {
            if let Some(Ast::SortBy(sort)) = ast::from(node)
                && let Some(Ast::ColumnRef(reference)) = ast::of(&sort.node)
                && let [name] = ast::names(&reference.fields).as_slice()
                && is_output(name)
            {
                continue;
            }
            self.node(node);
        }
    }

    fn values(&mut self, select: &pb::SelectStmt) -> Shape {
        self.scopes.push(Scope::default());
        let mut width = 0;
        let ((), reach) = self.apart(|walker| {
            for row in &select.values_lists {
                if let Some(Ast::List(list)) = ast::from(row) {
                    width = list.items.len();
                }
                walker.node(row);
            }
        });
        self.apart(|walker| {
            walker.sort(&select.sort_clause, |_| true);
            walker.limits(select);
        });
        self.scopes.pop();
        let items = (reach.columns.is_empty() && !reach.unclear)
            .then(|| vec![OutputItem::Expression(Vec::new()); width]);
        Shape { items, reach }
    }

    /// Walks a target list (of a `SELECT`, of `RETURNING`) in the scope of now.
    pub(super) fn targets(&mut self, list: &[Node]) -> Shape {
        let mut items = Some(Vec::with_capacity(list.len().min(64)));
        let mut total = Reach::default();
        for node in list {
            let (item, reach) = self.apart(|walker| walker.target(node));
            let item = match item {
                _ if reach.unclear => None,
                Some(item) => Some(item),
                None => Some(OutputItem::Expression(reach.columns.clone())),
            };
            match (item, &mut items) {
                (Some(OutputItem::Star(tables)), _) if tables.is_empty() => items = None,
                (Some(item), Some(items)) => items.push(item),
                (None, _) => items = None,
                (Some(_), None) => {}
            }
            total.extend(&reach);
        }
        Shape {
            items,
            reach: total,
        }
    }

    /// Walks one item; `None` for an expression, an empty star for one whose
    /// columns cannot be counted.
    fn target(&mut self, node: &Node) -> Option<OutputItem> {
        let Some(Ast::ResTarget(target)) = ast::from(node) else {
            self.node(node);
            return None;
        };
        let Some(Ast::ColumnRef(reference)) = ast::of(&target.val) else {
            self.optional(&target.val);
            return None;
        };
        let star = matches!(
            reference
                .fields
                .last()
                .and_then(|field| field.node.as_ref()),
            Some(NodeEnum::AStar(_))
        );
        let column = self.column_ref(reference);
        if star {
            return Some(OutputItem::Star(self.star(reference)));
        }
        column.map(OutputItem::Column)
    }

    /// The tables whose columns a star stands for, in order; none when it is
    /// not certain.
    fn star(&mut self, reference: &pb::ColumnRef) -> Vec<Table> {
        let names = ast::names(&reference.fields);
        let relations: Vec<Relation> = match names.as_slice() {
            [] => match self.scopes.last() {
                Some(scope) if !scope.merged => scope.open().cloned().collect(),
                _ => return Vec::new(),
            },
            [alias] => self.find(alias).into_iter().collect(),
            [.., schema, table] => return vec![named(Some(schema), table)],
        };
        self.spend(relations.len());
        let mut tables = Vec::with_capacity(relations.len());
        for relation in relations {
            match relation {
                // Other names for the columns, the same columns in the same order.
                Relation::Table(table) | Relation::Renamed(table) => tables.push(table),
                Relation::Derived(_) => return Vec::new(),
            }
        }
        tables
    }
}

/// What two arms of a `UNION` return: item by item, where both can be counted.
fn union(left: Shape, right: Shape) -> Shape {
    let counted = |items: &[OutputItem]| {
        items
            .iter()
            .all(|item| matches!(item, OutputItem::Column(_) | OutputItem::Expression(_)))
    };
    let items = match (left.items, right.items) {
        (Some(left), Some(right))
            if left.len() == right.len() && counted(&left) && counted(&right) =>
        {
            Some(
                left.into_iter()
                    .zip(right)
                    .map(|(left, right)| {
                        if left == right {
                            return left;
                        }
                        let mut reach = Reach::default();
                        for item in [&left, &right] {
                            match item {
                                OutputItem::Column(column) => reach.add(column),
                                OutputItem::Expression(columns) => {
                                    columns.iter().for_each(|column| reach.add(column))
                                }
                                _ => reach.unclear = true,
                            }
                        }
                        OutputItem::Expression(reach.columns)
                    })
                    .collect(),
            )
        }
        _ => None,
    };
    let mut reach = left.reach;
    reach.extend(&right.reach);
    Shape {
        items: items.filter(|_| !reach.unclear),
        reach,
    }
}

/// The tag of a `SELECT`.
pub(super) fn select_tag(select: &pb::SelectStmt, into: bool) -> &'static str {
    if into {
        "SELECT INTO"
    } else {
        tags::select(&select.locking_clause)
    }
}
