//! Digests of executables, each made once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::host::lock;

/// Executables that are larger are not read.
const LARGEST: u64 = 2 << 30;
/// How many digests are kept.
const KEPT: usize = 1_024;

/// What tells two versions of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Cannot be set back by the file's owner, as the modification time can.
    changed: (i64, i64),
}

/// A digest; empty as long as it was not made. Who makes it holds the lock, so that many
/// connections of a new program at once have it read once.
type Made = Mutex<Option<Arc<str>>>;

/// Digests by what tells files apart.
#[derive(Debug, Default)]
pub(crate) struct Executables {
    known: Mutex<HashMap<Key, Arc<Made>>>,
}

impl Executables {
    /// SHA-256 of a file, in hex. Opened through `/proc/PID/exe` it is the very file
    /// that runs, replaced or removed meanwhile or not.
    pub(super) fn sha256(&self, path: &Path) -> io::Result<Arc<str>> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.len() > LARGEST {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let key = Key {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        let made = {
            let mut known = lock(&self.known);
            if known.len() >= KEPT && !known.contains_key(&key) {
                known.clear();
            }
            Arc::clone(known.entry(key).or_default())
        };
        let mut made = lock(&made);
        match &*made {
            Some(digest) => Ok(Arc::clone(digest)),
            None => Ok(Arc::clone(made.insert(digest(&mut file)?.into()))),
        }
    }

    /// What was made, for the next daemon.
    pub(crate) fn hand_over(&self) -> Vec<(Key, String)> {
        let known = lock(&self.known);
        // One that is being made is made again.
        let made = known
            .iter()
            .filter_map(|(key, made)| Some((*key, made.try_lock().ok()?.as_deref()?.to_owned())));
        made.collect()
    }

    /// What the daemon before made.
    pub(crate) fn take_over(&self, made: Vec<(Key, String)>) {
        let made = made.into_iter().take(KEPT);
        lock(&self.known)
            .extend(made.map(|(key, digest)| (key, Arc::new(Mutex::new(Some(digest.into()))))));
    }
}

fn digest(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_has_another_digest_though_its_name_and_size_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let executables = Executables::default();
        std::fs::write(&path, "abc").unwrap();
        let first = executables.sha256(&path).unwrap();
        assert_eq!(
            &*first,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(executables.sha256(&path).unwrap(), first);
        // A new inode, as an installer makes it.
        std::fs::write(folder.path().join("new"), "abd").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_ne!(executables.sha256(&path).unwrap(), first);
    }
}
