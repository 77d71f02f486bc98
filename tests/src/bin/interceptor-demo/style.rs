//! How things are shown.

use std::cell::Cell;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::agent::Agent;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::records::Recorded;

pub(crate) const BOLD: &str = "1";
pub(crate) const DIM: &str = "2";
pub(crate) const RED: &str = "31";
pub(crate) const GREEN: &str = "32";
pub(crate) const YELLOW: &str = "33";

/// Colours, on a terminal alone.
pub(crate) struct Style {
    colours: bool,
    titles: Cell<u32>,
}

impl Style {
    pub(crate) fn new() -> Self {
        Self {
            colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            titles: Cell::new(0),
        }
    }

    pub(crate) fn paint(&self, code: &str, text: &str) -> String {
        match self.colours {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    pub(crate) fn line(&self, code: &str, text: &str) {
        println!("{}", self.paint(code, text));
    }

    /// A heading, numbered.
    pub(crate) fn title(&self, text: &str) {
        let number = self.titles.get() + 1;
        self.titles.set(number);
        println!();
        self.line(BOLD, &format!("── {number}. {text} "));
    }

    pub(crate) fn command(&self, text: &str) {
        println!("   {}", self.paint(DIM, &format!("$ {text}")));
    }

    /// A line of a client's, with its errors in colour.
    fn transcript(&self, line: &str) -> String {
        if line.starts_with("ERROR:") || line.starts_with("FATAL:") {
            return self.paint(RED, line);
        }
        if line.starts_with("HINT:") {
            return self.paint(YELLOW, line);
        }
        line.to_owned()
    }

    /// The events of a session, a line each.
    pub(crate) fn events(&self, events: &[Recorded]) {
        for event in events {
            let seconds = Duration::from_micros(event.at).as_secs_f64();
            let first = event.line.lines().next().unwrap_or_default();
            let line: String = first.chars().take(96).collect();
            println!(
                "   {seconds:7.3}s  {:8} {}",
                event.kind,
                self.by_kind(&event.kind, &line)
            );
        }
    }

    /// Shows what an agent's command says, as it comes: lines of `# ` are
    /// headings. `each` sees every line. Gives all of it once the command is done.
    pub(crate) fn agent_at_work(
        &self,
        running: &mut Child,
        mut each: impl FnMut(&str) -> Result<()>,
    ) -> Result<String> {
        let mut transcript = String::new();
        for line in BufReader::new(running.stdout.take().context("no output")?).lines() {
            let line = line?;
            match line.strip_prefix("# ") {
                Some(heading) => {
                    println!();
                    self.line(BOLD, &format!("   {heading}"));
                }
                None => println!("   {}", self.transcript(&line)),
            }
            each(&line)?;
            transcript.push_str(&line);
            transcript.push('\n');
        }
        let status = running.wait()?;
        ensure!(status.success(), "the agent's command: {status}");
        Ok(transcript)
    }

    /// Runs a script as the demo's agent, and shows it; `shown` is what a person would
    /// have typed behind `exec`.
    pub(crate) fn script(&self, daemon: &Daemon, shown: &str, script: &str) -> Result<String> {
        let exec = format!("$ interceptor exec --agent demo-agent -- {shown}");
        println!("   {}", self.paint(DIM, &exec));
        let script = format!("exec 2>&1; {script}");
        let mut running = Agent::new(daemon, "demo-agent")
            .command(&["/bin/sh", "-c", &script])?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the agent")?;
        let done = self.agent_at_work(&mut running, |_| Ok(()));
        done.with_context(|| daemon.server().log_end(30))
    }

    /// Shows what a command of the program printed.
    pub(crate) fn answer(&self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    fn by_kind(&self, kind: &str, line: &str) -> String {
        match kind {
            "verdict" | "error" => self.paint(RED, line),
            "mask" => self.paint(YELLOW, line),
            _ => line.to_owned(),
        }
    }
}
