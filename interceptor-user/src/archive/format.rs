//! What an archived session looks like.
//!
//! An object is one zstd frame, and in it are records in Redis's own wire format: arrays
//! of bulk strings (RESP2).
//!
//! ```text
//! interceptor-archive  1  {"session": …, "archived": …, "host": …, "version": …}
//! sessions  ENTRY-ID  field  value  …          the session's entries of `sessions`
//! event     ENTRY-ID  field  value  …          its events, from the first to the last
//! end       EVENTS  CHAIN  SHA-256             how many, the last one's chain, and the hash
//!                                              of all bytes of the records before this one
//! ```
//!
//! An object without its `end`, or with anything behind it, is not whole. A version that is
//! not known is refused: what a later one adds may matter.
//!
//! An archive may lie where others write, so a reader believes no length and no window.

use std::io::{self, BufRead, BufReader, Read, Write};

use interceptor_engine::chain::{Broken, Check};
use interceptor_engine::replay::Raw;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::recorder::read::StreamEntry;

/// The version that is written.
pub const VERSION: &str = "1";
const MAGIC: &[u8] = b"interceptor-archive";

/// Redis holds no longer string.
const LONGEST: u64 = 512 << 20;
/// Parts of a record, at most, and what they may take together: no event has more than one
/// string of the longest kind, and what else it has is small beside it.
const MOST: u64 = 4096;
const LARGEST: u64 = LONGEST + (64 << 20);
/// zstd's own default; recordings are text.
const LEVEL: i32 = 3;
/// Memory that a frame may ask of its reader, as a power of two.
const WINDOW_LOG: u32 = 27;

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is none of ours.
    #[error("it is no archive of a session")]
    Foreign,
    /// It was written by a later program.
    #[error("its format has version {0:?}, and this program knows version 1")]
    Version(String),
    /// It stops, or cannot be unpacked.
    #[error("it ends too early or is damaged")]
    Cut,
    /// A record is not in the format.
    #[error("a record in it is not in the format")]
    Shape,
    /// It is of another session than its name says.
    #[error("it is the recording of session {0}")]
    OtherSession(String),
    /// The hash at its end is another.
    #[error("its bytes do not give the hash at its end")]
    Hash,
    /// There are more or fewer events than its end says.
    #[error("it has {found} events, and its end says {told}")]
    Count {
        /// How many there are.
        found: u64,
        /// How many there should be.
        told: u64,
    },
    /// Something stands behind its end.
    #[error("something stands behind its end")]
    Behind,
    /// The recording in it is not as it was recorded.
    #[error("{0}")]
    Recording(Broken),
    /// What the store has is not what was written to it.
    #[error("the store gives back other bytes than it was given")]
    NotAsWritten,
}

/// The beginning of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The session's id.
    pub session: String,
    /// When it was archived (RFC 3339).
    pub archived: String,
    /// The host that did it.
    #[serde(default)]
    pub host: String,
    /// The program's version.
    #[serde(default)]
    pub version: String,
}

/// The end of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How many events there are.
    pub events: u64,
    /// The last one's chain; empty where there is none.
    pub chain: String,
}

/// A record after the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry of `sessions`.
    Sessions(StreamEntry),
    /// An event.
    Event(StreamEntry),
    /// The end, which is right.
    End(End),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the object.
    pub sha256: [u8; 32],
    /// Its size.
    pub bytes: u64,
    /// Its end.
    pub end: End,
}

/// Counts and hashes what goes through.
pub struct Hashing<T> {
    inner: T,
    sha: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            sha: Sha256::new(),
            bytes: 0,
        }
    }

    fn saw(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(bytes)?;
        self.saw(bytes.get(..done).unwrap_or_default());
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let done = self.inner.read(into)?;
        self.saw(into.get(..done).unwrap_or_default());
        Ok(done)
    }
}

/// Writes an object.
pub struct Writer<W: Write> {
    out: zstd::Encoder<'static, Hashing<W>>,
    plain: Sha256,
    record: Vec<u8>,
    events: u64,
    chain: String,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(inner: W, head: &Head) -> io::Result<Self> {
        let mut out = zstd::Encoder::new(Hashing::new(inner), LEVEL)?;
        out.include_checksum(true)?;
        let mut writer = Self {
            out,
            plain: Sha256::new(),
            record: Vec::new(),
            events: 0,
            chain: String::new(),
        };
        let head = serde_json::to_vec(head)?;
        writer.record([MAGIC, VERSION.as_bytes(), &head].into_iter())?;
        Ok(writer)
    }

