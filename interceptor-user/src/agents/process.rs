//! What `/proc` says of a process, beyond what the kernel noted at `connect`.
//!
//! It is read after the fact, so it may be about another process: the first one gone,
//! its number given anew. What is in another cgroup than the socket is therefore not
//! believed, and what is gone is called gone.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::accounts::{group, user};
use super::command_line::recordable;
use super::executable::Executables;
use crate::kernel::{Origin, cgroup};

/// How much of a command line is read.
const LONGEST_COMMAND_LINE: u64 = 4_096;
/// How many groups are named.
const MOST_GROUPS: usize = 64;
/// How many parents are named.
const MOST_PARENTS: usize = 16;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) exe: Option<String>,
    pub(super) command_line: Option<String>,
    pub(super) cgroup: Option<String>,
    pub(super) json: Map<String, Value>,
}

/// What was seen of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Seen {
    /// It is not there any more.
    Gone,
    /// It is in another cgroup.
    Elsewhere,
    /// It is there.
    There(Box<There>),
}

/// What was seen of a process that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct There {
    cgroup: String,
    exe: Option<String>,
    exe_sha256: Option<String>,
    command_line: Option<String>,
    /// Supplementary groups.
    groups: Vec<u32>,
    started_ms: Option<u64>,
    start_ticks: u64,
    parents: Vec<Parent>,
}

/// One of a process's parents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Parent {
    pid: u32,
    comm: String,
    exe: Option<String>,
    start_ticks: u64,
}

/// Looks at a process that is said to be in this cgroup.
pub(super) fn see(pid: u32, cgroup_id: u64, root: &Path, executables: &Executables) -> Seen {
    let Some(stat) = Stat::of(pid) else {
        return Seen::Gone;
    };
    let Ok(cgroup) = cgroup::of_process(pid) else {
        return Seen::Gone;
    };
    let id = cgroup::id(&root.join(cgroup.trim_start_matches('/')));
    if !id.is_ok_and(|id| id == cgroup_id) {
        return Seen::Elsewhere;
    }
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let exe = proc.join("exe");
    let there = There {
        cgroup,
        exe: fs::read_link(&exe)
            .ok()
            .map(|path| path.to_string_lossy().into_owned()),
        exe_sha256: executables
            .sha256(&exe)
            .ok()
            .map(|digest| (*digest).to_owned()),
        command_line: command_line(&proc),
        groups: groups(&proc),
        started_ms: started(stat.start),
        start_ticks: stat.start,
        parents: parents(stat.parent),
    };
    // The same process still, or nothing of the above is about the one that connected.
    match Stat::of(pid) {
        Some(now) if now.start == stat.start => Seen::There(Box::new(there)),
        _ => Seen::Gone,
    }
}

/// What is known of the process that an origin names, of which this was seen.
pub(super) fn known(origin: &Origin, seen: Seen) -> Found {
    let mut found = Found {
        user: user(origin.uid),
        group: group(origin.gid),
        ..Found::default()
    };
    let json = &mut found.json;
    json.insert("pid".to_owned(), origin.pid.into());
    json.insert("uid".to_owned(), origin.uid.into());
    json.insert("gid".to_owned(), origin.gid.into());
    json.insert("comm".to_owned(), origin.comm.clone().into());
    for (key, name) in [("user", &found.user), ("group", &found.group)] {
        if let Some(name) = name {
            json.insert(key.to_owned(), name.clone().into());
        }
    }
    let there = match seen {
        Seen::There(there) => *there,
        Seen::Gone => {
            json.insert("gone".to_owned(), true.into());
            return found;
        }
        Seen::Elsewhere => {
            json.insert("elsewhere".to_owned(), true.into());
            return found;
        }
    };
    if let Some(exe) = &there.exe {
        json.insert("exe".to_owned(), exe.clone().into());
    }
    if let Some(digest) = there.exe_sha256 {
        json.insert("exe_sha256".to_owned(), digest.into());
    }
    if let Some(line) = &there.command_line {
        json.insert("command_line".to_owned(), recordable(line).into());
    }
    if let Some(started) = there.started_ms {
        json.insert("started_ms".to_owned(), started.into());
    }
    json.insert("start_ticks".to_owned(), there.start_ticks.into());
    let parents = there.parents.into_iter().map(|parent| {
        json!({
            "pid": parent.pid,
            "comm": parent.comm,
            "exe": parent.exe,
            "start_ticks": parent.start_ticks,
        })
    });
    json.insert("parents".to_owned(), parents.collect());
    found.groups = there
        .groups
        .into_iter()
        .map(|gid| group(gid).unwrap_or_else(|| gid.to_string()))
        .collect();
    found.exe = there.exe;
    found.command_line = there.command_line;
    found.cgroup = Some(there.cgroup);
    found
}

