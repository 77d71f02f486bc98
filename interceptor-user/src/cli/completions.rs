//! `interceptor completions`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;

use super::{Cli, Global};

/// Prints shell completions.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  interceptor completions bash > /etc/bash_completion.d/interceptor"
)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Runs the command.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn run(_global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    // Into memory first: the generator panics where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "interceptor", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        use clap::ValueEnum as _;
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "interceptor", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in ["exec", "sessions", "completions"] {
                assert!(script.contains(command), "{shell}: {command}");
            }
        }
    }
}
