//! Opening both legs: first to the origin, whose key decides whether there is
//! anything to show to the agent at all.
//!
//! A leg that cannot be opened is told in SSH's own words: an identification and a
//! disconnect, which a client shows with its reason before any key is exchanged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use interceptor_proto::ssh::packet::{self, Disconnect};
use russh::client;
use russh::server::{self, RunningSession};
use russh::{MethodKind, MethodSet, SshId};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};

use super::Connection;
use super::agent::{self, Permitted};
use super::authority::Authority;
use super::inbox::{PACKET, WINDOW};
use super::incoming::{self, Incoming};
use super::known_hosts::{HostKeyFault, Known, Verified};
use super::logon::Logon;
use super::origin::{self, HostKey};
use super::{Inboxes, algorithms, own_keys};
use crate::config::{SshTarget, Target};
use crate::flow::pump::Outcome;
use crate::flow::serve::Flow;
use crate::net::{Origin, Socket};
use crate::tls::stream::Rewind;

/// What the proxy calls itself on both legs.
const IDENTIFICATION: &str = "SSH-2.0-Interceptor";
/// How long the key exchange with the origin may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the agent may take to log on; OpenSSH's own default.
const GRACE: Duration = Duration::from_secs(120);
/// Channels of the origin's that may wait to be taken up.
const WAITING: usize = 32;

/// Why a leg was not opened.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not reached.
    #[error("could not connect to {0}: {1}")]
    Dial(Origin, std::io::Error),
    /// It took too long.
    #[error("{0} did not exchange keys in {PATIENCE:?}")]
    Slow(Origin),
    /// Its key.
    #[error(transparent)]
    HostKey(#[from] HostKeyFault),
    /// Anything else of the protocol.
    #[error("{0} does not speak SSH as it should: {1}")]
    Ssh(Origin, russh::Error),
    /// Agents' own keys cannot be read.
    #[error("agents' own keys: {0:#}")]
    Listed(anyhow::Error),
    /// The key that stands for it.
    #[error("no host key can be shown: {0}")]
    Own(#[from] super::authority::HostKeyError),
}

impl Fault {
    /// The disconnect that tells of it.
    #[must_use]
    pub fn told(&self) -> Disconnect {
        let reason = match self {
            Self::HostKey(_) => packet::HOST_KEY,
            Self::Dial(..) | Self::Slow(_) => packet::CONNECTION_LOST,
            _ => packet::PROTOCOL_ERROR,
        };
        Disconnect {
            reason,
            description: format!("Refused by Interceptor: {self}"),
        }
    }
}

/// The leg to the origin, its key checked and nobody logged on.
pub(crate) struct OriginLeg {
    handle: client::Handle<origin::Handler>,
    inboxes: Arc<Inboxes>,
    incoming: mpsc::Receiver<Incoming>,
    gone: watch::Receiver<Option<String>>,
    /// How its host key was known.
    pub(crate) verified: Verified,
    /// That key.
    pub(crate) fingerprint: String,
}

fn host(flow: &Flow) -> Option<&str> {
    flow.target.as_ref().and_then(Target::host)
}

/// Opens the leg to the origin.
///
/// # Errors
/// When it cannot be reached, or is not who it should be.
pub(crate) async fn origin(
    authority: &Authority,
    flow: &Flow,
    target: &SshTarget,
) -> Result<OriginLeg, Fault> {
    let learned = authority.learned();
    let known = Known::read(
        &flow.origin,
        host(flow),
        target.known_hosts.as_deref(),
        target.accept_new.then_some(learned.as_path()),
    )?;
    let tcp = flow
        .dialer
        .dial(&flow.origin)
        .await
        .map_err(|error| Fault::Dial(flow.origin.clone(), error))?;
    let mut preferred = algorithms();
    let (kinds, signed) = known.algorithms();
    // Of a kind that is known, lest a key of another kind look like a change.
    let keys = preferred.key.to_mut();
    keys.sort_by_key(|algorithm| match kinds.is_empty() {
        true => false,
        false => !kinds
            .iter()
            .any(|kind| kind == algorithm || is_rsa(kind) && is_rsa(algorithm)),
    });
    if signed {
        preferred.host_key_certificates = preferred.key.clone();
    }
    let config = client::Config {
        client_id: SshId::Standard(IDENTIFICATION.into()),
        window_size: WINDOW,
        manual_windows: true,
        maximum_packet_size: PACKET,
        preferred,
        ..client::Config::default()
    };
    let host_key: Arc<Mutex<HostKey>> = Arc::default();
    let inboxes: Arc<Inboxes> = Arc::default();
    let (sender, incoming) = mpsc::channel(WAITING);
    let (gone, is_gone) = watch::channel(None);
    let handler = origin::Handler {
        known,
        accept_new: target.accept_new,
        host_key: Arc::clone(&host_key),
        inboxes: Arc::clone(&inboxes),
        incoming: sender,
        gone,
    };
    let connected = client::connect_stream(Arc::new(config), tcp, handler);
    let connected = tokio::time::timeout(PATIENCE, Box::pin(connected))
        .await
        .map_err(|_| Fault::Slow(flow.origin.clone()))?;
    let shown = {
        let mut host_key = host_key.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *host_key)
    };
    let verified = match shown.verified {
        Some(Ok(verified)) => verified,
        Some(Err(fault)) => return Err(fault.into()),
        None => {
            let error = connected.err().unwrap_or(russh::Error::Disconnect);
            return Err(Fault::Ssh(flow.origin.clone(), error));
        }
    };
    let handle = connected.map_err(|error| Fault::Ssh(flow.origin.clone(), error))?;
    if let Some(line) = shown.line {
        learn(&learned, &line)?;
    }
    Ok(OriginLeg {
        handle,
        inboxes,
        incoming,
        gone: is_gone,
        verified,
        fingerprint: shown.fingerprint,
    })
}

