//! What the agent is told where its request is refused, in the form that its
//! client reads.
//!
//! * `application/problem+json` (RFC 9457) with a status, where nothing better is
//!   known;
//! * gRPC: status 200 and `grpc-status` in the head, which is all there is
//!   ("Trailers-Only");
//! * GraphQL: an `errors` list; status 200 where the client did not say that it
//!   reads `application/graphql-response+json`, since the others take any other
//!   status for a fault of the network;
//! * JSON-RPC, and so the Model Context Protocol: an error object under the
//!   request's own id, with status 200, for the same reason.
//!
//! Spec: RFC 9457; gRPC over HTTP2, "Responses"; GraphQL over HTTP; JSON-RPC 2.0,
//! section 5.1.

use std::sync::Arc;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{StatusCode, response};
use bytes::Bytes;
use interceptor_policy::Refusal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::outbox::{Act, Failure};
use crate::journal::exchange_id;

/// JSON-RPC's code: of the range that is left to servers.
const JSON_RPC_REFUSED: i32 = -32003;

/// Why a request gets an answer of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A rule refused it, or the target's default.
    Rule(Refusal),
    /// A person said no, or nobody said yes.
    Denied(Refusal),
    /// It is asked about, and may come again.
    Ticket(Refusal, String),
    /// It cannot be read as what it says it is.
    Malformed(u16, Arc<str>),
    /// The service failed.
    Upstream(Failure),
    /// Its answer grew past a limit before anything of it was sent.
    Limit(Arc<str>),
    /// Interceptor cannot serve it now.
    Unavailable(Arc<str>),
}

