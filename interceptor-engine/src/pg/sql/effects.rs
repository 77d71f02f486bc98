//! What a statement does to the session that sends it.
//!
//! The session keeps prepared statements, cursors and parameters in step with
//! the server by these. Names are folded as PostgreSQL folds them.

use std::sync::Arc;

use interceptor_policy::operation::Statement;
use pg_query::Node;
use pg_query::protobuf as pb;
use pg_query::protobuf::{TransactionStmtKind, VariableSetKind};

use super::ast::{self, Ast};

/// `WITH HOLD`, in a `DECLARE CURSOR`'s options.
pub(super) const CURSOR_HOLD: i32 = 0x0020;

/// One change to the session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// `PREPARE name AS …`.
    Prepare {
        /// The name it can be executed by, in both protocols.
        name: Arc<str>,
        /// What executing it does.
        inner: Arc<Statement>,
    },
    /// `EXECUTE name`, also under `EXPLAIN` and `CREATE TABLE AS`.
    Execute {
        /// The prepared statement's name.
        name: Arc<str>,
    },
    /// `DEALLOCATE name`; without a name, `DEALLOCATE ALL`.
    Deallocate {
        /// The prepared statement's name.
        name: Option<Arc<str>>,
    },
    /// `DECLARE name CURSOR FOR …`.
    DeclareCursor {
        /// The cursor's (and portal's) name.
        name: Arc<str>,
        /// The query; its output is what a `FETCH` returns.
        inner: Arc<Statement>,
        /// It outlives the transaction.
        hold: bool,
    },
    /// `FETCH … FROM cursor`.
    Fetch {
        /// The cursor's name.
        cursor: Arc<str>,
    },
    /// `CLOSE cursor`; without a name, `CLOSE ALL`.
    Close {
        /// The cursor's name.
        cursor: Option<Arc<str>>,
    },
    /// `COPY … TO STDOUT`: the answer is the copy-out mode.
    CopyOut(CopyFormat),
    /// `COPY … FROM STDIN`: the answer is the copy-in mode.
    CopyIn(CopyFormat),
    /// `SET name`, `RESET name`, `SET ROLE`, `SET SESSION AUTHORIZATION`, and
    /// `set_config` with constant arguments.
    SetParameter {
        /// Lower case.
        name: Arc<str>,
        /// `None` for a reset, or where the statement does not show the value.
        value: Option<Arc<str>>,
        /// Until the transaction's end only.
        local: bool,
    },
    /// `RESET ALL`.
    ResetAll,
    /// `DISCARD ALL`: prepared statements, cursors, parameters, all gone.
    DiscardAll,
    /// `DISCARD PLANS`, `DISCARD SEQUENCES`, `DISCARD TEMP`.
    DiscardSome,
    /// `BEGIN`, `COMMIT`, `SAVEPOINT`, …
    Transaction(Transaction),
    /// A table, view or sequence that only this session sees: from here on an
    /// unqualified name may mean it.
    Temporary {
        /// Its name.
        name: Arc<str>,
    },
}

/// A step of transaction control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`, `COMMIT PREPARED`, `PREPARE TRANSACTION`.
    Commit,
    /// `ROLLBACK`, `ABORT`, `ROLLBACK PREPARED`.
    Rollback,
    /// `SAVEPOINT name`.
    Savepoint(Arc<str>),
    /// `RELEASE name`.
    Release(Arc<str>),
    /// `ROLLBACK TO name`.
    RollbackTo(Arc<str>),
}

/// How the rows of a `COPY` are written on the wire, as far as the statement
/// says; what it does not say has PostgreSQL's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFormat {
    /// `FORMAT`.
    pub encoding: CopyEncoding,
    /// `DELIMITER`.
    pub delimiter: u8,
    /// `NULL`.
    pub null: Arc<str>,
    /// `QUOTE`, of CSV.
    pub quote: u8,
    /// `ESCAPE`, of CSV.
    pub escape: u8,
    /// `HEADER`.
    pub header: CopyHeader,
    /// The columns named in the statement; empty where it names none, or is a
    /// query.
    pub columns: Vec<Arc<str>>,
    /// The file is not in the session's `client_encoding` but in this one.
    pub charset: Option<Arc<str>>,
    /// An option was not understood: rows in this format cannot be read apart.
    pub unclear: bool,
}

