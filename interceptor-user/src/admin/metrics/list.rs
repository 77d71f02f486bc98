//! The list of all metrics. A new one is a line here, a line in docs/operations.md, and
//! perhaps a panel in packaging/grafana-dashboard.json.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use interceptor_engine::event::Kind;

use super::super::Daemon;
use super::super::server::flows as flows_of_all;
use super::text::Page;
use crate::flow::House;

/// Agents that are told apart; the rest is `other`.
const AGENTS: usize = 100;

/// All of them, as they are now.
pub(super) fn all(house: &House, daemon: &Daemon) -> String {
    let mut page = Page::default();
    what_runs(&mut page, house, daemon);
    flows(&mut page, house);
    recorder(&mut page, house);
    retention(&mut page, daemon);
    kernel(&mut page, house);
    agents(&mut page, house, daemon);
    process(&mut page);
    page.into_text()
}

fn what_runs(page: &mut Page, house: &House, daemon: &Daemon) {
    let version = env!("CARGO_PKG_VERSION");
    page.gauge("interceptor_build_info", "Which version runs.")
        .of(&[("version", version)], 1);
    page.gauge("interceptor_uptime_seconds", "Since the daemon started.")
        .is(daemon.started.elapsed().as_secs_f64());
    page.gauge("interceptor_rules", "Rules in force.")
        .count(house.rules.current().rules().len() as u64);
    page.gauge(
        "interceptor_questions",
        "Questions to people that are open, and tickets.",
    )
    .count(house.desk.len() as u64);
    page.gauge("interceptor_runs", "Agents' runs under way.")
        .count(
            house
                .runs
                .as_ref()
                .map_or(0, |runs| runs.list().len() as u64),
        );
}

fn flows(page: &mut Page, house: &House) {
    let mut by_protocol: BTreeMap<&str, u64> = BTreeMap::new();
    for flow in house.flows.list() {
        *by_protocol.entry(flow.protocol).or_default() += 1;
    }
    let mut metric = page.gauge("interceptor_flows", "Flows under way.");
    for protocol in ["postgres", "http", "ssh"] {
        by_protocol.entry(protocol).or_default();
    }
    for (protocol, count) in by_protocol {
        metric.count_of(&[("protocol", protocol)], count);
    }
    let counts = house.recorder.tally().counts();
    let mut metric = page.counter("interceptor_flows_opened_total", "Flows that opened.");
    for ((protocol, target), count) in &counts.opened {
        metric.count_of(&[("protocol", protocol), ("target", target)], *count);
    }
    let mut metric = page.counter(
        "interceptor_flows_closed_total",
        "Flows that closed, by the worst verdict in them.",
    );
    for ((protocol, target, verdict), count) in &counts.closed {
        let labels = [
            ("protocol", protocol.as_str()),
            ("target", target),
            ("verdict", verdict),
        ];
        metric.count_of(&labels, *count);
    }
    let mut metric = page.counter("interceptor_events_total", "Events, by what they tell.");
    // There from the start, so that the first one is a change that an alert can see.
    let from_the_start = [
        Kind::Command,
        Kind::Verdict,
        Kind::Hold,
        Kind::Mask,
        Kind::Error,
    ];
    let mut events: BTreeMap<_, u64> = from_the_start.map(|kind| (kind.name(), 0)).into();
    events.extend(&counts.events);
    for (kind, count) in events {
        metric.count_of(&[("kind", kind)], count);
    }
    page.counter("interceptor_event_bytes_total", "Bytes of events' data.")
        .count(counts.bytes);
    let mut metric = page.counter("interceptor_alerts_total", "Events that are alerts.");
    for severity in ["info", "low", "medium", "high", "critical"] {
        let count = counts.alerts.get(severity).copied().unwrap_or(0);
        metric.count_of(&[("severity", severity)], count);
    }
    page.counter("interceptor_dns_questions_total", "Questions for names.")
        .count(house.dns.asked.load(Ordering::Relaxed));
    page.counter(
        "interceptor_dns_refused_total",
        "Questions for names that were refused.",
    )
    .count(house.dns.refused.load(Ordering::Relaxed));
}

fn recorder(page: &mut Page, house: &House) {
    let status = house.recorder.status();
    page.gauge(
        "interceptor_recorder_connected",
        "Whether Redis took the last batch.",
    )
    .count(u64::from(status.connected));
    page.gauge(
        "interceptor_recorder_faulty",
        "Whether something keeps events from Redis.",
    )
    .count(u64::from(status.last_fault.is_some()));
    page.gauge(
        "interceptor_recorder_queue_bytes",
        "Bytes that Redis has not acknowledged.",
    )
    .count(status.queued_bytes as u64);
    page.gauge(
        "interceptor_recorder_lag_seconds",
        "How long the oldest event waits.",
    )
    .is(status.lag.as_secs_f64());
    page.gauge(
        "interceptor_recorder_sessions",
        "Sessions that are being recorded.",
    )
    .count(status.open_sessions);
    page.counter(
        "interceptor_recorded_events_total",
        "Events that were handed on.",
    )
    .count(status.recorded);
    page.gauge(
        "interceptor_spool_bytes",
        "Bytes that the spool takes on disk.",
    )
    .count(status.spool_bytes);
    page.gauge("interceptor_spool_max_bytes", "How many it may take.")
        .count(status.spool_max_bytes);
    page.counter(
        "interceptor_missing_events_total",
        "Events that are not recorded, since the spool was full.",
    )
    .count(status.missing);
    page.counter(
        "interceptor_recorder_batches_total",
        "Batches that they went in.",
    )
    .count(status.batches);
}

