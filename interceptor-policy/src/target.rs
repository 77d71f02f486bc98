//! What is acted on.

use std::net::IpAddr;
use std::sync::Arc;

/// What decides when no rule gives a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultVerdict {
    /// Let it pass.
    Allow,
    /// Refuse it.
    #[default]
    Block,
}

/// The protocol of a session, found from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// PostgreSQL's frontend/backend protocol, version 3.
    Postgres,
    /// HTTP/1 or HTTP/2.
    Http,
    /// SSH 2.
    Ssh,
    /// TLS that was not opened.
    Tls,
    /// None of those.
    Unknown,
}

impl Protocol {
    /// Every protocol, with the name that rules use.
    pub const NAMES: &'static [(&'static str, Protocol)] = &[
        ("postgres", Protocol::Postgres),
        ("http", Protocol::Http),
        ("ssh", Protocol::Ssh),
        ("tls", Protocol::Tls),
        ("unknown", Protocol::Unknown),
    ];

    /// The name that rules use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Tls => "tls",
            Self::Unknown => "unknown",
        }
    }
}

/// The destination of a session: a configured service, or an address without one.
#[derive(Clone, Debug)]
pub struct Target {
    /// The configured name; `None` for a destination that nothing is configured for.
    pub name: Option<String>,
    /// Verified host name, where there is one.
    pub host: Option<String>,
    /// The address that the agent asked for; `None` where it asked an SSH server for a
    /// name, or where what an address means there is nobody's to say here.
    pub address: Option<IpAddr>,
    /// The port that the agent asked for.
    pub port: u16,
    /// All of what it asked for, in words: no two destinations share them.
    pub origin: Arc<str>,
    /// Whether the agent's leg is encrypted.
    pub tls: bool,
    /// What decides when no rule does.
    pub default: DefaultVerdict,
}
