//! Containers that are meant by a name or a label: what the engine says, and how soon one
//! that starts is under interception. With Podman itself, and with an engine whose answers
//! are written here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::{Daemon, SOON};
use interceptor_tests::nginx::Nginx;
use interceptor_tests::place::Place;
use interceptor_tests::process::{Server, Start};
use interceptor_tests::records::Records;
use interceptor_tests::redis::Redis;
use interceptor_tests::web::{all_targets, target};
use interceptor_tests::{eventually, needs};
use interceptor_user::kernel::cgroup;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const RULES: &str = "version: 1\nrules: []\n";

/// An engine that says what it is told to.
struct Engine {
    socket: PathBuf,
    says: Arc<Mutex<Value>>,
}

impl Engine {
    fn start(place: &Place) -> Result<Self> {
        let socket = place.path("engine.sock");
        let listener = UnixListener::bind(&socket)?;
        let says = Arc::new(Mutex::new(json!([])));
        let answer = Arc::clone(&says);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                let _ = reader.read_line(&mut line);
                let body = answer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .to_string();
                let found = line.starts_with("GET /containers/json?all=true HTTP/1.0");
                let status = if found { "200 OK" } else { "404 Not Found" };
                let _ = write!(
                    reader.get_mut(),
                    "HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{body}"
                );
            }
        });
        Ok(Self { socket, says })
    }

    fn say(&self, list: Value) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }
}

fn agents(daemon: &Daemon) -> Result<Vec<Value>> {
    let all: Value = serde_json::from_str(&daemon.ask(&["agents", "--json"])?)?;
    let list = all.get("agents").unwrap_or(&all);
    Ok(list.as_array().context("no list")?.clone())
}

/// Cgroups of an agent's runs.
fn cgroups(daemon: &Daemon, agent: &str) -> Result<Vec<String>> {
    let all = agents(daemon)?;
    let of = all.iter().filter(|one| one["agent"] == agent);
    let mut cgroups: Vec<String> = of
        .filter_map(|one| Some(one["cgroup"].as_str()?.to_owned()))
        .collect();
    cgroups.sort();
    Ok(cgroups)
}

/// A cgroup as an engine makes it, which goes with the test.
struct Scope(PathBuf);

impl Scope {
    fn make(id: &str) -> Result<Self> {
        let slice = cgroup::root()?.join("docker");
        let _ = std::fs::create_dir(&slice);
        let path = slice.join(id);
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn id(number: u8) -> String {
    format!("{:032x}{number:032x}", std::process::id())
}

#[test]
fn containers_are_meant_by_label_and_by_name_as_their_engine_says() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let place = Place::new()?;
    let redis = Redis::start(&place)?;
    let engine = Engine::start(&place)?;
    let listed = |number: u8, name: &str, labels: Value| json!({"Id": id(number), "Names": [format!("/{name}")], "Labels": labels, "State": "running"});
    let mut list = vec![
        listed(1, "web", json!({"agent": "yes"})),
        listed(2, "other", json!({"tier": "agent"})),
        listed(3, "not-started", json!({"agent": "yes"})),
    ];
    engine.say(json!(list));
    let (first, other) = (Scope::make(&id(1))?, Scope::make(&id(2))?);
    let config = json!({ "intercept": {
        "engines": [engine.socket, place.path("no-such-engine.sock")],
        "agents": [{ "name": "boxes", "container": "label=agent", "labels": { "team": "x" } }],
    }});
    let daemon = Daemon::start(&place, &redis.url(), RULES, &config)?;
    daemon.watch(|| {
        assert_eq!(cgroups(&daemon, "boxes")?, [first.path()]);
        // One that comes later is there at once: the kernel tells of its cgroup.
        list.push(listed(4, "later", json!({"agent": ""})));
        engine.say(json!(list));
        let begun = Instant::now();
        let later = Scope::make(&id(4))?;
        eventually("the later one", SOON, || {
            Ok(cgroups(&daemon, "boxes")? == [first.path(), later.path()])
        })?;
        #[allow(clippy::print_stderr, reason = "a figure for whoever looks")]
        {
            eprintln!(
                "seen attached {:?} after its cgroup was made",
                begun.elapsed()
            );
        }
        // By name, of what is there.
        let said = daemon.ask(&["attach", "--container", "other", "--agent", "named"])?;
        ensure!(said.contains(&other.path()), "{said}");
        let refused = daemon.command(&["attach", "--container", "oth", "--agent", "x"])?;
        ensure!(!refused.status.success());
        // An engine that says nothing takes nothing out of interception.
        engine.say(json!({"message": "no list"}));
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(cgroups(&daemon, "boxes")?.len(), 2);
        assert_eq!(cgroups(&daemon, "named")?, [other.path()]);
        daemon.ask(&["detach", "--container", "other"])?;
        assert_eq!(cgroups(&daemon, "named")?, [""; 0]);
        Ok(())
    })
}

/// Podman, with everything of its own below a folder.
struct Podman {
    folder: PathBuf,
    service: Server,
}

impl Podman {
    fn start(place: &Place) -> Result<Self> {
        let folder = place.subfolder("podman")?;
        let rootfs = place.subfolder("podman/rootfs/bin")?;
        std::fs::copy("/usr/bin/busybox", rootfs.join("busybox"))
            .context("install busybox-static: `cargo xtask install servers`")?;
        let mut command = Self::of(&folder);
        command
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}", folder.join("podman.sock").display()));
        let log = place.path("podman.log");
        let mut service = Server::start(
            &Start {
                name: "podman",
                log: &log,
                user: None,
                stop: Signal::SIGTERM,
                orphaned: Signal::SIGKILL,
            },
            command,
        )?;
        let socket = folder.join("podman.sock");
        service.wait_until(|| socket.exists())?;
        Ok(Self { folder, service })
    }

