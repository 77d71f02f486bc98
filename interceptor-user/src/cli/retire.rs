//! `interceptor retire`.

use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Global;
use super::place::parse_age;
use crate::admin::{self, Request};
use crate::config::Config;

/// Has the daemon end as soon as another one has taken over
///
/// It goes on as it was until then; its main process (`interceptor run --service`) ends at
/// once. This is how `systemctl restart interceptor` drops no session: the unit runs it before
/// it stops. Where no other daemon comes in time, the daemon ends as if it had been told to.
///
/// Example: interceptor retire --patience 30s
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to wait for the other daemon
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_age)]
    patience: Duration,
    /// Only where systemd restarts this unit, and does not stop it
    #[arg(long, value_name = "UNIT")]
    if_restarting: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// When no daemon runs, or systemd cannot be asked.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let retires = match &args.if_restarting {
        Some(unit) => is_restarting(unit)?,
        None => true,
    };
    if retires {
        let seconds = args.patience.as_secs().max(1);
        let _: Value = admin::ask(&config.admin.socket, &Request::Retire { seconds })?;
    }
    let mut out = std::io::stdout().lock();
    match (global.json, retires) {
        (true, _) => writeln!(out, "{}", json!({ "retires": retires }))?,
        (false, true) => writeln!(out, "the daemon ends when another one has taken over")?,
        (false, false) => writeln!(out, "the unit is not being restarted: nothing was done")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether systemd is restarting a unit: what runs before a stop is told nothing of what
/// comes after it, and the job says.
fn is_restarting(unit: &str) -> anyhow::Result<bool> {
    let listed = Command::new("systemctl")
        .args(["list-jobs", "--no-legend", "--plain", "--full", unit])
        .output()
        .context("asking systemd (systemctl list-jobs)")?;
    anyhow::ensure!(
        listed.status.success(),
        "systemctl list-jobs: {}",
        String::from_utf8_lossy(&listed.stderr).trim()
    );
    Ok(says_restart(&String::from_utf8_lossy(&listed.stdout), unit))
}

/// A job a line: its number, its unit, its type, its state.
fn says_restart(jobs: &str, unit: &str) -> bool {
    jobs.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(unit) && words.next().is_some_and(|kind| kind.ends_with("restart"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_of_the_very_unit_counts() {
        let jobs = "  7 other.service restart running\n812 interceptor.service stop running\n";
        assert!(!says_restart(jobs, "interceptor.service"));
        assert!(says_restart(jobs, "other.service"));
        assert!(!says_restart("", "interceptor.service"));
    }
}
