//! The spool: every event is here before it leaves for Redis, and stays until Redis
//! has acknowledged it.
//!
//! ```text
//! <spool>/<writer>/lock                      held while the process lives
//! <spool>/<writer>/<first frame>.spool       segments, one after another
//! <spool>/damaged-<writer>-<first frame>.spool   what could not be read, for whoever wants to look
//! ```
//!
//! The writer appends frames ([`frame`]) to the last segment; the sender reads them
//! back in order, from the page cache as a rule, so that what waits for Redis takes
//! disk and no memory. A segment whose frames are all acknowledged is removed. Its
//! first frame tells of every open session, so that the oldest segment that is left
//! is enough to know them all.

mod folder;
mod frame;
mod left;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::resp::Commands;
use folder::Folder;
use segment::Segment;

pub(super) use folder::Bad as BadFolder;
pub(super) use frame::{Frame, Note};
pub(super) use left::{Damage, Item, Left};

/// No segment is larger, unless one frame is.
const LARGEST_SEGMENT: u64 = 64 << 20;
const SMALLEST_SEGMENT: u64 = 64 << 10;
/// More than a frame takes beside its commands, where these are few.
const LATE_ROOM: u64 = 4 << 10;
/// The spool holds at least so many segments, so that acknowledged ones make room.
const SEGMENTS: u64 = 8;

/// This process's spool.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    folder: Folder,
    max_bytes: u64,
    segment_bytes: u64,
    /// What is appended is brought to stable storage before [`Spool::append`] returns.
    durable: bool,
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes of folders that were taken over.
    taken_over: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    segments: VecDeque<Arc<Segment>>,
    /// Where the last segment goes on.
    end: u64,
    /// Of the next frame.
    number: u64,
    /// Bytes of frames that are not acknowledged.
    unsent: u64,
    /// Since when something is unsent, without a frame being acknowledged.
    behind_since: Option<Instant>,
    finished: bool,
}

/// Why a frame is not in the spool.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It would be larger than it may be.
    #[error("the spool is full: Redis has not taken what is in it")]
    Full,
    /// The disk does not take it.
    #[error("the spool cannot be written: {0}")]
    Disk(#[from] io::Error),
}

/// Where the sender reads.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    segment: Option<Arc<Segment>>,
    at: u64,
    buffer: Vec<u8>,
}

/// What the sender finds.
#[derive(Debug)]
pub(super) enum Next {
    /// The next frame.
    Frame(Box<Frame>),
    /// What was written does not read back.
    Damage(Damage),
    /// Nothing yet.
    Nothing,
    /// Nothing, and nothing will come.
    Finished,
}

/// Whether the process `writer` has a folder below `dir`, or left one.
pub(super) fn is_there(dir: &Path, writer: Uuid) -> bool {
    dir.join(writer.to_string()).is_dir()
}

