//! `interceptor exec`: the command becomes an agent, wholly, or is not run.
//!
//! The daemon here is a thread that answers the admin socket's one question with the
//! daemon's own means, so that its lies can be told too.

#![allow(
    clippy::expect_used,
    reason = "helpers of tests, in which clippy.toml allows it"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::{daemon, eventually, needs};
use interceptor_user::agents::{Look, Runs};
use interceptor_user::config::UnixDefault;
use interceptor_user::kernel::{self, Kernel, Options, cgroup};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

/// See `kernel_interception`.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What the daemon of a test does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// What it should.
    Honest,
    /// Names a run's cgroup, and does not move the process there.
    NeverPlaces,
    /// Moves the process into a cgroup that no program stands at.
    PlacesOutside,
    /// Says no.
    Refuses,
}

struct House {
    kernel: Arc<Kernel>,
    runs: Arc<Runs>,
    options: Options,
    config: PathBuf,
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl House {
    fn new(manner: Manner) -> Result<Self> {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir()?;
        // The agents' user must get to the socket.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let options = Options {
            cgroup: format!("itest-exec-{}", std::process::id()),
            runtime_dir: folder.path().join("run"),
            max_flows: 64,
            unix: UnixDefault::Allow,
            goes_direct: false,
        };
        let kernel = Arc::new(Kernel::load(&options)?);
        let runs = Arc::new(Runs::open(
            &kernel,
            &options.runtime_dir,
            Look::here(&kernel),
        )?);
        let socket = options.runtime_dir.join("admin.sock");
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))?;
        let answering = Arc::downgrade(&runs);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(runs) = answering.upgrade() else {
                    return;
                };
                let _ = answer(&runs, manner, stream);
            }
        });
        let config = folder.path().join("interceptor.yaml");
        std::fs::write(
            &config,
            json!({ "runtime_dir": options.runtime_dir, "state_dir": folder.path() }).to_string(),
        )?;
        Ok(Self {
            kernel,
            runs,
            options,
            config,
            folder,
            _alone: alone,
        })
    }

    fn exec(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(daemon::program()?);
        command
            .arg("--config")
            .arg(&self.config)
            .arg("exec")
            .args(words)
            .current_dir("/");
        Ok(command)
    }

    /// A shell script as an agent of the ordinary user.
    fn script(&self, script: &str) -> Result<Output> {
        needs::ordinary_user()?;
        let words = ["--agent", "tester", "--label", "team=data"];
        let words = [
            &words[..],
            &[
                "--user",
                needs::ORDINARY_USER,
                "--",
                "/bin/sh",
                "-c",
                script,
            ],
        ];
        let mut command = self.exec(&words.concat())?;
        // A descriptor that would be inherited.
        // SAFETY: one system call, which does not allocate.
        unsafe {
            command.pre_exec(|| {
                if libc::dup2(2, 9) == 9 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        command
            .stdin(Stdio::null())
            .output()
            .context("running interceptor exec")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let removed = eventually("the end of the agents", SOON, || {
            self.runs.sweep()?;
            // The kernel's lock is still held by `self.kernel`, so only what a daemon
            // would leave behind is cleared away here.
            Ok(!cgroup::is_populated(self.kernel.agents_cgroup())?)
        });
        let root = cgroup::root().expect("cgroup2");
        let _ = cgroup::place(&root, std::process::id());
        let _ = cgroup::remove_tree(&root.join(format!("{}-proxy", self.options.cgroup)));
        let bpf = self.options.runtime_dir.join("bpf");
        let _ = nix::mount::umount2(&bpf, nix::mount::MntFlags::MNT_DETACH);
        let _ = cgroup::remove_tree(self.kernel.agents_cgroup());
        let _ = &self.folder;
        if !std::thread::panicking() {
            removed.expect("the agents end");
        }
    }
}

fn answer(runs: &Runs, manner: Manner, mut stream: UnixStream) -> Result<()> {
    let peer = getsockopt(&stream.as_fd(), PeerCredentials)?;
    let pid = u32::try_from(peer.pid())?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let request: Value = serde_json::from_str(&line)?;
    let exec = request.get("exec").context("an exec request")?;
    if manner == Manner::Refuses {
        writeln!(stream, "{}", json!({ "error": "not today" }))?;
        return Ok(());
    }
    let labels: BTreeMap<String, String> =
        serde_json::from_value(exec.get("labels").cloned().unwrap_or_default())?;
    let agent = exec
        .get("agent")
        .and_then(Value::as_str)
        .context("a name")?;
    let run = runs.begin(agent, labels, peer.uid())?;
    let mut named = run.cgroup.clone();
    match manner {
        Manner::Honest => runs.place(&run, pid)?,
        Manner::PlacesOutside => {
            named = cgroup::root()?.join("itest-exec-outside");
            cgroup::make(&named)?;
            cgroup::place(&named, pid)?;
        }
        Manner::NeverPlaces | Manner::Refuses => {}
    }
    let environment = json!({ "SSL_CERT_FILE": "/authority.pem" });
    writeln!(
        stream,
        "{}",
        json!({ "run": run.id, "cgroup": named, "environment": environment })
    )?;
    Ok(())
}

fn with_kernel(test: impl FnOnce() -> Result<()>) {
    if needs::kernel().expect("this test needs the kernel") {
        test().expect("the test runs");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_command_is_in_its_cgroup_as_its_user_with_nothing_to_gain() {
    with_kernel(|| {
        let house = House::new(Manner::Honest)?;
        let done = house.script(
            "id -u; grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status; \
             sed -n 's/^0:://p' /proc/self/cgroup; \
             for n in 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$n ] || echo leaked $n; done; \
             echo $SSL_CERT_FILE $USER",
        )?;
        let out = text(&done.stdout);
        assert!(done.status.success(), "{out} {}", text(&done.stderr));
        let user = needs::ordinary_user()?;
        let none = "0000000000000000";
        for line in [
            user.uid.to_string(),
            format!("CapInh:\t{none}"),
            format!("CapPrm:\t{none}"),
            format!("CapEff:\t{none}"),
            format!("CapBnd:\t{none}"),
            format!("CapAmb:\t{none}"),
            "NoNewPrivs:\t1".to_owned(),
            format!("/authority.pem {}", user.name),
        ] {
            assert!(out.lines().any(|have| have == line), "{line:?} in {out}");
        }
        assert!(!out.contains("leaked"), "{out}");
        let prefix = format!("/{}/tester-", house.options.cgroup);
        assert!(out.contains(&prefix), "{prefix} in {out}");
        let groups = out.lines().find(|line| line.starts_with("Groups:"));
        let only = format!("Groups:\t{} ", user.gid);
        assert_eq!(groups, Some(only.as_str()), "root's groups stayed");
        Ok(())
    });
}

#[test]
fn an_agents_connection_is_known_by_run_label_and_executable() {
    with_kernel(|| {
        let house = House::new(Manner::Honest)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        house.kernel.adopt_listener(listener.as_fd())?;
        house.kernel.set_port(listener.local_addr()?.port())?;
        let words = ["--agent", "tester", "--label", "team=data", "--user"];
        let helper = env!("CARGO_BIN_EXE_kernel-helper");
        let words = [&words[..], &[needs::ORDINARY_USER, "--", helper, "agent"]].concat();
        needs::ordinary_user()?;
        let mut child = house
            .exec(&words)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("input")?;
        writeln!(input, "begin 1 203.0.113.7:5432")?;
        let (stream, _) = listener.accept()?;
        let origin = house.kernel.origin(stream.as_fd())?.context("an origin")?;
        assert_eq!(origin.pid, child.id(), "exec stood between");
        let identity = house.runs.identify(&origin)?;
        let principal = &identity.principal;
        assert_eq!(principal.agent, "tester");
        assert_eq!(principal.labels["team"], "data");
        assert_eq!(principal.user.as_deref(), Some(needs::ORDINARY_USER));
        assert_eq!(principal.exe.as_deref(), Some(helper));
        assert_eq!(
            principal.command_line.as_deref(),
            Some(format!("{helper} agent").as_str())
        );
        let run = identity.run.clone().context("a run")?;
        assert_eq!(
            principal.cgroup,
            Some(format!("/{}/tester-{run}", house.options.cgroup))
        );
        assert_eq!(
            identity.process["exe_sha256"].as_str().map(str::len),
            Some(64)
        );
        assert_eq!(identity.process["parents"][0]["pid"], std::process::id());

        // The run is over when its last process is.
        assert_eq!(house.runs.sweep()?, []);
        drop(input);
        child.wait()?;
        eventually("the end of the run", SOON, || {
            Ok(house.runs.sweep()?.iter().any(|over| over.id == run))
        })?;
        assert_eq!(house.runs.list(), []);
        Ok(())
    });
}

#[test]
fn exit_status_and_signals_are_the_commands_own() {
    with_kernel(|| {
        let house = House::new(Manner::Honest)?;
        assert_eq!(house.script("exit 7")?.status.code(), Some(7));
        assert_eq!(
            house.script("kill -TERM $$")?.status.signal(),
            Some(libc::SIGTERM)
        );
        let user = ["--user", needs::ORDINARY_USER, "--"];
        let run = |command: &str| -> Result<Output> {
            Ok(house.exec(&[&user[..], &[command]].concat())?.output()?)
        };
        let missing = run("/no/such/command")?;
        assert_eq!(missing.status.code(), Some(127));
        assert!(text(&missing.stderr).contains("/no/such/command"));
        assert_eq!(run("/etc/passwd")?.status.code(), Some(126));
        Ok(())
    });
}

#[test]
fn root_is_only_used_where_it_is_named_and_then_without_capabilities() {
    with_kernel(|| {
        let house = House::new(Manner::Honest)?;
        let marker = house.folder.path().join("ran");
        let touch = ["--", "touch", marker.to_str().context("a path")?];
        let refused = house.exec(&touch)?.output()?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("--user"), "{refused:?}");
        assert!(!marker.exists(), "the command was run");

        let named = [
            "--user",
            "root",
            "--",
            "grep",
            "CapEff",
            "/proc/self/status",
        ];
        let done = house.exec(&named)?.output()?;
        assert_eq!(text(&done.stdout).trim(), "CapEff:\t0000000000000000");
        Ok(())
    });
}

#[test]
fn where_interception_is_not_in_force_the_command_is_not_run() {
    with_kernel(|| {
        for (manner, message) in [
            (Manner::NeverPlaces, "where the daemon said it put it"),
            (Manner::PlacesOutside, "do not answer"),
            (Manner::Refuses, "not today"),
        ] {
            let house = House::new(manner)?;
            let done = house.script("echo ran")?;
            assert_eq!(done.status.code(), Some(1), "{done:?}");
            assert_eq!(text(&done.stdout), "");
            assert!(text(&done.stderr).contains(message), "{done:?}");
            let outside = cgroup::root()?.join("itest-exec-outside");
            eventually("the end of exec", SOON, || {
                cgroup::remove_tree(&outside)?;
                Ok(true)
            })?;
        }
        Ok(())
    });
}

#[test]
fn without_a_daemon_the_command_is_not_run_and_the_message_is_plain() {
    with_kernel(|| {
        let house = House::new(Manner::Honest)?;
        std::fs::remove_file(house.options.runtime_dir.join("admin.sock"))?;
        let done = house.script("echo ran")?;
        assert_eq!(done.status.code(), Some(1));
        assert_eq!(text(&done.stdout), "");
        let complaint = text(&done.stderr);
        assert!(complaint.contains("interceptor run"), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        Ok(())
    });
}

#[test]
fn a_socket_from_outside_is_no_agents_standard_input() {
    with_kernel(|| {
        let house = House::new(Manner::Honest)?;
        let outside = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(outside.local_addr()?)?;
        let words = ["--user", needs::ORDINARY_USER, "--", "echo", "ran"];
        let done = house.exec(&words)?.stdin(OwnedFd::from(stream)).output()?;
        assert_eq!(done.status.code(), Some(1));
        assert_eq!(text(&done.stdout), "");
        assert!(text(&done.stderr).contains("descriptor 0"), "{done:?}");
        Ok(())
    });
}

#[test]
fn a_run_survives_its_daemon_and_is_known_to_the_next_one() {
    with_kernel(|| {
        let house = House::new(Manner::Honest)?;
        let run = house.runs.begin("tester", BTreeMap::new(), 0)?;
        let look = Look::here(&house.kernel);
        let next = Runs::open(&house.kernel, &house.options.runtime_dir, look)?;
        assert_eq!(next.list(), std::slice::from_ref(&run));
        assert!(matches!(
            kernel::remove(&house.options),
            Err(kernel::KernelError::InUse { .. })
        ));
        assert_eq!(next.sweep()?, [run]);
        Ok(())
    });
}
