//! Moving a process, with those that descend from it, into a cgroup.
//!
//! The cgroup is frozen meanwhile: what arrives stops, so nothing forks past the move and
//! nothing opens a socket between the look at its descriptors and the move's end. It is
//! done again until no descendant is outside. Where it cannot be done whole, everything
//! goes back to where it was.
//!
//! What this cannot do: a socket keeps the cgroup that it was born in, and stays outside
//! all hooks. So a process that has one is refused unless the operator accepts it. One that
//! is on its way in a message between processes, or only registered with `io_uring`, is
//! not seen. And a child whose parents all ended before this began descends from nobody.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::process;
use super::sockets::{self, OpenSocket};
use crate::kernel::{KernelError, cgroup};

/// How often descendants are looked for; each round finds children of the last one's.
const ROUNDS: usize = 100;
/// How long the kernel has to stop them.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many sockets are named in an error.
const NAMED: usize = 8;

/// Why a process was not moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatherError {
    /// It is not there.
    #[error("there is no process {pid}")]
    Gone {
        /// Which.
        pid: u32,
    },
    /// It may not be.
    #[error("process {pid} may not be moved: {why}")]
    Refused {
        /// Which.
        pid: u32,
        /// Why.
        why: &'static str,
    },
    /// It has sockets that would stay outside.
    #[error(
        "{} network sockets are open, which were made outside interception and would stay outside:\n{}\nend and start it with `interceptor exec`, or accept that with --allow-open-sockets",
        .0.len(), listed(.0)
    )]
    Sockets(Vec<OpenSocket>),
    /// They fork faster than they are moved, or do not stop.
    #[error("the processes of {pid} do not hold still; stop them and try again")]
    Restless {
        /// The first of them.
        pid: u32,
    },
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] KernelError),
}

fn listed(sockets: &[OpenSocket]) -> String {
    let mut lines: Vec<String> = sockets
        .iter()
        .take(NAMED)
        .map(|socket| format!("  {socket}"))
        .collect();
    if sockets.len() > NAMED {
        lines.push(format!("  and {} more", sockets.len() - NAMED));
    }
    lines.join("\n")
}

/// What is moved, and who must not be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The process.
    pub(crate) pid: u32,
    /// Who asks; it would be under interception itself.
    pub(crate) asker: u32,
    /// Whether sockets that stay outside are accepted.
    pub(crate) allow_open_sockets: bool,
}

/// Moves them into `to`, which has nobody in it yet; says which sockets stay outside. `root`
/// is the cgroup2 mount.
///
/// # Errors
/// When it cannot be done whole; then nothing is moved.
pub(super) fn gather(
    root: &Path,
    to: &Path,
    wanted: &Wanted,
    is_held: impl Fn(&Path) -> bool,
) -> Result<Vec<OpenSocket>, GatherError> {
    cgroup::freeze(to, true)?;
    let mut moved = HashMap::new();
    let done = move_all(root, to, wanted, &is_held, &mut moved).and_then(|()| {
        let open: Vec<OpenSocket> = cgroup::processes(to)
            .into_iter()
            .flat_map(sockets::open)
            .collect();
        if open.is_empty() || wanted.allow_open_sockets {
            Ok(open)
        } else {
            Err(GatherError::Sockets(open))
        }
    });
    if done.is_err() {
        let home = moved.get(&wanted.pid).cloned();
        put_back(to, &moved, home.as_deref().unwrap_or(root));
    }
    cgroup::freeze(to, false)?;
    done
}

fn move_all(
    root: &Path,
    to: &Path,
    wanted: &Wanted,
    is_held: &impl Fn(&Path) -> bool,
    moved: &mut HashMap<u32, PathBuf>,
) -> Result<(), GatherError> {
    let pid = wanted.pid;
    let refuse = |pid, why| Err(GatherError::Refused { pid, why });
    if process::is_kernel_thread(pid) {
        return refuse(pid, "it is the kernel's");
    }
    for _ in 0..ROUNDS {
        let mut outside = Vec::new();
        for one in family(pid) {
            // Gone meanwhile, where this fails.
            let Ok(at) = cgroup::of_process(one) else {
                continue;
            };
            let at = root.join(at.trim_start_matches('/'));
            // What is dead cannot be moved, and its parent, which has stopped, leaves it lying.
            if at == to || process::is_dead(one) {
                continue;
            }
            // The looker does this, which is the daemon's child.
            if one == std::process::id() || one == std::os::unix::process::parent_id() {
                return refuse(one, "it is this daemon");
            }
            if one == wanted.asker {
                return refuse(
                    one,
                    "it is the very command that asks; ask from outside of what is moved",
                );
            }
            if is_held(&at) {
                return refuse(one, "it is under interception already");
            }
            outside.push((one, at));
        }
        if outside.is_empty() {
            if !cgroup::processes(to).contains(&pid) {
                return Err(GatherError::Gone { pid });
            }
            return match stopped(to)? {
                true => Ok(()),
                false => Err(GatherError::Restless { pid }),
            };
        }
        for (one, at) in outside {
            match cgroup::place(to, one) {
                Ok(()) => {
                    moved.entry(one).or_insert(at);
                }
                Err(error) if Path::new(&format!("/proc/{one}")).exists() => {
                    return Err(error.into());
                }
                Err(_) => {}
            }
        }
    }
    Err(GatherError::Restless { pid })
}

/// A process and those that descend from it, parents first.
fn family(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let one = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(one) = one
            && let Some(parent) = process::parent(one)
        {
            children.entry(parent).or_default().push(one);
        }
    }
    let mut found = Vec::new();
    let mut open = VecDeque::from([pid]);
    while let Some(one) = open.pop_front() {
        found.push(one);
        open.extend(children.remove(&one).unwrap_or_default());
    }
    found
}

/// Waits until the kernel has stopped everything in a cgroup.
fn stopped(path: &Path) -> Result<bool, KernelError> {
    let begun = Instant::now();
    while !cgroup::is_frozen(path)? {
        if begun.elapsed() > PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

/// Moves everything out of a cgroup again: to where it came from, or `home`.
pub(super) fn put_back(from: &Path, places: &HashMap<u32, PathBuf>, home: &Path) {
    for _ in 0..ROUNDS {
        let left = cgroup::processes(from);
        if left.is_empty() {
            return;
        }
        for pid in left {
            let to = places.get(&pid).map_or(home, PathBuf::as_path);
            if let Err(error) = cgroup::place(to, pid)
                && Path::new(&format!("/proc/{pid}")).exists()
            {
                tracing::warn!(%error, pid, "a process could not be moved back");
            }
        }
    }
}
