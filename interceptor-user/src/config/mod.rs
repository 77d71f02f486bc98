//! The configuration, checked.
//!
//! * [`written`] is the form on disk, [`check`] and [`credentials`] turn it into the types here or
//!   says what is wrong, [`faults`] shows that with line, column and caret;
//! * [`table`] tells which target a destination belongs to;
//! * [`unix`] says what is done with Unix sockets.
//!
//! Unknown keys are errors: a misspelt `default: block` that only warned would
//! let everything pass. So are keys of the format that are not done yet. A secret
//! is never in here, only where it is.

mod agents;
mod check;
mod credentials;
pub mod exec;
mod faults;
mod retention;
mod table;
pub(crate) mod units;
mod unix;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use faults::{ConfigError, Faults};
pub use retention::{ArchiveTo, Retention};
pub use table::TargetTable;
pub use unix::{Unix, UnixDefault, UnixSocket};

use http::HeaderName;
use interceptor_policy::DefaultVerdict;
use ipnet::IpNet;

use crate::agents::selector::Selector;
use crate::secrets::SecretRef;

/// Everything an operator can configure.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is intercepted, and what is done with the rest.
    pub intercept: Intercept,
    /// Configured services.
    pub targets: Vec<Target>,
    /// Rule folders or files.
    pub rules: Vec<PathBuf>,
    /// Where recordings go.
    pub recorder: Recorder,
    /// Explicit local addresses for targets, for hosts without eBPF.
    pub listeners: Vec<Listener>,
    /// The admin socket.
    pub admin: Admin,
    /// For whom the local authority may issue certificates.
    pub permitted: crate::tls::Permitted,
    /// Which names agents may ask for.
    pub dns: Dns,
    /// Who answers questions.
    pub approvals: Approvals,
    /// What the daemon gives up once the kernel programs stand.
    pub sandbox: Sandbox,
    /// How long sessions may go on under a daemon that another one has replaced.
    pub drain: Duration,
    /// Sockets, pins and pid file; gone after a reboot. Default `/run/interceptor`.
    pub runtime_dir: PathBuf,
    /// Keys and state that stay. Default `/var/lib/interceptor`.
    pub state_dir: PathBuf,
    /// What it refers to.
    pub referred: Referred,
}

/// Files and commands that a configuration refers to: what is read and run for it, and
/// nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referred {
    /// Files of secrets, certificates, keys and hosts; folders among them.
    pub files: BTreeSet<PathBuf>,
    /// Commands that print a secret.
    pub commands: BTreeSet<Vec<String>>,
}

/// Which names agents may ask for, and of whom they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Name servers; the system's, where none is configured.
    pub servers: Vec<std::net::SocketAddr>,
    /// Names that may be asked for.
    pub names: Vec<Named>,
    /// Bytes of a name, at most.
    pub longest: usize,
    /// Questions of one run in a minute, at most.
    pub per_minute: u32,
    /// Names below one domain that one run may ask for in an hour, at most.
    pub below_domain: usize,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            names: vec![Named::Targets],
            longest: 128,
            per_minute: 600,
            below_domain: 200,
        }
    }
}

/// Names that may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Every name.
    Any,
    /// The hosts of the targets.
    Targets,
    /// This one; lower case.
    Name(String),
    /// Every name below this domain; lower case.
    Below(String),
}

/// What is intercepted.
#[derive(Clone, Debug)]
pub struct Intercept {
    /// Whether kernel interception is on. Off leaves `listeners` alone.
    pub kernel: bool,
    /// Name of the cgroup below the cgroup2 mount whose children are agents' runs.
    pub cgroup: String,
    /// Agents that something else starts.
    pub agents: Vec<Agent>,
    /// Sockets of container engines, which say who has a name or a label.
    pub engines: Vec<PathBuf>,
    /// Which agents ordinary users may start; `None` for any that is not in `agents`.
    pub exec: Option<Vec<exec::MayStart>>,
    /// What is done with traffic of a target that is not listed.
    pub default: DefaultVerdict,
    /// What is done with what cannot be read.
    pub uninspected: Uninspected,
    /// What is done with agents' connects while no daemon is there.
    pub when_down: DefaultVerdict,
    /// What is done with Unix sockets.
    pub unix: Unix,
}

/// An agent that something else starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// How it is found.
    pub selector: Selector,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What is done with a flow whose bytes cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uninspected {
    /// Relay it unseen, and record that it was.
    Allow,
    /// Relay it, and record its bytes.
    Record,
    /// Refuse it.
    #[default]
    Block,
}

