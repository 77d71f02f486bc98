//! Hears the agent out until it says who it is, or whom to cancel.
//!
//! Which leg is encrypted:
//!
//! | agent | target's `tls.upstream` | agent's leg | service's leg |
//! | --- | --- | --- | --- |
//! | plain | disable, mirror | plain | plain |
//! | plain | require, verify-ca, verify-full | plain | TLS |
//! | TLS | disable | TLS | plain |
//! | TLS | mirror, the service has TLS | TLS | TLS |
//! | TLS | mirror, the service has none | refused (`N`), so that the agent's own sslmode decides | plain |
//! | TLS | require, verify-ca, verify-full | TLS | TLS |
//! | direct TLS | as TLS, but where `mirror` finds a service without: an error, since there is nothing to fall back to | | |
//!
//! Credentials change nothing in it: they say who logs on, not who may listen.
//! GSSAPI encryption is always refused (`N`): it cannot be opened.
//!
//! What goes wrong on the service's side meanwhile is kept until the agent has
//! said who it is, so that it reads about it in an `ErrorResponse` and on the
//! leg that it asked for; an agent cannot tell an error in place of the answer
//! to `SSLRequest` from a stranger's.

use interceptor_proto::pg::PgError;
use interceptor_proto::pg::startup::{self, Startup, StartupPacket};

use super::front::{Fault, Front};
use super::upstream;
use super::wire::{self, ReadError};
use crate::config::{Target, TlsMode};
use crate::net::{Origin, Socket};
use crate::tls::stream::Rewind;
use crate::tls::{LegTls, Stream, downstream};

/// First byte of a TLS record that holds a ClientHello.
const TLS_HANDSHAKE: u8 = 0x16;

/// What an agent said in its startup packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartupFacts {
    /// Who it wants to be.
    pub user: String,
    /// Where; the user's name where it did not say.
    pub database: String,
    /// What it calls itself; empty where it does not.
    pub application_name: String,
    /// Whether it asked for the replication protocol.
    pub replication: bool,
    /// Protocol version: 3, and the minor version that it asked for.
    pub protocol: (u16, u16),
    /// Everything in the packet, in its order.
    pub parameters: Vec<(String, String)>,
    /// Who the proxy logs on as, where the target has credentials.
    pub upstream_user: Option<String>,
}

impl StartupFacts {
    fn new(startup: &Startup<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            user: startup.user().map(text).unwrap_or_default(),
            database: startup.database().map(text).unwrap_or_default(),
            application_name: startup
                .get(b"application_name")
                .map(text)
                .unwrap_or_default(),
            replication: startup.is_replication(),
            protocol: (startup.major, startup.minor),
            parameters: startup
                .parameters
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            upstream_user: None,
        }
    }
}

/// The agent's leg while it is being opened.
pub(super) struct Agent {
    pub(super) stream: Stream,
    pub(super) tls: Option<LegTls>,
    /// Read, and not used up.
    pub(super) buffer: Vec<u8>,
}

/// What the agent wants in the end.
pub(super) enum Wish {
    /// A session: the packet itself, and what it says.
    Session(Vec<u8>, StartupFacts),
    /// To cancel: the packet itself.
    Cancel(Vec<u8>),
}

/// What is known of the service's leg when the agent has been heard.
pub(super) enum Service {
    /// Nothing yet.
    Untouched,
    /// It was dialled, and has TLS to offer: the handshake comes next.
    OffersTls(Socket),
    /// It was dialled, and has no TLS.
    Plain(Socket),
    /// It could not be reached.
    Failed(Fault),
}

/// Hears the agent out.
///
/// # Errors
/// What the agent did wrong. The agent has not been told yet.
pub(super) async fn negotiate(
    front: &Front,
    agent: &mut Option<Agent>,
    origin: &Origin,
    target: Option<&Target>,
) -> Result<(Wish, Service), Fault> {
    let mut service = Service::Untouched;
    let (mut may_ask_tls, mut may_ask_gss) = (true, true);

    if first_byte(leg(agent)?).await? == TLS_HANDSHAKE {
        if upstream::mode(target) == TlsMode::Mirror {
            service = ask_service(front, origin).await;
            if matches!(service, Service::Plain(_)) {
                service = Service::Failed(Fault::NoUpstreamTls);
            }
        }
        let alpn = encrypt(front, agent, origin, target).await?;
        if alpn.as_deref() != upstream::ALPN.first().copied() {
            return Err(Fault::NoAlpn);
        }
        (may_ask_tls, may_ask_gss) = (false, false);
    }

    loop {
        let leg = leg(agent)?;
        let raw = packet(leg).await?;
        // It was read once to find its end; read again, it borrows from `raw`.
        let (_, packet) = startup::packet(&raw, startup::LENGTH_MAX).map_err(whole)?;
        match packet {
            StartupPacket::Ssl if may_ask_tls => {
                refuse_stuffed(leg)?;
                // As in PostgreSQL: each is asked for once, and GSSAPI after TLS
                // only where there is none.
                may_ask_tls = false;
                if upstream::mode(target) == TlsMode::Mirror {
                    service = ask_service(front, origin).await;
                }
                if matches!(service, Service::Plain(_)) {
                    wire::send(&mut leg.stream, &[startup::ENCRYPTION_REFUSED])
                        .await
                        .map_err(Fault::Agent)?;
                } else {
                    wire::send(&mut leg.stream, &[startup::SSL_ACCEPTED])
                        .await
                        .map_err(Fault::Agent)?;
                    may_ask_gss = false;
                    encrypt(front, agent, origin, target).await?;
                }
            }
            StartupPacket::GssEnc if may_ask_gss => {
                refuse_stuffed(leg)?;
                may_ask_gss = false;
                wire::send(&mut leg.stream, &[startup::ENCRYPTION_REFUSED])
                    .await
                    .map_err(Fault::Agent)?;
            }
            StartupPacket::Ssl => return Err(again(startup::SSL_CODE)),
            StartupPacket::GssEnc => return Err(again(startup::GSSENC_CODE)),
            StartupPacket::Cancel(_) => return Ok((Wish::Cancel(raw), service)),
            StartupPacket::Startup(startup) => {
                let facts = StartupFacts::new(&startup);
                if facts.user.is_empty() {
                    return Err(Fault::NoUser);
                }
                return Ok((Wish::Session(raw, facts), service));
            }
        }
    }
}

