//! One flow of HTTP: what its exchanges share, and the door to each of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, request, response};
use bytes::Bytes;
use interceptor_policy::verdict::Severity;
use interceptor_policy::{MaskKey, Moment, Scope, Standing};
use interceptor_proto::http::HttpError;
use serde_json::json;

use super::answer::{self, Reason};
use super::exchange::Exchange;
use super::grpc::Schemas;
use super::outbox::{Act, Failure, Outbox};
use crate::event::{FlowTime, Kind};
use crate::hold::Decision;
use crate::journal::Journal;
use crate::outbox::Acting;
use crate::session::{End, Side};
use crate::totals::Totals;

/// How much is looked at and kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a request's body, as sent and decoded, that are kept to be
    /// judged. A longer one cannot be read by rules.
    pub request_body: usize,
    /// Bytes of a response's body of known length that are kept back so that it
    /// is left as it is where nothing in it is hidden.
    pub small_response: usize,
    /// Bytes of one message of a WebSocket.
    pub message: usize,
    /// Bytes of a body that make one event.
    pub part: usize,
    /// Bytes that a coded body may come to, decoded.
    pub decoded: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            request_body: 1 << 20,
            small_response: 64 << 10,
            message: 1 << 20,
            part: 64 << 10,
            decoded: 4 << 30,
        }
    }
}

/// What a session is about, and what it works with.
#[derive(Debug)]
pub struct Settings {
    /// The rules that can apply.
    pub scope: Scope,
    /// What is remembered of the session and its principal.
    pub standing: Standing,
    /// When the session opened.
    pub opened: Moment,
    /// The host's key for hashes.
    pub key: MaskKey,
    /// Numbers the events.
    pub journal: Journal,
    /// Whether the agent's leg is encrypted.
    pub downstream_tls: bool,
    /// Whether bytes may pass that nobody reads: tunnels, other protocols.
    pub uninspected: bool,
    /// Fields that the target's credentials set: what the agent sends under
    /// their names is dropped, and never recorded.
    pub injected: Vec<HeaderName>,
    /// What messages of gRPC are made of, where that is configured.
    pub grpc: Option<Arc<Schemas>>,
    /// How much is looked at.
    pub bounds: Bounds,
}

/// What the exchanges of a flow share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) scope: Scope,
    pub(super) standing: Standing,
    pub(super) opened: Moment,
    pub(super) key: MaskKey,
    pub(super) journal: Journal,
    pub(super) downstream_tls: bool,
    pub(super) uninspected: bool,
    pub(super) injected: Vec<HeaderName>,
    pub(super) grpc: Option<Arc<Schemas>>,
    pub(super) bounds: Bounds,
    pub(super) totals: Totals,
    /// Nothing more begins: a rule ended the session.
    pub(super) over: Option<Arc<str>>,
}

/// A conversation in HTTP between an agent and a service.
#[derive(Debug)]
pub struct HttpSession {
    shared: Shared,
    exchanges: BTreeMap<u64, Box<Exchange>>,
    closed: bool,
}

