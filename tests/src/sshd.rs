//! A private OpenSSH server: keys and passwords of its own, on a port of its own.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::{Agent, Finished};
use crate::daemon::{Daemon, SOON};
use crate::eventually;
use crate::needs;
use crate::place::{self, Place};
use crate::process::{Server, Start};
use crate::records::Records;
use crate::redis::Redis;

/// A running sshd.
#[derive(Debug)]
pub struct Sshd {
    server: Server,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// Who may log on.
    pub user: String,
    /// The private key that it accepts, for the proxy alone.
    pub key: PathBuf,
    /// The private key of an authority whose certificates it accepts.
    pub authority: PathBuf,
    /// A `known_hosts` with its host key.
    pub known_hosts: PathBuf,
    /// Files that its user may read and write.
    pub files: PathBuf,
    /// Its log.
    pub log: PathBuf,
    host_key: PathBuf,
}

impl Sshd {
    /// Starts one.
    ///
    /// # Errors
    /// When it is not installed, or cannot be started.
    pub fn start(place: &Place, name: &str) -> Result<Self> {
        Self::start_with(place, name, "")
    }

    /// Starts one with further settings: lines of `sshd_config` that go before its own,
    /// and so are those that hold.
    ///
    /// # Errors
    /// As above.
    pub fn start_with(place: &Place, name: &str, settings: &str) -> Result<Self> {
        let user = needs::remote_user()?;
        let folder = place.subfolder(name)?;
        let host_key = folder.join("host_ed25519");
        let key = folder.join("user_ed25519");
        let authority = folder.join("authority_ed25519");
        for key in [&host_key, &key, &authority] {
            keygen(key)?;
        }
        let port = place::free_port()?;
        let public = std::fs::read_to_string(host_key.with_extension("pub"))?;
        let known_hosts = folder.join("known_hosts");
        std::fs::write(&known_hosts, format!("[127.0.0.1]:{port} {public}"))?;
        let authorized = folder.join("authorized_keys");
        std::fs::copy(key.with_extension("pub"), &authorized)?;
        let files = folder.join("files");
        std::fs::create_dir_all(&files)?;
        nix::unistd::chown(&files, Some(user.uid), Some(user.gid))?;
        std::fs::create_dir_all("/run/sshd").context("making sshd's folder")?;
        let log = place.path(format!("{name}.log"));
        let config = format!(
            "{settings}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nPidFile none\n\
             AuthorizedKeysFile {authorized}\nTrustedUserCAKeys {authority}.pub\nStrictModes no\nUsePAM no\nLogLevel VERBOSE\n\
             PasswordAuthentication yes\nKbdInteractiveAuthentication no\n\
             PermitRootLogin no\nAcceptEnv LANG LC_* TEST_*\nSubsystem sftp internal-sftp\n\
             AllowTcpForwarding yes\nAllowAgentForwarding yes\nPermitTTY yes\n\
             PrintMotd no\n",
            host = host_key.display(),
            authorized = authorized.display(),
            authority = authority.display(),
        );
        let config = place.file(&format!("{name}.conf"), &config)?;
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(config);
        let start = Start {
            name: "sshd",
            log: &log,
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGTERM,
        };
        let mut server = Server::start(&start, command)
            .context("no sshd here: install it with `cargo xtask install servers`")?;
        server.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self {
            server,
            port,
            user: user.name,
            key,
            authority,
            known_hosts,
            files,
            log,
            host_key,
        })
    }

    /// Sets it up anew: from now on its host key is another.
    ///
    /// # Errors
    /// When it does not show the new one.
    pub fn renew(&self) -> Result<()> {
        for old in [self.host_key.clone(), self.host_key.with_extension("pub")] {
            std::fs::remove_file(old)?;
        }
        keygen(&self.host_key)?;
        let public = std::fs::read_to_string(self.host_key.with_extension("pub"))?;
        let key = public.split(' ').nth(1).context("no key was made")?;
        self.server.signal(Signal::SIGHUP)?;
        let port = self.port.to_string();
        eventually("the server's new host key", SOON, || {
            let shown = Command::new("ssh-keyscan")
                .args(["-t", "ed25519", "-p", &port, "127.0.0.1"])
                .output()?;
            Ok(String::from_utf8_lossy(&shown.stdout).contains(key))
        })
    }

    /// A file of its user's.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let user = nix::unistd::User::from_name(&self.user)?.context("the user is gone")?;
        let path = self.files.join(name);
        std::fs::write(&path, content)?;
        nix::unistd::chown(&path, Some(user.uid), Some(user.gid))?;
        Ok(path)
    }

    /// The process.
    pub fn server(&self) -> &Server {
        &self.server
    }
}

/// sshd, Redis, and Interceptor between agents and it. Fields are dropped in order:
/// the daemon ends first.
#[derive(Debug)]
pub struct Shell {
    /// Interceptor.
    pub daemon: Daemon,
    /// The server.
    pub sshd: Sshd,
    /// The store.
    pub redis: Redis,
    /// The folder of all three.
    pub place: Place,
}

/// How it is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The rule file.
    pub rules: &'static str,
    /// Laid over the daemon's configuration, once the server's port is known.
    pub config: fn(&Sshd, &Place) -> Result<Value>,
}

/// The server as a target whose credentials the proxy has.
///
/// # Errors
/// Never.
pub fn with_credentials(sshd: &Sshd, _: &Place) -> Result<Value> {
    let settings = json!({ "credentials": { "user": sshd.user, "key": { "file": sshd.key } } });
    Ok(json!({ "targets": [target(sshd, &settings)] }))
}