/// A configured service.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name, unique.
    pub name: String,
    /// Which destinations it is: a host name, resolved when used, or addresses.
    pub place: Place,
    /// Port; `None` for any.
    pub port: Option<u16>,
    /// The SSH target that leads there; `None` for what is reached from here.
    pub via: Option<String>,
    /// The protocol that it must speak; `None` to find out.
    pub protocol: Option<interceptor_policy::Protocol>,
    /// The upstream leg's TLS.
    pub tls: UpstreamTls,
    /// What the proxy logs on with, where the target speaks PostgreSQL.
    pub credentials: Option<Credentials>,
    /// What requests are sent with, where the target speaks HTTP.
    pub http: Option<HttpCredentials>,
    /// How it is spoken to, where it speaks SSH.
    pub ssh: SshTarget,
    /// What messages of gRPC are made of.
    pub grpc: Option<std::sync::Arc<interceptor_engine::http::grpc::Schemas>>,
    /// What decides when no rule does; `None` for `intercept.default`.
    pub default: Option<DefaultVerdict>,
}

impl Target {
    /// The host that is configured for it; `None` where addresses are.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            Place::Host(host) => Some(host),
            Place::Network(_) | Place::Socket(_) => None,
        }
    }
}

/// How a target is spoken to that speaks SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    /// What the proxy logs on with; `None` where the agent's own password is
    /// passed through.
    pub credentials: Option<SshCredentials>,
    /// Keys of hosts that are known; `None` for the system's.
    pub known_hosts: Option<PathBuf>,
    /// Agents' own public keys, of which an agent must have one; `None` where the kernel's
    /// word on who it is is enough.
    pub authorized_keys: Option<PathBuf>,
    /// Whether a host that nobody knows is taken at its first word, and held to it.
    pub accept_new: bool,
    /// Whether an agent may have a shell.
    pub shell: bool,
}

impl Default for SshTarget {
    fn default() -> Self {
        Self {
            credentials: None,
            known_hosts: None,
            authorized_keys: None,
            accept_new: false,
            shell: true,
        }
    }
}

/// What the proxy logs on with over SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshCredentials {
    /// User name at the server; `None` for the one the agent gave.
    pub user: Option<String>,
    /// A private key, without a passphrase.
    pub key: Option<SecretRef>,
    /// A password.
    pub password: Option<SecretRef>,
    /// The private key of an authority that the server trusts, which signs a key of its
    /// own for every session.
    pub authority: Option<SecretRef>,
}

/// Where a target is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A host name; every address that it resolves to.
    Host(String),
    /// Addresses.
    Network(IpNet),
    /// A Unix socket of this host's.
    Socket(UnixSocket),
}

/// The upstream leg's TLS, in libpq's words.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// How much is asked of it.
    pub mode: TlsMode,
    /// Roots that the server's certificate must chain to; `None` for the system's.
    pub ca: Option<PathBuf>,
    /// Name that the certificate must carry, where it is not the target's host.
    pub server_name: Option<String>,
}

/// How much is asked of an upstream's TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// As the agent asks: TLS where the agent asks for it and the server has it;
    /// an unverified certificate is noted on record.
    #[default]
    Mirror,
    /// Always, whatever the certificate.
    Require,
    /// Always, and the certificate chains to a trusted root.
    VerifyCa,
    /// Always, and the certificate is for the name that is dialled.
    VerifyFull,
}

/// What the proxy logs on with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User name upstream; `None` for the one the agent gave.
    pub user: Option<String>,
    /// Password upstream.
    pub password: Option<SecretRef>,
}

/// What requests are sent with. The agent knows none of it, and what it sends in
/// its place is taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCredentials {
    /// What each request carries.
    pub request: Option<RequestCredentials>,
    /// Whom the proxy is in TLS.
    pub certificate: Option<ClientCertificate>,
}

/// What a request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestCredentials {
    /// A header, as it is.
    Header {
        /// Its name.
        name: HeaderName,
        /// Its whole value, `Bearer` and the like included.
        value: SecretRef,
    },
    /// A signature of AWS (version 4).
    Aws(Aws),
    /// A bearer token that is fetched, and fetched again before it expires.
    OAuth(OAuth),
}

/// What requests to AWS are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aws {
    /// `eu-central-1`
    pub region: String,
    /// `s3`
    pub service: String,
    /// Names the key.
    pub access_key_id: SecretRef,
    /// The key.
    pub secret_access_key: SecretRef,
    /// Goes with temporary keys.
    pub session_token: Option<SecretRef>,
}

/// Where tokens are fetched (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth {
    /// The token endpoint.
    pub token_url: http::Uri,
    /// Who asks.
    pub client_id: String,
    /// What proves that.
    pub client_secret: SecretRef,
    /// What is asked for.
    pub scope: Option<String>,
}

