//! Every kind of node of PostgreSQL's raw parse tree, and the fields in which it
//! holds other nodes.
//!
//! The table is the whole of `pg_query::protobuf`, copied from its declarations:
//! whoever looks for something in a tree by [`Ast::children`] sees all of it, in
//! clauses that nobody thought of too. A test walks trees by another road and
//! compares.

use pg_query::protobuf as pb;
use pg_query::{Node, NodeEnum};

/// A field that may hold nodes.
pub(super) trait Holds {
    /// Calls `visit` with each node held directly.
    fn each<'a>(&'a self, visit: &mut dyn FnMut(Ast<'a>));
}

impl Holds for Node {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(Ast<'a>)) {
        if let Some(node) = &self.node {
            visit(Ast::from(node));
        }
    }
}

impl<T: Holds> Holds for Option<T> {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(Ast<'a>)) {
        if let Some(held) = self {
            held.each(visit);
        }
    }
}

impl<T: Holds> Holds for Box<T> {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(Ast<'a>)) {
        (**self).each(visit);
    }
}

impl<T: Holds> Holds for Vec<T> {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(Ast<'a>)) {
        for held in self {
            held.each(visit);
        }
    }
}

macro_rules! nodes {
    (
        plain { $($name:ident : $($field:ident)* ;)* }
        named { $($other:ident $variant:ident : $($member:ident)* ;)* }
    ) => {
        /// A node of any kind.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Ast<'a> {
            $($name(&'a pb::$name),)*
            $($other(&'a pb::$other),)*
        }

        impl<'a> From<&'a NodeEnum> for Ast<'a> {
            fn from(node: &'a NodeEnum) -> Self {
                match node {
                    $(NodeEnum::$name(node) => Self::$name(node),)*
                    $(NodeEnum::$variant(node) => Self::$other(node),)*
                }
            }
        }

        impl<'a> Ast<'a> {
            /// Calls `visit` with each node that this one holds directly.
            #[allow(unused_variables, reason = "some kinds of node hold no other")]
            pub(super) fn children(self, visit: &mut dyn FnMut(Ast<'a>)) {
                match self {
                    $(Self::$name(node) => { $(node.$field.each(visit);)* })*
                    $(Self::$other(node) => { $(node.$member.each(visit);)* })*
                }
            }
        }

        $(impl Holds for pb::$name {
            fn each<'a>(&'a self, visit: &mut dyn FnMut(Ast<'a>)) {
                visit(Ast::$name(self));
            }
        })*
        $(impl Holds for pb::$other {
            fn each<'a>(&'a self, visit: &mut dyn FnMut(Ast<'a>)) {
                visit(Ast::$other(self));
            }
        })*
    };
}

nodes! {
    plain {
        AArrayExpr: elements;
        AConst:;
        AExpr: name lexpr rexpr;
        AIndices: lidx uidx;
        AIndirection: arg indirection;
        AStar:;
        AccessPriv: cols;
        Aggref: aggargtypes aggdirectargs args aggorder aggdistinct aggfilter;
        Alias: colnames;
        AlterCollationStmt: collname;
        AlterDatabaseRefreshCollStmt:;
        AlterDatabaseSetStmt: setstmt;
        AlterDatabaseStmt: options;
        AlterDefaultPrivilegesStmt: options action;
        AlterDomainStmt: type_name def;
        AlterEnumStmt: type_name;
        AlterEventTrigStmt:;
        AlterExtensionContentsStmt: object;
        AlterExtensionStmt: options;
        AlterFdwStmt: func_options options;
        AlterForeignServerStmt: options;
        AlterFunctionStmt: func actions;
        AlterObjectDependsStmt: relation object extname;
        AlterObjectSchemaStmt: relation object;
        AlterOpFamilyStmt: opfamilyname items;
        AlterOperatorStmt: opername options;
        AlterOwnerStmt: relation object newowner;
        AlterPolicyStmt: table roles qual with_check;
        AlterPublicationStmt: options pubobjects;
        AlterRoleSetStmt: role setstmt;
        AlterRoleStmt: role options;
        AlterSeqStmt: sequence options;
        AlterStatsStmt: defnames stxstattarget;
        AlterSubscriptionStmt: publication options;
        AlterSystemStmt: setstmt;
        AlterTableCmd: newowner def;
        AlterTableMoveAllStmt: roles;
        AlterTableSpaceOptionsStmt: options;
        AlterTableStmt: relation cmds;
        AlterTypeStmt: type_name options;
        AlterUserMappingStmt: user options;
        AlternativeSubPlan: subplans;
        ArrayCoerceExpr: arg elemexpr;
        ArrayExpr: elements;
        BitString:;
        BoolExpr: args;
        Boolean:;
        BooleanTest: arg;
        CallContext:;
        CallStmt: funccall funcexpr outargs;
        CaseExpr: arg args defresult;
        CaseTestExpr:;
        CaseWhen: expr result;
        CheckPointStmt:;
        ClosePortalStmt:;
        ClusterStmt: relation params;
        CoalesceExpr: args;
        CoerceToDomain: arg;
        CoerceToDomainValue:;
        CoerceViaIo: arg;
        CollateClause: arg collname;
        CollateExpr: arg;
        ColumnDef: type_name raw_default cooked_default identity_sequence coll_clause constraints fdwoptions;
        ColumnRef: fields;
        CommentStmt: object;
        CommonTableExpr: aliascolnames ctequery search_clause cycle_clause ctecolnames ctecoltypes ctecoltypmods ctecolcollations;
        CompositeTypeStmt: typevar coldeflist;
        Constraint: raw_expr keys including exclusions options where_clause pktable fk_attrs pk_attrs fk_del_set_cols old_conpfeqop;
        ConstraintsSetStmt: constraints;
        ConvertRowtypeExpr: arg;
        CopyStmt: relation query attlist options where_clause;
        CreateAmStmt: handler_name;
        CreateCastStmt: sourcetype targettype func;
        CreateConversionStmt: conversion_name func_name;
        CreateDomainStmt: domainname type_name coll_clause constraints;
        CreateEnumStmt: type_name vals;
        CreateEventTrigStmt: whenclause funcname;
        CreateExtensionStmt: options;
        CreateFdwStmt: func_options options;
        CreateForeignServerStmt: options;
        CreateForeignTableStmt: base_stmt options;
        CreateFunctionStmt: funcname parameters return_type options sql_body;
        CreateOpClassItem: name order_family class_args storedtype;
        CreateOpClassStmt: opclassname opfamilyname datatype items;
        CreateOpFamilyStmt: opfamilyname;
        CreatePolicyStmt: table roles qual with_check;
        CreatePublicationStmt: options pubobjects;
        CreateRangeStmt: type_name params;
        CreateRoleStmt: options;
        CreateSchemaStmt: authrole schema_elts;
        CreateSeqStmt: sequence options;
        CreateStatsStmt: defnames stat_types exprs relations;
        CreateStmt: relation table_elts inh_relations partbound partspec of_typename constraints nnconstraints options;
        CreateSubscriptionStmt: publication options;
        CreateTableAsStmt: query into;
        CreateTableSpaceStmt: owner options;
        CreateTransformStmt: type_name fromsql tosql;
        CreateTrigStmt: relation funcname args columns when_clause transition_rels constrrel;
        CreateUserMappingStmt: user options;
        CreatedbStmt: options;
        CurrentOfExpr:;
        DeallocateStmt:;
        DeclareCursorStmt: query;
        DefElem: arg;
        DefineStmt: defnames args definition;
        DeleteStmt: relation using_clause where_clause returning_clause with_clause;
        DiscardStmt:;
        DistinctExpr: args;
        DoStmt: args;
        DropOwnedStmt: roles;
        DropRoleStmt: roles;
        DropStmt: objects;
        DropSubscriptionStmt:;
        DropTableSpaceStmt:;
        DropUserMappingStmt: user;
        DropdbStmt: options;
        ExecuteStmt: params;
        ExplainStmt: query options;
        FetchStmt:;
        FieldSelect: arg;
        FieldStore: arg newvals fieldnums;
        Float:;
        FromExpr: fromlist quals;
        FuncCall: funcname args agg_order agg_filter over;
        FuncExpr: args;
        FunctionParameter: arg_type defexpr;
        GrantRoleStmt: granted_roles grantee_roles opt grantor;
        GrantStmt: objects privileges grantees grantor;
        GroupingFunc: args refs;
        GroupingSet: content;
        ImportForeignSchemaStmt: table_list options;
        IndexElem: expr collation opclass opclassopts;
        IndexStmt: relation index_params index_including_params options where_clause exclude_op_names;
        InferClause: index_elems where_clause;
        InferenceElem: expr;
        InlineCodeBlock:;
        InsertStmt: relation cols select_stmt on_conflict_clause returning_clause with_clause;
        IntList: items;
        Integer:;
        IntoClause: rel col_names options view_query;
        JoinExpr: larg rarg using_clause join_using_alias quals alias;
        JsonAggConstructor: output agg_filter agg_order over;
        JsonArgument: val;
        JsonArrayAgg: constructor arg;
        JsonArrayConstructor: exprs output;
        JsonArrayQueryConstructor: query output format;
        JsonBehavior: expr;
        JsonConstructorExpr: args func coercion returning;
        JsonExpr: formatted_expr format path_spec returning passing_names passing_values on_empty on_error;
        JsonFormat:;
        JsonFuncExpr: context_item pathspec passing output on_empty on_error;
        JsonIsPredicate: expr format;
        JsonKeyValue: key value;
        JsonObjectAgg: constructor arg;
        JsonObjectConstructor: exprs output;
        JsonOutput: type_name returning;
        JsonParseExpr: expr output;
        JsonReturning: format;
        JsonScalarExpr: expr output;
        JsonSerializeExpr: expr output;
        JsonTable: context_item pathspec passing columns on_error alias;
        JsonTableColumn: type_name pathspec format columns on_empty on_error;
        JsonTablePath:;
        JsonTablePathScan: plan path child;
        JsonTablePathSpec: string;
        JsonTableSiblingJoin: plan lplan rplan;
        JsonValueExpr: raw_expr formatted_expr format;
        List: items;
        ListenStmt:;
        LoadStmt:;
        LockStmt: relations;
        LockingClause: locked_rels;
        MergeAction: qual target_list update_colnos;
        MergeStmt: relation source_relation join_condition merge_when_clauses returning_clause with_clause;
        MergeSupportFunc:;
        MergeWhenClause: condition target_list values;
        MinMaxExpr: args;
        MultiAssignRef: source;
        NamedArgExpr: arg;
        NextValueExpr:;
        NotifyStmt:;
        NullIfExpr: args;
        NullTest: arg;
        ObjectWithArgs: objname objargs objfuncargs;
        OidList: items;
        OnConflictClause: infer target_list where_clause;
        OnConflictExpr: arbiter_elems arbiter_where on_conflict_set on_conflict_where excl_rel_tlist;
        OpExpr: args;
        Param:;
        ParamRef:;
        PartitionBoundSpec: listdatums lowerdatums upperdatums;
        PartitionCmd: name bound;
        PartitionElem: expr collation opclass;
        PartitionRangeDatum: value;
        PartitionSpec: part_params;
        PrepareStmt: argtypes query;
        PublicationObjSpec: pubtable;
        PublicationTable: relation where_clause columns;
        Query: utility_stmt cte_list rtable rteperminfos jointree merge_action_list merge_join_condition target_list on_conflict returning_list group_clause grouping_sets having_qual window_clause distinct_clause sort_clause limit_offset limit_count row_marks set_operations constraint_deps with_check_options;
        RangeFunction: functions alias coldeflist;
        RangeSubselect: subquery alias;
        RangeTableFunc: docexpr rowexpr namespaces columns alias;
        RangeTableFuncCol: type_name colexpr coldefexpr;
        RangeTableSample: relation method args repeatable;
        RangeTblEntry: alias eref tablesample subquery joinaliasvars joinleftcols joinrightcols join_using_alias functions tablefunc values_lists coltypes coltypmods colcollations groupexprs security_quals;
        RangeTblFunction: funcexpr funccolnames funccoltypes funccoltypmods funccolcollations;
        RangeTblRef:;
        RangeVar: alias;
        RawStmt: stmt;
        ReassignOwnedStmt: roles newrole;
        RefreshMatViewStmt: relation;
        ReindexStmt: relation params;
        RelabelType: arg;
        RenameStmt: relation object;
        ReplicaIdentityStmt:;
        ResTarget: indirection val;
        ReturnStmt: returnval;
        ReturningClause: options exprs;
        ReturningExpr: retexpr;
        ReturningOption:;
        RoleSpec:;
        RowCompareExpr: opnos opfamilies inputcollids largs rargs;
        RowExpr: args colnames;
        RowMarkClause:;
        RuleStmt: relation where_clause actions;
        ScalarArrayOpExpr: args;
        SecLabelStmt: object;
        SelectStmt: distinct_clause into_clause target_list from_clause where_clause group_clause having_clause window_clause values_lists sort_clause limit_offset limit_count locking_clause with_clause larg rarg;
        SetOperationStmt: larg rarg col_types col_typmods col_collations group_clauses;
        SetToDefault:;
        SortBy: node use_op;
        SortGroupClause:;
        StatsElem: expr;
        String:;
        SubLink: testexpr oper_name subselect;
        SubPlan: testexpr param_ids set_param par_param args;
        SubscriptingRef: refupperindexpr reflowerindexpr refexpr refassgnexpr;
        TableFunc: ns_uris ns_names docexpr rowexpr colnames coltypes coltypmods colcollations colexprs coldefexprs colvalexprs passingvalexprs plan;
        TableLikeClause: relation;
        TableSampleClause: args repeatable;
        TargetEntry: expr;
        TransactionStmt: options;
        TriggerTransition:;
        TruncateStmt: relations;
        TypeCast: arg type_name;
        TypeName: names typmods array_bounds;
        UnlistenStmt:;
        UpdateStmt: relation target_list where_clause from_clause returning_clause with_clause;
        VacuumRelation: relation va_cols;
        VacuumStmt: options rels;
        Var:;
        VariableSetStmt: args;
        VariableShowStmt:;
        ViewStmt: view aliases query options;
        WindowClause: partition_clause order_clause start_offset end_offset;
        WindowDef: partition_clause order_clause start_offset end_offset;
        WindowFunc: args aggfilter run_condition;
        WindowFuncRunCondition: arg;
        WithCheckOption: qual;
        WithClause: ctes;
        XmlExpr: named_args arg_names args;
        XmlSerialize: expr type_name;
    }
    named {
        AlterTsConfigurationStmt AlterTsconfigurationStmt: cfgname tokentype dicts;
        AlterTsDictionaryStmt AlterTsdictionaryStmt: dictname options;
        AtAlterConstraint AtalterConstraint:;
        CreatePLangStmt CreatePlangStmt: plhandler plinline plvalidator;
        CteCycleClause CtecycleClause: cycle_col_list cycle_mark_value cycle_mark_default;
        CteSearchClause CtesearchClause: search_col_list;
        PlAssignStmt PlassignStmt: indirection val;
        RtePermissionInfo RtepermissionInfo:;
        SqlValueFunction SqlvalueFunction:;
    }
}

/// The node in an optional boxed field.
pub(super) fn of(node: &Option<Box<Node>>) -> Option<Ast<'_>> {
    node.as_deref().and_then(from)
}

/// The node in a list's item.
pub(super) fn from(node: &Node) -> Option<Ast<'_>> {
    node.node.as_ref().map(Ast::from)
}

/// The names in a list of names; other items (`*`) are left out.
pub(super) fn names(list: &[Node]) -> Vec<&str> {
    list.iter().filter_map(name).collect()
}

/// The text of a name.
pub(super) fn name(node: &Node) -> Option<&str> {
    match node.node.as_ref() {
        Some(NodeEnum::String(text)) => Some(&text.sval),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, parse};
    use super::*;

    const KINDS: [&str; 4] = ["ColumnRef", "AConst", "SubLink", "List"];

    fn by_children(ast: Ast<'_>, counts: &mut [usize; 4]) {
        match ast {
            Ast::ColumnRef(_) => counts[0] += 1,
            Ast::AConst(_) => counts[1] += 1,
            Ast::SubLink(_) => counts[2] += 1,
            Ast::List(_) => counts[3] += 1,
            _ => {}
        }
        ast.children(&mut |child| by_children(child, counts));
    }

    fn by_json(value: &serde_json::Value, counts: &mut [usize; 4]) {
        match value {
            serde_json::Value::Object(fields) => {
                if let Some(serde_json::Value::Object(node)) = fields.get("node") {
                    for (kind, count) in KINDS.iter().zip(counts.iter_mut()) {
                        *count += usize::from(node.contains_key(*kind));
                    }
                }
                fields.values().for_each(|value| by_json(value, counts));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| by_json(item, counts)),
            _ => {}
        }
    }

    #[test]
    fn no_node_of_a_tree_is_skipped() {
        let corpus = [
            include_str!("../../../tests/sql_corpus/reading.txt"),
            include_str!("../../../tests/sql_corpus/writing.txt"),
            include_str!("../../../tests/sql_corpus/other.txt"),
        ];
        let mut seen = [0; 4];
        for text in corpus.iter().flat_map(|file| file.lines()) {
            let Some(text) = text.strip_prefix("> ") else {
                continue;
            };
            let _ = parse::with_tree(text, Dialect::default(), |tree| {
                let (mut one, mut other) = ([0; 4], [0; 4]);
                for raw in &tree.stmts {
                    by_children(of(&raw.stmt).unwrap(), &mut one);
                    by_json(&serde_json::to_value(&raw.stmt).unwrap(), &mut other);
                }
                assert_eq!(one, other, "{KINDS:?} in {text}");
                for (total, count) in seen.iter_mut().zip(one) {
                    *total += count;
                }
            });
        }
        assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    }
}