/// The agent's leg. It is away only while a handshake has it, and a handshake
/// that fails ends everything.
fn leg(agent: &mut Option<Agent>) -> Result<&mut Agent, Fault> {
    agent.as_mut().ok_or(Fault::Gone)
}

async fn first_byte(agent: &mut Agent) -> Result<u8, Fault> {
    loop {
        if let Some(first) = agent.buffer.first() {
            return Ok(*first);
        }
        wire::fill(&mut agent.stream, &mut agent.buffer)
            .await
            .map_err(from_agent)?;
    }
}

/// One whole startup packet.
async fn packet(agent: &mut Agent) -> Result<Vec<u8>, Fault> {
    loop {
        match startup::packet(&agent.buffer, startup::LENGTH_MAX) {
            Ok((rest, _)) => {
                let length = agent.buffer.len() - rest.len();
                let rest = agent.buffer.split_off(length);
                return Ok(std::mem::replace(&mut agent.buffer, rest));
            }
            Err(nom::Err::Incomplete(_)) => wire::fill(&mut agent.stream, &mut agent.buffer)
                .await
                .map_err(from_agent)?,
            Err(nom::Err::Error(error) | nom::Err::Failure(error)) => {
                return Err(Fault::Malformed(error));
            }
        }
    }
}

fn whole(error: nom::Err<PgError>) -> Fault {
    match error {
        nom::Err::Error(error) | nom::Err::Failure(error) => Fault::Malformed(error),
        nom::Err::Incomplete(_) => Fault::Malformed(PgError::StartupLayout),
    }
}

/// Bytes behind a request for encryption were sent before the agent could know
/// the answer: by a broken client, or by a stranger who wants them taken for a
/// part of the encrypted conversation (CVE-2021-23214).
fn refuse_stuffed(agent: &Agent) -> Result<(), Fault> {
    match agent.buffer.len() {
        0 => Ok(()),
        extra => Err(Fault::Stuffed { extra }),
    }
}

/// A request that was answered already is read as a protocol version, as
/// PostgreSQL does.
fn again(code: u32) -> Fault {
    let [a, b, c, d] = code.to_be_bytes();
    Fault::Malformed(PgError::UnsupportedProtocol {
        major: u16::from_be_bytes([a, b]),
        minor: u16::from_be_bytes([c, d]),
    })
}

async fn ask_service(front: &Front, origin: &Origin) -> Service {
    let asked = async {
        let mut tcp = upstream::dial(&front.dialer, origin).await?;
        Ok(match upstream::ask_tls(&mut tcp).await? {
            true => Service::OffersTls(tcp),
            false => Service::Plain(tcp),
        })
    };
    asked.await.unwrap_or_else(Service::Failed)
}

/// Makes the agent's leg an encrypted one; what was read of it already is part
/// of the handshake.
async fn encrypt(
    front: &Front,
    agent: &mut Option<Agent>,
    origin: &Origin,
    target: Option<&Target>,
) -> Result<Option<Vec<u8>>, Fault> {
    let Some(Agent {
        stream: Stream::Plain(tcp),
        buffer,
        ..
    }) = agent.take()
    else {
        return Err(Fault::Gone);
    };
    let host = target.and_then(Target::host);
    let (stream, tls, alpn) = downstream::accept(
        &front.authority,
        Rewind::new(buffer, tcp),
        origin,
        host,
        upstream::ALPN,
    )
    .await?;
    *agent = Some(Agent {
        stream,
        tls: Some(tls),
        buffer: Vec::new(),
    });
    Ok(alpn)
}

fn from_agent(error: ReadError) -> Fault {
    match error {
        ReadError::Io(error) => Fault::Agent(error),
        ReadError::Protocol(error) => Fault::Malformed(error),
        ReadError::Closed => Fault::Gone,
    }
}
