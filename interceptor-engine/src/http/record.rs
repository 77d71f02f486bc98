//! What of an exchange goes on record, in the words of the recording's schema.
//!
//! A request is a `command` with its head, and `input` for its body (see
//! [`super::tap`]); its answer is `output` for the body and, at its end, a `result` with its head, its times and
//! its size. What lets one in (authorisation, cookies, tokens in fields and
//! parameters, and what the target's credentials set) is never there.

use std::borrow::Cow;
use std::sync::Arc;

use ::http::header::HeaderMap;
use ::http::{Version, request, response};
use interceptor_policy::verdict::Severity;
use interceptor_policy::{Judgement, RecordLevel, Refusal, Verdict};
use serde_json::{Value, json};

use super::answer::Reason;
use super::asking::Kept;
use super::body::coding::{CodingError, Decoder};
use super::exchange::Exchange;
use super::grpc::{Messages, Told};
use super::outbox::Outbox;
use super::session::Shared;
use crate::event::{FlowTime, Kind, LINE_LIMIT, Sealed};
use crate::meta::{Meta, Written};
use crate::pg::mask::mask_text;
use crate::secret_name::{authenticates, is_secret_name};
use crate::unmasked::Head;

/// What stands in a credential's place.
const HIDDEN: &str = "[credential]";
/// Bytes of one field on record.
const FIELD_LIMIT: usize = 4 << 10;
/// Bytes of a body that a person is shown who is asked about it.
const SHOWN_LIMIT: usize = 16 << 10;

/// What of an answer is on record at its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) version: &'static str,
    /// As they are recorded.
    pub(super) headers: Written,
    /// As the service sent them, where that is sealed.
    pub(super) came_headers: Option<Written>,
    /// Microseconds from the request's forwarding to this head.
    pub(super) first_byte: u64,
    pub(super) content_type: Option<Arc<str>>,
    /// As they are recorded.
    pub(super) trailers: Option<Written>,
    /// As the service sent them, where that is sealed.
    pub(super) came_trailers: Option<Written>,
    /// The messages, where it is gRPC's.
    pub(super) messages: Option<Messages>,
    /// The messages as the service sent them, where that is sealed.
    pub(super) came: Option<Messages>,
    /// Whether masks were in force that are of text alone, and it is none.
    pub(super) unlooked: bool,
}

impl Answer {
    pub(super) fn new(
        now: FlowTime,
        head: &response::Parts,
        exchange: &Exchange,
        shared: &Shared,
    ) -> Self {
        let sent = exchange.sent.unwrap_or(exchange.begun);
        let media = super::head::media_type(&head.headers);
        Self {
            status: head.status.as_u16(),
            version: version(head.version),
            headers: exchange.recordable_headers(&head.headers, shared),
            came_headers: sealable_headers(&head.headers, shared),
            first_byte: now.0.saturating_sub(sent.0),
            trailers: None,
            came_trailers: None,
            messages: super::head::is_grpc(media.as_deref()).then(Messages::default),
            came: None,
            content_type: media,
            unlooked: false,
        }
    }
}

pub(super) const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP",
    }
}

