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
use super::grpc::Messages;
use super::masking::Came;
use super::outbox::Outbox;
use super::record::{cut, one_line, sealable_headers};
use super::session::Shared;
use super::stream::Parts;
use crate::event::{FlowTime, Kind, Sealed};
use crate::meta::Meta;
use crate::unmasked::Head;

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
    /// Masks changed the body on its way: values hidden, and bytes held back.
    came: Option<(u64, usize)>,
}

impl Tap {
    pub(super) fn new(headers: &HeaderMap, masks: Option<&Arc<Masks>>, shared: &Shared) -> Self {
        let decoder = Decoder::new(headers, shared.bounds.decoded);
        let seals = shared.journal.seals() && masks.is_some();
        Self {
            unopened: decoder.as_ref().err().copied(),
            decoder: decoder.ok(),
            masker: masks
                .filter(|masks| masks.has_detectors())
                .map(|masks| Box::new(DetectStream::new(Arc::clone(masks)))),
            parts: Parts::new(shared.bounds.part).sealing(seals),
            bytes: 0,
            came: None,
        }
    }

    /// Bytes for the record, as the service gets them.
    fn keep(&mut self, opened: &[u8], shared: &Shared) {
        let Some(masker) = &mut self.masker else {
            return self.parts.buffer.extend_from_slice(opened);
        };
        if self.came.is_none() {
            self.parts.keep_unmasked(opened);
        }
        masker.push(opened, &shared.key, &mut self.parts.buffer);
    }

    /// What is to be sealed beside the part that is taken.
    fn take_unmasked(&mut self) -> Sealed {
        let (mut hidden, mut held) = self.came.unwrap_or_default();
        if let Some(masker) = &self.masker {
            hidden += masker.hidden();
            held += masker.held();
        }
        self.parts.take_unmasked(hidden, held)
    }
}

/// Messages of a call of gRPC, on their way to the record.
#[derive(Debug)]
pub(super) struct Asked {
    /// As the service gets them.
    sent: Messages,
    /// As the agent sent them, where that is sealed.
    came: Option<Messages>,
}

impl Asked {
    pub(super) fn new(messages: Messages, seals: bool) -> Self {
        Self {
            came: seals.then(|| messages.clone()),
            sent: messages,
        }
    }
}

impl Exchange {
    /// Bytes of the request's body as the agent sent them, of which masks made what goes on
    /// record next.
    pub(super) fn tap_unmasked(&mut self, came: &Came) {
        if let Some(asked) = self.asked.as_mut().and_then(|asked| asked.came.as_mut()) {
            asked.push(&came.opened);
        }
        if let Some(tap) = &mut self.tap {
            tap.came = Some((came.hidden, came.held));
            tap.parts.keep_unmasked(&came.opened);
        }
    }

