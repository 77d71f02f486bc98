//! Whether a server's certificate is the right one.
//!
//! The chain is judged by rustls; around it stand the two habits of libpq that
//! its users rely on: a certificate that is itself in the `ca` file is trusted
//! (the self-signed ones of PostgreSQL's manual), and a certificate without any
//! subject alternative name is judged by its common name.
//!
//! Modes that only note the result still demand that the server holds the
//! certificate's key: the handshake's signature is always checked.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::provider;
use crate::config::TlsMode;

/// The roots that a certificate may chain to.
#[derive(Debug)]
pub struct Roots {
    store: Arc<RootCertStore>,
    /// The same, whole: a server may show one of them as its own.
    certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// From certificates; those that cannot be a root are counted and left out.
    #[must_use]
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        let _ = store.add_parsable_certificates(certificates.iter().cloned());
        Self {
            store: Arc::new(store),
            certificates,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Whether there is none, so that nothing can be verified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }
}

/// Judges one handshake, and keeps what it found.
#[derive(Debug)]
pub(super) struct Verifier {
    mode: TlsMode,
    roots: Arc<Roots>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    found: Mutex<Option<Result<(), String>>>,
}

impl Verifier {
    pub(super) fn new(mode: TlsMode, roots: Arc<Roots>) -> Self {
        let chain =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots.store), provider())
                .build()
                .ok();
        Self {
            mode,
            roots,
            chain,
            found: Mutex::new(None),
        }
    }

    /// What was found in the handshake.
    pub(super) fn found(&self) -> Option<Result<(), String>> {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the certificate chains to a root (`Ok`), and beyond that whether
    /// it is for `name`.
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> (Result<(), Error>, Result<(), Error>) {
        let chained = match &self.chain {
            None => Err(CertificateError::UnknownIssuer.into()),
            Some(chain) => chain
                .verify_server_cert(leaf, intermediates, name, ocsp, now)
                .map(drop),
        };
        match chained {
            Ok(()) => (Ok(()), Ok(())),
            // rustls looks at the name only once the chain is found to be good.
            Err(wrong) if is_about_name(&wrong) => {
                let named = if common_name_serves(leaf, name) {
                    Ok(())
                } else {
                    Err(wrong)
                };
                (Ok(()), named)
            }
            Err(wrong) => {
                if !self.roots.certificates.iter().any(|root| root == leaf) {
                    return (Err(wrong.clone()), Err(wrong));
                }
                match pinned(leaf, name, now) {
                    Ok(named) => (Ok(()), named),
                    Err(wrong) => (Err(wrong.clone()), Err(wrong)),
                }
            }
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (chained, named) =
            self.judge(end_entity, intermediates, server_name, ocsp_response, now);
        let whole = chained.clone().and_then(|()| named.clone());
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(whole.clone().map_err(|wrong| readable(&wrong)));
        match self.mode {
            // `Disable` makes no handshake; were one made, it is held to everything.
            TlsMode::VerifyFull | TlsMode::Disable => whole?,
            TlsMode::VerifyCa => chained?,
            TlsMode::Mirror | TlsMode::Require => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn is_about_name(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}

/// A certificate that is itself among the roots: only its dates and its names
/// are left to judge.
fn pinned(
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<Result<(), Error>, Error> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(
        if alternative_name_serves(&parsed, name) || common_name_serves(leaf, name) {
            Ok(())
        } else {
            Err(CertificateError::NotValidForName.into())
        },
    )
}

fn alternative_name_serves(certificate: &X509Certificate<'_>, name: &ServerName<'_>) -> bool {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    names
        .value
        .general_names
        .iter()
        .any(|one| match (one, name) {
            (GeneralName::DNSName(pattern), ServerName::DnsName(asked)) => {
                host_matches(pattern, asked.as_ref())
            }
            (GeneralName::IPAddress(bytes), ServerName::IpAddress(asked)) => {
                match std::net::IpAddr::from(*asked) {
                    std::net::IpAddr::V4(asked) => *bytes == asked.octets(),
                    std::net::IpAddr::V6(asked) => *bytes == asked.octets(),
                }
            }
            _ => false,
        })
}

/// A certificate without alternative names is judged by its common name.
fn common_name_serves(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return false;
    };
    if !matches!(parsed.subject_alternative_name(), Ok(None)) {
        return false;
    }
    let asked = match name {
        ServerName::DnsName(asked) => asked.as_ref().to_owned(),
        ServerName::IpAddress(asked) => std::net::IpAddr::from(*asked).to_string(),
        _ => return false,
    };
    let mut names = parsed.subject().iter_common_name();
    match (names.next().and_then(|one| one.as_str().ok()), names.next()) {
        (Some(pattern), None) => host_matches(pattern, &asked),
        _ => false,
    }
}

/// A name, or `*.` in front of one, where the star stands for one label.
fn host_matches(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
    }
}

/// A fault of a certificate, in words that help.
pub(super) fn readable(error: &Error) -> String {
    let Error::InvalidCertificate(wrong) = error else {
        return error.to_string();
    };
    match wrong {
        CertificateError::UnknownIssuer => {
            "its certificate is not signed by a root that is trusted here".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let presented = if presented.is_empty() {
                "no name at all".to_owned()
            } else {
                presented.join(", ")
            };
            format!(
                "its certificate is for {presented}, and not for {}",
                expected.to_str()
            )
        }
        other => format!("its certificate is refused: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label_and_no_more() {
        assert!(host_matches("db.test", "DB.test"));
        assert!(host_matches("*.test", "db.test"));
        assert!(!host_matches("*.test", "a.b.test"));
        assert!(!host_matches("*.test", "test"));
        assert!(!host_matches("*.test", ".test"));
    }

    struct Made {
        root: CertificateDer<'static>,
        leaf: CertificateDer<'static>,
    }

    fn made(names: &[&str], common_name: &str) -> Made {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(ca, key).unwrap();
        let names: Vec<String> = names.iter().map(|&one| one.to_owned()).collect();
        let mut leaf = rcgen::CertificateParams::new(names).unwrap();
        leaf.distinguished_name
            .push(rcgen::DnType::CommonName, common_name);
        let leaf_key = rcgen::KeyPair::generate().unwrap();
        Made {
            root: ca.der().clone(),
            leaf: leaf.signed_by(&leaf_key, &ca).unwrap().der().clone(),
        }
    }

    fn outcome(
        mode: TlsMode,
        roots: &CertificateDer<'static>,
        leaf: &Made,
        host: &str,
    ) -> (bool, bool) {
        let verifier = Verifier::new(mode, Arc::new(Roots::new(vec![roots.clone()])));
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let passed = verifier
            .verify_server_cert(&leaf.leaf, &[], &name, &[], UnixTime::now())
            .is_ok();
        (passed, verifier.found() == Some(Ok(())))
    }

    #[test]
    fn each_mode_asks_what_libpq_asks() {
        let good = made(&["db.test"], "unused");
        let stranger = made(&["db.test"], "unused");
        // (mode, right, wrong name, wrong root): whether the handshake may go on.
        let table = [
            (TlsMode::Mirror, true, true, true),
            (TlsMode::Require, true, true, true),
            (TlsMode::VerifyCa, true, true, false),
            (TlsMode::VerifyFull, true, false, false),
        ];
        for (mode, right, wrong_name, wrong_root) in table {
            assert_eq!(
                outcome(mode, &good.root, &good, "db.test"),
                (right, true),
                "{mode:?}"
            );
            assert_eq!(
                outcome(mode, &good.root, &good, "other.test"),
                (wrong_name, false),
                "{mode:?}"
            );
            assert_eq!(
                outcome(mode, &stranger.root, &good, "db.test"),
                (wrong_root, false),
                "{mode:?}"
            );
        }
    }

    #[test]
    fn the_common_name_counts_only_where_there_is_no_alternative() {
        let old = made(&[], "db.test");
        assert_eq!(
            outcome(TlsMode::VerifyFull, &old.root, &old, "db.test"),
            (true, true)
        );
        let new = made(&["other.test"], "db.test");
        assert_eq!(
            outcome(TlsMode::VerifyFull, &new.root, &new, "db.test"),
            (false, false)
        );
    }

    #[test]
    fn a_certificate_in_the_ca_file_is_trusted_for_its_own_names() {
        let one = made(&["db.test"], "unused");
        assert_eq!(
            outcome(TlsMode::VerifyFull, &one.leaf, &one, "db.test"),
            (true, true)
        );
        assert_eq!(
            outcome(TlsMode::VerifyFull, &one.leaf, &one, "other.test"),
            (false, false)
        );
    }
}
