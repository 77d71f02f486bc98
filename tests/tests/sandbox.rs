//! What the daemon has given up, as the kernel says of every thread of it; and the admin
//! socket, which asks who it is that asks.

use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::program;
use interceptor_tests::needs;
use interceptor_tests::place::Place;
use interceptor_tests::world::{Plan, Shared, World};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

static WORLD: Shared = Shared::new(Plan::default);

/// A field of every thread's `status`.
fn of_threads(pid: i32, field: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else {
            continue;
        };
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        found.push(line.context("no such field")?.trim().to_owned());
    }
    ensure!(found.len() > 4, "{} threads", found.len());
    Ok(found)
}

fn pid(world: &World) -> i32 {
    world.daemon.server().pid().as_raw()
}

/// Those of the documentation: `docs/operations.md`.
const KEPT: [(&str, u32); 3] = [
    ("CAP_BPF", 39),
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_BIND_SERVICE", 10),
];
/// Of the looker: also those.
const LOOKERS: [(&str, u32); 3] = [
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_SYS_PTRACE", 19),
];

#[test]
fn no_thread_of_the_daemon_has_more_than_is_documented() -> Result<()> {
    WORLD.test(|world| {
        let mask = KEPT.iter().fold(0_u64, |mask, (_, bit)| mask | 1 << bit);
        for field in ["CapEff:", "CapPrm:", "CapBnd:"] {
            for has in of_threads(pid(world), field)? {
                let has = u64::from_str_radix(&has, 16)?;
                assert_eq!(has & !mask, 0, "{field} {has:x}");
            }
        }
        for (field, wanted) in [
            ("CapInh:", "0000000000000000"),
            ("NoNewPrivs:", "1"),
            ("Seccomp:", "2"),
        ] {
            let all = of_threads(pid(world), field)?;
            assert!(all.iter().all(|one| one == wanted), "{field} {all:?}");
        }
        let status: Value = serde_json::from_str(&world.daemon.ask(&["status", "--json"])?)?;
        let names: Vec<&str> = KEPT.iter().map(|(name, _)| *name).collect();
        assert_eq!(status["sandbox"]["capabilities"], json!(names));
        assert_eq!(status["sandbox"]["seccomp"], true);
        Ok(())
    })
}

#[test]
fn the_looker_has_what_looking_takes_and_the_daemon_has_not() -> Result<()> {
    WORLD.test(|world| {
        let status: Value = serde_json::from_str(&world.daemon.ask(&["status", "--json"])?)?;
        let pid = status.pointer("/looker/pid").and_then(Value::as_i64);
        let said = std::fs::read_to_string(format!("/proc/{}/status", pid.context("no looker")?))?;
        let mask = LOOKERS.iter().fold(0_u64, |mask, (_, bit)| mask | 1 << bit);
        for field in ["CapEff:", "CapPrm:", "CapBnd:"] {
            let has = said.lines().find_map(|line| line.strip_prefix(field));
            let has = u64::from_str_radix(has.context("no such field")?.trim(), 16)?;
            assert_eq!(has & !mask, 0, "{field} {has:x}");
        }
        ensure!(said.contains("NoNewPrivs:\t1") && said.contains("Seccomp:\t2"));
        let names: Vec<&str> = LOOKERS.iter().map(|(name, _)| *name).collect();
        assert_eq!(status["looker"]["capabilities"], json!(names));
        Ok(())
    })
}

/// What a command says that has what is left to the daemon: that, or nothing.
fn confined(world: &World, words: &[&str]) -> Result<Option<String>> {
    let mut all = vec!["confined", "--"];
    all.extend(words);
    let done = world.daemon.command(&all)?;
    let said = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        ensure!(said.contains("Permission denied"), "{words:?}: {said}");
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&done.stdout).into_owned()))
}

