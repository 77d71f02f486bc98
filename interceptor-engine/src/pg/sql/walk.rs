//! The one pass over a statement's tree that collects what it names.
//!
//! Expressions and unknown clauses are walked generically, so that nothing is
//! left out; queries (here), `FROM` clauses (`from`) and statements that write
//! (`dml`) are walked by hand, for they decide what names mean.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use interceptor_policy::operation::{
    Class, Classes, Column, OutputItem, Statement, Table, WhereClause,
};
use pg_query::protobuf as pb;
use pg_query::{Node, NodeEnum};

use super::ast::{self, Ast};
use super::scope::{Reach, Relation, Scope, all_of};
use super::{functions, tags};

/// Steps after which a statement is given up as unreadable. A statement of
/// 10 000 columns takes about 100 000.
const MAX_STEPS: u64 = 5_000_000;

/// What a query returns, as far as the text says.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// One for each item of the target list; `None` where that is not certain.
    pub(super) items: Option<Vec<OutputItem>>,
    /// Everything that any of them is computed from.
    pub(super) reach: Reach,
}

/// The pass.
#[derive(Debug, Default)]
pub(super) struct Walker {
    /// What has been found so far.
    pub(super) found: Statement,
    /// What is walked takes place when the statement runs, and is not only
    /// written down (the body of a view or of a rule).
    pub(super) runs: bool,
    /// It reads from a table, beyond what is in its `WHERE`.
    pub(super) reads: bool,
    /// A `SELECT` with `INTO`.
    pub(super) into: bool,
    /// Something found rests on the values of integer constants.
    pub(super) by_literals: bool,
    pub(super) scopes: Vec<Scope>,
    ctes: Vec<HashMap<String, Arc<Reach>>>,
    captures: Vec<Reach>,
    seen_tables: HashSet<Table>,
    seen_columns: HashSet<Column>,
    seen_functions: HashSet<Arc<str>>,
    steps: u64,
}

impl Walker {
    /// One for a statement that runs.
    pub(super) fn new() -> Self {
        Self {
            runs: true,
            ..Self::default()
        }
    }

    /// Too much work: what was found is incomplete.
    pub(super) fn is_exhausted(&self) -> bool {
        self.steps > MAX_STEPS
    }

    pub(super) fn spend(&mut self, steps: usize) {
        self.steps = self.steps.saturating_add(steps as u64);
    }

    pub(super) fn tag(&mut self, tag: &'static str) {
        if !self.found.tags.contains(&tag) {
            self.found.tags.push(tag);
        }
    }

    pub(super) fn class(&mut self, class: Class) {
        self.found.classes.insert(class);
    }

    pub(super) fn weakest_where(&mut self, clause: WhereClause) {
        let weakest = self
            .found
            .where_clause
            .map_or(clause, |known| known.min(clause));
        self.found.where_clause = Some(weakest);
    }

    /// Notes a table and gives it back.
    pub(super) fn table(&mut self, range: &pb::RangeVar) -> Table {
        let table = table_of(range);
        self.add_table(table.clone());
        table
    }

    pub(super) fn add_table(&mut self, table: Table) {
        if self.seen_tables.insert(table.clone()) {
            self.found.tables.push(table);
        }
    }

    /// Notes a column, also as what the value now walked is computed from.
    pub(super) fn column(&mut self, column: Column) {
        if let Some(capture) = self.captures.last_mut() {
            capture.add(&column);
        }
        if self.seen_columns.insert(column.clone()) {
            self.found.columns.push(column);
        }
    }

    pub(super) fn column_of(&mut self, table: &Table, name: &str) {
        self.column(Column {
            table: Some(table.clone()),
            name: Arc::from(name),
        });
    }

    pub(super) fn reach(&mut self, reach: &Reach) {
        if let Some(capture) = self.captures.last_mut() {
            capture.extend(reach);
        }
    }

    /// Walks something on its own: what it is computed from.
    pub(super) fn apart<R>(&mut self, walk: impl FnOnce(&mut Self) -> R) -> (R, Reach) {
        self.captures.push(Reach::default());
        let result = walk(self);
        (result, self.captures.pop().unwrap_or_default())
    }

