//! What of a request's body goes on record: its bytes, opened and masked, in parts;
//! and the call of a language model that it makes.

use std::sync::Arc;

use ::http::header::HeaderMap;
use bytes::Bytes;
use interceptor_policy::mask::Direction;
use interceptor_policy::{DetectStream, Masks, RecordLevel};
use serde_json::{Value, json};

use super::body::ModelCall;
use super::body::coding::{CodingError, Decoder};
use super::body::model_answer::AnswerReader;
use super::exchange::Exchange;
use super::outbox::Outbox;
use super::record::{cut, one_line};
use super::session::Shared;
use super::stream::Parts;
use crate::event::{FlowTime, Kind};
use crate::meta::Meta;

/// Bytes of one message of a model's call on record.
const MESSAGE_LIMIT: usize = 8 << 10;

/// What of a request's body goes on record.
#[derive(Debug)]
pub(super) struct Tap {
    decoder: Option<Decoder>,
    masker: Option<Box<DetectStream>>,
    parts: Parts,
    bytes: u64,
    unopened: Option<CodingError>,
}

impl Tap {
    pub(super) fn new(headers: &HeaderMap, masks: Option<&Arc<Masks>>, shared: &Shared) -> Self {
        let decoder = Decoder::new(headers, shared.bounds.decoded);
        Self {
            unopened: decoder.as_ref().err().copied(),
            decoder: decoder.ok(),
            masker: masks
                .filter(|masks| masks.has_detectors())
                .map(|masks| Box::new(DetectStream::new(Arc::clone(masks)))),
            parts: Parts::new(shared.bounds.part),
            bytes: 0,
        }
    }
}

impl Exchange {
    /// Bytes of the request's body.
    pub(super) fn tap_request(
        &mut self,
        now: FlowTime,
        data: &Bytes,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if let Some(asked) = &mut self.asked {
            asked.push(data);
            let (told, named) = (asked.take(), asked.has_names());
            self.record_told(now, Kind::Input, told, named, shared, out);
            return;
        }
        let Some(tap) = &mut self.tap else {
            return;
        };
        tap.bytes += data.len() as u64;
        if let Some(decoder) = &mut tap.decoder {
            let mut opened = Vec::new();
            if let Err(error) = decoder.push(data, &mut opened) {
                tap.unopened = Some(error);
                tap.decoder = None;
            }
            match &mut tap.masker {
                Some(masker) => masker.push(&opened, &shared.key, &mut tap.parts.buffer),
                None => tap.parts.buffer.extend_from_slice(&opened),
            }
        }
        while let Some((part, bytes)) = tap.parts.full() {
            input(now, self.number, part, bytes, None, shared, out);
        }
    }

    /// The rest of the request's body.
    pub(super) fn record_rest(
        &mut self,
        now: FlowTime,
        mut tap: Tap,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if let Some(mut decoder) = tap.decoder.take() {
            let mut opened = Vec::new();
            if let Err(error) = decoder.finish(&mut opened) {
                tap.unopened = Some(error);
            }
            match &mut tap.masker {
                Some(masker) => masker.push(&opened, &shared.key, &mut tap.parts.buffer),
                None => tap.parts.buffer.extend_from_slice(&opened),
            }
        }
        if let Some(masker) = &mut tap.masker {
            masker.finish(&shared.key, &mut tap.parts.buffer);
        }
        while let Some((part, bytes)) = tap.parts.full() {
            input(now, self.number, part, bytes, None, shared, out);
        }
        match (tap.parts.rest(), tap.unopened) {
            (Some((part, bytes)), why) => input(now, self.number, part, bytes, why, shared, out),
            (None, Some(why)) => {
                let part = tap.parts.count + 1;
                input(now, self.number, part, Vec::new(), Some(why), shared, out);
            }
            (None, None) => {}
        }
    }

