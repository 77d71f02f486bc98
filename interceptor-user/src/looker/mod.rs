//! Looks at agents for the daemon, which may not.
//!
//! To know an agent by its executable takes the right to look into any process, and to read
//! any file. Who has that right and reads what agents send gives it to whoever takes the
//! reader over. So a small process of its own has it, the *looker*, started before the first
//! byte of an agent's is read: it reads no byte from a network, and answers what is asked
//! over a private socket in one typed message each ([`wire`]).
//!
//! It also opens the files and runs the commands that the configuration refers to: secrets,
//! certificates, known hosts. So the daemon itself can do without the rest of the file
//! system ([`crate::fence`]), and a file that is replaced is found by its name.
//!
//! What it does not do: it decides nothing, and believes nothing that a process says of
//! itself; and of a process it shows what is recorded of every one, never its memory.
//!
//! A connection's identity waits for it, so questions go over several *lines*, each with one
//! question at a time and a thread at the other end. The looker ends with the daemon; should
//! it end before, the daemon ends, too ([`crate::daemon`]).

mod serve;
mod wire;

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

pub(crate) use serve::serve;
pub use wire::Plan;
use wire::{Answer, Request};

use crate::agents::{ExecutableKey, OpenSocket, Seen, Wanted};
use crate::host::lock;
use crate::sandbox::InForce;
use crate::wire::{receive_descriptor, receive_within as receive, send, send_descriptor};

/// The hidden command that is the looker.
pub(crate) const LOOK: &str = "look";

/// How long an answer may take: an executable is read whole, once.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many questions are answered at once.
const MOST_LINES: usize = 64;
/// The longest message.
const LONGEST: u32 = 4 << 20;

/// Why it was not looked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookError {
    /// It does not answer.
    #[error("the looker does not answer: {0}")]
    Away(#[from] io::Error),
    /// It says why.
    #[error("{0}")]
    Refused(String),
}

/// What is in force for the looker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Looked {
    /// Its process id.
    pub pid: u32,
    /// What it has given up.
    #[serde(flatten)]
    pub in_force: InForce,
}

/// The daemon's end.
#[derive(Debug)]
pub struct Looker {
    daemon: Mutex<UnixStream>,
    lines: Mutex<Lines>,
    freed: Condvar,
    child: Child,
    looked: Looked,
}

#[derive(Debug, Default)]
struct Lines {
    idle: Vec<UnixStream>,
    /// Those that are in use, too.
    open: usize,
}

