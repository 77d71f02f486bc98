//! The folders below the spool's: one for each process that records on this host.
//!
//! A process holds a lock on its folder as long as it lives. A folder that nobody
//! holds belongs to a process that died, and whoever locks it next sends on what is
//! in it. Folders are made, taken over and removed under the lock of the spool itself, so
//! that neither a new one nor one that goes is taken for a dead one's.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use uuid::Uuid;

const LOCK: &str = "lock";

/// A folder that this process holds.
#[derive(Debug)]
pub(super) struct Folder {
    /// The id of the process that wrote it.
    pub(super) writer: Uuid,
    pub(super) path: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    /// Makes this process's own below `spool`.
    pub(super) fn create(spool: &Path, writer: Uuid) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(spool)?;
        let _all = lock(spool, FlockArg::LockExclusive)?;
        let path = spool.join(writer.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = lock(&path, FlockArg::LockExclusiveNonblock)?;
        Ok(Self {
            writer,
            path,
            _lock: lock,
        })
    }

    /// Takes over what dead processes left below `spool`, oldest first; and which of it
    /// cannot be.
    pub(super) fn left_behind(spool: &Path) -> io::Result<(Vec<Self>, Vec<Bad>)> {
        let _all = lock(spool, FlockArg::LockExclusive)?;
        let (mut found, mut bad) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(spool)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(writer) = name.and_then(|name| Uuid::parse_str(name).ok()) else {
                continue;
            };
            match lock(&path, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => found.push(Self {
                    writer,
                    path,
                    _lock: lock,
                }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => bad.push(Bad { path, error }),
            }
        }
        // A UUIDv7 sorts by time.
        found.sort_by_key(|folder| folder.writer);
        Ok((found, bad))
    }

    /// Removes it with what is left in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        // Its own lock goes with it: who came just then would make another in what is
        // being removed, and take it for a dead process's.
        let _all = self
            .path
            .parent()
            .map(|spool| lock(spool, FlockArg::LockExclusive))
            .transpose()?;
        std::fs::remove_dir_all(&self.path)
    }
}

/// A folder that cannot be taken over.
#[derive(Debug)]
pub(in super::super) struct Bad {
    pub(in super::super) path: PathBuf,
    pub(in super::super) error: io::Error,
}

fn lock(folder: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(folder.join(LOCK))?;
    Flock::lock(file, how).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => io::ErrorKind::WouldBlock.into(),
        error => error.into(),
    })
}
