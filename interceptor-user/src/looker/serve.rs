//! The looker's own side.
//!
//! It is the side that enforces: it moves processes into agents' cgroups and out of them and
//! nowhere else, and shows nothing of a process but what is asked of every one.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::Context as _;
use caps::Capability;
use tracing::warn;

use super::wire::{Answer, Plan, Request};
use super::{LONGEST, Looked};
use crate::agents::{Here, Wanted};
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
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let mut daemon = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let plan: Plan = wire::receive_within(&mut daemon, LONGEST)?;
    let looked = enter(&plan);
    let here = plan.cgroups.map(|(root, agents)| Here::new(root, agents));
    let here = Arc::new(here);
    wire::send(&mut daemon, &looked)?;
    // One line after the other; each is a thread of its own, since a look may take long.
    while let Ok(line) = wire::receive_descriptor(&daemon) {
        let here = Arc::clone(&here);
        let started = std::thread::Builder::new()
            .name("look".to_owned())
            .spawn(move || answer_all(here.as_ref().as_ref(), line.into()));
        if let Err(error) = started {
            warn!(%error, "the looker answers no more questions at once");
        }
    }
    Ok(())
}

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

fn answer_all(here: Option<&Here>, mut line: UnixStream) {
    while let Ok(request) = wire::receive_within(&mut line, LONGEST) {
        let answer =
            answer(here, request).unwrap_or_else(|error| Answer::Refused(format!("{error:#}")));
        if wire::send(&mut line, &answer).is_err() {
            return;
        }
    }
}

fn answer(here: Option<&Here>, request: Request) -> anyhow::Result<Answer> {
    let here = here.context("there is no interception")?;
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
    })
}
