//! Who tries: helpers in an agent's cgroup, with and without what `exec` does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::agent::Agent;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::needs;

use super::HELPER;
use super::rows::Who;

/// Where an inherited socket stands.
pub(super) const INHERITED: RawFd = 77;
/// A helper that answers lines.
pub(super) struct Lines {
    pub(super) child: Child,
    pub(super) input: ChildStdin,
    pub(super) output: BufReader<ChildStdout>,
}

impl Lines {
    pub(super) fn of(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a helper")?;
        Ok(Self {
            input: child.stdin.take().context("no input")?,
            output: BufReader::new(child.stdout.take().context("no output")?),
            child,
        })
    }

    pub(super) fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.input, "{line}")?;
        self.next()
    }

    pub(super) fn next(&mut self) -> Result<String> {
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the helper ended");
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts a descriptor where a program that is started finds it.
pub(super) fn inherit(command: &mut Command, socket: RawFd) {
    // SAFETY: a system call alone, which allocates nothing.
    unsafe {
        command.pre_exec(move || match libc::dup2(socket, INHERITED) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// A helper of an ordinary user, or of root, in a cgroup, without anything that `exec` does.
pub(super) fn in_cgroup(cgroup: Option<&Path>, ordinary: bool, words: &[&str]) -> Result<Command> {
    let user = needs::ordinary_user()?;
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let procs = cgroup
        .map(|path| {
            std::fs::File::options()
                .write(true)
                .open(path.join("cgroup.procs"))
        })
        .transpose()?;
    let mut command = Command::new(HELPER);
    command.args(words).current_dir("/");
    // SAFETY: system calls alone, which allocate nothing.
    unsafe {
        command.pre_exec(move || {
            let check = |done: libc::c_int| match done {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            };
            if let Some(procs) = &procs
                && libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
            {
                return Err(std::io::Error::last_os_error());
            }
            if ordinary {
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setresgid(gid, gid, gid))?;
                check(libc::setresuid(uid, uid, uid))?;
                check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            }
            Ok(())
        });
    }
    Ok(command)
}

/// One run of an agent, with processes in it that `exec` started and that it did not.
pub(super) struct Run {
    pub(super) cgroup: PathBuf,
    pub(super) launched: Lines,
    pub(super) attached: Lines,
    pub(super) root: Lines,
}

impl Run {
    pub(super) fn start(daemon: &Daemon, name: &str) -> Result<Self> {
        let mut launched = Lines::of(Agent::new(daemon, name).command(&[HELPER])?)?;
        launched.ask("pid")?;
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", launched.child.id()))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let cgroup = interceptor_user::kernel::cgroup::root()?.join(path.context("a cgroup")?);
        Ok(Self {
            launched,
            attached: Lines::of(in_cgroup(Some(&cgroup), true, &[])?)?,
            root: Lines::of(in_cgroup(Some(&cgroup), false, &[])?)?,
            cgroup,
        })
    }

    pub(super) fn lines(&mut self, who: Who) -> &mut Lines {
        match who {
            Who::Attached => &mut self.attached,
            Who::Root => &mut self.root,
            Who::Launched => &mut self.launched,
        }
    }
}
