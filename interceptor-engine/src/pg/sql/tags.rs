//! A statement's command tag and class.
//!
//! Tags are those of PostgreSQL's `CreateCommandTag`, so that a rule names what
//! `psql` prints, with two that say more: `SELECT FOR UPDATE` (and its weaker
//! kinds) and `SELECT INTO`. A kind of statement that is not listed here is
//! unclassified.

use interceptor_policy::operation::{Class, Classes};
use pg_query::protobuf as pb;
use pg_query::protobuf::{ObjectType, TransactionStmtKind, VariableSetKind};

use super::UNCLASSIFIED;
use super::ast::Ast;

/// Tag and classes of a statement that is not a query; what runs inside it is
/// added by who looks inside.
pub(super) fn of(ast: Ast<'_>) -> (&'static str, Classes) {
    use Class::{CopyIn, CopyOut, Dcl, Ddl, Maintenance, Procedural, Read, Session, Write};

    let (tag, classes): (&'static str, &[Class]) = match ast {
        Ast::CreateStmt(_) => ("CREATE TABLE", &[Ddl]),
        Ast::CreateForeignTableStmt(_) => ("CREATE FOREIGN TABLE", &[Ddl]),
        Ast::CreateSchemaStmt(_) => ("CREATE SCHEMA", &[Ddl]),
        Ast::CreateTableSpaceStmt(_) => ("CREATE TABLESPACE", &[Ddl]),
        Ast::DropTableSpaceStmt(_) => ("DROP TABLESPACE", &[Ddl]),
        Ast::AlterTableSpaceOptionsStmt(_) => ("ALTER TABLESPACE", &[Ddl]),
        // Runs the extension's script.
        Ast::CreateExtensionStmt(_) => ("CREATE EXTENSION", &[Ddl, Procedural]),
        Ast::AlterExtensionStmt(_) => ("ALTER EXTENSION", &[Ddl, Procedural]),
        Ast::AlterExtensionContentsStmt(_) => ("ALTER EXTENSION", &[Ddl]),
        Ast::CreateFdwStmt(_) => ("CREATE FOREIGN DATA WRAPPER", &[Ddl]),
        Ast::AlterFdwStmt(_) => ("ALTER FOREIGN DATA WRAPPER", &[Ddl]),
        Ast::CreateForeignServerStmt(_) => ("CREATE SERVER", &[Ddl]),
        Ast::AlterForeignServerStmt(_) => ("ALTER SERVER", &[Ddl]),
        Ast::CreateUserMappingStmt(_) => ("CREATE USER MAPPING", &[Ddl, Dcl]),
        Ast::AlterUserMappingStmt(_) => ("ALTER USER MAPPING", &[Ddl, Dcl]),
        Ast::DropUserMappingStmt(_) => ("DROP USER MAPPING", &[Ddl, Dcl]),
        Ast::ImportForeignSchemaStmt(_) => ("IMPORT FOREIGN SCHEMA", &[Ddl]),
        Ast::DropStmt(drop) => (object(drop.remove_type()).0, drops(drop.remove_type())),
        Ast::TruncateStmt(_) => ("TRUNCATE TABLE", &[Write]),
        Ast::CommentStmt(_) => ("COMMENT", &[Ddl]),
        Ast::SecLabelStmt(_) => ("SECURITY LABEL", &[Dcl]),
        Ast::CopyStmt(copy) => (
            "COPY",
            if copy.is_from {
                &[CopyIn, Write]
            } else {
                &[CopyOut, Read]
            },
        ),
        Ast::RenameStmt(rename) => (object(renamed(rename)).1, alters(renamed(rename))),
        Ast::AlterObjectDependsStmt(alter) => (object(alter.object_type()).1, &[Ddl]),
        Ast::AlterObjectSchemaStmt(alter) => (object(alter.object_type()).1, &[Ddl]),
        Ast::AlterOwnerStmt(alter) => (object(alter.object_type()).1, &[Ddl, Dcl]),
        Ast::AlterTableMoveAllStmt(alter) => (object(alter.objtype()).1, &[Ddl]),
        Ast::AlterTableStmt(alter) => (object(alter.objtype()).1, &[Ddl]),
        Ast::AlterDomainStmt(_) => ("ALTER DOMAIN", &[Ddl]),
        Ast::AlterFunctionStmt(alter) => (object(alter.objtype()).1, &[Ddl]),
        Ast::GrantStmt(grant) if grant.is_grant => ("GRANT", &[Dcl]),
        Ast::GrantStmt(_) => ("REVOKE", &[Dcl]),
        Ast::GrantRoleStmt(grant) if grant.is_grant => ("GRANT ROLE", &[Dcl]),
        Ast::GrantRoleStmt(_) => ("REVOKE ROLE", &[Dcl]),
        Ast::AlterDefaultPrivilegesStmt(_) => ("ALTER DEFAULT PRIVILEGES", &[Dcl]),
        Ast::DefineStmt(define) => (defined(define.kind()), &[Ddl]),
        Ast::CompositeTypeStmt(_) | Ast::CreateEnumStmt(_) | Ast::CreateRangeStmt(_) => {
            ("CREATE TYPE", &[Ddl])
        }
        Ast::AlterEnumStmt(_) | Ast::AlterTypeStmt(_) => ("ALTER TYPE", &[Ddl]),
        Ast::ViewStmt(_) => ("CREATE VIEW", &[Ddl]),
        Ast::CreateFunctionStmt(create) if create.is_procedure => ("CREATE PROCEDURE", &[Ddl]),
        Ast::CreateFunctionStmt(_) => ("CREATE FUNCTION", &[Ddl]),
        Ast::IndexStmt(_) => ("CREATE INDEX", &[Ddl]),
        Ast::RuleStmt(_) => ("CREATE RULE", &[Ddl]),
        Ast::CreateSeqStmt(_) => ("CREATE SEQUENCE", &[Ddl]),
        Ast::AlterSeqStmt(_) => ("ALTER SEQUENCE", &[Ddl]),
        Ast::DoStmt(_) => ("DO", &[Procedural]),
        Ast::CallStmt(_) => ("CALL", &[Procedural]),
        Ast::CreatedbStmt(_) => ("CREATE DATABASE", &[Ddl]),
        Ast::AlterDatabaseStmt(_)
        | Ast::AlterDatabaseSetStmt(_)
        | Ast::AlterDatabaseRefreshCollStmt(_) => ("ALTER DATABASE", &[Ddl]),
        Ast::DropdbStmt(_) => ("DROP DATABASE", &[Ddl]),
        Ast::NotifyStmt(_) => ("NOTIFY", &[Session]),
        Ast::ListenStmt(_) => ("LISTEN", &[Session]),
        Ast::UnlistenStmt(_) => ("UNLISTEN", &[Session]),
        // Runs a shared library's code in the server.
        Ast::LoadStmt(_) => ("LOAD", &[Session, Procedural]),
        Ast::ClusterStmt(_) => ("CLUSTER", &[Maintenance]),
        Ast::VacuumStmt(vacuum) if vacuum.is_vacuumcmd => ("VACUUM", &[Maintenance]),
        Ast::VacuumStmt(_) => ("ANALYZE", &[Maintenance]),
        Ast::ExplainStmt(_) => ("EXPLAIN", &[Read]),
        Ast::CreateTableAsStmt(create) => match create.objtype() {
            ObjectType::ObjectMatview => ("CREATE MATERIALIZED VIEW", &[Ddl]),
            _ if create.is_select_into => ("SELECT INTO", &[Ddl, Write]),
            _ => ("CREATE TABLE AS", &[Ddl, Write]),
        },
        Ast::RefreshMatViewStmt(_) => ("REFRESH MATERIALIZED VIEW", &[Write, Maintenance]),
        Ast::AlterSystemStmt(_) => ("ALTER SYSTEM", &[Dcl, Maintenance]),
        Ast::VariableSetStmt(set) => (
            match set.kind() {
                VariableSetKind::VarReset | VariableSetKind::VarResetAll => "RESET",
                _ => "SET",
            },
            // Who the session acts as. Names of parameters have no case, even quoted.
            if ["role", "session_authorization"]
                .iter()
                .any(|name| set.name.eq_ignore_ascii_case(name))
            {
                &[Session, Dcl]
            } else {
                &[Session]
            },
        ),
        Ast::VariableShowStmt(_) => ("SHOW", &[Session]),
        Ast::DiscardStmt(discard) => (
            match discard.target() {
                pb::DiscardMode::DiscardPlans => "DISCARD PLANS",
                pb::DiscardMode::DiscardSequences => "DISCARD SEQUENCES",
                pb::DiscardMode::DiscardTemp => "DISCARD TEMP",
                _ => "DISCARD ALL",
            },
            &[Session],
        ),
        Ast::CreateTransformStmt(_) => ("CREATE TRANSFORM", &[Ddl]),
        Ast::CreateTrigStmt(_) => ("CREATE TRIGGER", &[Ddl]),
        Ast::CreateEventTrigStmt(_) => ("CREATE EVENT TRIGGER", &[Ddl]),
        Ast::AlterEventTrigStmt(_) => ("ALTER EVENT TRIGGER", &[Ddl]),
        Ast::CreatePLangStmt(_) => ("CREATE LANGUAGE", &[Ddl]),
        Ast::CreateRoleStmt(_) => ("CREATE ROLE", &[Dcl]),
        Ast::AlterRoleStmt(_) | Ast::AlterRoleSetStmt(_) => ("ALTER ROLE", &[Dcl]),
        Ast::DropRoleStmt(_) => ("DROP ROLE", &[Dcl]),
        Ast::DropOwnedStmt(_) => ("DROP OWNED", &[Ddl, Dcl]),
        Ast::ReassignOwnedStmt(_) => ("REASSIGN OWNED", &[Dcl]),
        Ast::LockStmt(_) => ("LOCK TABLE", &[Session]),
        Ast::ConstraintsSetStmt(_) => ("SET CONSTRAINTS", &[Session]),
        Ast::CheckPointStmt(_) => ("CHECKPOINT", &[Maintenance]),
        Ast::ReindexStmt(_) => ("REINDEX", &[Maintenance]),
        Ast::CreateConversionStmt(_) => ("CREATE CONVERSION", &[Ddl]),
        Ast::CreateCastStmt(_) => ("CREATE CAST", &[Ddl]),
        Ast::CreateOpClassStmt(_) => ("CREATE OPERATOR CLASS", &[Ddl]),
        Ast::CreateOpFamilyStmt(_) => ("CREATE OPERATOR FAMILY", &[Ddl]),
        Ast::AlterOpFamilyStmt(_) => ("ALTER OPERATOR FAMILY", &[Ddl]),
        Ast::AlterOperatorStmt(_) => ("ALTER OPERATOR", &[Ddl]),
        Ast::AlterTsDictionaryStmt(_) => ("ALTER TEXT SEARCH DICTIONARY", &[Ddl]),
        Ast::AlterTsConfigurationStmt(_) => ("ALTER TEXT SEARCH CONFIGURATION", &[Ddl]),
        Ast::CreateDomainStmt(_) => ("CREATE DOMAIN", &[Ddl]),
        Ast::CreatePolicyStmt(_) => ("CREATE POLICY", &[Ddl, Dcl]),
        Ast::AlterPolicyStmt(_) => ("ALTER POLICY", &[Ddl, Dcl]),
        Ast::CreateAmStmt(_) => ("CREATE ACCESS METHOD", &[Ddl]),
        Ast::CreatePublicationStmt(_) => ("CREATE PUBLICATION", &[Ddl]),
        Ast::AlterPublicationStmt(_) => ("ALTER PUBLICATION", &[Ddl]),
        Ast::CreateSubscriptionStmt(_) => ("CREATE SUBSCRIPTION", &[Ddl]),
        Ast::AlterSubscriptionStmt(_) => ("ALTER SUBSCRIPTION", &[Ddl]),
        Ast::DropSubscriptionStmt(_) => ("DROP SUBSCRIPTION", &[Ddl]),
        Ast::CreateStatsStmt(_) => ("CREATE STATISTICS", &[Ddl]),
        Ast::AlterStatsStmt(_) => ("ALTER STATISTICS", &[Ddl]),
        Ast::AlterCollationStmt(_) => ("ALTER COLLATION", &[Ddl]),
        Ast::TransactionStmt(step) => (transaction(step.kind()), &[Session]),
        Ast::PrepareStmt(_) => ("PREPARE", &[Session]),
        // Until the session adds what it runs, it runs what is not shown.
        Ast::ExecuteStmt(_) => ("EXECUTE", &[Session, Procedural]),
        Ast::DeallocateStmt(deallocate) if deallocate.isall => ("DEALLOCATE ALL", &[Session]),
        Ast::DeallocateStmt(_) => ("DEALLOCATE", &[Session]),
        Ast::DeclareCursorStmt(_) => ("DECLARE CURSOR", &[Session]),
        Ast::FetchStmt(fetch) => (if fetch.ismove { "MOVE" } else { "FETCH" }, &[Read]),
        Ast::ClosePortalStmt(close) if close.portalname.is_empty() => {
            ("CLOSE CURSOR ALL", &[Session])
        }
        Ast::ClosePortalStmt(_) => ("CLOSE CURSOR", &[Session]),
        _ => (UNCLASSIFIED, &[Class::Unclassified]),
    };
    let mut set = Classes::default();
    for class in classes {
        set.insert(*class);
    }
    (tag, set)
}

