//! PostgreSQL: direct, by way of pgbouncer, of a copying proxy, of Interceptor.
//!
//! * [`roads`]: what leads to the database;
//! * [`loads`]: what is sent over it;
//! * [`client`]: a client that does nothing but receive.

mod client;
mod loads;
mod roads;

use anyhow::Result;

use crate::Options;
use crate::report::Report;
use roads::Road;

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let seconds = options.seconds();
    let rows = if options.quick { 200_000 } else { 1_000_000 };
    println!("Starting PostgreSQL, pgbouncer, Redis and Interceptor; filling tables …");
    let field = roads::Field::new(rows)?;
    let mut report = Report::new(&[Road::Direct, Road::Pgbouncer, Road::Copy]);
    for tls in options.legs() {
        for load in loads::all(seconds, rows) {
            let name = options.name(&load.name, *tls);
            if !options.wants(&name) {
                continue;
            }
            for round in 1..=options.rounds() {
                for road in field.roads(load.is_bulk()) {
                    // A road that fails leaves a gap in the table, and the others go on.
                    match load.measure(&field, road, *tls) {
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
    let mut memory = Vec::new();
    if options.wants("memory") {
        memory.extend(loads::idle_memory(&field, 500)?);
        let statements = if options.quick { 200_000 } else { 1_000_000 };
        memory.push(loads::growth(&field, statements)?);
    }
    report.print_table();
    for line in &memory {
        println!("{line}");
    }
    if let Some(path) = &options.json {
        report.write_json(path, &memory)?;
    }
    Ok(())
}
