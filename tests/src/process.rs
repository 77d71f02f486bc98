//! Servers that die with whoever started them.
//!
//! The kernel sends a parent's death signal when the *thread* that forked ends.
//! Tests run in threads that end early, so every server is forked by one thread
//! that lives as long as the process.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, User};

/// A running server. Stopped when dropped.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    stop: Signal,
}

/// How a server is started and stopped.
#[derive(Debug)]
pub struct Start<'a> {
    /// What to call it in errors.
    pub name: &'a str,
    /// Where its output goes; appended to.
    pub log: &'a Path,
    /// Who runs it; `None` for the caller.
    pub user: Option<&'a User>,
    /// The signal that ends it in order.
    pub stop: Signal,
    /// The signal that the kernel sends when this process is gone.
    pub orphaned: Signal,
}

impl Server {
    /// Starts `command` in a process group of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(start: &Start<'_>, mut command: Command) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(start.log)
            .with_context(|| format!("opening {}", start.log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if let Some(user) = start.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let child =
            spawn(command, start.orphaned).with_context(|| format!("starting {}", start.name))?;
        Ok(Self {
            name: start.name.to_owned(),
            child,
            log: start.log.to_owned(),
            stop: start.stop,
        })
    }

    /// Waits until `ready` says yes; an error with the end of the log when the
    /// server ends before, or when it takes too long.
    ///
    /// # Errors
    /// As above.
    pub fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || start.elapsed() > Duration::from_secs(60) {
                bail!(
                    "{} {}; its log ends:\n{}",
                    self.name,
                    ended.map_or("is not ready after 60 s".to_owned(), |status| format!(
                        "ended at once ({status})"
                    )),
                    self.log_end(40)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(self.pid(), signal)
            .with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn ends(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("{} does not end within {limit:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it in order, by force after ten seconds.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let _ = self.signal(self.stop);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill()
    }

    /// Kills it and what it started, at once.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        let _ = nix::sys::signal::killpg(self.pid(), Signal::SIGKILL);
        self.child
            .wait()
            .with_context(|| format!("waiting for {}", self.name))
    }

    /// The whole log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_end(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        let from = all.len().saturating_sub(lines);
        all.get(from..).unwrap_or_default().join("\n")
    }

    /// The kernel's line `field` about it, in KiB: `VmHWM`, `VmRSS` …
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory_kib(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no {field} in {path}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
        let _ = nix::sys::signal::killpg(self.pid(), Signal::SIGKILL);
    }
}

struct Job {
    command: Command,
    answer: mpsc::Sender<io::Result<Child>>,
}

/// Forks on the thread that outlives every test.
fn spawn(mut command: Command, orphaned: Signal) -> Result<Child> {
    static KEEPER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    // SAFETY: between fork and exec only `prctl` is called, which is
    // async-signal-safe. It comes after the change of user, which would undo it.
    #[allow(unsafe_code, reason = "std offers no death signal")]
    unsafe {
        command.pre_exec(move || Ok(nix::sys::prctl::set_pdeathsig(orphaned)?));
    }
    let keeper = KEEPER.get_or_init(|| {
        let (jobs, taken) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for mut job in taken {
                let _ = job.answer.send(job.command.spawn());
            }
        });
        jobs
    });
    let (answer, answered) = mpsc::channel();
    keeper
        .send(Job { command, answer })
        .ok()
        .context("the thread that starts servers is gone")?;
    Ok(answered
        .recv()
        .context("the thread that starts servers is gone")??)
}

/// A file system of a test's own; gone when this is.
#[derive(Debug)]
pub struct Mounted(std::path::PathBuf);

impl Mounted {
    /// A tmpfs of `bytes` at `folder`.
    ///
    /// # Errors
    /// When it cannot be mounted: that takes root.
    pub fn tmpfs(folder: &Path, bytes: u64) -> Result<Self> {
        nix::mount::mount(
            Some("tmpfs"),
            folder,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(format!("size={bytes}").as_str()),
        )
        .with_context(|| format!("mounting a tmpfs at {}", folder.display()))?;
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
