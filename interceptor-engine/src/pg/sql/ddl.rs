//! Statements about objects: which tables and columns they name.

use interceptor_policy::operation::{Class, Table};
use pg_query::Node;
use pg_query::protobuf as pb;
use pg_query::protobuf::{AlterTableType, ObjectType};

use super::ast::{self, Ast};
use super::statement::Reader;
use super::walk::{Walker, named};

impl Reader {
    /// Walks a statement whose expressions are about one table's columns.
    pub(super) fn about_a_table(&mut self, ast: Ast<'_>, runs: bool) {
        let range = match ast {
            Ast::CreateStmt(create) => create.relation.as_ref(),
            Ast::CreateForeignTableStmt(create) => create
                .base_stmt
                .as_ref()
                .and_then(|create| create.relation.as_ref()),
            Ast::IndexStmt(index) => index.relation.as_ref(),
            Ast::AlterTableStmt(alter) => alter.relation.as_ref(),
            Ast::CreatePolicyStmt(policy) => policy.table.as_ref(),
            Ast::AlterPolicyStmt(policy) => policy.table.as_ref(),
            Ast::CreateTrigStmt(trigger) => trigger.relation.as_ref(),
            _ => None,
        };
        self.walker.runs = runs;
        match range {
            Some(range) => {
                let table = self.walker.table(range);
                self.in_scope(&table, |walker| {
                    parts(walker, &table, ast);
                    walker.walk(ast);
                });
            }
            None => self.walker.walk(ast),
        }
        self.walker.runs = true;
        if let Ast::AlterTableStmt(alter) = ast
            && alter.cmds.iter().any(changes_rights)
        {
            self.walker.class(Class::Dcl);
        }
    }

    pub(super) fn dropped(&mut self, drop: &pb::DropStmt) {
        for object in &drop.objects {
            self.object(drop.remove_type(), Some(object));
        }
    }

    /// An object by name, as `DROP` and `COMMENT` give it: noted where it is a
    /// table or belongs to one.
    pub(super) fn object(&mut self, kind: ObjectType, object: Option<&Node>) {
        let names = match object.and_then(ast::from) {
            Some(Ast::List(list)) => ast::names(&list.items),
            _ => return,
        };
        let (table, rest) = match kind {
            ObjectType::ObjectTable
            | ObjectType::ObjectView
            | ObjectType::ObjectMatview
            | ObjectType::ObjectForeignTable
            | ObjectType::ObjectIndex
            | ObjectType::ObjectSequence => (names.as_slice(), None),
            ObjectType::ObjectColumn => match names.split_last() {
                Some((column, table)) => (table, Some(*column)),
                None => return,
            },
            ObjectType::ObjectTrigger
            | ObjectType::ObjectRule
            | ObjectType::ObjectPolicy
            | ObjectType::ObjectTabconstraint => match names.split_last() {
                Some((_, table)) => (table, None),
                None => return,
            },
            _ => return,
        };
        let table = match table {
            [] => return,
            [name] => named(None, name),
            [.., schema, name] => named(Some(schema), name),
        };
        self.walker.add_table(table.clone());
        if let Some(column) = rest {
            self.walker.column_of(&table, column);
        }
    }

    pub(super) fn rename(&mut self, rename: &pb::RenameStmt) {
        if let Some(range) = &rename.relation {
            let table = self.walker.table(range);
            if rename.rename_type() == ObjectType::ObjectColumn {
                self.walker.column_of(&table, &rename.subname);
            }
        }
    }

    pub(super) fn grant(&mut self, grant: &pb::GrantStmt) {
        self.walker.walk(Ast::GrantStmt(grant));
        let columns: Vec<String> = grant
            .privileges
            .iter()
            .filter_map(|node| match ast::from(node) {
                Some(Ast::AccessPriv(privilege)) => Some(ast::names(&privilege.cols)),
                _ => None,
            })
            .flatten()
            .map(str::to_owned)
            .collect();
        for table in self.walker.found.tables.clone() {
            for column in &columns {
                self.walker.column_of(&table, column);
            }
        }
    }
}

/// Columns that a statement about a table names outside of expressions.
fn parts(walker: &mut Walker, table: &Table, ast: Ast<'_>) {
    match ast {
        Ast::IndexStmt(index) => {
            for element in index
                .index_params
                .iter()
                .chain(&index.index_including_params)
            {
                if let Some(Ast::IndexElem(element)) = ast::from(element)
                    && !element.name.is_empty()
                {
                    walker.column_of(table, &element.name);
                }
            }
        }
        Ast::AlterTableStmt(alter) => {
            for command in &alter.cmds {
                if let Some(Ast::AlterTableCmd(command)) = ast::from(command)
                    && names_a_column(command.subtype())
                    && !command.name.is_empty()
                {
                    walker.column_of(table, &command.name);
                }
            }
        }
        Ast::CreateTrigStmt(trigger) => {
            for name in ast::names(&trigger.columns) {
                walker.column_of(table, name);
            }
        }
        _ => {}
    }
}

fn names_a_column(kind: AlterTableType) -> bool {
    matches!(
        kind,
        AlterTableType::AtColumnDefault
            | AlterTableType::AtDropNotNull
            | AlterTableType::AtSetNotNull
            | AlterTableType::AtSetExpression
            | AlterTableType::AtDropExpression
            | AlterTableType::AtSetStatistics
            | AlterTableType::AtSetOptions
            | AlterTableType::AtResetOptions
            | AlterTableType::AtSetStorage
            | AlterTableType::AtSetCompression
            | AlterTableType::AtDropColumn
            | AlterTableType::AtAlterColumnType
            | AlterTableType::AtAlterColumnGenericOptions
            | AlterTableType::AtAddIdentity
            | AlterTableType::AtSetIdentity
            | AlterTableType::AtDropIdentity
    )
}

fn changes_rights(command: &Node) -> bool {
    matches!(
        ast::from(command),
        Some(Ast::AlterTableCmd(command)) if matches!(
            command.subtype(),
            AlterTableType::AtChangeOwner
                | AlterTableType::AtEnableRowSecurity
                | AlterTableType::AtDisableRowSecurity
                | AlterTableType::AtForceRowSecurity
                | AlterTableType::AtNoForceRowSecurity
        )
    )
}
