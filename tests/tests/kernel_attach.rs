//! `interceptor attach`, `detach`, `agents` and `intercept.agents`: what runs already, or
//! is started by something else, comes under interception and leaves it again.
//!
//! No systemd runs here: cgroups are made where it would make them, and shells in them are
//! told what to do.

#![allow(
    clippy::expect_used,
    reason = "helpers of tests, in which clippy.toml allows it"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::{Daemon, SOON};
use interceptor_tests::hooks::Hooks;
use interceptor_tests::place::Place;
use interceptor_tests::postgres::Postgres;
use interceptor_tests::world::{Plan, Shared, World, alone, target};
use interceptor_tests::{eventually, needs};
use interceptor_user::kernel::cgroup;
use serde_json::{Value, json};

/// Long enough for what is sent on loopback to have come.
const A_MOMENT: Duration = Duration::from_millis(700);

/// Tests that neither end the daemon nor change its configuration.
static WORLD: Shared = Shared::new(|| Plan {
    config: with_a_late_agent,
    ..Plan::default()
});

fn with_a_late_agent(postgres: &Postgres, place: &Place) -> Value {
    json!({
        "targets": [target(postgres)],
        "intercept": { "agents": [{
            "name": "late",
            "unit": format!("{}-late", place.name()),
            "labels": { "team": "late" },
        }]},
    })
}

