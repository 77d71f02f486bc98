//! One statement of a message: its meaning, and what it does to the session.

use std::sync::Arc;

use interceptor_policy::operation::{
    Class, Classes, Column, MoveTo, Output, OutputItem, Statement, Table,
};
use pg_query::Node;
use pg_query::protobuf as pb;

use super::ast::{self, Ast};
use super::query::select_tag;
use super::scope::{Relation, Scope, all_of};
use super::walk::{Setting, Walker};
use super::{Effect, UNCLASSIFIED, behind, body, effects, moves, rights, tags};

/// What was read of one statement.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) statement: Statement,
    pub(super) effects: Vec<Effect>,
    /// It means something else with other integer constants, or may do.
    pub(super) by_literals: bool,
    /// Steps that were spent until its end.
    pub(super) steps: u64,
}

/// Why a statement has no meaning: it takes too long to work out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

/// Reads one statement.
pub(super) fn read(ast: Ast<'_>, setting: &Setting) -> Result<Read, TooMuch> {
    let mut reader = Reader {
        walker: Walker::new(setting.clone()),
        effects: Vec::new(),
        output: Output::Nothing,
        reading: false,
        by_literals: true,
    };
    reader.statement(ast)?;
    if reader.walker.is_exhausted() {
        return Err(TooMuch);
    }
    rights::add(&mut reader.walker, ast);
    let classes = reader.walker.classes();
    // The arguments of `set_config` are looked at, numbers included.
    let by_literals =
        reader.by_literals || reader.walker.by_literals || reader.walker.calls("set_config");
    let steps = reader.walker.steps();
    let mut effects = reader.effects;
    effects.append(&mut reader.walker.effects);
    let mut statement = reader.walker.found;
    statement.classes = classes;
    statement.output = reader.output;
    let changes = Classes::of(Class::Write).union(Classes::of(Class::Ddl));
    if reader.reading && classes.intersects(changes) {
        statement.writes_inside_read = true;
    }
    Ok(Read {
        statement,
        effects,
        by_literals,
        steps,
    })
}

/// The reading of one statement.
pub(super) struct Reader {
    pub(super) walker: Walker,
    effects: Vec<Effect>,
    output: Output,
    /// By its name it only reads.
    reading: bool,
    by_literals: bool,
}

impl Reader {
    fn statement(&mut self, ast: Ast<'_>) -> Result<(), TooMuch> {
        match ast {
            Ast::SelectStmt(select) => {
                self.by_literals = false;
                self.reading = true;
                self.select(select);
            }
            Ast::InsertStmt(_) | Ast::UpdateStmt(_) | Ast::DeleteStmt(_) | Ast::MergeStmt(_) => {
                self.by_literals = false;
                let shape = self.walker.write(ast);
                // The statement's own tag first, then those of its CTEs.
                let own = match ast {
                    Ast::InsertStmt(_) => "INSERT",
                    Ast::UpdateStmt(_) => "UPDATE",
                    Ast::DeleteStmt(_) => "DELETE",
                    _ => "MERGE",
                };
                self.own_tag_first(own);
                self.output = shape.output();
            }
            // What PL/pgSQL makes of `variable := expression`.
            Ast::PlAssignStmt(assign) => {
                self.reading = true;
                self.walker.nodes(&assign.indirection);
                if let Some(select) = &assign.val {
                    self.select(select);
                }
            }
            _ => {
                let (tag, classes) = tags::of(ast);
                self.walker.tag(tag);
                self.walker.found.classes = classes;
                behind::name(&mut self.walker, ast);
                self.utility(ast)?;
                self.walker.moved_by(ast);
            }
        }
        effects::of(ast, &mut self.effects);
        Ok(())
    }

    /// Reads a statement inside this one.
    fn inner(&mut self, ast: Ast<'_>) -> Result<Read, TooMuch> {
        let setting = Setting {
            steps: self.walker.steps(),
            ..self.walker.setting.clone()
        };
        read(ast, &setting)
    }

    fn own_tag_first(&mut self, own: &'static str) {
        let tags = &mut self.walker.found.tags;
        tags.retain(|tag| *tag != own);
        tags.insert(0, own);
    }

