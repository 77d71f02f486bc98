//! `interceptor run`.

use std::process::ExitCode;

use anyhow::Context as _;

use super::Global;
use crate::config::Config;
use crate::service::{self, Split};
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
pub struct Args {
    /// As a systemd service: in a process beside the service's main one, so that sessions can outlive a restart
    #[arg(long)]
    service: bool,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    // Before anything else: what is opened by then would be open in both.
    let link = match args.service.then(service::split).transpose()? {
        Some(Split::Main(code)) => return Ok(code),
        Some(Split::Daemon(link)) => Some(link),
        None => None,
    };
    telemetry::start();
    let config = Config::load(global.config.as_deref())?;
    // One thread until here: what it gives up, those that follow do not have.
    let begun = daemon::begin(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("flow")
        .build()
        .context("starting the runtime")?;
    let ended = runtime.block_on(daemon::run(begun, link));
    // What waits in a thread of its own, for a next daemon that is not ready yet say, may wait
    // for minutes, and is of no use to anybody.
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}
