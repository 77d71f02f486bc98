//! Interceptor itself, as a process, under a configuration of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::place::Place;
use crate::process::{Server, Start};

/// The program: `INTERCEPTOR_BIN`, or where cargo puts it beside this one.
///
/// # Errors
/// When it was not built.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("INTERCEPTOR_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("looking for our own program")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("interceptor"))
        .find(|path| path.exists())
        .with_context(|| {
            format!(
                "no program `interceptor` near {}: run `cargo build --workspace --bins`, or set \
                 INTERCEPTOR_BIN",
                own.display()
            )
        })
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    server: Mutex<Server>,
    config: PathBuf,
    rules: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Writes a configuration and starts a daemon under it. `config` is laid over
    /// the tests' defaults, key by key; `rules` is a rule file's text.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer within a minute.
    pub fn start(place: &Place, redis: &str, rules: &str, config: &Value) -> Result<Self> {
        let folder = place.subfolder("rules")?;
        write_rules(&folder, rules)?;
        let mut whole = json!({
            "runtime_dir": place.subfolder("run")?,
            "state_dir": place.subfolder("state")?,
            "intercept": { "kernel": true, "cgroup": place.name(), "default": "block" },
            "targets": [],
            "rules": [folder],
            "recorder": { "redis": redis },
        });
        merge(&mut whole, config);
        let config = place.file(
            "interceptor.yaml",
            // JSON is YAML.
            &serde_json::to_string_pretty(&whole)?,
        )?;
        let log = place.path("interceptor.log");
        let server = launch(&config, &log, place.folder())?;
        let daemon = Self {
            server: Mutex::new(server),
            config,
            rules: folder,
            log,
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts another one under the same configuration, after it ended.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn restart(&self) -> Result<()> {
        {
            let mut server = self.server();
            server.stop()?;
            let folder = self.config.parent().unwrap_or(Path::new("/"));
            *server = launch(&self.config, &self.log, folder)?;
        }
        self.wait_until_ready()
    }

    /// Starts another one while this one runs, which takes over; gives the old one.
    ///
    /// # Errors
    /// When it does not take over within a minute.
    pub fn take_over(&self) -> Result<Server> {
        let folder = self.config.parent().unwrap_or(Path::new("/"));
        let mut next = launch(&self.config, &self.log, folder)?;
        let pid = i64::from(next.pid().as_raw());
        next.wait_until(|| {
            let status = self.ask(&["status", "--json"]).unwrap_or_default();
            serde_json::from_str::<Value>(&status)
                .is_ok_and(|status| status.get("pid").and_then(Value::as_i64) == Some(pid))
        })?;
        Ok(std::mem::replace(&mut *self.server(), next))
    }

    fn wait_until_ready(&self) -> Result<()> {
        self.server().wait_until(|| {
            self.command(&["status"])
                .is_ok_and(|output| output.status.success())
        })
    }

    /// The process.
    pub fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills it, as the kernel does when memory is out: it has no last word.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&self) -> Result<()> {
        self.server().kill().map(drop)
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Replaces the rules. They are in force a moment later; `eventually` waits.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn set_rules(&self, rules: &str) -> Result<()> {
        write_rules(&self.rules, rules)
    }

    /// Runs a command of the program under the daemon's configuration.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(program()?)
            .arg("--config")
            .arg(&self.config)
            .args(arguments)
            .output()
            .context("starting interceptor")
    }

    /// Runs a command that must succeed; gives its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?;
        if !output.status.success() {
            bail!(
                "interceptor {}: {}\n{}{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// An error with the log when the daemon panicked, however it went on.
    ///
    /// # Errors
    /// As above.
    pub fn never_panicked(&self) -> Result<()> {
        let server = self.server();
        let log = server.log();
        match log.find("panicked") {
            None => Ok(()),
            Some(at) => {
                let said = log.get(at..).unwrap_or_default().lines().take(40);
                let said: Vec<&str> = said.collect();
                bail!("the daemon panicked:\n{}", said.join("\n"))
            }
        }
    }
}

impl Daemon {
    /// Runs a test's body, and shows the log when that fails or panics.
    ///
    /// # Errors
    /// What the body gives, or that the daemon panicked.
    pub fn watch(&self, body: impl FnOnce() -> Result<()>) -> Result<()> {
        let _shown = ShowLogOnPanic(self);
        self.judge(body())
    }

    /// What a test's body gave, or that the daemon panicked; shows the log then.
    ///
    /// # Errors
    /// As above.
    pub fn judge(&self, done: Result<()>) -> Result<()> {
        let done = done.and_then(|()| self.never_panicked());
        if done.is_err() {
            self.show_log();
        }
        done
    }

    fn show_log(&self) {
        #[allow(clippy::print_stderr, reason = "libtest shows it beside the failure")]
        {
            eprintln!("--- the daemon's log ends\n{}", self.server().log_end(60));
        }
    }
}

struct ShowLogOnPanic<'a>(&'a Daemon);

impl Drop for ShowLogOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.show_log();
        }
    }
}

fn launch(config: &Path, log: &Path, folder: &Path) -> Result<Server> {
    let mut command = Command::new(program()?);
    command
        .arg("run")
        .arg("--config")
        .arg(config)
        .env("RUST_BACKTRACE", "1")
        .current_dir(folder);
    let start = Start {
        name: "interceptor",
        log,
        user: None,
        stop: Signal::SIGTERM,
        orphaned: Signal::SIGKILL,
    };
    Server::start(&start, command)
}

/// Writes rules so that a reader sees the old or the new ones, whole.
fn write_rules(folder: &Path, rules: &str) -> Result<()> {
    let draft = folder.join(".draft");
    std::fs::write(&draft, rules).context("writing rules")?;
    std::fs::rename(&draft, folder.join("test.yaml")).context("putting rules in place")
}

/// Lays `over` over `base`: objects key by key, all else replaced.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// How long something may take that happens at once on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);
