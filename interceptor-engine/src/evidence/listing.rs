//! What `sessions` says of a session's opening and close, against the recording.
//!
//! The list is written out of the two events, so that it can be looked through without
//! the recordings; the chain does not cover it. Of an entry, a digest is kept, and
//! compared with that of what the event would be listed as.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::statement::SIGNED_FIELDS;
use crate::replay::Entry;

/// Fields that are of the list itself, and none of the event's.
const OWN: [&str; 6] = ["event", "session", "host", "events", "chain", "archived_id"];

/// A digest of what an entry says.
pub(super) type Listing = [u8; 32];

/// Of an entry of `sessions`.
pub(super) fn of_entry(fields: &[(String, Vec<u8>)]) -> Listing {
    let fields = fields.iter();
    digest(fields.map(|(name, value)| (name.clone(), value.clone())))
}

/// Of an opening or close in a recording. The names of agent and target are those of
/// the opening.
pub(super) fn of_event(event: &Entry, agent: &str, target: &str) -> Listing {
    let own = [
        ("agent", agent),
        ("target", target),
        ("run", &event.run),
        ("line", &event.line),
    ];
    let meta = event.meta.as_object().into_iter().flatten();
    let meta = meta.filter(|(name, _)| own.iter().all(|(taken, _)| taken != name));
    let meta = meta.map(|(name, value)| (name.clone(), flat(value).into_bytes()));
    let own = own.iter();
    let own = own.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    digest(own.chain(meta))
}

/// A value as the list has it: text bare, nothing as nothing, the rest as JSON.
pub(super) fn flat(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn digest(fields: impl Iterator<Item = (String, Vec<u8>)>) -> Listing {
    let is_own = |name: &str| OWN.contains(&name) || SIGNED_FIELDS.contains(&name);
    let mut fields: Vec<_> = fields
        .filter(|(name, value)| !is_own(name) && !value.is_empty())
        .collect();
    fields.sort();
    let mut digest = Sha256::new();
    for (name, value) in fields {
        for part in [name.as_bytes(), &value] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}
