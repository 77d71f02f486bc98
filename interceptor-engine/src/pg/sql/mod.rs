//! Statement text to [`interceptor_policy::operation::Sql`].
//!
//! The text is read by PostgreSQL's own grammar (release 18, by way of
//! `libpg_query`), never by patterns: a keyword in a comment, in a string or in
//! a quoted name is what PostgreSQL takes it for. What the grammar refuses, or
//! what is too large or too deep to be read, is one statement of the class
//! `unclassified`.
//!
//! Everything here is a function of the text alone. There is no catalog, so
//! what a view, a trigger, an operator or a cast runs inside stays unseen, and
//! a column belongs to a table only where the text leaves no doubt.
//!
//! The rooms:
//!
//! * `parse` — text to tree, with the limits;
//! * `ast` — every kind of node and what it holds, so that nothing is skipped;
//! * `tags` — a statement's command tag and class;
//! * `statement`, with `ddl` — one statement of a message, kind by kind;
//! * `walk`, with `query`, `from`, `names` and `dml` — the one pass that collects
//!   what is named;
//! * `scope`, `shape` — which tables a name can mean, and what queries return;
//! * `moves` — values that go elsewhere than into the result;
//! * `where_clause`, `functions` — one question each;
//! * `inner`, with `constant` — texts inside of a statement that run as SQL;
//! * `body`, with `plpgsql` and `tokens` — `DO` blocks and functions' bodies;
//! * `behind` — functions behind triggers, operators, casts;
//! * `rights` — acting as somebody else by way of something else;
//! * `effects` — what the session has to know (prepared names, cursors, `SET`);
//! * `merge` — what an `EXECUTE` means, once it is known what it executes;
//! * `resolve` — what the catalog adds;
//! * `template`, `cache` — not reading the same text twice;
//! * `replication` — the other grammar, of replication connections.
//!
//! # Names that only rules know
//!
//! `COPY` reads and writes files and runs programs on the server without
//! naming a function. These appear among a statement's functions instead:
//! `copy_to_program`, `copy_from_program`, `copy_to_file`, `copy_from_file`.
//! A call of a function that neither PostgreSQL nor its bundled extensions
//! define adds the class `procedural`, for it may do anything.
//!
//! # Code in texts
//!
//! A text that runs as SQL (in a `DO` block, in a body, as what `query_to_xml`
//! is given) is read as a part of its statement where it is a constant. What
//! cannot be seen that way is `procedural`. A body that is only written down
//! names what it names, and does nothing yet.

mod ast;
mod behind;
mod body;
mod cache;
mod constant;
mod ddl;
mod dml;
mod effects;
mod from;
mod functions;
mod inner;
mod merge;
mod moves;
mod names;
mod parse;
mod plpgsql;
mod query;
mod replication;
mod resolve;
mod rights;
mod scope;
mod shape;
mod statement;
mod tags;
mod template;
mod tokens;
mod walk;
mod where_clause;

use interceptor_policy::operation::Sql;
use walk::Setting;

pub use cache::{Classified, Classifier};
pub use effects::{CopyEncoding, CopyFormat, CopyHeader, Effect, Transaction};
pub use merge::merge;
pub use replication::classify_replication;
pub use resolve::{Resolved, resolve};

/// The tag of a statement that could not be read.
pub const UNCLASSIFIED: &str = "UNCLASSIFIED";

/// What of the session changes how its text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// Whether a backslash in a plain string is only a backslash. PostgreSQL
    /// reports it as a parameter, at the start and whenever it changes.
    pub standard_conforming_strings: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            standard_conforming_strings: true,
        }
    }
}

/// What a text means, and what it does to the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// For the rules.
    pub sql: Sql,
    /// For the session: the position of the statement in `sql`, and what it
    /// does there. In the order of the statements.
    pub effects: Vec<(usize, Effect)>,
}

/// Reads `text` as a server does whose `standard_conforming_strings` is on.
#[must_use]
pub fn classify(text: &str) -> Sql {
    read(text, Dialect::default()).sql
}

/// Reads `text` in the session's dialect.
#[must_use]
pub fn classify_with(text: &str, dialect: Dialect) -> Sql {
    read(text, dialect).sql
}

/// Reads `text`, and what it does to the session.
#[must_use]
pub fn read(text: &str, dialect: Dialect) -> Reading {
    shape(text, dialect).0
}

/// As [`read`]; and whether the meaning may rest on the values of the integer
/// constants in the text.
fn shape(text: &str, dialect: Dialect) -> (Reading, bool) {
    let refused = || {
        let reading = Reading {
            sql: Sql {
                statements: vec![statement::unclassified()],
                resolved: false,
            },
            effects: Vec::new(),
        };
        (reading, true)
    };
    let read = parse::with_tree(text, dialect, |tree| {
        let mut reading = Reading::default();
        let setting = Setting {
            dialect,
            ..Setting::default()
        };
        let mut by_literals = false;
        for raw in &tree.stmts {
            let read = statement::read(ast::of(&raw.stmt)?, &setting).ok()?;
            let at = reading.sql.statements.len();
            by_literals |= read.by_literals;
            reading.sql.statements.push(read.statement);
            reading
                .effects
                .extend(read.effects.into_iter().map(|effect| (at, effect)));
        }
        Some((reading, by_literals))
    });
    match read {
        Ok(Some(read)) => read,
        _ => refused(),
    }
}
