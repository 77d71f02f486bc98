//! The destination that an agent asked for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A machine, or what stands in for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Host {
    /// As a redirected connection names it.
    Address(IpAddr),
    /// To be looked up by an SSH server, at its end.
    Name(Arc<str>),
    /// The path of a Unix socket, at an SSH server's end.
    Socket(Arc<str>),
}

/// The destination that an agent asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The machine.
    pub host: Host,
    /// The port; 0 for a Unix socket.
    pub port: u16,
    /// The SSH target that leads there, as lists name it. What an address means is
    /// another thing at its end than here.
    pub via: Option<Arc<str>>,
}

impl Origin {
    /// Its address, where it has one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Address(address) => Some(address),
            Host::Name(_) | Host::Socket(_) => None,
        }
    }

    /// The address to connect to from here; `None` where only an SSH server gets there.
    #[must_use]
    pub fn here(&self) -> Option<SocketAddr> {
        match self.via {
            None => Some(SocketAddr::new(self.address()?, self.port)),
            Some(_) => None,
        }
    }

    /// Its name, where it was asked for by one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Address(_) | Host::Socket(_) => None,
        }
    }

    /// Its address or name without the port; `None` for a Unix socket.
    #[must_use]
    pub fn bare(&self) -> Option<String> {
        match &self.host {
            Host::Address(address) => Some(address.to_canonical().to_string()),
            Host::Name(name) => Some(name.to_lowercase()),
            Host::Socket(_) => None,
        }
    }

    /// Whether nothing of it crosses a network behind the last machine on the way.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Address(address) => address.to_canonical().is_loopback(),
            Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
            Host::Socket(_) => true,
        }
    }
}

#[cfg(test)]
impl Origin {
    /// One at an address and port, written as usual.
    pub(crate) fn at(text: &str) -> Self {
        text.parse::<SocketAddr>().unwrap().into()
    }
}

impl From<SocketAddr> for Origin {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Address(address.ip()),
            port: address.port(),
            via: None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f)?,
            Host::Name(name) => write!(f, "{name}:{}", self.port)?,
            Host::Socket(path) => f.write_str(path)?,
        }
        match &self.via {
            Some(via) => write!(f, " via {via}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_told_as_it_was_asked_for() {
        let told = |host, via: Option<&str>| {
            let port = 5432;
            let via = via.map(Into::into);
            Origin { host, port, via }.to_string()
        };
        assert_eq!(
            told(Host::Address([10, 0, 0, 1].into()), None),
            "10.0.0.1:5432"
        );
        let six = Host::Address("::1".parse().unwrap());
        assert_eq!(told(six, Some("build")), "[::1]:5432 via build");
        assert_eq!(
            told(Host::Name("db".into()), Some("build")),
            "db:5432 via build"
        );
        assert_eq!(
            told(Host::Socket("/run/x".into()), Some("build")),
            "/run/x via build"
        );
    }

    #[test]
    fn what_lies_behind_another_machine_is_not_dialled_from_here() {
        let mut origin = Origin::at("127.0.0.1:5432");
        assert!(origin.here().is_some());
        origin.via = Some("build".into());
        assert_eq!(origin.here(), None);
    }
}
