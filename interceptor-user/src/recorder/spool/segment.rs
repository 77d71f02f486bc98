//! A segment: a file of frames, its room reserved before anything is written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::frame::{self, Bad, Frame, HEADER, MAGIC};

const SUFFIX: &str = ".spool";

/// Bytes looked through at once.
const LOOK: usize = 256 << 10;

/// A file of frames.
#[derive(Debug)]
pub(super) struct Segment {
    /// The number of its first frame.
    pub(super) first: u64,
    /// Bytes that it takes on disk.
    pub(super) size: u64,
    pub(super) path: PathBuf,
    file: File,
}

impl Segment {
    /// Makes one in `folder`, with room for `size` bytes.
    pub(super) fn create(folder: &Path, first: u64, size: u64) -> io::Result<Self> {
        // Sixteen digits, so that names sort as numbers do.
        let path = folder.join(format!("{first:016x}{SUFFIX}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        if let Err(error) = reserve(&file, size) {
            drop(file);
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self {
            first,
            size,
            path,
            file,
        })
    }

    /// All that are in `folder`, in order.
    pub(super) fn all(folder: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_suffix(SUFFIX));
            let Some(first) = number.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
                continue;
            };
            let file = File::open(&path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let size = metadata.len();
            found.push(Self {
                first,
                size,
                path,
                file,
            });
        }
        found.sort_by_key(|segment| segment.first);
        Ok(found)
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Brings what was written to stable storage.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Reads the frame at `at`.
    pub(super) fn read(&self, at: u64, buffer: &mut Vec<u8>) -> io::Result<Result<Frame, Bad>> {
        if at.saturating_add(HEADER as u64) > self.size {
            return Ok(Err(Bad::Nothing));
        }
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, at)?;
        let length = match frame::length(&header) {
            Ok(length) => length,
            Err(bad) => return Ok(Err(bad)),
        };
        if at.saturating_add(length as u64) > self.size {
            return Ok(Err(Bad::Broken));
        }
        buffer.clear();
        buffer.resize(length, 0);
        self.file.read_exact_at(buffer, at)?;
        Ok(frame::read(buffer))
    }

    /// Where behind `at` the next whole frame is, and whether there is anything but
    /// zeros up to there.
    pub(super) fn resume(&self, at: u64) -> io::Result<(Option<u64>, bool)> {
        let zeros = vec![0; LOOK];
        let mut bytes = vec![0; LOOK];
        let mut frame = Vec::new();
        let mut anything = false;
        let mut from = at;
        while from < self.size {
            let length = usize::try_from(self.size - from).map_or(LOOK, |rest| rest.min(LOOK));
            let chunk = bytes.get_mut(..length).unwrap_or_default();
            self.file.read_exact_at(chunk, from)?;
            // The most of it was reserved and never written.
            if Some(&*chunk) != zeros.get(..length) {
                anything = true;
                for found in memchr::memmem::find_iter(chunk, MAGIC) {
                    let start = from + found as u64;
                    if start > at && self.read(start, &mut frame)?.is_ok() {
                        return Ok((Some(start), true));
                    }
                }
            }
            // A frame may begin on the border.
            let step = length.saturating_sub(MAGIC.len() - 1).max(1);
            from += step as u64;
        }
        Ok((None, anything))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// Reserves room, so that a disk that fills up is found out here and not in the
/// middle of a frame.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    let length = i64::try_from(size).map_err(io::Error::other)?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        // A file system that cannot reserve: the writes find out.
        Err(Errno::EOPNOTSUPP) => file.set_len(size),
        Err(error) => Err(error.into()),
    }
}
