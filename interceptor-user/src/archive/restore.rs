//! A session back into Redis, byte for byte: its events under their IDs, and its entries of
//! `sessions` behind those that are there, with what their IDs were.
//!
//! The object is read twice: nothing of one that is no good comes into Redis. A session of
//! which a part is there is taken up where it stops; one that is another, not at all.

use std::sync::Arc;

use interceptor_engine::evidence::statement::{Line, State};
use redis::cmd;

use super::ArchiveError;
use super::format::{self, End, Reader as Object, Record};
use super::keep::{self, stays};
use super::ledger::{ARCHIVED_ID, Ledger, Stays};
use super::place::{Place, unread_of};
use crate::recorder::evidence::notary::Notary;
use crate::recorder::read::{Reader, StreamEntry};

/// Entries that are compared at a time.
const PAGE: usize = 256;

/// Brings a session back, and has `notary` sign that; without one, which is for a Redis that
/// this host does not record to, nobody does. Done again, it changes nothing.
///
/// # Errors
/// When it is not in the archive or no good there, or Redis has another.
pub fn restore(
    reader: &mut Reader,
    place: &Arc<Place>,
    session: &str,
    notary: Option<&mut Notary>,
) -> Result<End, ArchiveError> {
    let unread = |unread| unread_of(place.name(), session, unread);
    let (sha256, end) = format::check(place.read(session)?, session).map_err(unread)?;
    let ledger = Ledger::read(reader)?;
    let listed = ledger.of(session).cloned().unwrap_or_default();
    if !listed.entries.is_empty() && listed.closed_ms.is_none() && !listed.removed {
        return Err(stays(session, Stays::Open));
    }
    let key = reader.session_key(session);
    let mut object = Object::new(place.read(session)?, session).map_err(unread)?;
    let mut sessions = Vec::new();
    let mut there = There::default();
    let mut head = None;
    loop {
        match object.next_record().map_err(unread)? {
            Some(Record::Sessions(entry)) => sessions.push(entry),
            Some(Record::Event(entry)) => {
                match there.next(reader, &key)? {
                    Some(same) if same == entry => {}
                    Some(_) => return Err(differs(session)),
                    None => add(reader, &key, &entry.id, &entry, None)?,
                }
                head = keep::head(session, &entry, State::Restored);
            }
            Some(Record::End(_)) => break,
            None => return Err(differs(session)),
        }
    }
    if there.next(reader, &key)?.is_some() {
        return Err(differs(session));
    }
    let stream = reader.key("sessions");
    let here = keep::entries(reader, &listed)?;
    for entry in sessions {
        if !here.iter().any(|here| here.id == entry.id) {
            add(reader, &stream, "*", &entry, Some(&entry.id))?;
        }
    }
    if listed.removed || listed.entries.is_empty() {
        let sha256 = hex::encode(sha256);
        let pairs = [
            ("event", "restored"),
            ("session", session),
            ("archive", place.name()),
            ("sha256", &sha256),
        ];
        if let (Some(notary), Some(head)) = (notary, head) {
            notary.say(reader, &pairs, &[Line::Head(head)])?;
        } else {
            let mut say = cmd("XADD");
            say.arg(&stream).arg("*");
            for (name, value) in pairs {
                say.arg(name).arg(value);
            }
            reader.run(&say)?;
        }
    }
    Ok(end)
}

fn differs(session: &str) -> ArchiveError {
    ArchiveError::Differs {
        session: session.to_owned(),
        whereabouts: "in Redis",
    }
}

fn add(
    reader: &mut Reader,
    key: &str,
    id: &str,
    entry: &StreamEntry,
    before: Option<&str>,
) -> Result<(), ArchiveError> {
    let mut add = cmd("XADD");
    add.arg(key).arg(id);
    for (name, value) in &entry.fields {
        add.arg(name).arg(value);
    }
    if let Some(before) = before {
        add.arg(ARCHIVED_ID).arg(before);
    }
    reader.run(&add)?;
    Ok(())
}

/// What of the session is in Redis already, an entry at a time.
#[derive(Default)]
struct There {
    page: std::vec::IntoIter<StreamEntry>,
    after: Option<String>,
    over: bool,
}

impl There {
    fn next(
        &mut self,
        reader: &mut Reader,
        key: &str,
    ) -> Result<Option<StreamEntry>, ArchiveError> {
        if let Some(entry) = self.page.next() {
            self.after = Some(entry.id.clone());
            return Ok(Some(entry));
        }
        if self.over {
            return Ok(None);
        }
        let after = self.after.as_deref().unwrap_or("0-0");
        self.page = reader.after(key, after, PAGE)?.into_iter();
        let next = self.page.next();
        self.over = next.is_none();
        if let Some(entry) = &next {
            self.after = Some(entry.id.clone());
        }
        Ok(next)
    }
}
