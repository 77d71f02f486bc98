//! The daemon as a systemd service: what systemd is told, and that a restart is a hand-over.
//!
//! systemd is stood in for: its socket for notifications, and what it does to a main process.
//! The unit file is read by systemd's own checker.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::{SOON, program};
use interceptor_tests::process::{Server, Start};
use interceptor_tests::steady::{looper, none_refused, says};
use interceptor_tests::world::{Plan, World, alone};
use interceptor_tests::{eventually, needs};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

/// What stands in for systemd.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    /// In the place of the daemon that a world begins with.
    fn new(world: &World) -> Result<Self> {
        world.daemon.server().stop()?;
        let path = world.place.path("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(Self { socket, path })
    }

    /// Starts the service as the unit does, and waits until it is ready; its main process.
    fn start(&self, world: &World) -> Result<Server> {
        let mut command = Command::new(program()?);
        command
            .arg("--config")
            .arg(world.daemon.config())
            .args(["run", "--service"])
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", "600000")
            .current_dir(world.place.folder());
        let log = world.place.path("interceptor.log");
        let start = Start {
            name: "interceptor",
            log: &log,
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGKILL,
        };
        let main = Server::start(&start, command)?;
        let said = self.hears("READY=1")?;
        ensure!(
            said.contains(&format!("MAINPID={}\n", main.pid())),
            "{said}"
        );
        Ok(main)
    }

    /// Waits for a message that holds `word`; whatever came before is forgotten.
    fn hears(&self, word: &str) -> Result<String> {
        let began = Instant::now();
        while began.elapsed() < SOON {
            let said = self.next().with_context(|| format!("waiting for {word}"))?;
            if said.contains(word) {
                return Ok(said);
            }
        }
        anyhow::bail!("systemd did not hear {word}")
    }

    fn next(&self) -> Result<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
    }

    /// What a restart's stop is: the unit's `ExecStop=`, and the end of the main process.
    fn stop_for_a_restart(world: &World, main: &mut Server) -> Result<()> {
        world.daemon.ask(&["retire", "--patience", "30s"])?;
        let ended = main.ends(SOON)?;
        ensure!(ended.success(), "{ended}");
        Ok(())
    }
}

fn status(world: &World) -> Result<Value> {
    Ok(serde_json::from_str(
        &world.daemon.ask(&["status", "--json"])?,
    )?)
}

fn pid_of(world: &World) -> Result<Pid> {
    let status = status(world)?;
    let pid = status.get("pid").and_then(Value::as_i64);
    let pid = pid.context("no pid")?;
    Ok(Pid::from_raw(i32::try_from(pid)?))
}

