//! Queries: `WITH`, `SELECT`, `VALUES`, `UNION`, and what they return.

use std::collections::HashMap;
use std::sync::Arc;

use interceptor_policy::operation::Class;
use pg_query::protobuf as pb;
use pg_query::protobuf::SetOperation;
use pg_query::{Node, NodeEnum};

use super::ast::{self, Ast};
use super::scope::Scope;
use super::shape::{Item, Out, Reach, Shape, union};
use super::tags;
use super::walk::Walker;

/// PostgreSQL refuses a longer target list (`MaxTupleAttributeNumber`).
const MAX_COLUMNS: usize = 1664;

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
            let unknown = Arc::new(Shape::blurred(Reach::anything()));
            for query in &queries {
                self.bind(&query.ctename, Arc::clone(&unknown));
            }
        }
        for query in queries {
            let mut own = None;
            if with.recursive {
                self.recursive += 1;
                own = Some(self.recursive);
                let pending = Reach {
                    pending: vec![self.recursive],
                    ..Reach::default()
                };
                self.bind(&query.ctename, Arc::new(Shape::blurred(pending)));
            }
            let mut shape = self.cte(query);
            if let Some(id) = own {
                shape.settle(id);
            }
            self.bind(&query.ctename, Arc::new(shape));
        }
    }

    fn cte(&mut self, query: &pb::CommonTableExpr) -> Shape {
        let (shape, _) = self.apart(|walker| {
            let mut shape = match ast::of(&query.ctequery) {
                Some(Ast::SelectStmt(select)) => walker.query(select),
                Some(write) => walker.write(write),
                None => Shape::default(),
            };
            walker.search_and_cycle(query);
            if query.search_clause.is_some() || query.cycle_clause.is_some() {
                // They add columns that hold values of others.
                shape.blur();
            } else {
                shape.rename(&ast::names(&query.aliascolnames));
            }
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

    fn bind(&mut self, name: &str, shape: Arc<Shape>) {
        if let Some(frame) = self.ctes.last_mut() {
            frame.insert(name.to_owned(), shape);
        }
    }

    /// See [`Walker::enter_with`].
    pub(super) fn leave_with(&mut self, with: Option<&pb::WithClause>) {
        if with.is_some() {
            self.ctes.pop();
        }
    }

    /// The CTE that an unqualified name means.
    pub(super) fn cte_named(&mut self, name: &str) -> Option<Arc<Shape>> {
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
        let outer = std::mem::take(&mut self.told);
        let mut shape = match (&select.larg, &select.rarg) {
            (Some(left), Some(right)) => {
                let left = self.query(left);
                let right = self.query(right);
                self.spend(left.outs.len() + right.outs.len());
                let shape = union(left, right);
                if !(select.all && select.op() == SetOperation::SetopUnion) {
                    self.tell(&shape.reach);
                }
                self.scopes.push(Scope::default());
                self.sort(&select.sort_clause, &shape.outs, Names::Outputs);
                self.limits(select);
                self.scopes.pop();
                shape
            }
            _ if !select.values_lists.is_empty() => self.values(select),
            _ => self.plain(select),
        };
        shape.told.extend(&std::mem::replace(&mut self.told, outer));
        self.leave_with(select.with_clause.as_ref());
        shape
    }

    fn plain(&mut self, select: &pb::SelectStmt) -> Shape {
        self.scopes.push(Scope::default());
        if let Some(into) = &select.into_clause {
            self.into |= self.runs;
            self.walk(Ast::IntoClause(into));
        }
        self.apart(|walker| walker.from(&select.from_clause));
        self.predicate(|walker| walker.optional(&select.where_clause));
        let windows = self.predicate(|walker| walker.nodes(&select.window_clause));
        if let Some(scope) = self.scopes.last_mut() {
            scope.windows = windows;
        }
        let shape = self.targets(&select.target_list);
        match select.distinct_clause.as_slice() {
            [] => {}
            [Node { node: None }] => self.tell(&shape.reach),
            on => self.sort(on, &shape.outs, Names::Outputs),
        }
        self.sort(&select.group_clause, &shape.outs, Names::Both);
        self.predicate(|walker| walker.optional(&select.having_clause));
        self.sort(&select.sort_clause, &shape.outs, Names::Outputs);
        self.limits(select);
        self.scopes.pop();
        shape
    }

    fn limits(&mut self, select: &pb::SelectStmt) {
        self.predicate(|walker| {
            walker.optional(&select.limit_offset);
            walker.optional(&select.limit_count);
        });
    }

    /// Walks something that decides which rows there are, or in which order.
    pub(super) fn predicate(&mut self, walk: impl FnOnce(&mut Self)) -> Reach {
        let ((), reach) = self.apart(walk);
        self.tell(&reach);
        reach
    }

    /// Walks an `ORDER BY`, `DISTINCT ON` or `GROUP BY`, whose entries may name
    /// output columns, or count them.
    fn sort(&mut self, clause: &[Node], outs: &[Out], names: Names) {
        for node in clause {
            let key = match ast::from(node) {
                Some(Ast::SortBy(sort)) => ast::of(&sort.node),
                other => other,
            };
            let output = match key {
                Some(Ast::ColumnRef(reference)) => match ast::names(&reference.fields).as_slice() {
                    [name] => self.outputs_named(name, outs),
                    _ => None,
                },
                Some(Ast::AConst(constant)) => self.output_counted(constant, outs),
                _ => None,
            };
            if let Some(reach) = &output {
                self.tell(reach);
                if names == Names::Outputs {
                    continue;
                }
            }
            self.predicate(|walker| walker.node(node));
        }
    }

    fn outputs_named(&mut self, name: &str, outs: &[Out]) -> Option<Reach> {
        self.spend(outs.len() / 8);
        let mut found: Option<Reach> = None;
        for out in outs {
            if out.name.as_deref() == Some(name) {
                found.get_or_insert_default().extend(&out.item.reach());
            }
        }
        found
    }

    fn output_counted(&mut self, constant: &pb::AConst, outs: &[Out]) -> Option<Reach> {
        let Some(pb::a_const::Val::Ival(number)) = &constant.val else {
            return None;
        };
        // Whichever it is, where nothing hangs on it.
        if outs.iter().all(|out| out.item.reach().is_empty()) {
            return Some(Reach::default());
        }
        self.by_literals = true;
        let at = usize::try_from(number.ival).ok()?.checked_sub(1)?;
        if outs.iter().take(at + 1).all(|out| out.item.is_one()) {
            return outs.get(at).map(|out| out.item.reach());
        }
        let mut all = Reach::default();
        for out in outs {
            all.extend(&out.item.reach());
        }
        Some(all)
    }

    fn values(&mut self, select: &pb::SelectStmt) -> Shape {
        self.scopes.push(Scope::default());
        let mut outs: Vec<Out> = Vec::new();
        for row in &select.values_lists {
            let Some(Ast::List(list)) = ast::from(row) else {
                continue;
            };
            for (at, value) in list.items.iter().enumerate() {
                let ((), reach) = self.apart(|walker| walker.node(value));
                match outs.get_mut(at) {
                    Some(Out {
                        item: Item::Expression(known),
                        ..
                    }) => known.extend(&reach),
                    _ => outs.push(Out {
                        name: Some(Arc::from(format!("column{}", at + 1))),
                        item: Item::Expression(reach),
                    }),
                }
            }
        }
        self.sort(&select.sort_clause, &outs, Names::Outputs);
        self.limits(select);
        self.scopes.pop();
        Shape::of(outs)
    }

    /// Walks a target list (of a `SELECT`, of `RETURNING`) in the scope of now.
    pub(super) fn targets(&mut self, list: &[Node]) -> Shape {
        let mut outs = Vec::with_capacity(list.len().min(64));
        for node in list {
            let (these, _) = self.apart(|walker| walker.target(node));
            self.spend(these.len());
            outs.extend(these);
            if outs.len() > MAX_COLUMNS {
                outs = Shape::blurred(Shape::of(outs).reach).outs;
            }
        }
        Shape::of(outs)
    }

    fn target(&mut self, node: &Node) -> Vec<Out> {
        let Some(Ast::ResTarget(target)) = ast::from(node) else {
            let ((), reach) = self.apart(|walker| walker.node(node));
            return vec![Out::unnamed(Item::Expression(reach))];
        };
        let given = (!target.name.is_empty()).then(|| Arc::from(target.name.as_str()));
        let value = ast::of(&target.val);
        if let Some(Ast::ColumnRef(reference)) = value {
            let mut outs = self.column_ref(reference);
            if let ([Out { name, item }], Some(given)) = (outs.as_mut_slice(), given)
                && item.is_one()
            {
                *name = Some(given);
            }
            return outs;
        }
        let ((), reach) = self.apart(|walker| walker.optional(&target.val));
        let spreads = matches!(value, Some(Ast::AIndirection(path)) if is_star(&path.indirection));
        if spreads {
            return vec![Out::unnamed(Item::Spread(reach))];
        }
        vec![Out {
            name: given.or_else(|| value.and_then(own_name)),
            item: Item::Expression(reach),
        }]
    }
}

/// What a bare name in a clause may mean besides an input column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// An output column, and then nothing else.
    Outputs,
    /// An input column first.
    Both,
}

/// Whether a path of fields ends in `*`.
pub(super) fn is_star(fields: &[Node]) -> bool {
    matches!(
        fields.last().and_then(|field| field.node.as_ref()),
        Some(NodeEnum::AStar(_))
    )
}

/// The name that PostgreSQL gives to an expression's column; only where it is
/// certain.
fn own_name(value: Ast<'_>) -> Option<Arc<str>> {
    match value {
        Ast::FuncCall(call) => call.funcname.last().and_then(ast::name).map(Arc::from),
        // The type's name otherwise.
        Ast::TypeCast(cast) => match ast::of(&cast.arg)? {
            Ast::ColumnRef(reference) => {
                ast::names(&reference.fields).last().copied().map(Arc::from)
            }
            call @ Ast::FuncCall(_) => own_name(call),
            _ => None,
        },
        _ => None,
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