    pub(super) fn function(&mut self, schema: Option<&str>, name: &str) {
        let classes = functions::classes(schema, name);
        if classes.contains(Class::Procedural) {
            if let Some(capture) = self.captures.last_mut() {
                capture.unclear = true;
            }
        }
        if self.runs {
            self.found.classes = self.found.classes.union(classes);
        }
        // Built-in functions have one name, with or without their schema.
        let full = match schema {
            None | Some("pg_catalog") => name.to_ascii_lowercase(),
            Some(schema) => format!("{schema}.{name}").to_ascii_lowercase(),
        };
        self.add_function(Arc::from(full));
    }

    pub(super) fn add_function(&mut self, name: Arc<str>) {
        if self.seen_functions.insert(Arc::clone(&name)) {
            self.found.functions.push(name);
        }
    }

    pub(super) fn node(&mut self, node: &Node) {
        if let Some(ast) = ast::from(node) {
            self.walk(ast);
        }
    }

    pub(super) fn optional(&mut self, node: &Option<Box<Node>>) {
        if let Some(ast) = ast::of(node) {
            self.walk(ast);
        }
    }

    pub(super) fn nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.node(node);
        }
    }

    /// Walks whatever this is.
    pub(super) fn walk(&mut self, ast: Ast<'_>) {
        self.spend(1);
        if self.is_exhausted() {
            return;
        }
        match ast {
            Ast::RangeVar(range) => {
                self.table(range);
            }
            Ast::ColumnRef(reference) => {
                self.column_ref(reference);
            }
            Ast::FuncCall(call) => {
                self.func_call(call);
            }
            Ast::SelectStmt(select) => {
                let shape = self.query(select);
                self.reach(&shape.reach);
            }
            Ast::InsertStmt(_) | Ast::UpdateStmt(_) | Ast::DeleteStmt(_) | Ast::MergeStmt(_) => {
                let shape = self.write(ast);
                self.reach(&shape.reach);
            }
            // Names aliases, not tables.
            Ast::LockingClause(_) => {}
            Ast::JoinExpr(_) | Ast::RangeSubselect(_) | Ast::RangeFunction(_) => {
                // Outside a FROM only in trees that no grammar makes.
                self.scopes.push(Scope::default());
                self.from_item(ast);
                self.scopes.pop();
            }
            other => other.children(&mut |child| self.walk(child)),
        }
    }

    fn func_call(&mut self, call: &pb::FuncCall) {
        let names = ast::names(&call.funcname);
        match names.as_slice() {
            [] => {}
            [name] => self.function(None, name),
            [.., schema, name] => self.function(Some(schema), name),
        }
        Ast::FuncCall(call).children(&mut |child| self.walk(child));
    }

    /// Walks a reference to a column, a whole row or all columns. The answer
    /// is the column, where it is one table's and nothing else.
    pub(super) fn column_ref(&mut self, reference: &pb::ColumnRef) -> Option<Column> {
        let names = ast::names(&reference.fields);
        let star = matches!(
            reference
                .fields
                .last()
                .and_then(|field| field.node.as_ref()),
            Some(NodeEnum::AStar(_))
        );
        match (names.as_slice(), star) {
            ([], true) => {
                let open: Vec<Relation> = self
                    .scopes
                    .last()
                    .map(|scope| scope.open().cloned().collect())
                    .unwrap_or_default();
                self.spend(open.len());
                for relation in &open {
                    self.whole(relation);
                }
                None
            }
            ([.., schema, table], true) => {
                self.column(all_of(&named(Some(schema), table)));
                None
            }
            ([alias], true) => {
                match self.find(alias) {
                    Some(relation) => self.whole(&relation),
                    None => self.column(all_of(&named(None, alias))),
                }
                None
            }
            ([name], false) => self.unqualified(name),
            ([alias, name], false) => self.qualified(alias, name),
            ([.., schema, table, name], false) => {
                let column = Column {
                    table: Some(named(Some(schema), table)),
                    name: Arc::from(*name),
                };
                self.column(column.clone());
                self.row_function(&named(Some(schema), table), name);
                Some(column)
            }
            ([], false) => None,
        }
    }

    /// All columns of a relation.
    fn whole(&mut self, relation: &Relation) {
        match relation {
            Relation::Table(table) | Relation::Renamed(table) => self.column(all_of(table)),
            Relation::Derived(reach) => self.reach(&Arc::clone(reach)),
        }
    }

    /// `t.f` may also be `f(t)`.
    fn row_function(&mut self, table: &Table, name: &str) {
        if functions::takes_a_row(name) {
            self.column(all_of(table));
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

    fn qualified(&mut self, alias: &str, name: &str) -> Option<Column> {
        match self.find(alias) {
            Some(Relation::Table(table)) => {
                let column = Column {
                    table: Some(table.clone()),
                    name: Arc::from(name),
                };
                self.column(column.clone());
                if functions::takes_a_row(name) {
                    self.row_function(&table, name);
                    return None;
                }
                Some(column)
            }
            Some(relation @ Relation::Renamed(_)) => {
                self.column(Column {
                    table: None,
                    name: Arc::from(name),
                });
                self.whole(&relation);
                None
            }
            Some(relation @ Relation::Derived(_)) => {
                self.whole(&relation);
                None
            }
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

    fn unqualified(&mut self, name: &str) -> Option<Column> {
        // `u` of `FROM users u` is the whole row, unless some table has a
        // column of that name.
        let row = self.find(name);
        let mut tables: Vec<Table> = Vec::new();
        let mut others: Vec<Relation> = Vec::new();
        let mut any = false;
        let mut looked_at = 0;
        for scope in self.scopes.iter().rev() {
            for relation in scope.open() {
                looked_at += 1;
                any = true;
                match relation {
                    Relation::Table(table) => {
                        // Two are as good as many.
                        if tables.len() < 2 && !tables.contains(table) {
                            tables.push(table.clone());
                        }
                    }
                    other => others.push(other.clone()),
                }
            }
        }
        self.spend(looked_at);
        let only = match tables.as_slice() {
            [table] if others.is_empty() => Some(table.clone()),
            _ => None,
        };
        let certain = only.is_some() && row.is_none();
        let column = Column {
            table: only,
            name: Arc::from(name),
        };
        let derived_only = tables.is_empty()
            && any
            && others
                .iter()
                .all(|relation| matches!(relation, Relation::Derived(_)));
        // What a subquery returns was noted where the subquery named it.
        if !derived_only {
            self.column(column.clone());
        }
        for relation in &others {
            self.whole(relation);
        }
        if let Some(row) = row {
            self.whole(&row);
        }
        certain.then_some(column)
    }

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
            if let Some(Ast::SortBy(sort)) = ast::from(node) {
                if let Some(Ast::ColumnRef(reference)) = ast::of(&sort.node) {
                    if let [name] = ast::names(&reference.fields).as_slice() {
                        if is_output(name) {
                            continue;
                        }
                    }
                }
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

    /// The classes found, and those that follow from what was found.
    pub(super) fn classes(&self) -> Classes {
        let mut classes = self.found.classes;
        if self.reads && self.runs {
            classes.insert(Class::Read);
        }
        if self.into && self.runs {
            classes.insert(Class::Write);
            classes.insert(Class::Ddl);
        }
        classes
    }
}

/// What two arms of a `UNION` return: item by item, where both can be counted.
fn union(left: Shape, right: Shape) -> Shape {
    let counted =
        |items: &[OutputItem]| !items.iter().any(|item| matches!(item, OutputItem::Star(_)));
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
                                OutputItem::Star(_) => reach.unclear = true,
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

/// The table that a range variable names; the database before it says nothing,
/// for it can only be the one connected to.
pub(super) fn table_of(range: &pb::RangeVar) -> Table {
    named(
        (!range.schemaname.is_empty()).then_some(range.schemaname.as_str()),
        &range.relname,
    )
}

pub(super) fn named(schema: Option<&str>, name: &str) -> Table {
    Table {
        schema: schema.map(Arc::from),
        name: Arc::from(name),
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