/// Whether a process is gone, or waits for nobody but its parent.
fn is_over(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_restart_drops_no_session_and_refuses_no_connect() -> Result<()> {
    alone(&Plan::default(), |world| {
        let systemd = Systemd::new(world)?;
        let mut main = systemd.start(world)?;
        // Dropping one would kill its daemon, which systemd leaves alone.
        let mut before = Vec::new();
        let port = world.postgres.port;
        let first = status(world)?;
        assert_eq!(first["main_pid"], main.pid().as_raw());
        assert_ne!(first["pid"], first["main_pid"]);
        systemd.hears("WATCHDOG=1")?;

        let mut session = world.agent("patient").start_psql(port)?;
        says(world, &mut session, "under the first")?;
        let looper = looper(world, &port.to_string())?;
        for word in ["under the second", "under the third"] {
            let daemon = pid_of(world)?;
            Systemd::stop_for_a_restart(world, &mut main)?;
            // The unit is stopped, and agents do not notice.
            assert_eq!(pid_of(world)?, daemon);
            before.push(std::mem::replace(&mut main, systemd.start(world)?));
            assert_ne!(pid_of(world)?, daemon);
            says(world, &mut session, word)?;
        }
        none_refused(looper)?;

        // An upgrade makes another process the main one, which has the watchdog, too.
        let upgraded = Command::new(program()?)
            .arg("--config")
            .arg(world.daemon.config())
            .args(["upgrade", "--json"])
            .env("NOTIFY_SOCKET", &systemd.path)
            .output()?;
        ensure!(upgraded.status.success(), "{upgraded:?}");
        let said = systemd.hears("MAINPID=")?;
        let after = status(world)?;
        assert_eq!(said, format!("MAINPID={}\nREADY=1\n", after["main_pid"]));
        systemd.hears("WATCHDOG=1")?;

        says(world, &mut session, "at last")?;
        let done = session.finish(SOON)?.ok()?;
        assert_eq!(
            done.stdout,
            "under the first\nunder the second\nunder the third\nat last\n"
        );
        main.ends(SOON)?;
        let pid = after["main_pid"].as_i64().context("no pid")?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        nix::sys::signal::kill(pid, Signal::SIGHUP)?;
        systemd.hears("RELOADING=1")?;
        systemd.hears("READY=1")?;
        nix::sys::signal::kill(pid, Signal::SIGTERM)?;
        systemd.hears("STOPPING=1")?;
        eventually("its end", SOON, || Ok(is_over(pid)))
    })
}

#[test]
fn without_another_daemon_a_restart_is_a_stop() -> Result<()> {
    alone(&Plan::default(), |world| {
        let systemd = Systemd::new(world)?;
        let mut main = systemd.start(world)?;
        let mut session = world.agent("left").start_psql(world.postgres.port)?;
        says(world, &mut session, "begun")?;
        let daemon = pid_of(world)?;
        world.daemon.ask(&["retire", "--patience", "1s"])?;
        assert!(main.ends(SOON)?.success());
        eventually("the daemon's end", SOON, || Ok(is_over(daemon)))?;
        session.finish(SOON)?;
        let (_, events) = world.records()?.only_session_of("left")?;
        assert_eq!(events.last().context("no events")?.kind, "close");
        Ok(())
    })
}

#[test]
fn neither_of_the_two_processes_outlives_the_other() -> Result<()> {
    alone(&Plan::default(), |world| {
        let systemd = Systemd::new(world)?;
        // The daemon is killed: the unit fails, and systemd starts it again.
        let mut main = systemd.start(world)?;
        nix::sys::signal::kill(pid_of(world)?, Signal::SIGKILL)?;
        assert_eq!(main.ends(SOON)?.code(), Some(128 + 9));

        // The main process is killed: the daemon ends in order.
        let mut main = systemd.start(world)?;
        let mut session = world.agent("orphan").start_psql(world.postgres.port)?;
        says(world, &mut session, "begun")?;
        let daemon = pid_of(world)?;
        main.signal(Signal::SIGKILL)?;
        main.ends(SOON)?;
        eventually("the daemon's end", SOON, || Ok(is_over(daemon)))?;
        let (_, events) = world.records()?.only_session_of("orphan")?;
        assert_eq!(events.last().context("no events")?.kind, "close");

        // Told to stop while another one waits for a Redis that never comes, it stops.
        let mut main = systemd.start(world)?;
        let daemon = pid_of(world)?;
        let text = std::fs::read_to_string(world.daemon.config())?;
        let mut waits: Value = serde_json::from_str(&text)?;
        waits["recorder"]["redis"] = "redis://192.0.2.1:6379".into();
        let file = world.place.file("waits.yaml", &waits.to_string())?;
        let mut next = Command::new(program()?)
            .arg("--config")
            .arg(file)
            .arg("run")
            .stderr(std::process::Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(500));
        main.signal(Signal::SIGTERM)?;
        let ended = main.ends(SOON);
        next.kill()?;
        next.wait()?;
        assert!(ended?.success());
        eventually("the daemon's end", SOON, || Ok(is_over(daemon)))
    })
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let place = interceptor_tests::place::Place::new()?;
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../packaging/interceptor.service"
    );
    let text = std::fs::read_to_string(unit)?;
    let program = program()?.display().to_string();
    let here = text.replace("/usr/local/bin/interceptor", &program);
    ensure!(here != text, "the unit starts something else");
    let file = place.file("interceptor.service", &here)?;
    let checked = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file)
        .output()
        .context("starting systemd-analyze (of the package systemd)")?;
    let said = String::from_utf8_lossy(&checked.stderr);
    let about: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("interceptor.service"))
        .collect();
    ensure!(checked.status.success() && about.is_empty(), "{said}");
    Ok(())
}