    fn of(folder: &std::path::Path) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(folder.join("root"))
            .arg("--runroot")
            .arg(folder.join("run"))
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(["--runtime", "runc", "--events-backend", "file"]);
        command
    }

    /// Runs a script of busybox's shell in a container with the host's network.
    fn run(&self, words: &[&str], script: &str) -> Result<String> {
        let mut command = Self::of(&self.folder);
        command
            .args(["run", "--network", "host"])
            .args([
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=1024:1024",
            ])
            .args(words)
            .arg("--rootfs")
            .arg(self.folder.join("rootfs"))
            .args(["/bin/busybox", "sh", "-c", script]);
        let done = command.output().context("starting podman")?;
        ensure!(
            done.status.success(),
            "podman: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = Self::of(&self.folder)
            .args(["rm", "--all", "--force", "--time", "0"])
            .output();
        let _ = self.service.stop();
    }
}

#[test]
fn a_container_of_podman_is_intercepted_by_its_label() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let place = Place::new()?;
    let redis = Redis::start(&place)?;
    let nginx = Nginx::start(&place, "nginx")?;
    let podman = Podman::start(&place)?;
    let label = place.name();
    let mut config = all_targets(&nginx, &place)?;
    let one = target("pages", nginx.port, &json!({}));
    let parent = format!("/{label}-parent");
    let path = cgroup::root()?.join(parent.trim_start_matches('/'));
    std::fs::create_dir(&path)?;
    config["targets"] = json!([one]);
    config["intercept"] = json!({
        "engines": [podman.folder.join("podman.sock")],
        "agents": [
            { "name": "labelled", "container": format!("label={label}") },
            { "name": "below", "cgroup": parent },
        ],
    });
    let daemon = Daemon::start(&place, &redis.url(), RULES, &config)?;
    let done = daemon.watch(|| {
        let get = |path: &str| {
            format!(
                "/bin/busybox wget -q -O /dev/null http://127.0.0.1:{}/{path}",
                nginx.port
            )
        };
        // It asks with its very first instruction, and again when it is known.
        let script = format!(
            "{}; while /bin/busybox true; do {}; /bin/busybox sleep 0.2; done",
            get("first"),
            get("again")
        );
        podman.run(&["-d", "--label", label], &script)?;
        eventually("its being attached", SOON, || {
            Ok(cgroups(&daemon, "labelled")?.len() == 1)
        })?;
        Records::of(&redis)?.closed_sessions_of("labelled", 1)?;
        let first = Records::of(&redis)?.everything()?.contains("/first");
        #[allow(clippy::print_stderr, reason = "a figure for whoever looks")]
        {
            eprintln!("the request of its first instruction was intercepted: {first}");
        }
        // Where that moment must not be: below a cgroup that is attached and stays.
        let script = get("closed");
        podman.run(&["--rm", "--cgroup-parent", &parent], &script)?;
        Records::of(&redis)?.only_session_of("below")?;
        assert_eq!(nginx.asked_for("/closed")?.len(), 1);
        Ok(())
    });
    drop(podman);
    for _ in 0..50 {
        if std::fs::remove_dir(&path).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    done
}
