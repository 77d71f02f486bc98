//! A terminal that somebody sits at: tmux, with a shell over SSH in it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::daemon::SOON;
use crate::eventually;
use crate::process::{Server, Start};
use crate::sshd::Shell;

/// Columns and rows at first.
pub const SIZE: (u16, u16) = (100, 30);

/// Runs a command in a terminal that outlives it.
const AND_SAYS_HOW_IT_ENDED: &str = "\"$@\"; printf '\\nssh ended with %s.\\n' $?; exec cat";

/// A terminal with `ssh -tt` of an agent in it.
#[derive(Debug)]
pub struct Tmux {
    server: Server,
    socket: PathBuf,
}

impl Tmux {
    /// Opens a shell as an agent; returns at its first prompt.
    ///
    /// # Errors
    /// When tmux is not there, or no prompt comes.
    pub fn shell(shell: &Shell, agent: &str) -> Result<Self> {
        let tmux = Self::start(shell, agent)?;
        tmux.at_prompt()?;
        Ok(tmux)
    }

    fn start(shell: &Shell, agent: &str) -> Result<Self> {
        let place = &shell.place;
        let socket = place.path(format!("{agent}.tmux"));
        let settings = "set -g status off\nset -g escape-time 0\n";
        let settings = place.file(&format!("{agent}.tmux.conf"), settings)?;
        let log = place.path(format!("{agent}.tmux.log"));
        let mut command = Command::new("/usr/bin/tmux");
        command
            .args(["-u", "-D", "-S"])
            .arg(&socket)
            .arg("-f")
            .arg(settings)
            // Of whoever runs the tests, when that is in one.
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8");
        let start = Start {
            name: "tmux",
            log: &log,
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGTERM,
        };
        let server = Server::start(&start, command)
            .context("no tmux here: install it with `cargo xtask install servers`")?;
        let mut tmux = Self { server, socket };
        let there = tmux.socket.clone();
        tmux.server.wait_until(|| there.exists())?;
        let run = shell.agent(agent).command(&shell.words(&["-tt"], &[]))?;
        let mut new = tmux.command(&["new-session", "-d", "-s", "main"]);
        new.args(["-x", &SIZE.0.to_string(), "-y", &SIZE.1.to_string()])
            .args(["--", "/bin/sh", "-c", AND_SAYS_HOW_IT_ENDED, "sh"])
            .arg(run.get_program())
            .args(run.get_args());
        said(&mut new)?;
        Ok(tmux)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/tmux");
        command.arg("-S").arg(&self.socket).args(words);
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        command
    }

    fn tell(&self, words: &[&str]) -> Result<String> {
        said(&mut self.command(words))
    }

    /// Presses keys, by tmux's names for them.
    ///
    /// # Errors
    /// When tmux is gone.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        let mut words = vec!["send-keys", "-t", "main"];
        words.extend(keys);
        self.tell(&words).map(drop)
    }

    /// Types a text.
    ///
    /// # Errors
    /// When tmux is gone.
    pub fn types(&self, text: &str) -> Result<()> {
        self.tell(&["send-keys", "-t", "main", "-l", "--", text])
            .map(drop)
    }

    /// Types a line and enters it.
    ///
    /// # Errors
    /// When tmux is gone.
    pub fn enters(&self, line: &str) -> Result<()> {
        self.types(line)?;
        self.keys(&["Enter"])
    }

    /// Pastes a text, in brackets where the other end asked for them.
    ///
    /// # Errors
    /// When tmux is gone.
    pub fn pastes(&self, text: &str) -> Result<()> {
        self.tell(&["set-buffer", "--", text])?;
        self.tell(&["paste-buffer", "-p", "-t", "main"]).map(drop)
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// When tmux is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tell(&["resize-window", "-t", "main", "-x", &columns, "-y", &rows])
            .map(drop)
    }

    /// What is on the screen, and what was; wrapped lines are one.
    ///
    /// # Errors
    /// When tmux is gone.
    pub fn screen(&self) -> Result<String> {
        self.tell(&["capture-pane", "-p", "-J", "-S", "-", "-t", "main"])
    }

    /// Waits until the screen shows what `looks` looks for.
    ///
    /// # Errors
    /// When it does not, with what it shows.
    pub fn until(&self, what: &str, looks: impl Fn(&str) -> bool) -> Result<()> {
        eventually(what, SOON, || {
            let screen = self.screen()?;
            if looks(&screen) {
                return Ok(true);
            }
            bail!("the screen shows:\n{}", screen.trim_end());
        })
    }

    /// Waits until a text is on the screen.
    ///
    /// # Errors
    /// As above.
    pub fn shows(&self, text: &str) -> Result<()> {
        self.until(text, |screen| screen.contains(text))
    }

    /// Waits until nothing but a prompt stands in the last line.
    ///
    /// # Errors
    /// As above.
    pub fn at_prompt(&self) -> Result<()> {
        self.until("a prompt", |screen| {
            let last = screen.trim_end().lines().next_back().unwrap_or_default();
            last.ends_with('$')
        })
    }

    /// Enters a line, and waits for what it shows and a prompt behind it.
    ///
    /// # Errors
    /// As above.
    pub fn runs(&self, line: &str, shows: &str) -> Result<()> {
        self.enters(line)?;
        self.shows(shows)?;
        self.at_prompt()
    }

    /// Leaves the shell with this status, and waits until ssh ended with it.
    ///
    /// # Errors
    /// When it ends otherwise, or not at all.
    pub fn leaves(&self, status: i32) -> Result<()> {
        self.enters(&format!("exit {status}"))?;
        self.shows("ssh ended with ")?;
        let screen = self.screen()?;
        let expected = format!("ssh ended with {status}.");
        ensure!(screen.contains(&expected), "not {expected}\n{screen}");
        Ok(())
    }
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().context("starting tmux")?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
