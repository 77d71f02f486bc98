//! A session without sockets: what the shell would do, done by hand.

mod answers;
mod grpc;
mod hiding;
mod holding;
mod limits;
mod masking;
mod passing;
mod recording;
mod sealing;
mod sockets;

use std::path::PathBuf;
use std::sync::Arc;

use ::http::{HeaderMap, Request, Response, StatusCode, request, response};
use bytes::Bytes;
use interceptor_policy::{
    DefaultVerdict, MaskKey, Principal, Protocol, RuleSet, Source, Subject, Target,
};
use serde_json::Value;
use uuid::Uuid;

use super::{Act, Bounds, HttpSession, Outbox, Settings};
use crate::event::{Event, FlowTime, Kind};
use crate::hold::{Decision, Question};
use crate::journal::Journal;
use crate::outbox::Acting as _;
use crate::session::End;

/// A session, and everything that came out of it, of all exchanges together.
struct Talk {
    session: HttpSession,
    now: FlowTime,
    events: Vec<Event>,
    /// What the service got.
    sent: Option<request::Parts>,
    up: Vec<u8>,
    up_ended: bool,
    up_trailers: Option<HeaderMap>,
    dropped: bool,
    /// What the agent got.
    answer: Option<response::Parts>,
    down: Vec<u8>,
    down_ended: bool,
    trailers: Option<HeaderMap>,
    broken: bool,
    question: Option<Question>,
    tunnel: Option<bool>,
    end: Option<End>,
}

fn scope(yaml: &str) -> interceptor_policy::Scope {
    let source = Source {
        path: PathBuf::from("rules.yaml"),
        text: yaml.to_owned(),
    };
    let rules = Arc::new(RuleSet::load(&[source]).unwrap_or_else(|e| panic!("{e}")));
    rules.scope(&Subject {
        principal: Principal {
            agent: "tester".to_owned(),
            ..Principal::default()
        },
        target: Target {
            name: Some("api".to_owned()),
            host: None,
            address: Some([127, 0, 0, 1].into()),
            origin: "".into(),
            port: 443,
            tls: true,
            default: DefaultVerdict::Allow,
        },
        protocol: Protocol::Http,
    })
}

const NOTHING: &str = "version: 1\nrules: []\n";
const BLOCKS: &str = "
version: 1
rules:
  - name: nothing-goes
    match: { protocol: http }
    verdict: block
    message: Not today.
";
const MASKS: &str = "
version: 1
rules:
  - name: no-cards
    match: { protocol: http }
    mask: [{ detect: [credit_card], with: redact }]
";

impl Talk {
    fn new(yaml: &str) -> Self {
        Self::with(yaml, false)
    }

    fn with(yaml: &str, uninspected: bool) -> Self {
        Self::made(yaml, uninspected, Journal::new(Uuid::nil(), None))
    }

    /// One whose unmasked bytes are sealed.
    fn sealing(yaml: &str) -> Self {
        let journal = Journal::new(Uuid::nil(), None).sealing(true);
        Self::made(yaml, false, journal)
    }

    fn made(yaml: &str, uninspected: bool, journal: Journal) -> Self {
        Self {
            session: HttpSession::new(Settings {
                scope: scope(yaml),
                standing: interceptor_policy::Standing::default(),
                opened: interceptor_policy::Moment::default(),
                key: MaskKey([7; 32]),
                journal,
                downstream_tls: true,
                uninspected,
                injected: vec!["x-injected".parse().unwrap()],
                grpc: None,
                bounds: Bounds {
                    request_body: 4096,
                    small_response: 1000,
                    part: 2000,
                    ..Bounds::default()
                },
            }),
            now: FlowTime(0),
            events: Vec::new(),
            sent: None,
            up: Vec::new(),
            up_ended: false,
            up_trailers: None,
            dropped: false,
            answer: None,
            down: Vec::new(),
            down_ended: false,
            trailers: None,
            broken: false,
            question: None,
            tunnel: None,
            end: None,
        }
    }

