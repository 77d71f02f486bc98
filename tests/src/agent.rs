//! Commands that run as an agent, through `interceptor exec`, as an ordinary user.

use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::daemon::{self, Daemon};
use crate::needs;

/// An agent by name.
#[derive(Clone, Debug)]
pub struct Agent {
    name: String,
    config: std::path::PathBuf,
    environment: Vec<(OsString, OsString)>,
    limit: Duration,
}

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Finished {
    /// Itself, when the command succeeded; an error with its output otherwise.
    ///
    /// # Errors
    /// As above.
    pub fn ok(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!(
            "the agent's command: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        )
    }
}

impl Agent {
    /// An agent of this daemon.
    #[must_use]
    pub fn new(daemon: &Daemon, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            config: daemon.config().to_owned(),
            environment: Vec::new(),
            limit: Duration::from_secs(90),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The whole command line that runs `words` as this agent.
    ///
    /// # Errors
    /// When the program or the ordinary user is missing.
    pub fn command<W: AsRef<std::ffi::OsStr>>(&self, words: &[W]) -> Result<Command> {
        needs::ordinary_user()?;
        let mut command = Command::new(daemon::program()?);
        command
            .arg("--config")
            .arg(&self.config)
            .args(["exec", "--agent", &self.name])
            .args(["--user", needs::ORDINARY_USER, "--"])
            .args(words)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/");
        Ok(command)
    }

    /// Runs `words` to their end.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn run<W: AsRef<std::ffi::OsStr>>(&self, words: &[W]) -> Result<Finished> {
        self.run_with_input(words, "")
    }

    /// Runs `words` to their end, with standard input.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn run_with_input<W: AsRef<std::ffi::OsStr>>(
        &self,
        words: &[W],
        input: &str,
    ) -> Result<Finished> {
        let mut running = self.start(words)?;
        running.write(input)?;
        running.finish(self.limit)
    }

    /// Starts `words` and leaves them running.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<W: AsRef<std::ffi::OsStr>>(&self, words: &[W]) -> Result<Running> {
        let mut child = self
            .command(words)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting interceptor exec")?;
        let stdout = collect(child.stdout.take().context("no standard output")?);
        let stderr = collect(child.stderr.take().context("no standard error")?);
        Ok(Running {
            child,
            stdout,
            stderr,
        })
    }

    /// Starts `psql` against `port` on 127.0.0.1 as the database user `agent`, and
    /// leaves it running: it reads SQL from its input, and rows come unaligned.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_psql(&self, port: u16) -> Result<Running> {
        let connection = format!("host=127.0.0.1 port={port} user=agent dbname=postgres");
        self.start(&[
            "psql",
            "-XqAt",
            "-v",
            "VERBOSITY=verbose",
            "-d",
            &connection,
        ])
    }

    /// Runs `psql` against `port` on 127.0.0.1 as the database user `agent`, with
    /// an input of SQL or commands of psql. Rows come unaligned.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn psql(&self, port: u16, script: &str) -> Result<Finished> {
        self.psql_to(
            &format!("host=127.0.0.1 port={port} user=agent dbname=postgres"),
            script,
        )
    }

    /// The same, with a connection string.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn psql_to(&self, connection: &str, script: &str) -> Result<Finished> {
        let words = ["psql", "-XqAt", "-v", "VERBOSITY=verbose", "-d", connection];
        self.run_with_input(&words, script)
    }

    /// Runs a Python program that may import what `cargo xtask install python`
    /// installs; its arguments are in `sys.argv`.
    ///
    /// # Errors
    /// When one of them is missing, or it cannot be started or does not end.
    pub fn python(
        &self,
        place: &crate::place::Place,
        program: &str,
        arguments: &[&str],
    ) -> Result<Finished> {
        let packages = python_packages(place)?;
        let mut words = vec!["/usr/bin/python3", "-c", program];
        words.extend(arguments);
        self.clone().env("PYTHONPATH", packages).run(&words)
    }
}