fn is_rsa(algorithm: &russh::keys::Algorithm) -> bool {
    matches!(algorithm, russh::keys::Algorithm::Rsa { .. })
}

/// Holds a host to the key that it showed first.
fn learn(path: &std::path::Path, line: &str) -> Result<(), HostKeyFault> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut open = std::fs::OpenOptions::new();
    open.create(true).append(true).mode(0o600);
    open.open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(|error| HostKeyFault::File {
            place: path.display().to_string(),
            why: error.to_string(),
        })
}

/// Refuses an agent before any key is exchanged.
pub(crate) async fn refuse(mut agent: Socket, told: &Disconnect) {
    let mut words = format!("{IDENTIFICATION}\r\n").into_bytes();
    words.extend(told.encode());
    let said = async {
        agent.write_all(&words).await?;
        agent.shutdown().await?;
        // What the agent has said is read, lest the kernel take the words back.
        let mut rest = tokio::io::AsyncReadExt::take(agent, 1 << 20);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), said).await;
}

/// The agent's side of a connection, running.
pub(crate) struct Running {
    session: RunningSession<agent::Handler>,
    incoming: mpsc::Receiver<Incoming>,
    gone: watch::Receiver<Option<String>>,
    ready: watch::Receiver<Option<agent::Origin>>,
    connection: Arc<Connection>,
    agent_inboxes: Arc<Inboxes>,
    origin_inboxes: Arc<Inboxes>,
    permitted: Arc<Mutex<Permitted>>,
}

