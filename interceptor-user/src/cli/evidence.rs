//! `interceptor evidence`.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::Global;
use crate::config::Config;
use crate::recorder::evidence::{FOLDER, KeyError, keys};

/// The keys that recordings are signed with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  interceptor evidence keys > keys.txt")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// This host's public keys, as `verify --trusted-keys` reads them (also without a subcommand)
    #[command(after_help = "Example:\n  interceptor evidence keys > keys.txt")]
    Keys,
    /// Makes a new key; a running daemon signs with it within `heads_every`
    #[command(after_help = "Example:\n  interceptor evidence rotate")]
    Rotate,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let folder = config.state_dir.join(FOLDER);
    let mut out = io::stdout().lock();
    match args.what.unwrap_or(What::Keys) {
        What::Keys => {
            let keys = keys::published(&folder)?;
            if keys.is_empty() {
                return Err(KeyError::None { folder }.into());
            }
            if global.json {
                let keys: Vec<Value> = keys.iter().map(json).collect();
                writeln!(out, "{}", json!({ "keys": keys }))?;
                return Ok(ExitCode::SUCCESS);
            }
            writeln!(out, "# public key, host, since; the last one signs")?;
            for key in &keys {
                writeln!(out, "{} {} {}", key.key, key.host, key.since)?;
            }
        }
        What::Rotate => {
            let key = keys::rotate(&folder)?;
            if global.json {
                writeln!(out, "{}", json(&key))?;
            } else {
                writeln!(out, "{} {} {}", key.key, key.host, key.since)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn json(key: &keys::Published) -> Value {
    json!({ "key": key.key.to_string(), "host": key.host, "since": key.since })
}