impl HttpSession {
    /// A session in which nothing was asked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            shared: Shared {
                scope: settings.scope,
                standing: settings.standing,
                opened: settings.opened,
                key: settings.key,
                journal: settings.journal,
                downstream_tls: settings.downstream_tls,
                uninspected: settings.uninspected,
                injected: settings.injected,
                grpc: settings.grpc,
                bounds: settings.bounds,
                totals: Totals::default(),
                over: None,
            },
            exchanges: BTreeMap::new(),
            closed: false,
        }
    }

    /// For tests: another schema of gRPC's messages.
    #[cfg(test)]
    pub(super) fn set_grpc(&mut self, grpc: Option<Arc<Schemas>>) {
        self.shared.grpc = grpc;
    }

    /// Records the opening, with the shell's facts as a JSON object.
    pub fn open(&mut self, now: FlowTime, line: String, meta: String, out: &mut Outbox) {
        let event = self.shared.journal.event(now, Kind::Open, None, line);
        out.events.push(event.with_meta(meta));
    }

    /// Does something with an exchange; forgets it once it is over.
    fn with(
        &mut self,
        id: u64,
        out: &mut Outbox,
        act: impl FnOnce(&mut Exchange, &mut Shared, &mut Outbox),
    ) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        act(exchange, &mut self.shared, out);
        if exchange.is_over() {
            self.exchanges.remove(&id);
        }
    }

    /// A request's head. `ended`: no body follows. `host_mismatch`: its host, TLS's
    /// name and the address that the agent connected to do not belong together.
    /// The number of the exchange that it begins.
    pub fn begin(
        &mut self,
        now: FlowTime,
        head: request::Parts,
        ended: bool,
        host_mismatch: bool,
        out: &mut Outbox,
    ) -> u64 {
        self.shared.totals.exchanges += 1;
        let id = self.shared.totals.exchanges;
        let exchange = Exchange::new(id, now, head, host_mismatch, &self.shared);
        self.exchanges.insert(id, Box::new(exchange));
        self.with(id, out, |exchange, shared, out| {
            exchange.begin(now, ended, shared, out);
        });
        id
    }

    /// More of a request's body.
    pub fn request_data(&mut self, now: FlowTime, id: u64, data: Bytes, out: &mut Outbox) {
        self.shared.totals.bytes_up += data.len() as u64;
        self.with(id, out, |exchange, shared, out| {
            exchange.request_data(now, data, shared, out);
        });
    }

    /// A request's end.
    pub fn request_end(
        &mut self,
        now: FlowTime,
        id: u64,
        trailers: Option<HeaderMap>,
        out: &mut Outbox,
    ) {
        self.with(id, out, |exchange, shared, out| {
            exchange.request_end(now, trailers, shared, out);
        });
    }

    /// Whether more of the request's body is to be read now.
    #[must_use]
    pub fn wants_request(&self, id: u64) -> bool {
        self.exchanges
            .get(&id)
            .is_some_and(|exchange| exchange.wants_request())
    }

    /// What became of a question.
    pub fn decided(&mut self, now: FlowTime, id: u64, decision: Decision, out: &mut Outbox) {
        self.with(id, out, |exchange, shared, out| {
            exchange.decided(now, decision, shared, out);
        });
    }

    /// The response's head. `ended`: no body follows.
    pub fn response_head(
        &mut self,
        now: FlowTime,
        id: u64,
        head: response::Parts,
        ended: bool,
        out: &mut Outbox,
    ) {
        self.with(id, out, |exchange, shared, out| {
            exchange.response_head(now, head, ended, shared, out);
        });
    }

    /// More of the response's body.
    pub fn response_data(&mut self, now: FlowTime, id: u64, data: Bytes, out: &mut Outbox) {
        self.shared.totals.bytes_down += data.len() as u64;
        self.with(id, out, |exchange, shared, out| {
            exchange.response_data(now, data, shared, out);
        });
    }

    /// The response's end.
    pub fn response_end(
        &mut self,
        now: FlowTime,
        id: u64,
        trailers: Option<HeaderMap>,
        out: &mut Outbox,
    ) {
        self.with(id, out, |exchange, shared, out| {
            exchange.response_end(now, trailers, shared, out);
        });
    }

    /// Bytes of a tunnel.
    pub fn tunnel_data(
        &mut self,
        now: FlowTime,
        id: u64,
        from: Side,
        data: Bytes,
        out: &mut Outbox,
    ) {
        match from {
            Side::Downstream => self.shared.totals.bytes_up += data.len() as u64,
            Side::Upstream => self.shared.totals.bytes_down += data.len() as u64,
        }
        self.with(id, out, |exchange, shared, out| {
            exchange.tunnel_data(now, from, data, shared, out);
        });
    }

    /// A side of a tunnel has no more to say.
    pub fn tunnel_end(&mut self, now: FlowTime, id: u64, from: Side, out: &mut Outbox) {
        self.with(id, out, |exchange, shared, out| {
            exchange.tunnel_end(now, from, shared, out);
        });
    }

    /// The service gave no answer, or broke it off.
    pub fn upstream_failed(&mut self, now: FlowTime, id: u64, failure: Failure, out: &mut Outbox) {
        self.with(id, out, |exchange, shared, out| {
            exchange.upstream_failed(now, &failure, shared, out);
        });
    }

    /// The agent gave the exchange up.
    pub fn agent_left(&mut self, now: FlowTime, id: u64, out: &mut Outbox) {
        self.with(id, out, |exchange, shared, out| {
            exchange.agent_left(now, shared, out);
        });
    }

    /// Ends one exchange from outside.
    pub fn refuse(&mut self, now: FlowTime, id: u64, why: &str, out: &mut Outbox) {
        self.with(id, out, |exchange, shared, out| {
            let reason = Reason::Unavailable(why.into());
            exchange.break_off(now, &reason, shared, out);
        });
    }

    /// When [`Self::time_is`] is to be called for this exchange, if nothing else
    /// happens.
    #[must_use]
    pub fn deadline(&self, id: u64) -> Option<FlowTime> {
        self.exchanges.get(&id)?.deadline()
    }

    /// The time is `now`.
    pub fn time_is(&mut self, now: FlowTime, id: u64, out: &mut Outbox) {
        self.with(id, out, |exchange, shared, out| {
            exchange.time_is(now, shared, out);
        });
    }

    /// The agent sent what is not HTTP/1, or has several readings. Gives a whole
    /// answer to write where none is under way; then the connection closes.
    pub fn malformed(&mut self, now: FlowTime, error: &HttpError, out: &mut Outbox) -> Vec<u8> {
        let status = error.status();
        let event = self.shared.journal.event(
            now,
            Kind::Error,
            None,
            format!("refused with {status}: {error}"),
        );
        let meta = json!({
            "status": status,
            "malformed": error.name(),
            "message": error.to_string(),
            "severity": Severity::Medium.name(),
        });
        out.events.push(
            event
                .with_meta(meta.to_string())
                .with_alert(Severity::Medium),
        );
        self.shared.totals.blocked += 1;
        out.end = Some(End::Refused(error.to_string()));
        answer::raw(status, &error.to_string(), self.shared.journal.session())
    }

    /// How many exchanges are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.exchanges.len()
    }
}

impl Acting for HttpSession {
    type Act = Act;

    fn set_scope(&mut self, scope: Scope) {
        self.shared.scope = scope;
    }

    fn close(&mut self, now: FlowTime, reason: &str, out: &mut Outbox) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        for (_, mut exchange) in std::mem::take(&mut self.exchanges) {
            exchange.cut_short(now, &mut self.shared, out);
        }
        let shared = &mut self.shared;
        out.events
            .push(shared.totals.close(&mut shared.journal, now, reason));
    }
}

impl Shared {
    /// The time as rules ask for it.
    pub(super) fn moment(&self, now: FlowTime) -> Moment {
        self.opened.after(now.0)
    }
}
