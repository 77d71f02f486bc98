//! Exchanges, put through a session like the one that recorded them.
//!
//! What was hidden on record (credentials, what masks removed) stays hidden, so a rule
//! that asks for it says nothing here. Of a body, as much is judged as a session keeps.

use std::collections::BTreeMap;

use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header, request, response};
use bytes::Bytes;
use interceptor_policy::{MaskKey, Scope, Standing};
use serde_json::Value;
use uuid::Uuid;

use super::{Judged, METADATA, Opened, Outcome, Reads, Unjudged};
use crate::event::{Event, FlowTime, Kind};
use crate::http::{Bounds, HttpSession, Outbox, Settings};
use crate::journal::Journal;
use crate::replay::Entry;
use crate::replay::entry::is_hidden;
use crate::replay::http::meta::{pairs, url};

/// Exchanges that may be under way at once; one more is not judged.
const OPEN_LIMIT: usize = 1024;

/// Judges one session's exchanges.
#[derive(Debug)]
pub(super) struct Judge {
    session: HttpSession,
    reads: Reads,
    open: BTreeMap<u64, Open>,
}

/// An exchange whose end has not come yet.
#[derive(Debug)]
struct Open {
    at: FlowTime,
    head: request::Parts,
    line: String,
    was: String,
    was_by: Option<String>,
    /// Why it is not judged.
    unjudged: Option<&'static str>,
    /// Whether it had a body, as far as its head says.
    has_body: bool,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Judge {
    pub(super) fn new(scope: Scope, standing: Standing, opened: &Opened, reads: Reads) -> Self {
        let tls = opened.subject.target.tls;
        Self {
            session: HttpSession::new(Settings {
                scope,
                standing,
                opened: opened.at,
                // Nobody sees what it hides.
                key: MaskKey([0; 32]),
                journal: Journal::new(Uuid::nil(), None),
                downstream_tls: tls,
                uninspected: true,
                injected: Vec::new(),
                grpc: None,
                bounds: Bounds::default(),
            }),
            reads,
            open: BTreeMap::new(),
        }
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> Outcome {
        let Some(number) = entry.exchange else {
            return Outcome::Nothing;
        };
        if entry.kind == "command" {
            return self.begin(number, entry);
        }
        let Some(open) = self.open.get_mut(&number) else {
            return Outcome::Nothing;
        };
        // Messages of a WebSocket are no body.
        let body = entry.meta.get("websocket").is_none();
        match entry.kind.as_str() {
            "input" if body => keep(&mut open.request, &entry.data),
            "output" if body => keep(&mut open.response, &entry.data),
            "verdict" => {
                if let Some(verdict @ ("block" | "kill")) = entry.meta_text("verdict") {
                    verdict.clone_into(&mut open.was);
                    open.was_by = entry.meta_text("rule").map(str::to_owned);
                    return self.finish(number, None);
                }
            }
            "result" => {
                keep(&mut open.response, &entry.data);
                return self.finish(number, Some(entry));
            }
            "error" => return self.finish(number, None),
            _ => {}
        }
        Outcome::Nothing
    }

    /// The number of an exchange that is still open, for [`Self::rest`].
    pub(super) fn any_open(&self) -> Option<u64> {
        self.open.keys().next().copied()
    }

    /// Judges what there is of an exchange.
    pub(super) fn rest(&mut self, number: u64) -> Outcome {
        self.finish(number, None)
    }

    fn begin(&mut self, number: u64, entry: &Entry) -> Outcome {
        let Some(was) = entry.meta_text("verdict") else {
            return Outcome::Nothing;
        };
        if self.open.len() >= OPEN_LIMIT {
            return Unjudged::of(
                entry,
                "too many exchanges of the session have no end on record",
            );
        }
        let Some(head) = asked(&entry.meta) else {
            return Unjudged::of(entry, METADATA);
        };
        let hidden = ["headers", "query"].into_iter().any(|list| {
            let pairs = pairs(&entry.meta, list).into_iter();
            pairs
                .into_iter()
                .any(|(name, value)| is_hidden(&value) && self.reads.names(&name))
        });
        let hidden = hidden || is_hidden(entry.meta_text("path").unwrap_or_default());
        let open = Open {
            at: entry.at,
            head,
            line: entry.line.clone(),
            was: was.to_owned(),
            was_by: None,
            unjudged: hidden.then_some("a value in it is hidden on record, and a rule reads it"),
            has_body: entry.meta_number("size").is_some_and(|size| size > 0),
            request: Vec::new(),
            response: Vec::new(),
        };
        self.open.insert(number, open);
        Outcome::Nothing
    }

    fn finish(&mut self, number: u64, result: Option<&Entry>) -> Outcome {
        let Some(open) = self.open.remove(&number) else {
            return Outcome::Nothing;
        };
        if let Some(why) = open.unjudged.or_else(|| self.lacks(&open)) {
            return Outcome::TooLittle(Box::new(Unjudged {
                exchange: number,
                line: open.line,
                was: open.was,
                was_by: open.was_by,
                why,
            }));
        }
        let mut out = Outbox::default();
        let empty = open.request.is_empty();
        let id = self
            .session
            .begin(open.at, open.head, empty, false, &mut out);
        if !empty {
            let body = Bytes::from(open.request);
            self.session.request_data(open.at, id, body, &mut out);
            self.session.request_end(open.at, id, None, &mut out);
        }
        if let Some(result) = result
            && let Some(head) = answered(&result.meta)
        {
            let (session, at) = (&mut self.session, result.at);
            session.response_head(at, id, head, open.response.is_empty(), &mut out);
            if !open.response.is_empty() {
                let body = Bytes::from(open.response);
                session.response_data(at, id, body, &mut out);
                session.response_end(at, id, None, &mut out);
            }
        }
        self.session.agent_left(open.at, id, &mut out);
        let said = Said::of(&out.events);
        Outcome::Judged(Box::new(Judged {
            exchange: number,
            line: open.line,
            was: open.was,
            was_by: open.was_by,
            would: said.verdict,
            would_by: said.by,
            applied: said.applied,
            masked: said.masked,
        }))
    }
}

impl Judge {
    /// Why the request's body cannot be judged, where a rule may read it.
    fn lacks(&self, open: &Open) -> Option<&'static str> {
        let reads = |name: &&str| self.reads.names(name);
        if !["body", "graphql", "mcp", "detect", "pattern"]
            .iter()
            .any(reads)
        {
            return None;
        }
        if open.request.is_empty() {
            return open
                .has_body
                .then_some("its body is not on record, and a rule reads bodies");
        }
        let text = String::from_utf8_lossy(&open.request);
        is_hidden(&text)
            .then_some("a value in its body is hidden on record, and a rule reads bodies")
    }
}

/// What a session put on record about an exchange.
struct Said {
    verdict: &'static str,
    by: Option<String>,
    applied: Vec<String>,
    masked: bool,
}

impl Said {
    fn of(events: &[Event]) -> Self {
        // Where nothing was asked of the rules, the session was over.
        let mut said = Self {
            verdict: "kill",
            by: None,
            applied: Vec::new(),
            masked: false,
        };
        for event in events {
            let meta: Value = serde_json::from_str(&event.meta).unwrap_or_default();
            let verdict = match meta.get("verdict").and_then(Value::as_str) {
                Some("allow") => Some("allow"),
                Some("hold") => Some("hold"),
                Some("block") => Some("block"),
                Some("kill") => Some("kill"),
                _ => None,
            };
            let rule = meta.get("rule").and_then(Value::as_str);
            match event.kind {
                Kind::Command | Kind::Verdict => {
                    if let Some(verdict) = verdict {
                        said.verdict = verdict;
                    }
                    if let Some(rule) = rule {
                        said.by = Some(rule.to_owned());
                    }
                    let applied = meta.get("rules").and_then(Value::as_array);
                    let applied = applied.into_iter().flatten().filter_map(Value::as_str);
                    said.applied.extend(applied.map(str::to_owned));
                }
                Kind::Hold => {
                    if let Some(rule) = rule {
                        said.by = Some(rule.to_owned());
                    }
                }
                Kind::Mask => said.masked = true,
                _ => {}
            }
        }
        said
    }
}

fn keep(body: &mut Vec<u8>, more: &[u8]) {
    let room = Bounds::default().request_body.saturating_sub(body.len());
    body.extend_from_slice(more.get(..room).unwrap_or(more));
}

/// A request's head from its `command`; `None` where it is not all on record.
fn asked(meta: &Value) -> Option<request::Parts> {
    let text = |name: &str| meta.get(name).and_then(Value::as_str);
    let request = Request::builder()
        .method(text("method")?)
        .uri(url(meta)?)
        .version(match text("version") {
            Some("HTTP/2") => ::http::Version::HTTP_2,
            Some("HTTP/1.0") => ::http::Version::HTTP_10,
            _ => ::http::Version::HTTP_11,
        });
    let mut head = request.body(()).ok()?.into_parts().0;
    meta.get("headers")?;
    fields(meta, &mut head.headers);
    Some(head)
}

/// An answer's head from its `result`.
fn answered(meta: &Value) -> Option<response::Parts> {
    let status = meta.get("status").and_then(Value::as_u64)?;
    let response = Response::builder().status(u16::try_from(status).ok()?);
    let mut head = response.body(()).ok()?.into_parts().0;
    fields(meta, &mut head.headers);
    Some(head)
}

/// The fields, but for those that tell of a coding: bodies are on record without.
fn fields(meta: &Value, into: &mut HeaderMap) {
    for (name, value) in pairs(meta, "headers") {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(&value),
        ) && name != header::CONTENT_ENCODING
            && name != header::TRANSFER_ENCODING
            && name != header::CONTENT_LENGTH
        {
            into.append(name, value);
        }
    }
}
