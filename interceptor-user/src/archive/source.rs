//! An archive, read as if it were a Redis.
//!
//! A session's stream is unpacked from its object as it is paged through, from the front;
//! whoever asks for what lies further back reads the object again up to there. `sessions`
//! is put together from the beginnings of all objects, when it is asked for. Streams that
//! are not archived are empty.

use std::sync::Arc;

use interceptor_engine::event::opened_ms;

use super::ArchiveError;
use super::format::{Reader as Object, Record};
use super::place::{Download, Place, unread_of};
use crate::recorder::read::{ReadError, Source, StreamEntry, number};

impl From<ArchiveError> for ReadError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Unknown(session) => Self::Unknown(session),
            other => Self::Archive(Box::new(other)),
        }
    }
}

/// An archive.
pub struct FromArchive {
    place: Arc<Place>,
    prefix: String,
    /// Where the last reader of a session is.
    at: Option<At>,
    /// `sessions`, once it was asked for.
    sessions: Option<Vec<StreamEntry>>,
}

struct At {
    session: String,
    object: Object<Download>,
    /// The last entry that was read.
    last: String,
    /// The next one, which was not asked for yet.
    next: Option<StreamEntry>,
}

impl FromArchive {
    /// Reads from `place`; `prefix` is what keys begin with.
    #[must_use]
    pub fn new(place: Arc<Place>, prefix: &str) -> Self {
        Self {
            place,
            prefix: prefix.to_owned(),
            at: None,
            sessions: None,
        }
    }

    /// The session whose stream this is.
    fn session<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(self.prefix.as_str())?
            .strip_prefix(":session:{")?
            .strip_suffix('}')
    }

    fn is_sessions(&self, key: &str) -> bool {
        key.strip_prefix(self.prefix.as_str()) == Some(":sessions")
    }

    fn sessions(&mut self) -> Result<&[StreamEntry], ArchiveError> {
        if self.sessions.is_none() {
            let objects = self.place.sessions()?;
            let names: Vec<String> = objects.into_iter().map(|object| object.session).collect();
            let mut entries = Vec::new();
            for (name, head) in names.iter().zip(self.place.heads(&names)) {
                match head {
                    Ok(head) => entries.extend(head.sessions),
                    // The others can be looked at all the same.
                    Err(error) => entries.extend(no_good(name, &error)),
                }
            }
            entries.sort_by_cached_key(|entry| number(&entry.id));
            self.sessions = Some(entries);
        }
        Ok(self.sessions.as_deref().unwrap_or_default())
    }

    /// The first entry of a session behind `after`, where the reader is then.
    fn seek(&mut self, session: &str, after: &str) -> Result<&mut At, ArchiveError> {
        let wanted = number(after);
        let goes_on = self
            .at
            .as_ref()
            .is_some_and(|at| at.session == session && number(&at.last) <= wanted);
        if !goes_on {
            self.at = None;
            let object = Object::new(self.place.read(session)?, session)
                .map_err(|unread| unread_of(self.place.name(), session, unread))?;
            self.at = Some(At {
                session: session.to_owned(),
                object,
                last: "0-0".to_owned(),
                next: None,
            });
        }
        let at = self
            .at
            .as_mut()
            .ok_or_else(|| ArchiveError::Unknown(session.to_owned()))?;
        while let Some(entry) = at.take(&self.place)? {
            if number(&entry.id) > wanted {
                at.next = Some(entry);
                break;
            }
            at.last = entry.id;
        }
        Ok(at)
    }
}

impl At {
    /// The next entry, which is then the last that was read.
    fn take(&mut self, place: &Place) -> Result<Option<StreamEntry>, ArchiveError> {
        if let Some(entry) = self.next.take() {
            return Ok(Some(entry));
        }
        loop {
            let record = self.object.next_record();
            match record.map_err(|unread| unread_of(place.name(), &self.session, unread))? {
                Some(Record::Sessions(_)) => {}
                Some(Record::Event(entry)) => return Ok(Some(entry)),
                Some(Record::End(_)) | None => return Ok(None),
            }
        }
    }
}

impl Source for FromArchive {
    fn after(
        &mut self,
        key: &str,
        after: &str,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ReadError> {
        if self.is_sessions(key) {
            let all = self.sessions()?;
            let from = all.partition_point(|entry| number(&entry.id) <= number(after));
            let rest = all.get(from..).unwrap_or_default();
            // Two Redis may have given the same ID; none may be lost between pages.
            let mut page = rest.iter().take(count).cloned().collect::<Vec<_>>();
            let last = page.last().map(|entry| number(&entry.id));
            let same = rest.iter().skip(page.len());
            let same = same.take_while(|entry| Some(number(&entry.id)) == last);
            page.extend(same.cloned().collect::<Vec<_>>());
            return Ok(page);
        }
        let Some(session) = self.session(key) else {
            return Ok(Vec::new());
        };
        let session = session.to_owned();
        let place = Arc::clone(&self.place);
        let at = match self.seek(&session, after) {
            Err(ArchiveError::Unknown(_)) => return Ok(Vec::new()),
            other => other?,
        };
        let mut page = Vec::new();
        while page.len() < count
            && let Some(entry) = at.take(&place)?
        {
            at.last.clone_from(&entry.id);
            page.push(entry);
        }
        Ok(page)
    }

    fn before(
        &mut self,
        key: &str,
        before: Option<&str>,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ReadError> {
        let is_before =
            |entry: &StreamEntry| before.is_none_or(|before| number(&entry.id) < number(before));
        if self.is_sessions(key) {
            let all = self.sessions()?;
            let until = all.partition_point(is_before);
            let rest = all.get(..until).unwrap_or_default();
            let mut page = rest.iter().rev().take(count).cloned().collect::<Vec<_>>();
            let last = page.last().map(|entry| number(&entry.id));
            let same = rest.iter().rev().skip(page.len());
            let same = same.take_while(|entry| Some(number(&entry.id)) == last);
            page.extend(same.cloned().collect::<Vec<_>>());
            return Ok(page);
        }
        // From the front, for there is no other way; what is kept is what was asked for.
        let mut kept = std::collections::VecDeque::new();
        let mut after = "0-0".to_owned();
        loop {
            let page = self.after(key, &after, 256)?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.id);
            let whole = page.len();
            let fit = page.into_iter().take_while(is_before);
            let mut seen = 0;
            for entry in fit {
                seen += 1;
                kept.push_back(entry);
                if kept.len() > count {
                    kept.pop_front();
                }
            }
            if seen < whole {
                break;
            }
        }
        Ok(kept.into_iter().rev().collect())
    }

    fn follow(&mut self, _: &str, _: &str) -> Result<Vec<StreamEntry>, ReadError> {
        Err(ReadError::AtRest)
    }

    fn has(&mut self, key: &str) -> Result<bool, ReadError> {
        match self.session(key) {
            Some(session) => Ok(self.place.has(session)?.is_some()),
            None if self.is_sessions(key) => Ok(!self.place.sessions()?.is_empty()),
            None => Ok(false),
        }
    }
}

/// What stands in the list for an object that cannot be read.
fn no_good(session: &str, error: &ArchiveError) -> [StreamEntry; 2] {
    let opened = opened_ms(session.parse().unwrap_or_default());
    ["open", "close"].map(|event| StreamEntry {
        id: format!("{opened}-{}", u8::from(event == "close")),
        fields: [
            ("event", event),
            ("session", session),
            ("verdict", "damaged"),
            ("line", &error.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .into(),
    })
}
