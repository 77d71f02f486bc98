//! What the daemon has given up, as the kernel says of every thread of it; and the admin
//! socket, which asks who it is that asks.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::needs;
use interceptor_tests::world::{Plan, Shared, World};
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