/// A certificate that is shown to a service, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM, the chain behind it.
    pub certificate: PathBuf,
    /// PEM.
    pub key: SecretRef,
}

/// Where recordings go.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// `None` for the standard port, or a private server where none answers.
    pub redis: Option<RedisAddress>,
    /// First part of every key.
    pub prefix: String,
    /// How many bytes of events may wait for the spool.
    pub queue_bytes: usize,
    /// How long a flow waits for room in the queue before it is ended.
    pub stall: Duration,
    /// Entries that `live` keeps, about.
    pub live_entries: u64,
    /// How it is signed.
    pub evidence: Evidence,
    /// How long recordings stay.
    pub retention: Retention,
    /// What is recorded before the bytes that it explains go on.
    pub durability: Durability,
    /// Where events wait for Redis.
    pub spool: Spool,
    /// How long `data` stands in Redis.
    pub compress: Compress,
    /// To whom what masks hide is sealed.
    pub seal_to: Option<crate::recorder::seal::Recipient>,
    /// Whether closed sessions are indexed for `search`, where the server can.
    pub search_index: bool,
}

/// How recordings are signed, and by which keys they are believed.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// How often the heads of open sessions are signed.
    pub heads_every: Duration,
    /// The list of keys that a verifier believes, and no others.
    pub trusted_keys: Option<PathBuf>,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            heads_every: Duration::from_secs(60),
            trusted_keys: None,
        }
    }
}

/// Where events wait for Redis.
#[derive(Clone, Debug)]
pub struct Spool {
    /// `None`: `spool` in the state folder.
    pub dir: Option<PathBuf>,
    /// Bytes that it may take on disk.
    pub max_bytes: u64,
    /// What happens when it takes them.
    pub on_full: OnFull,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            dir: None,
            max_bytes: 10 << 30,
            on_full: OnFull::Block,
        }
    }
}

/// How long `data` stands in Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compress {
    /// Compressed, where that saves something.
    #[default]
    Zstd,
    /// As it is.
    Off,
}

/// What happens when the spool is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// Nothing goes on that cannot be recorded.
    #[default]
    Block,
    /// Sessions go on, and the record says how much of them is missing.
    Allow,
}

/// When bytes go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When the events that explain them are with the recorder.
    #[default]
    Buffered,
    /// When those events are on stable storage.
    BeforeForward,
}

/// A Redis, and what it is shown.
#[derive(Clone, Debug)]
pub struct RedisAddress {
    /// `redis://…`; see [`crate::recorder::place`].
    pub url: String,
    /// Who the recorder logs on as, and its password.
    pub credentials: Option<(Option<String>, SecretRef)>,
    /// Options of the address: certificates' files by name.
    pub files: Vec<(&'static str, PathBuf)>,
}

impl RedisAddress {
    /// An address that needs nothing beside it.
    #[must_use]
    pub fn bare(url: String) -> Self {
        Self {
            url,
            credentials: None,
            files: Vec::new(),
        }
    }

    /// Whether it is a Unix socket's.
    fn is_unix(&self) -> bool {
        self.url.starts_with("unix:") || self.url.starts_with("redis+unix:")
    }

    /// All of it in one; holds the password, so it is shown to nobody.
    ///
    /// # Errors
    /// When the password cannot be read.
    pub fn url(&self) -> anyhow::Result<String> {
        use anyhow::Context as _;
        let encode = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        };
        let mut url = self.url.clone();
        if let Some((user, password)) = &self.credentials {
            let password = crate::secrets::resolve_here(password)
                .context("reading recorder.credentials.password")?;
            let user = encode(user.as_deref().unwrap_or_default());
            let password = encode(password.expose());
            if self.is_unix() {
                let mark = if url.contains('?') { '&' } else { '?' };
                url.push_str(&format!("{mark}user={user}&pass={password}"));
            } else {
                url = url.replacen("://", &format!("://{user}:{password}@"), 1);
            }
        }
        for (name, path) in &self.files {
            let mark = if url.contains('?') { '&' } else { '?' };
            let path = encode(&path.to_string_lossy());
            url.push_str(&format!("{mark}{name}={path}"));
        }
        Ok(url)
    }
}

/// An explicit local address for a target.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The target's name.
    pub target: String,
    /// Under which agent's name its flows go.
    pub agent: String,
    /// Labels of that agent.
    pub labels: BTreeMap<String, String>,
}

/// The admin socket.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its path; default `admin.sock` in the runtime folder.
    pub socket: PathBuf,
    /// Where metrics are served; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
}

