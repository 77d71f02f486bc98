//! The looker's own side.
//!
//! It is the side that enforces: it moves processes into agents' cgroups and out of them and
//! nowhere else, shows nothing of a process but what is asked of every one, and opens and
//! runs what the configuration refers to and nothing else.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use caps::Capability;
use nix::sys::signal::{SigHandler, Signal, signal};
use tracing::warn;

use super::wire::{Answer, Plan, Request};
use super::{LONGEST, Looked};
use crate::agents::{Here, Wanted};
use crate::secrets::{self, SecretRef};
use crate::wire;
use crate::{keeper, sandbox};

/// What looking takes.
const KEPT: [Capability; 3] = [
    // What agents of other users run.
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    // Moving processes back into cgroups that belong to a user.
    Capability::CAP_DAC_OVERRIDE,
];

/// Looks until nobody has the other end of standard input.
///
/// # Errors
/// When there is no daemon at the other end.
pub(crate) fn serve() -> io::Result<()> {
    keeper::alone();
    // Commands would go on to ignore what this process does; what it handles they do not.
    for one in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: the handler does nothing.
        let _ = unsafe { signal(one, SigHandler::Handler(stays)) };
    }
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let mut daemon = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let plan: Plan = wire::receive_within(&mut daemon, LONGEST)?;
    let looked = enter(&plan);
    let does = Arc::new(Does {
        here: plan.cgroups.map(|(root, agents)| Here::new(root, agents)),
        files: plan.files,
        commands: plan.commands,
    });
    wire::send(&mut daemon, &looked)?;
    // One line after the other; each is a thread of its own, since a look may take long.
    while let Ok(line) = wire::receive_descriptor(&daemon) {
        let does = Arc::clone(&does);
        let started = std::thread::Builder::new()
            .name("look".to_owned())
            .spawn(move || answer_all(&does, line.into()));
        if let Err(error) = started {
            warn!(%error, "the looker answers no more questions at once");
        }
    }
    Ok(())
}

extern "C" fn stays(_: libc::c_int) {}

/// Gives up what looking does not take. What cannot be given up is told.
fn enter(plan: &Plan) -> Looked {
    if plan.capabilities
        && let Err(error) = sandbox::drop_capabilities(&KEPT)
    {
        warn!("the looker keeps capabilities: {error:#}");
    }
    if plan.seccomp
        && let Err(error) = sandbox::filter()
    {
        warn!("the looker's system calls are not filtered: {error:#}");
    }
    Looked {
        pid: std::process::id(),
        in_force: sandbox::in_force(),
    }
}

/// What it does for the daemon.
struct Does {
    /// `None` without interception.
    here: Option<Here>,
    files: BTreeSet<PathBuf>,
    commands: BTreeSet<Vec<String>>,
}

fn answer_all(does: &Does, mut line: UnixStream) {
    while let Ok(request) = wire::receive_within(&mut line, LONGEST) {
        let sent = match request {
            Request::Open { path } => match does.open(&path) {
                Ok(file) => wire::send(&mut line, &Answer::Opened)
                    .and_then(|()| wire::send_descriptor(&line, &file.into())),
                Err(error) => {
                    let number = error.raw_os_error().unwrap_or(libc::EACCES);
                    wire::send(&mut line, &Answer::NotOpened(number))
                }
            },
            request => {
                let answer = does.answer(request);
                let answer = answer.unwrap_or_else(|error| Answer::Refused(format!("{error:#}")));
                wire::send(&mut line, &answer)
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

impl Does {
    fn open(&self, path: &Path) -> io::Result<File> {
        if !self.files.contains(path) {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let file = File::open(path)?;
        match file.metadata()?.is_dir() {
            true => Err(io::Error::from_raw_os_error(libc::EISDIR)),
            false => Ok(file),
        }
    }

    fn answer(&self, request: Request) -> anyhow::Result<Answer> {
        if let Request::Run { line } = request {
            anyhow::ensure!(
                self.commands.contains(&line),
                "the configuration has no such command"
            );
            let printed = secrets::resolve_here(&SecretRef::Command(line))?;
            return Ok(Answer::Printed(printed.expose().to_owned()));
        }
        let here = self.here.as_ref().context("there is no interception")?;
        Ok(match request {
            Request::See { pid, cgroup_id } => Answer::Seen(here.see(pid, cgroup_id)),
            Request::Foreign { cgroup } => Answer::Count(here.foreign(&cgroup)),
            Request::Place { to, pid } => {
                here.place(&to, pid)?;
                Answer::Done
            }
            Request::Gather {
                to,
                pid,
                asker,
                allow_open_sockets,
                held,
            } => {
                let wanted = Wanted {
                    pid,
                    asker,
                    allow_open_sockets,
                };
                Answer::Sockets(here.gather(&to, wanted, &held)?)
            }
            Request::Release { from, home } => {
                here.release(&from, &home)?;
                Answer::Done
            }
            Request::Digests {} => Answer::Digests(here.digests()),
            Request::TakeDigests(made) => {
                here.take_digests(made);
                Answer::Done
            }
            Request::Open { .. } | Request::Run { .. } => {
                anyhow::bail!("this is answered elsewhere")
            }
        })
    }
}