/// The server as a target, with other or further settings.
#[must_use]
pub fn target(sshd: &Sshd, settings: &Value) -> Value {
    let mut target = json!({
        "name": "build-host",
        "address": "127.0.0.1",
        "port": sshd.port,
        "protocol": "ssh",
        "known_hosts": sshd.known_hosts,
        "default": "allow",
    });
    crate::daemon::merge(&mut target, settings);
    target
}

impl Shell {
    /// Starts one.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn start(plan: &Plan) -> Result<Self> {
        Self::start_with(plan, "")
    }

    /// Starts one whose server has further settings.
    ///
    /// # Errors
    /// As above.
    pub fn start_with(plan: &Plan, settings: &str) -> Result<Self> {
        let place = Place::new()?;
        let redis = Redis::start(&place)?;
        let sshd = Sshd::start_with(&place, "sshd", settings)?;
        let config = (plan.config)(&sshd, &place)?;
        let daemon = Daemon::start(&place, &redis.url(), plan.rules, &config)?;
        Ok(Self {
            daemon,
            sshd,
            redis,
            place,
        })
    }

    /// An agent of it.
    #[must_use]
    pub fn agent(&self, name: &str) -> Agent {
        Agent::new(&self.daemon, name)
    }

    /// What every client of OpenSSH's is told here: no key of its own, no file of its
    /// user's, and host keys checked by the published authority alone.
    #[must_use]
    pub fn options(&self) -> Vec<String> {
        let known = self.place.path("run").join("ssh_known_hosts");
        [
            "StrictHostKeyChecking=yes".to_owned(),
            "UserKnownHostsFile=/dev/null".to_owned(),
            format!("GlobalKnownHostsFile={}", known.display()),
            "BatchMode=yes".to_owned(),
            "LogLevel=ERROR".to_owned(),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect()
    }

    /// The words that run ssh; options and the command follow.
    #[must_use]
    pub fn words(&self, more: &[&str], command: &[&str]) -> Vec<String> {
        let mut words = vec!["ssh".to_owned(), "-F".to_owned(), "none".to_owned()];
        words.extend(self.options());
        words.extend(["-p".to_owned(), self.sshd.port.to_string()]);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words.push("agent@127.0.0.1".to_owned());
        words.extend(command.iter().map(|word| (*word).to_owned()));
        words
    }

    /// Runs a command over ssh as an agent.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn ssh(&self, agent: &str, command: &[&str]) -> Result<Finished> {
        self.agent(agent).run(&self.words(&[], command))
    }

    /// The open question of an agent, once it is there.
    ///
    /// # Errors
    /// When it does not come.
    pub fn question(&self, agent: &str) -> Result<Value> {
        let mut found = None;
        eventually(&format!("a question of {agent}"), SOON, || {
            let list: Value = serde_json::from_str(&self.daemon.ask(&["approvals", "--json"])?)?;
            found = list
                .as_array()
                .into_iter()
                .flatten()
                .find(|one| {
                    let is = |name: &str, value: &str| one.get(name).is_some_and(|is| is == value);
                    is("agent", agent) && is("state", "open")
                })
                .cloned();
            Ok(found.is_some())
        })?;
        found.context("no question")
    }

    /// Answers the open question of an agent, by `approve` or `deny`; gives the question.
    ///
    /// # Errors
    /// When there is none.
    pub fn answer(&self, agent: &str, answer: &str, reason: &str) -> Result<Value> {
        let question = self.question(agent)?;
        let id = question
            .get("id")
            .and_then(Value::as_str)
            .context("a question without an id")?;
        self.daemon
            .ask(&["approvals", answer, id, "--reason", reason])?;
        Ok(question)
    }

    /// A folder that agents may write to.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn desk(&self, name: &str) -> Result<PathBuf> {
        let folder = self.place.subfolder(name)?;
        let everybodys = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&folder, everybodys)?;
        Ok(folder)
    }

    /// What landed in its store.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn records(&self) -> Result<Records> {
        Records::of(&self.redis)
    }
}

/// One that the tests of a file share. It ends with the process.
#[derive(Debug)]
pub struct Shared {
    shell: OnceLock<Result<Shell, String>>,
    plan: Plan,
    settings: &'static str,
}

impl Shared {
    /// Made when the first test asks for it.
    #[must_use]
    pub const fn new(plan: Plan) -> Self {
        Self::with(plan, "")
    }

    /// The same, with further settings of the server's.
    #[must_use]
    pub const fn with(plan: Plan, settings: &'static str) -> Self {
        Self {
            shell: OnceLock::new(),
            plan,
            settings,
        }
    }

    /// Runs a test's body in it; says SKIPPED where the kernel is left out.
    ///
    /// # Errors
    /// What the body gives, or what kept it from starting.
    pub fn test(&self, body: impl FnOnce(&Shell) -> Result<()>) -> Result<()> {
        if !needs::kernel()? {
            return Ok(());
        }
        let shell = self.shell.get_or_init(|| {
            Shell::start_with(&self.plan, self.settings).map_err(|error| format!("{error:#}"))
        });
        match shell {
            Ok(shell) => shell.daemon.watch(|| body(shell)),
            Err(error) => Err(anyhow!("{error}")),
        }
    }
}

/// Makes a key pair.
///
/// # Errors
/// When `ssh-keygen` is not there.
pub fn keygen(path: &std::path::Path) -> Result<()> {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .context("no ssh-keygen here: install it with `cargo xtask install servers`")?;
    if !made.success() {
        bail!("making the key {}: {made}", path.display());
    }
    Ok(())
}
