//! Names of users and groups.
//!
//! The C library reads `/etc/passwd` from its beginning for each of them, or asks a
//! server of the network; so what it said is believed for a second, which is less than
//! it takes anybody to notice that an account was renamed.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User};

use crate::host::lock;

/// How long a name is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// How many names are kept.
const KEPT: usize = 1_024;

/// Whose name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Account {
    User(u32),
    Group(u32),
}

type Known = HashMap<Account, (Instant, Option<String>)>;

/// The name of a user; none where the host does not know it.
pub(super) fn user(uid: u32) -> Option<String> {
    name(Account::User(uid))
}

/// The name of a group; none where the host does not know it.
pub(super) fn group(gid: u32) -> Option<String> {
    name(Account::Group(gid))
}

fn name(account: Account) -> Option<String> {
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    if let Some((at, name)) = lock(known).get(&account)
        && at.elapsed() < BELIEVED
    {
        return name.clone();
    }
    // Not under the lock: it may take long.
    let name = match account {
        Account::User(uid) => User::from_uid(Uid::from_raw(uid))
            .ok()?
            .map(|user| user.name),
        Account::Group(gid) => Group::from_gid(Gid::from_raw(gid))
            .ok()?
            .map(|group| group.name),
    };
    let mut known = lock(known);
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(account, (Instant::now(), name.clone()));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_of_one_number_are_two_names() {
        for _ in 0..2 {
            assert_eq!(user(0).as_deref(), Some("root"));
            assert_eq!(group(0).as_deref(), Some("root"));
            assert_eq!(user(1).as_deref(), Some("daemon"));
            assert_eq!(user(4_000_000_000), None);
        }
    }
}
