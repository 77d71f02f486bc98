//! Who somebody is, and in which groups.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::sync::Arc;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::config::Approvals;

/// Somebody who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Login name, or the user id where the host has no name for it.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// The host's groups, and those of the configuration.
    pub groups: Vec<Arc<str>>,
}

/// No login session: what the kernel says for daemons.
const NO_LOGIN: u32 = u32::MAX;

impl Person {
    /// Who a process acts for: its user, or, where that is root, the user who
    /// logged in before becoming root, which the kernel remembers (`loginuid`,
    /// `proc_pid_loginuid(5)`) and no program can change back.
    #[must_use]
    pub fn of_process(uid: u32, pid: u32, config: &Approvals) -> Self {
        let login = std::fs::read_to_string(format!("/proc/{pid}/loginuid"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .filter(|login| *login != NO_LOGIN);
        Self::of_user(if uid == 0 { login.unwrap_or(0) } else { uid }, config)
    }

    /// A user of this host.
    #[must_use]
    pub fn of_user(uid: u32, config: &Approvals) -> Self {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let name = user
            .as_ref()
            .map_or_else(|| uid.to_string(), |user| user.name.clone());
        let mut groups: BTreeSet<String> = user
            .as_ref()
            .map(|user| host_groups(&user.name, user.gid))
            .unwrap_or_default();
        for (group, people) in &config.groups {
            if people.contains(&name) {
                groups.insert(group.clone());
            }
        }
        Self {
            name,
            uid,
            groups: groups.into_iter().map(Arc::from).collect(),
        }
    }
}

fn host_groups(name: &str, gid: Gid) -> BTreeSet<String> {
    let Ok(name) = CString::new(name) else {
        return BTreeSet::new();
    };
    getgrouplist(&name, gid)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|gid| Group::from_gid(gid).ok().flatten())
        .map(|group| group.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_in_the_hosts_groups_and_in_the_configurations() {
        let config = Approvals {
            groups: [
                ("dba".to_owned(), vec!["root".to_owned()]),
                ("security".to_owned(), vec!["ann".to_owned()]),
            ]
            .into(),
            ..Approvals::default()
        };
        let root = Person::of_user(0, &config);
        assert_eq!(root.name, "root");
        assert!(root.groups.contains(&"dba".into()));
        assert!(root.groups.contains(&"root".into()));
        assert!(!root.groups.contains(&"security".into()));
    }

    #[test]
    fn a_user_without_a_name_goes_by_the_number() {
        let nobody = Person::of_user(3_999_999_999, &Approvals::default());
        assert_eq!(nobody.name, "3999999999");
        assert!(nobody.groups.is_empty());
    }
}
