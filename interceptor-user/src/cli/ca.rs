//! `interceptor ca`.

use std::process::ExitCode;

use super::Global;

/// Shows and makes the local certificate authority.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(_global: &Global, _args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
