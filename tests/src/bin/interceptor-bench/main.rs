//! What Interceptor costs: what `cargo xtask bench postgres` runs.
//!
//! Every load goes over every road in turn, round after round, so that a slow
//! minute of the machine hurts all roads alike; a number is the median of its
//! rounds. Nothing is asserted: the table is for a person to judge.
//!
//! * [`roads`]: direct, pgbouncer, a plain copying proxy, Interceptor;
//! * [`loads`]: what is sent over them;
//! * [`client`]: a client that does nothing but receive;
//! * [`report`]: medians, ratios, JSON.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod client;
mod loads;
mod report;
mod roads;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// What Interceptor costs, beside a direct connection, pgbouncer and a plain
/// copying proxy in the same run.
///
/// Example: cargo xtask bench postgres --quick --only prepared
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench postgres", max_term_width = 100)]
struct Cli {
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
    /// Leave out TLS
    #[arg(long)]
    no_tls: bool,
    /// Also write every measurement as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let seconds = cli.seconds.unwrap_or(if cli.quick { 2 } else { 5 });
    let rounds = cli.rounds.unwrap_or(if cli.quick { 2 } else { 5 }).max(1);
    let rows = if cli.quick { 200_000 } else { 1_000_000 };
    println!("Starting PostgreSQL, pgbouncer, Redis and Interceptor; filling tables …");
    let field = roads::Field::new(rows)?;
    let mut report = report::Report::new();
    for tls in [false, true] {
        if tls && cli.no_tls {
            continue;
        }
        for load in loads::all(seconds, rows) {
            let name = match tls {
                true => format!("{}, TLS", load.name),
                false => load.name.clone(),
            };
            if cli
                .only
                .as_ref()
                .is_some_and(|only| !name.contains(only.as_str()))
            {
                continue;
            }
            for round in 1..=rounds {
                for road in field.roads(load.is_bulk()) {
                    // A road that fails leaves a gap in the table, and the others go on.
                    match load.measure(&field, road, tls) {
                        Ok(value) => {
                            println!("{name}  {road}  round {round}: {value:.1} {}", load.unit());
                            report.add(&name, load.unit(), road, value);
                        }
                        Err(error) => println!("{name}  {road}  round {round}: FAILED: {error:#}"),
                    }
                    field.settle(road)?;
                }
            }
            report.print_load(&name);
        }
    }
    let wants = |name: &str| {
        cli.only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    };
    let mut memory = Vec::new();
    if wants("memory") {
        memory.extend(loads::idle_memory(&field, 500)?);
        let statements = if cli.quick { 200_000 } else { 1_000_000 };
        memory.push(loads::growth(&field, statements)?);
    }
    report.print_table();
    for line in &memory {
        println!("{line}");
    }
    if let Some(path) = &cli.json {
        report.write_json(path, &memory)?;
    }
    Ok(())
}
