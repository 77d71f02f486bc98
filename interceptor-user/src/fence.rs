//! The files that are left to the daemon once it reads what agents send: its own.
//!
//! A Landlock domain keeps the rest from it, whoever it runs as: the files of the keys that
//! the keeper has, and everybody else's. Files that the configuration refers to are opened by the looker
//! ([`crate::looker`]), by their names as they are then. What a domain does beside: a process
//! in it may not look into one outside, be it for its memory or its executable.
//!
//! Rules go by folders, not by files: a file that is replaced, as `resolv.conf` and rules
//! are, is another one. So all of `/etc` may be read, as far as the user may.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetStatus, path_beneath_rules,
};
use tracing::warn;

use crate::archive;
use crate::config::Config;
use crate::kernel::cgroup;
use crate::ssh::known_hosts;

/// The newest that is known here; an older kernel does what it knows of it.
const NEWEST: ABI = ABI::V5;

/// Programs, libraries and what they need: a private Redis is started from here.
const SYSTEM: [&str; 9] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix",
];
/// What is read: settings of the system, processes, the kernel's own, and names of users.
const READ: [&str; 6] = [
    "/etc",
    "/proc",
    "/sys",
    "/run/systemd",
    "/var/lib/sss",
    "/var/lib/extrausers",
];
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// Folders below the state folder that are the daemon's to write. Its keys are beside them.
const OWN: [&str; 4] = ["evidence", "attached", "redis", "ssh/hosts"];

static IN_FORCE: AtomicBool = AtomicBool::new(false);

/// Whether this process is kept to its files.
#[must_use]
pub(crate) fn is_in_force() -> bool {
    IN_FORCE.load(Ordering::Acquire)
}

/// The files that the looker opens. None where the daemon writes: what it put there under a
/// name of the configuration's, a link say, would be opened for it with the looker's rights.
pub(crate) fn files(config: &Config) -> BTreeSet<PathBuf> {
    let mut own = owned(config);
    own.push(config.runtime_dir.clone());
    own.push(config.admin.socket.clone());
    let is_own = |path: &PathBuf| {
        let real = std::fs::canonicalize(path.parent().unwrap_or(path));
        let real = real.unwrap_or_default();
        own.iter().any(|own| {
            let below = std::fs::canonicalize(own).unwrap_or_else(|_| own.clone());
            path.starts_with(own) || real.starts_with(below)
        })
    };
    let mut files = config.referred.files.clone();
    files.retain(|path| !is_own(path));
    files.extend(known_hosts::SYSTEM.map(PathBuf::from));
    files
}

/// Keeps this thread, and those that it starts, to the daemon's files, having made the
/// folders among them. What cannot be done is told, and is no reason not to start.
pub(crate) fn enter(config: &Config) {
    for own in owned(config) {
        // Whatever is to be written there says it when it cannot.
        let _ = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(own);
    }
    match confine(config) {
        Ok(true) => IN_FORCE.store(true, Ordering::Release),
        Ok(false) => warn!("this kernel has no Landlock: files are not kept from the daemon"),
        Err(error) => warn!("files are not kept from the daemon: {error:#}"),
    }
}

fn confine(config: &Config) -> anyhow::Result<bool> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = read | AccessFs::Execute;
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let mut rules: Vec<(PathBuf, BitFlags<AccessFs>)> = Vec::new();
    let mut add = |path: PathBuf, access| rules.push((path, access));

    for own in owned(config) {
        add(own, all & !AccessFs::Execute);
    }
    add(config.runtime_dir.clone(), all & !AccessFs::Execute);
    if let Some(folder) = config.admin.socket.parent() {
        let place = AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::ReadDir;
        add(folder.to_owned(), place);
    }
    for path in &config.rules {
        add(path.clone(), read);
        if path.is_file()
            && let Some(folder) = path.parent()
        {
            add(folder.to_owned(), read);
        }
    }
    if config.intercept.kernel {
        let root = cgroup::root()?;
        let agents = root.join(&config.intercept.cgroup);
        add(
            agents,
            read | AccessFs::WriteFile | AccessFs::MakeDir | AccessFs::RemoveDir,
        );
        add(root, read);
    }
    for path in READ {
        add(path.into(), read);
    }
    // Often a link into a folder of whatever writes it.
    let resolv = std::fs::canonicalize("/etc/resolv.conf").ok();
    if let Some(folder) = resolv.as_deref().and_then(Path::parent) {
        add(folder.to_owned(), read);
    }
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Some(path) = std::env::var_os(name) {
            add(path.into(), read);
        }
    }
    for path in DEVICES {
        add(path.into(), device);
    }
    let searched = std::env::var_os("PATH").unwrap_or_default();
    let programs = SYSTEM.into_iter().map(PathBuf::from);
    for path in programs.chain(std::env::split_paths(&searched)) {
        // An empty one is the working folder, which is no place for programs.
        if path.is_absolute() {
            add(path, run);
        }
    }
    if let Ok(own) = std::env::current_exe() {
        add(own, run);
    }

    let mut ruleset = Ruleset::default().handle_access(all)?.create()?;
    for (path, access) in rules {
        // What is not there is left out.
        ruleset = ruleset.add_rules(path_beneath_rules([path], access))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Folders that are the daemon's to write, beside that of its sockets.
fn owned(config: &Config) -> Vec<PathBuf> {
    let state = &config.state_dir;
    let mut folders: Vec<PathBuf> = OWN.iter().map(|name| state.join(name)).collect();
    folders.push(match &config.recorder.spool.dir {
        Some(dir) => dir.clone(),
        None => state.join("spool"),
    });
    let archive = config.recorder.retention.archive_to.as_ref();
    folders.extend(archive.and_then(|to| archive::place::folder(&to.url)));
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_may_replace_is_not_opened_for_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for folder in ["run", "state/spool", "secrets"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::os::unix::fs::symlink(at("run"), at("alias")).unwrap();
        let mut config = Config {
            runtime_dir: at("run"),
            state_dir: at("state"),
            ..Config::default()
        };
        config.admin.socket = at("secrets/admin.sock");
        let names = [
            "secrets/password",
            "secrets/admin.sock",
            "run/password",
            "alias/password",
            "secrets/../run/password",
            "state/spool/password",
        ];
        config.referred.files = names.map(at).into();
        let opened = files(&config);
        let opened: Vec<_> = names
            .iter()
            .filter(|name| opened.contains(&at(name)))
            .collect();
        assert_eq!(opened, [&"secrets/password"]);
    }
}
