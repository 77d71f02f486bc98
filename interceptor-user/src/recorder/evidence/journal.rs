//! What was signed last, over restarts and crashes.
//!
//! `<state_dir>/evidence/statements` has a JSON object a line: a statement, written
//! before its bytes go anywhere, or `{"delivered":N}`, when all up to number N are with
//! the store. So after a crash, the ones that may not have got there are known, and are
//! sent again as they were. It survives the process; of a power cut, what was signed
//! since the last list of heads may be missing, and numbers are then given a second
//! time, which a verifier notes.
//!
//! Two daemons of one host (one takes over from the other) share the file: it is
//! locked for each statement, and what the other one added is read first.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use interceptor_engine::chain::Head;
use interceptor_engine::evidence::statement::{Line, PublicKey, Signed};
use serde::{Deserialize, Serialize};

const FILE: &str = "statements";

/// From here on it is written anew, with the last statement alone.
const LONG: u64 = 4 << 20;

/// A line of the file.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Delivered {
        delivered: u64,
    },
    Statement {
        host: String,
        key: String,
        number: u64,
        previous: String,
        at: String,
        body: String,
        signature: String,
    },
}

/// The file, and what is known of it.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Up to where it was read.
    read: u64,
    last: Option<Signed>,
    delivered: u64,
    /// It could not be written, and the log has it.
    is_faulty: bool,
}

/// Number and head of the last statement that is in a host's journal.
///
/// # Errors
/// When it cannot be read; nothing where there is none.
pub fn last_statement(folder: &Path) -> io::Result<Option<Signed>> {
    let mut text = String::new();
    match File::open(folder.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?.read_to_string(&mut text)?,
    };
    Ok(text.lines().rev().find_map(|line| parse(line)?.ok()))
}

impl Journal {
    /// Opens it, with what was signed and may not have reached the store.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<Signed>)> {
        let path = folder.join(FILE);
        let mut journal = Self {
            file: open(&path)?,
            path,
            read: 0,
            last: None,
            delivered: 0,
            is_faulty: false,
        };
        journal.file.lock()?;
        let read = journal.catch_up();
        journal.file.unlock()?;
        let mut unsent = read?;
        unsent.retain(|signed| signed.number > journal.delivered);
        Ok((journal, unsent))
    }

    /// The key that signs what comes next.
    pub(super) fn signer(&self) -> Option<PublicKey> {
        let last = self.last.as_ref()?;
        let introduced = last.lines().find_map(|line| match line {
            Some(Line::Key(key)) => Some(key),
            _ => None,
        });
        Some(introduced.unwrap_or(last.key))
    }

    /// Makes the next statement, and writes it down.
    pub(super) fn state(&mut self, make: impl FnOnce(u64, Head) -> Signed) -> Signed {
        let locked = self.lock();
        let (number, previous) = self.last.as_ref().map_or((1, Head::START), |last| {
            (last.number.saturating_add(1), last.statement().head())
        });
        let signed = make(number, previous);
        let written = locked.and_then(|()| self.append(&write(&signed)));
        let _ = self.file.unlock();
        self.last = Some(signed.clone());
        self.told(written);
        signed
    }

    /// Writes down that everything so far is with the store.
    pub(super) fn delivered(&mut self) {
        let written = self.lock().and_then(|()| {
            let delivered = self.last.as_ref().map_or(0, |last| last.number);
            self.delivered = delivered;
            if self.read > LONG {
                return self.shorten(delivered);
            }
            self.append(&Written::Delivered { delivered })
        });
        let _ = self.file.unlock();
        self.told(written);
    }

    /// Has it survive a power cut.
    pub(super) fn sync(&mut self) {
        let done = self.file.sync_data();
        self.told(done);
    }

    fn told(&mut self, done: io::Result<()>) {
        match done {
            Ok(()) => self.is_faulty = false,
            Err(error) => {
                if !std::mem::replace(&mut self.is_faulty, true) {
                    tracing::error!(
                        path = %self.path.display(), %error,
                        "what is signed cannot be remembered; after a restart, numbers of statements are given twice"
                    );
                }
            }
        }
    }

    /// Locks the file that has the name now, and reads what is new in it.
    fn lock(&mut self) -> io::Result<()> {
        loop {
            self.file.lock()?;
            let named = std::fs::metadata(&self.path).map(|named| named.ino());
            if named.is_ok_and(|ino| self.file.metadata().is_ok_and(|own| own.ino() == ino)) {
                break;
            }
            self.file = open(&self.path)?;
            self.read = 0;
        }
        self.catch_up().map(drop)
    }

    /// Reads what is new; its statements.
    fn catch_up(&mut self) -> io::Result<Vec<Signed>> {
        let len = self.file.metadata()?.len();
        if len == self.read {
            return Ok(Vec::new());
        }
        let mut text = Vec::new();
        self.file.seek(SeekFrom::Start(self.read))?;
        self.file.read_to_end(&mut text)?;
        // Nobody writes while it is locked, so what has no end was torn by a crash.
        let whole = memchr_last_line(&text);
        if whole < text.len() {
            self.file.set_len(self.read + whole as u64)?;
            text.truncate(whole);
        }
        self.read += whole as u64;
        let mut statements = Vec::new();
        for line in String::from_utf8_lossy(&text).lines() {
            match parse(line) {
                Some(Ok(signed)) => statements.push(signed),
                Some(Err(delivered)) => self.delivered = self.delivered.max(delivered),
                None => {
                    tracing::warn!(path = %self.path.display(), "a line of what was signed cannot be read")
                }
            }
        }
        if let Some(last) = statements.last() {
            self.last = Some(last.clone());
        }
        Ok(statements)
    }

    fn append(&mut self, written: &Written) -> io::Result<()> {
        let mut line = serde_json::to_vec(written)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.read += line.len() as u64;
        Ok(())
    }

    /// Puts a new file in its place, with the last statement alone.
    fn shorten(&mut self, delivered: u64) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut text = Vec::new();
        let last = self.last.as_ref().map(write);
        for written in last.iter().chain([&Written::Delivered { delivered }]) {
            serde_json::to_writer(&mut text, written)?;
            text.push(b'\n');
        }
        let _ = std::fs::remove_file(&draft);
        let mut file = open(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.path)?;
        // The lock on the old file ends with it; who waits for it looks at the name.
        self.file = file;
        self.read = text.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Bytes up to and with the last line feed.
fn memchr_last_line(text: &[u8]) -> usize {
    text.iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1)
}

fn write(signed: &Signed) -> Written {
    Written::Statement {
        host: signed.host.clone(),
        key: signed.key.to_string(),
        number: signed.number,
        previous: signed.previous.to_string(),
        at: signed.at.clone(),
        body: signed.body.clone(),
        signature: hex::encode(signed.signature),
    }
}

/// A statement, or up to which number all are delivered.
fn parse(line: &str) -> Option<Result<Signed, u64>> {
    match serde_json::from_str(line).ok()? {
        Written::Delivered { delivered } => Some(Err(delivered)),
        Written::Statement {
            host,
            key,
            number,
            previous,
            at,
            body,
            signature,
        } => {
            let mut bytes = [0; 64];
            hex::decode_to_slice(signature, &mut bytes).ok()?;
            Some(Ok(Signed {
                host,
                key: PublicKey::from_hex(&key)?,
                number,
                previous: Head::from_hex(previous.as_bytes())?,
                at,
                body,
                signature: bytes,
            }))
        }
    }
}
