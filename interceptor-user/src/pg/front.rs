//! Opens a flow: from the agent's first bytes to two legs with a session
//! between them.
//!
//! Whatever goes wrong on the way, the agent is told in PostgreSQL's own words
//! before this returns, on the leg that it asked for; the caller only records it.
//! No secret and no payload is in any error.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use interceptor_proto::pg::backend::NoticeBuilder;
use interceptor_proto::pg::startup::{self, StartupPacket};
use interceptor_proto::pg::{PgError, sqlstate};

use super::cancel::{CancelRegistry, CancelTo};
use super::logon::{self, LogonError};
use super::negotiate::{self, Agent, Service, StartupFacts, Wish};
use super::upstream;
use super::wire;
use crate::config::{Target, TlsMode};
use crate::handover::drain;
use crate::net::{Dialer, Origin, Socket};
use crate::tls::downstream::DownstreamTlsError;
use crate::tls::upstream::UpstreamTlsError;
use crate::tls::{Authority, LegTls, Stream};

/// What all flows share.
#[derive(Clone, Debug)]
pub struct Front {
    /// Opens agents' TLS.
    pub authority: Arc<Authority>,
    /// Where cancellations go.
    pub cancels: CancelRegistry,
    /// Dials services.
    pub dialer: Dialer,
    /// Where daemons that end their last sessions are asked for theirs.
    pub runtime_dir: Option<Arc<Path>>,
    /// How long the opening of a flow may take; PostgreSQL's own
    /// `authentication_timeout` is a minute.
    pub patience: Duration,
}

impl Front {
    /// With PostgreSQL's own patience, and no mark on its sockets.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        Self {
            authority,
            cancels: CancelRegistry::default(),
            dialer: Dialer::default(),
            runtime_dir: None,
            patience: Duration::from_secs(60),
        }
    }
}

/// An accepted connection of an agent.
#[derive(Debug)]
pub struct FrontRequest<'a> {
    /// The connection.
    pub tcp: Socket,
    /// What was read from it already.
    pub first: Vec<u8>,
    /// What the agent dialled, and what will be dialled for it.
    pub origin: &'a Origin,
    /// The target that it belongs to.
    pub target: Option<&'a Target>,
    /// What all flows share.
    pub front: &'a Front,
}

/// What came of it.
#[derive(Debug)]
pub enum Opened {
    /// A session may begin.
    Session(Box<Legs>),
    /// It was a request to cancel, and is done.
    Cancelled(Cancelled),
}

/// A request to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// The backend's process, as the request names it.
    pub process_id: u32,
    /// Whether a live session was given that key. Where not, nothing was sent:
    /// a stale key, or an agent that tries keys.
    pub known: bool,
}

/// Two legs.
#[derive(Debug)]
pub struct Legs {
    /// The agent's.
    pub downstream: Stream,
    /// The service's.
    pub upstream: Stream,
    /// What the agent said in its startup packet.
    pub startup: StartupFacts,
    /// Whether the proxy has logged on itself: `upstream_pending` then begins
    /// with `AuthenticationOk`. Otherwise the startup packet was sent, and the
    /// service's answer to it is the next thing to come.
    pub logged_on: bool,
    /// From the agent, read and not passed on.
    pub downstream_pending: Vec<u8>,
    /// From the service, read and not passed on; may end inside a message.
    pub upstream_pending: Vec<u8>,
    /// How the agent's leg is encrypted.
    pub downstream_tls: Option<LegTls>,
    /// How the service's leg is encrypted.
    pub upstream_tls: Option<LegTls>,
    /// Where this session's cancellations go, for
    /// [`CancelRegistry::register`].
    pub cancel_to: CancelTo,
}

