//! The configuration, checked.
// The written form and its checks come next; these are the checked types that
// the other rooms use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use interceptor_policy::DefaultVerdict;
use ipnet::IpNet;

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
    /// Sockets, pins and pid file; gone after a reboot. Default `/run/interceptor`.
    pub runtime_dir: PathBuf,
    /// Keys and state that stay. Default `/var/lib/interceptor`.
    pub state_dir: PathBuf,
}

/// What is intercepted.
#[derive(Clone, Debug)]
pub struct Intercept {
    /// Whether kernel interception is on. Off leaves `listeners` alone.
    pub kernel: bool,
    /// Name of the cgroup below the cgroup2 mount whose children are agents' runs.
    pub cgroup: String,
    /// What is done with traffic of a target that is not listed.
    pub default: DefaultVerdict,
    /// What is done with what cannot be read.
    pub uninspected: Uninspected,
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
    /// The protocol that it must speak; `None` to find out.
    pub protocol: Option<interceptor_policy::Protocol>,
    /// The upstream leg's TLS.
    pub tls: UpstreamTls,
    /// What the proxy logs on with.
    pub credentials: Option<Credentials>,
    /// What decides when no rule does; `None` for `intercept.default`.
    pub default: Option<DefaultVerdict>,
}

/// Where a target is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A host name; every address that it resolves to.
    Host(String),
    /// Addresses.
    Network(IpNet),
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

/// Where recordings go.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// `redis://…`; `None` for the standard port, or a private server where none answers.
    pub redis: Option<String>,
    /// First part of every key.
    pub prefix: String,
    /// How many bytes of events may wait for Redis.
    pub queue_bytes: usize,
    /// How long a flow waits for room in the queue before it is ended.
    pub stall: Duration,
    /// Entries that `live` keeps, about.
    pub live_entries: u64,
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
}