/// `FORMAT` of a `COPY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyEncoding {
    /// `text`.
    #[default]
    Text,
    /// `csv`.
    Csv,
    /// `binary`.
    Binary,
}

/// `HEADER` of a `COPY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyHeader {
    /// None.
    #[default]
    None,
    /// The first line names the columns.
    Names,
}

/// Adds what a statement does to the session, apart from what needs its
/// meaning (`PREPARE`, `DECLARE CURSOR`).
pub(super) fn of(ast: Ast<'_>, effects: &mut Vec<Effect>) {
    let name = |name: &str| Arc::<str>::from(name);
    let some = |text: &str| (!text.is_empty()).then(|| Arc::<str>::from(text));
    match ast {
        Ast::ExecuteStmt(execute) => effects.push(Effect::Execute {
            name: name(&execute.name),
        }),
        Ast::DeallocateStmt(deallocate) => effects.push(Effect::Deallocate {
            name: (!deallocate.isall).then(|| name(&deallocate.name)),
        }),
        Ast::FetchStmt(fetch) => effects.push(Effect::Fetch {
            cursor: name(&fetch.portalname),
        }),
        Ast::ClosePortalStmt(close) => effects.push(Effect::Close {
            cursor: some(&close.portalname),
        }),
        Ast::CopyStmt(copy) if copy.filename.is_empty() && !copy.is_program => {
            let format = copy_format(copy);
            effects.push(if copy.is_from {
                Effect::CopyIn(format)
            } else {
                Effect::CopyOut(format)
            });
        }
        Ast::VariableSetStmt(set) => variable(set, effects),
        Ast::DiscardStmt(discard) => effects.push(match discard.target() {
            pb::DiscardMode::DiscardPlans
            | pb::DiscardMode::DiscardSequences
            | pb::DiscardMode::DiscardTemp => Effect::DiscardSome,
            _ => Effect::DiscardAll,
        }),
        Ast::TransactionStmt(step) => {
            let savepoint = || name(&step.savepoint_name);
            effects.push(Effect::Transaction(match step.kind() {
                TransactionStmtKind::TransStmtBegin
                | TransactionStmtKind::TransStmtStart
                | TransactionStmtKind::Undefined => Transaction::Begin,
                TransactionStmtKind::TransStmtCommit
                | TransactionStmtKind::TransStmtPrepare
                | TransactionStmtKind::TransStmtCommitPrepared => Transaction::Commit,
                TransactionStmtKind::TransStmtRollback
                | TransactionStmtKind::TransStmtRollbackPrepared => Transaction::Rollback,
                TransactionStmtKind::TransStmtSavepoint => Transaction::Savepoint(savepoint()),
                TransactionStmtKind::TransStmtRelease => Transaction::Release(savepoint()),
                TransactionStmtKind::TransStmtRollbackTo => Transaction::RollbackTo(savepoint()),
            }));
        }
        Ast::SelectStmt(select) => {
            let into = leftmost(select).into_clause.as_ref();
            temporary(into.and_then(|into| into.rel.as_ref()), effects);
            configure(ast, effects);
        }
        Ast::InsertStmt(_) | Ast::UpdateStmt(_) | Ast::DeleteStmt(_) | Ast::MergeStmt(_) => {
            configure(ast, effects);
        }
        Ast::CreateStmt(create) => temporary(create.relation.as_ref(), effects),
        Ast::CreateTableAsStmt(create) => {
            let into = create.into.as_ref();
            temporary(into.and_then(|into| into.rel.as_ref()), effects);
        }
        Ast::ViewStmt(view) => temporary(view.view.as_ref(), effects),
        Ast::CreateSeqStmt(create) => temporary(create.sequence.as_ref(), effects),
        _ => {}
    }
}

/// Where a `UNION`'s `INTO` stands.
fn leftmost(select: &pb::SelectStmt) -> &pb::SelectStmt {
    let mut select = select;
    while let Some(left) = &select.larg {
        select = left;
    }
    select
}

fn temporary(range: Option<&pb::RangeVar>, effects: &mut Vec<Effect>) {
    if let Some(range) = range
        && (range.relpersistence == "t" || range.schemaname == "pg_temp")
    {
        effects.push(Effect::Temporary {
            name: Arc::from(range.relname.as_str()),
        });
    }
}

