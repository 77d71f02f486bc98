//! A PostgreSQL flow: both legs opened, the session made, the bytes pumped.

use std::sync::Arc;

use interceptor_engine::hold::Question;
use interceptor_engine::pg::catalog::TableInfo;
use interceptor_engine::pg::session::PgSession;
use interceptor_engine::pg::session::Settings;
use interceptor_engine::session::{BackendKey, Lookup, Outbox, Session as _};
use interceptor_policy::verdict::Severity;
use interceptor_policy::{DefaultVerdict, Protocol};
use interceptor_proto::pg::backend::NoticeBuilder;
use interceptor_proto::pg::sqlstate;
use interceptor_proto::pg::startup::{self, StartupPacket};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing::warn;

use super::pump::{Asking, Cancelling, LookUp, Naming, Pump, Surroundings};
use super::serve::{self, Flow};
use super::{DETECT_PATIENCE, House};
use crate::approval::Asker;
use crate::net::Socket;
use crate::pg::cancel::{CancelGuard, CancelRegistry, CancelTo};
use crate::pg::catalog::Catalog;
use crate::pg::front::{self, Front, FrontRequest, Legs, Opened};
use crate::recorder::Alert;
use crate::tls::{LegTls, Stream};

/// Serves a flow that begins as PostgreSQL does.
pub(super) async fn serve(house: &Arc<House>, flow: Flow, tcp: Socket, first: Vec<u8>) {
    let default = house.config.intercept.default;
    let scope = house
        .rules
        .current()
        .scope(&flow.subject(Protocol::Postgres, false, default));
    let why = match serve::shut_out(house, &flow) {
        None if scope.can_allow() => None,
        None => Some(format!(
            "no rule allows agent {:?} anything on {}",
            flow.identity.principal.agent, flow.origin
        )),
        banned => banned,
    };
    if let Some(why) = why {
        tell_refusal(tcp, first, &why).await;
        serve::refused(house, &flow, "postgres", &why).await;
        return;
    }
    let front = Front {
        dialer: flow.dialer.clone(),
        ..house.front.clone()
    };
    let opened = front::open(FrontRequest {
        tcp,
        first,
        origin: &flow.origin,
        target: flow.target.as_ref(),
        front: &front,
    })
    .await;
    match opened {
        Ok(Opened::Session(legs)) => session(house, flow, *legs).await,
        Ok(Opened::Cancelled(cancelled)) => {
            house.recorder.alert(Alert {
                severity: if cancelled.known {
                    Severity::Info
                } else {
                    Severity::Medium
                },
                kind: "cancel",
                line: format!(
                    "{} asked to cancel what runs in backend {} of {}{}",
                    flow.identity.principal.agent,
                    cancelled.process_id,
                    flow.origin,
                    if cancelled.known {
                        ""
                    } else {
                        ": no such session, refused"
                    }
                ),
                meta: json!({
                    "agent": flow.identity.principal.agent,
                    "run": flow.identity.run,
                    "origin": flow.origin.to_string(),
                    "process_id": cancelled.process_id,
                    "known": cancelled.known,
                })
                .to_string(),
            });
        }
        Err(error) => {
            if matches!(error.fault, front::Fault::Gone) {
                return;
            }
            serve::refused(house, &flow, "postgres", &error.to_string()).await;
        }
    }
}

async fn session(house: &Arc<House>, flow: Flow, legs: Legs) {
    let default = house.config.intercept.default;
    let tls = legs.downstream.is_encrypted();
    let subject = flow.subject(Protocol::Postgres, tls, default);
    let generation = house.rules.generation();
    let scope = house.rules.current().scope(&subject);
    let catalog = match &flow.target {
        Some(target) if target.credentials.is_some() && !legs.startup.replication => house
            .catalogs
            .of(target, &flow.origin, &flow.dialer, &legs.startup.database),
        _ => None,
    };
    let opened = house.moment(flow.began);
    let mut session = PgSession::new(Settings {
        scope,
        standing: house.memory.standing(&subject.principal, opened),
        opened,
        key: house.key.clone(),
        classifier: Arc::clone(&house.classifier),
        journal: flow.journal().sealing(house.recorder.seals()),
        database: Arc::from(legs.startup.database.as_str()),
        user: Arc::from(legs.startup.user.as_str()),
        replication: legs.startup.replication,
        has_catalog: catalog.is_some(),
        downstream_tls: tls,
        upstream_tls: legs.upstream.is_encrypted(),
        logged_on: legs.logged_on,
    });
    let mut out = Outbox::default();
    let (line, meta) = flow.opening(house, "postgres", startup_facts(&legs));
    session.open(flow.now(), line, meta, &mut out);
    unverified(house, &flow, &legs);
    if house.recorder.record(&mut out.events).is_err() {
        warn!(session = %flow.session, "the recorder has no room: session refused");
        let why = "the recorder has no room, and nothing goes on unrecorded";
        return tell_end(legs.downstream, why).await;
    }
    let entry = house.flows.enter(flow.facts("postgres"));
    let surroundings = Around {
        house: Arc::clone(house),
        flow: &flow,
        tls,
        generation,
        catalog,
        cancels: house.front.cancels.clone(),
        cancel_to: legs.cancel_to,
        guard: None,
    };
    let pump = Pump::new(
        &mut session,
        surroundings,
        legs.downstream,
        legs.upstream,
        house.recorder.clone(),
        flow.began,
        house.config.recorder.stall,
    );
    let pending = (legs.downstream_pending, legs.upstream_pending);
    let (outcome, events) = pump.run(pending, entry.killed()).await;
    out.clear();
    out.events = events;
    session.close(flow.now(), &outcome.reason(), &mut out);
    serve::record(house, out.events).await;
}

