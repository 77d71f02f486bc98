//! One flow, from accept to its end: who, where, what.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use interceptor_common::DNS_PORT;
use interceptor_engine::event::{Event, FlowTime, Kind, SCHEMA};
use interceptor_engine::journal::Journal;
use interceptor_policy::verdict::Severity;
use interceptor_policy::{DefaultVerdict, Principal, Protocol, Subject};
use interceptor_proto::detect::{Detection, Wire, detect};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tracing::{debug, warn};
use uuid::Uuid;

use super::opaque::Opaque;
use super::registry::FlowFacts;
use super::{DETECT_PATIENCE, House, http, opaque, postgres, ssh};
use crate::agents::Identity;
use crate::approval::facts::Context;
use crate::config::{self, Listener};
use crate::dns;
use crate::kernel;
use crate::net::{Dialer, Origin, Socket};

/// First bytes that are looked at, at most.
const FIRST_LIMIT: usize = 64 << 10;

/// How a connection came.
#[derive(Debug)]
pub enum Arrival {
    /// The kernel redirected it.
    Redirected(kernel::Origin),
    /// To an explicit listener.
    Explicit(Arc<Listener>),
}

/// What is known of a flow before its protocol's own part begins.
#[derive(Debug)]
pub struct Flow {
    /// Its session.
    pub session: Uuid,
    /// Time zero of the session.
    pub began: Instant,
    /// The wall clock at that moment.
    pub began_at: time::OffsetDateTime,
    /// Who.
    pub identity: Identity,
    /// Process id at `connect`; 0 where not known.
    pub pid: u32,
    /// The name by which the agent looked it up, where it did.
    pub name: Option<Arc<str>>,
    /// Where.
    pub origin: Origin,
    /// How the service is dialled.
    pub dialer: Dialer,
    /// The target's name, where one is configured.
    pub target: Option<config::Target>,
    /// How it came.
    pub arrival: &'static str,
    /// The session inside whose connection it runs, and its channel there.
    pub outer: Option<(Uuid, u64)>,
    /// See [`Flow::acting`].
    pub acting: OnceLock<Arc<Value>>,
}

impl Flow {
    /// One that begins now, by a redirect and to no target.
    #[must_use]
    pub fn new(house: &House, identity: Identity, pid: u32, origin: Origin) -> Self {
        Self {
            session: Uuid::now_v7(),
            began: Instant::now(),
            began_at: time::OffsetDateTime::now_utc(),
            identity,
            pid,
            name: None,
            origin,
            dialer: house.front.dialer.clone(),
            target: None,
            arrival: "redirect",
            outer: None,
            acting: OnceLock::new(),
        }
    }

    /// Who acts on what, for the rules.
    #[must_use]
    pub fn subject(&self, protocol: Protocol, tls: bool, default: DefaultVerdict) -> Subject {
        let target = self.target.as_ref();
        Subject {
            principal: self.identity.principal.clone(),
            target: interceptor_policy::Target {
                name: target.map(|target| target.name.clone()),
                host: self.host().map(str::to_owned),
                address: self.address(),
                port: self.origin.port,
                origin: self.origin.to_string().into(),
                tls,
                default: target.and_then(|target| target.default).unwrap_or(default),
            },
            protocol,
        }
    }

    /// The host that it goes to: as it is configured, or as the agent looked it up.
    fn host(&self) -> Option<&str> {
        let configured = self.target.as_ref().and_then(config::Target::host);
        configured.or(self.name.as_deref())
    }

    /// Its address, where that is known and means here what it says: behind an SSH
    /// server it does so where the operator has said what is there.
    fn address(&self) -> Option<IpAddr> {
        let is_known = self.origin.via.is_none() || self.target.is_some();
        self.origin.address().filter(|_| is_known)
    }

    /// The session's journal.
    #[must_use]
    pub fn journal(&self) -> Journal {
        Journal::new(self.session, self.identity.run.clone())
    }

    /// For lists.
    #[must_use]
    pub fn facts(&self, protocol: &'static str) -> FlowFacts {
        FlowFacts {
            session: self.session,
            agent: self.identity.principal.agent.clone(),
            run: self.identity.run.clone(),
            origin: self.origin.to_string(),
            target: self.target.as_ref().map(|target| target.name.clone()),
            protocol,
            pid: self.pid,
            opened: self.opened(),
        }
    }