fn retention(page: &mut Page, daemon: &Daemon) {
    let figures = &daemon.retention;
    let of = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
    page.counter(
        "interceptor_retention_removed_total",
        "Sessions that this host removed.",
    )
    .count(of(&figures.removed));
    page.counter(
        "interceptor_retention_archived_total",
        "Of those, to an archive.",
    )
    .count(of(&figures.archived));
    page.counter("interceptor_retention_failed_total", "Rounds that failed.")
        .count(of(&figures.failed));
    page.gauge(
        "interceptor_retention_last_round_seconds",
        "When this host's last round ended.",
    )
    .count(of(&figures.last_round));
}

fn kernel(page: &mut Page, house: &House) {
    let counters = house
        .kernel
        .as_ref()
        .and_then(|kernel| kernel.counters().ok());
    let counters = counters.unwrap_or_default();
    page.counter(
        "interceptor_connects_redirected_total",
        "Connects that were redirected.",
    )
    .count(counters.redirected);
    page.counter(
        "interceptor_connects_accepted_total",
        "Of those, that arrived.",
    )
    .count(counters.accepted);
    let mut metric = page.counter(
        "interceptor_refused_total",
        "Connects and packets that the kernel refused.",
    );
    for (reason, count) in &counters.refused {
        metric.count_of(&[("reason", reason.name())], *count);
    }
    let mut metric = page.counter(
        "interceptor_refused_untold_total",
        "Refusals that were not reported one by one.",
    );
    metric.count_of(&[("why", "suppressed")], counters.suppressed);
    metric.count_of(&[("why", "lost")], counters.lost);
}

fn agents(page: &mut Page, house: &House, daemon: &Daemon) {
    let Some(attachments) = &daemon.attachments else {
        return;
    };
    // Those of daemons that end their sessions, too.
    let flows = flows_of_all(house).unwrap_or_default();
    let sessions = |run: &str| {
        let runs = flows.iter().filter_map(|flow| flow.get("run")?.as_str());
        runs.filter(|one| *one == run).count()
    };
    let mut agents: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for facts in attachments.list(sessions) {
        let name = match agents.len() < AGENTS || agents.contains_key(&facts.agent) {
            true => facts.agent,
            false => "other".to_owned(),
        };
        let [sessions, processes, refused] = agents.entry(name).or_default();
        *sessions += facts.sessions as u64;
        *processes += facts.processes as u64;
        *refused += facts.refused;
    }
    for (at, name, help) in [
        (
            0,
            "interceptor_agent_sessions",
            "An agent's sessions under way.",
        ),
        (1, "interceptor_agent_processes", "An agent's processes."),
        (
            2,
            "interceptor_agent_refused",
            "What was refused of an agent's runs under way.",
        ),
    ] {
        let mut metric = page.gauge(name, help);
        for (agent, figures) in &agents {
            metric.count_of(&[("agent", agent)], figures.get(at).copied().unwrap_or(0));
        }
    }
}

/// What every process tells, under the names that Prometheus's own libraries use.
fn process(page: &mut Page) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold spaces: proc_pid_stat(5) counts from 3 there.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let field = |number: usize| -> u64 {
        let field = number.checked_sub(3).and_then(|at| fields.get(at));
        field.and_then(|field| field.parse().ok()).unwrap_or(0)
    };
    let ticks = ticks_a_second();
    #[allow(clippy::cast_precision_loss, reason = "seconds of a process's life")]
    let cpu = (field(14) + field(15)) as f64 / ticks;
    page.counter("process_cpu_seconds_total", "CPU time.")
        .is(cpu);
    page.gauge("process_resident_memory_bytes", "Resident memory.")
        .count(field(24) * page_size());
    page.gauge("process_virtual_memory_bytes", "Virtual memory.")
        .count(field(23));
    page.gauge("process_threads", "Threads.").count(field(20));
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    page.gauge("process_open_fds", "Open descriptors.")
        .count(open);
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    page.gauge("process_max_fds", "How many may be open.")
        .count(limit.map_or(0, |(soft, _)| soft));
}

fn ticks_a_second() -> f64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let ticks = ticks
        .ok()
        .flatten()
        .and_then(|ticks| i32::try_from(ticks).ok());
    f64::from(ticks.unwrap_or(100).max(1))
}

fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}