    fn select(&mut self, select: &pb::SelectStmt) {
        let shape = self.walker.query(select);
        let tag = select_tag(select, self.walker.into);
        self.own_tag_first(tag);
        self.walker.class(Class::Read);
        self.output = if self.walker.into {
            moves::of_shape(&mut self.walker, &shape, MoveTo::Table);
            Output::Nothing
        } else {
            shape.output()
        };
    }

    fn utility(&mut self, ast: Ast<'_>) -> Result<(), TooMuch> {
        match ast {
            Ast::ExplainStmt(explain) => {
                self.reading = true;
                let runs = effects::analyzes(explain);
                if let Some(query) = ast::of(&explain.query) {
                    let inner = self.inner(query)?;
                    self.absorb(inner, runs);
                }
            }
            Ast::PrepareStmt(prepare) => {
                if let Some(query) = ast::of(&prepare.query) {
                    let mut inner = self.inner(query)?;
                    self.effects.push(Effect::Prepare {
                        name: Arc::from(prepare.name.as_str()),
                        inner: Arc::new(inner.statement.clone()),
                    });
                    inner.effects.clear();
                    self.absorb(inner, true);
                }
            }
            Ast::DeclareCursorStmt(declare) => {
                self.reading = true;
                if let Some(query) = ast::of(&declare.query) {
                    let inner = self.inner(query)?;
                    self.effects.push(Effect::DeclareCursor {
                        name: Arc::from(declare.portalname.as_str()),
                        inner: Arc::new(inner.statement.clone()),
                        hold: declare.options & effects::CURSOR_HOLD != 0,
                    });
                    self.absorb(inner, true);
                }
            }
            Ast::CreateTableAsStmt(create) => {
                if let Some(query) = ast::of(&create.query) {
                    let inner = self.inner(query)?;
                    for moved in moves::of_output(&inner.statement, MoveTo::Table) {
                        self.walker.add_move(moved);
                    }
                    self.absorb_quietly(inner);
                }
                if let Some(into) = &create.into {
                    self.walker.walk(Ast::IntoClause(into));
                }
            }
            Ast::CopyStmt(copy) => self.copy(copy)?,
            Ast::ViewStmt(view) => self.written_down(Ast::ViewStmt(view)),
            Ast::DoStmt(block) => body::run(self, block),
            Ast::CreateFunctionStmt(create) => {
                self.about_a_table(ast, false);
                body::written_down(self, create);
            }
            Ast::RuleStmt(_)
            | Ast::CreatePolicyStmt(_)
            | Ast::AlterPolicyStmt(_)
            | Ast::CreateTrigStmt(_)
            | Ast::CreatePublicationStmt(_)
            | Ast::AlterPublicationStmt(_) => self.about_a_table(ast, false),
            Ast::CreateStmt(_)
            | Ast::CreateForeignTableStmt(_)
            | Ast::CreateDomainStmt(_)
            | Ast::CreateStatsStmt(_) => self.about_a_table(ast, false),
            Ast::IndexStmt(_) | Ast::AlterTableStmt(_) => self.about_a_table(ast, true),
            Ast::CreateSchemaStmt(create) => {
                for element in &create.schema_elts {
                    if let Some(element) = ast::from(element) {
                        let inner = self.inner(element)?;
                        self.absorb(inner, true);
                    }
                }
            }
            Ast::DropStmt(drop) => self.dropped(drop),
            Ast::CommentStmt(comment) => self.object(comment.objtype(), comment.object.as_deref()),
            Ast::SecLabelStmt(label) => self.object(label.objtype(), label.object.as_deref()),
            Ast::RenameStmt(rename) => self.rename(rename),
            Ast::FetchStmt(_) | Ast::ExecuteStmt(_) | Ast::CallStmt(_) => {
                self.output = Output::Unclear;
                self.walker.walk(ast);
            }
            Ast::VacuumStmt(vacuum) => {
                for relation in &vacuum.rels {
                    if let Some(Ast::VacuumRelation(relation)) = ast::from(relation) {
                        self.on(relation.relation.as_ref(), &relation.va_cols);
                    }
                }
            }
            Ast::GrantStmt(grant) => self.grant(grant),
            other => self.walker.walk(other),
        }
        Ok(())
    }