impl Exchange {
    /// A text as it may stand on record.
    pub(super) fn recordable<'a>(&self, text: &'a str, shared: &Shared) -> Cow<'a, str> {
        let masked = self
            .masks
            .as_deref()
            .and_then(|masks| mask_text(masks, text.as_bytes(), &shared.key));
        match masked {
            Some(masked) => String::from_utf8_lossy(&masked).into_owned().into(),
            None => text.into(),
        }
    }

    /// A value under a name, as it may stand on record.
    fn recordable_value<'a>(&self, name: &str, value: &'a str, shared: &Shared) -> Cow<'a, str> {
        if is_secret_name(name) {
            return HIDDEN.into();
        }
        let mut value = self.recordable(value, shared);
        if value.len() > FIELD_LIMIT {
            cut(value.to_mut(), FIELD_LIMIT);
        }
        value
    }

    /// Names and values, a list of pairs, since names may be there twice.
    pub(super) fn recordable_headers(&self, headers: &HeaderMap, shared: &Shared) -> Written {
        let pairs = headers.iter().map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let text = if shared.injected.contains(name) {
                Cow::Borrowed(HIDDEN)
            } else {
                match text {
                    Cow::Borrowed(text) => self.recordable_value(name.as_str(), text, shared),
                    Cow::Owned(text) => self
                        .recordable_value(name.as_str(), &text, shared)
                        .into_owned()
                        .into(),
                }
            };
            (name.as_str(), text)
        });
        Written::list(pairs)
    }

    /// The same of the query, and as the agent sent it, where that is sealed.
    fn recordable_query(&self, shared: &Shared) -> (Written, Option<Written>) {
        let pairs = self.request.query.iter().map(|(name, value)| {
            (
                self.recordable(name, shared),
                self.recordable_value(name, value, shared),
            )
        });
        let recorded = Written::list(pairs);
        let came = shared.journal.seals().then(|| {
            let query = self.request.query.iter();
            Written::list(query.map(|(name, value)| (name, sealable_value(name, value))))
        });
        (recorded, came)
    }

    /// The command's line: `GET https://host/path`.
    fn line(&self, shared: &Shared, head: &mut Head) -> String {
        if self.record < RecordLevel::Commands {
            return format!("{} {}", self.method, self.request.host);
        }
        let text = format!("{} {}", self.method, self.url);
        let line = one_line(&self.recordable(&text, shared));
        head.line(&line, || one_line(&text));
        line
    }

    /// Puts the request's head and its verdict on record.
    pub(super) fn record_command(
        &mut self,
        now: FlowTime,
        (head, came): (&request::Parts, Option<Written>),
        judgement: &Judgement,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let mut unmasked = Head::new(shared.journal.seals());
        let (verdict, refusal) = match &judgement.verdict {
            Verdict::Allow(_) => ("allow", None),
            Verdict::Hold(_) => ("hold", None),
            Verdict::Block(refusal) => ("block", Some(refusal)),
            Verdict::Kill(refusal) => ("kill", Some(refusal)),
        };
        // What is refused is told in full.
        if refusal.is_some() {
            self.record = self.record.max(RecordLevel::Commands);
        }
        let mut meta = Meta::new();
        meta.put("method", &self.method.as_str());
        meta.put("host", &*self.request.host);
        meta.put("version", &version(self.version));
        meta.put("verdict", &verdict);
        meta.put("rules", &names(&judgement.applied));
        meta.put("rules_digest", &shared.scope.rules().digest());
        if self.record >= RecordLevel::Commands {
            let url = self.recordable(&self.url, shared);
            unmasked.put_text("url", &url, &self.url);
            meta.put("url", &url);
            let path = self.request.paths.first().map_or("/", |path| &**path);
            let recorded = self.recordable(path, shared);
            unmasked.put_text("path", &recorded, path);
            meta.put("path", &recorded);
            if !self.request.query.is_empty() {
                let (query, came) = self.recordable_query(shared);
                unmasked.put_written("query", &query, came.as_ref());
                meta.put_written("query", &query);
            }
            let headers = self.recordable_headers(&head.headers, shared);
            let came = came.or_else(|| sealable_headers(&head.headers, shared));
            unmasked.put_written("headers", &headers, came.as_ref());
            meta.put_written("headers", &headers);
        }
        if let Some(kind) = &self.request.content_type {
            meta.put("content_type", &**kind);
        }
        if let Some(size) = self.request.size.filter(|size| *size > 0) {
            meta.put("size", &size);
        }
        if self.request.host_mismatch {
            meta.put("host_mismatch", &true);
        }
        if self.request.websocket {
            meta.put("websocket", &true);
        }
        if let Some(call) = &self.request.grpc {
            meta.put(
                "grpc",
                &json!({"service": &*call.service, "method": &*call.method}),
            );
        }
        if !self.request.graphql.is_empty() {
            let operations = self.request.graphql.iter().map(|one| {
                json!({
                    "kind": &*one.kind,
                    "name": one.name.as_deref(),
                    "fields": names(&one.fields),
                })
            });
            meta.put("graphql", &Value::Array(operations.collect()));
        }
        if !self.request.mcp.is_empty() {
            let messages = self
                .request
                .mcp
                .iter()
                .map(|one| json!({"method": &*one.method, "tool": names(&one.tool)}));
            meta.put("mcp", &Value::Array(messages.collect()));
        }
        if let interceptor_policy::operation::http::HttpBody::Unreadable(why) = self.request.body {
            meta.put("unreadable", &why);
        }
        if judgement.score > 0 {
            meta.put("risk", &judgement.risk);
            meta.put("score", &judgement.score);
        }
        if !judgement.tags.is_empty() {
            meta.put("leaves", &names(&judgement.tags));
        }
        let line = self.line(shared, &mut unmasked);
        let event = shared
            .journal
            .event(now, Kind::Command, Some(self.number), line);
        let event = event.with_sealed(unmasked.beside(Sealed::Nothing));
        out.events.push(event.with_meta(meta.finish()));
        if let Some(refusal) = refusal {
            let refusal = refusal.clone();
            self.record_refusal(now, verdict, &refusal, shared, out);
        }
        self.record_observed(now, judgement, shared, out);
    }

    fn record_observed(
        &self,
        now: FlowTime,
        judgement: &Judgement,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if judgement.observed.is_empty() {
            return;
        }
        let names = names(&judgement.observed);
        let line = format!("observed only: {}", names.join(", "));
        let meta = json!({"observed": names, "rules_digest": shared.scope.rules().digest()});
        let event = shared
            .journal
            .event(now, Kind::Verdict, Some(self.number), line);
        let severity = judgement.severity.unwrap_or(Severity::Info);
        out.events
            .push(event.with_meta(meta.to_string()).with_alert(severity));
    }

    /// A verdict that refuses.
    pub(super) fn record_refusal(
        &mut self,
        now: FlowTime,
        verdict: &str,
        refusal: &Refusal,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        shared.totals.blocked += 1;
        let default = if verdict == "kill" {
            Severity::High
        } else {
            Severity::Medium
        };
        let severity = self.severity.unwrap_or(default);
        let digest = shared.scope.rules().digest();
        out.events.push(shared.journal.refused(
            now,
            self.number,
            verdict,
            refusal,
            severity,
            digest,
        ));
    }

    /// The response's verdict, where it says more than the request's.
    pub(super) fn record_response_verdict(
        &mut self,
        now: FlowTime,
        judgement: &Judgement,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if let Verdict::Block(refusal) | Verdict::Kill(refusal) = &judgement.verdict {
            let killed = matches!(judgement.verdict, Verdict::Kill(_));
            let word = if killed { "kill" } else { "block" };
            let refusal = refusal.clone();
            self.record_refusal(now, word, &refusal, shared, out);
        }
    }

    /// Bytes of the response's body, as the agent got them.
    pub(super) fn record_output(
        &self,
        now: FlowTime,
        part: u32,
        bytes: Vec<u8>,
        sealed: Sealed,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let line = format!("part {part} of the response, {} bytes", bytes.len());
        let event = shared
            .journal
            .event(now, Kind::Output, Some(self.number), line);
        let meta = json!({"part": part});
        let event = event.with_data(bytes).with_sealed(sealed);
        out.events.push(event.with_meta(meta.to_string()));
    }

    /// Messages of gRPC, of one direction: as they went on, and as they came, where masks may
    /// have changed them.
    pub(super) fn record_told(
        &self,
        now: FlowTime,
        kind: Kind,
        (told, came): (Vec<Told>, Vec<Told>),
        named: bool,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        for Told {
            number,
            bytes,
            said,
        } in told
        {
            let of = match kind {
                Kind::Input => "request",
                _ => "response",
            };
            let line = format!("message {number} of the {of}, {bytes} bytes");
            let mut meta = json!({"part": number, "grpc_message": number, "bytes": bytes});
            let mut sealed = Sealed::Nothing;
            let data = match said {
                Ok(text) => {
                    if let (Value::Object(meta), false) = (&mut meta, named) {
                        meta.insert("fields".to_owned(), json!("by number"));
                    }
                    let came = came.iter().find(|one| one.number == number);
                    let came = came.and_then(|one| one.said.as_deref().ok());
                    let data = self.recordable(&text, shared).into_owned();
                    let came = came.unwrap_or(&text);
                    if shared.journal.seals() && came != data {
                        sealed = Sealed::data(came.as_bytes().to_vec());
                    }
                    data.into_bytes()
                }
                Err(why) => {
                    if let Value::Object(meta) = &mut meta {
                        meta.insert("unreadable".to_owned(), json!(why));
                    }
                    Vec::new()
                }
            };
            let event = shared.journal.event(now, kind, Some(self.number), line);
            let event = event.with_data(data).with_sealed(sealed);
            out.events.push(event.with_meta(meta.to_string()));
        }
    }

    /// The end of an answer that the service gave: how many parts its body has on
    /// record, and the last of them, which stands in this event.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, and each is one fact of it"
    )]
    pub(super) fn record_result(
        &mut self,
        now: FlowTime,
        bytes: u64,
        (parts, last, sealed): (u32, Option<Vec<u8>>, Sealed),
        unopened: Option<CodingError>,
        failed: bool,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let Some(answer) = self.answer.take() else {
            return;
        };
        if self.masked > 0 {
            shared.totals.masked += self.masked;
            let severity = self.severity.unwrap_or(Severity::Info);
            let line = format!("{} values masked", self.masked);
            let meta = json!({"values": self.masked, "severity": severity.name()});
            let event = shared
                .journal
                .event(now, Kind::Mask, Some(self.number), line);
            out.events
                .push(event.with_meta(meta.to_string()).with_alert(severity));
        }
        let sent = self.sent.unwrap_or(self.begun);
        let micros = now.0.saturating_sub(sent.0);
        let reason = ::http::StatusCode::from_u16(answer.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default();
        let line = format!(
            "{} {reason} · {bytes} bytes · {}.{:03} ms",
            answer.status,
            micros / 1000,
            micros % 1000
        );
        let mut meta = Meta::new();
        meta.put("status", &answer.status);
        meta.put("version", &answer.version);
        let mut unmasked = Head::new(shared.journal.seals());
        if self.record >= RecordLevel::Commands {
            unmasked.put_written("headers", &answer.headers, answer.came_headers.as_ref());
            meta.put_written("headers", &answer.headers);
        }
        if let Some(kind) = &answer.content_type {
            meta.put("content_type", &**kind);
        }
        meta.put("bytes", &bytes);
        meta.put("parts", &parts);
        meta.put("first_byte_us", &answer.first_byte);
        meta.put("duration_us", &micros);
        meta.put("waited_us", &sent.0.saturating_sub(self.begun.0));
        if self.record >= RecordLevel::Commands
            && let Some(trailers) = answer.trailers
        {
            unmasked.put_written("trailers", &trailers, answer.came_trailers.as_ref());
            meta.put_written("trailers", &trailers);
        }
        if let Some(messages) = answer.messages {
            meta.put("grpc_messages", &messages.count());
        }
        if answer.unlooked {
            meta.put("unmasked", &"it is no text");
        }
        if let Some(why) = unopened {
            meta.put("unreadable", &why.why());
        }
        if failed {
            meta.put("failed", &true);
        }
        let event = shared
            .journal
            .event(now, Kind::Result, Some(self.number), line);
        let event = event.with_meta(meta.finish());
        let event = event.with_sealed(unmasked.beside(sealed));
        out.events.push(match last {
            Some(bytes) => event.with_data(bytes),
            None => event,
        });
    }

    /// Something that went wrong, and with what the agent is answered.
    pub(super) fn record_failure(
        &mut self,
        now: FlowTime,
        reason: &Reason,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let message = reason.message();
        let line = format!("{} {message}", reason.status());
        let url = self.recordable(&self.url, shared);
        let mut unmasked = Head::new(shared.journal.seals());
        unmasked.put_text("url", &url, &self.url);
        let meta = json!({
            "severity": "ERROR",
            "code": reason.status().to_string(),
            "message": &*message,
            "method": self.method.as_str(),
            "url": url,
        });
        let event = shared
            .journal
            .event(now, Kind::Error, Some(self.number), one_line(&line));
        let event = event.with_meta(meta.to_string());
        let event = event.with_sealed(unmasked.beside(Sealed::Nothing));
        // What an agent does wrong is worth a look; a service that fails is not.
        out.events.push(match reason {
            Reason::Malformed(..) | Reason::Rule(_) => event.with_alert(Severity::Low),
            _ => event,
        });
    }

    pub(super) fn record_note(
        &self,
        now: FlowTime,
        line: &str,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let number = Some(self.number);
        out.events
            .push(shared.journal.event(now, Kind::Note, number, line));
    }

    /// A request as a person is shown it who is asked about it.
    pub(super) fn shown(&self, kept: &Kept, shared: &Shared) -> String {
        let mut text = format!("{} {}", self.method, self.url);
        for (index, (name, value)) in self.request.query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.push_str(&self.recordable_value(name, value, shared));
        }
        for (name, value) in &kept.head.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            let value = self.recordable_value(name.as_str(), &value, shared);
            text.push_str(&format!("\n{name}: {value}"));
        }
        if kept.size > 0 {
            text.push_str("\n\n");
            let mut opened = Vec::new();
            let limit = shared.bounds.request_body as u64;
            let read = Decoder::new(&kept.head.headers, limit).and_then(|mut decoder| {
                decoder.push(&kept.joined(), &mut opened)?;
                decoder.finish(&mut opened)
            });
            match read {
                Ok(()) => text.push_str(&String::from_utf8_lossy(&opened)),
                Err(error) => text.push_str(&format!("({} bytes: {})", kept.size, error.why())),
            }
        }
        let mut text = self.recordable(&text, shared).into_owned();
        cut(&mut text, SHOWN_LIMIT);
        text
    }
}

/// Names and values as they came, where that is sealed.
pub(super) fn sealable_headers(headers: &HeaderMap, shared: &Shared) -> Option<Written> {
    shared.journal.seals().then(|| {
        let pairs = headers.iter().map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let text = match shared.injected.contains(name) {
                // Those are the operator's, and the agent never had them.
                true => HIDDEN.to_owned(),
                false => sealable_value(name.as_str(), &text).into_owned(),
            };
            (name.as_str(), text)
        });
        Written::list(pairs)
    })
}

/// A value under a name, as it may be sealed.
fn sealable_value<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if authenticates(name) {
        return HIDDEN.into();
    }
    let mut value = Cow::Borrowed(value);
    if value.len() > FIELD_LIMIT {
        cut(value.to_mut(), FIELD_LIMIT);
    }
    value
}

pub(super) fn names(of: &[Arc<str>]) -> Vec<&str> {
    of.iter().map(|name| &**name).collect()
}

/// At most so many bytes, with a mark where some are missing.
pub(super) fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let whole = text.len();
        text.truncate(end);
        text.push_str(&format!("… ({whole} bytes)"));
    }
}

/// On one line, and short enough for one.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_LIMIT));
    for c in text.chars() {
        if line.len() >= LINE_LIMIT {
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}
