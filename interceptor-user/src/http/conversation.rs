//! What the exchanges of one flow share.
//!
//! The engine's session is behind a lock that is held for one call at a time and
//! never while anything is waited for. Events go to the recorder under that lock, so
//! that they arrive in the order of their numbers; those that it does not take stay,
//! in front of all later ones, and no exchange goes on before they are gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::{Request, Response, Uri, request};
use hyper::body::Incoming;
use interceptor_engine::event::{Event, FlowTime};
use interceptor_engine::hold::Question;
use interceptor_engine::http::{Act, HttpSession, Outbox};
use interceptor_engine::session::End;
use interceptor_policy::{DefaultVerdict, Protocol};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use super::agent_io::AgentSide;
use super::body::Fed;
use super::credentials::Injector;
use super::front;
use super::service::{Fault, Lease, Service};
use super::unopened::Why;
use crate::approval::Asker;
use crate::flow::House;
use crate::flow::pump::{Asking, Outcome};
use crate::flow::serve::Flow;

/// The recorder had no room for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recorder has no room, and nothing goes on unrecorded")]
pub struct Unrecorded;

/// What the exchanges of one flow share.
pub struct Conversation {
    house: Arc<House>,
    flow: Flow,
    tls: bool,
    /// The name that TLS was opened for.
    name: Option<String>,
    state: Mutex<State>,
    /// The service's connections.
    service: Arc<Service>,
    /// What requests are sent with.
    injector: Injector,
    /// How far the exchange on an HTTP/1 leg is, for the guard.
    pub side: std::sync::OnceLock<Arc<AgentSide>>,
    end: watch::Sender<Option<Arc<Outcome>>>,
    tunnels: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation")
            .field("session", &self.flow.session)
            .finish_non_exhaustive()
    }
}

struct State {
    session: HttpSession,
    unrecorded: Vec<Event>,
    generation: u64,
    /// Its end is on record, and nothing comes behind it.
    closed: bool,
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
        Self {
            house: made.house,
            flow: made.flow,
            tls: made.tls,
            name: made.name,
            state: Mutex::new(State {
                session: made.session,
                unrecorded: Vec::new(),
                generation: made.generation,
                closed: false,
            }),
            service: made.service,
            injector: made.injector,
            side: std::sync::OnceLock::new(),
            end: watch::Sender::new(None),
            tunnels: Mutex::default(),
        }
    }

    /// The flow.
    #[must_use]
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the session, and hands its events over; what is to be done is returned.
    pub fn call<T>(
        &self,
        ask: impl FnOnce(&mut HttpSession, FlowTime, &mut Outbox) -> T,
    ) -> (T, Vec<Act>) {
        let mut out = Outbox::default();
        let mut state = self.lock();
        let answer = ask(&mut state.session, self.flow.now(), &mut out);
        if state.closed {
            out.events.clear();
        }
        if !out.events.is_empty() {
            if state.unrecorded.is_empty() {
                state.unrecorded = std::mem::take(&mut out.events);
            } else {
                state.unrecorded.append(&mut out.events);
            }
            let _ = self.house.recorder.record(&mut state.unrecorded);
        }
        drop(state);
        if let Some(end) = out.end.take() {
            self.end(match end {
                End::Closed => Outcome::Closed,
                End::Refused(why) => Outcome::Refused(why),
            });
        }
        (answer, out.acts)
    }

    /// Waits until every event is with the recorder.
    ///
    /// # Errors
    /// When that takes too long; the flow then ends.
    pub async fn recorded(&self) -> Result<(), Unrecorded> {
        if self.lock().unrecorded.is_empty() {
            return Ok(());
        }
        let recorder = &self.house.recorder;
        let handed = tokio::time::timeout(self.house.config.recorder.stall, async {
            loop {
                recorder.room().await;
                let mut state = self.lock();
                if recorder.record(&mut state.unrecorded).is_ok() {
                    return;
                }
            }
        });
        handed.await.map_err(|_| {
            self.end(Outcome::Unrecorded);
            Unrecorded
        })
    }

    /// Begins an exchange, under the rules that are in force now.
    pub fn begin(&self, head: request::Parts, ended: bool) -> (u64, Vec<Act>) {
        let mismatch = front::mismatch(&head, self.name.as_deref(), self.tls, &self.flow);
        {
            let generation = self.house.rules.generation();
            let mut state = self.lock();
            if state.generation != generation {
                state.generation = generation;
                let default: DefaultVerdict = self.house.config.intercept.default;
                let subject = self.flow.subject(Protocol::Http, self.tls, default);
                let scope = self.house.rules.current().scope(&subject);
                state.session.set_scope(scope);
            }
        }
        self.call(|session, now, out| session.begin(now, head, ended, mismatch, out))
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
        let authority = authority(&head);
        let mismatch = front::mismatch(&head, self.name.as_deref(), self.tls, &self.flow);
        let encrypted = self.service.is_encrypted();
        let may_go = self.injector.may_go(self.flow.origin, encrypted, mismatch);
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
            warn!(session = %self.flow.session, %error, "a request's credentials cannot be used");
            Fault::Credentials
        })?;
        let sent = self.service.send(Request::from_parts(head, body)).await;
        match &sent {
            Ok((response, _)) if response.status() == http::StatusCode::UNAUTHORIZED => {
                self.injector.refused();
            }
            Err(fault) if fault.wants_certificate() => {
                let flow = &self.flow;
                let principal = &flow.identity.principal;
                let (why, now) = (Why::ClientCertificate, Instant::now());
                let unopened = &self.house.http.unopened;
                unopened.note(principal, flow.origin, self.name.as_deref(), why, now);
            }
            _ => {}
        }
        sent
    }

    /// Whether the session reads on in an exchange's request.
    #[must_use]
    pub fn wants_request(&self, id: u64) -> bool {
        self.lock().session.wants_request(id)
    }

    /// When an exchange is to be told the time, if nothing else happens.
    #[must_use]
    pub fn deadline(&self, id: u64) -> Option<tokio::time::Instant> {
        let due = self.lock().session.deadline(id)?;
        let at = self.flow.began + std::time::Duration::from_micros(due.0);
        Some(at.into())
    }

    /// Asks a person; dropped, the question is withdrawn.
    #[must_use]
    pub fn ask(&self, question: &Question) -> Asking {
        let asker = Asker {
            context: self.flow.context(&self.house, "http"),
            // Taken back by dropping it.
            cancelled: Arc::new(Notify::new()),
        };
        self.house.desk.ask(question, asker)
    }

    /// The agent sent what the guard refuses; what to answer.
    #[must_use]
    pub fn malformed(&self, error: &interceptor_proto::http::HttpError) -> Vec<u8> {
        self.call(|session, now, out| session.malformed(now, error, out))
            .0
    }

    /// Ends the flow once what is under way is said; the first reason stays.
    pub fn end(&self, outcome: Outcome) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(Arc::new(outcome));
            }
            first
        });
    }

    /// Waits until the flow is to end, and says why.
    pub async fn ended(&self) -> Arc<Outcome> {
        let mut end = self.end.subscribe();
        let why = end
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Why the flow is to end, where it is.
    #[must_use]
    pub fn is_ended(&self) -> Option<Arc<Outcome>> {
        self.end.borrow().clone()
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
                warn!(session = %self.flow.session, "a tunnel ended before its time");
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
        let _ = self.call(|session, now, out| session.close(now, reason, out));
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.unrecorded)
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
