//! Where an archive is: a folder, or a bucket of S3.
//!
//! A session is one object, `sessions/YYYY/MM/DD/ID.zst` by the day on which it opened. An
//! object is there whole or not at all: in a folder it is written under another name, brought
//! to the disk and renamed; in S3, parts become an object when all of them are there.
//!
//! Blocking, on a runtime of its own, as the client of Redis is that it is used with: not
//! for threads that serve flows.

use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload,
};
use tokio::runtime::Runtime;
use uuid::Uuid;

use interceptor_engine::event::opened_ms;

use super::ArchiveError;
use super::format::{Fetch, Head, Reader, Record, Unread};
use crate::config::ArchiveTo;
use crate::recorder::read::StreamEntry;

/// Bytes of a part; S3 takes 10 000 parts of an object, so it is of 80 GiB at most.
const PART: usize = 8 << 20;
/// Enough of an object to read its beginning.
const BEGINNING: u64 = 64 << 10;
/// Beginnings that are read at once.
const AT_ONCE: usize = 16;
/// The end of an object's name.
const ENDING: &str = ".zst";
/// Letters of a store's error that are told.
const TOLD: usize = 300;

/// An archive that is open.
pub struct Place {
    store: Arc<dyn ObjectStore>,
    root: Path,
    runtime: Runtime,
    name: String,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.name).finish()
    }
}

/// An object of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The session.
    pub session: String,
    /// Its size.
    pub bytes: u64,
}

impl Place {
    /// Opens one. A folder is made where there is none.
    ///
    /// # Errors
    /// When it is no place for an archive, or cannot be used.
    pub fn open(at: &ArchiveTo) -> Result<Self, ArchiveError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let url = at.url.as_str();
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, root) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(ArchiveError::Place(url.to_owned()));
            }
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            if let Some(region) = &at.region {
                builder = builder.with_region(region);
            }
            if let Some(endpoint) = &at.endpoint {
                builder = builder
                    .with_endpoint(endpoint)
                    .with_allow_http(endpoint.starts_with("http://"));
            }
            if let Some((id, key)) = &at.key {
                let secret = |reference| runtime.block_on(crate::secrets::resolve(reference));
                builder = builder
                    .with_access_key_id(secret(id)?.expose())
                    .with_secret_access_key(secret(key)?.expose());
            }
            let store = builder.build().map_err(|error| told(url, &error))?;
            return Ok(Self {
                store: Arc::new(store),
                root: Path::parse(root.trim_end_matches('/'))
                    .map_err(|_| ArchiveError::Place(url.to_owned()))?,
                runtime,
                name: url.to_owned(),
            });
        }
        let folder = folder(url).ok_or_else(|| ArchiveError::Place(url.to_owned()))?;
        // For our eyes only, whatever the folder above is: what is in it was said in sessions.
        let sessions = folder.join("sessions");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&sessions)
            .map_err(|error| ArchiveError::Store {
                place: sessions.display().to_string(),
                why: error.to_string(),
            })?;
        let store = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| told(url, &error))?
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            root: Path::default(),
            runtime,
            name: url.to_owned(),
        })
    }

    /// Where it is, as it was configured.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a session is there, and how large.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn has(&self, session: &str) -> Result<Option<u64>, ArchiveError> {
        let Ok(path) = self.path(session) else {
            return Ok(None);
        };
        match self.runtime.block_on(self.store.head(&path)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(told(&self.name, &error)),
        }
    }

    /// Begins a session's object; there is none before [`Upload::finish`].
    ///
    /// # Errors
    /// When the id is none.
    pub fn create(&self, session: &str) -> Result<Upload<'_>, ArchiveError> {
        Ok(Upload {
            place: self,
            path: self.path(session)?,
            buffer: Vec::new(),
            parts: None,
        })
    }

    /// Reads a session's object from its beginning.
    ///
    /// # Errors
    /// When it is not there, or the store does not answer.
    pub fn read(self: &Arc<Self>, session: &str) -> Result<Download, ArchiveError> {
        let path = self.path(session)?;
        match self.runtime.block_on(self.store.get(&path)) {
            Ok(found) => Ok(Download {
                place: Arc::clone(self),
                stream: found.into_stream(),
                chunk: Bytes::new(),
            }),
            Err(object_store::Error::NotFound { .. }) => {
                Err(ArchiveError::Unknown(session.to_owned()))
            }
            Err(error) => Err(told(&self.name, &error)),
        }
    }

    /// Every session that is there, in the order in which they opened.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn sessions(&self) -> Result<Vec<Object>, ArchiveError> {
        let root = self.root.clone().join("sessions");
        let mut found: Vec<Object> = self
            .runtime
            .block_on(
                self.store
                    .list(Some(&root))
                    .try_filter_map(async |meta| Ok(object(&meta)))
                    .try_collect(),
            )
            .map_err(|error| told(&self.name, &error))?;
        found.sort_by(|a, b| a.session.cmp(&b.session));
        Ok(found)
    }

    /// The beginnings of these sessions' objects, in their order. What is no good is in its
    /// place as the reason.
    pub fn heads(self: &Arc<Self>, sessions: &[String]) -> Vec<Result<Beginning, ArchiveError>> {
        let fetched: Vec<_> = self.runtime.block_on(
            futures_util::stream::iter(sessions)
                .map(|session| self.beginning(session))
                .buffered(AT_ONCE)
                .collect(),
        );
        let read = |(session, bytes): (&String, Result<Bytes, ArchiveError>)| {
            match beginning(bytes?.reader(), session) {
                // It is longer than most, or damaged: all of it says which.
                Err(Unread::Fault(_)) => beginning(self.read(session)?, session)
                    .map_err(|unread| unread_of(&self.name, session, unread)),
                other => other.map_err(|unread| unread_of(&self.name, session, unread)),
            }
        };
        sessions.iter().zip(fetched).map(read).collect()
    }

    async fn beginning(&self, session: &str) -> Result<Bytes, ArchiveError> {
        let path = self.path(session)?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..BEGINNING)),
            ..GetOptions::default()
        };
        match self.store.get_opts(&path, options).await {
            Ok(found) => found
                .bytes()
                .await
                .map_err(|error| told(&self.name, &error)),
            Err(object_store::Error::NotFound { .. }) => {
                Err(ArchiveError::Unknown(session.to_owned()))
            }
            Err(error) => Err(told(&self.name, &error)),
        }
    }

    /// `sessions/2026/11/30/ID.zst`
    fn path(&self, session: &str) -> Result<Path, ArchiveError> {
        let unknown = || ArchiveError::Unknown(session.to_owned());
        let id: Uuid = session.parse().map_err(|_| unknown())?;
        // One name for one session.
        if id.to_string() != session {
            return Err(unknown());
        }
        let seconds = i64::try_from(opened_ms(id) / 1000).unwrap_or_default();
        let day = time::OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|_| unknown())?
            .date();
        let (year, month, day) = day.to_calendar_date();
        Ok(self
            .root
            .clone()
            .join("sessions")
            .join(format!("{year:04}"))
            .join(format!("{:02}", u8::from(month)))
            .join(format!("{day:02}"))
            .join(format!("{session}{ENDING}")))
    }
}

