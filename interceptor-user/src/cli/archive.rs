//! `interceptor archive`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use interceptor_engine::replay::escape;
use interceptor_engine::replay::json::quiet;
use serde_json::json;

use super::Global;
use super::place::{archive_at, parse_age};
use super::told;
use crate::archive::ArchiveError;
use crate::archive::keep::{Kept, Removal, keep, remove};
use crate::archive::ledger::{Ledger, Listed};
use crate::archive::place::{Beginning, Place};
use crate::archive::{format, restore};
use crate::config::Config;
use crate::recorder::evidence::KeyError;
use crate::recorder::evidence::notary::Notary;
use crate::recorder::read::Reader;
use crate::recorder::url_to_read;

/// Moves closed sessions from Redis to a folder or to S3, and back
///
/// A session leaves Redis when it was read back from the archive, whole, and only then.
/// Credentials of S3 are those of the configuration (`recorder.retention.s3`) or of the
/// environment (`AWS_ACCESS_KEY_ID` and the like).
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  interceptor archive --older-than 30d --to /srv/recordings\n  interceptor archive list --from /srv/recordings\n  interceptor archive restore last --from /srv/recordings\n\nExit status: 0 done, 1 some were not."
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    bring: Bring,
    /// Read from this Redis
    #[arg(long, global = true, value_name = "URL")]
    redis: Option<String>,
}

#[derive(Debug, Default, clap::Args)]
struct Bring {
    /// This session: its id, a beginning or end of it, or `last`; may be repeated
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
    /// Sessions that closed longer ago, such as 12h or 30d
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    older_than: Option<Duration>,
    /// Every closed session
    #[arg(long, conflicts_with_all = ["session", "older_than"])]
    all: bool,
    /// Only of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only to this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// A folder, or s3://bucket/prefix [default: recorder.retention.archive_to]
    #[arg(long, value_name = "DIR|URL")]
    to: Option<String>,
    /// Leave them in Redis as well
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// What is in an archive
    #[command(after_help = "Example:\n  interceptor archive list --from /srv/recordings")]
    List(From),
    /// Reads archived sessions from beginning to end, and says whether they are whole
    #[command(after_help = "Example:\n  interceptor archive check --from /srv/recordings")]
    Check(Which),
    /// Brings archived sessions back into Redis
    #[command(after_help = "Example:\n  interceptor archive restore last --from /srv/recordings")]
    Restore(Which),
}

