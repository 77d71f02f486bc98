//! What the exchanges of one flow share: the engine's session ([`Shared`]), the
//! service's connections, and what requests are sent with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::{Request, Response, Uri, request};
use hyper::body::Incoming;
use interceptor_engine::event::Event;
use interceptor_engine::http::{Act, HttpSession};
use interceptor_policy::Protocol;
use tokio::task::JoinHandle;
use tracing::warn;

use super::agent_io::AgentSide;
use super::body::Fed;
use super::credentials::Injector;
use super::front;
use super::service::{Fault, Lease, Service};
use super::unopened::Why;
use crate::flow::House;
use crate::flow::serve::Flow;
use crate::flow::shared::Shared;

/// What the exchanges of one flow share.
#[derive(Debug)]
pub struct Conversation {
    /// The engine's session, and the flow.
    pub shared: Shared<HttpSession>,
    /// The name that TLS was opened for.
    name: Option<String>,
    tls: bool,
    /// The service's connections.
    service: Arc<Service>,
    /// What requests are sent with.
    injector: Injector,
    /// How far the exchange on an HTTP/1 leg is, for the guard.
    pub side: std::sync::OnceLock<Arc<AgentSide>>,
    tunnels: Mutex<Vec<JoinHandle<()>>>,
}

/// What a conversation is made of.
pub struct Made {
    /// What all flows share.
    pub house: Arc<House>,
    /// The flow.
    pub flow: Flow,
    /// Whether the agent's leg is encrypted, and for which name.
    pub tls: bool,
    /// The name that TLS was opened for.
    pub name: Option<String>,
    /// The engine's session, opened.
    pub session: HttpSession,
    /// The number of the rules that it was opened under.
    pub generation: u64,
    /// The service's connections.
    pub service: Arc<Service>,
    /// What requests are sent with.
    pub injector: Injector,
}

impl Conversation {
    /// A conversation in which nothing was said yet.
    #[must_use]
    pub fn new(made: Made) -> Self {
        let opened = (Protocol::Http, made.tls);
        Self {
            shared: Shared::new(made.house, made.flow, opened, made.session, made.generation),
            name: made.name,
            tls: made.tls,
            service: made.service,
            injector: made.injector,
            side: std::sync::OnceLock::new(),
            tunnels: Mutex::default(),
        }
    }

    /// Begins an exchange, under the rules that are in force now.
    pub fn begin(&self, head: request::Parts, ended: bool) -> (u64, Vec<Act>) {
        let flow = &self.shared.flow;
        let mismatch = front::mismatch(&head, self.name.as_deref(), self.tls, flow);
        self.shared.refresh();
        self.shared
            .call(|session, now, out| session.begin(now, head, ended, mismatch, out))
    }

    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// When the service cannot be reached, or breaks off.
    pub async fn send(
        &self,
        mut head: request::Parts,
        body: Fed,
    ) -> Result<(Response<Incoming>, Lease), Fault> {
        let (flow, house) = (&self.shared.flow, &self.shared.house);
        let authority = authority(&head);
        let mismatch = front::mismatch(&head, self.name.as_deref(), self.tls, flow);
        let encrypted = self.service.is_encrypted();
        let may_go = self.injector.may_go(&flow.origin, encrypted, mismatch);
        if self.service.is_http2() {
            head.version = http::Version::HTTP_2;
            head.uri = with_scheme(head.uri, encrypted)?;
            // In HTTP/2 the authority is a part of the target.
            head.headers.remove(http::header::HOST);
        } else {
            head.version = http::Version::HTTP_11;
            head.uri = origin_form(&head)?;
        }
        let injected = match may_go {
            Ok(()) => self.injector.inject(&mut head, &authority, body).await,
            Err(error) => Err(error),
        };
        let body = injected.map_err(|error| {
            warn!(session = %flow.session, %error, "a request's credentials cannot be used");
            Fault::Credentials
        })?;
        let sent = self.service.send(Request::from_parts(head, body)).await;
        match &sent {
            Ok((response, _)) if response.status() == http::StatusCode::UNAUTHORIZED => {
                self.injector.refused();
            }
            Err(fault) if fault.wants_certificate() => {
                let principal = &flow.identity.principal;
                let (why, now) = (Why::ClientCertificate, Instant::now());
                let unopened = &house.http.unopened;
                unopened.note(principal, &flow.origin, self.name.as_deref(), why, now);
            }
            _ => {}
        }
        sent
    }

    /// Whether the session reads on in an exchange's request.
    #[must_use]
    pub fn wants_request(&self, id: u64) -> bool {
        self.shared.look(|session| session.wants_request(id))
    }

    /// When an exchange is to be told the time, if nothing else happens.
    #[must_use]
    pub fn deadline(&self, id: u64) -> Option<tokio::time::Instant> {
        let due = self.shared.look(|session| session.deadline(id))?;
        let at = self.shared.flow.began + std::time::Duration::from_micros(due.0);
        Some(at.into())
    }

    /// The agent sent what the guard refuses; what to answer.
    #[must_use]
    pub fn malformed(&self, error: &interceptor_proto::http::HttpError) -> Vec<u8> {
        self.shared
            .call(|session, now, out| session.malformed(now, error, out))
            .0
    }

    /// Runs what is left of an exchange once hyper has let go of both legs.
    pub fn tunnel(&self, tunnel: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(tunnel);
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        tunnels.retain(|task| !task.is_finished());
        tunnels.push(task);
    }

    /// Waits for every tunnel's end.
    pub async fn tunnelled(&self) {
        loop {
            let task = {
                let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
                tunnels.pop()
            };
            let Some(mut task) = task else { return };
            if (&mut task).await.is_err() {
                warn!(session = %self.shared.flow.session, "a tunnel ended before its time");
            }
        }
    }

    /// Ends everything that goes on beside the agent's leg, and records the end;
    /// the events that the recorder has not taken are returned.
    #[must_use]
    pub fn close(&self, reason: &str) -> Vec<Event> {
        self.service.close();
        for task in self
            .tunnels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            task.abort();
        }
        self.shared.close(reason)
    }
}

/// Whom a request is for.
fn authority(head: &request::Parts) -> String {
    let host = head.headers.get(http::header::HOST);
    match (
        head.uri.authority(),
        host.and_then(|host| host.to_str().ok()),
    ) {
        (_, Some(host)) => host.to_owned(),
        (Some(authority), None) => authority.as_str().to_owned(),
        (None, None) => String::new(),
    }
}

/// The target with the scheme of the service's leg, which need not be the agent's.
fn with_scheme(uri: Uri, encrypted: bool) -> Result<Uri, Fault> {
    let mut parts = uri.into_parts();
    if parts.authority.is_some() && parts.path_and_query.is_some() {
        parts.scheme = Some(if encrypted {
            http::uri::Scheme::HTTPS
        } else {
            http::uri::Scheme::HTTP
        });
    }
    Uri::from_parts(parts).map_err(|_| Fault::Http("its target cannot be sent".to_owned()))
}

/// The target as a server that is no proxy is sent it (RFC 9112, section 3.2).
fn origin_form(head: &request::Parts) -> Result<Uri, Fault> {
    if head.method == http::Method::CONNECT {
        return Ok(head.uri.clone());
    }
    let target = match head.uri.path_and_query() {
        Some(target) => target.clone(),
        None => http::uri::PathAndQuery::from_static("/"),
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|_| Fault::Http("its target cannot be sent".to_owned()))
}
