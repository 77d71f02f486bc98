//! The host's Ed25519 keys.
//!
//! In `<state_dir>/evidence`, `keys` lists the public keys, one a line, the one in use
//! last: `PUBLIC-KEY HOST SINCE`. The same form is what a verifier pins. A secret key
//! is in a file of its own, `<first 16 digits>.key`, mode 0600; only that of the last
//! key is kept, once the one before has signed it.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use interceptor_engine::evidence::ledger::Trust;
use interceptor_engine::evidence::statement::PublicKey;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

/// The list of public keys.
pub const LIST: &str = "keys";

/// A list that is longer is something else.
const LONGEST: u64 = 16 << 20;

/// Why there is no key to sign with, or to check with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of a list of keys is none.
    #[error("{}: line {line} is no key: it is PUBLIC-KEY HOST, the key as 64 hexadecimal digits", .path.display())]
    Line {
        /// The list.
        path: PathBuf,
        /// 1, 2, 3 …
        line: usize,
    },
    /// The file of a secret key does not hold it.
    #[error("{} does not hold the key that it is named for: bring it back from a backup, or delete it and run `interceptor evidence rotate`", .path.display())]
    NotIt {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the secret key.
    #[error("{} may be read by others (mode {mode:o}): chmod 600, and run `interceptor evidence rotate`", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is no key yet.
    #[error("{} has no key yet: it is made when the daemon starts for the first time", .folder.display())]
    None {
        /// The folder.
        folder: PathBuf,
    },
}

/// A public key, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The key.
    pub key: PublicKey,
    /// The host's name.
    pub host: String,
    /// When it was made; empty where nobody says.
    pub since: String,
}

/// The public keys of a list in the form of [`LIST`]; empty lines and what follows `#`
/// are left out.
///
/// # Errors
/// A file that cannot be read, or a line that is no key.
pub fn listed(path: &Path) -> Result<Vec<Published>, KeyError> {
    listed_in(path, |path| File::open(path))
}

fn listed_in(
    path: &Path,
    open: impl Fn(&Path) -> std::io::Result<File>,
) -> Result<Vec<Published>, KeyError> {
    let failed = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    open(path)
        .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        .map_err(failed)?;
    let mut keys = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let (Some(key), Some(host)) = (PublicKey::from_hex(first), words.next()) else {
            return Err(KeyError::Line {
                path: path.to_owned(),
                line: at + 1,
            });
        };
        keys.push(Published {
            key,
            host: host.to_owned(),
            since: words.next().unwrap_or_default().to_owned(),
        });
    }
    Ok(keys)
}

/// The host's public keys, the one in use last.
///
/// # Errors
/// As [`listed`].
pub fn published(folder: &Path) -> Result<Vec<Published>, KeyError> {
    match listed(&folder.join(LIST)) {
        Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// Length of the list, by which a change is noticed.
pub(super) fn len(folder: &Path) -> u64 {
    std::fs::metadata(folder.join(LIST)).map_or(0, |list| list.len())
}

/// The key in use; made where there is none. A host that got another name keeps its key.
pub(super) fn open_or_create(folder: &Path, host: &str) -> Result<PublicKey, KeyError> {
    let host = word(host);
    if !folder.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| KeyError::File {
                path: folder.to_owned(),
                source,
            })?;
    }
    match published(folder)?.pop() {
        None => create(folder, &host),
        Some(last) => {
            if last.host != host {
                append(folder, last.key, &host)?;
            }
            Ok(last.key)
        }
    }
}

/// Makes a new key, which a running daemon takes over.
///
/// # Errors
/// When there is none to replace, or the files cannot be written.
pub fn rotate(folder: &Path) -> Result<Published, KeyError> {
    let last = published(folder)?.pop().ok_or_else(|| KeyError::None {
        folder: folder.to_owned(),
    })?;
    create(folder, &last.host)?;
    published(folder)?.pop().ok_or_else(|| KeyError::None {
        folder: folder.to_owned(),
    })
}

/// A name as one word of a list.
fn word(host: &str) -> String {
    let clean = |c: char| {
        if c.is_whitespace() || c == '#' || c.is_control() {
            '_'
        } else {
            c
        }
    };
    host.chars().map(clean).collect()
}

fn path_of(folder: &Path, key: PublicKey) -> PathBuf {
    let digits: String = key.to_string().chars().take(16).collect();
    folder.join(format!("{digits}.key"))
}

fn create(folder: &Path, host: &str) -> Result<PublicKey, KeyError> {
    let mut path = folder.to_owned();
    let mut made = || -> io::Result<PublicKey> {
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *seed).map_err(io::Error::other)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(io::Error::other)?;
        let mut key = PublicKey([0; 32]);
        if let Some(bytes) = pair.public_key().as_ref().first_chunk::<32>() {
            key = PublicKey(*bytes);
        }
        path = path_of(folder, key);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(*seed))));
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        give_to_owner(folder, &file)?;
        Ok(key)
    };
    let key = made().map_err(|source| KeyError::File { path, source })?;
    append(folder, key, host)?;
    Ok(key)
}

/// Adds a line to the list, by one write.
fn append(folder: &Path, key: PublicKey, host: &str) -> Result<(), KeyError> {
    let since = OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .ok()
        .and_then(|now| now.format(&Rfc3339).ok())
        .unwrap_or_default();
    let path = folder.join(LIST);
    let write = || -> io::Result<()> {
        let mut list = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(&path)?;
        list.write_all(format!("{key} {host} {since}\n").as_bytes())?;
        list.sync_all()?;
        give_to_owner(folder, &list)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| KeyError::File {
        path: path.clone(),
        source,
    })
}

/// The daemon may not be who runs `rotate`; it owns the folder.
pub(super) fn give_to_owner(folder: &Path, file: &File) -> io::Result<()> {
    let owner = std::fs::metadata(folder)?;
    let now = file.metadata()?;
    if (owner.uid(), owner.gid()) != (now.uid(), now.gid()) {
        fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// The secret of `key`.
pub(super) fn load(folder: &Path, key: PublicKey) -> Result<Ed25519KeyPair, KeyError> {
    let path = path_of(folder, key);
    let failed = |source| KeyError::File {
        path: path.clone(),
        source,
    };
    let mut file = File::open(&path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path, mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(failed)?;
    let mut seed = Zeroizing::new([0; 32]);
    let pair = hex::decode_to_slice(text.trim(), &mut *seed)
        .ok()
        .and_then(|()| Ed25519KeyPair::from_seed_and_public_key(&*seed, &key.0).ok());
    pair.ok_or(KeyError::NotIt { path })
}

/// Whose keys are believed: those of the list, or without one this host's own where they
/// can be read.
///
/// # Errors
/// As [`listed`].
pub fn trust(list: Option<&Path>, folder: &Path) -> Result<Trust, KeyError> {
    let (keys, only_pins) = match list {
        // The configuration refers to it.
        Some(list) => (listed_in(list, crate::looker::open)?, true),
        None => (published(folder).unwrap_or_default(), false),
    };
    let mut pins: HashMap<String, Vec<PublicKey>> = HashMap::new();
    for key in keys {
        pins.entry(key.host).or_default().push(key.key);
    }
    Ok(Trust { pins, only_pins })
}

/// Deletes the secret of `key`: what nobody has, nobody can sign with.
pub(super) fn forget(folder: &Path, key: PublicKey) -> Result<(), KeyError> {
    let path = path_of(folder, key);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KeyError::File { path, source })
        }
        _ => Ok(()),
    }
}
