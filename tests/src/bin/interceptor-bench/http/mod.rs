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
            report.measure(
                (&name, load.unit),
                options.rounds(),
                &field.roads(),
                |road| load.measure(&field, road, *tls, options.seconds()),
                |road| field.settle(road),
            )?;
        }
    }
    let mut lines = Vec::new();
    if options.wants("first byte") {
        lines = stream::first_bytes(&field, if options.quick { 300 } else { 2_000 })?;
    }
    report.finish(&lines, options.json.as_deref())
}