fn renamed(rename: &pb::RenameStmt) -> ObjectType {
    match rename.rename_type() {
        ObjectType::ObjectColumn | ObjectType::ObjectAttribute => rename.relation_type(),
        ObjectType::ObjectTabconstraint => ObjectType::ObjectTable,
        ObjectType::ObjectDomconstraint => ObjectType::ObjectDomain,
        other => other,
    }
}

fn drops(kind: ObjectType) -> &'static [Class] {
    match kind {
        ObjectType::ObjectPolicy => &[Class::Ddl, Class::Dcl],
        ObjectType::ObjectRole => &[Class::Dcl],
        _ => &[Class::Ddl],
    }
}

fn alters(kind: ObjectType) -> &'static [Class] {
    drops(kind)
}

fn transaction(kind: TransactionStmtKind) -> &'static str {
    match kind {
        TransactionStmtKind::TransStmtStart => "START TRANSACTION",
        TransactionStmtKind::TransStmtCommit => "COMMIT",
        TransactionStmtKind::TransStmtRollback | TransactionStmtKind::TransStmtRollbackTo => {
            "ROLLBACK"
        }
        TransactionStmtKind::TransStmtSavepoint => "SAVEPOINT",
        TransactionStmtKind::TransStmtRelease => "RELEASE",
        TransactionStmtKind::TransStmtPrepare => "PREPARE TRANSACTION",
        TransactionStmtKind::TransStmtCommitPrepared => "COMMIT PREPARED",
        TransactionStmtKind::TransStmtRollbackPrepared => "ROLLBACK PREPARED",
        TransactionStmtKind::TransStmtBegin | TransactionStmtKind::Undefined => "BEGIN",
    }
}

