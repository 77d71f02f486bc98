//! Says when a cgroup is made, so that one that is wanted need not be waited for.
//!
//! systemd and container engines make a cgroup before the first instruction of what is to
//! run in it. The kernel tells of folders that are made directly below the mount and one
//! level below that, where they put services and containers; what is made deeper is found
//! by the look twice a second.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::sync::Notify;
use tracing::warn;

use crate::kernel::cgroup;

/// Tells `made` of every new cgroup, on a thread of its own, until the process ends. Where
/// the kernel cannot be asked, that is told and nobody is.
pub fn watch(root: &Path, made: Arc<Notify>) {
    let root = root.to_owned();
    let started = std::thread::Builder::new()
        .name("cgroups".to_owned())
        .spawn(move || {
            if let Err(error) = run(&root, &made) {
                warn!(%error, "new cgroups are looked for twice a second, and not seen at once");
            }
        });
    if let Err(error) = started {
        warn!(%error, "new cgroups are looked for twice a second, and not seen at once");
    }
}

fn run(root: &Path, made: &Notify) -> nix::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
    let top = inotify.add_watch(root, flags)?;
    // Gone again, where this fails.
    let add = |path: PathBuf| {
        let _ = inotify.add_watch(&path, flags);
    };
    for child in cgroup::children(root) {
        add(child);
    }
    made.notify_one();
    loop {
        for event in inotify.read_events()? {
            if event.wd == top
                && let Some(name) = event.name
            {
                add(root.join(name));
            }
        }
        made.notify_one();
    }
}
