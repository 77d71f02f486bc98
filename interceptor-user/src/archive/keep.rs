//! A closed session into the archive, and out of Redis.
//!
//! Nothing is removed that was not read back from the archive first, whole, with the bytes
//! that were written and a chain that holds. Each step can be done again: whoever is
//! interrupted leaves a session in Redis, in the archive, or in both. That one is removed is
//! signed with this host's key, and in the store, before it goes.

use std::io;
use std::sync::Arc;

use interceptor_engine::chain::{self, Check};
use interceptor_engine::evidence::statement::{Line, SessionHead, State};
use interceptor_engine::replay::Raw;
use redis::{Value, cmd};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::ArchiveError;
use super::format::{self, End, Fault, Head, Unread, Writer};
use super::ledger::{ARCHIVED_ID, Listed, Stays};
use super::place::{Place, unread_of};
use crate::index;
use crate::recorder::evidence::notary::Notary;
use crate::recorder::read::{self, Reader, StreamEntry};

/// A session that is in the archive, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// SHA-256 of its object.
    pub sha256: [u8; 32],
    /// Size of its object.
    pub bytes: u64,
    /// Its end.
    pub end: End,
    /// It was there before.
    pub was_there: bool,
}

/// Why and by whom a session is removed; it stands in `sessions`.
#[derive(Clone, Debug)]
pub struct Removal<'a> {
    /// `retention` or `archive`.
    pub by: &'a str,
    /// `age`, `bytes` or `asked`.
    pub why: &'a str,
    /// Who asked, where somebody did.
    pub user: Option<&'a str>,
    /// Where it is now, and as what; `None` where it is nowhere.
    pub kept: Option<(&'a str, &'a Kept)>,
}

