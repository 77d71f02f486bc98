//! The commands, a file each.

mod agents;
mod approvals;
mod archive;
mod attach;
mod ca;
mod completions;
mod confined;
mod doctor;
mod evidence;
mod exec;
mod export;
mod moment;
mod place;
mod replay;
mod retire;
mod rules;
mod run;
mod search;
mod sessions;
mod status;
mod told;
mod upgrade;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::recorder::{KEEP, keep_until_alone};
use crate::{keeper, looker};

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
    Export(Box<export::Args>),
    Attach(attach::Args),
    Detach(attach::DetachArgs),
    Agents(agents::Args),
    Sessions(sessions::Args),
    Replay(replay::Args),
    Search(search::Args),
    Verify(verify::Args),
    Evidence(evidence::Args),
    Rules(rules::Args),
    Approvals(approvals::Args),
    Archive(archive::Args),
    Ca(ca::Args),
    Doctor(doctor::Args),
    Status(status::Args),
    Upgrade(upgrade::Args),
    Retire(retire::Args),
    Completions(completions::Args),
    /// Keeps a private Redis (the daemon starts this)
    #[command(name = KEEP, hide = true)]
    KeepRedis,
    /// Keeps the keys that agents trust (the daemon starts this)
    #[command(name = keeper::KEEP, hide = true)]
    KeepKeys,
    /// Looks at agents (the daemon starts this)
    #[command(name = looker::LOOK, hide = true)]
    Look,
    /// Runs a command with what is left to the daemon once it reads what agents send
    #[command(hide = true)]
    Confined(confined::Args),
}

/// Runs the command line. Exit codes: 0 done, 1 refused or found wanting, 2 used wrongly.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => run::run(&cli.global, args),
        Command::Exec(args) => exec::run(&cli.global, args),
        Command::Export(args) => export::run(&cli.global, *args),
        Command::Attach(args) => attach::run(&cli.global, args),
        Command::Detach(args) => attach::detach(&cli.global, args),
        Command::Agents(args) => agents::run(&cli.global, args),
        Command::Sessions(args) => sessions::run(&cli.global, args),
        Command::Replay(args) => replay::run(&cli.global, args),
        Command::Search(args) => search::run(&cli.global, args),
        Command::Verify(args) => verify::run(&cli.global, args),
        Command::Evidence(args) => evidence::run(&cli.global, args),
        Command::Rules(args) => rules::run(&cli.global, args),
        Command::Approvals(args) => approvals::run(&cli.global, args),
        Command::Archive(args) => archive::run(&cli.global, args),
        Command::Ca(args) => ca::run(&cli.global, args),
        Command::Doctor(args) => doctor::run(&cli.global, args),
        Command::Status(args) => status::run(&cli.global, args),
        Command::Upgrade(args) => upgrade::run(&cli.global, args),
        Command::Retire(args) => retire::run(&cli.global, args),
        Command::Completions(args) => completions::run(&cli.global, args),
        Command::KeepRedis => {
            crate::telemetry::start();
            keep_until_alone()
                .map(|()| ExitCode::SUCCESS)
                .map_err(Into::into)
        }
        Command::KeepKeys => {
            crate::telemetry::start();
            keeper::serve()
                .map(|()| ExitCode::SUCCESS)
                .map_err(Into::into)
        }
        Command::Confined(args) => confined::run(&cli.global, &args),
        Command::Look => {
            crate::telemetry::start();
            looker::serve()
                .map(|()| ExitCode::SUCCESS)
                .map_err(Into::into)
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "this is the command line's last word")]
            {
                eprintln!("interceptor: {error:#}");
            }
            match error.is::<Misused>() {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// What is wrong with a command line beyond what its parser knows; exit code 2.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Misused(String);

impl Misused {
    fn say(why: impl Into<String>) -> anyhow::Error {
        Self(why.into()).into()
    }
}

/// Says what is wrong with a command line; the exit code for it.
#[allow(clippy::print_stderr, reason = "this is the command line's last word")]
fn used_wrongly(error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    eprintln!("interceptor: {error:#}");
    Ok(ExitCode::from(2))
}

/// Whether whoever reads our output has gone.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
