//! The way back: recordings, a page at a time, wherever they are kept.
//!
//! [`Reader`] is what commands read with. Where the pages come from is behind
//! [`Source`]: [`redis`] has them while they are in Redis, and an archive when they are
//! there no more. Both know the same keys, entries and IDs.

mod redis;

use self::redis::FromRedis;
use super::Fault;
use crate::archive::ledger::ARCHIVED_ID;

/// Bytes of a page, about; a page holds at least one entry.
const PAGE_BYTES: usize = 4 << 20;

/// Entries of a first page, before their size is known.
const FIRST_PAGE: usize = 64;

/// Entries of any page.
const LARGEST_PAGE: usize = 4096;

/// Sessions that a message names when a name means several.
const NAMED: usize = 5;

/// An entry's ID and fields, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its ID in the stream.
    pub id: String,
    /// Its fields.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl StreamEntry {
    /// A field's text, or nothing.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map_or(String::new(), |(_, value)| {
            String::from_utf8_lossy(value).into_owned()
        })
    }
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The address is none.
    #[error(transparent)]
    Place(#[from] super::place::PlaceError),
    /// Redis does not answer as it should.
    #[error("{0}")]
    Redis(Fault),
    /// There is no such session.
    #[error("no session {0} is recorded here")]
    Unknown(String),
    /// Nothing is recorded at all.
    #[error("no session is recorded here")]
    Nothing,
    /// The name means more than one session.
    #[error("{wanted} is more than one session: {}{}", .found.join(", "), if *.more { ", …" } else { "" })]
    Ambiguous {
        /// The name.
        wanted: String,
        /// Some of them.
        found: Vec<String>,
        /// Whether there are others.
        more: bool,
    },
    /// An archive cannot be read.
    #[error(transparent)]
    Archive(Box<crate::archive::ArchiveError>),
    /// Only what is in Redis is still written to, or can be changed.
    #[error("an archive is what it is: this can be done with a Redis only")]
    AtRest,
    /// Redis answered with something that is not a stream's entries.
    #[error("Redis answered with something that is not a stream's entries")]
    Shape,
}

/// Where streams are read from. Keys are whole, prefix included; a key that is not
/// there is an empty stream.
pub trait Source: Send {
    /// Up to `count` entries after the one with ID `after`, oldest first.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn after(
        &mut self,
        key: &str,
        after: &str,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ReadError>;

    /// Up to `count` entries before the one with ID `before`, or the last ones,
    /// newest first.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn before(
        &mut self,
        key: &str,
        before: Option<&str>,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ReadError>;

    /// Waits for entries after `after`, up to a second.
    ///
    /// # Errors
    /// When the source cannot be read, or nothing ever comes to it.
    fn follow(&mut self, key: &str, after: &str) -> Result<Vec<StreamEntry>, ReadError>;

    /// Whether there is such a stream.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn has(&mut self, key: &str) -> Result<bool, ReadError>;

    /// Has a Redis do something.
    ///
    /// # Errors
    /// When it does not, or the source is none.
    fn run(&mut self, command: &::redis::Cmd) -> Result<::redis::Value, ReadError> {
        let _ = command;
        Err(ReadError::AtRest)
    }
}

/// Reads recordings.
pub struct Reader {
    source: Box<dyn Source>,
    prefix: String,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Connects to a Redis.
    ///
    /// # Errors
    /// A URL that is none, or a Redis that does not answer.
    pub fn open(url: &str, prefix: &str) -> Result<Self, ReadError> {
        Ok(Self::of(FromRedis::open(url)?, prefix))
    }

    /// Reads from somewhere else.
    #[must_use]
    pub fn of(source: impl Source + 'static, prefix: &str) -> Self {
        Self {
            source: Box::new(source),
            prefix: prefix.to_owned(),
        }
    }

    /// A stream's key.
    #[must_use]
    pub fn key(&self, stream: &str) -> String {
        format!("{}:{stream}", self.prefix)
    }

    /// The key of a session's recording.
    #[must_use]
    pub fn session_key(&self, session: &str) -> String {
        format!("{}:session:{{{session}}}", self.prefix)
    }

    /// Up to `count` entries after the one with ID `after`, oldest first.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn after(
        &mut self,
        key: &str,
        after: &str,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ReadError> {
        self.source.after(key, after, count)
    }

    /// Up to `count` entries before the one with ID `before`, newest first.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn before(
        &mut self,
        key: &str,
        before: Option<&str>,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ReadError> {
        self.source.before(key, before, count)
    }

