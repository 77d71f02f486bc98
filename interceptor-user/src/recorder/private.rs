//! A `redis-server` of our own, for machines where none is set up.
//!
//! It listens on a Unix socket in a folder that only this user enters, on no port
//! at all, and asks for a password that is made anew at every start: an agent on
//! the same host reaches neither. Its data stays in the state folder, in Redis's
//! append-only file.
//!
//! A process of its own keeps it: starts it again when it dies, and stops it when the last
//! daemon is gone that holds the other end of its standard input. So it outlives a daemon
//! that hands over to the next, and no other.

use std::io::{self, BufRead as _, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use redis::Client;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::place::Place;

/// Where the private server's URL is, in the runtime folder.
pub const URL_FILE: &str = "redis.url";

/// The longest path that fits a Unix socket's address.
const SOCKET_PATH_LIMIT: usize = 107;

/// How long the server may take to read a long recording at its start.
const START_PATIENCE: Duration = Duration::from_secs(600);

/// How long it may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How often the keeper looks after the server.
const LOOK: Duration = Duration::from_millis(100);

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The program is not there.
    #[error(
        "no Redis answers on redis://127.0.0.1:6379, and there is no `redis-server` in PATH to start a private one: install the Debian package `redis-server`, or set `recorder.redis`"
    )]
    Missing,
    /// The socket's path is too long for the kernel.
    #[error("the path of the runtime folder is {length} bytes too long for a socket in it")]
    PathTooLong {
        /// By so many bytes.
        length: usize,
    },
    /// A file or folder could not be made.
    #[error("preparing the private redis-server in {}", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended at once.
    #[error("the private redis-server ended at its start; its log is {}", log.display())]
    Ended {
        /// Its log.
        log: PathBuf,
    },
    /// One that an earlier daemon started does not go away.
    #[error("a private redis-server of an earlier daemon still runs and does not stop")]
    Leftover,
    /// The process that keeps it says why.
    #[error("{0}")]
    Keeper(String),
    /// It does not answer.
    #[error("the private redis-server does not answer")]
    Silent(#[source] Fault),
}

/// A running private server.
#[derive(Debug)]
pub(super) struct PrivateRedis {
    url: String,
    keeper: Keeper,
}

/// Who keeps it.
#[derive(Debug)]
enum Keeper {
    /// A process, as long as anybody holds the other end of its standard input.
    Process {
        pid: u32,
        lifeline: OwnedFd,
        /// `None` where a daemon before this one started it.
        child: Option<Child>,
    },
    /// A thread of a test's.
    #[cfg(test)]
    Thread {
        stop: mpsc::Sender<()>,
        thread: std::thread::JoinHandle<()>,
    },
}

/// What starting it takes.
#[derive(Clone, Serialize, Deserialize)]
struct Plan {
    program: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    url_file: PathBuf,
    password: String,
}

impl PrivateRedis {
    /// Starts it, and waits until it answers.
    pub(super) fn start(state_dir: &Path, runtime_dir: &Path) -> Result<Self, PrivateError> {
        let plan = Plan::new("redis-server".into(), state_dir, runtime_dir)?;
        let own = std::env::current_exe().map_err(files(Path::new("/proc/self/exe")))?;
        let mut child = Command::new(&own)
            .arg(KEEP)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not at a Ctrl-C, but behind the daemon's last events.
            .process_group(0)
            .spawn()
            .map_err(files(&own))?;
        let silent = || PrivateError::Silent(Fault::Away("its keeper ended".to_owned()));
        let (Some(mut lifeline), Some(said)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(silent());
        };
        let mut line = serde_json::to_vec(&plan).map_err(|_| silent())?;
        line.push(b'\n');
        lifeline.write_all(&line).map_err(|_| silent())?;
        let mut said_line = String::new();
        let _ = io::BufReader::new(said).read_line(&mut said_line);
        match serde_json::from_str::<Result<(), String>>(&said_line) {
            Ok(Ok(())) => Ok(Self {
                url: plan.url(),
                keeper: Keeper::Process {
                    pid: child.id(),
                    lifeline: lifeline.into(),
                    child: Some(child),
                },
            }),
            Ok(Err(error)) => {
                let _ = child.wait();
                Err(PrivateError::Keeper(error))
            }
            Err(_) => Err(silent()),
        }
    }