/// The fields of `/proc/PID/stat` that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    comm: String,
    parent: u32,
    /// In clock ticks since boot.
    start: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// A thread's name stands in parentheses and may hold any of them, so the last
    /// closing one ends it (proc_pid_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let (_, comm) = before.split_once('(')?;
        let mut fields = after.split_whitespace();
        // The third field is the state; the fourth the parent, the 22nd the start.
        let parent = fields.nth(1)?.parse().ok()?;
        let start = fields.nth(17)?.parse().ok()?;
        Some(Self {
            comm: printable(comm),
            parent,
            start,
        })
    }
}

/// A process's parent.
pub(super) fn parent(pid: u32) -> Option<u32> {
    Stat::of(pid).map(|stat| stat.parent)
}

/// A process's name.
pub(super) fn name(pid: u32) -> Option<String> {
    Stat::of(pid).map(|stat| stat.comm)
}

/// Whether nothing of a process runs any more, and only its parent has not asked what came
/// of it. One whose first thread ended before the others runs on.
pub(super) fn is_dead(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, after)| after.split_whitespace().next());
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    matches!(state, None | Some("Z" | "X")) && threads <= 1
}

/// Whether it is a thread of the kernel's: `kthreadd`, or one of its children.
pub(super) fn is_kernel_thread(pid: u32) -> bool {
    const KTHREADD: &str = "kthreadd";
    let is = |pid| Stat::of(pid).is_some_and(|stat| stat.comm == KTHREADD && stat.parent == 0);
    is(pid) || parent(pid).is_some_and(is)
}

/// The chain of parents, nearest first.
fn parents(first: u32) -> Vec<Parent> {
    let mut chain = Vec::new();
    let mut pid = first;
    while pid != 0 && chain.len() < MOST_PARENTS {
        let Some(stat) = Stat::of(pid) else { break };
        let exe = fs::read_link(format!("/proc/{pid}/exe"))
            .ok()
            .map(|path| path.to_string_lossy().into_owned());
        chain.push(Parent {
            pid,
            comm: stat.comm,
            exe,
            start_ticks: stat.start,
        });
        pid = stat.parent;
    }
    chain
}

/// The arguments, joined by single blanks; what is beyond 4 KiB is left out.
fn command_line(proc: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(proc.join("cmdline"))
        .ok()?
        .take(LONGEST_COMMAND_LINE)
        .read_to_end(&mut bytes)
        .ok()?;
    let text = bytes
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect::<Vec<_>>()
        .join(" ");
    let text = printable(text.trim_end());
    (!text.is_empty()).then_some(text)
}

/// Control characters are replaced, since a person will read this on a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Milliseconds since the epoch at which a process started.
fn started(ticks: u64) -> Option<u64> {
    // Read once: the kernel counts every interrupt anew for each reader of that file.
    static BOOT: OnceLock<Option<u64>> = OnceLock::new();
    let boot = (*BOOT.get_or_init(booted))?;
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    let since_boot = ticks.checked_mul(1_000)?.checked_div(per_second)?;
    boot.checked_mul(1_000)?.checked_add(since_boot)
}

/// Seconds since the epoch at which the host started.
fn booted() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// The process's supplementary groups (`proc_pid_status(5)`).
fn groups(proc: &Path) -> Vec<u32> {
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|gid| gid.parse().ok())
        .take(MOST_GROUPS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin_of_this_test() -> Origin {
        let path = cgroup::of_process(std::process::id()).unwrap();
        let id = cgroup::id(&cgroup::root().unwrap().join(path.trim_start_matches('/'))).unwrap();
        Origin {
            address: "127.0.0.1:1".parse().unwrap(),
            pid: std::process::id(),
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            comm: "test".to_owned(),
            cgroup_id: id,
        }
    }

    fn look_at(origin: &Origin, root: &Path) -> Found {
        let seen = see(origin.pid, origin.cgroup_id, root, &Executables::default());
        known(origin, seen)
    }

    #[test]
    fn a_living_process_is_known_by_executable_command_line_and_parents() {
        let origin = origin_of_this_test();
        let root = cgroup::root().unwrap();
        let found = look_at(&origin, &root);
        let own = std::env::current_exe().unwrap();
        assert_eq!(found.exe.as_deref(), own.to_str());
        assert!(found.command_line.unwrap().contains("interceptor"));
        assert_eq!(found.json["exe_sha256"].as_str().unwrap().len(), 64);
        assert_eq!(
            found.json["parents"][0]["pid"],
            nix::unistd::getppid().as_raw()
        );
        assert!(found.json["started_ms"].as_u64().unwrap() > 1_500_000_000_000);
    }

    #[test]
    fn a_process_in_another_cgroup_than_the_socket_is_not_believed() {
        let mut origin = origin_of_this_test();
        origin.cgroup_id ^= 1 << 40;
        let root = cgroup::root().unwrap();
        let found = look_at(&origin, &root);
        assert_eq!(found.exe, None);
        assert_eq!(found.command_line, None);
        assert_eq!(found.json["elsewhere"], true);
    }

    #[test]
    fn a_threads_name_cannot_shift_the_fields() {
        let text = "7 (a) R 1 (b)) S 42 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                comm: "a) R 1 (b)".to_owned(),
                parent: 42,
                start: 12_345,
            })
        );
        assert_eq!(Stat::parse("7 (a"), None);
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }
}
