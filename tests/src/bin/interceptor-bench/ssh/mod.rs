//! SSH: direct, by way of a relay of russh's that judges nothing, of ssh-mitm, and of
//! Interceptor.
//!
//! * [`roads`]: what leads to the server;
//! * [`relay`]: the least that a proxy of SSH does in Rust;
//! * [`loads`]: bulk, and commands, by OpenSSH's client;
//! * [`keys`]: how long a key takes to show;
//! * [`goals`]: what all of it is to come to.

mod goals;
mod keys;
mod loads;
mod relay;
mod roads;

use anyhow::Result;

use crate::Options;
use crate::report::Report;
use roads::Road;

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("Starting sshd, Redis and Interceptor …");
    let field = roads::Field::new()?;
    if !field.has(Road::SshMitm) {
        println!("ssh-mitm is left out: `cargo xtask install bench` installs it");
    }
    let mut report = Report::new(&[Road::Direct, Road::Relay, Road::SshMitm]);
    let bytes = if options.quick { 64 << 20 } else { 512 << 20 };
    for load in loads::all(bytes, options.seconds()) {
        let name = load.name();
        if !options.wants(&name) {
            continue;
        }
        report.measure(
            (&name, load.unit()),
            options.rounds(),
            &field.roads(),
            |road| load.measure(&field, road),
            |road| field.settle(road),
        )?;
    }
    let mut echoes = Vec::new();
    for what in keys::ALL {
        if options.wants(what.name()) {
            let times = if options.quick { 200 } else { 2_000 };
            echoes.extend(keys::measure(&field, *what, times)?);
        }
    }
    let mut lines: Vec<String> = echoes.iter().map(ToString::to_string).collect();
    lines.extend(goals::lines(&report, &echoes));
    report.finish(&lines, options.json.as_deref())
}