    /// Bytes of the request's body.
    pub(super) fn tap_request(
        &mut self,
        now: FlowTime,
        data: &Bytes,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if let Some(asked) = &mut self.asked {
            asked.sent.push(data);
            let (told, named) = (asked.sent.take(), asked.sent.has_names());
            let came = asked.came.as_mut().map(Messages::take).unwrap_or_default();
            self.record_told(now, Kind::Input, (told, came), named, shared, out);
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
            tap.keep(&opened, shared);
        }
        while let Some((part, bytes)) = tap.parts.full() {
            let data = (bytes, tap.take_unmasked());
            input(now, self.number, part, data, None, shared, out);
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
            tap.keep(&opened, shared);
        }
        if let Some(masker) = &mut tap.masker {
            masker.finish(&shared.key, &mut tap.parts.buffer);
        }
        while let Some((part, bytes)) = tap.parts.full() {
            let data = (bytes, tap.take_unmasked());
            input(now, self.number, part, data, None, shared, out);
        }
        match (tap.parts.rest(), tap.unopened) {
            (Some((part, bytes)), why) => {
                let data = (bytes, tap.take_unmasked());
                input(now, self.number, part, data, why, shared, out);
            }
            (None, Some(why)) => {
                let part = tap.parts.count + 1;
                let nothing = (Vec::new(), Sealed::Nothing);
                input(now, self.number, part, nothing, Some(why), shared, out);
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
        let mut unmasked = Head::new(shared.journal.seals());
        let mut meta = json!({"api": api, "model": model, "stream": stream, "tools": tools});
        if self.record >= RecordLevel::Commands {
            let with = |text: &dyn Fn(&str) -> String| {
                let mut meta = meta.clone();
                let messages = messages
                    .iter()
                    .map(|message| json!({"role": message.role, "text": text(&message.text)}));
                let calls = tool_calls
                    .iter()
                    .map(|call| json!({"name": call.name, "arguments": text(&call.arguments)}));
                if let Value::Object(meta) = &mut meta {
                    meta.insert("messages".to_owned(), messages.collect());
                    meta.insert("tool_calls".to_owned(), calls.collect());
                }
                meta
            };
            let recorded = with(&|text| self.told(text, shared));
            if unmasked.is_on() {
                unmasked.put("model_call", &recorded, &with(&shortened));
            }
            meta = recorded;
        }
        let meta = json!({"model_call": meta});
        let event = shared
            .journal
            .event(now, Kind::Note, Some(self.number), one_line(&line));
        let event = event.with_sealed(unmasked.beside(Sealed::Nothing));
        out.events.push(event.with_meta(meta.to_string()));
    }

    /// A text of a model's call, as it may stand on record.
    fn told(&self, text: &str, shared: &Shared) -> String {
        shortened(&self.recordable(text, shared))
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
        let with = |text: &dyn Fn(&str) -> String| {
            let calls: Vec<Value> = said
                .tool_calls
                .iter()
                .map(|call| json!({"name": call.name, "arguments": text(&call.arguments)}))
                .collect();
            json!({
                "api": said.api,
                "model": said.model,
                "text": text(&said.text),
                "tool_calls": calls,
            })
        };
        let answer = with(&|text| self.told(text, shared));
        let mut unmasked = Head::new(shared.journal.seals());
        if unmasked.is_on() {
            unmasked.put("model_answer", &answer, &with(&shortened));
        }
        let names: Vec<&str> = said.tool_calls.iter().map(|call| &*call.name).collect();
        let line = match names.as_slice() {
            [] => "the model answers".to_owned(),
            names => format!("the model calls {}", names.join(", ")),
        };
        let meta = json!({"model_answer": answer});
        let event = shared
            .journal
            .event(now, Kind::Note, Some(self.number), one_line(&line));
        let event = event.with_sealed(unmasked.beside(Sealed::Nothing));
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
        let came = sealable_headers(&trailers, shared);
        if let Some(masks) = self.masks.clone() {
            let hidden = masks.of(Direction::Request);
            self.masked += super::masking::fields(hidden, &mut trailers, &shared.key);
        }
        if self.record >= RecordLevel::Commands {
            let line = format!("{} trailers of the request", trailers.len());
            let mut meta = Meta::new();
            let recorded = self.recordable_headers(&trailers, shared);
            let mut unmasked = Head::new(shared.journal.seals());
            unmasked.put_written("trailers", &recorded, came.as_ref());
            meta.put_written("trailers", &recorded);
            let event = shared
                .journal
                .event(now, Kind::Input, Some(self.number), line);
            let event = event.with_sealed(unmasked.beside(Sealed::Nothing));
            out.events.push(event.with_meta(meta.finish()));
        }
        Some(trailers)
    }
}

/// A text of a model's call, as long as one is recorded.
fn shortened(text: &str) -> String {
    let mut text = text.to_owned();
    cut(&mut text, MESSAGE_LIMIT);
    text
}

#[allow(
    clippy::too_many_arguments,
    reason = "one call, and each is one fact of it"
)]
fn input(
    now: FlowTime,
    exchange: u64,
    part: u32,
    (bytes, sealed): (Vec<u8>, Sealed),
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
    let event = event.with_data(bytes).with_sealed(sealed);
    out.events.push(event.with_meta(meta.to_string()));
}