#[derive(Debug, clap::Args)]
struct From {
    /// A folder, or s3://bucket/prefix [default: recorder.retention.archive_to]
    #[arg(long, value_name = "DIR|URL")]
    from: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The sessions: an id, a beginning or end of it, or `last` [check: all]
    sessions: Vec<String>,
    #[command(flatten)]
    from: From,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let url = url_to_read(args.redis.as_deref(), &config.recorder, &config.runtime_dir)?;
    let redis = || Reader::open(&url, &config.recorder.prefix);
    let open = |place: Option<&str>| -> anyhow::Result<Arc<Place>> {
        Ok(Arc::new(Place::open(&archive_at(place, &config)?)?))
    };
    let mut out = io::stdout().lock();
    let json = global.json;
    // The host's statements are all in one place.
    let is_own = args.redis.is_none();
    match args.what {
        None => {
            let place = open(args.bring.to.as_deref())?;
            let notary = match args.bring.keep {
                true => None,
                false if is_own => Some(
                    Notary::open(&config.state_dir)
                        .context("removing recordings is signed with this host's key; `--keep` leaves them in Redis")?,
                ),
                false => bail!(
                    "removing recordings is signed by a host that records there: do it on that one without --redis, or leave them in Redis as well (--keep)"
                ),
            };
            bring(&mut redis()?, &place, &args.bring, notary, json, &mut out)
        }
        Some(What::List(from)) => list(&open(from.from.as_deref())?, json, &mut out),
        Some(What::Check(which)) => {
            let place = open(which.from.from.as_deref())?;
            let mut all = Vec::new();
            if which.sessions.is_empty() {
                all.extend(place.sessions()?.into_iter().map(|object| object.session));
            } else {
                for wanted in &which.sessions {
                    all.push(named(&place, wanted)?);
                }
            }
            check(&place, &all, json, &mut out)
        }
        Some(What::Restore(which)) => {
            if which.sessions.is_empty() {
                bail!("which session? An id, or `last`");
            }
            let place = open(which.from.from.as_deref())?;
            let mut reader = redis()?;
            let mut notary = match is_own.then(|| Notary::open(&config.state_dir)) {
                // A host that never recorded has removed nothing either.
                None | Some(Err(KeyError::None { .. })) => None,
                Some(opened) => Some(
                    opened.context("bringing recordings back is signed with this host's key")?,
                ),
            };
            for wanted in &which.sessions {
                let session = named(&place, wanted)?;
                let end = restore::restore(&mut reader, &place, &session, notary.as_mut())?;
                if json {
                    let told = json!({ "session": session, "events": end.events });
                    writeln!(out, "{}", quiet(&told.to_string()))?;
                } else {
                    writeln!(out, "{session} is back, {} events", end.events)?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Brings sessions into the archive.
fn bring(
    reader: &mut Reader,
    place: &Arc<Place>,
    bring: &Bring,
    mut notary: Option<Notary>,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    if bring.session.is_empty() && bring.older_than.is_none() && !bring.all {
        bail!("which sessions? --older-than 30d, --session ID, or --all");
    }
    let ledger = Ledger::read(reader)?;
    let mut wanted = Vec::new();
    for name in &bring.session {
        let session = reader.resolve(name)?;
        let listed = ledger.of(&session);
        let listed = listed.filter(|listed| !listed.removed);
        wanted.push(listed.with_context(|| format!("session {session} is not recorded there"))?);
    }
    let is_named = !wanted.is_empty();
    if !is_named {
        wanted.extend(
            ledger
                .sessions()
                .filter(|listed| ledger.may_go(listed).is_ok()),
        );
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|one| one == is);
    wanted.retain(|listed| {
        let is_old = bring.older_than.is_none_or(|age| {
            let since = listed.since_ms().map(Duration::from_millis);
            since.is_some_and(|since| now.saturating_sub(since) >= age)
        });
        is_old && fits(&bring.agent, &listed.agent) && fits(&bring.target, &listed.target)
    });
    let bar = told::sessions_bar(wanted.len());
    let mut failed = false;
    for listed in wanted {
        let done = one(reader, place, &ledger, listed, notary.as_mut());
        let session = &listed.session;
        let told = match &done {
            Ok(kept) => json!({
                "session": session,
                "events": kept.end.events,
                "bytes": kept.bytes,
                "sha256": hex::encode(kept.sha256),
                "was_there": kept.was_there,
                "removed": !bring.keep,
            }),
            Err(error) => json!({ "session": session, "error": error.to_string() }),
        };
        bar.suspend(|| match &done {
            _ if json => writeln!(out, "{}", quiet(&told.to_string())),
            Ok(kept) => writeln!(
                out,
                "{session}  {} events, {} bytes",
                kept.end.events, kept.bytes
            ),
            Err(_) => Ok(()),
        })?;
        if let Err(error) = done {
            failed = true;
            // The store itself: the next session would meet the same.
            if matches!(error, ArchiveError::Store { .. } | ArchiveError::Read(_)) {
                bar.finish_and_clear();
                return Err(error.into());
            }
            bar.suspend(|| told::tell(&error.to_string()));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn one(
    reader: &mut Reader,
    place: &Arc<Place>,
    ledger: &Ledger,
    listed: &Listed,
    notary: Option<&mut Notary>,
) -> Result<Kept, ArchiveError> {
    let session = listed.session.clone();
    ledger
        .may_go(listed)
        .map_err(|why| ArchiveError::Stays { session, why })?;
    let kept = keep(reader, place, listed, &crate::host::name())?;
    if let Some(notary) = notary {
        let uid = nix::unistd::getuid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten();
        let user = user.map_or_else(|| uid.to_string(), |user| user.name);
        let removal = Removal {
            by: "archive",
            why: "asked",
            user: Some(&user),
            kept: Some((place.name(), &kept)),
        };
        remove(reader, listed, &removal, notary)?;
    }
    Ok(kept)
}

fn list(place: &Arc<Place>, json: bool, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let objects = place.sessions()?;
    if !json {
        writeln!(
            out,
            "{:<36}  {:<20}  {:<16}  {:<16}  {:>10}",
            "SESSION", "ARCHIVED", "AGENT", "TARGET", "BYTES"
        )?;
    }
    // Not all at once: there may be many.
    for some in objects.chunks(256) {
        let names: Vec<String> = some.iter().map(|object| object.session.clone()).collect();
        for (object, head) in some.iter().zip(place.heads(&names)) {
            let fact = |name: &str| match &head {
                Ok(Beginning { sessions, .. }) => sessions
                    .iter()
                    .map(|entry| entry.text(name))
                    .find(|text| !text.is_empty())
                    .unwrap_or_default(),
                Err(_) => String::new(),
            };
            let (archived, fault) = match &head {
                Ok(head) => (head.head.archived.clone(), None),
                Err(error) => (String::new(), Some(error.to_string())),
            };
            if json {
                let told = json!({
                    "session": object.session,
                    "archived": archived,
                    "agent": fact("agent"),
                    "target": fact("target"),
                    "bytes": object.bytes,
                    "error": fault,
                });
                writeln!(out, "{}", quiet(&told.to_string()))?;
                continue;
            }
            let archived: String = archived.chars().take(19).collect();
            writeln!(
                out,
                "{:<36}  {:<20}  {:<16}  {:<16}  {:>10}{}",
                object.session,
                archived.replace('T', " "),
                escape::line(&fact("agent")),
                escape::line(&fact("target")),
                object.bytes,
                fault.map_or(String::new(), |fault| format!("  {}", escape::line(&fault)))
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(
    place: &Arc<Place>,
    sessions: &[String],
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let bar = told::sessions_bar(sessions.len());
    let mut bad = 0;
    for session in sessions {
        let read = format::check(place.read(session)?, session);
        let fault = match read {
            Ok(_) => None,
            Err(format::Unread::Fault(fault)) => Some(fault.to_string()),
            Err(format::Unread::Io(error)) => return Err(error.into()),
        };
        bad += usize::from(fault.is_some());
        bar.suspend(|| match &fault {
            _ if json => {
                let told = json!({ "session": session, "whole": fault.is_none(), "error": fault });
                writeln!(out, "{}", quiet(&told.to_string()))
            }
            Some(fault) => writeln!(out, "{session}  {}", escape::line(fault)),
            None => Ok(()),
        })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if !json {
        writeln!(out, "{} sessions, {bad} of them no good", sessions.len())?;
    }
    Ok(if bad > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The archived session that `wanted` means.
fn named(place: &Place, wanted: &str) -> anyhow::Result<String> {
    if place.has(wanted)?.is_some() {
        return Ok(wanted.to_owned());
    }
    let all = place.sessions()?;
    if wanted == "last" {
        let last = all.last().context("there is nothing in the archive")?;
        return Ok(last.session.clone());
    }
    let is_meant = |session: &str| session.starts_with(wanted) || session.ends_with(wanted);
    let mut meant = all.iter().filter(|object| is_meant(&object.session));
    match (meant.next(), meant.next()) {
        (Some(one), None) if !wanted.is_empty() => Ok(one.session.clone()),
        (Some(_), _) => bail!("{wanted} is more than one session"),
        (None, _) => bail!("session {wanted} is not in the archive"),
    }
}
