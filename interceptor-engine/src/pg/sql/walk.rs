//! The one pass over a statement's tree that collects what it names.
//!
//! Expressions and unknown clauses are walked generically, so that nothing is
//! left out; queries (`query`), `FROM` clauses (`from`), references (`names`)
//! and statements that write (`dml`) are walked by hand, for they decide what
//! names mean.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use interceptor_policy::operation::{
    Class, Classes, Column, Move, MoveTo, Statement, Table, WhereClause,
};
use pg_query::Node;
use pg_query::protobuf as pb;

use super::ast::{self, Ast};
use super::effects::Effect;
use super::scope::Scope;
use super::shape::{Reach, Shape};
use super::{Dialect, functions, inner};

/// Steps after which a statement is given up as unreadable. A statement of
/// 10 000 columns takes about 100 000.
const MAX_STEPS: u64 = 5_000_000;

/// Where the text that is read stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Setting {
    pub(super) dialect: Dialect,
    /// In how many other texts it is.
    pub(super) depth: u8,
    /// In the body of a function or block: its variables.
    pub(super) variables: Option<Arc<Variables>>,
    /// Steps that were spent before.
    pub(super) steps: u64,
}

/// What a body's names may mean apart from columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    /// Certainly in view wherever the text stands, and meant before a column of
    /// the same name (which PostgreSQL refuses as ambiguous).
    pub(super) certain: HashSet<String>,
}

/// The pass.
#[derive(Debug, Default)]
pub(super) struct Walker {
    pub(super) setting: Setting,
    /// What texts inside of the statement do to the session.
    pub(super) effects: Vec<Effect>,
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
    pub(super) ctes: Vec<HashMap<String, Arc<Shape>>>,
    /// Recursive CTEs so far.
    pub(super) recursive: usize,
    /// What decides which rows the query that is walked now has.
    pub(super) told: Reach,
    captures: Vec<Reach>,
    seen_tables: HashSet<Table>,
    seen_columns: HashSet<Column>,
    seen_functions: HashSet<Arc<str>>,
    seen_predicates: HashSet<Column>,
    seen_moves: HashSet<Move>,
    steps: u64,
}

impl Walker {
    /// One for a statement that runs.
    pub(super) fn new(setting: Setting) -> Self {
        Self {
            runs: true,
            steps: setting.steps,
            setting,
            ..Self::default()
        }
    }

    /// Steps spent until now.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Goes on from where the reading of a text inside of this one ended.
    pub(super) fn resume_at(&mut self, steps: u64) {
        self.steps = self.steps.max(steps);
    }

    /// The value that is walked now may come from anywhere.
    pub(super) fn unclear(&mut self) {
        if let Some(capture) = self.captures.last_mut() {
            capture.unclear = true;
        }
    }

    /// Whether an unqualified name is a variable and not a column.
    pub(super) fn is_variable(&self, name: &str) -> bool {
        self.setting.variables.as_ref().is_some_and(|variables| {
            variables.certain.contains(name)
                || !self
                    .scopes
                    .iter()
                    .any(|scope| scope.open().next().is_some())
        })
    }

    /// Adds a statement inside this one; all of it when it runs, else only
    /// what it names.
    pub(super) fn absorb(&mut self, inner: &Statement, runs: bool) {
        for table in &inner.tables {
            self.add_table(table.clone());
        }
        for column in &inner.columns {
            self.column(column.clone());
        }
        for function in &inner.functions {
            self.add_function(Arc::clone(function));
        }
        self.tell(&Reach {
            columns: inner.predicates.clone(),
            ..Reach::default()
        });
        self.by_literals = true;
        if !runs {
            return;
        }
        for moved in &inner.moves {
            self.add_move(moved.clone());
        }
        self.found.classes = self.found.classes.union(inner.classes);
        for tag in &inner.tags {
            self.tag(tag);
        }
        if let Some(clause) = inner.where_clause {
            self.weakest_where(clause);
        }
        self.found.writes_inside_read |= inner.writes_inside_read;
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

    /// Notes what decides which rows there are, or in which order.
    pub(super) fn tell(&mut self, reach: &Reach) {
        for column in &reach.columns {
            if self.seen_predicates.insert(column.clone()) {
                self.found.predicates.push(column.clone());
            }
        }
        self.told.extend(reach);
    }

    /// The same for a relation whose rows were decided before.
    pub(super) fn tell_again(&mut self, told: &Reach) {
        self.told.extend(told);
    }

    /// Notes that values go elsewhere than into the result.
    pub(super) fn moved(&mut self, reach: &Reach, to: MoveTo) {
        for column in &reach.columns {
            self.add_move(Move {
                column: column.clone(),
                to,
            });
        }
    }

    pub(super) fn add_move(&mut self, moved: Move) {
        if self.seen_moves.insert(moved.clone()) {
            self.found.moves.push(moved);
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
            self.unclear();
        }
        if self.runs {
            self.found.classes = self.found.classes.union(classes);
        }
        // Built-in functions have one name, with or without their schema.
        let full = match schema {
            None | Some("pg_catalog") => Arc::from(name),
            Some(schema) => Arc::from(format!("{schema}.{name}")),
        };
        self.add_function(full);
    }

    /// Whether a function of that name, without a schema, is called.
    pub(super) fn calls(&self, name: &str) -> bool {
        self.seen_functions.contains(name)
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
            Ast::AIndirection(path) => {
                // `(row).field`: of which table is not known here.
                for name in ast::names(&path.indirection) {
                    self.column(Column {
                        table: None,
                        name: Arc::from(name),
                    });
                }
                ast.children(&mut |child| self.walk(child));
            }
            Ast::SelectStmt(select) => {
                // Whether there are rows is told by the value as well.
                let shape = self.query(select);
                self.reach(&shape.reach);
                self.reach(&shape.told);
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
                self.item_of_from(ast);
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
        inner::text_of_call(self, call);
        let ((), reach) = self.apart(|walker| {
            Ast::FuncCall(call).children(&mut |child| walker.walk(child));
        });
        self.reach(&reach);
        let (schema, name) = match names.as_slice() {
            [] => return,
            [name] => (None, *name),
            [.., schema, name] => (Some(*schema), *name),
        };
        if functions::keeps_or_sends(schema, name) {
            self.moved(&reach, MoveTo::Function);
        }
        if functions::runs_text(name) {
            self.reach(&Reach::anything());
        }
        if functions::returns_rows(name) {
            // How many rows come of it.
            self.tell(&reach);
        }
        if let Some(over) = &call.over
            && !(over.name.is_empty() && over.refname.is_empty())
        {
            let windows = self.scopes.last().map(|scope| scope.windows.clone());
            self.reach(&windows.unwrap_or_default());
        }
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
