//! `interceptor sessions kill`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use interceptor_engine::replay::escape;
use interceptor_engine::replay::json::quiet;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::listing::any;
use crate::admin::{self, Request};
use crate::cli::place::Place;
use crate::config::Config;

/// Which sessions.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The sessions: their ids, beginnings or ends of them, or `last`
    #[arg(required_unless_present_any = ["agent", "target"], value_name = "SESSION")]
    sessions: Vec<String>,
    /// All sessions of this agent
    #[arg(long, value_name = "NAME", conflicts_with = "sessions")]
    agent: Vec<String>,
    /// All sessions to this target: its name, or address and port
    #[arg(long, value_name = "NAME", conflicts_with = "sessions")]
    target: Vec<String>,
}

/// The flows under way, as the daemon tells of them.
#[derive(Deserialize)]
struct Flows {
    flows: Vec<Flow>,
}

#[derive(Deserialize)]
struct Flow {
    session: Uuid,
    agent: String,
    origin: String,
    target: Option<String>,
}

pub(super) fn kill(
    config: &Config,
    place: &Place,
    args: &Args,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let Flows { flows } = admin::ask(&config.admin.socket, &Request::Flows {})?;
    let mut wanted = Vec::new();
    if args.sessions.is_empty() {
        let target = |flow: &Flow| {
            any(&args.target, flow.target.as_deref().unwrap_or_default())
                || any(&args.target, &flow.origin)
        };
        let fits = |flow: &&Flow| any(&args.agent, &flow.agent) && target(flow);
        wanted.extend(flows.iter().filter(fits).map(|flow| flow.session));
        if wanted.is_empty() {
            bail!("no such session is under way");
        }
    }
    for name in &args.sessions {
        wanted.push(meant(&flows, name, config, place)?);
    }
    let mut code = ExitCode::SUCCESS;
    for session in wanted {
        let done: anyhow::Result<Value> =
            admin::ask(&config.admin.socket, &Request::Kill { session });
        let error = done.err().map(|error| format!("{error:#}"));
        if error.is_some() {
            code = ExitCode::FAILURE;
        }
        if as_json {
            let told = json!({"session": session, "ended": error.is_none(), "error": error});
            writeln!(out, "{}", quiet(&told.to_string()))?;
        } else {
            match &error {
                None => writeln!(out, "{session} is ended")?,
                Some(error) => writeln!(out, "{session}: {}", escape::line(error))?,
            }
        }
    }
    Ok(code)
}

/// The session that `name` means, of those that are under way.
fn meant(flows: &[Flow], name: &str, config: &Config, place: &Place) -> anyhow::Result<Uuid> {
    let wanted = name.to_ascii_lowercase();
    let found: Vec<Uuid> = match wanted.as_str() {
        "last" => flows
            .iter()
            .map(|flow| flow.session)
            .max()
            .into_iter()
            .collect(),
        "" => Vec::new(),
        wanted => flows
            .iter()
            .map(|flow| flow.session)
            .filter(|session| {
                let session = session.to_string();
                session.starts_with(wanted) || session.ends_with(wanted)
            })
            .collect(),
    };
    match found.as_slice() {
        [session] => Ok(*session),
        [] => {
            // Whether there ever was one is worth a look, and no more.
            if let Ok(mut reader) = place.open(config)
                && let Ok(session) = reader.resolve(&wanted)
            {
                bail!("session {session} is not under way any more");
            }
            bail!("no session {} is under way", escape::line(name))
        }
        several => {
            let names: Vec<String> = several.iter().take(5).map(Uuid::to_string).collect();
            let more = if several.len() > 5 { ", …" } else { "" };
            bail!(
                "{name} is more than one session: {}{more}",
                names.join(", ")
            )
        }
    }
}