#[test]
fn the_daemon_opens_its_own_files_and_neither_keys_nor_what_others_have() -> Result<()> {
    WORLD.test(|world| {
        let status: Value = serde_json::from_str(&world.daemon.ask(&["status", "--json"])?)?;
        assert_eq!(status["sandbox"]["landlock"], true);
        let other = world.place.file("of-somebody-else", "not the daemon's")?;
        let at = |name: &str| world.place.path(name).display().to_string();
        let of = |which: &str, name: &str| -> Result<String> {
            let pid = status.pointer(which).and_then(Value::as_i64);
            Ok(format!("/proc/{}/{name}", pid.context("no process")?))
        };
        let own = std::process::id();
        for hidden in [
            at("state/ca/key.pem"),
            at("state/ssh/ca"),
            at("state/mask.key"),
            other.display().to_string(),
            of("/keeper/pid", "mem")?,
            of("/keeper/pid", "environ")?,
            of("/looker/pid", "mem")?,
            of("/looker/pid", "environ")?,
            of("/pid", "environ")?,
            format!("/proc/{own}/environ"),
            format!("/proc/{own}/root/etc/hostname"),
        ] {
            assert_eq!(confined(world, &["cat", &hidden])?, None, "{hidden}");
            // Root may, or nothing was kept from anybody.
            let file = std::fs::File::open(&hidden);
            ensure!(file.is_ok(), "{hidden}: {file:?}");
        }
        let exe = format!("/proc/{own}/exe");
        ensure!(std::fs::read_link(&exe).is_ok());
        let done = world.daemon.command(&["confined", "readlink", &exe])?;
        ensure!(!done.status.success(), "it may not know anybody");
        for written in [at("state/ca/new"), at("state/new"), at("new")] {
            assert_eq!(confined(world, &["touch", &written])?, None, "{written}");
        }
        for moved in ["state/ca", "state/ssh"] {
            let to = at("run/taken");
            let done = world.daemon.command(&["confined", "mv", &at(moved), &to])?;
            ensure!(!done.status.success() && world.place.path(moved).is_dir());
        }
        // Its own.
        for open in [
            at("state/evidence/keys"),
            at("run/ca.pem"),
            "/etc/hosts".to_owned(),
        ] {
            let said = confined(world, &["cat", &open])?;
            ensure!(said.is_some_and(|said| !said.is_empty()), "{open}");
        }
        for written in [at("state/spool/new"), at("run/new")] {
            ensure!(
                confined(world, &["touch", &written])?.is_some(),
                "{written}"
            );
            std::fs::remove_file(written)?;
        }
        Ok(())
    })
}

#[test]
fn the_looker_opens_and_runs_what_the_configuration_names_and_nothing_else() -> Result<()> {
    let place = Place::new()?;
    let named = place.file("named", "of the configuration")?;
    let other = place.file("other", "of nobody")?;
    let mut looker = Asked::start(&json!({
        "cgroups": null, "files": [named], "commands": [["echo", "said"]],
        "capabilities": true, "seccomp": true,
    }))?;
    assert_eq!(
        looker.ask(&json!({"open": {"path": named}}))?,
        json!("opened")
    );
    let refused = json!({"not_opened": libc::EACCES});
    for path in [
        other.display().to_string(),
        format!("{}/../other", place.folder().display()),
    ] {
        assert_eq!(
            looker.ask(&json!({"open": {"path": path}}))?,
            refused,
            "{path}"
        );
    }
    let echo = |word: &str| json!({"run": {"line": ["echo", word]}});
    assert_eq!(looker.ask(&echo("said"))?, json!({"printed": "said"}));
    for request in [
        echo("another"),
        json!({"place": {"to": "/sys/fs/cgroup", "pid": 1}}),
        json!({"see": {"pid": 1, "cgroup_id": 1}}),
    ] {
        let said = looker.ask(&request)?;
        ensure!(said.get("refused").is_some(), "{request}: {said}");
    }
    // What it was not made to answer ends the line, and not the looker.
    ensure!(looker.ask(&json!({"shell": {"line": "id"}})).is_err());
    looker.line = looker.another_line()?;
    assert_eq!(looker.ask(&echo("said"))?, json!({"printed": "said"}));
    Ok(())
}