/// Brings a session into the archive. It stays in Redis.
///
/// # Errors
/// When it is not a whole recording, or the archive does not have it afterwards.
pub fn keep(
    reader: &mut Reader,
    place: &Arc<Place>,
    listed: &Listed,
    host: &str,
) -> Result<Kept, ArchiveError> {
    let session = listed.session.as_str();
    let end = end(reader, session)?;
    if let Some(bytes) = place.has(session)? {
        match format::check(place.read(session)?, session) {
            Ok((sha256, there)) if there == end => {
                return Ok(Kept {
                    sha256,
                    bytes,
                    end,
                    was_there: true,
                });
            }
            Ok(_) => {
                return Err(ArchiveError::Differs {
                    session: session.to_owned(),
                    whereabouts: "in the archive",
                });
            }
            // What is no good is written again, from what is.
            Err(Unread::Fault(_)) => {}
            Err(unread) => return Err(unread_of(place.name(), session, unread)),
        }
    }
    let head = Head {
        session: session.to_owned(),
        archived: now(),
        host: host.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let store = |error: io::Error| ArchiveError::Store {
        place: place.name().to_owned(),
        why: error.to_string(),
    };
    let mut writer = Writer::new(place.create(session)?, &head).map_err(store)?;
    let entries = entries(reader, listed)?;
    writer.sessions(&entries).map_err(store)?;
    let mut check = Check::default();
    let mut pages = reader.session(session);
    while let Some(entry) = pages.next_entry()? {
        writer.event(&entry).map_err(store)?;
        check
            .event(&Raw::from_fields(entry.fields).stored(session))
            .map_err(|broken| stays(session, Stays::Broken(broken.to_string())))?;
    }
    let (upload, written) = writer.finish().map_err(store)?;
    if written.end != end {
        return Err(stays(session, Stays::Changed));
    }
    upload.finish()?;
    let read = format::check(place.read(session)?, session)
        .map_err(|unread| unread_of(place.name(), session, unread))?;
    if read != (written.sha256, end.clone()) {
        return Err(ArchiveError::Broken {
            session: session.to_owned(),
            why: Fault::NotAsWritten,
        });
    }
    Ok(Kept {
        sha256: written.sha256,
        bytes: written.bytes,
        end,
        was_there: false,
    })
}

/// Removes a session's recording from Redis: first it is signed and said, then it goes. Its entries in
/// `sessions` stay, since they are statements of its host, each of which names the one before.
///
/// # Errors
/// When it is not what was archived, or Redis does not do it.
pub fn remove(
    reader: &mut Reader,
    listed: &Listed,
    removal: &Removal<'_>,
    notary: &mut Notary,
) -> Result<(), ArchiveError> {
    let session = listed.session.as_str();
    let key = reader.session_key(session);
    if reader.has(&key)? {
        let (end, head) = last(reader, session)?;
        if removal.kept.is_some_and(|(_, kept)| kept.end != end) {
            return Err(stays(session, Stays::Changed));
        }
        // What is signed has to be all that there was.
        if let Some((events, chain)) = &listed.close
            && (head.events.to_string() != *events || head.chain.to_string() != *chain)
        {
            let why = "its recording is not what its close in `sessions` says";
            return Err(stays(session, Stays::Broken(why.to_owned())));
        }
        if !listed.removed {
            say(reader, listed, removal, head, notary)?;
        }
        let grams = index::key(reader, session);
        reader.run(cmd("UNLINK").arg(&key).arg(grams))?;
    } else if listed.removed {
        // What was said is done.
    } else {
        // Somebody else did that, and `verify` is to find it.
        return Err(stays(session, Stays::Unknown));
    }
    Ok(())
}

/// The entry that says that a session was removed, and what it was.
fn say(
    reader: &mut Reader,
    listed: &Listed,
    removal: &Removal<'_>,
    head: SessionHead,
    notary: &mut Notary,
) -> Result<(), ArchiveError> {
    let closed = listed
        .closed_ms
        .and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default();
    let (archive, sha256) = match removal.kept {
        Some((place, kept)) => (place.to_owned(), hex::encode(kept.sha256)),
        None => (String::new(), String::new()),
    };
    let (events, chain) = (head.events.to_string(), head.chain.to_string());
    let pairs = [
        ("event", "removed"),
        ("session", &listed.session),
        ("agent", &listed.agent),
        ("target", &listed.target),
        ("by", removal.by),
        ("why", removal.why),
        ("user", removal.user.unwrap_or_default()),
        ("events", &events),
        ("chain", &chain),
        ("closed", &closed),
        ("archive", &archive),
        ("sha256", &sha256),
    ];
    notary.say(reader, &pairs, &[Line::Head(head)])?;
    Ok(())
}

/// How many events a session has, and the last one's chain. It must be its close.
fn end(reader: &mut Reader, session: &str) -> Result<End, ArchiveError> {
    Ok(last(reader, session)?.0)
}

/// The end of a session: as an archive has it, which counts events, and as hosts sign it,
/// where a gap counts for all that is missing.
fn last(reader: &mut Reader, session: &str) -> Result<(End, SessionHead), ArchiveError> {
    let key = reader.session_key(session);
    let last = reader.before(&key, None, 1)?.pop();
    let last = last.ok_or_else(|| stays(session, Stays::Unknown))?;
    if last.text("kind") != "close" {
        return Err(stays(session, Stays::Unfinished));
    }
    let Value::Int(events) = reader.run(cmd("XLEN").arg(&key))? else {
        return Err(stays(session, Stays::Unknown));
    };
    let end = End {
        events: u64::try_from(events).unwrap_or_default(),
        chain: last.text("chain"),
    };
    let head = head(session, &last, State::Removed)
        .ok_or_else(|| stays(session, Stays::Broken("its close is no event".to_owned())))?;
    Ok((end, head))
}

/// What is signed of a session that ends with this event.
pub(super) fn head(session: &str, last: &StreamEntry, state: State) -> Option<SessionHead> {
    let seq: u64 = last.text("seq").parse().ok()?;
    Some(SessionHead {
        session: Uuid::try_parse(session).ok()?,
        events: seq.saturating_add(1),
        chain: chain::Head::from_hex(last.text("chain").as_bytes())?,
        state,
    })
}

/// A session's entries of `sessions`, with the IDs that they had before any archive.
pub(super) fn entries(
    reader: &mut Reader,
    listed: &Listed,
) -> Result<Vec<StreamEntry>, ArchiveError> {
    let key = reader.key("sessions");
    let mut found = Vec::with_capacity(listed.entries.len());
    for id in &listed.entries {
        let mut page = reader.before(&key, Some(&just_behind(id)), 1)?;
        let Some(mut entry) = page.pop().filter(|entry| entry.id == *id) else {
            continue;
        };
        if let Some(at) = entry
            .fields
            .iter()
            .position(|(name, _)| name == ARCHIVED_ID)
        {
            entry.id = entry.text(ARCHIVED_ID);
            entry.fields.remove(at);
        }
        found.push(entry);
    }
    Ok(found)
}

/// The next possible ID.
fn just_behind(id: &str) -> String {
    let (millis, counter) = read::number(id);
    format!("{millis}-{}", counter.saturating_add(1))
}

pub(super) fn stays(session: &str, why: Stays) -> ArchiveError {
    ArchiveError::Stays {
        session: session.to_owned(),
        why,
    }
}

/// The time, as it is written.
pub(super) fn now() -> String {
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default()
}
