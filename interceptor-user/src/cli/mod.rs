//! The commands, a file each.

mod agents;
mod approvals;
mod attach;
mod ca;
mod completions;
mod doctor;
mod evidence;
mod exec;
mod moment;
mod place;
mod replay;
mod rules;
mod run;
mod search;
mod sessions;
mod status;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A control point in the path of every connection an agent makes.
#[derive(Debug, Parser)]
#[command(
    name = "interceptor",
    version,
    about,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Configuration file [default: /etc/interceptor/interceptor.yaml, where it exists]
    #[arg(long, global = true, env = "INTERCEPTOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each command documents itself in its own file")]
pub enum Command {
    Run(run::Args),
    Exec(exec::Args),
    Attach(attach::Args),
    Detach(attach::DetachArgs),
    Agents(agents::Args),
    Sessions(sessions::Args),
    Replay(replay::Args),
        Command::Verify(args) => verify::run(&cli.global, args),
        Command::Evidence(args) => evidence::run(&cli.global, args),
