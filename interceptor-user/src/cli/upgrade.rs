//! `interceptor upgrade`.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Global;
use crate::admin::{self, Request, Status};
use crate::config::Config;

/// How long the new daemon may take to take over: it may have a Redis to wait for.
const PATIENCE: Duration = Duration::from_secs(90);

/// Starts this version of the daemon in place of the one that runs
///
/// The new one takes over its sockets, so that no connect is refused; the old one keeps its
/// sessions, and ends with the last of them. Where the new one does not start, the old one
/// runs on, and the command fails. `systemctl reload interceptor` does this.
///
/// Example: interceptor upgrade
#[derive(Debug, clap::Args)]
pub struct Args {}

fn log_of(pid: u32) -> std::io::Result<File> {
    File::options()
        .append(true)
        .open(format!("/proc/{pid}/fd/2"))
}

/// Runs the command.
///
/// # Errors
/// When no daemon runs, or the new one does not start.
pub(super) fn run(global: &Global, _args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let before: Status = admin::ask(&config.admin.socket, &Request::Status {})?;
    let own = std::env::current_exe().context("looking for this program")?;
    let mut command = Command::new(&own);
    if let Some(file) = &global.config {
        command.arg("--config").arg(file);
    }
    command
        .arg("run")
        .stdin(Stdio::null())
        // Not of this terminal: a Ctrl-C here is none for it.
        .process_group(0);
    // As the unit starts its own.
    if before.main_pid.is_some_and(|main| main != before.pid) {
        command.arg("--service");
    }
    // Where the old one logs to, and not what reads this command's output. A socket (the
    // journal's) cannot be opened; under systemd ours is one of its own.
    if let Ok(log) = log_of(before.pid) {
        command.stdout(log.try_clone()?).stderr(log);
    }
    let mut next = command
        .spawn()
        .with_context(|| format!("starting {}", own.display()))?;
    let began = Instant::now();
    let after = loop {
        if let Some(status) = next.try_wait()? {
            bail!(
                "the new daemon ended ({status}), and its log says why; the old one, {}, runs on",
                before.pid
            );
        }
        match admin::ask::<Status>(&config.admin.socket, &Request::Status {}) {
            Ok(status) if status.main_pid.unwrap_or(status.pid) == next.id() => break status,
            _ => {}
        }
        if began.elapsed() > PATIENCE {
            // Not killed: it may have a daemon that it hands this on to.
            if let Ok(pid) = i32::try_from(next.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            let _ = next.wait();
            bail!(
                "the new daemon is not ready after {} s; the old one, {}, runs on",
                PATIENCE.as_secs(),
                before.pid
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut out = std::io::stdout().lock();
    if global.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&after)?)?;
    } else {
        writeln!(
            out,
            "pid {} (version {}) took over from {} (version {}), which has {} sessions left",
            after.pid,
            after.version,
            before.pid,
            before.version,
            after
                .draining
                .iter()
                .filter(|one| one.pid == before.pid)
                .map(|one| one.flows)
                .sum::<usize>()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
