//! Which rules apply to a meaning, kept for when it comes again.
//!
//! Only what hangs on nothing else is kept: what circumstances make of the rules
//! is asked every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Found;
use crate::PgOperation;

/// Most meanings that are kept of one session; past it they are found anew.
const KEPT: usize = 256;

/// What was found for meanings, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Kept {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whose they are: rules may ask for either.
    database: String,
    user: String,
    found: HashMap<u64, Arc<[Found]>>,
}

impl Kept {
    /// What is kept for a meaning, or what `find` finds for it now.
    pub(super) fn find(
        &self,
        operation: &PgOperation<'_>,
        meaning: u64,
        find: impl FnOnce() -> Arc<[Found]>,
    ) -> Arc<[Found]> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.database != operation.database || inner.user != operation.user {
            operation.database.clone_into(&mut inner.database);
            operation.user.clone_into(&mut inner.user);
            inner.found.clear();
        }
        if let Some(found) = inner.found.get(&meaning) {
            return Arc::clone(found);
        }
        let found = find();
        if inner.found.len() >= KEPT {
            inner.found.clear();
        }
        inner.found.insert(meaning, Arc::clone(&found));
        found
    }
}
