//! The handshake with a service.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use super::verify::{Roots, Verifier, readable};
use super::{LegTls, Stream, agreed, provider};
use crate::config::TlsMode;
use crate::looker;
use crate::net::{Host, Socket};

/// Why there is no encrypted leg to a service.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// The roots could not be read.
    #[error("{}: {source}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// There is nothing to verify against.
    #[error("no trusted roots are installed on this machine, so no certificate can be verified")]
    NoRoots,
    /// The name to verify is none.
    #[error("{0:?} is not a name that a certificate can carry")]
    Name(String),
    /// The certificate is not good enough for the mode.
    #[error("{0}")]
    Certificate(String),
    /// The service asked for a certificate that is not there.
    #[error("the service asks for a client certificate, and there is none for it")]
    ClientCertificate,
    /// The handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
}

/// What is asked of a handshake.
#[derive(Clone, Debug)]
pub struct Ask {
    /// How much of the certificate counts.
    pub mode: TlsMode,
    /// Roots, where not the system's.
    pub ca: Option<PathBuf>,
    /// The name that the certificate must carry, and that is asked for (SNI).
    pub name: Option<String>,
    /// What is dialled: the name, where there is none.
    pub host: Host,
    /// Protocols offered (ALPN).
    pub alpn: &'static [&'static [u8]],
    /// Whom to be, where the service asks for a certificate.
    pub identity: Option<Arc<CertifiedKey>>,
}

/// Shows a certificate where one is asked for, and keeps that it was.
#[derive(Debug)]
struct Shown {
    identity: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        let identity = self.identity.as_ref()?;
        identity.key.choose_scheme(schemes)?;
        Some(Arc::clone(identity))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, UpstreamTlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| UpstreamTlsError::Name(name.to_owned()))
}

/// Makes the handshake.
///
/// # Errors
/// When the roots cannot be read, when it fails, or when the certificate is not
/// good enough for `ask.mode`.
pub async fn connect(tcp: Socket, ask: &Ask) -> Result<(Stream, LegTls), UpstreamTlsError> {
    let roots = match &ask.ca {
        Some(path) => roots_of(path)?,
        None => system_roots(),
    };
    if roots.is_empty() && matches!(ask.mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
        return Err(UpstreamTlsError::NoRoots);
    }
    let name = match &ask.name {
        Some(name) => server_name(name)?,
        None => match &ask.host {
            Host::Address(address) => ServerName::IpAddress((*address).into()),
            Host::Name(name) | Host::Socket(name) => server_name(name)?,
        },
    };
    let sni = match &name {
        ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
        _ => None,
    };
    let verifier = Arc::new(Verifier::new(ask.mode, roots));
    let shown = Arc::new(Shown {
        identity: ask.identity.clone(),
        asked: AtomicBool::new(false),
    });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| UpstreamTlsError::Handshake(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_client_cert_resolver(Arc::clone(&shown) as _);
    // A configuration serves one handshake, so there is nothing to resume.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = ask.alpn.iter().map(|&one| one.to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tls = connector.connect(name, tcp).await.map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(wrong @ rustls::Error::InvalidCertificate(_)) => {
                UpstreamTlsError::Certificate(readable(wrong))
            }
            // An answer to what it was shown, where it was shown nothing.
            Some(rustls::Error::AlertReceived(_))
                if ask.identity.is_none() && shown.asked.load(Ordering::Relaxed) =>
            {
                UpstreamTlsError::ClientCertificate
            }
            Some(wrong) => UpstreamTlsError::Handshake(wrong.to_string()),
            None => UpstreamTlsError::Handshake(error.to_string()),
        }
    })?;
    let (version, cipher) = agreed(tls.get_ref().1);
    let facts = LegTls {
        version,
        cipher,
        sni,
        verified: verifier.found(),
    };
    Ok((Stream::Upstream(Box::new(tls)), facts))
}

/// The system's roots, read once: they change with an update of the system, and
/// a restart takes them up.
fn system_roots() -> Arc<Roots> {
    static ROOTS: OnceLock<Arc<Roots>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a trusted root could not be read");
        }
        Arc::new(Roots::new(found.certs))
    }))
}

/// Roots from a file, read again when it changed.
fn roots_of(path: &Path) -> Result<Arc<Roots>, UpstreamTlsError> {
    type Known = HashMap<PathBuf, (SystemTime, u64, Arc<Roots>)>;
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    let wrong = |source| UpstreamTlsError::Roots {
        path: path.to_owned(),
        source,
    };
    let mut file = looker::open(path).map_err(wrong)?;
    let meta = file.metadata().map_err(wrong)?;
    let changed = meta.modified().map_err(wrong)?;
    let mut known = KNOWN
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((at, size, roots)) = known.get(path)
        && *at == changed
        && *size == meta.len()
    {
        return Ok(Arc::clone(roots));
    }
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut text).map_err(wrong)?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(std::io::Error::other(error.to_string())))?;
    if certificates.is_empty() {
        return Err(wrong(std::io::Error::other("holds no certificate (PEM)")));
    }
    let roots = Arc::new(Roots::new(certificates));
    known.insert(path.to_owned(), (changed, meta.len(), Arc::clone(&roots)));
    Ok(roots)
}