    fn call<T>(&mut self, act: impl FnOnce(&mut HttpSession, FlowTime, &mut Outbox) -> T) -> T {
        let mut out = Outbox::default();
        self.now.0 += 1000;
        let result = act(&mut self.session, self.now, &mut out);
        self.events.extend(out.events);
        self.end = self.end.take().or(out.end);
        for act in out.acts {
            match act {
                Act::Request { head, ended } => {
                    assert!(self.sent.replace(*head).is_none(), "sent twice");
                    self.up_ended = ended;
                }
                Act::RequestData(data) => {
                    assert!(self.sent.is_some() && !self.up_ended);
                    self.up.extend_from_slice(&data);
                }
                Act::RequestEnd(trailers) => {
                    assert!(!std::mem::replace(&mut self.up_ended, true));
                    self.up_trailers = trailers;
                }
                Act::Ask(question) => self.question = Some(*question),
                Act::Response { head, ended } => {
                    assert!(self.answer.replace(*head).is_none(), "answered twice");
                    self.down_ended = ended;
                }
                Act::ResponseData(data) => {
                    assert!(self.answer.is_some() && !self.down_ended && !data.is_empty());
                    self.down.extend_from_slice(&data);
                }
                Act::ResponseEnd(trailers) => {
                    assert!(!std::mem::replace(&mut self.down_ended, true));
                    self.trailers = trailers;
                }
                Act::DropUpstream => self.dropped = true,
                Act::BreakDownstream => {
                    assert!(self.answer.is_some() && !self.down_ended);
                    self.broken = true;
                }
                Act::Tunnel { websocket } => self.tunnel = Some(websocket),
                Act::TunnelData(_, data) => self.down.extend_from_slice(&data),
                Act::TunnelEnd(_) => {}
            }
        }
        result
    }

    fn begin(&mut self, head: request::Parts, ended: bool) -> u64 {
        self.call(|session, now, out| session.begin(now, head, ended, false, out))
    }

    fn get(&mut self, uri: &str) -> u64 {
        self.begin(request("GET", uri, &[]), true)
    }

    /// A request with a body, in pieces.
    fn post(&mut self, uri: &str, headers: &[(&str, &str)], pieces: &[&[u8]]) -> u64 {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let length = length.to_string();
        let mut headers = headers.to_vec();
        if !headers.iter().any(|(name, _)| *name == "content-length") {
            headers.push(("content-length", &length));
        }
        let id = self.begin(request("POST", uri, &headers), false);
        for piece in pieces {
            let data = Bytes::copy_from_slice(piece);
            self.call(|session, now, out| session.request_data(now, id, data, out));
        }
        self.call(|session, now, out| session.request_end(now, id, None, out));
        id
    }

    /// A further request with a body, once the last one is answered.
    fn post_again(&mut self, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> u64 {
        (self.sent, self.answer) = (None, None);
        (self.up_ended, self.down_ended) = (false, false);
        self.post(uri, headers, &[body])
    }

    fn head(&mut self, id: u64, status: u16, headers: &[(&str, &str)], ended: bool) {
        let head = response(status, headers);
        self.call(|session, now, out| session.response_head(now, id, head, ended, out));
    }

    fn data(&mut self, id: u64, data: &[u8]) {
        let data = Bytes::copy_from_slice(data);
        self.call(|session, now, out| session.response_data(now, id, data, out));
    }

    fn finish(&mut self, id: u64) {
        self.call(|session, now, out| session.response_end(now, id, None, out));
    }

    fn respond(&mut self, id: u64, headers: &[(&str, &str)], pieces: &[&[u8]]) {
        self.head(id, 200, headers, false);
        for piece in pieces {
            self.data(id, piece);
        }
        self.finish(id);
    }

    fn decide(&mut self, id: u64, decision: Decision) {
        self.call(|session, now, out| session.decided(now, id, decision, out));
    }

    fn close(&mut self) {
        self.call(|session, now, out| session.close(now, "closed", out));
    }

    fn status(&self) -> u16 {
        self.answer.as_ref().unwrap().status.as_u16()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let value = self.answer.as_ref()?.headers.get(name)?;
        value.to_str().ok()
    }

    fn sent_field(&self, name: &str) -> Option<&str> {
        self.sent.as_ref()?.headers.get(name)?.to_str().ok()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.down).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.down).unwrap()
    }

    fn of(&self, kind: Kind) -> Vec<&Event> {
        self.events.iter().filter(|one| one.kind == kind).collect()
    }

    fn meta(&self, kind: Kind) -> Value {
        let event = *self.of(kind).last().unwrap();
        serde_json::from_str(&event.meta).unwrap()
    }

    /// The body of the answer as it is on record.
    fn recorded(&self) -> String {
        let parts = self.events.iter();
        let parts = parts.filter(|one| matches!(one.kind, Kind::Output | Kind::Result));
        let bytes: Vec<u8> = parts.flat_map(|event| event.data.clone()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything that is on record, as one text.
    fn all(&self) -> String {
        let events = self.events.iter();
        let text = |event: &Event| {
            let data = String::from_utf8_lossy(&event.data).into_owned();
            format!("{} {} {data}\n", event.line, event.meta)
        };
        events.map(text).collect()
    }
}

fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::builder().method(method).uri(uri);
    if uri.starts_with('/') {
        builder = builder.header("host", "api.example");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn response(status: u16, headers: &[(&str, &str)]) -> response::Parts {
    let mut builder = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}