/// A looker, asked by somebody who has taken the daemon over.
struct Asked {
    daemon: UnixStream,
    line: UnixStream,
    child: std::process::Child,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Asked {
    fn start(plan: &Value) -> Result<Self> {
        let (mut daemon, its) = UnixStream::pair()?;
        let child = Command::new(program()?)
            .arg("look")
            .stdin(Stdio::from(OwnedFd::from(its)))
            .spawn()?;
        let (line, _) = UnixStream::pair()?;
        send(&mut daemon, plan)?;
        receive(&mut daemon)?;
        let mut asked = Self {
            daemon,
            line,
            child,
        };
        asked.line = asked.another_line()?;
        Ok(asked)
    }

    fn another_line(&self) -> Result<UnixStream> {
        let (ours, its) = UnixStream::pair()?;
        ours.set_read_timeout(Some(Duration::from_secs(20)))?;
        let its = [its.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&its)];
        let data = [IoSlice::new(b"d")];
        sendmsg::<()>(
            self.daemon.as_raw_fd(),
            &data,
            &rights,
            MsgFlags::empty(),
            None,
        )?;
        Ok(ours)
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        send(&mut self.line, request)?;
        let answer = receive(&mut self.line)?;
        if answer == "opened" {
            // The descriptor comes with a byte, and is closed where nobody takes it.
            self.line.read_exact(&mut [0])?;
        }
        Ok(answer)
    }
}

fn send(stream: &mut UnixStream, message: &Value) -> Result<()> {
    let text = message.to_string();
    stream.write_all(&u32::try_from(text.len())?.to_be_bytes())?;
    Ok(stream.write_all(text.as_bytes())?)
}

fn receive(stream: &mut UnixStream) -> Result<Value> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut text = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[test]
fn the_memory_of_the_daemon_is_not_for_who_runs_as_the_same_user() -> Result<()> {
    WORLD.test(|world| {
        // Of a process that cannot be dumped, these belong to root, whoever runs it.
        let memory = std::fs::metadata(format!("/proc/{}/mem", pid(world)))?;
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&memory), 0);
        let limits = std::fs::read_to_string(format!("/proc/{}/coredump_filter", pid(world)));
        ensure!(limits.is_ok(), "root may still look");
        Ok(())
    })
}

#[test]
fn another_user_may_ask_how_the_daemon_is_and_nothing_that_is_an_operators() -> Result<()> {
    WORLD.test(|world| {
        let user = needs::ordinary_user()?;
        let ask = |request: &Value| -> Result<String> {
            let socket = world.place.path("run/admin.sock");
            let program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                           s.sendall(sys.argv[2].encode() + b'\\n'); print(s.makefile().readline())";
            let output = Command::new("/usr/bin/python3")
                .args(["-c", program])
                .arg(&socket)
                .arg(request.to_string())
                .uid(user.uid.as_raw())
                .gid(user.gid.as_raw())
                .current_dir("/")
                .output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        assert!(ask(&json!({"status": {}}))?.contains("rules_digest"));
        // Of these the user's own, of which there are none.
        assert!(ask(&json!({"flows": {}}))?.contains(r#"{"flows":[]}"#));
        assert!(ask(&json!({"agents": {}}))?.contains(r#"{"agents":[]}"#));
        for request in [
            json!({"reload": {}}),
            json!({"kill": {"session": "01890000-0000-7000-8000-000000000000"}}),
        ] {
            let said = ask(&request)?;
            assert!(said.contains("only root"), "{request}: {said}");
        }
        // Where a daemon hands over, an ordinary user does not even connect.
        let handover = world.place.path("run/handover.sock");
        let refused = Command::new("/usr/bin/python3")
            .args(["-c", "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"])
            .arg(handover)
            .uid(user.uid.as_raw())
            .gid(user.gid.as_raw())
            .current_dir("/")
            .output()?;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("PermissionError"), "{said}");
        Ok(())
    })
}
