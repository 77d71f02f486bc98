//! Statements, read again and judged.

use std::collections::HashMap;
use std::sync::Arc;

use interceptor_policy::operation::{PgOperation, Sql, Statement};
use interceptor_policy::{Operation, Scope, Standing};

use super::{Judged, METADATA, Opened, Outcome, Unjudged, words};
use crate::pg::sql::{self, Classified, Classifier, Effect};
use crate::replay::Entry;
use crate::replay::entry::is_hidden;

/// Judges one session's statements.
#[derive(Debug)]
pub(super) struct Judge {
    scope: Scope,
    standing: Standing,
    /// Statements prepared in SQL, by name.
    prepared: HashMap<Arc<str>, Arc<Statement>>,
}

impl Judge {
    pub(super) fn new(scope: Scope, standing: Standing) -> Self {
        Self {
            scope,
            standing,
            prepared: HashMap::new(),
        }
    }

    pub(super) fn entry(
        &mut self,
        entry: &Entry,
        classifier: &mut Classifier,
        opened: &Opened,
    ) -> Outcome {
        if entry.kind != "command" {
            return Outcome::Nothing;
        }
        let (Some(exchange), Some(was)) = (entry.exchange, entry.meta_text("verdict")) else {
            // Prepared and never run.
            return Outcome::Nothing;
        };
        if entry.meta_text("message") == Some("F") {
            return Unjudged::of(
                entry,
                "it is a function call, which the record names and not more",
            );
        }
        if entry.data.is_empty() {
            return Unjudged::of(entry, METADATA);
        }
        let text = entry.command();
        if is_hidden(&text) && self.scope.is_text_dependent() {
            return Unjudged::of(
                entry,
                "a value in it is hidden on record, and a rule reads its text",
            );
        }
        let classified = classifier.classify(&text);
        let sql = self.meaning(&classified);
        let operation = Operation::Postgres(PgOperation {
            sql: &sql,
            text: &text,
            database: &opened.database,
            user: &opened.user,
            meaning: None,
        });
        let now = opened.at.after(entry.at.0);
        let judgement = self.scope.judge(&operation, &mut self.standing, now);
        let (would, would_by) = words(&judgement.verdict);
        Outcome::Judged(Box::new(Judged {
            exchange,
            line: entry.line.clone(),
            was: was.to_owned(),
            was_by: None,
            would,
            would_by,
            applied: judgement.applied.iter().map(ToString::to_string).collect(),
            masked: judgement.masks.is_some(),
        }))
    }

    /// The meaning, with what `EXECUTE` stands for put in.
    fn meaning(&mut self, classified: &Classified) -> Sql {
        let mut sql = classified.sql.clone();
        for (place, effect) in &classified.effects {
            match effect {
                Effect::Prepare { name, inner } => {
                    self.prepared.insert(Arc::clone(name), Arc::clone(inner));
                }
                Effect::Execute { name } => {
                    if let (Some(outer), Some(inner)) =
                        (sql.statements.get_mut(*place), self.prepared.get(name))
                    {
                        *outer = sql::merge(outer, inner);
                    }
                }
                _ => {}
            }
        }
        sql
    }
}