    /// Waits for entries after `after`, up to a second.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn follow(&mut self, key: &str, after: &str) -> Result<Vec<StreamEntry>, ReadError> {
        self.source.follow(key, after)
    }

    /// The ID of a stream's last entry; `0-0` where there is none.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn last_id(&mut self, key: &str) -> Result<String, ReadError> {
        let last = self.before(key, None, 1)?;
        Ok(last
            .first()
            .map_or_else(|| "0-0".to_owned(), |entry| entry.id.clone()))
    }

    /// Has the Redis do something.
    ///
    /// # Errors
    /// When it does not, or recordings are read from elsewhere.
    pub fn run(&mut self, command: &::redis::Cmd) -> Result<::redis::Value, ReadError> {
        self.source.run(command)
    }

    /// Whether there is such a stream.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn has(&mut self, key: &str) -> Result<bool, ReadError> {
        self.source.has(key)
    }

    /// The session that `wanted` means: its id, `last`, or a beginning or end of an
    /// id that no other session has.
    ///
    /// # Errors
    /// When it means none, or more than one.
    pub fn resolve(&mut self, wanted: &str) -> Result<String, ReadError> {
        let wanted = wanted.to_ascii_lowercase();
        let is_id_like = wanted.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if wanted.is_empty() || (wanted != "last" && !is_id_like) {
            return Err(ReadError::Unknown(wanted));
        }
        if self.source.has(&self.session_key(&wanted))? {
            return Ok(wanted);
        }
        let key = self.key("sessions");
        let mut found: Vec<String> = Vec::new();
        let mut before = None;
        loop {
            let page = self.before(&key, before.as_deref(), 1000)?;
            let Some(oldest) = page.last() else { break };
            before = Some(oldest.id.clone());
            for entry in &page {
                if entry.text("event") != "open" {
                    continue;
                }
                let session = entry.text("session");
                // One that came back from an archive is not the last for that.
                let came_back = entry.fields.iter().any(|(name, _)| name == ARCHIVED_ID);
                if wanted == "last" && came_back {
                    continue;
                }
                if wanted == "last" {
                    return Ok(session);
                }
                let means = session.starts_with(&wanted) || session.ends_with(&wanted);
                if means && !found.contains(&session) {
                    found.push(session);
                }
            }
            if found.len() > NAMED {
                break;
            }
        }
        match (found.len(), found.pop()) {
            (1, Some(session)) => Ok(session),
            (0, _) if wanted == "last" => Err(ReadError::Nothing),
            (_, Some(last)) => {
                found.push(last);
                let more = found.len() > NAMED;
                found.truncate(NAMED);
                Err(ReadError::Ambiguous {
                    wanted,
                    found,
                    more,
                })
            }
            (_, None) => Err(ReadError::Unknown(wanted)),
        }
    }

    /// The sessions that opened at or after `since_ms` milliseconds since 1970, or
    /// all, oldest first.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn sessions_since(&mut self, since_ms: Option<u64>) -> Result<Vec<String>, ReadError> {
        let key = self.key("sessions");
        let mut after = format!("{}-0", since_ms.unwrap_or(0));
        let mut found = Vec::new();
        loop {
            let page = self.after(&key, &after, LARGEST_PAGE)?;
            let Some(last) = page.last() else {
                return Ok(found);
            };
            after.clone_from(&last.id);
            let opened = page.iter().filter(|entry| entry.text("event") == "open");
            found.extend(opened.map(|entry| entry.text("session")));
        }
    }

    /// A session's recording, from its beginning.
    #[must_use]
    pub fn session(&mut self, session: &str) -> Pages<'_> {
        self.session_behind(session, "0-0")
    }

    /// A session's recording, behind the entry with ID `after`.
    #[must_use]
    pub fn session_behind(&mut self, session: &str, after: &str) -> Pages<'_> {
        Pages {
            key: self.session_key(session),
            after: after.to_owned(),
            count: FIRST_PAGE,
            page: Vec::new().into_iter(),
            reader: self,
        }
    }
}

/// Pages of a stream; large entries make them shorter.
#[derive(Debug)]
pub struct Pages<'a> {
    reader: &'a mut Reader,
    key: String,
    after: String,
    count: usize,
    /// What [`Pages::next_entry`] has not given yet.
    page: std::vec::IntoIter<StreamEntry>,
}

/// An entry's ID in numbers, so that it can be compared: milliseconds since 1970, and a
/// counter. What is no ID is zero.
#[must_use]
pub fn number(id: &str) -> (u64, u64) {
    let (millis, counter) = id.split_once('-').unwrap_or((id, "0"));
    let read = |text: &str| text.parse().unwrap_or_default();
    (read(millis), read(counter))
}

impl Pages<'_> {
    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<StreamEntry>, ReadError> {
        if self.page.len() == 0 {
            self.page = self.next_page()?.into_iter();
        }
        Ok(self.page.next())
    }

    /// The next page; empty at the end. What [`Pages::next_entry`] read ahead is not in it.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn next_page(&mut self) -> Result<Vec<StreamEntry>, ReadError> {
        let page = self.reader.after(&self.key, &self.after, self.count)?;
        if let Some(last) = page.last() {
            self.after.clone_from(&last.id);
            let bytes: usize = page
                .iter()
                .flat_map(|entry| &entry.fields)
                .map(|(name, value)| name.len() + value.len())
                .sum();
            let each = (bytes / page.len()).max(1);
            // At most twice the last page, since what follows may be larger.
            self.count = (PAGE_BYTES / each).clamp(1, (2 * self.count).min(LARGEST_PAGE));
        }
        Ok(page)
    }

    /// What comes next, waiting for it up to a second.
    ///
    /// # Errors
    /// When the source cannot be read, or nothing ever comes to it.
    pub fn wait(&mut self) -> Result<Vec<StreamEntry>, ReadError> {
        let page = self.reader.follow(&self.key, &self.after)?;
        if let Some(last) = page.last() {
            self.after.clone_from(&last.id);
        }
        Ok(page)
    }
}