    /// The one that another daemon had.
    pub(super) fn adopt(url: String, pid: u32, lifeline: OwnedFd) -> Self {
        Self {
            url,
            keeper: Keeper::Process {
                pid,
                lifeline,
                child: None,
            },
        }
    }

    /// What another daemon needs to adopt it: its keeper, and a copy of what keeps that.
    pub(super) fn lifeline(&self) -> io::Result<Option<(u32, OwnedFd)>> {
        match &self.keeper {
            Keeper::Process { pid, lifeline, .. } => Ok(Some((*pid, lifeline.try_clone()?))),
            #[cfg(test)]
            Keeper::Thread { .. } => Ok(None),
        }
    }

    #[cfg(test)]
    fn start_program(
        program: PathBuf,
        state_dir: &Path,
        runtime_dir: &Path,
    ) -> Result<Self, PrivateError> {
        let plan = Plan::new(program, state_dir, runtime_dir)?;
        let url = plan.url();

        let (stop, stopped) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("private-redis".to_owned())
            .spawn(move || keep(&plan, &stopped, &ready))
            .map_err(files(Path::new("a thread")))?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(Self {
                url,
                keeper: Keeper::Thread { stop, thread },
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PrivateError::Silent(Fault::Away(
                "its keeper ended".to_owned(),
            ))),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Stops it, and waits until it has.
    pub(super) fn stop(self) {
        match self.keeper {
            Keeper::Process {
                pid,
                lifeline,
                child,
            } => {
                drop(lifeline);
                wait_until_gone(pid, child);
            }
            #[cfg(test)]
            Keeper::Thread { stop, thread } => {
                // The keeper also stops when nobody holds the other end.
                drop(stop);
                let _ = thread.join();
            }
        }
    }
}

/// Waits for a keeper that nobody holds any more, and for as long as it may take.
fn wait_until_gone(pid: u32, mut child: Option<Child>) {
    let asked = Instant::now();
    let stat = format!("/proc/{pid}/stat");
    while asked.elapsed() < STOP_PATIENCE * 2 {
        let gone = match &mut child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            // One that nobody waits for is over as well.
            None => std::fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z ")),
        };
        if gone {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The hidden command that keeps a private server.
pub(crate) const KEEP: &str = "keep-redis";

/// Keeps a server until standard input ends, having read from it what to start.
///
/// # Errors
/// When nothing can be read from there.
pub(crate) fn keep_until_alone() -> io::Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line)?;
    let (stop, stopped) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        let said = is_ready.recv().unwrap_or(Ok(()));
        let said = said.map_err(|error: PrivateError| format!("{error}"));
        let mut out = io::stdout().lock();
        let _ = serde_json::to_writer(&mut out, &said);
        let _ = out.write_all(b"\n").and_then(|()| out.flush());
        drop(out);
        // Nobody writes: it ends with the last daemon.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(stop);
    });
    keep(&plan, &stopped, &ready);
    Ok(())
}

impl Plan {
    /// Prepares folders and a password; whatever ran here before is stopped.
    fn new(program: PathBuf, state_dir: &Path, runtime_dir: &Path) -> Result<Self, PrivateError> {
        let url_file = runtime_dir.join(URL_FILE);
        stop_leftover(&url_file)?;

        let data = state_dir.join("redis");
        let home = runtime_dir.join("redis");
        for dir in [&data, &home] {
            private_dir(dir).map_err(files(dir))?;
        }
        let socket = home.join("redis.sock");
        let length = socket.as_os_str().as_bytes().len();
        if length > SOCKET_PATH_LIMIT {
            return Err(PrivateError::PathTooLong {
                length: length - SOCKET_PATH_LIMIT,
            });
        }
        Ok(Self {
            program,
            data,
            socket,
            url_file,
            password: password().map_err(files(Path::new("/dev/urandom")))?,
        })
    }

    fn url(&self) -> String {
        format!(
            "redis+unix://{}?pass={}",
            self.socket.display(),
            self.password
        )
    }

    fn log(&self) -> PathBuf {
        self.data.join("redis.log")
    }

