//! Having OpenSSH trust the host keys that agents are shown.
//!
//! OpenSSH reads no variable for it, but a configuration of the system's. A launcher
//! that is root gives its agent a view of the file system of its own, in which that
//! file names the authority's line as well; the system's own file stays as it is. For
//! launchers that are not root the administrator puts the same line into the system's
//! configuration once (`interceptor ca trust`).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The system's own.
const SYSTEM: &str = "/etc/ssh/ssh_config";
/// What is added to it, where the whole system is to trust the authority.
pub const ADDED: &str = "/etc/ssh/ssh_config.d/interceptor.conf";

/// Why OpenSSH does not trust the authority.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
pub struct TrustError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> TrustError {
    let path = path.to_owned();
    move |source| TrustError {
        doing,
        path,
        source: source.into(),
    }
}

/// The line of a configuration that names where the authority is found. The first
/// that says it wins, so it stands first; the system's own files stay in it.
#[must_use]
pub fn line(known_hosts: &Path) -> String {
    format!(
        "# Written by Interceptor.\n\
         GlobalKnownHostsFile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2 \"{}\"\n",
        known_hosts.display()
    )
}

/// Gives this process, and what it becomes, a view of the file system in which OpenSSH
/// trusts the authority. Needs root. Without OpenSSH there is nothing to do.
///
/// # Errors
/// When a file cannot be read or written, or the kernel refuses.
pub fn give(known_hosts: &Path, runtime_dir: &Path) -> Result<(), TrustError> {
    let system = Path::new(SYSTEM);
    let own = match fs::read_to_string(system) {
        Ok(own) => own,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("reading", system)(error)),
    };
    // A name of its own, so that what another process has in view stays whole.
    let file = runtime_dir.join(format!("ssh_config.{}", std::process::id()));
    let text = line(known_hosts) + &own;
    fs::write(&file, text).map_err(failed("writing", &file))?;
    let readable = fs::Permissions::from_mode(0o644);
    fs::set_permissions(&file, readable).map_err(failed("writing", &file))?;
    let given = mounted(&file, system);
    let _ = fs::remove_file(&file);
    given
}

fn mounted(file: &Path, system: &Path) -> Result<(), TrustError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("a view of one's own for", system))?;
    let nothing = None::<&str>;
    // What is mounted elsewhere still arrives; what is mounted here goes nowhere.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(nothing, "/", nothing, flags, nothing).map_err(failed("keeping apart", system))?;
    mount(Some(file), system, nothing, MsFlags::MS_BIND, nothing)
        .map_err(failed("mounting", system))
}
