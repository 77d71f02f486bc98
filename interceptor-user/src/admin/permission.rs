//! What ordinary users may ask of the daemon: the one place where it is said.
//!
//! Root and the daemon's own user may everything. The kernel says who asks (`SO_PEERCRED`);
//! a process that is under interception asks for nothing. `docs/operations.md` has the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::approval::people::Person;
use crate::config::Intercept;
use crate::config::exec::{MayStart, Who};
use crate::flow::House;

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// It is an operator's.
    #[error("only root and the daemon's own user may ask for this")]
    Operators,
    /// The name stands for an agent that something else starts.
    #[error(
        "agent {agent:?} is one of `intercept.agents`, and {user} may not start another by its name: that takes an entry in `intercept.exec.allow`"
    )]
    Taken {
        /// The name.
        agent: String,
        /// Who asks.
        user: String,
    },
    /// No entry lets them.
    #[error("nothing in `intercept.exec.allow` lets {user} start agent {agent:?}")]
    Name {
        /// The name.
        agent: String,
        /// Who asks.
        user: String,
    },
    /// An entry does, without this label.
    #[error(
        "`intercept.exec.allow` lets {user} start agent {agent:?}, and not with the label {key}={value}"
    )]
    Label {
        /// The name.
        agent: String,
        /// Who asks.
        user: String,
        /// The label.
        key: String,
        /// Its value.
        value: String,
    },
}

/// The runs that a user started, which they may list and whose sessions they may end.
pub(super) struct Own(BTreeSet<Arc<str>>);

impl Own {
    pub(super) fn of(house: &House, uid: u32) -> Self {
        let runs = house.runs.iter().flat_map(|runs| runs.list());
        Self(
            runs.filter(|run| run.requested_by == uid)
                .map(|run| run.id)
                .collect(),
        )
    }

    pub(super) fn has(&self, run: Option<&str>) -> bool {
        run.is_some_and(|run| self.0.contains(run))
    }

    pub(super) fn has_flow(&self, flow: &serde_json::Value) -> bool {
        self.has(flow.get("run").and_then(|run| run.as_str()))
    }
}

/// Whether an ordinary user may start an agent.
///
/// # Errors
/// Why not.
pub(super) fn may_start(
    config: &Intercept,
    person: &Person,
    agent: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), Denied> {
    let fits = |entry: &&MayStart| is_for(&entry.who, person) && names(entry, agent);
    let mut entries = config.exec.iter().flatten().filter(fits).peekable();
    if entries.peek().is_none() {
        let (agent, user) = (agent.to_owned(), person.name.clone());
        return match &config.exec {
            Some(_) => Err(Denied::Name { agent, user }),
            None if config.agents.iter().any(|one| one.name == agent) => {
                Err(Denied::Taken { agent, user })
            }
            None => Ok(()),
        };
    }
    let mut missing = None;
    for entry in entries {
        match labels.iter().find(|label| !has(entry, label)) {
            None => return Ok(()),
            label => missing = label,
        }
    }
    let (key, value) = missing.unzip();
    Err(Denied::Label {
        agent: agent.to_owned(),
        user: person.name.clone(),
        key: key.cloned().unwrap_or_default(),
        value: value.cloned().unwrap_or_default(),
    })
}

fn is_for(who: &Who, person: &Person) -> bool {
    match who {
        Who::User(name) => *name == person.name || *name == person.uid.to_string(),
        Who::Group(name) => person.groups.iter().any(|group| **group == **name),
    }
}

fn names(entry: &MayStart, agent: &str) -> bool {
    entry
        .agents
        .iter()
        .any(|name| match name.strip_suffix('*') {
            Some(beginning) => agent.starts_with(beginning),
            None => name == agent,
        })
}

fn has(entry: &MayStart, (key, value): &(&String, &String)) -> bool {
    match &entry.labels {
        None => true,
        Some(labels) => labels
            .get(*key)
            .is_some_and(|values| values.contains(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(allow: Option<&str>) -> Intercept {
        let allow = allow.map_or_else(String::new, |allow| format!("exec: {{ allow: {allow} }}, "));
        let text = format!(
            "intercept: {{ {allow}agents: [{{ name: deploy-bot, unit: deploy-bot.service }}] }}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        crate::config::Config::load(Some(&path)).unwrap().intercept
    }

    fn ann() -> Person {
        Person {
            name: "ann".to_owned(),
            uid: 1001,
            groups: vec!["developers".into()],
        }
    }

    fn ask(config: &Intercept, agent: &str, labels: &[(&str, &str)]) -> Result<(), Denied> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        may_start(config, &ann(), agent, &labels)
    }

    #[test]
    fn without_a_word_any_name_may_be_taken_but_that_of_an_agent_of_the_configuration() {
        let config = config(None);
        assert_eq!(ask(&config, "anything", &[("team", "x")]), Ok(()));
        let refused = ask(&config, "deploy-bot", &[]);
        assert!(matches!(refused, Err(Denied::Taken { .. })), "{refused:?}");
    }

    #[test]
    fn with_a_list_what_is_not_on_it_is_refused() {
        let config = config(Some(
            "[{ user: ann, agents: [one, 'dev-*'] }, { user: 1001, agents: [two] }, { group: developers, agents: [deploy-bot], labels: { team: [a, b] } }, { user: bob, agents: [bobs] }]",
        ));
        for name in ["one", "dev-", "dev-7", "two", "deploy-bot"] {
            assert_eq!(ask(&config, name, &[]), Ok(()), "{name}");
        }
        for name in ["on", "ones", "de", "bobs", "xdev-"] {
            let refused = ask(&config, name, &[]);
            assert!(matches!(refused, Err(Denied::Name { .. })), "{name}");
        }
        assert_eq!(ask(&config, "one", &[("team", "z")]), Ok(()));
        assert_eq!(ask(&config, "deploy-bot", &[("team", "b")]), Ok(()));
        for label in [("team", "z"), ("other", "a")] {
            let refused = ask(&config, "deploy-bot", &[label]);
            assert!(matches!(refused, Err(Denied::Label { .. })), "{label:?}");
        }
        let nobody = self::config(Some("[]"));
        assert!(matches!(ask(&nobody, "one", &[]), Err(Denied::Name { .. })));
    }
}
