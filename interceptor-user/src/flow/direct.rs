//! What went direct while no daemon was there (`intercept.when_down: allow`), told by the
//! next one: how much, from which runs, when. What was said then is on no record.

use std::time::Duration;

use interceptor_policy::verdict::Severity;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{error, warn};

use super::House;
use crate::recorder::Alert;

/// Tells it, once; how many connects and questions there were.
#[must_use]
pub fn tell(house: &House) -> u64 {
    let Some(kernel) = &house.kernel else {
        return 0;
    };
    let went = match kernel.went_direct() {
        Ok(went) => went,
        Err(error) => {
            error!(%error, "what went direct while there was no daemon is not known");
            return 0;
        }
    };
    let mut all = 0;
    for (cgroup_id, direct) in went.into_iter().filter(|(_, direct)| direct.count > 0) {
        all += direct.count;
        let run = house
            .runs
            .as_ref()
            .and_then(|runs| runs.of_cgroup(cgroup_id));
        let agent = run.as_ref().map(|run| run.agent.as_str());
        let (since, until) = (moment(direct.since), moment(direct.until));
        let line = format!(
            "{} connects of {} went direct while there was no daemon, unjudged and unrecorded, from {since} to {until}",
            direct.count,
            agent.unwrap_or("an unknown agent"),
        );
        warn!("{line}");
        house.recorder.alert(Alert {
            severity: Severity::High,
            kind: "direct",
            line,
            meta: json!({
                "agent": agent,
                "run": run.as_ref().map(|run| &run.id),
                "cgroup_id": cgroup_id,
                "count": direct.count,
                "since": since,
                "until": until,
            })
            .to_string(),
        });
    }
    all
}

/// Nanoseconds of `CLOCK_MONOTONIC` as people write a moment.
fn moment(nanos: u64) -> String {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now = now.map_or(Duration::ZERO, Duration::from);
    let ago = now.saturating_sub(Duration::from_nanos(nanos));
    let at = OffsetDateTime::now_utc() - ago;
    at.format(&Rfc3339).unwrap_or_default()
}