/// A shell of the ordinary user, in a cgroup. Not under interception by itself.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn start(cgroup: &Path) -> Result<Self> {
        let user = needs::ordinary_user()?;
        let procs = std::fs::File::options()
            .write(true)
            .open(cgroup.join("cgroup.procs"))?;
        let mut command = Command::new("/bin/bash");
        command
            .arg("--norc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .current_dir("/");
        // SAFETY: one system call, which does not allocate; standard library for the rest.
        unsafe {
            command.pre_exec(move || {
                if libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        let mut child = command.spawn().context("starting a shell")?;
        Ok(Self {
            input: child.stdin.take().context("no input")?,
            output: BufReader::new(child.stdout.take().context("no output")?),
            child,
        })
    }

    /// Runs a line; what it wrote, errors too, and its exit status.
    fn run(&mut self, line: &str) -> Result<(String, i32)> {
        writeln!(self.input, "{{ {line}\n}} 2>&1; s=$?; echo; echo done:$s")?;
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line)?;
            ensure!(read > 0, "the shell ended: {said}");
            if let Some(status) = line.trim_end().strip_prefix("done:") {
                return Ok((said.trim().to_owned(), status.parse()?));
            }
            said.push_str(&line);
        }
    }

    /// Runs a line, which must succeed.
    fn ok(&mut self, line: &str) -> Result<String> {
        let (said, status) = self.run(line)?;
        ensure!(status == 0, "`{line}`: {status}\n{said}");
        Ok(said)
    }

    /// Runs a line, which must fail.
    fn fails(&mut self, line: &str) -> Result<String> {
        let (said, status) = self.run(line)?;
        ensure!(status != 0, "`{line}` succeeded\n{said}");
        Ok(said)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn psql(world: &World, sql: &str) -> String {
    format!(
        "psql -XqAt -h 127.0.0.1 -p {} -U agent -d postgres -c {sql:?}",
        world.postgres.port
    )
}

/// A cgroup below one that is the world's own, and so is removed with it.
fn made(world: &World, path: &str) -> Result<PathBuf> {
    let mut at = cgroup::root()?;
    for part in format!("{}-{path}", world.place.name()).split('/') {
        at.push(part);
        cgroup::make(&at)?;
    }
    Ok(at)
}

fn agents(daemon: &Daemon) -> Result<Vec<Value>> {
    let answer: Value = serde_json::from_str(&daemon.ask(&["agents", "--json"])?)?;
    let agents = answer.get("agents").and_then(Value::as_array);
    Ok(agents.context("a list")?.clone())
}

fn facts(daemon: &Daemon, agent: &str) -> Result<Value> {
    agents(daemon)?
        .into_iter()
        .find(|one| one["agent"] == agent)
        .with_context(|| format!("no agent {agent}"))
}

/// The complaint of a command that must be refused.
fn refused(daemon: &Daemon, words: &[&str]) -> Result<String> {
    let done = daemon.command(words)?;
    ensure!(done.status.code() == Some(1), "{words:?}: {done:?}");
    Ok(String::from_utf8_lossy(&done.stderr).into_owned())
}

/// What the next connection says, where one comes.
fn heard(listener: &TcpListener) -> Result<Option<String>> {
    listener.set_nonblocking(true)?;
    std::thread::sleep(A_MOMENT);
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(false)?;
            Ok(Some(line(&stream)?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn line(stream: &TcpStream) -> Result<String> {
    stream.set_read_timeout(Some(SOON))?;
    let mut text = String::new();
    BufReader::new(stream).read_line(&mut text)?;
    Ok(text.trim_end().to_owned())
}

/// Waits until a statement is on record as an agent's.
fn recorded(world: &World, agent: &str, sql: &str) -> Result<()> {
    let mut records = world.records()?;
    eventually(&format!("{sql:?} of {agent} on record"), SOON, || {
        let sessions = records.closed_sessions_of(agent, 1)?;
        let mut events = sessions.iter().flat_map(|(_, events)| events);
        Ok(events.any(|event| event.line.contains(sql) || event.meta.to_string().contains(sql)))
    })
}

fn pins(world: &World) -> Result<usize> {
    Ok(std::fs::read_dir(world.place.path("run/bpf"))?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("links-"))
        .count())
}

#[test]
fn a_running_service_is_attached_survives_two_daemons_and_is_let_go() -> Result<()> {
    alone(&Plan::default(), |world| {
        let service = made(world, "work.slice/bot.service")?;
        let mut shell = Shell::start(&service)?;
        let path = service.display().to_string();

        // Before: everything is direct.
        let raw = TcpListener::bind("127.0.0.1:0")?;
        let raw_port = raw.local_addr()?.port();
        let datagrams = UdpSocket::bind("127.0.0.1:0")?;
        datagrams.set_read_timeout(Some(SOON))?;
        let udp = format!(
            "echo out >/dev/udp/127.0.0.1/{}",
            datagrams.local_addr()?.port()
        );
        let tcp = format!("echo direct >/dev/tcp/127.0.0.1/{raw_port}");
        assert_eq!(shell.ok(&psql(world, "SELECT 'direct'"))?, "direct");
        shell.ok(&udp)?;
        let mut datagram = [0; 8];
        assert_eq!(datagrams.recv(&mut datagram)?, 4);
        shell.ok(&format!(
            "exec 5<>/dev/tcp/127.0.0.1/{raw_port}; echo one >&5"
        ))?;
        let (old, _) = raw.accept()?;
        assert_eq!(line(&old)?, "one");
        // And one that waits for an answer.
        let over = world.place.path("over");
        std::fs::write(&over, "")?;
        std::fs::set_permissions(&over, std::fs::Permissions::from_mode(0o666))?;
        shell.ok(&format!(
            "(exec 6<>/dev/tcp/127.0.0.1/{raw_port}; cat <&6; echo $? >{}) >/dev/null 2>&1 &",
            over.display()
        ))?;
        let (waits, _) = raw.accept()?;
        assert!(world.records()?.sessions()?.is_empty(), "it was recorded");

        let said = world.daemon.ask(&[
            "attach",
            "--cgroup",
            &path,
            "--agent",
            "bot",
            "--label",
            "team=data",
        ])?;
        assert!(said.contains(&path), "{said}");
        assert!(said.contains("cut off (2 were ended)"), "{said}");
        eventually("the end of the wait for an answer", SOON, || {
            Ok(std::fs::read_to_string(&over)?.trim() == "1")
        })?;
        let on_record = format!(r#""to":"{}""#, raw.local_addr()?);
        eventually("the ended connections to be on record", SOON, || {
            let alerts = world.records()?.stream("interceptor:alerts")?;
            Ok(alerts
                .iter()
                .flat_map(|fields| fields.values())
                .map(|value| String::from_utf8_lossy(value))
                .any(|value| value.contains("open-socket") && value.contains(&on_record)))
        })?;

        // New connections are redirected, judged and recorded under its name.
        assert_eq!(shell.ok(&psql(world, "SELECT 'proxied'"))?, "proxied");
        let (_, events) = world.records()?.only_session_of("bot")?;
        let opened = events.first().context("an event")?.meta.to_string();
        let first = facts(&world.daemon, "bot")?;
        let run = first["run"].as_str().context("a run")?.to_owned();
        for word in [r#""team":"data""#, "bot.service"] {
            assert!(opened.contains(word), "{word} in {opened}");
        }
        let sessions = world.records()?.stream("interceptor:sessions")?;
        assert!(
            sessions.iter().any(|fields| fields
                .values()
                .any(|value| String::from_utf8_lossy(value).contains(&run))),
            "its run is not on record"
        );
        // What is no target's is refused, datagrams too, and the old connection is cut off.
        shell.run(&tcp)?;
        assert_eq!(heard(&raw)?, None, "it went round interception");
        shell.fails(&udp)?;
        datagrams.set_read_timeout(Some(A_MOMENT))?;
        assert!(datagrams.recv(&mut datagram).is_err(), "UDP left");
        let complaint = shell.fails("echo two >&5")?;
        assert!(complaint.contains("abort"), "{complaint}");
        for old in [&old, &waits] {
            old.set_read_timeout(Some(A_MOMENT))?;
            let mut old = old;
            assert!(old.read(&mut [0; 8]).is_err(), "an old connection goes on");
        }
        eventually("the refusals to be counted", SOON, || {
            Ok(facts(&world.daemon, "bot")?["refused"].as_u64() > Some(0))
        })?;
        let now = facts(&world.daemon, "bot")?;
        let inside = service.strip_prefix(cgroup::root()?)?.display().to_string();
        assert_eq!(now["selected"], format!("cgroup /{inside}"));
        assert_eq!(now["cgroup"], path);
        assert!(now["processes"].as_u64() > Some(0), "{now}");
        assert!(now["since_ms"].as_u64() > Some(1_500_000_000_000), "{now}");

        // Doctor fails for what a test's machine has not (Redis' standard port), and says all.
        let health = world.daemon.command(&["doctor"])?;
        let health = String::from_utf8_lossy(&health.stdout).into_owned();
        assert!(health.contains("cgroups of others: 1"), "{health}");
        let table = world.daemon.ask(&["agents"])?;
        for word in ["bot  cgroup /", "team=data", "since 20", &path] {
            assert!(table.contains(word), "{word} in {table}");
        }

        // Who is under interception may not ask for release, nor may anybody but root.
        let program = interceptor_tests::daemon::program()?;
        let detach = format!(
            "{} --config {} detach --agent bot",
            program.display(),
            world.daemon.config().display()
        );
        let complaint = shell.fails(&detach)?;
        assert!(complaint.contains("under interception"), "{complaint}");
        let mut other = Shell::start(&made(world, "other")?)?;
        let complaint = other.fails(&detach)?;
        assert!(complaint.contains("only root"), "{complaint}");

        // Dead daemon: nothing connects. The next one takes it over, as the same run.
        world.daemon.kill()?;
        shell.fails(&psql(world, "SELECT 'while down'"))?;
        assert!(!world.postgres.saw("while down"));
        world.daemon.restart()?;
        assert_eq!(shell.ok(&psql(world, "SELECT 'again'"))?, "again");
        assert_eq!(facts(&world.daemon, "bot")?["run"], run);
        recorded(world, "bot", "SELECT 'again'")?;
        shell.run(&tcp)?;
        assert_eq!(heard(&raw)?, None, "it went round interception");

        // Stopped and started, it is another cgroup, and another run.
        drop(shell);
        eventually("the end of the service", SOON, || {
            Ok(std::fs::remove_dir(&service).is_ok())
        })?;
        eventually("its being waited for", SOON, || {
            let now = facts(&world.daemon, "bot")?;
            Ok(
                now["run"].is_null()
                    && now["waits"].as_str().is_some_and(|why| why.contains(&path)),
            )
        })?;
        assert_eq!(pins(world)?, 0, "pins of a cgroup that is gone stay");
        let table = world.daemon.ask(&["agents"])?;
        assert!(table.contains("waits: cgroup /"), "{table}");
        cgroup::make(&service)?;
        eventually("its being attached again", SOON, || {
            let now = facts(&world.daemon, "bot")?;
            Ok(now["run"].is_string() && now["run"] != run)
        })?;
        let mut shell = Shell::start(&service)?;
        assert_eq!(shell.ok(&psql(world, "SELECT 'anew'"))?, "anew");
        recorded(world, "bot", "SELECT 'anew'")?;

        // Detached it is direct again, and stays so.
        let said = world.daemon.ask(&["detach", "--agent", "bot"])?;
        assert!(said.contains(&path), "{said}");
        assert_eq!(pins(world)?, 0);
        assert_eq!(agents(&world.daemon)?, Vec::<Value>::new());
        shell.ok(&tcp)?;
        assert_eq!(heard(&raw)?.as_deref(), Some("direct"));
        world.daemon.restart()?;
        shell.ok(&tcp)?;
        assert_eq!(heard(&raw)?.as_deref(), Some("direct"));
        let alerts = world.records()?.everything()?;
        for words in ["is under interception", "is under interception no more"] {
            assert!(alerts.contains(words), "{words}");
        }

        // Taken out of force with all the rest while it runs, and then not remembered.
        world
            .daemon
            .ask(&["attach", "--cgroup", &path, "--agent", "bot"])?;
        world.daemon.server().stop()?;
        shell.fails(&tcp)?;
        world.daemon.ask(&["doctor", "--remove"])?;
        shell.ok(&tcp)?;
        assert_eq!(heard(&raw)?.as_deref(), Some("direct"));
        world.daemon.restart()?;
        assert_eq!(agents(&world.daemon)?, Vec::<Value>::new());
        Ok(())
    })
}

#[test]
fn what_would_redirect_twice_or_redirect_the_daemon_is_refused() -> Result<()> {
    WORLD.test(|world| {
        let above = made(world, "outer")?;
        let middle = made(world, "outer/middle")?;
        let below = made(world, "outer/middle/inner")?;
        let beside = made(world, "outer/beside")?;
        let root = cgroup::root()?;
        let attach = |path: &Path, agent: &str| -> Result<String> {
            let path = path.display().to_string();
            refused(
                &world.daemon,
                &["attach", "--cgroup", &path, "--agent", agent],
            )
        };
        let middle_path = middle.display().to_string();
        let words = ["attach", "--cgroup", &middle_path, "--agent", "middle"];
        world.daemon.ask(&words)?;
        // Once more is the same.
        world.daemon.ask(&words)?;

        let complaint = attach(&middle, "another")?;
        assert!(complaint.contains("already"), "{complaint}");
        for path in [&above, &below] {
            let complaint = attach(path, "another")?;
            assert!(complaint.contains("under interception"), "{complaint}");
        }
        let complaint = attach(&root, "another")?;
        assert!(complaint.contains("root of all cgroups"), "{complaint}");
        let complaint = attach(&root.join(world.place.name()), "another")?;
        assert!(complaint.contains("`exec`"), "{complaint}");
        let own = cgroup::of_process(world.daemon.server().pid().as_raw().unsigned_abs())?;
        let complaint = attach(&root.join(own.trim_start_matches('/')), "another")?;
        assert!(complaint.contains("daemon's own cgroup"), "{complaint}");
        let complaint = attach(&root.join("no-such-cgroup"), "another")?;
        assert!(complaint.contains("no-such-cgroup"), "{complaint}");
        let complaint = attach(&beside, "no name")?;
        assert!(complaint.contains("cannot name an agent"), "{complaint}");

        // A user's own part of the tree is attached as a whole, or its processes walk out.
        let delegated = made(world, "delegated")?;
        let inside = made(world, "delegated/inside")?;
        std::os::unix::fs::chown(&delegated, Some(1000), None)?;
        let complaint = attach(&inside, "another")?;
        assert!(complaint.contains("uid 1000"), "{complaint}");

        for (words, why) in [
            (
                ["--unit", "no-such-unit"],
                "system.slice/no-such-unit.service",
            ),
            (["--user", "nobody"], "loginctl"),
            (["--user", "no-such-user"], "no user"),
            (["--container", "0123456789ab"], "docker-0123456789ab"),
            (["--container", "no-such-box"], "no container that runs"),
            (["--container", "label="], "12 of its 64 digits"),
            (["--pod", "web"], "kubectl"),
            (["--pid", "4294967"], "no process"),
        ] {
            let words = [&["attach", "--agent", "another"], &words[..]].concat();
            let complaint = refused(&world.daemon, &words)?;
            assert!(complaint.contains(why), "{why:?} in {complaint}");
        }
        let complaint = refused(&world.daemon, &["detach", "--agent", "another"])?;
        assert!(complaint.contains("interceptor agents"), "{complaint}");
        for words in [&["detach"][..], &["attach", "--agent", "a"]] {
            assert_eq!(world.daemon.command(words)?.status.code(), Some(2));
        }

        // Another daemon's redirection is one too.
        let place = Place::new()?;
        let other = Daemon::start(
            &place,
            &world.redis.url(),
            "version: 1\nrules: []\n",
            &json!({}),
        )?;
        let path = beside.display().to_string();
        other.ask(&["attach", "--cgroup", &path, "--agent", "theirs"])?;
        let complaint = attach(&beside, "another")?;
        assert!(complaint.contains("other programs"), "{complaint}");
        other.ask(&["detach", "--cgroup", &path])?;
        drop(other);

        // What an attempt left behind would stand in the way of this one.
        world
            .daemon
            .ask(&["attach", "--cgroup", &path, "--agent", "beside"])?;
        world.daemon.ask(&["detach", "--cgroup", &path])?;
        world.daemon.ask(&["detach", "--agent", "middle"])?;
        Ok(())
    })
}

#[test]
fn a_configured_agent_is_attached_when_its_unit_comes() -> Result<()> {
    WORLD.test(|world| {
        let waiting = facts(&world.daemon, "late")?;
        assert!(waiting["run"].is_null(), "{waiting}");
        assert_eq!(waiting["configured"], true);
        let unit = made(world, "late.service")?;
        eventually("its being attached", SOON, || {
            Ok(facts(&world.daemon, "late")?["run"].is_string())
        })?;
        let mut shell = Shell::start(&unit)?;
        assert_eq!(shell.ok(&psql(world, "SELECT 'late'"))?, "late");
        let (_, events) = world.records()?.only_session_of("late")?;
        let opened = events.first().context("an event")?.meta.to_string();
        assert!(opened.contains(r#""team":"late""#), "{opened}");
        assert!(opened.contains("-late.service"), "{opened}");
        let complaint = refused(&world.daemon, &["detach", "--agent", "late"])?;
        assert!(complaint.contains("intercept.agents"), "{complaint}");

        // A container engine or a systemd inside makes cgroups of its own below it.
        let inner = unit.join("inner");
        cgroup::make(&inner)?;
        let mut shell = Shell::start(&inner)?;
        assert_eq!(shell.ok(&psql(world, "SELECT 'inner'"))?, "inner");
        recorded(world, "late", "SELECT 'inner'")?;

        // A command of the unit's own (`ExecStartPre=`) asks for what is so already.
        let program = interceptor_tests::daemon::program()?;
        let name = format!("{}-late.service", world.place.name());
        let done = Command::new("/bin/sh")
            .args([
                "-c",
                "echo 0 >\"$1/cgroup.procs\" && shift && exec \"$@\"",
                "sh",
            ])
            .arg(&unit)
            .arg(program)
            .arg("--config")
            .arg(world.daemon.config())
            .args(["attach", "--unit", &name, "--agent", "late"])
            .output()?;
        assert!(done.status.success(), "{done:?}");
        Ok(())
    })
}

#[test]
fn a_container_is_found_by_its_id_and_named_on_record() -> Result<()> {
    WORLD.test(|world| {
        let id = format!("{:064x}", u128::from(std::process::id()) << 96 | 0xc0ffee);
        let scope = made(world, &format!("docker.slice/docker-{id}.scope"))?;
        // An engine gives each a network of its own, unless told otherwise.
        let mut alone = Command::new("/bin/sh")
            .args([
                "-c",
                "echo 0 >\"$0/cgroup.procs\" && exec unshare -n sleep 1000",
            ])
            .arg(&scope)
            .spawn()?;
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let network = PathBuf::from(format!("/proc/{}/ns/net", alone.id()));
        eventually("a network of its own", SOON, || {
            Ok(std::fs::read_link(&network)? != own)
        })?;
        let (short, _) = id.split_at(40);
        let said = world
            .daemon
            .ask(&["attach", "--container", short, "--agent", "sandbox"])?;
        assert!(said.contains("network namespace"), "{said}");
        let mut shell = Shell::start(&scope)?;
        assert_eq!(shell.ok(&psql(world, "SELECT 'inside'"))?, "inside");
        let (_, events) = world.records()?.only_session_of("sandbox")?;
        let opened = events.first().context("an event")?.meta.to_string();
        assert!(
            opened.contains(&format!(r#""container":"{id}""#)),
            "{opened}"
        );
        world.daemon.ask(&["detach", "--agent", "sandbox"])?;
        alone.kill()?;
        alone.wait()?;
        Ok(())
    })
}

#[test]
fn processes_that_fork_without_end_are_all_moved() -> Result<()> {
    WORLD.test(|world| {
        let home = made(world, "forks")?;
        let mut shell = Shell::start(&home)?;
        shell.ok("(while :; do (:); (: & :); done) & storm=$!; echo begun")?;
        let pid = shell.pid().to_string();
        world
            .daemon
            .ask(&["attach", "--pid", &pid, "--agent", "storm"])?;
        assert_eq!(cgroup::processes(&home), Vec::<u32>::new());
        assert_eq!(shell.ok(&psql(world, "SELECT 'storm'"))?, "storm");
        recorded(world, "storm", "SELECT 'storm'")?;
        let run = facts(&world.daemon, "storm")?;
        let run = run
            .get("cgroup")
            .and_then(Value::as_str)
            .context("a cgroup")?;
        let run = PathBuf::from(run);
        world.daemon.ask(&["detach", "--pid", &pid])?;
        assert_eq!(cgroup::processes(&run), Vec::<u32>::new());
        shell.ok("kill $storm")?;
        Ok(())
    })
}

#[test]
fn a_process_is_moved_with_its_descendants_unless_sockets_would_stay_outside() -> Result<()> {
    WORLD.test(|world| {
        let home = made(world, "home")?;
        let mut shell = Shell::start(&home)?;
        let pid = shell.pid().to_string();
        let raw = TcpListener::bind("127.0.0.1:0")?;
        let port = raw.local_addr()?.port();
        // A child, and a child's child whose sockets are its own.
        shell.ok("(sleep 1000 & exec sleep 1000) >/dev/null & echo started")?;
        shell.ok(&format!("exec 5<>/dev/tcp/127.0.0.1/{port}"))?;
        let attach = ["attach", "--pid", &pid, "--agent", "moved"];
        eventually(
            "all three",
            SOON,
            || Ok(cgroup::processes(&home).len() == 3),
        )?;
        let complaint = refused(&world.daemon, &attach)?;
        for word in ["descriptor 5", "TCP 127.0.0.1", "bash"] {
            assert!(complaint.contains(word), "{word} in {complaint}");
        }
        assert_eq!(cgroup::processes(&home).len(), 3, "somebody was moved");
        assert_eq!(shell.ok("echo alive")?, "alive");

        shell.ok("exec 5>&-")?;
        world.daemon.ask(&attach)?;
        assert_eq!(cgroup::processes(&home).len(), 0, "somebody was left");
        let now = facts(&world.daemon, "moved")?;
        assert_eq!(now["processes"], 3, "{now}");
        assert_eq!(now["selected"], format!("pid {pid}"));
        assert_eq!(shell.ok(&psql(world, "SELECT 'moved'"))?, "moved");
        world.records()?.only_session_of("moved")?;
        let complaint = refused(&world.daemon, &attach)?;
        assert!(complaint.contains("already"), "{complaint}");

        // And back.
        world.daemon.ask(&["detach", "--pid", &pid])?;
        assert_eq!(cgroup::processes(&home).len(), 3, "not all came back");
        shell.ok(&format!("echo direct >/dev/tcp/127.0.0.1/{port}"))?;
        raw.accept()?;
        assert_eq!(heard(&raw)?.as_deref(), Some("direct"));
        eventually("the end of its run", SOON, || {
            Ok(facts(&world.daemon, "moved").is_err())
        })?;

        // The operator may accept what stays outside, and reads what that is.
        shell.ok(&format!("exec 5<>/dev/tcp/127.0.0.1/{port}"))?;
        let said = world
            .daemon
            .ask(&[&attach[..], &["--allow-open-sockets"]].concat())?;
        assert!(said.contains("descriptor 5"), "{said}");
        shell.run(&format!("echo direct >/dev/tcp/127.0.0.1/{port}"))?;
        raw.accept()?;
        assert_eq!(heard(&raw)?, None, "it went round interception");
        Ok(())
    })
}

#[test]
fn what_cgroups_below_an_agents_did_is_its_own_after_they_are_gone() -> Result<()> {
    WORLD.test(|world| {
        let service = made(world, "whole.service")?;
        let below = service.join("part");
        cgroup::make(&below)?;
        let at = format!("--cgroup={}", service.display());
        world.daemon.ask(&["attach", &at, "--agent", "whole"])?;
        let sends = "echo x > /dev/udp/127.0.0.1/9";
        let refused = |count: u64| {
            let what = format!("{count} refusals of the agent");
            eventually(&what, SOON, || {
                let facts = facts(&world.daemon, "whole")?;
                Ok(facts["coverage"]["refused"]["connect-kind"] == count)
            })
        };
        let mut own = Shell::start(&service)?;
        own.fails(sends)?;
        let mut part = Shell::start(&below)?;
        part.fails(sends)?;
        part.fails(sends)?;
        refused(3)?;
        // Longer than a look at them takes to come.
        std::thread::sleep(std::time::Duration::from_secs(5));
        drop(part);
        eventually("the end of the cgroup below", SOON, || {
            Ok(cgroup::remove_tree(&below).is_ok())
        })?;
        std::thread::sleep(std::time::Duration::from_secs(5));
        refused(3)?;
        own.fails(sends)?;
        refused(4)?;
        world.daemon.ask(&["detach", "--agent", "whole"])?;
        let mut records = world.records()?;
        eventually("what it did in all on record", SOON, || {
            let alerts = records.stream("interceptor:alerts")?;
            Ok(alerts.iter().any(|alert| {
                let text: Vec<_> = alert
                    .values()
                    .map(|one| String::from_utf8_lossy(one))
                    .collect();
                let text = text.join(" ");
                text.contains("coverage") && text.contains("\"connect-kind\":4")
            }))
        })
    })
}

#[test]
fn a_connection_that_only_egress_sees_ends_at_once_and_does_not_wait() -> Result<()> {
    alone(&Plan::default(), |world| {
        let raw = TcpListener::bind("127.0.0.1:0")?;
        let hooks = Hooks::of(&world.place.path("run"));
        let out = hooks.take_out(["connect_v4"])?;
        let connect = format!("exec 5<>/dev/tcp/{}", raw.local_addr()?).replace(':', "/");
        let began = Instant::now();
        let done = world.agent("unseen").run(&["/bin/bash", "-c", &connect])?;
        drop(out);
        assert!(done.stderr.contains("abort"), "{done:?}");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(heard(&raw)?, None, "it went out");
        // Who ends sockets does not end a server of the same address.
        TcpStream::connect(raw.local_addr()?)?;
        eventually("the drop to be on record", SOON, || {
            let alerts = world.records()?.stream("interceptor:alerts")?;
            Ok(alerts
                .iter()
                .flat_map(|fields| fields.values())
                .map(|value| String::from_utf8_lossy(value))
                .any(|value| value.contains("egress, and its connection ended")))
        })
    })
}
