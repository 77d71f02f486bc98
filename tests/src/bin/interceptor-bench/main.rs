//! What Interceptor costs: what `cargo xtask bench` runs.
//!
//! Every load goes over every road in turn, round after round, so that a slow
//! minute of the machine hurts all roads alike; a number is the median of its
//! rounds. Nothing is asserted: the table is for a person to judge.
//!
//! * [`postgres`], [`http`], [`ssh`]: a protocol's roads and loads;
//! * [`record`]: the recorder;
//! * [`scale`]: how many connects, flows and cgroups;
//! * [`splice`]: what passing bytes on in the kernel would bring;
//! * [`report`]: medians, ratios, JSON;
//! * [`copy`]: the proxy that does nothing, which every protocol is compared with;
//! * [`settle`]: waits until the store has what was recorded.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod copy;
mod http;
mod postgres;
mod record;
mod report;
mod scale;
mod settle;
mod splice;
mod ssh;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// What Interceptor costs, beside other roads to the same service in the same run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", max_term_width = 100)]
enum Cli {
    /// Beside a direct connection, pgbouncer and a plain copying proxy
    ///
    /// Example: cargo xtask bench postgres --quick --only prepared
    Postgres(Options),
    /// Beside a direct connection, a plain copying proxy, nginx, HAProxy and,
    /// where it is installed, mitmproxy
    ///
    /// Example: cargo xtask bench http --quick --only JSON
    Http(Options),
    /// Beside a direct connection, a relay of the same library and, where it is
    /// installed, ssh-mitm
    ///
    /// Example: cargo xtask bench ssh --quick --only download
    Ssh(Options),
    /// Beside a bare client of the same crate, and how soon a long replay begins
    ///
    /// Example: cargo xtask bench record --quick --only events
    Record(Options),
    /// How many connects, flows and cgroups, beside a direct connection and a copying proxy
    ///
    /// Example: cargo xtask bench scale --quick --only connects
    Scale(Options),
    /// What passing bytes on in the kernel would bring, beside what the daemon does
    ///
    /// Example: cargo xtask bench splice --quick --only bulk
    Splice(Options),
    /// What `scale` and `splice` start as an agent
    #[command(hide = true)]
    Client(scale::Client),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Two rounds of two seconds, and a fifth of the bulk
    #[arg(long)]
    quick: bool,
    /// Seconds of each measurement
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,
    /// Rounds over all roads
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only loads whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Leave out TLS; SSH has none
    #[arg(long)]
    no_tls: bool,
    /// Also write every measurement as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.quick { 2 } else { 5 })
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 }).max(1)
    }

    /// Without TLS, and with it.
    fn legs(&self) -> &'static [bool] {
        match self.no_tls {
            true => &[false],
            false => &[false, true],
        }
    }

    /// What the table calls a load.
    fn name(&self, load: &str, tls: bool) -> String {
        match tls {
            true => format!("{load}, TLS"),
            false => load.to_owned(),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Postgres(options) => postgres::run(&options),
        Cli::Http(options) => http::run(&options),
        Cli::Ssh(options) => ssh::run(&options),
        Cli::Record(options) => record::run(&options),
        Cli::Scale(options) => scale::run(&options),
        Cli::Splice(options) => splice::run(&options),
        Cli::Client(client) => scale::client(client),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