/// What the daemon gives up once the kernel programs stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Capabilities that it does not work with, and gaining any.
    pub capabilities: bool,
    /// System calls that it does not make.
    pub seccomp: bool,
    /// Files that it does not open.
    pub landlock: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            capabilities: true,
            seccomp: true,
            landlock: true,
        }
    }
}

/// Who answers what rules hold.
#[derive(Clone, Debug, Default)]
pub struct Approvals {
    /// What answers that come by way of Redis are signed with, on every host that
    /// gives or takes them; without it none is taken.
    pub key: Option<SecretRef>,
    /// People of a group, beside those of the host's group of that name.
    pub groups: BTreeMap<String, Vec<String>>,
}

/// Where the configuration is when nothing else is said.
pub const STANDARD_FILE: &str = "/etc/interceptor/interceptor.yaml";
/// Where rules are when nothing else is said, in this order.
const STANDARD_RULES: [&str; 2] = ["rules", "/etc/interceptor/rules"];
/// A configuration that is longer is something else.
const LONGEST: u64 = 1 << 20;

impl Default for Config {
    /// What holds without a file: the kernel's interception, rules from `./rules`
    /// or `/etc/interceptor/rules`, whichever is there, no targets, and whatever
    /// is not allowed by a rule blocked.
    fn default() -> Self {
        let runtime_dir = PathBuf::from("/run/interceptor");
        Self {
            intercept: Intercept {
                kernel: true,
                cgroup: "interceptor".to_owned(),
                agents: Vec::new(),
                engines: ["/run/docker.sock", "/run/podman/podman.sock"]
                    .map(PathBuf::from)
                    .into(),
                exec: None,
                default: DefaultVerdict::Block,
                uninspected: Uninspected::Block,
                when_down: DefaultVerdict::Block,
                unix: Unix::default(),
            },
            targets: Vec::new(),
            rules: STANDARD_RULES
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
                .into_iter()
                .collect(),
            recorder: Recorder {
                redis: None,
                prefix: "interceptor".to_owned(),
                queue_bytes: 64 << 20,
                stall: Duration::from_secs(5),
                live_entries: 10_000,
                evidence: Evidence::default(),
                retention: Retention::default(),
                durability: Durability::default(),
                spool: Spool::default(),
                compress: Compress::default(),
                seal_to: None,
                search_index: false,
            },
            listeners: Vec::new(),
            permitted: crate::tls::Permitted::default(),
            admin: Admin {
                socket: runtime_dir.join("admin.sock"),
                metrics: None,
            },
            dns: Dns::default(),
            approvals: Approvals::default(),
            sandbox: Sandbox::default(),
            drain: Duration::from_secs(60 * 60),
            runtime_dir,
            state_dir: PathBuf::from("/var/lib/interceptor"),
            referred: Referred::default(),
        }
    }
}

impl Config {
    /// The configuration in `file`; without one, in [`STANDARD_FILE`] where that
    /// exists; without that, the defaults.
    ///
    /// # Errors
    /// When the file cannot be read, or anything in it is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        match file {
            Some(file) => Self::read(file),
            None => match Self::read(Path::new(STANDARD_FILE)) {
                Err(ConfigError::Read { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    Ok(Self::default())
                }
                other => other,
            },
        }
    }

    fn read(file: &Path) -> Result<Self, ConfigError> {
        let wrong = |source| ConfigError::Read {
            path: file.to_owned(),
            source,
        };
        let open = std::fs::File::open(file).map_err(wrong)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(open, LONGEST + 1), &mut text)
            .map_err(wrong)?;
        if text.len() as u64 > LONGEST {
            return Err(wrong(std::io::Error::other(
                "longer than any configuration",
            )));
        }
        Self::parse(&text, file)
    }

    /// The configuration that `text` is; `file` is its name in messages, and its
    /// folder what relative paths in it are relative to.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let mut report = faults::Report::new(file, text);
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_events: 100_000,
                max_aliases: 256,
                max_anchors: 256,
                max_depth: 32,
                max_documents: 1,
                max_nodes: 50_000,
                max_total_scalar_bytes: 1 << 20,
                max_merge_keys: 64,
            },
            with_snippet: false,
            strict_booleans: true,
        };
        match serde_saphyr::from_str_with_options::<written::Config>(text, options) {
            Ok(raw) => {
                let folder = file.parent().unwrap_or(Path::new(""));
                let config = check::config(raw, folder, &mut report);
                report.finish().map(|()| config)
            }
            Err(error) => {
                report.unreadable(&error);
                // There is a fault on it, so this is never a success.
                report.finish().map(|()| Self::default())
            }
        }
    }
}

#[cfg(test)]
mod tests;
