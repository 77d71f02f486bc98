//! What is sent over the roads.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::client::Session;
use super::roads::{Field, Road};

/// One load.
pub(crate) struct Load {
    /// What the table calls it.
    pub(crate) name: String,
    kind: Kind,
}

enum Kind {
    /// pgbench with these arguments, and a script where it is not a built-in.
    Pgbench {
        arguments: Vec<String>,
        script: Option<&'static str>,
    },
    /// A statement whose answer is large.
    Bulk(String),
}

/// Ten statements that are sent together. pgbench wants a mode with messages of
/// the extended protocol for it.
const PIPELINE: &str = "\\set aid random(1, 1000000)\n\\startpipeline\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    \\endpipeline\n";

/// All loads.
pub(crate) fn all(seconds: u32, rows: u32) -> Vec<Load> {
    let mut loads = Vec::new();
    let mut pgbench = |name: String, script, arguments: &[&str]| {
        let time = ["-T".to_owned(), seconds.to_string()];
        let arguments = arguments
            .iter()
            .map(|word| (*word).to_owned())
            .chain(time)
            .collect();
        loads.push(Load {
            name,
            kind: Kind::Pgbench { arguments, script },
        });
    };
    for clients in ["1", "8", "32"] {
        for mode in ["simple", "extended", "prepared"] {
            pgbench(
                format!("select-only, {mode}, {clients} clients"),
                None,
                &["-S", "-M", mode, "-c", clients, "-j", "2"],
            );
        }
        pgbench(
            format!("pipelines of 10, {clients} clients"),
            Some(PIPELINE),
            &["-M", "prepared", "-c", clients, "-j", "2"],
        );
    }
    pgbench(
        "read and write, simple, 8 clients".to_owned(),
        None,
        &["-M", "simple", "-c", "8", "-j", "2"],
    );
    pgbench(
        "new connections, 4 clients".to_owned(),
        None,
        &["-S", "-C", "-c", "4", "-j", "2"],
    );
    loads.push(Load {
        name: format!("SELECT of {rows} rows"),
        kind: Kind::Bulk("SELECT id, name, secret, amount FROM bulk".to_owned()),
    });
    // A row is about 500 bytes, so a million rows are 500 MB.
    loads.push(Load {
        name: format!("COPY out of {} MB", rows / 2_000),
        kind: Kind::Bulk("COPY bulk (id, name, secret, amount, note) TO STDOUT".to_owned()),
    });
    loads
}

impl Load {
    /// Whether its answer is large.
    pub(crate) fn is_bulk(&self) -> bool {
        matches!(self.kind, Kind::Bulk(_))
    }

    /// What is counted; more is better.
    pub(crate) fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Pgbench { .. } => "tps",
            Kind::Bulk(_) => "rows/s",
        }
    }

    /// Sends it over a road once.
    pub(crate) fn measure(&self, field: &Field, road: Road, tls: bool) -> Result<f64> {
        let measured = match &self.kind {
            Kind::Pgbench { arguments, script } => pgbench(field, road, tls, arguments, *script),
            Kind::Bulk(sql) => bulk(field, road, tls, sql),
        };
        measured.with_context(|| format!("{} by way of {road}", self.name))
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a rate needs no more digits than a float has"
)]
fn bulk(field: &Field, road: Road, tls: bool, sql: &str) -> Result<f64> {
    let mut session = Session::open(field.port(road, tls), tls)?;
    session.query("SELECT 1")?;
    let start = Instant::now();
    // Rows and not bytes: a mask may make them shorter.
    let rows = session.query(sql)?;
    Ok(rows as f64 / start.elapsed().as_secs_f64())
}

fn pgbench(
    field: &Field,
    road: Road,
    tls: bool,
    arguments: &[String],
    script: Option<&str>,
) -> Result<f64> {
    let mut words: Vec<String> = ["/usr/bin/env", "pgbench", "-n"].map(str::to_owned).into();
    words.extend_from_slice(arguments);
    if let Some(script) = script {
        let path = field.place.file("pipeline.sql", script)?;
        words.extend(["-f".to_owned(), path.to_string_lossy().into_owned()]);
    }
    let mode = if tls { "require" } else { "disable" };
    words.push(format!(
        "host=127.0.0.1 port={} user=agent dbname=postgres sslmode={mode}",
        field.port(road, tls)
    ));
    let output = match field.agent(road) {
        Some(agent) => agent.command(&words)?.output(),
        None => {
            let (program, rest) = words.split_first().context("no program")?;
            Command::new(program).args(rest).output()
        }
    };
    let output = output.context("starting pgbench")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || stderr.contains("aborted") {
        bail!("pgbench: {}\n{stderr}", output.status);
    }
    stdout
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("pgbench does not say how fast it was:\n{stdout}"))
}

/// Memory that an idle session takes, by way of Interceptor and of pgbouncer.
pub(crate) fn idle_memory(field: &Field, count: u32) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for road in [Road::Interceptor, Road::Pgbouncer] {
        // pgbouncer's pool is smaller than that.
        let count = if road == Road::Pgbouncer { 100 } else { count };
        let port = field.port(road, false);
        // The first sessions fill what is kept for all.
        for _ in 0..20 {
            Session::open(port, false)?.query("SELECT 1")?;
        }
        let before = field.memory_kib(road)?;
        let mut idle = Vec::new();
        for _ in 0..count {
            let mut session = Session::open(port, false)?;
            session.query("SELECT 1")?;
            idle.push(session);
        }
        field.settle(road)?;
        let after = field.memory_kib(road)?;
        lines.push(format!(
            "memory per idle session, {road}: {} KiB ({count} sessions: {before} to {after} KiB)",
            after.saturating_sub(before) / u64::from(count)
        ));
    }
    Ok(lines)
}

/// How Interceptor's memory grows over many statements of the same sessions.
pub(crate) fn growth(field: &Field, statements: u32) -> Result<String> {
    let each = |statements: u32| {
        let count = (statements / 8 / 10).to_string();
        let words = ["-M", "prepared", "-c", "8", "-j", "2", "-t", &count];
        words.map(str::to_owned)
    };
    pgbench(
        field,
        Road::Interceptor,
        false,
        &each(statements / 10),
        Some(PIPELINE),
    )?;
    field.settle(Road::Interceptor)?;
    let before = field.memory_kib(Road::Interceptor)?;
    pgbench(
        field,
        Road::Interceptor,
        false,
        &each(statements),
        Some(PIPELINE),
    )?;
    field.settle(Road::Interceptor)?;
    let after = field.memory_kib(Road::Interceptor)?;
    Ok(format!(
        "memory over {statements} statements, after a tenth of that to warm up: {before} to {after} KiB"
    ))
}
