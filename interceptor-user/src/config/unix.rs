//! What is done with Unix sockets: as it is configured, and checked.

use std::fmt;
use std::path::PathBuf;

use serde_saphyr::Spanned;

use super::check::Check;
use super::{Place, written};
use crate::kernel::unix::Name;

/// Sockets that hand out the whole host, or a process outside of the agent's cgroup. What
/// is not there costs nothing.
const WELL_KNOWN: [&str; 12] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/libvirt/libvirt-sock",
    "/run/snapd.socket",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/var/lib/lxd/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
];

/// What is done with Unix sockets that are no target's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unix {
    /// With those that are not listed.
    pub default: UnixDefault,
    /// Connected unjudged, and on record.
    pub allow: Vec<UnixSocket>,
    /// Refused, whatever `default` says.
    pub block: Vec<UnixSocket>,
}

impl Default for Unix {
    fn default() -> Self {
        Self {
            default: UnixDefault::default(),
            allow: Vec::new(),
            block: WELL_KNOWN
                .iter()
                .map(|path| UnixSocket::Path(path.into()))
                .collect(),
        }
    }
}

/// What is done with a Unix socket that is not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnixDefault {
    /// Refused, but for one at which the same run of the agent listens.
    #[default]
    Own,
    /// Refused.
    Block,
    /// Connected, and on record.
    Record,
    /// Connected.
    Allow,
}

/// Where a Unix socket is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixSocket {
    /// In a file.
    Path(PathBuf),
    /// In the network namespace, by a name.
    Abstract(String),
}

impl UnixSocket {
    /// As an operator writes it.
    #[must_use]
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// As the kernel has it; `None` where it is too long for it.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        match self {
            Self::Path(path) => Name::path(path).ok(),
            Self::Abstract(name) => Name::of_abstract(name.as_bytes()),
        }
    }
}

impl fmt::Display for UnixSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

impl Check<'_, '_> {
    pub(super) fn unix(&mut self, raw: written::Unix, fallback: Unix) -> Unix {
        let allow = self.sockets(&raw.allow);
        let mut block = match &raw.block {
            Some(block) => self.sockets(block),
            None => fallback.block,
        };
        // Who allows what is blocked by default says so by allowing it.
        block.retain(|socket| !allow.contains(socket));
        Unix {
            default: match raw.default {
                Some(written::UnixDefault::Own) => UnixDefault::Own,
                Some(written::UnixDefault::Block) => UnixDefault::Block,
                Some(written::UnixDefault::Record) => UnixDefault::Record,
                Some(written::UnixDefault::Allow) => UnixDefault::Allow,
                None => fallback.default,
            },
            allow,
            block,
        }
    }

    /// The place of a target that is a socket.
    pub(super) fn socket(&mut self, raw: &written::Target) -> Option<Place> {
        let socket = raw.socket.as_ref()?;
        if let Some(port) = &raw.port {
            self.error(
                port.referenced,
                "a target with a `socket` has no port",
                "take it out",
            );
        }
        self.one_socket(socket).map(Place::Socket)
    }

    fn sockets(&mut self, raw: &[Spanned<String>]) -> Vec<UnixSocket> {
        raw.iter().filter_map(|one| self.one_socket(one)).collect()
    }

    fn one_socket(&mut self, raw: &Spanned<String>) -> Option<UnixSocket> {
        let socket = match raw.value.strip_prefix('@') {
            Some(name) => UnixSocket::Abstract(name.to_owned()),
            None => UnixSocket::Path(PathBuf::from(&raw.value)),
        };
        let is_absolute = match &socket {
            UnixSocket::Path(path) => path.is_absolute(),
            UnixSocket::Abstract(name) => !name.is_empty(),
        };
        if !is_absolute || socket.name().is_none() {
            self.error(
                raw.referenced,
                format!("{:?} is no Unix socket's name", raw.value),
                "an absolute path of at most 108 bytes, or an abstract name behind `@`",
            );
            return None;
        }
        Some(socket)
    }
}
