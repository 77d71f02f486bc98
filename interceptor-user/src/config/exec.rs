//! `intercept.exec`, checked: who may start agents.

use std::collections::BTreeMap;

use super::check::Check;
use super::written;

/// What some users may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayStart {
    /// Who.
    pub who: Who,
    /// Names of agents; one that ends with `*` is for all that begin so.
    pub agents: Vec<String>,
    /// Labels that may be given, with their values; `None` for any.
    pub labels: Option<BTreeMap<String, Vec<String>>>,
}

/// Whom a permission is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A user, by name or number.
    User(String),
    /// Everybody in a group of the host's or of `approvals.groups`.
    Group(String),
}

impl Check<'_, '_> {
    /// Permissions; `None` where nothing is said.
    pub(super) fn exec(&mut self, raw: written::Exec) -> Option<Vec<MayStart>> {
        let mut all = Vec::new();
        for entry in raw.allow? {
            let (at, raw) = (entry.referenced, entry.value);
            let who = match (raw.user, raw.group) {
                (Some(user), None) => Who::User(user),
                (None, Some(group)) => Who::Group(group),
                _ => {
                    let help = "allow: [{ user: deploy, agents: [deploy-bot] }, { group: developers, agents: [\"dev-*\"] }]";
                    self.error(at, "one of `user` and `group` says who may", help);
                    continue;
                }
            };
            let plain = |one: char| one.is_ascii_alphanumeric() || "._-".contains(one);
            for name in &raw.agents {
                let bare = name.value.strip_suffix('*').unwrap_or(&name.value);
                if name.value.is_empty() || !bare.chars().all(plain) {
                    let message = format!("{:?} is no name of an agent", name.value);
                    let help = "letters, digits, dots, underscores and hyphens; `*` at its end for all that begin so";
                    self.error(name.referenced, message, help);
                }
            }
            if raw.agents.is_empty() {
                let help = "`agents: [\"*\"]` is for every name";
                self.error(at, "`agents` says which agents may be started", help);
            }
            all.push(MayStart {
                who,
                agents: raw.agents.into_iter().map(|name| name.value).collect(),
                labels: raw.labels,
            });
        }
        Some(all)
    }
}
