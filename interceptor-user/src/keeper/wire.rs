//! What is said between the daemon and its keeper of keys.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::lock::Locked;
use crate::tls::authority::Names;

/// Bytes of the longest packet. A name has 253 at most, a key of RSA with 16,384 bits 4,200
/// in hexadecimal.
pub(super) const LONGEST: usize = 32 << 10;

/// What the keeper is to keep.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where the keys are, or are made.
    pub state_dir: PathBuf,
    /// Names and networks that the local authority is for; none for everything.
    pub permitted: Vec<String>,
    /// Whether capabilities are given up.
    pub capabilities: bool,
    /// Whether system calls are.
    pub seccomp: bool,
}

/// The first that the keeper says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The local authority's certificate.
    pub(super) authority: Vec<u8>,
    /// The public key of the authority for SSH host keys.
    pub(super) ssh_authority: String,
    pub(super) locked: Locked,
}

/// A request with a number, which its answer has too.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) request: Request,
}

/// What the daemon asks for. Nothing here says how long a certificate counts, or for what:
/// the keeper does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// A certificate for a server.
    Leaf {
        names: Names,
        /// `SubjectPublicKeyInfo` in hexadecimal.
        key: String,
    },
    /// A certificate for an SSH host key.
    Host {
        /// As OpenSSH writes it.
        key: String,
        /// What the certificate is called in logs.
        id: String,
        /// Names beside that of the pattern for all.
        names: Vec<String>,
    },
}

/// What the keeper answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// A certificate in hexadecimal.
    Leaf(String),
    /// A certificate as OpenSSH writes it.
    Host(String),
    /// None.
    Refused(String),
}
