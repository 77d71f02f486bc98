//! An SSH flow: both legs opened, the session made, its channels carried.

use std::sync::Arc;

use interceptor_engine::ssh::{Outbox, Settings, SshSession};
use interceptor_policy::Protocol;
use interceptor_policy::verdict::Severity;
use interceptor_proto::ssh::identification;
use interceptor_proto::ssh::packet::{self, Disconnect};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tracing::warn;

use super::House;
use super::serve::{self, Flow};
use crate::config::SshTarget;
use crate::net::Socket;
use crate::recorder::Alert;
use crate::ssh::Connection;
use crate::ssh::front::{self, Fault};

/// Serves a flow whose agent speaks SSH.
pub(super) async fn serve(house: &Arc<House>, flow: Flow, mut tcp: Socket, mut first: Vec<u8>) {
    let said = match identified(&mut tcp, &mut first).await {
        Ok(said) => said,
        Err(told) => return refuse(house, &flow, tcp, &told).await,
    };
    if let Some(why) = serve::shut_out(house, &flow) {
        let told = not_allowed(&why);
        return refuse(house, &flow, tcp, &told).await;
    }
    let subject = flow.subject(Protocol::Ssh, true, house.config.intercept.default);
    // Where nothing can be allowed the origin need not know that anybody asked.
    if !house.rules.current().scope(&subject).can_allow() {
        let told = not_allowed("no rule allows anything there, and the default is to block");
        return refuse(house, &flow, tcp, &told).await;
    }
    let target = flow
        .target
        .as_ref()
        .map_or_else(SshTarget::default, |target| target.ssh.clone());
    let authority = &house.ssh;
    let opened = Box::pin(front::origin(authority, &flow, &target)).await;
    let leg = match opened {
        Ok(leg) => leg,
        Err(fault) => {
            if matches!(fault, Fault::HostKey(_)) {
                alert(house, &flow, &fault);
            }
            return refuse(house, &flow, tcp, &fault.told()).await;
        }
    };
    let generation = house.rules.generation();
    let opened = house.moment(flow.began);
    let mut session = SshSession::new(Settings {
        scope: house.rules.current().scope(&subject),
        standing: house.memory.standing(&subject.principal, opened),
        opened,
        key: house.key.clone(),
        journal: flow.journal().sealing(house.recorder.seals()),
        shell: target.shell,
    });
    let mut out = Outbox::default();
    let facts = json!({
        "agent_says": said,
        "host_key": leg.fingerprint,
        "host_key_is": format!("{:?}", leg.verified).to_lowercase(),
    });
    let (line, meta) = flow.opening(house, "ssh", facts);
    session.open(flow.now(), line, meta, &mut out);
    if house.recorder.record(&mut out.events).is_err() {
        warn!(session = %flow.session, "the recorder has no room: session refused");
        let told = not_allowed("the recorder has no room, and nothing goes on unrecorded");
        return front::refuse(tcp, &told).await;
    }
    let entry = house.flows.enter(flow.facts("ssh"));
    let connection = Arc::new(Connection::new(
        Arc::clone(house),
        flow,
        (Protocol::Ssh, true),
        session,
        generation,
    ));
    let running = front::agent(authority, Arc::clone(&connection), &target, leg, tcp, first);
    let reason = match Box::pin(running).await {
        Ok(running) => Box::pin(running.run(entry.killed())).await.reason(),
        Err(fault) => format!("ended: {fault}"),
    };
    let events = connection.close(&reason);
    serve::record(house, events).await;
}

/// Reads the agent's identification; it stays in `first`.
async fn identified(tcp: &mut Socket, first: &mut Vec<u8>) -> Result<String, Disconnect> {
    let read = async {
        loop {
            match identification::of_client(first) {
                Ok((_, found)) => return Ok(found.line.to_owned()),
                Err(nom::Err::Incomplete(_)) => {}
                Err(nom::Err::Error(error) | nom::Err::Failure(error)) => {
                    return Err(malformed(&error.to_string()));
                }
            }
            match tcp.read_buf(first).await {
                Ok(0) | Err(_) => return Err(malformed("the identification has no end")),
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(super::DETECT_PATIENCE, read)
        .await
        .unwrap_or_else(|_| Err(malformed("the identification has no end")))
}

fn malformed(why: &str) -> Disconnect {
    Disconnect {
        reason: packet::VERSION_NOT_SUPPORTED,
        description: format!("Refused by Interceptor: {why}"),
    }
}

fn not_allowed(why: &str) -> Disconnect {
    Disconnect {
        reason: packet::NOT_ALLOWED,
        description: format!("Refused by Interceptor: {why}"),
    }
}

async fn refuse(house: &Arc<House>, flow: &Flow, tcp: Socket, told: &Disconnect) {
    let why = told
        .description
        .strip_prefix("Refused by Interceptor: ")
        .unwrap_or(&told.description);
    serve::refused(house, flow, "ssh", why).await;
    front::refuse(tcp, told).await;
}

fn alert(house: &House, flow: &Flow, fault: &Fault) {
    house.recorder.alert(Alert {
        severity: Severity::High,
        kind: "host-key",
        line: fault.to_string(),
        meta: json!({"session": flow.session, "origin": flow.origin.to_string()}).to_string(),
    });
}