impl Reason {
    /// The status of a plain answer.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Rule(_) | Self::Denied(_) | Self::Ticket(..) => 403,
            Self::Malformed(status, _) => *status,
            Self::Upstream(failure) => failure.status(),
            Self::Limit(_) => 502,
            Self::Unavailable(_) => 503,
        }
    }

    /// gRPC's word for it.
    fn grpc_status(&self) -> u16 {
        match self {
            Self::Rule(_) | Self::Denied(_) | Self::Ticket(..) => 7,
            Self::Malformed(..) => 3,
            Self::Upstream(Failure::TimedOut) => 4,
            Self::Upstream(_) | Self::Unavailable(_) => 14,
            Self::Limit(_) => 8,
        }
    }

    pub(super) fn rule(&self) -> Option<&Arc<str>> {
        match self {
            Self::Rule(refusal) | Self::Denied(refusal) | Self::Ticket(refusal, _) => {
                refusal.rule.as_ref()
            }
            _ => None,
        }
    }

    /// The rule, where the message does not name it.
    fn unnamed_rule(&self) -> Option<&Arc<str>> {
        match self {
            Self::Rule(refusal) | Self::Denied(refusal) | Self::Ticket(refusal, _) => {
                refusal.unnamed_rule()
            }
            _ => None,
        }
    }

    pub(super) fn message(&self) -> Arc<str> {
        match self {
            Self::Rule(refusal) | Self::Denied(refusal) | Self::Ticket(refusal, _) => {
                Arc::clone(&refusal.message)
            }
            Self::Malformed(_, why) | Self::Limit(why) | Self::Unavailable(why) => Arc::clone(why),
            Self::Upstream(failure) => failure.words().into(),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Rule(_) => "refused",
            Self::Denied(_) => "denied",
            Self::Ticket(..) => "ticket",
            Self::Malformed(..) => "malformed",
            Self::Upstream(_) => "upstream",
            Self::Limit(_) => "limit",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// The form that a client reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/problem+json`.
    #[default]
    Problem,
    /// gRPC, with the content type to answer in.
    Grpc(HeaderValue),
    /// GraphQL; whether it reads `application/graphql-response+json`.
    GraphQl {
        /// Whether it does.
        modern: bool,
    },
    /// JSON-RPC, with the ids of the requests, as JSON; whether they came in a
    /// batch.
    JsonRpc {
        /// As they were written.
        ids: Vec<Value>,
        /// A batch is answered by a list.
        batch: bool,
    },
}

/// The facts that every form has.
fn facts(reason: &Reason, session: Uuid, exchange: u64) -> serde_json::Map<String, Value> {
    let mut facts = serde_json::Map::new();
    if let Some(rule) = reason.rule() {
        facts.insert("rule".to_owned(), json!(&**rule));
    }
    facts.insert("message".to_owned(), json!(&*reason.message()));
    facts.insert("exchange".to_owned(), json!(exchange_id(session, exchange)));
    facts.insert("session".to_owned(), json!(session.to_string()));
    if let Reason::Ticket(_, ticket) = reason {
        facts.insert("ticket".to_owned(), json!(ticket));
        let hint = "ask for the very same once it is approved";
        facts.insert("hint".to_owned(), json!(hint));
    }
    facts
}

fn problem(
    status: u16,
    kind: &str,
    message: &str,
    facts: serde_json::Map<String, Value>,
) -> Vec<u8> {
    let title = match kind {
        "refused" => "Refused by a rule",
        "denied" => "Refused by a person",
        "ticket" => "A person is asked first",
        "malformed" => "Malformed request",
        "upstream" => "The service gave no answer",
        "limit" => "The answer is over a limit",
        _ => "Not now",
    };
    let mut body = serde_json::Map::new();
    body.insert("type".to_owned(), json!(format!("urn:interceptor:{kind}")));
    body.insert("title".to_owned(), json!(title));
    body.insert("status".to_owned(), json!(status));
    body.insert("detail".to_owned(), json!(message));
    body.extend(facts);
    let mut text = Value::Object(body).to_string().into_bytes();
    text.push(b'\n');
    text
}

/// The whole answer. `head_only`: to a `HEAD`, which has no body.
pub(super) fn acts(
    reason: &Reason,
    form: &Form,
    session: Uuid,
    exchange: u64,
    head_only: bool,
) -> Vec<Act> {
    let facts = facts(reason, session, exchange);
    let message = reason.message();
    let mut headers = HeaderMap::new();
    let (status, kind, body) = match form {
        Form::Grpc(kind) => {
            headers = grpc_trailers(reason, session, exchange).unwrap_or_default();
            (200, kind.clone(), Vec::new())
        }
        Form::GraphQl { modern } => {
            let mut extensions = facts;
            extensions.remove("message");
            let code = match reason {
                Reason::Rule(_) | Reason::Denied(_) | Reason::Ticket(..) => "FORBIDDEN",
                Reason::Malformed(..) => "BAD_REQUEST",
                _ => "INTERNAL_SERVER_ERROR",
            };
            extensions.insert("code".to_owned(), json!(code));
            let body = json!({"errors": [{"message": &*message, "extensions": extensions}]});
            let (status, kind) = if *modern {
                (reason.status(), "application/graphql-response+json")
            } else {
                (200, "application/json")
            };
            let kind = HeaderValue::from_static(kind);
            (status, kind, body.to_string().into_bytes())
        }
        Form::JsonRpc { ids, batch } if !ids.is_empty() => {
            let error = |id: &Value| {
                json!({
                    "jsonrpc": "2.0",
                    "id": id,
                    "error": {"code": JSON_RPC_REFUSED, "message": &*message, "data": facts},
                })
            };
            let body = match ids.as_slice() {
                [id] if !batch => error(id),
                ids => Value::Array(ids.iter().map(error).collect()),
            };
            let kind = HeaderValue::from_static("application/json");
            (200, kind, body.to_string().into_bytes())
        }
        Form::Problem | Form::JsonRpc { .. } => {
            let status = reason.status();
            let kind = HeaderValue::from_static("application/problem+json");
            let body = problem(status, reason.kind(), &message, facts);
            (status, kind, body)
        }
    };
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let grpc = matches!(form, Form::Grpc(_));
    if !grpc {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let (mut head, ()) = response::Response::new(()).into_parts();
    head.status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    head.headers = headers;
    let ended = head_only || body.is_empty();
    let mut acts = vec![Act::Response {
        head: Box::new(head),
        ended,
    }];
    if !ended {
        acts.push(Act::ResponseData(Bytes::from(body)));
        acts.push(Act::ResponseEnd(None));
    }
    acts
}

/// The status of a call of gRPC that ends here.
pub(super) fn grpc_trailers(reason: &Reason, session: Uuid, exchange: u64) -> Option<HeaderMap> {
    let message = reason.message();
    let exchange = exchange_id(session, exchange);
    let said = match reason.unnamed_rule() {
        Some(rule) => format!("{message} (rule {rule}, exchange {exchange})"),
        None => format!("{message} (exchange {exchange})"),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from(reason.grpc_status()),
    );
    let said = HeaderValue::from_str(&grpc_message(&said)).ok()?;
    trailers.insert(HeaderName::from_static("grpc-message"), said);
    Some(trailers)
}

/// gRPC over HTTP2, "Responses": percent-encoded but for what is visible ASCII.
fn grpc_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A whole HTTP/1.1 answer, for a connection on which nothing can be read any
/// more.
pub(super) fn raw(status: u16, message: &str, session: Uuid) -> Vec<u8> {
    let mut facts = serde_json::Map::new();
    facts.insert("message".to_owned(), json!(message));
    facts.insert("session".to_owned(), json!(session.to_string()));
    let body = problem(status, "malformed", message, facts);
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Refused");
    let mut out = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/problem+json\r\n\
         Cache-Control: no-store\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(&body);
    out
}
