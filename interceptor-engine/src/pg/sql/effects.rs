//! What a statement does to the session that sends it.
//!
//! The session keeps prepared statements, cursors and parameters in step with
//! the server by these. Names are folded as PostgreSQL folds them.

use std::sync::Arc;

use interceptor_policy::operation::Statement;

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
