//! What SSH through Interceptor is to come to.

use super::keys::Echo;
use super::loads::{COMMANDS, DOWNLOAD, UPLOAD};
use super::roads::Road;
use crate::report::Report;

/// A goal: so much of what another road does, over a load.
const GOALS: &[(&str, Road, f64)] = &[
    (DOWNLOAD, Road::Relay, 0.8),
    (UPLOAD, Road::Relay, 0.8),
    (DOWNLOAD, Road::Direct, 0.5),
    (UPLOAD, Road::Direct, 0.5),
    (DOWNLOAD, Road::SshMitm, 10.0),
    (UPLOAD, Road::SshMitm, 10.0),
    (COMMANDS, Road::Direct, 0.5),
];
/// What a key may take longer than directly, for all but one of a hundred, in µs.
const ECHO: f64 = 2_000.0;

/// Each goal and what came of it; none of what was not measured.
pub(super) fn lines(report: &Report<Road>, echoes: &[Echo]) -> Vec<String> {
    let mut lines = Vec::new();
    for (load, road, goal) in GOALS {
        for (name, own) in report.medians(Road::Interceptor) {
            if !name.starts_with(load) {
                continue;
            }
            if let Some(base) = report.median_of(name, *road).filter(|base| *base > 0.0) {
                let ratio = own / base;
                let met = met(ratio >= *goal);
                lines.push(format!(
                    "goal: {name}: at least {goal} of {road}: {ratio:.2}, {met}"
                ));
            }
        }
    }
    for echo in echoes.iter().filter(|echo| echo.road == Road::Interceptor) {
        let direct = echoes
            .iter()
            .find(|other| other.what == echo.what && other.road == Road::Direct);
        if let Some(direct) = direct {
            let more = echo.p99 - direct.p99;
            let (what, met) = (echo.what.name(), met(more < ECHO));
            lines.push(format!(
                "goal: {what}: less than {ECHO:.0} µs over direct at the 99th percentile: {more:+.0} µs, {met}"
            ));
        }
    }
    lines
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "NOT MET" }
}
