//! What an agent may be called, and which labels it may have.

use std::collections::BTreeMap;

use super::AgentsError;

/// Longest name of an agent.
const LONGEST_NAME: usize = 64;
/// How many labels a run may have, and how long key and value may be.
const MOST_LABELS: usize = 32;
const LONGEST_LABEL: usize = 256;

/// Makes a usable name of a command's: what cannot stand in one becomes `-`.
#[must_use]
pub fn name_of_command(command: &str) -> String {
    let base = command.rsplit('/').next().unwrap_or_default();
    let name: String = base
        .chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .take(LONGEST_NAME)
        .collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() {
        "agent".to_owned()
    } else {
        name.to_owned()
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Whether a name can stand for an agent.
pub(super) fn check_name(name: &str) -> Result<(), AgentsError> {
    if name.is_empty()
        || name.len() > LONGEST_NAME
        || name.starts_with('.')
        || !name.chars().all(is_plain)
    {
        return Err(AgentsError::Name {
            name: name.chars().take(LONGEST_NAME).collect(),
        });
    }
    Ok(())
}

/// Whether labels can be recorded and asked for.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), AgentsError> {
    if labels.len() > MOST_LABELS {
        return Err(AgentsError::TooManyLabels {
            count: labels.len(),
        });
    }
    let usable = |text: &str| text.len() <= LONGEST_LABEL && !text.chars().any(char::is_control);
    match labels
        .iter()
        .find(|(key, value)| key.is_empty() || !usable(key) || !usable(value))
    {
        Some((key, _)) => Err(AgentsError::Label {
            key: key.chars().take(LONGEST_LABEL).collect(),
        }),
        None => Ok(()),
    }
}
