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
            report.measure(
                (&name, load.unit()),
                options.rounds(),
                &field.roads(load.is_bulk()),
                |road| load.measure(&field, road, *tls),
                |road| field.settle(road),
            )?;
        }
    }
    let mut memory = Vec::new();
    if options.wants("memory") {
        memory.extend(loads::idle_memory(&field, 500)?);
        let statements = if options.quick { 200_000 } else { 1_000_000 };
        memory.push(loads::growth(&field, statements)?);
    }
    report.finish(&memory, options.json.as_deref())
}