/// What an object begins with.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// Its first record.
    pub head: Head,
    /// The session's entries of `sessions`.
    pub sessions: Vec<StreamEntry>,
}

fn beginning(from: impl Read, session: &str) -> Result<Beginning, Unread> {
    let mut reader = Reader::new(from, session)?;
    let mut sessions = Vec::new();
    while let Some(Record::Sessions(entry)) = reader.next_record()? {
        sessions.push(entry);
    }
    Ok(Beginning {
        head: reader.head().clone(),
        sessions,
    })
}

/// Says whose fault it was.
pub(super) fn unread_of(place: &str, session: &str, unread: Unread) -> ArchiveError {
    match unread {
        Unread::Fault(why) => ArchiveError::Broken {
            session: session.to_owned(),
            why,
        },
        Unread::Io(error) => ArchiveError::Store {
            place: place.to_owned(),
            why: error.to_string(),
        },
    }
}

/// A folder's path: as it is, or as `file:///path`.
pub(crate) fn folder(url: &str) -> Option<PathBuf> {
    match url.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => Some(PathBuf::from(path)),
        Some(_) => None,
        None if url.is_empty() || url.contains("://") => None,
        None => Some(PathBuf::from(url)),
    }
}

fn object(meta: &object_store::ObjectMeta) -> Option<Object> {
    let session = meta.location.filename()?.strip_suffix(ENDING)?;
    let id: Uuid = session.parse().ok()?;
    (id.to_string() == session).then(|| Object {
        session: session.to_owned(),
        bytes: meta.size,
    })
}

/// A store's error without what a server said in its own words, which may name a key.
fn told(place: &str, error: &object_store::Error) -> ArchiveError {
    let why = match error {
        object_store::Error::NotFound { .. } => "it is not there".to_owned(),
        object_store::Error::PermissionDenied { .. } => "it may not be used like this".to_owned(),
        object_store::Error::Unauthenticated { .. } => {
            "the credentials are missing or wrong".to_owned()
        }
        other => {
            let text = other.to_string();
            let text = text.split('<').next().unwrap_or_default();
            text.chars().take(TOLD).collect()
        }
    };
    ArchiveError::Store {
        place: place.to_owned(),
        why,
    }
}

