//! The handshake with an agent.

use tokio_rustls::LazyConfigAcceptor;

use super::authority::{Alpn, Authority, AuthorityError, Names};
use super::stream::{Rewind, Stream};
use super::{LegTls, agreed};
use crate::net::Origin;

/// Why there is no encrypted leg to an agent.
#[derive(Debug, thiserror::Error)]
pub enum DownstreamTlsError {
    /// The handshake failed; an agent that does not trust the local authority
    /// ends it here.
    #[error("the TLS handshake with the agent failed: {0}")]
    Handshake(std::io::Error),
    /// No certificate could be issued.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl DownstreamTlsError {
    /// Whether the agent ended the handshake because of our certificate: it does
    /// not trust the local authority, or holds out for the service's own.
    #[must_use]
    pub fn is_about_certificate(&self) -> bool {
        use rustls::AlertDescription as Alert;
        let Self::Handshake(error) = self else {
            return false;
        };
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        matches!(
            inner,
            Some(rustls::Error::AlertReceived(
                Alert::UnknownCA
                    | Alert::BadCertificate
                    | Alert::CertificateUnknown
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::AccessDenied
            ))
        )
    }
}

/// Answers an agent's handshake with a certificate for whatever the agent may
/// verify: the name that it asks for, the address that it dialled, and the host
/// that is configured for the target.
///
/// Also says which protocol was agreed on (ALPN).
///
/// # Errors
/// When the handshake fails or no certificate can be issued.
pub async fn accept(
    authority: &Authority,
    io: Rewind,
    origin: &Origin,
    host: Option<&str>,
    alpn: Alpn,
) -> Result<(Stream, LegTls, Option<Vec<u8>>), DownstreamTlsError> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io)
        .await
        .map_err(DownstreamTlsError::Handshake)?;
    let sni = start.client_hello().server_name().map(str::to_owned);
    let names = Names {
        sni: sni.clone(),
        address: origin.address(),
        host: host.or(origin.name()).map(str::to_owned),
    };
    let config = authority.server_config(&names, alpn)?;
    let tls = start
        .into_stream(config)
        .await
        .map_err(DownstreamTlsError::Handshake)?;
    let connection = tls.get_ref().1;
    let (version, cipher) = agreed(connection);
    let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
    let facts = LegTls {
        version,
        cipher,
        sni,
        verified: None,
    };
    Ok((Stream::Downstream(Box::new(tls)), facts, alpn))
}
