//! What was signed last, over restarts and crashes.
//!
//! `<state_dir>/evidence/statements` has a JSON object a line: a statement, written
//! before its bytes go anywhere, or `{"delivered":[[A,B],…]}`, when those numbered A to B
//! are in their writer's spool or in the store (`{"delivered":N}`, of older versions: all
//! up to N). So after a crash, the ones that may not have got there are known. A statement
//! that goes by way of a spool has its `writer`, since who finds that spool has to know
//! whether it is in it. The file survives the process; of a power cut, what was signed
//! since the last list of heads may be missing, and numbers are then given a second
//! time, which a verifier notes.
//!
//! All processes of one host share the file, two daemons of which one takes over from the
//! other, and commands that remove recordings: it is locked for each statement, and what
//! others added is read first. Each says of its own statements alone that they are delivered.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use interceptor_engine::chain::Head;
use interceptor_engine::evidence::statement::{Line, PublicKey, Signed};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keys::give_to_owner;

const FILE: &str = "statements";

/// From here on it is written anew, with the last statement alone.
const LONG: u64 = 4 << 20;

/// A line of the file.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Delivered {
        delivered: Delivered,
    },
    Statement {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        writer: Option<String>,
        host: String,
        key: String,
        number: u64,
        previous: String,
        at: String,
        body: String,
        signature: String,
    },
}

/// Which are delivered.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Delivered {
    /// All up to this one.
    UpTo(u64),
    /// From the first to the second of each, both among them.
    These(Vec<(u64, u64)>),
}

/// Numbers, as runs of them.
#[derive(Debug, Default)]
pub(super) struct Numbers(Vec<(u64, u64)>);