    /// Writes the session's entries of `sessions`. They can be read when no more of the
    /// object is known than its first few blocks.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn sessions(&mut self, entries: &[StreamEntry]) -> io::Result<()> {
        for entry in entries {
            self.entry(b"sessions", entry)?;
        }
        self.out.flush()
    }

    /// Writes the next event.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, entry: &StreamEntry) -> io::Result<()> {
        self.entry(b"event", entry)?;
        self.events += 1;
        self.chain = entry.text("chain");
        Ok(())
    }

    /// Writes the end. What it was written to is whole then, and is given back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<(W, Written)> {
        let end = End {
            events: self.events,
            chain: std::mem::take(&mut self.chain),
        };
        let sha = hex::encode(self.plain.clone().finalize());
        let events = end.events.to_string();
        let parts = [
            &b"end"[..],
            events.as_bytes(),
            end.chain.as_bytes(),
            sha.as_bytes(),
        ];
        self.record(parts.into_iter())?;
        let hashing = self.out.finish()?;
        let written = Written {
            sha256: hashing.sha.finalize().into(),
            bytes: hashing.bytes,
            end,
        };
        Ok((hashing.inner, written))
    }

    fn entry(&mut self, kind: &'static [u8], entry: &StreamEntry) -> io::Result<()> {
        let flat = entry
            .fields
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.as_slice()]);
        let count = 2 + 2 * entry.fields.len();
        self.parts(count, [kind, entry.id.as_bytes()].into_iter().chain(flat))
    }

    fn record<'a>(&mut self, parts: impl ExactSizeIterator<Item = &'a [u8]>) -> io::Result<()> {
        self.parts(parts.len(), parts)
    }

    fn parts<'a>(&mut self, count: usize, parts: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        self.record.clear();
        write!(self.record, "*{count}\r\n")?;
        for part in parts {
            write!(self.record, "${}\r\n", part.len())?;
            self.record.extend_from_slice(part);
            self.record.extend_from_slice(b"\r\n");
        }
        self.plain.update(&self.record);
        self.out.write_all(&self.record)?;
        if self.record.capacity() > 8 << 20 {
            self.record = Vec::new();
        }
        Ok(())
    }
}

/// Why an object cannot be read further.
#[derive(Debug)]
pub enum Unread {
    /// It is not what it should be.
    Fault(Fault),
    /// It could not be fetched.
    Io(io::Error),
}

impl From<Fault> for Unread {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Reads an object, a record at a time.
pub struct Reader<R: Read> {
    input: BufReader<zstd::Decoder<'static, BufReader<Hashing<R>>>>,
    head: Head,
    plain: Sha256,
    record: Vec<u8>,
    events: u64,
    chain: String,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of the object of `session`.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(inner: R, session: &str) -> Result<Self, Unread> {
        let mut decoder = zstd::Decoder::new(Hashing::new(inner)).map_err(Unread::Io)?;
        decoder.window_log_max(WINDOW_LOG).map_err(Unread::Io)?;
        let mut reader = Self {
            // Exactly one frame: what stands behind it is not unpacked, and found at the end.
            input: BufReader::new(decoder.single_frame()),
            head: Head {
                session: String::new(),
                archived: String::new(),
                host: String::new(),
                version: String::new(),
            },
            plain: Sha256::new(),
            record: Vec::new(),
            events: 0,
            chain: String::new(),
            ended: false,
        };
        let parts = match reader.parts() {
            Err(Unread::Fault(Fault::Shape)) => return Err(Fault::Foreign.into()),
            other => other?,
        };
        let [magic, version, head] = parts.as_slice() else {
            return Err(Fault::Foreign.into());
        };
        if magic != MAGIC {
            return Err(Fault::Foreign.into());
        }
        if version != VERSION.as_bytes() {
            let version = String::from_utf8_lossy(version).chars().take(20).collect();
            return Err(Fault::Version(version).into());
        }
        reader.head = serde_json::from_slice(head).map_err(|_| Fault::Shape)?;
        if reader.head.session != session {
            let other = reader.head.session.chars().take(40).collect();
            return Err(Fault::OtherSession(other).into());
        }
        Ok(reader)
    }