    /// Adds a statement inside this one; all of it when it runs, else only
    /// what it names.
    fn absorb(&mut self, inner: Read, runs: bool) {
        self.by_literals = true;
        self.walker.resume_at(inner.steps);
        self.walker.absorb(&inner.statement, runs);
        if !runs && inner.statement.classes.contains(Class::Procedural) {
            // The planner may run a function that promises to be immutable.
            self.walker.class(Class::Procedural);
        }
        self.effects.extend(inner.effects);
    }

    /// As [`Reader::absorb`], for a query that is only the source of rows.
    fn absorb_quietly(&mut self, inner: Read) {
        let own = self.walker.found.tags.clone();
        let nested: Vec<_> = inner
            .statement
            .tags
            .iter()
            .copied()
            .filter(|tag| !tag.starts_with("SELECT"))
            .collect();
        self.absorb(inner, true);
        self.walker.found.tags = own;
        for tag in nested {
            self.walker.tag(tag);
        }
    }

    fn copy(&mut self, copy: &pb::CopyStmt) -> Result<(), TooMuch> {
        let name = match (copy.is_from, copy.is_program, copy.filename.is_empty()) {
            (true, true, _) => Some("copy_from_program"),
            (false, true, _) => Some("copy_to_program"),
            (true, false, false) => Some("copy_from_file"),
            (false, false, false) => Some("copy_to_file"),
            (_, false, true) => None,
        };
        if let Some(name) = name {
            self.walker.add_function(Arc::from(name));
        }
        if copy.is_program {
            self.walker.class(Class::Procedural);
        }
        let mut output = Output::Unclear;
        if let Some(query) = ast::of(&copy.query) {
            self.reading = true;
            let inner = self.inner(query)?;
            output = inner.statement.output.clone();
            self.absorb_quietly(inner);
        }
        if let Some(range) = &copy.relation {
            let table = self.walker.table(range);
            if copy.is_from {
                rights::written(&mut self.walker, &table);
            }
            output = Output::Items(self.columns(&table, &copy.attlist));
            if let Some(condition) = ast::of(&copy.where_clause) {
                self.in_scope(&table, |walker| walker.walk(condition));
            }
        }
        if copy.is_from {
            return Ok(());
        }
        if name.is_none() {
            self.output = output;
        } else {
            let written = Statement {
                columns: self.walker.found.columns.clone(),
                output,
                ..Statement::default()
            };
            for moved in moves::of_output(&written, MoveTo::File) {
                self.walker.add_move(moved);
            }
        }
        Ok(())
    }

    /// A table's columns as listed; all of them where none is.
    fn columns(&mut self, table: &Table, list: &[Node]) -> Vec<OutputItem> {
        if list.is_empty() {
            self.walker.column(all_of(table));
            return vec![OutputItem::Star(vec![table.clone()])];
        }
        let mut items = Vec::with_capacity(list.len());
        for name in ast::names(list) {
            self.walker.column_of(table, name);
            items.push(OutputItem::Column(Column {
                table: Some(table.clone()),
                name: Arc::from(name),
            }));
        }
        items
    }

    fn on(&mut self, range: Option<&pb::RangeVar>, columns: &[Node]) {
        if let Some(range) = range {
            let table = self.walker.table(range);
            for name in ast::names(columns) {
                self.walker.column_of(&table, name);
            }
        }
    }

    pub(super) fn in_scope(&mut self, table: &Table, walk: impl FnOnce(&mut Walker)) {
        let mut scope = Scope::default();
        scope.add(Some(&table.name), Relation::Table(table.clone()));
        self.walker.scopes.push(scope);
        walk(&mut self.walker);
        self.walker.scopes.pop();
    }

    /// Walks what is stored and not run now: names count, effects do not.
    fn written_down(&mut self, ast: Ast<'_>) {
        self.walker.runs = false;
        self.walker.walk(ast);
        self.walker.runs = true;
    }
}

/// A statement that could not be read.
pub(super) fn unclassified() -> Statement {
    Statement {
        tags: vec![UNCLASSIFIED],
        classes: Classes::of(Class::Unclassified),
        output: Output::Unclear,
        ..Statement::default()
    }
}
