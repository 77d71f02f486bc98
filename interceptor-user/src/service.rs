//! As a service of systemd: what it is told (`sd_notify(3)`), and a main process that can end
//! before the sessions do.
//!
//! systemd restarts a service by waiting for the end of its main process. Sessions cannot
//! leave the process that has them, so with `interceptor run --service` the main process is
//! not that one: it is a small one that waits for the daemon, its child, and hands signals on
//! to it. Told to retire (`interceptor retire`, the unit's `ExecStop=`), the daemon lets it
//! end and goes on as it was, until the one that systemd starts next has taken over by the
//! way that every hand-over goes; then it keeps its sessions.
//!
//! What this does not do: no socket is left with systemd (`FileDescriptorStoreMax=`). What
//! connects to one that nobody accepts from waits without a reason, and a crash is to be told
//! at once; and with the sockets alone bans, rates and names would be lost.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream as StdStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

/// How long systemd may be behind.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which of the two a process is.
#[derive(Debug)]
pub enum Split {
    /// The main process; its work is done.
    Main(ExitCode),
    /// The daemon, and what it has of its main process.
    Daemon(Link),
}

/// The daemon's end of the line to its main process.
#[derive(Debug)]
pub struct Link(StdStream);

/// Splits this process into the main process, which waits here for the end of the other, and
/// the daemon. Call it while there is one thread.
///
/// # Errors
/// When there can be no second process.
pub fn split() -> anyhow::Result<Split> {
    let (main, daemon) = StdStream::pair().context("making a line between two processes")?;
    // SAFETY: there is one thread, so nothing that the child needs is locked by another.
    match unsafe { fork() }.context("starting the daemon's process")? {
        ForkResult::Child => {
            drop(main);
            Ok(Split::Daemon(Link(daemon)))
        }
        ForkResult::Parent { child } => {
            drop(daemon);
            let code = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("starting the main process")?
                .block_on(stand_for(child, main))?;
            Ok(Split::Main(code))
        }
    }
}

/// Waits for the daemon's end, or until it needs this process no more.
async fn stand_for(daemon: Pid, line: StdStream) -> anyhow::Result<ExitCode> {
    let mut ended = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // What systemd sends when the watchdog was not heard of.
    let mut abort = signal(SignalKind::from_raw(libc::SIGABRT))?;
    line.set_nonblocking(true)?;
    let mut line = UnixStream::from_std(line)?;
    let mut is_open = true;
    loop {
        match waitpid(daemon, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(_, code) => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            WaitStatus::Signaled(_, signal, _) => {
                return Ok(ExitCode::from(
                    u8::try_from(128 + signal as i32).unwrap_or(1),
                ));
            }
            _ => {}
        }
        let mut word = [0];
        let pass = tokio::select! {
            _ = ended.recv() => continue,
            _ = terminate.recv() => Signal::SIGTERM,
            _ = interrupt.recv() => Signal::SIGTERM,
            _ = hangup.recv() => Signal::SIGHUP,
            _ = abort.recv() => Signal::SIGABRT,
            read = line.read(&mut word), if is_open => match read {
                Ok(1..) => return Ok(ExitCode::SUCCESS),
                // It ends, and its status comes.
                _ => {
                    is_open = false;
                    continue;
                }
            },
        };
        let _ = kill(daemon, pass);
    }
}

/// What the daemon is to systemd; nothing, where systemd has not started it.
#[derive(Debug, Default)]
pub struct Service {
    notify: Option<SocketAddr>,
    /// How often systemd wants to hear of it.
    watchdog: Option<Duration>,
    main: Option<UnixStream>,
    /// Whether the unit is another daemon's by now.
    is_retired: AtomicBool,
}

impl Service {
    /// As the environment says. A daemon that takes over has the watchdog of the one before.
    ///
    /// # Errors
    /// When the line to the main process cannot be watched.
    pub fn new(link: Option<Link>, before: Option<Duration>) -> io::Result<Self> {
        let main = match link {
            Some(Link(line)) => {
                line.set_nonblocking(true)?;
                Some(UnixStream::from_std(line)?)
            }
            None => None,
        };
        let notify = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name).ok(),
                None => SocketAddr::from_pathname(&name).ok(),
            }
        });
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let own = std::process::id();
        let parent = u32::try_from(nix::unistd::getppid().as_raw()).unwrap_or(own);
        let is_ours = number("WATCHDOG_PID")
            .is_none_or(|pid| pid == u64::from(own) || pid == u64::from(parent));
        let asked = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0);
        Ok(Self {
            notify,
            watchdog: asked.map(Duration::from_micros).or(before),
            main,
            is_retired: AtomicBool::new(false),
        })
    }

    /// How often systemd wants to hear of it.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The process that systemd is to watch.
    #[must_use]
    pub fn main_pid(&self) -> u32 {
        let parent = || u32::try_from(nix::unistd::getppid().as_raw()).ok();
        let main = self.main.as_ref().and_then(|_| parent());
        main.unwrap_or_else(std::process::id)
    }

    /// Agents may begin. One that took over was not started by systemd, which is to watch it
    /// now.
    pub fn ready(&self) {
        self.tell(&format!("MAINPID={}\nREADY=1\n", self.main_pid()));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    /// It reads its rules again, and has.
    pub fn reloaded(&self) {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let micros = now.map_or(0, |now| Duration::from(now).as_micros());
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
        self.tell("READY=1\n");
    }

    /// Keeps telling that it is well, where systemd wants to hear that.
    pub async fn keep_well(&self) {
        let Some(watchdog) = self.watchdog else {
            return std::future::pending().await;
        };
        let mut clock = tokio::time::interval(watchdog / 3);
        loop {
            clock.tick().await;
            self.tell_within("WATCHDOG=1\n", None);
        }
    }

    /// Lets the main process end: systemd goes on as if this one had.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
        if let Some(main) = &self.main
            && let Err(error) = main.try_write(b"r")
        {
            warn!(%error, "the main process could not be let go");
        }
    }

    /// Waits until the main process is gone without having been let go: killed.
    pub async fn orphaned(&self) {
        if let Some(main) = &self.main
            && !self.is_retired.load(Ordering::Acquire)
        {
            loop {
                let read = match main.readable().await {
                    Ok(()) => main.try_read(&mut [0]),
                    Err(error) => Err(error),
                };
                match read {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return,
                }
            }
        }
        std::future::pending().await
    }

    fn tell(&self, what: &str) {
        self.tell_within(what, Some(PATIENCE));
    }

    /// Tells it, and waits while systemd is behind with what it was told; no moment, where
    /// none is said.
    fn tell_within(&self, what: &str, patience: Option<Duration>) {
        let Some(address) = &self.notify else { return };
        if self.is_retired.load(Ordering::Acquire) {
            return;
        }
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(patience)?;
            socket.set_nonblocking(patience.is_none())?;
            socket.send_to_addr(what.as_bytes(), address)
        });
        if let Err(error) = sent {
            warn!(%error, "systemd could not be told how the daemon is");
        }
    }
}