    /// Its beginning.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next record; nothing behind the end.
    ///
    /// # Errors
    /// When the object is not what was written.
    pub fn next_record(&mut self) -> Result<Option<Record>, Unread> {
        if self.ended {
            return Ok(None);
        }
        let before = self.plain.clone();
        let mut parts = self.parts()?.into_iter();
        let (Some(kind), Some(second)) = (parts.next(), parts.next()) else {
            return Err(Fault::Shape.into());
        };
        let second = String::from_utf8(second).map_err(|_| Fault::Shape)?;
        match kind.as_slice() {
            b"sessions" if self.events == 0 => Ok(Some(Record::Sessions(entry(second, parts)?))),
            b"event" => {
                let entry = entry(second, parts)?;
                self.events += 1;
                self.chain = entry.text("chain");
                Ok(Some(Record::Event(entry)))
            }
            b"end" => {
                let (Some(chain), Some(sha), None) = (parts.next(), parts.next(), parts.next())
                else {
                    return Err(Fault::Shape.into());
                };
                if sha != hex::encode(before.finalize()).as_bytes() {
                    return Err(Fault::Hash.into());
                }
                let told = second.parse().map_err(|_| Fault::Shape)?;
                if told != self.events {
                    let found = self.events;
                    return Err(Fault::Count { found, told }.into());
                }
                if chain != self.chain.as_bytes() {
                    return Err(Fault::Shape.into());
                }
                self.expect_nothing()?;
                self.ended = true;
                let (events, chain) = (self.events, std::mem::take(&mut self.chain));
                Ok(Some(Record::End(End { events, chain })))
            }
            _ => Err(Fault::Shape.into()),
        }
    }

    /// SHA-256 of the object, once its end was read.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let hashing = self.input.get_ref().get_ref().get_ref();
        hashing.sha.clone().finalize().into()
    }

    /// Nothing is left in the frame, whose checksum is right then, and nothing behind it.
    fn expect_nothing(&mut self) -> Result<(), Unread> {
        if !self.input.fill_buf().map_err(unread)?.is_empty() {
            return Err(Fault::Behind.into());
        }
        let raw = self.input.get_mut().get_mut();
        match raw.fill_buf().map_err(Unread::Io)? {
            [] => Ok(()),
            _ => Err(Fault::Behind.into()),
        }
    }

    fn parts(&mut self) -> Result<Vec<Vec<u8>>, Unread> {
        let count = self.number(b'*')?;
        if count > MOST {
            return Err(Fault::Shape.into());
        }
        let mut parts = Vec::new();
        let mut room = LARGEST;
        for _ in 0..count {
            let len = self.number(b'$')?;
            if len > LONGEST || len > room {
                return Err(Fault::Shape.into());
            }
            room -= len;
            let mut part = Vec::new();
            // Grows with what comes, not with what is said.
            let read = (&mut self.input).take(len + 2).read_to_end(&mut part);
            if read.map_err(unread)? as u64 != len + 2 {
                return Err(Fault::Cut.into());
            }
            self.plain.update(&part);
            if !part.ends_with(b"\r\n") {
                return Err(Fault::Shape.into());
            }
            part.truncate(part.len() - 2);
            parts.push(part);
        }
        Ok(parts)
    }

    /// `*12\r\n`
    fn number(&mut self, mark: u8) -> Result<u64, Unread> {
        self.record.clear();
        let read = (&mut self.input)
            .take(20)
            .read_until(b'\n', &mut self.record);
        if read.map_err(unread)? == 0 {
            return Err(Fault::Cut.into());
        }
        self.plain.update(&self.record);
        let digits = self
            .record
            .strip_prefix(&[mark])
            .and_then(|rest| rest.strip_suffix(b"\r\n"))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok());
        Ok(number.ok_or(Fault::Shape)?)
    }
}

/// What zstd finds wrong is `Other` or an early end; what the store does is told as it is.
fn unread(error: io::Error) -> Unread {
    match error.kind() {
        io::ErrorKind::Other if error.get_ref().is_none_or(|inner| !inner.is::<Fetch>()) => {
            Unread::Fault(Fault::Cut)
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Unread::Fault(Fault::Cut),
        _ => Unread::Io(error),
    }
}

/// A store's error, on its way through what only knows [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fetch(pub String);

fn entry(
    id: String,
    mut parts: impl ExactSizeIterator<Item = Vec<u8>>,
) -> Result<StreamEntry, Fault> {
    let mut fields = Vec::with_capacity(parts.len() / 2);
    while let Some(name) = parts.next() {
        let value = parts.next().ok_or(Fault::Shape)?;
        let name = String::from_utf8(name).map_err(|_| Fault::Shape)?;
        fields.push((name, value));
    }
    Ok(StreamEntry { id, fields })
}

/// Reads a whole object, and checks the recording in it as well.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(inner: impl Read, session: &str) -> Result<([u8; 32], End), Unread> {
    let mut reader = Reader::new(inner, session)?;
    let mut chain = Check::default();
    loop {
        match reader.next_record()? {
            Some(Record::Sessions(_)) => {}
            Some(Record::Event(entry)) => {
                let raw = Raw::from_fields(entry.fields);
                chain
                    .event(&raw.stored(session))
                    .map_err(Fault::Recording)?;
            }
            Some(Record::End(end)) => return Ok((reader.sha256(), end)),
            None => return Err(Fault::Cut.into()),
        }
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