impl Spool {
    /// Makes a folder for the process `writer` below `dir`.
    pub(super) fn open(
        dir: &Path,
        max_bytes: u64,
        durable: bool,
        writer: Uuid,
    ) -> io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            folder: Folder::create(dir, writer)?,
            max_bytes,
            segment_bytes: (max_bytes / SEGMENTS).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT),
            durable,
            state: Mutex::default(),
            changed: Condvar::new(),
            taken_over: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who writes it.
    pub(super) fn writer(&self) -> Uuid {
        self.folder.writer
    }

    /// A batch should not be much larger than this.
    pub(super) fn batch_bytes(&self) -> usize {
        usize::try_from(self.segment_bytes / 2).unwrap_or(usize::MAX)
    }

    /// Whether a frame of `bytes` would be taken.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let state = self.lock();
        self.fits_last(&state, bytes) || self.may_grow(&state, bytes.max(self.segment_bytes))
    }

    fn fits_last(&self, state: &State, bytes: u64) -> bool {
        let last = state.segments.back();
        last.is_some_and(|segment| state.end.saturating_add(bytes) <= segment.size)
    }

    fn may_grow(&self, state: &State, bytes: u64) -> bool {
        // A frame that is larger than the whole spool goes where there is nothing else.
        let held = self.held(state) + self.taken_over.load(Ordering::Relaxed);
        state.unsent == 0 || held.saturating_add(bytes) <= self.max_bytes
    }

    fn held(&self, state: &State) -> u64 {
        state.segments.iter().map(|segment| segment.size).sum()
    }

    /// Appends a batch as a frame. `notes` is asked for what the commands touch, or,
    /// with `true`, for every open session. `scratch` holds the frame meanwhile.
    pub(super) fn append(
        &self,
        commands: &Commands,
        notes: impl Fn(bool) -> Vec<Note>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        // Nobody else appends, so what is read here holds until the end.
        let (last, at, number) = {
            let state = self.lock();
            (state.segments.back().cloned(), state.end, state.number)
        };
        let encode = |whole: bool, scratch: &mut Vec<u8>| {
            scratch.clear();
            frame::write(scratch, number, commands, &notes(whole), whole);
            scratch.len() as u64
        };
        // A segment may be there without a frame: the disk refused it.
        let mut length = encode(at == 0, scratch);
        let (segment, at) = match last {
            Some(last) if at.saturating_add(length) <= last.size => (last, at),
            _ => {
                if at > 0 {
                    length = encode(true, scratch);
                }
                (self.grow(number, length)?, 0)
            }
        };
        segment.write(at, scratch)?;
        if self.durable {
            segment.sync()?;
        }
        let mut state = self.lock();
        state.end = at + length;
        state.number += 1;
        state.unsent += length;
        state.behind_since.get_or_insert_with(Instant::now);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// A new last segment, whose first frame has `number` and takes `length` bytes.
    fn grow(&self, number: u64, length: u64) -> Result<Arc<Segment>, Refused> {
        let size = length.max(self.segment_bytes);
        if !self.may_grow(&self.lock(), size) {
            return Err(Refused::Full);
        }
        let segment = Arc::new(Segment::create(&self.folder.path, number, size)?);
        if self.durable {
            std::fs::File::open(&self.folder.path)?.sync_all()?;
        }
        let mut state = self.lock();
        state.segments.push_back(Arc::clone(&segment));
        state.end = 0;
        Self::trim(&mut state);
        Ok(segment)
    }

    /// Removes what is acknowledged and not written any more.
    fn trim(state: &mut State) {
        if state.unsent > 0 {
            return;
        }
        while state.segments.len() > 1 {
            if let Some(done) = state.segments.pop_front() {
                remove(&done);
            }
        }
    }

    /// The next frame behind `cursor`, waiting up to `patience` for one.
    pub(super) fn next(&self, cursor: &mut Cursor, patience: Duration) -> io::Result<Next> {
        let mut state = self.lock();
        loop {
            if let Some((segment, at)) = Self::at(&state, cursor) {
                let is_last = state
                    .segments
                    .back()
                    .is_some_and(|last| Arc::ptr_eq(last, &segment));
                let end = is_last.then_some(state.end);
                drop(state);
                match read(cursor, &segment, at, end)? {
                    Some(Next::Damage(damage)) => {
                        if is_last || cursor.at < segment.size {
                            // How much it was is known, and nobody will acknowledge it.
                            let mut state = self.lock();
                            state.unsent = state.unsent.saturating_sub(damage.bytes);
                        }
                        return Ok(Next::Damage(damage));
                    }
                    Some(found) => return Ok(found),
                    None => state = self.lock(),
                }
                // The rest of that segment is not used; on to the one behind it.
                let behind = |other: &&Arc<Segment>| other.first > segment.first;
                if let Some(next) = state.segments.iter().find(behind) {
                    cursor.segment = Some(Arc::clone(next));
                    cursor.at = 0;
                    continue;
                }
            }
            if state.finished {
                return Ok(Next::Finished);
            }
            let (woken, waited) = self
                .changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() && Self::at(&state, cursor).is_none() {
                return Ok(if state.finished {
                    Next::Finished
                } else {
                    Next::Nothing
                });
            }
        }
    }

    /// The segment and place where `cursor` goes on, where something stands there.
    fn at(state: &State, cursor: &Cursor) -> Option<(Arc<Segment>, u64)> {
        let last = state.segments.back()?;
        let Some(current) = &cursor.segment else {
            let first = state.segments.front()?;
            let written = !Arc::ptr_eq(first, last) || state.end > 0;
            return written.then(|| (Arc::clone(first), 0));
        };
        if Arc::ptr_eq(current, last) {
            return (cursor.at < state.end).then(|| (Arc::clone(current), cursor.at));
        }
        Some((Arc::clone(current), cursor.at))
    }

    /// Redis has this frame and all before it.
    pub(super) fn acknowledge(&self, frame: &Frame) {
        let mut state = self.lock();
        state.unsent = state.unsent.saturating_sub(frame.length);
        state.behind_since = (state.unsent > 0).then(Instant::now);
        // The last segment stays: it is written, and its first frame tells of the
        // open sessions.
        while let Some(second) = state.segments.get(1)
            && second.first <= frame.number.saturating_add(1)
        {
            if let Some(done) = state.segments.pop_front() {
                remove(&done);
            }
        }
    }

    /// Bytes that Redis has not acknowledged.
    pub(super) fn unsent(&self) -> u64 {
        self.lock().unsent
    }

    /// Bytes on disk, and how many there may be.
    pub(super) fn size(&self) -> (u64, u64) {
        let held = self.held(&self.lock());
        (
            held + self.taken_over.load(Ordering::Relaxed),
            self.max_bytes,
        )
    }

    /// How long something is unsent without a frame being acknowledged.
    pub(super) fn lag(&self) -> Duration {
        let since = self.lock().behind_since;
        since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Appends a few commands once the writer has ended. Only where a new segment takes
    /// nothing away that is known of open sessions.
    pub(super) fn append_late(&self, commands: &Commands) -> Result<(), Refused> {
        let mut scratch = Vec::new();
        let may = {
            let state = self.lock();
            let room = commands.bytes().len() as u64 + LATE_ROOM;
            state.finished && (state.segments.is_empty() || self.fits_last(&state, room))
        };
        match may {
            true => self.append(commands, |_| Vec::new(), &mut scratch),
            false => Err(Refused::Full),
        }
    }

    /// Whether the writer has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.lock().finished
    }

    /// Nothing more is appended, but by [`Self::append_late`].
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }

    /// What dead processes left, which counts as this spool's until it is sent; and what of
    /// it cannot be taken over.
    pub(super) fn left_behind(&self) -> io::Result<(Vec<Left>, Vec<BadFolder>)> {
        let (left, bad) = Left::behind(&self.dir)?;
        let bytes = left.iter().map(|left| left.bytes).sum();
        self.taken_over.fetch_add(bytes, Ordering::Relaxed);
        Ok((left, bad))
    }

    /// What was taken over is sent, or was given up.
    pub(super) fn let_go(&self, bytes: u64) {
        self.taken_over.fetch_sub(bytes, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Removes the folder when all of it is sent; false when something is left.
    pub(super) fn remove_if_sent(&self) -> bool {
        if self.lock().unsent > 0 {
            return false;
        }
        if let Err(error) = self.folder.remove() {
            tracing::warn!(%error, path = %self.folder.path.display(), "the spool's folder cannot be removed");
        }
        true
    }
}

/// What stands at `at`; `None` where nothing was written. `end`: how far the segment is
/// written, where it still is.
fn read(
    cursor: &mut Cursor,
    segment: &Arc<Segment>,
    at: u64,
    end: Option<u64>,
) -> io::Result<Option<Next>> {
    let found = segment.read(at, &mut cursor.buffer)?;
    cursor.segment = Some(Arc::clone(segment));
    match found {
        Ok(frame) => {
            cursor.at = at + frame.length;
            Ok(Some(Next::Frame(Box::new(frame))))
        }
        Err(frame::Bad::Nothing) if end.is_none_or(|end| at >= end) => {
            cursor.at = at;
            Ok(None)
        }
        Err(_) => {
            let (next, _) = segment.resume(at)?;
            // What comes to be written is not skipped with what was.
            let end = end.unwrap_or(segment.size);
            cursor.at = next.map_or(end, |next| next.min(end));
            Ok(Some(Next::Damage(Damage {
                segment: segment.path.clone(),
                at,
                bytes: cursor.at.saturating_sub(at),
                frames: 0,
                torn_tail: false,
            })))
        }
    }
}

fn remove(segment: &Segment) {
    if let Err(error) = segment.remove() {
        tracing::warn!(%error, path = %segment.path.display(), "a segment of the spool cannot be removed");
    }
}
