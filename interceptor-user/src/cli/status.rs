//! `interceptor status`.

use std::process::ExitCode;

use super::Global;

/// Says what runs.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(_global: &Global, _args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