    /// Who asks and where, for a question.
    #[must_use]
    pub fn context(&self, house: &House, protocol: &'static str) -> Context {
        let acts = &self.identity.principal;
        Context {
            agent: acts.agent.clone(),
            uid: acts.uid,
            principal: Arc::clone(self.acting()),
            process: Arc::clone(&self.identity.process),
            target: self
                .target
                .as_ref()
                .map_or_else(|| self.origin.to_string(), |target| target.name.clone()),
            origin: self.origin.to_string(),
            host: house.host.clone(),
            protocol,
        }
    }

    /// Who acts, for the record and for questions, which share it.
    fn acting(&self) -> &Arc<Value> {
        self.acting
            .get_or_init(|| Arc::new(principal(&self.identity)))
    }

    fn opened(&self) -> String {
        self.began_at
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap_or_default()
    }

    /// Time since the session opened.
    #[must_use]
    pub fn now(&self) -> FlowTime {
        FlowTime(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The opening event's line and facts; `more` are the protocol's own.
    #[must_use]
    pub fn opening(&self, house: &House, protocol: &str, more: Value) -> (String, String) {
        let agent = &self.identity.principal.agent;
        let line = format!(
            "{agent} ({}) to {}{} over {protocol}",
            self.identity
                .principal
                .exe
                .as_deref()
                .unwrap_or("unknown executable"),
            self.target
                .as_ref()
                .map(|target| format!("{} at ", target.name))
                .unwrap_or_default(),
            self.origin
        );
        let wall = self.began_at.unix_timestamp_nanos() / 1_000_000;
        let mut meta = json!({
            "schema": SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "host": house.host,
            "at_wall": self.opened(),
            "at_wall_ms": i64::try_from(wall).unwrap_or_default(),
            "agent": agent,
            "labels": self.identity.principal.labels,
            "principal": self.acting(),
            "process": self.identity.process,
            "origin": self.origin.to_string(),
            "host_name": self.host(),
            "target": self.target.as_ref().map(|target| &target.name),
            "arrival": self.arrival,
            "inside": self.outer.map(|(session, channel)| json!({"session": session, "channel": channel})),
            "protocol": protocol,
            "rules_digest": house.rules.current().digest(),
        });
        if let (Some(meta), Value::Object(more)) = (meta.as_object_mut(), more) {
            meta.extend(more);
        }
        (line, meta.to_string())
    }
}

fn principal(identity: &Identity) -> Value {
    let principal = &identity.principal;
    json!({
        "agent": principal.agent,
        "user": principal.user,
        "uid": principal.uid,
        "group": principal.group,
        "exe": principal.exe,
        // Without what looks like a secret, unlike the one that rules see.
        "command_line": identity.process.get("command_line"),
        "cgroup": principal.cgroup,
        "unit": principal.unit,
        "container": principal.container,
    })
}

/// Serves one connection to its end.
pub async fn accepted(house: Arc<House>, tcp: TcpStream, arrival: Arrival) {
    let began = Instant::now();
    let began_at = time::OffsetDateTime::now_utc();
    let Some((identity, pid, origin, how)) = who_and_where(&house, arrival).await else {
        return;
    };
    let cgroup = identity.cgroup;
    let name = cgroup.and_then(|cgroup| house.dns.names.of(cgroup, origin.ip(), began));
    let target = match how {
        How::Redirected => house
            .targets
            .resolve(&origin.into(), name.as_deref())
            .cloned(),
        How::Explicit(target) => Some(*target),
    };
    let flow = Flow {
        began,
        began_at,
        name,
        target,
        arrival: if pid == 0 { "listener" } else { "redirect" },
        ..Flow::new(&house, identity, pid, origin.into())
    };
    if is_ourselves(&house, origin) {
        refused(
            &house,
            &flow,
            "unknown",
            "the destination is Interceptor itself",
        )
        .await;
        return;
    }
    // Whichever name server it is: it is asked here.
    if let Some(cgroup) = cgroup
        && origin.port() == DNS_PORT
        && flow.target.is_none()
    {
        return Box::pin(dns::server::over_tcp(
            &house,
            flow,
            cgroup,
            Socket::Tcp(tcp),
        ))
        .await;
    }
    Box::pin(serve(house, flow, Socket::Tcp(tcp))).await;
}

/// What is known of a connection inside another.
#[derive(Debug)]
pub struct Inner {
    /// Its session.
    pub session: Uuid,
    /// The channel that it is.
    pub channel: u64,
    /// Where it goes.
    pub origin: Origin,
    /// How that is dialled.
    pub dialer: Dialer,
    /// How it came.
    pub arrival: &'static str,
}

/// Serves a connection inside another flow's to its end. It outlives that flow for
/// as long as it takes to put its end on record.
pub fn carried(
    house: Arc<House>,
    outer: &Flow,
    inner: Inner,
    socket: Socket,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let identity = outer.identity.clone();
    let flow = Flow {
        session: inner.session,
        target: house.targets.resolve(&inner.origin, None).cloned(),
        dialer: inner.dialer,
        arrival: inner.arrival,
        outer: Some((outer.session, inner.channel)),
        ..Flow::new(&house, identity, outer.pid, inner.origin)
    };
    Box::pin(serve(house, flow, socket))
}

/// Finds out what is spoken, and has it served.
pub(super) async fn serve(house: Arc<House>, flow: Flow, mut tcp: Socket) {
    let mut first = Vec::new();
    let wanted = flow.target.as_ref().and_then(|target| target.protocol);
    let wire = match tokio::time::timeout(DETECT_PATIENCE, first_bytes(&mut tcp, &mut first)).await
    {
        Ok(Ok(wire)) => wire,
        Ok(Err(error)) => {
            debug!(%error, "an agent's connection failed before its first bytes");
            return;
        }
        // A protocol in which the service speaks first, or an agent that waits.
        Err(_) => None,
    };
    if first.is_empty() && wire.is_none() && tcp.is_at_end() {
        debug!(origin = %flow.origin, "an agent connected and closed without a word");
    }
    let spoken = match wire {
        Some(Wire::PostgresStartup | Wire::PostgresTls) => Protocol::Postgres,
        Some(Wire::Tls) => Protocol::Tls,
        Some(Wire::Http1 | Wire::Http2) => Protocol::Http,
        Some(Wire::Ssh) => Protocol::Ssh,
        _ => Protocol::Unknown,
    };
    if let Some(wanted) = wanted
        && wanted != spoken
        // What looks like TLS may be the target's protocol inside; nobody here can tell.
        && spoken != Protocol::Tls
    {
        let why = format!(
            "the target is configured to speak {}, and the agent speaks {}",
            wanted.name(),
            spoken.name()
        );
        refused(&house, &flow, spoken.name(), &why).await;
        return;
    }
    // Each apart, so that a flow takes the room of its own protocol's and not the largest's.
    match spoken {
        Protocol::Postgres => Box::pin(postgres::serve(&house, flow, tcp, first)).await,
        Protocol::Http => {
            let is_http2 = wire == Some(Wire::Http2);
            Box::pin(http::serve(&house, flow, tcp, first, is_http2)).await;
        }
        Protocol::Ssh => Box::pin(ssh::serve(&house, flow, tcp, first)).await,
        // A target of another protocol whose agent does not say so in its
        // ClientHello cannot be told from any other TLS.
        Protocol::Tls if wanted.is_none_or(|wanted| wanted == Protocol::Http) => {
            Box::pin(http::serve_tls(&house, flow, tcp, first)).await;
        }
        other => Box::pin(opaque::serve(&house, flow, Opaque::new(tcp, first, other))).await,
    }
}

/// Why this flow's principal may have no session now, if so: a rule ended an
/// earlier one, and said for how long.
pub(super) fn shut_out(house: &House, flow: &Flow) -> Option<String> {
    let now = house.moment(Instant::now());
    let left = house.memory.banned(&flow.identity.principal, now)?;
    Some(format!(
        "agent {:?} may open no session for another {} s: a rule ended one and said so",
        flow.identity.principal.agent,
        left.as_secs().max(1)
    ))
}

enum How {
    Redirected,
    Explicit(Box<config::Target>),
}

async fn who_and_where(
    house: &Arc<House>,
    arrival: Arrival,
) -> Option<(Identity, u32, SocketAddr, How)> {
    match arrival {
        Arrival::Redirected(origin) => {
            let runs = house.runs.clone()?;
            let address = origin.address;
            let pid = origin.pid;
            // Reads /proc, and an executable's bytes once.
            let identity = tokio::task::spawn_blocking(move || runs.identify(&origin))
                .await
                .ok()?
                .inspect_err(|error| warn!(pid, %address, %error, "a connection of nobody who could be looked at: closed"))
                .ok()?;
            // Every cgroup with the hooks is a run's. One that is gone already, below a
            // run's, cannot be told from another's: nobody's rules would be asked.
            if identity.run.is_none() {
                warn!(pid, %address, "a connection of a cgroup that nobody knows: closed");
                return None;
            }
            Some((identity, pid, address, How::Redirected))
        }
        Arrival::Explicit(listener) => {
            let target = house
                .config
                .targets
                .iter()
                .find(|target| target.name == listener.target)?;
            let Some(address) = house.targets.address_of(target).await.ok() else {
                warn!(target = %target.name, "the target's address is not known: connection closed");
                return None;
            };
            let identity = Identity {
                principal: Principal {
                    agent: listener.agent.clone(),
                    labels: listener.labels.clone(),
                    ..Principal::default()
                },
                run: None,
                cgroup: None,
                process: Arc::default(),
            };
            Some((
                identity,
                0,
                address,
                How::Explicit(Box::new(target.clone())),
            ))
        }
    }
}

/// Reads until it is certain what is spoken, or certain that it is not known.
async fn first_bytes(tcp: &mut Socket, first: &mut Vec<u8>) -> std::io::Result<Option<Wire>> {
    loop {
        match detect(first) {
            Detection::Certain(wire) => return Ok(Some(wire)),
            Detection::Unknown => return Ok(None),
            Detection::NeedMore if first.len() >= FIRST_LIMIT => return Ok(None),
            Detection::NeedMore => {}
        }
        if tcp.read_buf(first).await? == 0 {
            return Ok(None);
        }
    }
}

/// Whether a destination is a listener of this daemon, which would be a loop, or its store,
/// which no target makes an agent's.
fn is_ourselves(house: &House, origin: SocketAddr) -> bool {
    house
        .config
        .listeners
        .iter()
        .any(|listener| listener.listen == origin)
        || house.recorder.place().is_at(origin)
}

/// Puts a flow on record that was refused before it had a session's state.
pub async fn refused(house: &House, flow: &Flow, protocol: &str, why: &str) {
    let mut journal = flow.journal();
    let now = flow.now();
    let (line, meta) = flow.opening(house, protocol, json!({}));
    let verdict = json!({"verdict": "block", "rule": null, "message": why, "severity": "medium"});
    let close = json!({"reason": why, "duration_us": now.0, "seconds": now.0 / 1_000_000, "exchanges": 0, "worst": "block"});
    let events: Vec<Event> = vec![
        journal.event(now, Kind::Open, None, line).with_meta(meta),
        journal
            .event(now, Kind::Verdict, None, format!("refused: {why}"))
            .with_meta(verdict.to_string())
            .with_alert(Severity::Medium),
        journal
            .event(now, Kind::Close, None, format!("refused: {why}"))
            .with_meta(close.to_string()),
    ];
    record(house, events).await;
}

/// Hands events of an ended flow over, however long the recorder has no room,
/// up to its own patience.
pub async fn record(house: &House, mut events: Vec<Event>) {
    if events.is_empty() {
        return;
    }
    let patience = house.config.recorder.stall;
    let handed = tokio::time::timeout(patience, async {
        while house.recorder.record(&mut events).is_err() {
            house.recorder.room().await;
        }
    });
    if handed.await.is_err() {
        warn!(
            events = events.len(),
            "the end of a session could not be recorded: the recorder has no room"
        );
    }
}