fn through_io(place: &str, error: &object_store::Error) -> io::Error {
    io::Error::other(Fetch(told(place, error).to_string()))
}

/// An object that is being written.
pub struct Upload<'a> {
    place: &'a Place,
    path: Path,
    buffer: Vec<u8>,
    /// Nothing while all of it fits into one part.
    parts: Option<Box<dyn MultipartUpload>>,
}

impl Upload<'_> {
    fn part(&mut self) -> io::Result<()> {
        let payload = PutPayload::from(std::mem::take(&mut self.buffer));
        let place = self.place;
        let sent = place.runtime.block_on(async {
            let parts = match &mut self.parts {
                Some(parts) => parts,
                None => {
                    let begun = place.store.put_multipart(&self.path).await?;
                    self.parts.insert(begun)
                }
            };
            parts.put_part(payload).await
        });
        sent.map_err(|error| through_io(&place.name, &error))
    }

    /// What was written becomes an object, in the place of one that was there.
    ///
    /// # Errors
    /// When it does not; there is none then.
    pub fn finish(mut self) -> Result<(), ArchiveError> {
        let place = self.place;
        let Some(mut parts) = self.parts.take() else {
            let payload = PutPayload::from(std::mem::take(&mut self.buffer));
            let put = place.runtime.block_on(place.store.put(&self.path, payload));
            return put.map(drop).map_err(|error| told(&place.name, &error));
        };
        let last = PutPayload::from(std::mem::take(&mut self.buffer));
        let done = place.runtime.block_on(async {
            let done = async {
                if last.content_length() > 0 {
                    parts.put_part(last).await?;
                }
                parts.complete().await
            };
            let done = done.await;
            if done.is_err() {
                let _ = parts.abort().await;
            }
            done
        });
        done.map(drop).map_err(|error| told(&place.name, &error))
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PART - self.buffer.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() == PART {
            self.part()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Upload<'_> {
    /// Parts of what was given up are taken away, as far as the store lets itself be told.
    fn drop(&mut self) {
        if let Some(mut parts) = self.parts.take() {
            let _ = self.place.runtime.block_on(parts.abort());
        }
    }
}

/// An object that is being read.
pub struct Download {
    place: Arc<Place>,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl Read for Download {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.place.runtime.block_on(self.stream.next()) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(through_io(&self.place.name, &error)),
                None => return Ok(0),
            }
        }
        let count = self.chunk.len().min(into.len());
        self.chunk
            .split_to(count)
            .copy_to_slice(into.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &std::path::Path) -> Arc<Place> {
        let at = ArchiveTo::of(folder.to_str().unwrap());
        Arc::new(Place::open(&at).unwrap())
    }

    #[test]
    fn an_object_is_there_when_it_is_finished_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let place = open(folder.path());
        let session = Uuid::now_v7().to_string();
        let bytes: Vec<u8> = (0..PART + 5_000_000).map(|n| (n % 251) as u8).collect();
        let mut given_up = place.create(&session).unwrap();
        given_up.write_all(&bytes).unwrap();
        assert_eq!(place.sessions().unwrap(), []);
        assert_eq!(place.has(&session).unwrap(), None);
        drop(given_up);
        let left = walk(folder.path());
        assert_eq!(left, [""; 0], "what was given up is taken away");

        let mut upload = place.create(&session).unwrap();
        upload.write_all(&bytes).unwrap();
        upload.finish().unwrap();
        let mut read = Vec::new();
        place
            .read(&session)
            .unwrap()
            .read_to_end(&mut read)
            .unwrap();
        assert!(read == bytes);
        let found = place.sessions().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].bytes, bytes.len() as u64);
    }

    fn walk(folder: &std::path::Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![folder.to_owned()];
        while let Some(path) = open.pop() {
            for entry in std::fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push(path.display().to_string());
                }
            }
        }
        found
    }

    #[test]
    fn names_that_are_no_session_s_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let place = open(folder.path());
        for name in ["", "last", "../../../etc/passwd", "{0}"] {
            assert!(matches!(place.read(name), Err(ArchiveError::Unknown(_))));
            assert_eq!(place.has(name).unwrap(), None);
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for url in ["", "s3://", "ftp://there", "file://there"] {
            let opened = Place::open(&ArchiveTo::of(url));
            assert!(matches!(opened, Err(ArchiveError::Place(_))), "{url}");
        }
    }

    #[test]
    fn others_cannot_look_into_the_folder() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let _place = open(folder.path());
        let mode = std::fs::metadata(folder.path().join("sessions"));
        assert_eq!(mode.unwrap().permissions().mode() & 0o777, 0o700);
    }
}
