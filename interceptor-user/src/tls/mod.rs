//! TLS on both legs: opened with the local authority, closed as configured.
//!
//! * [`authority`] is the certificate authority that agents trust, and what it
//!   issues;
//! * [`leaf`] says what stands in what it issues;
//! * [`downstream`] answers an agent's handshake;
//! * [`upstream`] makes the service's, with libpq's words for how much is asked;
//! * [`verify`] says whether a certificate is the right one, and if not why not;
//! * [`binding`] is what SCRAM binds itself to (RFC 5929);
//! * [`stream`] is a leg, encrypted or not, for whoever moves its bytes.
//!
//! Versions are 1.2 and 1.3. What is not done: client certificates (an agent's
//! cannot be passed on, since its key never leaves it), revocation lists.

pub mod authority;
pub mod binding;
pub mod downstream;
pub(crate) mod leaf;
mod permitted;
pub mod stream;
pub mod upstream;
pub mod verify;

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

pub use authority::Authority;
pub use permitted::Permitted;
pub use stream::Stream;

/// What was agreed on an encrypted leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegTls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite's IANA name.
    pub cipher: String,
    /// The name that was asked for.
    pub sni: Option<String>,
    /// Whether the peer's certificate is the right one, and if not why not.
    /// `None` on the agents' leg, where nobody shows one to us.
    pub verified: Option<Result<(), String>>,
}

/// The one provider of cryptography; named explicitly everywhere, since a
/// process-wide default may be installed by a library.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// Version and cipher in the words that PostgreSQL itself uses for them.
pub(crate) fn agreed(connection: &rustls::CommonState) -> (&'static str, String) {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "unknown",
    };
    let cipher = connection
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str())
        .unwrap_or("unknown")
        .to_owned();
    (version, cipher)
}
