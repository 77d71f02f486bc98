//! Flows in a protocol that is not read: refused, unless the operator chose
//! otherwise.

use std::sync::Arc;
use std::time::Instant;

use interceptor_engine::hold::{Decision, Question};
use interceptor_engine::opaque::OpaqueSession;
use interceptor_engine::session::{BackendKey, Lookup, Outbox, Session as _};
use interceptor_policy::{DefaultVerdict, Hold, Operation, Protocol, Verdict};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::House;
use super::pump::{Asking, Cancelling, LookUp, Naming, Pump, Surroundings};
use super::serve::{self, Flow};
use crate::config::Uninspected;
use crate::net::Socket;
use crate::tls::Stream;

/// A flow that is not read.
pub(super) struct Opaque {
    /// The agent's leg.
    pub(super) agent: Stream,
    /// What was read of it.
    pub(super) first: Vec<u8>,
    /// What it speaks.
    pub(super) protocol: Protocol,
    /// The service's leg, where it is open already.
    pub(super) service: Option<Stream>,
    /// Why it is not read, where its protocol does not say that.
    pub(super) because: Option<String>,
}

impl Opaque {
    /// A connection of which nothing was opened.
    pub(super) fn new(tcp: Socket, first: Vec<u8>, protocol: Protocol) -> Self {
        Self {
            agent: Stream::Plain(tcp),
            first,
            protocol,
            service: None,
            because: None,
        }
    }

    /// With a reason.
    pub(super) fn because(mut self, why: String) -> Self {
        self.because = Some(why);
        self
    }
}

/// Serves a flow that is not read.
pub(super) async fn serve(house: &Arc<House>, flow: Flow, opaque: Opaque) {
    let protocol = opaque.protocol;
    if let Some(why) = serve::shut_out(house, &flow) {
        tell_refusal(opaque.agent, protocol, &why, &flow).await;
        serve::refused(house, &flow, protocol.name(), &why).await;
        return;
    }
    let uninspected = house.config.intercept.uninspected;
    let default = match uninspected {
        Uninspected::Block => DefaultVerdict::Block,
        Uninspected::Allow | Uninspected::Record => DefaultVerdict::Allow,
    };
    // A target's own default is about what is read; what is not read goes by
    // `uninspected` unless a rule speaks.
    let mut subject = flow.subject(protocol, protocol == Protocol::Tls, default);
    subject.target.default = default;
    let now = house.moment(Instant::now());
    let mut standing = house.memory.standing(&subject.principal, now);
    let judgement =
        house
            .rules
            .current()
            .scope(&subject)
            .judge(&Operation::Opaque, &mut standing, now);
    match judgement.verdict {
        Verdict::Allow(permit) => {
            drop(permit);
            relay(house, flow, opaque, uninspected).await;
        }
        // Nobody can be asked about bytes that nobody can read.
        Verdict::Hold(Hold {
            reason: refusal, ..
        })
        | Verdict::Block(refusal)
        | Verdict::Kill(refusal) => {
            let why = match &refusal.rule {
                Some(_) => refusal.told(),
                None => match &opaque.because {
                    Some(because) => format!("{because}, and `uninspected` is `block`"),
                    None => format!(
                        "traffic in the protocol \"{}\" is not inspected, and `uninspected` is `block`",
                        protocol.name()
                    ),
                }
                .into(),
            };
            tell_refusal(opaque.agent, protocol, &why, &flow).await;
            serve::refused(house, &flow, protocol.name(), &why).await;
        }
    }
}

async fn relay(house: &Arc<House>, flow: Flow, opaque: Opaque, uninspected: Uninspected) {
    let protocol = opaque.protocol;
    // What was opened for the agent is not passed on in the clear.
    let upstream = match opaque.service {
        Some(service) => service,
        None if opaque.agent.is_encrypted() => {
            let why = "the service could not be opened";
            serve::refused(house, &flow, protocol.name(), why).await;
            return;
        }
        None => match flow.dialer.dial(&flow.origin).await {
            Ok(upstream) => Stream::Plain(upstream),
            Err(error) => {
                let why = format!("could not connect to {}: {error}", flow.origin);
                serve::refused(house, &flow, protocol.name(), &why).await;
                return;
            }
        },
    };
    let mut session = OpaqueSession::new(flow.journal(), uninspected == Uninspected::Record);
    let mut out = Outbox::default();
    let (line, meta) = flow.opening(
        house,
        protocol.name(),
        json!({"uninspected": true, "because": opaque.because}),
    );
    session.open(flow.now(), line, meta, &mut out);
    if house.recorder.record(&mut out.events).is_err() {
        return;
    }
    let entry = house.flows.enter(flow.facts(protocol.name()));
    let pump = Pump::new(
        &mut session,
        Nothing,
        opaque.agent,
        upstream,
        house.recorder.clone(),
        flow.began,
        house.config.recorder.stall,
    );
    let (outcome, events) = pump.run((opaque.first, Vec::new()), entry.killed()).await;
    out.clear();
    out.events = events;
    session.close(flow.now(), &outcome.reason(), &mut out);
    serve::record(house, out.events).await;
}

/// A session that is not read needs nothing.
struct Nothing;

impl Surroundings<OpaqueSession> for Nothing {
    fn refresh(&mut self, _session: &mut OpaqueSession) {}

    fn look_up(&mut self, _oids: Vec<u32>) -> LookUp {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn tables(&mut self, _lookup: Lookup) -> Naming {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn ask(&mut self, _question: Question) -> Asking {
        Box::pin(std::future::ready(Decision::Unasked(
            "nothing of this flow is read".to_owned(),
        )))
    }

    fn cancel(&mut self) -> Cancelling {
        Box::pin(std::future::ready(()))
    }

    fn has_key(&mut self, _key: BackendKey) {}
}

/// Says why in the protocol's own words, where it has words before a session.
pub(super) async fn tell_refusal(mut agent: Stream, protocol: Protocol, why: &str, flow: &Flow) {
    let words = match protocol {
        Protocol::Http => {
            let body = json!({
                "type": "about:blank",
                "title": "Refused by Interceptor",
                "status": 403,
                "detail": why,
                "session": flow.session,
            })
            .to_string();
            format!(
                "HTTP/1.1 403 Forbidden\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )
        }
        // Lines before the identification are for people (RFC 4253, section 4.2).
        Protocol::Ssh => format!("Refused by Interceptor: {why}\r\n"),
        _ => return,
    };
    let told = async {
        agent.write_all(words.as_bytes()).await?;
        agent.shutdown().await
    };
    let _ = tokio::time::timeout(super::DETECT_PATIENCE, told).await;
}
