//! HTTP: direct, by way of a copying proxy, of nginx, HAProxy and mitmproxy as
//! reverse proxies, and of Interceptor.
//!
//! * [`roads`]: what leads to the pages;
//! * [`loads`]: what is asked for;
//! * [`stream`]: how long the first byte of a stream takes.

mod loads;
mod roads;
mod stream;

use anyhow::Result;

use crate::Options;
use crate::report::Report;
use roads::Road;

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("Starting nginx, HAProxy, Redis and Interceptor …");
    let field = roads::Field::new()?;
    if !field.has(Road::Mitmproxy) {
        println!("mitmproxy is left out: `cargo xtask install bench` installs it");
    }
    let mut report = Report::new(&[Road::Direct, Road::Copy, Road::Nginx, Road::Haproxy]);
    for tls in options.legs() {
        for load in loads::ALL {
            let name = options.name(load.name, *tls);
            if !options.wants(&name) {
                continue;
            }
            for round in 1..=options.rounds() {
                for road in field.roads() {
                    // A road that fails leaves a gap in the table, and the others go on.
                    match load.measure(&field, road, *tls, options.seconds()) {
                        Ok(value) => {
                            println!("{name}  {road}  round {round}: {value:.1} {}", load.unit);
                            report.add(&name, load.unit, road, value);
                        }
                        Err(error) => println!("{name}  {road}  round {round}: FAILED: {error:#}"),
                    }
                    field.settle(road)?;
                }
            }
            report.print_load(&name);
        }
    }
    let mut lines = Vec::new();
    if options.wants("first byte") {
        lines = stream::first_bytes(&field, if options.quick { 300 } else { 2_000 })?;
    }
    report.print_table();
    for line in &lines {
        println!("{line}");
    }
    if let Some(path) = &options.json {
        report.write_json(path, &lines)?;
    }
    Ok(())
}