    /// On standard input, since arguments are for everybody to read.
    fn configuration(&self) -> String {
        let quoted = |path: &Path| {
            let text = path.display().to_string();
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        };
        format!(
            "port 0\n\
             unixsocket {socket}\n\
             unixsocketperm 600\n\
             requirepass {password}\n\
             dir {data}\n\
             logfile {log}\n\
             loglevel notice\n\
             daemonize no\n\
             save \"\"\n\
             appendonly yes\n\
             appendfsync everysec\n\
             no-appendfsync-on-rewrite yes\n\
             auto-aof-rewrite-min-size 1gb\n\
             maxmemory-policy noeviction\n",
            socket = quoted(&self.socket),
            password = self.password,
            data = quoted(&self.data),
            log = quoted(&self.log()),
        )
    }

    fn spawn(&self) -> Result<Child, PrivateError> {
        match std::fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(files(&self.socket)(error));
            }
            _ => {}
        }
        let mut command = Command::new(&self.program);
        command
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Of its own, so that a Ctrl-C for the daemon does not stop it before the
            // last events are in it.
            .process_group(0);
        let parent = std::process::id();
        // SAFETY: between fork and exec only two system calls are made, and nothing
        // is allocated.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The daemon may have died before the kernel was asked.
                if libc::getppid().unsigned_abs() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PrivateError::Missing,
            _ => files(&self.program)(error),
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it ends, and that is seen right after.
            let _ = stdin.write_all(self.configuration().as_bytes());
        }
        Ok(child)
    }

    /// Waits until `child` answers.
    fn wait_for(&self, child: &mut Child) -> Result<(), PrivateError> {
        let place = Place::open(&self.url())
            .map_err(|error| PrivateError::Silent(Fault::Other(error.to_string())))?;
        let started = Instant::now();
        loop {
            let fault = match place.answers(Duration::from_secs(1)) {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            if !matches!(child.try_wait(), Ok(None)) {
                return Err(PrivateError::Ended { log: self.log() });
            }
            if started.elapsed() > START_PATIENCE {
                return Err(PrivateError::Silent(fault));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Keeps a server running until told to stop.
fn keep(plan: &Plan, stopped: &mpsc::Receiver<()>, ready: &mpsc::Sender<Result<(), PrivateError>>) {
    let started = plan.spawn().and_then(|mut child| {
        let answers = plan
            .wait_for(&mut child)
            .and_then(|()| secret_file(&plan.url_file, &plan.url()).map_err(files(&plan.url_file)));
        if let Err(error) = answers {
            end(&mut child);
            return Err(error);
        }
        Ok(child)
    });
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    tracing::info!(
        socket = %plan.socket.display(),
        data = %plan.data.display(),
        "started a private redis-server"
    );
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
        if let Ok(Some(status)) = child.try_wait() {
            tracing::warn!(%status, log = %plan.log().display(), "the private redis-server ended; starting it again");
            match plan.spawn() {
                Ok(next) => child = next,
                Err(error) => tracing::error!(%error, "the private redis-server does not start"),
            }
            // One that ends at once again must not be started without a pause.
            if !matches!(
                stopped.recv_timeout(Duration::from_millis(500)),
                Err(RecvTimeoutError::Timeout)
            ) {
                break;
            }
        }
    }
    end(&mut child);
    for file in [&plan.url_file, &plan.socket] {
        let _ = std::fs::remove_file(file);
    }
}

/// Asks `child` to end, and makes it.
fn end(child: &mut Child) {
    if let Ok(pid) = libc::pid_t::try_from(child.id())
        && matches!(child.try_wait(), Ok(None))
    {
        // SAFETY: the child is not reaped yet, so the number is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    let asked = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if asked.elapsed() > STOP_PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Two servers must never write one append-only file: waits until one that a killed
/// daemon left is gone, having asked it to go.
fn stop_leftover(url_file: &Path) -> Result<(), PrivateError> {
    let Ok(url) = std::fs::read_to_string(url_file) else {
        return Ok(());
    };
    let Ok(client) = Client::open(url.trim()) else {
        return Ok(());
    };
    let asked = Instant::now();
    while let Ok(mut connection) = client.get_connection_with_timeout(Duration::from_secs(1)) {
        if asked.elapsed() > STOP_PATIENCE {
            return Err(PrivateError::Leftover);
        }
        let _ = connection.set_read_timeout(Some(Duration::from_secs(1)));
        // Its answer is that the connection closes.
        let _ = redis::cmd("SHUTDOWN").exec(&mut connection);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A folder that only this user enters.
fn private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .create(path.parent().unwrap_or(path))?;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Writes a file that only this user reads, from its first byte on.
fn secret_file(path: &Path, text: &str) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")
}

/// 256 bits from the kernel, in hexadecimal.
fn password() -> io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

fn files(path: &Path) -> impl FnOnce(io::Error) -> PrivateError + use<> {
    let path = path.to_owned();
    move |source| PrivateError::Files { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn run(url: &str, words: &[&str]) -> redis::RedisResult<String> {
        let mut connection = Client::open(url)?.get_connection()?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut connection)
    }

    #[test]
    fn a_private_server_is_for_this_user_alone_keeps_its_data_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (state, runtime) = (dir.path().join("state"), dir.path().join("run"));
        let server = PrivateRedis::start_program("redis-server".into(), &state, &runtime).unwrap();
        let url = std::fs::read_to_string(runtime.join(URL_FILE)).unwrap();
        let url = url.trim();
        assert_eq!(url, server.url());
        assert_eq!(mode(&runtime.join(URL_FILE)), 0o600);
        assert_eq!(mode(&runtime.join("redis")), 0o700);
        assert_eq!(mode(&runtime.join("redis/redis.sock")), 0o600);
        assert_eq!(mode(&state.join("redis")), 0o700);
        let (bare, _) = url.split_once('?').unwrap();
        let refused = run(bare, &["GET", "a"]).unwrap_err();
        assert_eq!(refused.code(), Some("NOAUTH"));
        let port: (String, String) = redis::cmd("CONFIG")
            .arg("GET")
            .arg("port")
            .query(&mut Client::open(url).unwrap().get_connection().unwrap())
            .unwrap();
        assert_eq!(port.1, "0", "it listens on no port");

        run(url, &["SET", "a", "kept"]).unwrap();
        server.stop();
        assert!(!runtime.join(URL_FILE).exists());
        assert!(run(url, &["PING"]).is_err());

        let server = PrivateRedis::start_program("redis-server".into(), &state, &runtime).unwrap();
        assert_ne!(server.url(), url, "the password is a new one");
        assert_eq!(run(server.url(), &["GET", "a"]).unwrap(), "kept");
        server.stop();
    }

    #[test]
    fn one_that_dies_is_started_again_with_its_data() {
        let dir = tempfile::tempdir().unwrap();
        let server =
            PrivateRedis::start_program("redis-server".into(), dir.path(), dir.path()).unwrap();
        run(server.url(), &["SET", "a", "kept"]).unwrap();
        let _ = run(server.url(), &["SHUTDOWN"]);
        let gone = Instant::now();
        while run(server.url(), &["GET", "a"]).ok().as_deref() != Some("kept") {
            assert!(
                gone.elapsed() < Duration::from_secs(20),
                "it does not come back"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        server.stop();
    }

    #[test]
    fn one_that_a_killed_daemon_left_is_stopped_before_the_next_starts() {
        let dir = tempfile::tempdir().unwrap();
        // Without a keeper, as after the daemon was killed.
        let plan = Plan::new("redis-server".into(), dir.path(), dir.path()).unwrap();
        let mut left = plan.spawn().unwrap();
        plan.wait_for(&mut left).unwrap();
        secret_file(&plan.url_file, &plan.url()).unwrap();
        run(&plan.url(), &["SET", "a", "kept"]).unwrap();

        let next =
            PrivateRedis::start_program("redis-server".into(), dir.path(), dir.path()).unwrap();
        assert!(left.wait().unwrap().success(), "it was asked to go");
        assert_eq!(run(next.url(), &["GET", "a"]).unwrap(), "kept");
        next.stop();
    }

    #[test]
    fn without_the_program_the_error_names_its_package() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no-such-program");
        let error = PrivateRedis::start_program(missing, dir.path(), dir.path()).unwrap_err();
        assert!(error.to_string().contains("Debian package `redis-server`"));
        let long = dir.path().join("x".repeat(120));
        let error = PrivateRedis::start(dir.path(), &long).unwrap_err();
        assert!(matches!(error, PrivateError::PathTooLong { .. }), "{error}");
    }
}