fn defined(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::ObjectAggregate => "CREATE AGGREGATE",
        ObjectType::ObjectOperator => "CREATE OPERATOR",
        ObjectType::ObjectType => "CREATE TYPE",
        ObjectType::ObjectTsparser => "CREATE TEXT SEARCH PARSER",
        ObjectType::ObjectTsdictionary => "CREATE TEXT SEARCH DICTIONARY",
        ObjectType::ObjectTstemplate => "CREATE TEXT SEARCH TEMPLATE",
        ObjectType::ObjectTsconfiguration => "CREATE TEXT SEARCH CONFIGURATION",
        ObjectType::ObjectCollation => "CREATE COLLATION",
        ObjectType::ObjectAccessMethod => "CREATE ACCESS METHOD",
        _ => "CREATE",
    }
}

/// The tags of dropping and of altering an object of that kind.
fn object(kind: ObjectType) -> (&'static str, &'static str) {
    macro_rules! both {
        ($name:literal) => {
            (concat!("DROP ", $name), concat!("ALTER ", $name))
        };
    }
    match kind {
        ObjectType::ObjectAccessMethod => both!("ACCESS METHOD"),
        ObjectType::ObjectAggregate => both!("AGGREGATE"),
        ObjectType::ObjectAttribute | ObjectType::ObjectType => both!("TYPE"),
        ObjectType::ObjectCast => both!("CAST"),
        ObjectType::ObjectCollation => both!("COLLATION"),
        ObjectType::ObjectColumn | ObjectType::ObjectTable | ObjectType::ObjectTabconstraint => {
            both!("TABLE")
        }
        ObjectType::ObjectConversion => both!("CONVERSION"),
        ObjectType::ObjectDatabase => both!("DATABASE"),
        ObjectType::ObjectDomain | ObjectType::ObjectDomconstraint => both!("DOMAIN"),
        ObjectType::ObjectEventTrigger => both!("EVENT TRIGGER"),
        ObjectType::ObjectExtension => both!("EXTENSION"),
        ObjectType::ObjectFdw => both!("FOREIGN DATA WRAPPER"),
        ObjectType::ObjectForeignServer => both!("SERVER"),
        ObjectType::ObjectForeignTable => both!("FOREIGN TABLE"),
        ObjectType::ObjectFunction => both!("FUNCTION"),
        ObjectType::ObjectIndex => both!("INDEX"),
        ObjectType::ObjectLanguage => both!("LANGUAGE"),
        ObjectType::ObjectLargeobject => both!("LARGE OBJECT"),
        ObjectType::ObjectMatview => both!("MATERIALIZED VIEW"),
        ObjectType::ObjectOpclass => both!("OPERATOR CLASS"),
        ObjectType::ObjectOperator => both!("OPERATOR"),
        ObjectType::ObjectOpfamily => both!("OPERATOR FAMILY"),
        ObjectType::ObjectPolicy => both!("POLICY"),
        ObjectType::ObjectProcedure => both!("PROCEDURE"),
        ObjectType::ObjectPublication => both!("PUBLICATION"),
        ObjectType::ObjectRole => both!("ROLE"),
        ObjectType::ObjectRoutine => both!("ROUTINE"),
        ObjectType::ObjectRule => both!("RULE"),
        ObjectType::ObjectSchema => both!("SCHEMA"),
        ObjectType::ObjectSequence => both!("SEQUENCE"),
        ObjectType::ObjectStatisticExt => both!("STATISTICS"),
        ObjectType::ObjectSubscription => both!("SUBSCRIPTION"),
        ObjectType::ObjectTablespace => both!("TABLESPACE"),
        ObjectType::ObjectTransform => both!("TRANSFORM"),
        ObjectType::ObjectTrigger => both!("TRIGGER"),
        ObjectType::ObjectTsconfiguration => both!("TEXT SEARCH CONFIGURATION"),
        ObjectType::ObjectTsdictionary => both!("TEXT SEARCH DICTIONARY"),
        ObjectType::ObjectTsparser => both!("TEXT SEARCH PARSER"),
        ObjectType::ObjectTstemplate => both!("TEXT SEARCH TEMPLATE"),
        ObjectType::ObjectUserMapping => both!("USER MAPPING"),
        ObjectType::ObjectView => both!("VIEW"),
        _ => ("DROP", "ALTER"),
    }
}

/// The tag of a `SELECT` with these locking clauses: the strongest lock's.
pub(super) fn select(locking: &[pg_query::Node]) -> &'static str {
    use pb::LockClauseStrength as Strength;
    let strongest = locking
        .iter()
        .filter_map(|node| match super::ast::from(node) {
            Some(Ast::LockingClause(clause)) => Some(clause.strength),
            _ => None,
        })
        .max();
    match strongest.map(|strength| Strength::try_from(strength).unwrap_or(Strength::LcsForupdate)) {
        None | Some(Strength::Undefined | Strength::LcsNone) => "SELECT",
        Some(Strength::LcsForkeyshare) => "SELECT FOR KEY SHARE",
        Some(Strength::LcsForshare) => "SELECT FOR SHARE",
        Some(Strength::LcsFornokeyupdate) => "SELECT FOR NO KEY UPDATE",
        Some(Strength::LcsForupdate) => "SELECT FOR UPDATE",
    }
}
