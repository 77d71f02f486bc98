//! `interceptor sessions`.
//!
//! * [`list`] lists them; [`listing`] finds them;
//! * [`show`] tells what is known of one;
//! * [`tail`] follows what happens now;
//! * [`kill`] ends some.

mod kill;
mod list;
pub(super) mod listing;
mod show;
mod tail;

use std::io;
use std::process::ExitCode;

use super::Global;
use super::place::Place;
use crate::config::Config;

/// Lists, shows and follows sessions, and ends them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  interceptor sessions list --limit 10\n  interceptor sessions list --verdict block,kill --since 7d --agent deploy-bot"
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The sessions, newest first (also without a subcommand)
    #[command(
        after_help = "Examples:\n  interceptor sessions list --limit 10\n  interceptor sessions list --verdict block,kill --since 7d --agent deploy-bot\n  interceptor sessions list --text 'delete from orders' --since 2026-11-01 --until 2026-11-30"
    )]
    List(Box<list::Args>),
    /// One session: who, where, how much, and what stands out in it
    #[command(after_help = "Example:\n  interceptor sessions show last")]
    Show(show::Args),
    /// What happens now, a line an event, until interrupted
    #[command(
        after_help = "Examples:\n  interceptor sessions tail --alerts\n  interceptor sessions tail --agent deploy-bot --lines 20"
    )]
    Tail(tail::Args),
    /// Ends running sessions
    #[command(
        after_help = "Examples:\n  interceptor sessions kill last\n  interceptor sessions kill --agent deploy-bot"
    )]
    Kill(kill::Args),
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let place = args.place;
    let what = args
        .what
        .unwrap_or_else(|| What::List(Box::new(list::Args::all())));
    let mut out = io::stdout().lock();
    let done = match what {
        What::List(list) => {
            let mut reader = place.open(&config)?;
            list::show(&mut reader, &list, global.json, &mut out).map(|()| ExitCode::SUCCESS)
        }
        What::Show(show) => {
            let mut reader = place.open(&config)?;
            show::show(&mut reader, &show, global.json, &mut out).map(|()| ExitCode::SUCCESS)
        }
        What::Tail(tail) => {
            let mut reader = place.open(&config)?;
            tail::follow(&mut reader, &tail, global.json, &mut out).map(|()| ExitCode::SUCCESS)
        }
        // The daemon is asked even where Redis does not answer.
        What::Kill(which) => kill::kill(&config, &place, &which, global.json, &mut out),
    };
    match done {
        // Whoever read has read enough.
        Err(error) if super::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}
