//! What a process that died left in its folder: frames to send on, and sessions that
//! nobody ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::folder::{Bad as BadFolder, Folder};
use super::frame::{Bad, Frame, Note};
use super::segment::Segment;

/// A dead process's spool, read from its beginning.
#[derive(Debug)]
pub(in super::super) struct Left {
    folder: Folder,
    segments: std::vec::IntoIter<Segment>,
    current: Option<Segment>,
    at: u64,
    last: Option<u64>,
    open: BTreeMap<Uuid, Note>,
    closed: BTreeSet<Uuid>,
    buffer: Vec<u8>,
    /// A frame that was found behind something that is missing.
    ahead: Option<Frame>,
    /// On disk.
    pub(in super::super) bytes: u64,
}

/// What comes next in it.
#[derive(Debug)]
pub(in super::super) enum Item {
    /// A frame.
    Frame(Box<Frame>),
    /// Something that cannot be read.
    Damage(Damage),
    /// Nothing more.
    End,
}

/// What cannot be read in a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Damage {
    /// The segment.
    pub(in super::super) segment: PathBuf,
    /// Where in it, in bytes.
    pub(in super::super) at: u64,
    /// Bytes that could not be read; 0 where whole frames are not there.
    pub(in super::super) bytes: u64,
    /// Frames that are missing for certain.
    pub(in super::super) frames: u64,
    /// It is the end of the last segment: what was being written when the process
    /// died, which nobody was told to be safe.
    pub(in super::super) torn_tail: bool,
}

impl Left {
    /// Takes over what dead processes left below `spool`, oldest first; and which of it
    /// cannot be, which keeps the rest from nothing.
    pub(in super::super) fn behind(spool: &Path) -> io::Result<(Vec<Self>, Vec<BadFolder>)> {
        let (folders, mut bad) = Folder::left_behind(spool)?;
        let mut left = Vec::new();
        for folder in folders {
            let path = folder.path.clone();
            match Self::open(folder) {
                Ok(one) => left.push(one),
                Err(error) => bad.push(BadFolder { path, error }),
            }
        }
        Ok((left, bad))
    }

    fn open(folder: Folder) -> io::Result<Self> {
        let segments = Segment::all(&folder.path)?;
        let bytes = segments.iter().map(|segment| segment.size).sum();
        let mut segments = segments.into_iter();
        Ok(Self {
            current: segments.next(),
            segments,
            folder,
            at: 0,
            last: None,
            open: BTreeMap::new(),
            closed: BTreeSet::new(),
            buffer: Vec::new(),
            ahead: None,
            bytes,
        })
    }

    /// Who wrote it.
    pub(in super::super) fn writer(&self) -> Uuid {
        self.folder.writer
    }

    /// The next frame, or what is wrong.
    pub(in super::super) fn next(&mut self) -> io::Result<Item> {
        if let Some(frame) = self.ahead.take() {
            return Ok(self.take(frame));
        }
        while let Some(segment) = &self.current {
            let at = self.at;
            match segment.read(at, &mut self.buffer)? {
                Ok(frame) => {
                    self.at = at.saturating_add(frame.length);
                    let expected = self.last.map(|last| last.saturating_add(1));
                    if let Some(expected) = expected
                        && frame.number > expected
                    {
                        let damage = Damage {
                            segment: segment.path.clone(),
                            at,
                            bytes: 0,
                            frames: frame.number - expected,
                            torn_tail: false,
                        };
                        self.last = Some(frame.number - 1);
                        self.ahead = Some(frame);
                        return Ok(Item::Damage(damage));
                    }
                    return Ok(self.take(frame));
                }
                Err(bad) => {
                    // What is not zero was begun and not finished, or was changed since.
                    let (next, anything) = segment.resume(at)?;
                    let end = next.unwrap_or(segment.size);
                    let path = segment.path.clone();
                    let is_last = self.segments.len() == 0;
                    self.at = end;
                    if next.is_none() {
                        self.current = self.segments.next();
                        self.at = 0;
                    }
                    if bad == Bad::Broken || anything {
                        return Ok(Item::Damage(Damage {
                            segment: path,
                            at,
                            bytes: end.saturating_sub(at),
                            frames: 0,
                            torn_tail: is_last && next.is_none(),
                        }));
                    }
                }
            }
        }
        Ok(Item::End)
    }

    fn take(&mut self, frame: Frame) -> Item {
        self.last = Some(frame.number);
        if frame.whole {
            self.open.clear();
        }
        for note in &frame.notes {
            if note.closed {
                self.open.remove(&note.session);
                self.closed.insert(note.session);
            } else {
                self.open.insert(note.session, note.clone());
            }
        }
        Item::Frame(Box::new(frame))
    }

    /// The sessions that nobody ended, once all of it was read.
    pub(in super::super) fn open_sessions(&self) -> Vec<Note> {
        self.open.values().cloned().collect()
    }

    /// The sessions that were ended in what was read.
    pub(in super::super) fn closed_sessions(&self) -> &BTreeSet<Uuid> {
        &self.closed
    }

    /// Removes it, once everything in it is sent and what is told of its sessions is in
    /// this process's spool. Segments that are `damaged` are kept beside the spool for
    /// whoever wants to look.
    pub(in super::super) fn remove(self, mut damaged: Vec<PathBuf>) -> io::Result<()> {
        damaged.sort();
        damaged.dedup();
        if let Some(spool) = self.folder.path.parent() {
            let writer = self.folder.writer;
            for path in &damaged {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                std::fs::rename(path, spool.join(format!("damaged-{writer}-{name}")))?;
            }
        }
        self.folder.remove()
    }
}