fn variable(set: &pb::VariableSetStmt, effects: &mut Vec<Effect>) {
    if set.kind() == VariableSetKind::VarResetAll {
        effects.push(Effect::ResetAll);
        return;
    }
    let value = (set.kind() == VariableSetKind::VarSetValue)
        .then(|| {
            // A list (`search_path`) is written as one text, as `set_config` takes it.
            let values: Option<Vec<String>> = set
                .args
                .iter()
                .map(|arg| ast::from(arg).and_then(constant))
                .collect();
            values.map(|values| Arc::from(values.join(", ")))
        })
        .flatten();
    effects.push(Effect::SetParameter {
        name: Arc::from(set.name.to_ascii_lowercase()),
        value,
        local: set.is_local,
    });
}

/// The text of a constant.
fn constant(ast: Ast<'_>) -> Option<String> {
    use pb::a_const::Val;
    match ast {
        Ast::AConst(constant) => match &constant.val {
            Some(Val::Sval(text)) => Some(text.sval.clone()),
            Some(Val::Ival(number)) => Some(number.ival.to_string()),
            Some(Val::Fval(number)) => Some(number.fval.clone()),
            Some(Val::Boolval(value)) => Some(value.boolval.to_string()),
            _ => None,
        },
        Ast::String(text) => Some(text.sval.clone()),
        Ast::Integer(number) => Some(number.ival.to_string()),
        Ast::Float(number) => Some(number.fval.clone()),
        Ast::Boolean(value) => Some(value.boolval.to_string()),
        Ast::TypeCast(cast) => ast::of(&cast.arg).and_then(constant),
        Ast::TypeName(name) => name.names.last().and_then(ast::name).map(str::to_owned),
        _ => None,
    }
}

/// Every `set_config` in a statement.
fn configure(ast: Ast<'_>, effects: &mut Vec<Effect>) {
    set_configs(ast, &mut |call| {
        let argument = |at: usize| call.args.get(at).and_then(ast::from).and_then(constant);
        if let Some(name) = argument(0) {
            effects.push(Effect::SetParameter {
                name: Arc::from(name.to_ascii_lowercase()),
                value: argument(1).map(Arc::from),
                local: argument(2).is_none_or(|local| local.starts_with(['t', 'T', '1'])),
            });
        }
    });
}

/// The parameters that a statement's calls of `set_config` set; `None` if one
/// of them does not show which.
pub(super) fn configured(ast: Ast<'_>) -> Option<Vec<String>> {
    let mut names = Some(Vec::new());
    set_configs(ast, &mut |call| {
        let name = call.args.first().and_then(ast::from).and_then(constant);
        match (name, &mut names) {
            (Some(name), Some(names)) => names.push(name.to_ascii_lowercase()),
            _ => names = None,
        }
    });
    names
}

fn set_configs(ast: Ast<'_>, found: &mut dyn FnMut(&pb::FuncCall)) {
    if let Ast::FuncCall(call) = ast
        && call.funcname.last().and_then(ast::name) == Some("set_config")
    {
        found(call);
    }
    ast.children(&mut |child| set_configs(child, found));
}

/// Whether an `EXPLAIN` runs its statement. An option that PostgreSQL would
/// refuse counts as running it.
pub(super) fn analyzes(explain: &pb::ExplainStmt) -> bool {
    options(&explain.options).any(|option| option.defname == "analyze" && !is_off(option))
}

fn options(list: &[Node]) -> impl Iterator<Item = &pb::DefElem> {
    list.iter().filter_map(|node| match ast::from(node) {
        Some(Ast::DefElem(option)) => Some(option),
        _ => None,
    })
}

fn is_off(option: &pb::DefElem) -> bool {
    ast::of(&option.arg)
        .and_then(constant)
        .is_some_and(|value| {
            ["false", "off", "0"]
                .iter()
                .any(|off| value.eq_ignore_ascii_case(off))
        })
}

