//! `interceptor confined`: what the daemon may still do, tried by hand.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use super::Global;
use crate::config::Config;
use crate::{fence, sandbox};

/// Runs a command with what is left to the daemon once it reads what agents send
///
/// Example: interceptor confined cat /etc/hostname
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When it cannot be started.
pub(super) fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    if config.sandbox.landlock {
        fence::enter(&config);
    }
    sandbox::enter(&config.sandbox);
    let mut words = args.command.iter();
    let program = words.next().map(String::as_str).unwrap_or_default();
    // Only comes back where that failed.
    let error = Command::new(program).args(words).exec();
    Err(anyhow::Error::from(error).context(format!("starting {program}")))
}
