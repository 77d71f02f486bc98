//! An HTTP flow: both legs opened, the session made, its exchanges served.

use std::sync::Arc;

use interceptor_engine::http::{Bounds, HttpSession, Outbox, Settings};
use interceptor_policy::verdict::Severity;
use interceptor_policy::{DefaultVerdict, Protocol};
use serde_json::{Value, json};
use tracing::warn;

use super::House;
use super::opaque::{self, Opaque};
use super::postgres::tls_facts;
use super::serve::{self, Flow};
use crate::config::Uninspected;
use crate::http::conversation::{Conversation, Made};
use crate::http::front::{self, Legs, Opened};
use crate::http::serve::{self as hyper_side, Agent};
use crate::http::unopened::Why;
use crate::net::Socket;
use crate::recorder::Alert;
use crate::tls::Stream;

/// Serves a flow that begins as HTTP does, in the clear.
pub(super) async fn serve(
    house: &Arc<House>,
    flow: Flow,
    tcp: Socket,
    first: Vec<u8>,
    http2: bool,
) {
    if let Some(why) = serve::shut_out(house, &flow) {
        opaque::tell_refusal(Stream::Plain(tcp), Protocol::Http, &why, &flow).await;
        serve::refused(house, &flow, "http", &why).await;
        return;
    }
    let legs = front::plain(house, &flow, tcp, first, http2).await;
    session(house, flow, legs).await;
}

/// Serves a flow that begins with a ClientHello.
pub(super) async fn serve_tls(house: &Arc<House>, flow: Flow, tcp: Socket, first: Vec<u8>) {
    if let Some(why) = serve::shut_out(house, &flow) {
        serve::refused(house, &flow, "tls", &why).await;
        return;
    }
    let default = house.config.intercept.default;
    let subject = flow.subject(Protocol::Http, true, default);
    // Where nothing can be allowed the service need not know that anybody asked.
    let dial = house.rules.current().scope(&subject).can_allow();
    match Box::pin(front::tls(house, &flow, tcp, first, dial)).await {
        Opened::Http(legs) => session(house, flow, *legs).await,
        Opened::Unopenable { tcp, first, why } => {
            let cannot = format!("its TLS cannot be opened: {}", why.words());
            let opaque = Opaque::new(tcp, first, Protocol::Tls).because(cannot);
            opaque::serve(house, flow, opaque).await;
        }
        Opened::Inside {
            agent,
            first,
            service,
        } => {
            let cannot = "what is inside its TLS is not HTTP".to_owned();
            let opaque = Opaque {
                agent,
                first,
                protocol: Protocol::Unknown,
                service,
                because: Some(cannot),
            };
            opaque::serve(house, flow, opaque).await;
        }
        Opened::Failed { why, unopened } => {
            if let Some(unopened) = unopened {
                cannot_be_opened(house, &flow, unopened);
            }
            serve::refused(house, &flow, "tls", &why).await;
        }
    }
}

async fn session(house: &Arc<House>, flow: Flow, legs: Legs) {
    let default: DefaultVerdict = house.config.intercept.default;
    let tls = legs.agent.is_encrypted();
    let subject = flow.subject(Protocol::Http, tls, default);
    let generation = house.rules.generation();
    let opened = house.moment(flow.began);
    let mut session = HttpSession::new(Settings {
        scope: house.rules.current().scope(&subject),
        standing: house.memory.standing(&subject.principal, opened),
        opened,
        key: house.key.clone(),
        journal: flow.journal().sealing(house.recorder.seals()),
        downstream_tls: tls,
        uninspected: house.config.intercept.uninspected != Uninspected::Block,
        injected: legs.injector.names(),
        grpc: flow.target.as_ref().and_then(|target| target.grpc.clone()),
        bounds: Bounds::default(),
    });
    let mut out = Outbox::default();
    let (line, meta) = flow.opening(house, "http", facts(&legs));
    session.open(flow.now(), line, meta, &mut out);
    if house.recorder.record(&mut out.events).is_err() {
        warn!(session = %flow.session, "the recorder has no room: session refused");
        let why = "the recorder has no room, and nothing goes on unrecorded";
        return opaque::tell_refusal(legs.agent, Protocol::Http, why, &flow).await;
    }
    if let Some(fault) = &legs.fault {
        unavailable(house, &flow, fault);
    }
    let entry = house.flows.enter(flow.facts("http"));
    let conversation = Arc::new(Conversation::new(Made {
        house: Arc::clone(house),
        flow,
        tls,
        name: legs.name,
        session,
        generation,
        service: legs.service,
        injector: legs.injector,
    }));
    let agent = Agent {
        stream: legs.agent,
        first: legs.first,
        http2: legs.http2,
    };
    let served = hyper_side::run(&conversation, agent, entry.killed());
    let outcome = Box::pin(served).await;
    let events = conversation.close(&outcome.reason());
    serve::record(house, events).await;
}

fn facts(legs: &Legs) -> Value {
    json!({
        "http": if legs.http2 { "2" } else { "1.1" },
        "tls_downstream": legs.agent_tls.as_ref().map(tls_facts),
        "tls_upstream": legs.service_tls.as_ref().map(tls_facts),
        "upstream_fault": legs.fault,
    })
}

/// A service that is not to be had, or not the right one; each exchange is told.
fn unavailable(house: &House, flow: &Flow, fault: &str) {
    house.recorder.alert(Alert {
        severity: Severity::Medium,
        kind: "tls",
        line: format!("{} is not spoken to: {fault}", flow.origin),
        meta: json!({"session": flow.session, "origin": flow.origin.to_string()}).to_string(),
    });
}

fn cannot_be_opened(house: &House, flow: &Flow, why: Why) {
    house.recorder.alert(Alert {
        severity: Severity::Medium,
        kind: "tls",
        line: format!(
            "TLS of {} to {} cannot be opened: {}; its next flows go by `uninspected`",
            flow.identity.principal.agent,
            flow.origin,
            why.words()
        ),
        meta: json!({
            "session": flow.session,
            "agent": flow.identity.principal.agent,
            "origin": flow.origin.to_string(),
        })
        .to_string(),
    });
}
