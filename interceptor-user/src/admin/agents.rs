//! Who is under interception: attaching, detaching, listing.

use std::sync::Arc;

use anyhow::Context as _;
use interceptor_policy::verdict::Severity;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};

use super::Request;
use super::permission::Own;
use crate::agents::Run;
use crate::agents::attached::{AgentFacts, Attachments, Change, Want};
use crate::flow::House;
use crate::kernel::OpenTcp;
use crate::recorder::Alert;

/// How many connections are named on record.
const NAMED: usize = 16;

/// The answer to [`Request::Agents`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Agents {
    /// Who is under interception, or waited for.
    pub agents: Vec<AgentFacts>,
}

/// The answer to [`Request::Detach`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Detached {
    /// What is under interception no more.
    pub runs: Vec<Run>,
}

/// Answers [`Request::Attach`], [`Request::Detach`] and [`Request::Agents`]. Who asks may;
/// `own` is what an ordinary user sees.
pub(super) fn answer(
    house: &House,
    attachments: Option<&Arc<Attachments>>,
    request: Request,
    (uid, pid): (u32, u32),
    own: Option<&Own>,
) -> anyhow::Result<serde_json::Value> {
    let attachments =
        attachments.context("this daemon does not intercept (`intercept.kernel: false`)")?;
    match request {
        Request::Attach {
            agent,
            labels,
            selector,
            allow_open_sockets,
        } => {
            let want = Want {
                agent,
                labels,
                selector,
                requested_by: uid,
                configured: false,
            };
            let (attached, changes) = attachments.attach(want, pid, allow_open_sockets)?;
            for change in &changes {
                tell(house, change);
            }
            Ok(serde_json::to_value(attached)?)
        }
        Request::Detach { agent, selector } => {
            anyhow::ensure!(
                agent.is_some() || selector.is_some(),
                "what is detached is not said"
            );
            let runs = attachments.detach(agent.as_deref(), selector.as_ref())?;
            for run in &runs {
                info!(uid, agent = %run.agent, "detached on request");
                tell(house, &Change::Detached(run.clone()));
            }
            Ok(serde_json::to_value(Detached { runs })?)
        }
        _ => {
            let flows = super::server::flows(house)?;
            let sessions = |run: &str| {
                flows
                    .iter()
                    .filter(|flow| flow.get("run").and_then(|one| one.as_str()) == Some(run))
                    .count()
            };
            let mut agents = attachments.list(sessions);
            if let Some(own) = own {
                agents.retain(|agent| own.has(agent.run.as_deref()));
            }
            Ok(serde_json::to_value(Agents { agents })?)
        }
    }
}

/// Says in the log and on record that somebody came under interception, or left it.
pub fn tell(house: &House, change: &Change) {
    let (run, severity, what) = match change {
        Change::Ended(run, open) => return tell_ended(house, run, open),
        Change::Attached(run) => (run, Severity::Info, "is under interception"),
        Change::Detached(run) => (run, Severity::Medium, "is under interception no more"),
        Change::Over(run) => (run, Severity::Info, "is over: its cgroup is gone"),
    };
    let by = run
        .selected
        .as_ref()
        .map(|selected| selected.by.to_string())
        .unwrap_or_default();
    let line = format!("agent {} ({by}) {what}", run.agent);
    info!(run = %run.id, cgroup = %run.cgroup.display(), "{line}");
    house.recorder.alert(Alert {
        severity,
        kind: "agents",
        line,
        meta: json!({
            "agent": run.agent,
            "run": run.id,
            "selected": by,
            "labels": run.labels,
            "cgroup": run.cgroup,
            "cgroup_id": run.cgroup_id,
            "requested_by": run.requested_by,
        })
        .to_string(),
    });
    // One that a process was moved into ends with its sweep, which tells it then.
    let is_over = !matches!(change, Change::Attached(_))
        && house
            .runs
            .as_ref()
            .is_some_and(|runs| runs.list().iter().all(|known| known.id != run.id));
    if is_over {
        crate::daemon::tell_coverage(house, run);
    }
}

/// Says that connections were ended which a run had open when it came under interception.
fn tell_ended(house: &House, run: &Run, open: &[OpenTcp]) {
    let count = open.len();
    if let Some(runs) = &house.runs {
        runs.refused(run.cgroup_id, u64::try_from(count).unwrap_or(u64::MAX));
    }
    let line = format!(
        "ended {count} connections that agent {} had open before",
        run.agent
    );
    warn!(run = %run.id, "{line}");
    let named = open
        .iter()
        .take(NAMED)
        .map(|one| json!({ "from": one.local().to_string(), "to": one.remote().to_string() }));
    house.recorder.alert(Alert {
        severity: Severity::Medium,
        kind: "bypass",
        line,
        meta: json!({
            "reason": "open-socket",
            "agent": run.agent,
            "run": run.id,
            "cgroup_id": run.cgroup_id,
            "count": count,
            "connections": named.collect::<Vec<_>>(),
        })
        .to_string(),
    });
}
