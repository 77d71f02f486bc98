//! `intercept.agents`, checked.

use std::collections::{BTreeMap, HashSet};

use serde_saphyr::Spanned;

use super::check::Check;
use super::{Agent, written};
use crate::agents::check_labels;
use crate::agents::selector::Selector;

/// How each is found.
const KINDS: &str = "one of `unit`, `user`, `container`, `pod` and `cgroup` says how it is found";

impl Check<'_, '_> {
    /// Agents that something else starts.
    pub(super) fn agents(&mut self, raw: Vec<Spanned<written::Agent>>, kernel: bool) -> Vec<Agent> {
        if let Some(first) = raw.first()
            && !kernel
        {
            let message = "`agents` need interception in the kernel, which is switched off";
            let help = "take out `kernel: false`, or `agents`";
            self.error(first.referenced, message, help);
        }
        let mut taken = HashSet::new();
        let mut agents = Vec::new();
        for Spanned {
            value: raw,
            referenced,
            ..
        } in raw
        {
            let name = self.name(&raw.name, "an agent");
            if name.starts_with('.') {
                let message = "an agent's name does not begin with a dot";
                self.error(raw.name.referenced, message, "");
            }
            if let Err(error) = check_labels(&raw.labels) {
                self.error(referenced, error.to_string(), "");
            }
            let written: Vec<(Selector, _)> = [
                (raw.cgroup, Selector::Cgroup as fn(String) -> Selector),
                (raw.unit, Selector::Unit),
                (raw.user, Selector::User),
                (raw.container, Selector::Container),
                (raw.pod, Selector::Pod),
            ]
            .into_iter()
            .filter_map(|(text, kind)| {
                let text = text?;
                Some((kind(text.value), text.referenced))
            })
            .collect();
            let mut written = written.into_iter();
            match (written.next(), written.next()) {
                (None, _) => self.error(referenced, format!("agent {name:?} is not found"), KINDS),
                (Some(_), Some((_, at))) => {
                    self.error(at, format!("agent {name:?} is found in two ways"), KINDS);
                }
                (Some((selector, at)), None) => {
                    if let Err(error) = selector.check() {
                        self.error(at, error.to_string(), "");
                    }
                    if !taken.insert(selector.clone()) {
                        let message = format!("there are two agents with the {selector}");
                        self.error(at, message, "");
                    }
                    agents.push(Agent {
                        name,
                        selector,
                        labels: raw.labels.into_iter().collect::<BTreeMap<_, _>>(),
                    });
                }
            }
        }
        agents
    }
}