    /// The call of a model that the body makes.
    pub(super) fn record_model(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        let Some(call) = self.model.take() else {
            return;
        };
        let ModelCall {
            api,
            model,
            messages,
            tool_calls,
            tools,
            stream,
        } = call;
        self.answered = Some(AnswerReader::new(api));
        let line = format!(
            "model {model}: {} messages, {} tool calls, {} tools",
            messages.len(),
            tool_calls.len(),
            tools.len()
        );
        let mut meta = json!({"api": api, "model": model, "stream": stream, "tools": tools});
        if self.record >= RecordLevel::Commands {
            let text = |text: &str| {
                let mut text = self.recordable(text, shared).into_owned();
                cut(&mut text, MESSAGE_LIMIT);
                text
            };
            let messages: Vec<Value> = messages
                .iter()
                .map(|message| json!({"role": message.role, "text": text(&message.text)}))
                .collect();
            let calls: Vec<Value> = tool_calls
                .iter()
                .map(|call| json!({"name": call.name, "arguments": text(&call.arguments)}))
                .collect();
            if let Value::Object(meta) = &mut meta {
                meta.insert("messages".to_owned(), Value::Array(messages));
                meta.insert("tool_calls".to_owned(), Value::Array(calls));
            }
        }
        let meta = json!({"model_call": meta});
        let event = shared
            .journal
            .event(now, Kind::Note, Some(self.number), one_line(&line));
        out.events.push(event.with_meta(meta.to_string()));
    }

    /// What a model answered, once the agent has all of it.
    pub(super) fn record_model_answer(
        &mut self,
        now: FlowTime,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let Some(reader) = self.answered.take() else {
            return;
        };
        let kind = self
            .answer
            .as_ref()
            .and_then(|one| one.content_type.as_deref());
        let Some(said) = reader.finish(kind == Some("text/event-stream")) else {
            return;
        };
        let text = |text: &str| {
            let mut text = self.recordable(text, shared).into_owned();
            cut(&mut text, MESSAGE_LIMIT);
            text
        };
        let calls: Vec<Value> = said
            .tool_calls
            .iter()
            .map(|call| json!({"name": call.name, "arguments": text(&call.arguments)}))
            .collect();
        let names: Vec<&str> = said.tool_calls.iter().map(|call| &*call.name).collect();
        let line = match names.as_slice() {
            [] => "the model answers".to_owned(),
            names => format!("the model calls {}", names.join(", ")),
        };
        let meta = json!({"model_answer": {
            "api": said.api,
            "model": said.model,
            "text": text(&said.text),
            "tool_calls": calls,
        }});
        let event = shared
            .journal
            .event(now, Kind::Note, Some(self.number), one_line(&line));
        out.events.push(event.with_meta(meta.to_string()));
    }

    /// Trailers of the request, on their way: without what is not for trailers, and
    /// masked as fields are.
    pub(super) fn request_trailers(
        &mut self,
        now: FlowTime,
        trailers: Option<HeaderMap>,
        shared: &mut Shared,
        out: &mut Outbox,
    ) -> Option<HeaderMap> {
        let mut trailers = trailers.filter(|trailers| !trailers.is_empty())?;
        super::head::drop_hop(&mut trailers);
        for name in super::head::NOT_IN_TRAILERS.iter().chain(&shared.injected) {
            trailers.remove(name);
        }
        if let Some(masks) = self.masks.clone() {
            let hidden = masks.of(Direction::Request);
            self.masked += super::masking::fields(hidden, &mut trailers, &shared.key);
        }
        if self.record >= RecordLevel::Commands {
            let line = format!("{} trailers of the request", trailers.len());
            let mut meta = Meta::new();
            meta.put_written("trailers", &self.recordable_headers(&trailers, shared));
            let event = shared
                .journal
                .event(now, Kind::Input, Some(self.number), line);
            out.events.push(event.with_meta(meta.finish()));
        }
        Some(trailers)
    }
}

#[allow(
    clippy::too_many_arguments,
    reason = "one call, and each is one fact of it"
)]
fn input(
    now: FlowTime,
    exchange: u64,
    part: u32,
    bytes: Vec<u8>,
    unopened: Option<CodingError>,
    shared: &mut Shared,
    out: &mut Outbox,
) {
    let line = format!("part {part} of the request, {} bytes", bytes.len());
    let mut meta = json!({"part": part});
    if let (Value::Object(meta), Some(why)) = (&mut meta, unopened) {
        meta.insert("unreadable".to_owned(), json!(why.why()));
    }
    let event = shared.journal.event(now, Kind::Input, Some(exchange), line);
    out.events
        .push(event.with_data(bytes).with_meta(meta.to_string()));
}