/// A command that runs as an agent. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: std::thread::JoinHandle<Vec<u8>>,
    stderr: std::thread::JoinHandle<Vec<u8>>,
}

impl Running {
    /// Process id of `interceptor exec`.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits until the command itself runs: `interceptor exec` has its answer, and has
    /// become it. What is in the list of agents may still wait for that answer, and has
    /// it no more when the daemon ends.
    ///
    /// # Errors
    /// When that does not come.
    pub fn has_begun(&self) -> Result<()> {
        let link = format!("/proc/{}/exe", self.pid());
        let own = daemon::program()?;
        crate::eventually("the agent's command", daemon::SOON, || {
            let runs = std::fs::read_link(&link).context("the agent has ended")?;
            Ok(runs.file_name() != own.file_name())
        })
    }

    /// Writes to its standard input. That it no longer reads is no error: what it
    /// came to says more.
    ///
    /// # Errors
    /// When its input was closed here.
    pub fn write(&mut self, input: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its input is closed")?;
        let _ = stdin
            .write_all(input.as_bytes())
            .and_then(|()| stdin.flush());
        Ok(())
    }

    /// Sends `signal` to it alone, as `kill` does.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(self.pid(), signal).context("signalling the agent")
    }

    /// Closes its input and waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn finish(mut self, limit: Duration) -> Result<Finished> {
        drop(self.child.stdin.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > limit {
                let _ = nix::sys::signal::killpg(self.pid(), Signal::SIGKILL);
                self.child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |collected: std::thread::JoinHandle<Vec<u8>>| {
            let bytes = collected.join().unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let taken = |handle: &mut std::thread::JoinHandle<Vec<u8>>| {
            std::mem::replace(handle, std::thread::spawn(Vec::new))
        };
        let stdout = text(taken(&mut self.stdout));
        let stderr = text(taken(&mut self.stderr));
        match status {
            Some(status) => Ok(Finished {
                status,
                stdout,
                stderr,
            }),
            None => bail!(
                "the agent's command did not end within {limit:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
            ),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = nix::sys::signal::killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    })
}

/// The packages where an ordinary user can read them: the tree may be in a folder
/// that only root enters.
///
/// # Errors
/// When they were not installed.
pub fn python_packages(place: &crate::place::Place) -> Result<std::path::PathBuf> {
    let packages = place.path("python");
    let made = packages.join("httpx");
    if made.exists() {
        return Ok(packages);
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    };
    let missing = "no Python packages here: install them with `cargo xtask install python`";
    let library = std::fs::read_dir(target.join("venv/lib"))
        .context(missing)?
        .flatten()
        .map(|version| version.path().join("site-packages"))
        .find(|folder| {
            ["psycopg", "httpx", "mcp", "paramiko", "ansible"]
                .iter()
                .all(|one| folder.join(one).exists())
        })
        .context(missing)?;
    // Copied beside and moved, since tests of a file run at once.
    let draft = tempfile::Builder::new()
        .prefix("python-")
        .tempdir_in(place.folder())?;
    // Not pip and what else a new environment has.
    let needless = [
        "pip",
        "setuptools",
        "pkg_resources",
        "distutils",
        "_distutils",
    ];
    let wanted = |name: &str| !needless.iter().any(|one| name.starts_with(one));
    let parts = std::fs::read_dir(&library)?
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(wanted))
        .map(|entry| entry.path());
    let copied = Command::new("cp")
        .args(["-r", "--no-preserve=mode"])
        .args(parts)
        .arg(draft.path())
        .status()
        .context("starting cp")?;
    if !copied.success() {
        bail!("copying the packages: {copied}");
    }
    std::fs::set_permissions(
        draft.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let draft = draft.keep();
    if std::fs::rename(&draft, &packages).is_err() && !made.exists() {
        bail!("putting {} in place", packages.display());
    }
    Ok(packages)
}