impl Looker {
    /// Starts it, and waits until it has given up what it does not need. Call it while this
    /// process has what looking takes.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(plan: &Plan) -> anyhow::Result<Self> {
        let (mut ours, its) = UnixStream::pair().context("making a socket for the looker")?;
        // Not by name: the file may have been replaced since.
        let child = Command::new("/proc/self/exe")
            .arg0("interceptor")
            .arg(LOOK)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(its)))
            .stdout(Stdio::null())
            // It ends behind the daemon's last session, and not at a Ctrl-C.
            .process_group(0)
            .spawn()
            .context("starting the looker")?;
        send(&mut ours, plan).context("telling the looker where to look")?;
        let looked: Looked =
            receive(&mut ours, LONGEST).context("the looker ended at its start")?;
        Ok(Self {
            daemon: Mutex::new(ours),
            lines: Mutex::default(),
            freed: Condvar::new(),
            looked: Looked {
                pid: child.id(),
                ..looked
            },
            child,
        })
    }

    /// What it has given up.
    #[must_use]
    pub fn looked(&self) -> Looked {
        self.looked.clone()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What a process is, where it is in this cgroup.
    pub(crate) fn see(&self, pid: u32, cgroup_id: u64) -> Result<Seen, LookError> {
        match self.ask(&Request::See { pid, cgroup_id })? {
            Answer::Seen(seen) => Ok(seen),
            other => Err(odd(other)),
        }
    }

    /// How many processes of a cgroup have a network of their own.
    pub(crate) fn foreign(&self, cgroup: &Path) -> Result<usize, LookError> {
        let cgroup = cgroup.to_owned();
        match self.ask(&Request::Foreign { cgroup })? {
            Answer::Count(count) => Ok(count),
            other => Err(odd(other)),
        }
    }

    /// Moves a process into an agent's cgroup.
    pub(crate) fn place(&self, to: &Path, pid: u32) -> Result<(), LookError> {
        let to = to.to_owned();
        self.done(&Request::Place { to, pid })
    }

    /// Moves a process, with those that descend from it, into an agent's cgroup.
    pub(crate) fn gather(
        &self,
        to: &Path,
        wanted: Wanted,
        held: Vec<PathBuf>,
    ) -> Result<Vec<OpenSocket>, LookError> {
        let request = Request::Gather {
            to: to.to_owned(),
            pid: wanted.pid,
            asker: wanted.asker,
            allow_open_sockets: wanted.allow_open_sockets,
            held,
        };
        match self.ask(&request)? {
            Answer::Sockets(open) => Ok(open),
            other => Err(odd(other)),
        }
    }

    /// Moves everything out of an agent's cgroup.
    pub(crate) fn release(&self, from: &Path, home: &Path) -> Result<(), LookError> {
        let (from, home) = (from.to_owned(), home.to_owned());
        self.done(&Request::Release { from, home })
    }

    /// Digests that it made.
    pub(crate) fn digests(&self) -> Result<Vec<(ExecutableKey, String)>, LookError> {
        match self.ask(&Request::Digests {})? {
            Answer::Digests(made) => Ok(made),
            other => Err(odd(other)),
        }
    }

    /// Gives it digests that another one made.
    pub(crate) fn take_digests(&self, made: Vec<(ExecutableKey, String)>) -> Result<(), LookError> {
        self.done(&Request::TakeDigests(made))
    }

    /// Opens a file that the configuration refers to.
    ///
    /// # Errors
    /// As it says, or when it does not answer.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let path = path.to_owned();
        self.exchange(|line| {
            send(line, &Request::Open { path })?;
            match receive(line, LONGEST)? {
                Answer::Opened => receive_descriptor(line).map(|file| Ok(file.into())),
                Answer::NotOpened(number) => Ok(Err(io::Error::from_raw_os_error(number))),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        })?
    }

    /// Runs a command that the configuration refers to; what it printed.
    ///
    /// # Errors
    /// As it says, or when it does not answer.
    pub(crate) fn run(&self, line: &[String]) -> Result<String, LookError> {
        let line = line.to_owned();
        match self.ask(&Request::Run { line })? {
            Answer::Printed(printed) => Ok(printed),
            other => Err(odd(other)),
        }
    }

    fn done(&self, request: &Request) -> Result<(), LookError> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            other => Err(odd(other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, LookError> {
        let asked = self.exchange(|line| {
            send(line, request)?;
            receive(line, LONGEST)
        });
        match asked? {
            Answer::Refused(why) => Err(LookError::Refused(why)),
            answer => Ok(answer),
        }
    }

    /// Uses a line, which is closed where that fails.
    fn exchange<T>(&self, ask: impl FnOnce(&mut UnixStream) -> io::Result<T>) -> io::Result<T> {
        let mut line = self.line()?;
        let asked = ask(&mut line);
        let mut lines = lock(&self.lines);
        // What was not answered in time would be answered to somebody else.
        match &asked {
            Ok(_) => lines.idle.push(line),
            Err(_) => lines.open = lines.open.saturating_sub(1),
        }
        drop(lines);
        self.freed.notify_one();
        asked
    }

    /// A line that nobody uses, or another one.
    fn line(&self) -> io::Result<UnixStream> {
        let mut lines = lock(&self.lines);
        loop {
            if let Some(line) = lines.idle.pop() {
                return Ok(line);
            }
            if lines.open < MOST_LINES {
                lines.open += 1;
                break;
            }
            lines = self
                .freed
                .wait(lines)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        drop(lines);
        let opened = self.open_line();
        if opened.is_err() {
            let mut lines = lock(&self.lines);
            lines.open = lines.open.saturating_sub(1);
        }
        opened
    }

    fn open_line(&self) -> io::Result<UnixStream> {
        let (ours, its) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        ours.set_write_timeout(Some(PATIENCE))?;
        send_descriptor(&lock(&self.daemon), &its.into())?;
        Ok(ours)
    }
}

/// The daemon's, from where on it opens few files itself. One of a process, and asked where
/// the configuration's files are read: deep in what speaks a protocol.
static OURS: OnceLock<Arc<Looker>> = OnceLock::new();

/// Has files of the configuration's opened by it from here on.
pub(crate) fn ask_for_files(looker: &Arc<Looker>) {
    let _ = OURS.set(Arc::clone(looker));
}

/// Who opens files for this process; `None` where it does.
pub(crate) fn ours() -> Option<&'static Arc<Looker>> {
    OURS.get()
}

/// Opens a file that the configuration refers to.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    match ours() {
        Some(looker) => looker.open(path),
        None => File::open(path),
    }
}

/// Reads a file that the configuration refers to.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut open(path)?, &mut bytes)?;
    Ok(bytes)
}

fn odd(answer: Answer) -> LookError {
    match answer {
        Answer::Refused(why) => LookError::Refused(why),
        _ => LookError::Away(io::ErrorKind::InvalidData.into()),
    }
}