fn startup_facts(legs: &Legs) -> Value {
    let startup = &legs.startup;
    json!({
        "database": startup.database,
        "user": startup.user,
        "upstream_user": startup.upstream_user,
        "application_name": startup.application_name,
        "replication": startup.replication,
        "protocol_version": format!("{}.{}", startup.protocol.0, startup.protocol.1),
        "logged_on_by_proxy": legs.logged_on,
        "tls_downstream": legs.downstream_tls.as_ref().map(tls_facts),
        "tls_upstream": legs.upstream_tls.as_ref().map(tls_facts),
    })
}

pub(super) fn tls_facts(tls: &LegTls) -> Value {
    json!({
        "version": tls.version,
        "cipher": tls.cipher,
        "sni": tls.sni,
        "verified": tls.verified.as_ref().map(|verified| match verified {
            Ok(()) => "yes".to_owned(),
            Err(why) => format!("no: {why}"),
        }),
    })
}

/// A service whose certificate nobody asked to be verified, and which would not
/// have been.
fn unverified(house: &House, flow: &Flow, legs: &Legs) {
    let Some(Err(why)) = legs
        .upstream_tls
        .as_ref()
        .and_then(|tls| tls.verified.as_ref())
    else {
        return;
    };
    house.recorder.alert(Alert {
        severity: Severity::Low,
        kind: "tls",
        line: format!(
            "the certificate of {} could not be verified: {why}",
            flow.origin
        ),
        meta: json!({"session": flow.session, "origin": flow.origin.to_string()}).to_string(),
    });
}

/// What a session needs of the daemon.
struct Around<'a> {
    house: Arc<House>,
    flow: &'a Flow,
    tls: bool,
    generation: u64,
    catalog: Option<Arc<Catalog>>,
    cancels: CancelRegistry,
    cancel_to: CancelTo,
    guard: Option<Arc<CancelGuard>>,
}

impl Surroundings<PgSession> for Around<'_> {
    fn refresh(&mut self, session: &mut PgSession) {
        let generation = self.house.rules.generation();
        if generation != self.generation {
            self.generation = generation;
            let default: DefaultVerdict = self.house.config.intercept.default;
            let subject = self.flow.subject(Protocol::Postgres, self.tls, default);
            session.set_scope(self.house.rules.current().scope(&subject));
        }
    }

    fn look_up(&mut self, oids: Vec<u32>) -> LookUp {
        let catalog = self.catalog.clone();
        let session = self.flow.session;
        Box::pin(async move {
            let Some(catalog) = catalog else {
                return Vec::new();
            };
            match catalog.tables(&oids).await {
                Ok(tables) => tables,
                Err(error) => {
                    warn!(%session, %error, "names of tables could not be looked up");
                    Vec::<TableInfo>::new()
                }
            }
        })
    }

    fn tables(&mut self, lookup: Lookup) -> Naming {
        let catalog = self.catalog.clone();
        let session = self.flow.session;
        Box::pin(async move {
            let Lookup { tables, fresh } = lookup;
            let nothing = || tables.iter().map(|t| (t.clone(), Vec::new())).collect();
            let Some(catalog) = catalog else {
                return nothing();
            };
            match catalog.named(&tables, fresh).await {
                Ok(named) => named,
                Err(error) => {
                    warn!(%session, %error, "what names mean could not be looked up");
                    nothing()
                }
            }
        })
    }

    fn ask(&mut self, question: Question) -> Asking {
        let asker = Asker {
            context: self.flow.context(&self.house, "postgres"),
            cancelled: Arc::clone(&self.cancel_to.asked),
        };
        self.house.desk.ask(&question, asker)
    }

    fn cancel(&mut self) -> Cancelling {
        let Some(guard) = self.guard.clone() else {
            return Box::pin(std::future::ready(()));
        };
        let session = self.flow.session;
        Box::pin(async move {
            if let Err(error) = guard.cancel().await {
                warn!(%session, %error, "what runs upstream could not be cancelled");
            }
        })
    }

    fn has_key(&mut self, key: BackendKey) {
        self.guard = Some(Arc::new(self.cancels.register(
            key.process_id,
            &key.key,
            self.cancel_to.clone(),
        )));
    }
}

/// Tells a client that has only begun why there is no session: requests for
/// encryption are answered no, so that the reason can be read by any client that
/// does not insist on it.
async fn tell_refusal(mut tcp: Socket, mut first: Vec<u8>, why: &str) {
    let told = async {
        loop {
            match startup::packet(&first, startup::LENGTH_MAX) {
                Ok(([], StartupPacket::Ssl | StartupPacket::GssEnc)) => {
                    tcp.write_all(b"N").await?;
                    first.clear();
                }
                Err(nom::Err::Incomplete(_)) => {}
                _ => break,
            }
            if tcp.read_buf(&mut first).await? == 0 {
                return Ok(());
            }
        }
        std::io::Result::Ok(())
    };
    if let Ok(Ok(())) = tokio::time::timeout(DETECT_PATIENCE, told).await {
        tell_end(Stream::Plain(tcp), why).await;
    }
}

/// Tells a client that there is no session, or no more of it, and closes.
async fn tell_end(mut stream: Stream, why: &str) {
    let told = async {
        let mut error = Vec::new();
        NoticeBuilder::fatal(sqlstate::INSUFFICIENT_PRIVILEGE, why).encode_error(&mut error);
        stream.write_all(&error).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection, and the agent
        // would lose what it was just told.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(DETECT_PATIENCE, told).await;
}