impl Numbers {
    pub(super) fn add(&mut self, number: u64) {
        match self.0.last_mut() {
            Some((_, last)) if number == last.saturating_add(1) => *last = number,
            _ => self.0.push((number, number)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A statement that is not known to be delivered, and whose spool it goes by.
type Pending = (Signed, Option<Uuid>);

/// The file, and what is known of it.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Up to where it was read.
    read: u64,
    last: Option<Signed>,
    /// By number; two may have the same.
    pending: BTreeMap<u64, Vec<Pending>>,
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
    let found = text.lines().rev().find_map(|line| match parse(line)? {
        Entry::Statement(signed, _) => Some(*signed),
        Entry::Delivered(_) => None,
    });
    Ok(found)
}

impl Journal {
    /// Opens it.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let mut journal = Self {
            file: open(&path)?,
            path,
            read: 0,
            last: None,
            pending: BTreeMap::new(),
            is_faulty: false,
        };
        give_to_owner(folder, &journal.file)?;
        journal.file.lock()?;
        let read = journal.catch_up();
        journal.file.unlock()?;
        read?;
        Ok(journal)
    }

    /// What was signed and may not have been delivered, by writers that `is_meant` names.
    pub(super) fn undelivered(&mut self, is_meant: impl Fn(Option<Uuid>) -> bool) -> Vec<Signed> {
        let read = self.lock();
        let _ = self.file.unlock();
        self.told(read);
        let pending = self.pending.values().flatten();
        let meant = pending.filter(|(_, writer)| is_meant(*writer));
        meant.map(|(signed, _)| signed.clone()).collect()
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

    /// Makes the next statement, and writes it down. `make` is told its number, the
    /// statement before, and which key signs now: another process may have replaced it.
    pub(super) fn state(
        &mut self,
        writer: Option<Uuid>,
        make: impl FnOnce(u64, Head, Option<PublicKey>) -> Signed,
    ) -> Signed {
        let locked = self.lock();
        let (number, previous) = self.last.as_ref().map_or((1, Head::START), |last| {
            (last.number.saturating_add(1), last.statement().head())
        });
        let signed = make(number, previous, self.signer());
        let written = locked.and_then(|()| self.append(&write(&signed, writer)));
        let _ = self.file.unlock();
        self.told(written);
        let pending = self.pending.entry(number).or_default();
        pending.push((signed.clone(), writer));
        self.last = Some(signed.clone());
        signed
    }

    /// Writes down that these are delivered; whether it could be.
    pub(super) fn delivered(&mut self, numbers: &Numbers) -> bool {
        let written = self.lock().and_then(|()| {
            self.forget(&numbers.0);
            if self.read > LONG {
                return self.shorten();
            }
            let delivered = Delivered::These(numbers.0.clone());
            self.append(&Written::Delivered { delivered })
        });
        let _ = self.file.unlock();
        let is_written = written.is_ok();
        self.told(written);
        is_written
    }

    fn forget(&mut self, numbers: &[(u64, u64)]) {
        let is_in = |number: &u64| numbers.iter().any(|(a, b)| (a..=b).contains(&number));
        self.pending.retain(|number, _| !is_in(number));
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
            // Another process made it anew, with all that is not delivered.
            self.file = open(&self.path)?;
            self.read = 0;
            self.pending.clear();
        }
        self.catch_up()
    }

    /// Reads what is new.
    fn catch_up(&mut self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        if len == self.read {
            return Ok(());
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
        for line in String::from_utf8_lossy(&text).lines() {
            match parse(line) {
                Some(Entry::Statement(signed, writer)) => {
                    self.last = Some((*signed).clone());
                    let pending = self.pending.entry(signed.number).or_default();
                    pending.push((*signed, writer));
                }
                Some(Entry::Delivered(Delivered::UpTo(delivered))) => {
                    self.pending.retain(|number, _| *number > delivered);
                }
                Some(Entry::Delivered(Delivered::These(numbers))) => self.forget(&numbers),
                None => {
                    tracing::warn!(path = %self.path.display(), "a line of what was signed cannot be read");
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, written: &Written) -> io::Result<()> {
        let mut line = serde_json::to_vec(written)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.read += line.len() as u64;
        Ok(())
    }

    /// Puts a new file in its place, with the last statement and those that are not
    /// known to be delivered.
    fn shorten(&mut self) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut text = Vec::new();
        let pending = self.pending.values().flatten();
        let mut lines: Vec<Written> = pending.map(|(signed, by)| write(signed, *by)).collect();
        if let Some(last) = &self.last
            && !self.pending.contains_key(&last.number)
        {
            lines.push(write(last, None));
            let delivered = Delivered::These(vec![(last.number, last.number)]);
            lines.push(Written::Delivered { delivered });
        }
        for written in &lines {
            serde_json::to_writer(&mut text, written)?;
            text.push(b'\n');
        }
        let _ = std::fs::remove_file(&draft);
        let mut file = open(&draft)?;
        if let Some(folder) = self.path.parent() {
            give_to_owner(folder, &file)?;
        }
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

fn write(signed: &Signed, writer: Option<Uuid>) -> Written {
    Written::Statement {
        writer: writer.map(|writer| writer.to_string()),
        host: signed.host.clone(),
        key: signed.key.to_string(),
        number: signed.number,
        previous: signed.previous.to_string(),
        at: signed.at.clone(),
        body: signed.body.clone(),
        signature: hex::encode(signed.signature),
    }
}

/// A line of the file, read.
enum Entry {
    Statement(Box<Signed>, Option<Uuid>),
    Delivered(Delivered),
}

fn parse(line: &str) -> Option<Entry> {
    match serde_json::from_str(line).ok()? {
        Written::Delivered { delivered } => Some(Entry::Delivered(delivered)),
        Written::Statement {
            writer,
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
            let signed = Signed {
                host,
                key: PublicKey::from_hex(&key)?,
                number,
                previous: Head::from_hex(previous.as_bytes())?,
                at,
                body,
                signature: bytes,
            };
            let writer = writer.and_then(|writer| Uuid::parse_str(&writer).ok());
            Some(Entry::Statement(Box::new(signed), writer))
        }
    }
}
