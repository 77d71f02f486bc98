//! What is asked for, by `wrk`.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::roads::{Field, Road};

/// One load.
pub(crate) struct Load {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// What is counted; more is better.
    pub(crate) unit: &'static str,
    path: &'static str,
    connections: u32,
    /// Bytes of each answer's body.
    size: f64,
}

const MIB: f64 = 1024.0 * 1024.0;

/// All loads.
pub(crate) const ALL: &[Load] = &[
    Load {
        name: "1 KiB of JSON, 32 connections",
        unit: "req/s",
        path: "small.json",
        connections: 32,
        size: 1024.0,
    },
    Load {
        name: "1 KiB of JSON, 1 connection",
        unit: "req/s",
        path: "small.json",
        connections: 1,
        size: 1024.0,
    },
    Load {
        name: "1 MiB bodies, 8 connections",
        unit: "MiB/s",
        path: "large.json",
        connections: 8,
        size: MIB,
    },
];

impl Load {
    /// Asks for it over a road.
    pub(crate) fn measure(
        &self,
        field: &Field,
        road: Road,
        tls: bool,
        seconds: u32,
    ) -> Result<f64> {
        let scheme = if tls { "https" } else { "http" };
        let output = Command::new("wrk")
            .args(["-t1", "--timeout", "10s"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{seconds}s"))
            .arg(format!(
                "{scheme}://localhost:{}/{}",
                field.port(road, tls)?,
                self.path
            ))
            .output()
            .context("starting wrk: `cargo xtask install bench` installs it")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && !said.contains("Non-2xx") && !said.contains("Socket errors"),
            "wrk by way of {road}:\n{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let rate: f64 = said
            .lines()
            .find_map(|line| line.strip_prefix("Requests/sec:"))
            .and_then(|number| number.trim().parse().ok())
            .with_context(|| format!("wrk does not say how fast it was:\n{said}"))?;
        Ok(match self.unit {
            "MiB/s" => rate * self.size / MIB,
            _ => rate,
        })
    }
}
