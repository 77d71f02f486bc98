//! `interceptor run`.

use std::process::ExitCode;

use anyhow::Context as _;

use super::Global;
use crate::config::Config;
use crate::{daemon, telemetry};

/// Runs the daemon
///
/// Without a configuration: rules from ./rules or /etc/interceptor/rules, Redis on
/// its standard port or a private one, and agents that are started with
/// `interceptor exec`. Ends at SIGTERM and SIGINT; SIGHUP reads the rules again,
/// which a change of their files does too. Where a daemon of the same configuration runs,
/// this one takes over from it: see `interceptor upgrade`.
///
/// Example: interceptor run --config /etc/interceptor/interceptor.yaml
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, _args: Args) -> anyhow::Result<ExitCode> {
    telemetry::start();
    let config = Config::load(global.config.as_deref())?;
    // One thread until here: what it gives up, those that follow do not have.
    let begun = daemon::begin(config)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("flow")
        .build()
        .context("starting the runtime")?
        .block_on(daemon::run(begun))?;
    Ok(ExitCode::SUCCESS)
}
