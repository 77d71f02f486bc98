//! `interceptor status`.

use std::io::Write as _;
use std::process::ExitCode;

use super::Global;
use crate::admin::{self, Request, Status};
use crate::config::Config;

/// Says what runs: version, rules in force, sessions, the recorder's lag
///
/// Example: interceptor status --json
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// When no daemon answers.
pub(super) fn run(global: &Global, _args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let status: Status = admin::ask(&config.admin.socket, &Request::Status {})?;
    let mut out = std::io::stdout().lock();
    if global.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let draining = status.draining.clone();
    let refused: u64 = status.refused.values().sum();
    let rows = [
        ("version", status.version),
        ("pid", status.pid.to_string()),
        ("up", format!("{} s", status.uptime_seconds)),
        (
            "rules",
            format!("{} in force, digest {}", status.rules, status.rules_digest),
        ),
        (
            "agents",
            format!(
                "{} runs, {} sessions, {} questions to people",
                status.runs, status.flows, status.questions
            ),
        ),
        (
            "redis",
            format!(
                "{} ({}, {} bytes wait)",
                status.redis,
                if status.redis_connected {
                    "connected"
                } else {
                    "not connected"
                },
                status.queued_bytes
            ),
        ),
        ("sandbox", status.sandbox.line()),
        (
            "keys",
            status
                .keeper
                .map_or_else(|| "unknown".to_owned(), |keeper| keeper.line()),
        ),
        (
            "looker",
            status.looker.map_or_else(
                || "unknown".to_owned(),
                |looker| format!("pid {}, {}", looker.pid, looker.in_force.line()),
            ),
        ),
        (
            "spool",
            format!(
                "{} of {} bytes on disk{}",
                status.spool_bytes,
                status.spool_max_bytes,
                match status.missing_events {
                    0 => String::new(),
                    missing => format!(", {missing} events not recorded"),
                }
            ),
        ),
        (
            "kernel",
            match status.port {
                Some(port) => format!(
                    "redirects to port {port}; {} redirected, {refused} refused",
                    status.redirected
                ),
                None => "no interception (`intercept.kernel: false`)".to_owned(),
            },
        ),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:<8} {value}")?;
    }
    if status.when_down_allows {
        writeln!(
            out,
            "warning  agents connect directly, unjudged, while no daemon is there (`intercept.when_down: allow`)"
        )?;
    }
    if status.went_direct > 0 {
        writeln!(
            out,
            "warning  {} connects went direct before this daemon was there: see the alerts of the kind `direct`",
            status.went_direct
        )?;
    }
    for one in draining {
        writeln!(
            out,
            "draining pid {}, version {}: {} sessions, ended in {} s at the latest",
            one.pid, one.version, one.flows, one.seconds_left
        )?;
    }
    if let Some(fault) = &status.recorder_fault {
        writeln!(out, "recorder {fault}")?;
    }
    for (reason, count) in &status.refused {
        writeln!(out, "         refused for {reason}: {count}")?;
    }
    Ok(ExitCode::SUCCESS)
}
