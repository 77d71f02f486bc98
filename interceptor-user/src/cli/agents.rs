//! `interceptor agents`.

use std::io::Write as _;
use std::process::ExitCode;

use interceptor_engine::replay::escape;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Global;
use crate::admin::{self, Agents, Request};
use crate::agents::attached::AgentFacts;
use crate::config::Config;

/// Says who is under interception, and who is waited for
///
/// A line an agent's run: name, how it was chosen, processes, open sessions, and how often
/// the kernel refused it something since the daemon started.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  interceptor agents --json")]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// When no daemon answers.
pub(super) fn run(global: &Global, _args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let answer: Agents = admin::ask(&config.admin.socket, &Request::Agents {})?;
    let mut out = std::io::stdout().lock();
    if global.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if answer.agents.is_empty() {
        writeln!(out, "nobody is under interception")?;
    }
    for agent in &answer.agents {
        writeln!(out, "{}", escape::line(&line(agent)))?;
        if let Some(why) = &agent.waits {
            writeln!(out, "  waits: {}", escape::line(why))?;
        }
        if let Some(cgroup) = &agent.cgroup {
            writeln!(out, "  {}", escape::line(&cgroup.display().to_string()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(agent: &AgentFacts) -> String {
    let labels: Vec<String> = agent
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut words = vec![agent.agent.clone(), agent.selected.clone()];
    if agent.configured {
        words.push("(configured)".to_owned());
    }
    words.extend(labels);
    if let Some(since) = agent.since_ms.and_then(moment) {
        words.push(format!(
            "since {since}  {} processes, {} sessions, {} refused",
            agent.processes, agent.sessions, agent.refused
        ));
        let did = &agent.coverage;
        words.push(format!(
            "{} intercepted, {} exempt, {} held",
            did.redirected + did.questions + did.unix,
            did.exempt + did.unjudged,
            did.held()
        ));
    }
    words.join("  ")
}

fn moment(ms: u64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(ms / 1_000).ok()?)
        .ok()?
        .format(&Rfc3339)
        .ok()
}
