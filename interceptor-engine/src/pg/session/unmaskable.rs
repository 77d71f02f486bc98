//! What the rules allow, and a mask forbids: an answer that could not be masked,
//! and values put where no mask follows them.

use std::sync::Arc;

use interceptor_policy::Masks;
use interceptor_policy::operation::{Class, Sql, Statement};

use crate::pg::mask::{CopyPlan, hidden_move};
use crate::pg::sql::{Classified, Effect};

/// Relations of PostgreSQL's own that hold values of every column: the
/// planner's samples, and columns too long for their row.
const SAMPLES: [&str; 6] = [
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
    "pg_statistic",
    "pg_statistic_ext_data",
    "pg_toast_*",
];

/// How the rows of a `COPY … TO STDOUT` are masked; an error says why the
/// message cannot be let through.
pub(super) fn copy_plan(
    sql: &Sql,
    classified: &Classified,
    masks: Option<&Arc<Masks>>,
) -> Result<Option<CopyPlan>, String> {
    let Some(masks) = masks else {
        return Ok(None);
    };
    let replicates = sql
        .statements
        .iter()
        .any(|statement| statement.classes.contains(Class::Replication));
    if replicates {
        return Err("a replication stream cannot be masked, and a mask applies to it".to_owned());
    }
    if masks.has_columns() {
        for statement in &sql.statements {
            if let Some(why) = out_of_reach(statement, masks) {
                return Err(why);
            }
        }
    }
    let mut copies = classified
        .effects
        .iter()
        .filter_map(|(place, effect)| match effect {
            Effect::CopyOut(format) => Some((place, format)),
            _ => None,
        });
    let Some((place, format)) = copies.next() else {
        return Ok(None);
    };
    if copies.next().is_some() {
        return Err("several COPYs in one message cannot be masked, and a mask applies".to_owned());
    }
    let Some(statement) = sql.statements.get(*place) else {
        return Err("this COPY cannot be masked, and a mask applies to it".to_owned());
    };
    CopyPlan::new(statement, masks, format)
        .map(Some)
        .map_err(|_| {
            "this COPY reads a masked column and cannot be masked; list the columns by name, or SELECT them".to_owned()
        })
}

/// Why masks by column would not reach what a statement does.
fn out_of_reach(statement: &Statement, masks: &Masks) -> Option<String> {
    if let Some((column, to)) = hidden_move(statement, masks) {
        return Some(format!(
            "this would put a masked column ({column}) {}, where no mask could follow it",
            to.words()
        ));
    }
    let samples = statement
        .tables
        .iter()
        .chain(&statement.through)
        .any(|table| {
            SAMPLES.iter().any(|name| match name.strip_suffix('*') {
                Some(beginning) => table.name.starts_with(beginning),
                None => &*table.name == *name,
            })
        });
    if samples {
        return Some(
            "this reads copies of values that PostgreSQL keeps of every column, and masks apply to columns"
                .to_owned(),
        );
    }
    let unknown_call = statement.tags.first() == Some(&"FUNCTION CALL")
        && statement.classes.contains(Class::Procedural);
    unknown_call.then(|| {
        "the result of a function that is called by its number cannot be masked, and a mask applies"
            .to_owned()
    })
}
