//! The service's leg: dialling it, and encrypting it.

use interceptor_proto::pg::startup;
use tokio::io::AsyncReadExt as _;

use super::front::Fault;
use super::wire;
use crate::config::{Target, TlsMode};
use crate::net::{Dialer, Origin, Socket};
use crate::tls::upstream::{self as handshake, Ask};
use crate::tls::{LegTls, Stream};

/// What PostgreSQL's TLS agrees on (ALPN).
pub(super) const ALPN: &[&[u8]] = &[b"postgresql"];

/// Dials a service.
pub(super) async fn dial(dialer: &Dialer, origin: &Origin) -> Result<Socket, Fault> {
    dialer.dial(origin).await.map_err(|source| Fault::Dial {
        origin: origin.clone(),
        source,
    })
}

/// Asks a service for TLS (`SSLRequest`), and whether it has it.
///
/// Exactly one byte is read: what a stranger slips in behind the answer goes
/// into the handshake, and breaks it (CVE-2021-23222).
pub(super) async fn ask_tls(tcp: &mut Socket) -> Result<bool, Fault> {
    let mut request = Vec::with_capacity(8);
    startup::encode_ssl_request(&mut request);
    wire::send(tcp, &request).await.map_err(Fault::Upstream)?;
    match tcp.read_u8().await.map_err(Fault::Upstream)? {
        startup::SSL_ACCEPTED => Ok(true),
        startup::ENCRYPTION_REFUSED => Ok(false),
        // An error in plain text may be anyone's, so it is not passed on
        // (CVE-2024-10977).
        answer => Err(Fault::TlsAnswer(answer)),
    }
}

/// Makes the handshake.
pub(super) async fn encrypt(tcp: Socket, ask: &Ask) -> Result<(Stream, LegTls), Fault> {
    Ok(handshake::connect(tcp, ask).await?)
}

/// How much is asked of the service's TLS, for a target or for none.
pub(super) fn mode(target: Option<&Target>) -> TlsMode {
    target.map_or_else(TlsMode::default, |target| target.tls.mode)
}

/// What is asked of the handshake.
///
/// The name that an agent asked for counts only where the result is merely
/// noted: it is the agent's to choose, and verifying against it would let an
/// agent choose who the service is.
pub(super) fn ask(target: Option<&Target>, origin: &Origin, agents_sni: Option<&str>) -> Ask {
    let mode = mode(target);
    let configured = target.and_then(|target| {
        let own = target.tls.server_name.as_deref();
        own.or_else(|| target.host())
    });
    let noted_only = matches!(mode, TlsMode::Mirror | TlsMode::Require);
    Ask {
        mode,
        ca: target.and_then(|target| target.tls.ca.clone()),
        name: configured
            .or(agents_sni.filter(|_| noted_only))
            .map(str::to_owned),
        host: origin.host.clone(),
        alpn: ALPN,
        identity: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Place, UpstreamTls};

    fn asked(mode: TlsMode, place: Place, server_name: Option<&str>) -> Option<String> {
        let target = Target {
            name: "db".to_owned(),
            place,
            via: None,
            port: None,
            protocol: None,
            tls: UpstreamTls {
                mode,
                ca: None,
                server_name: server_name.map(str::to_owned),
            },
            credentials: None,
            http: None,
            grpc: None,
            ssh: crate::config::SshTarget::default(),
            default: None,
        };
        let origin = Origin::at("10.0.0.1:5432");
        ask(Some(&target), &origin, Some("agents.choice")).name
    }

    #[test]
    fn an_agent_does_not_choose_whose_certificate_is_verified() {
        let network = || Place::Network("10.0.0.0/24".parse().unwrap());
        let host = || Place::Host("db.internal".to_owned());
        for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
            assert_eq!(asked(mode, network(), None), None, "{mode:?}: the address");
        }
        for mode in [TlsMode::Mirror, TlsMode::Require] {
            let noted = asked(mode, network(), None);
            assert_eq!(noted.as_deref(), Some("agents.choice"), "{mode:?}");
        }
        let full = TlsMode::VerifyFull;
        assert_eq!(asked(full, host(), None).as_deref(), Some("db.internal"));
        assert_eq!(
            asked(full, host(), Some("x.test")).as_deref(),
            Some("x.test")
        );
    }
}