/// Opens the agent's leg, with the key that stands for the origin.
///
/// # Errors
/// When there is no such key, or the agent does not begin as it should.
pub(crate) async fn agent(
    authority: &Authority,
    connection: Arc<Connection>,
    target: &SshTarget,
    leg: OriginLeg,
    tcp: Socket,
    first: Vec<u8>,
) -> Result<Running, Fault> {
    let origin = connection.flow.origin.clone();
    let (key, certificate) = authority.host_key(&origin, host(&connection.flow))?;
    let methods = [
        MethodKind::None,
        MethodKind::PublicKey,
        MethodKind::Password,
        MethodKind::KeyboardInteractive,
    ];
    let config = server::Config {
        server_id: SshId::Standard(IDENTIFICATION.into()),
        methods: MethodSet::from(methods.as_slice()),
        // A failed attempt takes as long as the origin takes to refuse it.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        certificates: vec![certificate],
        window_size: WINDOW,
        manual_windows: true,
        maximum_packet_size: PACKET,
        preferred: algorithms(),
        inactivity_timeout: None,
        ..server::Config::default()
    };
    let listed = target.authorized_keys.as_deref().map(own_keys::listed);
    let listed = listed.transpose().map_err(Fault::Listed)?;
    let permitted: Arc<Mutex<Permitted>> = Arc::default();
    let agent_inboxes: Arc<Inboxes> = Arc::default();
    let (ready, is_ready) = watch::channel(None);
    let handler = agent::Handler {
        connection: Arc::clone(&connection),
        inboxes: Arc::clone(&agent_inboxes),
        origin_inboxes: Arc::clone(&leg.inboxes),
        logon: Logon {
            handle: Some(leg.handle),
            credentials: target.credentials.clone(),
            listed,
            methods: None,
            asked: 0,
        },
        origin: None,
        permitted: Arc::clone(&permitted),
        ready,
    };
    let stream = Rewind::new(first, tcp);
    let running = server::run_stream(Arc::new(config), stream, handler);
    let session = tokio::time::timeout(GRACE, Box::pin(running))
        .await
        .map_err(|_| Fault::Slow(origin.clone()))?
        .map_err(|error| Fault::Ssh(origin, error))?;
    Ok(Running {
        session,
        incoming: leg.incoming,
        gone: leg.gone,
        ready: is_ready,
        connection,
        agent_inboxes,
        origin_inboxes: leg.inboxes,
        permitted,
    })
}

impl Running {
    /// Carries the connection to its end, and says how it ended.
    pub(crate) async fn run(mut self, killed: impl Future<Output = String> + Send) -> Outcome {
        let handle = self.session.handle();
        let connection = Arc::clone(&self.connection);
        let mut killed = std::pin::pin!(killed);
        let mut grace = Box::pin(tokio::time::sleep(GRACE));
        let mut logged_on = false;
        let mut over = false;
        let outcome = loop {
            tokio::select! {
                ended = &mut self.session => {
                    over = true;
                    break match ended {
                        Ok(()) => Outcome::Closed,
                        Err(russh::Error::IO(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Outcome::Closed,
                        Err(russh::Error::Disconnect) => Outcome::Closed,
                        Err(error) => Outcome::Refused(format!("the agent's connection: {error}")),
                    };
                }
                why = &mut killed => break Outcome::Killed(why),
                ended = connection.ended() => {
                    break match &*ended {
                        Outcome::Refused(why) => Outcome::Refused(why.clone()),
                        Outcome::Unrecorded => Outcome::Unrecorded,
                        _ => Outcome::Closed,
                    };
                }
                () = &mut grace, if !logged_on => {
                    break Outcome::Refused(format!("the agent did not log on in {GRACE:?}"));
                }
                Ok(()) = self.ready.changed(), if !logged_on => {
                    logged_on = self.ready.borrow().is_some();
                }
                Ok(()) = self.gone.changed() => {
                    let why = self.gone.borrow().clone().unwrap_or_default();
                    break Outcome::Refused(why);
                }
                Some(incoming) = self.incoming.recv() => {
                    let ways = incoming::Ways {
                        connection: Arc::clone(&connection),
                        handle: handle.clone(),
                        agent_inboxes: Arc::clone(&self.agent_inboxes),
                        origin_inboxes: Arc::clone(&self.origin_inboxes),
                        permitted: Arc::clone(&self.permitted),
                    };
                    tokio::spawn(incoming::run(ways, incoming));
                }
            }
        };
        self.farewell(&outcome, over).await;
        connection.end(Outcome::Closed);
        outcome
    }

    /// Says why to both sides, and waits a moment until they have heard; to the agent
    /// only where its connection is not `over`.
    async fn farewell(&mut self, outcome: &Outcome, over: bool) {
        let origin = self.ready.borrow().clone();
        if let Some(origin) = origin {
            let _ = origin
                .disconnect(russh::Disconnect::ByApplication, "", "en")
                .await;
        }
        if over || matches!(outcome, Outcome::Closed) {
            return;
        }
        let told = match outcome {
            Outcome::Refused(why) => format!("Ended by Interceptor: {why}"),
            other => format!("Ended by Interceptor: {}", other.reason()),
        };
        // What was answered a moment ago goes first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let handle = self.session.handle();
        let said = async {
            let _ = handle
                .disconnect(russh::Disconnect::ByApplication, told, "en".to_owned())
                .await;
            let _ = (&mut self.session).await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), said).await;
    }
}