fn copy_format(copy: &pb::CopyStmt) -> CopyFormat {
    let value = |option: &pb::DefElem| ast::of(&option.arg).and_then(constant);
    let encoding = options(&copy.options)
        .filter(|option| option.defname == "format")
        .last()
        .map_or(Some(CopyEncoding::Text), |option| {
            match value(option).as_deref() {
                Some("text") => Some(CopyEncoding::Text),
                Some("csv") => Some(CopyEncoding::Csv),
                Some("binary") => Some(CopyEncoding::Binary),
                _ => None,
            }
        });
    let csv = encoding == Some(CopyEncoding::Csv);
    let mut format = CopyFormat {
        encoding: encoding.unwrap_or_default(),
        delimiter: if csv { b',' } else { b'\t' },
        null: Arc::from(if csv { "" } else { "\\N" }),
        quote: b'"',
        escape: b'"',
        header: CopyHeader::None,
        columns: ast::names(&copy.attlist)
            .into_iter()
            .map(Arc::from)
            .collect(),
        charset: None,
        unclear: encoding.is_none(),
    };
    let byte = |text: Option<String>| match text.as_deref().map(str::as_bytes) {
        Some([byte]) => Some(*byte),
        _ => None,
    };
    let mut escape = None;
    for option in options(&copy.options) {
        let understood = match option.defname.as_str() {
            "format" => true,
            "delimiter" => byte(value(option))
                .map(|byte| format.delimiter = byte)
                .is_some(),
            "quote" => byte(value(option))
                .map(|byte| format.quote = byte)
                .is_some(),
            "escape" => byte(value(option))
                .map(|byte| escape = Some(byte))
                .is_some(),
            "null" => value(option)
                .map(|null| format.null = Arc::from(null))
                .is_some(),
            "encoding" => value(option)
                .map(|charset| format.charset = Some(Arc::from(charset)))
                .is_some(),
            "header" => {
                if !is_off(option) {
                    format.header = CopyHeader::Names;
                }
                true
            }
            // How rows are read or checked, not how they are written apart.
            "freeze" | "force_quote" | "force_not_null" | "force_null" | "on_error"
            | "log_verbosity" | "reject_limit" => true,
            // A text for missing values that is not NULL's.
            "default" => copy.is_from,
            _ => false,
        };
        format.unclear |= !understood;
    }
    format.escape = escape.unwrap_or(format.quote);
    format
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, read};
    use super::*;

    fn effects(text: &str) -> Vec<(usize, Effect)> {
        read(text, Dialect::default()).effects
    }

    fn only(text: &str) -> Effect {
        match effects(text).as_slice() {
            [(0, effect)] => effect.clone(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn names_of_statements_and_cursors_are_told() {
        let all = effects(
            "PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p; DEALLOCATE ALL; FETCH c; CLOSE c; CLOSE ALL",
        );
        let places: Vec<_> = all.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 5, 6]);
        assert!(
            matches!(&all[0].1, Effect::Prepare { name, inner } if &**name == "p" && inner.tags == ["SELECT"])
        );
        assert_eq!(
            all[1].1,
            Effect::Execute {
                name: Arc::from("p")
            }
        );
        assert_eq!(all[3].1, Effect::Deallocate { name: None });
        assert_eq!(
            all[5].1,
            Effect::Close {
                cursor: Some(Arc::from("c"))
            }
        );
        assert_eq!(all[6].1, Effect::Close { cursor: None });
        let declared = only("DECLARE \"C\" CURSOR WITH HOLD FOR SELECT ssn FROM users");
        assert!(
            matches!(declared, Effect::DeclareCursor { name, hold: true, .. } if &*name == "C")
        );
        let plain = only("DECLARE c CURSOR FOR SELECT 1");
        assert!(matches!(plain, Effect::DeclareCursor { hold: false, .. }));
    }

    #[test]
    fn what_only_this_session_sees_is_told() {
        for text in [
            "CREATE TEMP TABLE t (a int)",
            "CREATE TABLE pg_temp.t (a int)",
            "CREATE TEMPORARY TABLE t AS SELECT 1",
            "SELECT 1 INTO TEMP t",
            "SELECT 1 INTO TEMP t UNION SELECT 2",
            "CREATE TEMP VIEW t AS SELECT 1",
            "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1",
        ] {
            let name = Arc::from("t");
            assert_eq!(only(text), Effect::Temporary { name }, "{text}");
        }
        assert!(effects("CREATE TABLE t (a int); SELECT 1 INTO t").is_empty());
    }

    #[test]
    fn what_a_block_may_do_leaves_nothing_certain() {
        let deallocate = Effect::Deallocate {
            name: Some(Arc::from("p")),
        };
        let of = |text: &str| only(&format!("DO $$ BEGIN {text}; END $$"));
        assert_eq!(of("EXECUTE 'PREPARE p AS SELECT 1'"), deallocate);
        assert_eq!(of("EXECUTE 'DEALLOCATE p'"), deallocate);
        assert!(matches!(
            of("SET standard_conforming_strings = off"),
            Effect::SetParameter { name, .. } if &*name == "standard_conforming_strings"
        ));
        assert!(matches!(
            of("PERFORM set_config('standard_conforming_strings', 'off', true)"),
            Effect::SetParameter { name, .. } if &*name == "standard_conforming_strings"
        ));
        assert!(matches!(
            of("CREATE TEMP TABLE t (a int)"),
            Effect::Temporary { .. }
        ));
        // The session would put in what `p` is, and take the doubt out.
        assert!(effects("DO $$ BEGIN EXECUTE 'EXECUTE p'; END $$").is_empty());
        assert!(effects("DO $$ BEGIN COMMIT; END $$").is_empty());
        assert!(
            effects("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'SET ROLE x'").is_empty()
        );
    }

    #[test]
    fn an_execute_inside_another_statement_is_told() {
        for text in [
            "EXPLAIN EXECUTE p",
            "EXPLAIN ANALYZE EXECUTE p",
            "CREATE TABLE t AS EXECUTE p",
        ] {
            assert_eq!(
                only(text),
                Effect::Execute {
                    name: Arc::from("p")
                },
                "{text}"
            );
        }
    }

    #[test]
    fn parameters_are_told_however_they_are_set() {
        for (text, name, value, local) in [
            ("SET search_path = a, b", "search_path", Some("a, b"), false),
            (
                "SET LOCAL \"Search_Path\" TO DEFAULT",
                "search_path",
                None,
                true,
            ),
            ("RESET search_path", "search_path", None, false),
            (
                "SET NAMES 'latin1'",
                "client_encoding",
                Some("latin1"),
                false,
            ),
            ("SET ROLE bob", "role", Some("bob"), false),
            ("SELECT set_config('a', 'b', false)", "a", Some("b"), false),
            ("SELECT set_config('a', x, true) FROM t", "a", None, true),
        ] {
            let expected = Effect::SetParameter {
                name: Arc::from(name),
                value: value.map(Arc::from),
                local,
            };
            assert_eq!(only(text), expected, "{text}");
        }
        assert_eq!(only("RESET ALL"), Effect::ResetAll);
        assert_eq!(only("DISCARD ALL"), Effect::DiscardAll);
    }

    #[test]
    fn the_format_of_a_copy_is_told() {
        let format = |text: &str| match only(text) {
            Effect::CopyOut(format) | Effect::CopyIn(format) => format,
            other => panic!("{other:?}"),
        };
        let plain = format("COPY t (a, b) TO STDOUT");
        assert_eq!(
            (plain.encoding, plain.delimiter, &*plain.null),
            (CopyEncoding::Text, b'\t', "\\N")
        );
        assert_eq!(plain.columns.len(), 2);
        let csv = format("COPY t TO STDOUT (FORMAT csv, HEADER, QUOTE '''', NULL 'x')");
        assert_eq!(
            (csv.encoding, csv.delimiter, &*csv.null),
            (CopyEncoding::Csv, b',', "x")
        );
        assert_eq!(
            (csv.quote, csv.escape, csv.header),
            (b'\'', b'\'', CopyHeader::Names)
        );
        let old = format("COPY t FROM STDIN DELIMITER '|' CSV");
        assert_eq!(
            (old.encoding, old.delimiter, old.unclear),
            (CopyEncoding::Csv, b'|', false)
        );
        assert!(format("COPY t TO STDOUT (nonsense 5)").unclear);
        assert_eq!(
            format("COPY t TO STDOUT BINARY").encoding,
            CopyEncoding::Binary
        );
        assert!(
            effects("COPY t TO '/tmp/x'").is_empty(),
            "nothing comes to the client"
        );
    }
}