/// Why there is no session. The agent has been told.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct FrontError {
    /// What went wrong.
    #[source]
    pub fault: Fault,
    /// What the agent had said by then.
    pub startup: Option<Box<StartupFacts>>,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The agent closed before it had said what it wants.
    #[error("the agent closed the connection")]
    Gone,
    /// The agent's connection failed.
    #[error("the agent's connection failed: {0}")]
    Agent(#[source] io::Error),
    /// It took too long.
    #[error("the connection was not opened in time")]
    Slow,
    /// What the agent sent is no startup packet.
    #[error(transparent)]
    Malformed(#[from] PgError),
    /// Bytes that were to be taken for a part of the encrypted conversation.
    #[error("received {extra} bytes of unencrypted data behind a request for encryption")]
    Stuffed {
        /// How many.
        extra: usize,
    },
    /// Direct TLS that does not say that it is PostgreSQL.
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    NoAlpn,
    /// A startup packet without a user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// The agent's leg could not be encrypted.
    #[error(transparent)]
    DownstreamTls(#[from] DownstreamTlsError),
    /// The service could not be reached.
    #[error("could not connect to {origin}: {source}")]
    Dial {
        /// Where it was to be.
        origin: Origin,
        /// Why.
        source: io::Error,
    },
    /// The service's connection failed.
    #[error("the service's connection failed: {0}")]
    Upstream(#[source] io::Error),
    /// The service has no TLS, and it is asked for.
    #[error("the service does not offer TLS, and the connection is not made without")]
    NoUpstreamTls,
    /// The service answered a request for TLS with something else.
    #[error("the service answered the request for TLS with byte 0x{0:02x}")]
    TlsAnswer(u8),
    /// The service's leg could not be encrypted.
    #[error("TLS to the service: {0}")]
    UpstreamTls(#[from] UpstreamTlsError),
    /// The proxy could not log on.
    #[error(transparent)]
    Logon(#[from] LogonError),
}

/// Opens a flow.
///
/// # Errors
/// Whatever kept a session from beginning; the agent has been told.
pub async fn open(request: FrontRequest<'_>) -> Result<Opened, FrontError> {
    let FrontRequest {
        tcp,
        first,
        origin,
        target,
        front,
    } = request;
    tcp.send_at_once();
    let mut agent = Some(Agent {
        stream: Stream::Plain(tcp),
        tls: None,
        buffer: first,
    });
    let mut facts = None;
    let opening = advance(front, &mut agent, &mut facts, origin, target);
    let opened = tokio::time::timeout(front.patience, Box::pin(opening))
        .await
        .unwrap_or(Err(Fault::Slow));
    match opened {
        Ok(opened) => Ok(opened),
        Err(fault) => {
            if let (Some(agent), Some(frame)) = (&mut agent, answer(&fault, target)) {
                wire::farewell(&mut agent.stream, &frame).await;
            }
            Err(FrontError {
                fault,
                startup: facts.map(Box::new),
            })
        }
    }
}

async fn advance(
    front: &Front,
    agent: &mut Option<Agent>,
    told: &mut Option<StartupFacts>,
    origin: &Origin,
    target: Option<&Target>,
) -> Result<Opened, Fault> {
    let (wish, service) = negotiate::negotiate(front, agent, origin, target).await?;
    let (raw, mut facts) = match wish {
        Wish::Session(raw, facts) => (raw, facts),
        Wish::Cancel(raw) => return cancel(front, origin, &raw).await,
    };
    *told = Some(facts.clone());

    let sni = agent
        .as_ref()
        .and_then(|agent| agent.tls.as_ref())
        .and_then(|tls| tls.sni.as_deref());
    let ask = upstream::ask(target, origin, sni);
    let (tcp, offers_tls) = match service {
        Service::Failed(fault) => return Err(fault),
        Service::OffersTls(tcp) => (tcp, true),
        Service::Plain(tcp) => (tcp, false),
        Service::Untouched => {
            let mut tcp = upstream::dial(&front.dialer, origin).await?;
            let wanted = !matches!(ask.mode, TlsMode::Disable | TlsMode::Mirror);
            if wanted && !upstream::ask_tls(&mut tcp).await? {
                return Err(Fault::NoUpstreamTls);
            }
            (tcp, wanted)
        }
    };
    let (mut stream, upstream_tls) = if offers_tls {
        let (stream, facts) = upstream::encrypt(tcp, &ask).await?;
        (stream, Some(facts))
    } else {
        (Stream::Plain(tcp), None)
    };

    let mut upstream_pending = Vec::new();
    let credentials = target.and_then(|target| target.credentials.as_ref());
    if let Some(credentials) = credentials {
        let packet = logon::startup(&raw, &facts, credentials)?;
        let user = credentials.user.clone().unwrap_or(facts.user.clone());
        let logon = logon::Logon {
            user: &user,
            password: credentials.password.as_ref(),
            loopback: origin.is_loopback(),
            mode: ask.mode,
            tls: upstream_tls.as_ref(),
        };
        wire::send(&mut stream, &packet)
            .await
            .map_err(Fault::Upstream)?;
        upstream_pending = logon::logon(&mut stream, &logon).await?;
        facts.upstream_user = Some(user);
    } else {
        wire::send(&mut stream, &raw)
            .await
            .map_err(Fault::Upstream)?;
    }

    let agent = agent.take().ok_or(Fault::Gone)?;
    Ok(Opened::Session(Box::new(Legs {
        downstream: agent.stream,
        cancel_to: CancelTo {
            asked: Arc::default(),
            origin: origin.clone(),
            dialer: front.dialer.clone(),
            tls: upstream_tls.is_some().then(|| Arc::new(ask)),
        },
        upstream: stream,
        startup: facts,
        logged_on: credentials.is_some(),
        downstream_pending: agent.buffer,
        upstream_pending,
        downstream_tls: agent.tls,
        upstream_tls,
    })))
}

async fn cancel(front: &Front, origin: &Origin, raw: &[u8]) -> Result<Opened, Fault> {
    let Ok((_, StartupPacket::Cancel(request))) = startup::packet(raw, startup::LENGTH_MAX) else {
        return Err(Fault::Malformed(PgError::StartupLayout));
    };
    let mut known = front.cancels.forward(origin, &request).await?;
    if !known && let Some(runtime_dir) = &front.runtime_dir {
        // Its session may be one that the daemon before this one still has.
        known = drain::cancel(runtime_dir, origin, &request).await;
    }
    Ok(Opened::Cancelled(Cancelled {
        process_id: request.process_id,
        known,
    }))
}

/// What the agent is told; nothing where there is nobody left to tell.
fn answer(fault: &Fault, target: Option<&Target>) -> Option<Vec<u8>> {
    let named = target.map_or_else(String::new, |target| {
        format!(" of target {:?}", target.name)
    });
    let text = fault.to_string();
    let (code, message, hint): (&str, String, Option<String>) = match fault {
        Fault::Gone | Fault::Agent(_) | Fault::DownstreamTls(_) => return None,
        Fault::Slow => (sqlstate::CANNOT_CONNECT_NOW, text, None),
        // In PostgreSQL's own words, for clients that look for them.
        Fault::Malformed(PgError::UnsupportedProtocol { major, minor }) => (
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"),
            None,
        ),
        Fault::Malformed(_) => (
            sqlstate::PROTOCOL_VIOLATION,
            format!("invalid startup packet: {text}"),
            None,
        ),
        Fault::Stuffed { .. } => (
            sqlstate::PROTOCOL_VIOLATION,
            text,
            Some("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.".to_owned()),
        ),
        Fault::NoAlpn => (sqlstate::PROTOCOL_VIOLATION, text, None),
        Fault::NoUser => (sqlstate::INVALID_AUTHORIZATION, text, None),
        Fault::Dial { .. } | Fault::Upstream(_) => (
            sqlstate::CANNOT_CONNECT,
            format!("Interceptor: {text}"),
            None,
        ),
        Fault::NoUpstreamTls | Fault::TlsAnswer(_) => (
            sqlstate::CANNOT_CONNECT,
            format!("Interceptor: {text}"),
            Some(format!("`tls.upstream`{named} and the client's sslmode say how much TLS is asked for.")),
        ),
        Fault::UpstreamTls(_) => (
            sqlstate::CANNOT_CONNECT,
            format!("Interceptor: {text}"),
            Some(format!("`tls.ca`, `tls.server_name` and `tls.upstream`{named} say what its certificate is held to.")),
        ),
        Fault::Logon(error) => {
            return Some(error.answer(&named));
        }
    };
    let mut frame = Vec::new();
    let mut notice = NoticeBuilder::fatal(code, &message);
    if let Some(hint) = &hint {
        notice = notice.hint(hint);
    }
    notice.encode_error(&mut frame);
    Some(frame)
}
