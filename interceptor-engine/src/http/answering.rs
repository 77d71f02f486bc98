//! The response: its head judged, its body on its way through a [`Stream`].

use std::sync::Arc;

use ::http::header::{self, HeaderMap};
use ::http::{Method, StatusCode, response};
use bytes::Bytes;
use interceptor_policy::mask::Direction;
use interceptor_policy::verdict::Severity;
use interceptor_policy::{Hold, Limits, Masks, RecordLevel, Verdict};
use serde_json::json;

use super::answer::{Form, Reason};
use super::body::coding::{CodingError, Decoder};
use super::exchange::{Answering, Exchange};
use super::grpc::{self, Hider, Messages};
use super::head;
use super::masking::{self, Kind, Masker, Masking};
use super::outbox::{Act, Failure, Outbox};
use super::record::{Answer, sealable_headers};
use super::session::Shared;
use super::stream::{self, Last, Parts, Stream};
use crate::event::{self, FlowTime, Sealed};

/// How long text waits for its line's end where nothing more comes.
const PAUSE_MICROS: u64 = 50_000;

/// What was too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Bytes(u64),
    Millis(u128),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(most) => write!(f, "more than {most} bytes"),
            Self::Millis(most) => write!(f, "more than {most} ms"),
        }
    }
}

impl Exchange {
    pub(super) fn response_head(
        &mut self,
        now: FlowTime,
        mut head: response::Parts,
        ended: bool,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if !matches!(self.answering, Answering::Waiting) || !self.is_sent() {
            return;
        }
        self.answer = Some(Answer::new(now, &head, self, shared));
        if self.needs.response_head && !self.response_may_pass(now, &head, shared, out) {
            return;
        }
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS
            || (self.method == Method::CONNECT && head.status.is_success());
        if switches {
            return self.switch(now, head, shared, out);
        }
        if head.status.is_informational() {
            let failure = Failure::Broken("an interim answer that is none".to_owned());
            return self.upstream_failed(now, &failure, shared, out);
        }
        head::drop_hop(&mut head.headers);
        let declared = declared_length(&head.headers);
        if let (Some(most), Some(length)) = (self.limits.bytes, declared)
            && length > most
            && !ended
        {
            return self.cut(now, Limit::Bytes(most), shared, out);
        }
        match self.stream(now, head, ended, declared, shared, out) {
            Ok(stream) if ended => self.end_stream(now, stream, false, shared, out),
            Ok(stream) => self.answering = Answering::Passing(Box::new(stream)),
            Err(why) => {
                let failure = Failure::Broken(why.to_owned());
                self.upstream_failed(now, &failure, shared, out);
            }
        }
    }

    /// Asks the rules again, now that the answer's head is there.
    fn response_may_pass(
        &mut self,
        now: FlowTime,
        head: &response::Parts,
        shared: &mut Shared,
        out: &mut Outbox,
    ) -> bool {
        let seen = head::response(head);
        let mut judgement = shared.judge_response(now, &self.request, &seen);
        // Nobody can be asked about what was done already.
        judgement.verdict = match judgement.verdict {
            Verdict::Hold(hold) => Verdict::Block(hold.reason),
            other => other,
        };
        self.severity = self.severity.max(judgement.severity);
        self.record_response_verdict(now, &judgement, shared, out);
        match judgement.verdict {
            Verdict::Allow(permit) => drop(permit),
            Verdict::Hold(Hold {
                reason: refusal, ..
            })
            | Verdict::Block(refusal) => {
                self.break_off_unrecorded(now, &Reason::Rule(refusal), shared, out);
                return false;
            }
            Verdict::Kill(refusal) => {
                self.kill(now, refusal, shared, out);
                return false;
            }
        }
        self.masks = Masks::united(self.masks.take(), judgement.masks);
        self.limits = self.limits.unite(judgement.limits);
        self.record = self.record.max(judgement.record);
        true
    }

    /// Sends the head on, or keeps it, as what its body is asks for.
    fn stream(
        &mut self,
        now: FlowTime,
        mut head: response::Parts,
        ended: bool,
        declared: Option<u64>,
        shared: &mut Shared,
        out: &mut Outbox,
    ) -> Result<Stream, &'static str> {
        let recorded = self.record == RecordLevel::Full;
        let kind = head::media_type(&head.headers);
        let is_grpc = head::is_grpc(kind.as_deref()) && !ended;
        if is_grpc && recorded {
            let form = self.grpc_form(&head.headers, Direction::Response, shared);
            if let Some(answer) = &mut self.answer {
                let messages = Messages::telling(form);
                answer.came = shared.journal.seals().then(|| messages.clone());
                answer.messages = Some(messages);
            }
        }
        // Of gRPC the messages are, each by itself.
        let recorded = recorded && !is_grpc;
        let parts =
            recorded.then(|| Parts::new(shared.bounds.part).sealing(shared.journal.seals()));
        if let Some(masks) = &self.masks {
            let hidden = masks.of(Direction::Response);
            let mut count = masking::fields(hidden, &mut head.headers, &shared.key);
            if matches!(self.form, Form::Grpc(_)) {
                count += grpc::hide_status(masks, &mut head.headers, &shared.key);
            }
            self.masked += count;
            if count > 0 {
                let anew = Answer::new(now, &head, self, shared);
                if let Some(answer) = &mut self.answer {
                    answer.headers = anew.headers;
                }
            }
        }
        let masks = self
            .masks
            .clone()
            .filter(|masks| masks.of(Direction::Response).has_body());
        if is_grpc && let Some(masks) = &masks {
            let form = self.grpc_form(&head.headers, Direction::Response, shared);
            let hider = Hider::new(form, Arc::clone(masks), Direction::Response)?;
            let decoder =
                Decoder::new(&head.headers, shared.bounds.decoded).map_err(CodingError::why)?;
            stream::drop_of_bytes(&mut head.headers);
            out.acts.push(Act::Response {
                head: Box::new(head),
                ended,
            });
            let masking = Masking::new(decoder, Masker::Grpc(Box::new(hider)));
            return Ok(Stream::masked(masking, parts));
        }
        let text = stream::is_text(kind.as_deref());
        let unlooked = masks.is_some();
        let Some(masks) = masks.filter(|_| text != Some(false)) else {
            let mut stream = Stream::raw(&head.headers, parts, shared.bounds.decoded);
            stream.unlooked = unlooked && !ended;
            out.acts.push(Act::Response {
                head: Box::new(head),
                ended,
            });
            return Ok(stream);
        };
        if ended {
            // To a HEAD: of a body that would be another.
            stream::drop_of_bytes(&mut head.headers);
            let stream = Stream::raw(&HeaderMap::new(), parts, shared.bounds.decoded);
            out.acts.push(Act::Response {
                head: Box::new(head),
                ended,
            });
            return Ok(stream);
        }
        if head.status == StatusCode::PARTIAL_CONTENT {
            return Err("a part of a body in which something may have to be hidden");
        }
        let decoder =
            Decoder::new(&head.headers, shared.bounds.decoded).map_err(CodingError::why)?;
        let kind = Kind::of(kind.as_deref());
        let small = declared.is_some_and(|length| length <= shared.bounds.small_response as u64);
        if text.is_none() {
            return Ok(Stream::unsure(Box::new(head), decoder, masks, small, parts));
        }
        if small {
            return Ok(Stream::small(Box::new(head), decoder, kind, masks, parts));
        }
        stream::drop_of_bytes(&mut head.headers);
        let masker = Masker::new(kind, masks, Direction::Response);
        out.acts.push(Act::Response {
            head: Box::new(head),
            ended,
        });
        Ok(Stream::masked(Masking::new(decoder, masker), parts))
    }

    pub(super) fn response_data(
        &mut self,
        now: FlowTime,
        data: Bytes,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let Answering::Passing(stream) = &mut self.answering else {
            return;
        };
        let Last { head, bytes } = match stream.push(data, &shared.key) {
            Ok(given) => given,
            Err(error) => {
                let failure = Failure::Broken(error.to_owned());
                return self.upstream_failed(now, &failure, shared, out);
            }
        };
        let sent = stream.sent;
        if let Some(most) = self.limits.bytes.filter(|most| sent > *most) {
            stream.take_back(bytes.len());
            if let Some(head) = head {
                stream.keep_head(head);
            }
            return self.cut(now, Limit::Bytes(most), shared, out);
        }
        if let Some(came) = self.answer.as_mut().and_then(|one| one.came.as_mut()) {
            came.push(stream.opened());
        }
        if let Some(messages) = self.answer.as_mut().and_then(|one| one.messages.as_mut()) {
            messages.push(&bytes);
            let (told, named) = (messages.take(), messages.has_names());
            let came = self.answer.as_mut().and_then(|one| one.came.as_mut());
            let came = came.map(Messages::take).unwrap_or_default();
            self.record_told(now, event::Kind::Output, (told, came), named, shared, out);
        }
        self.release = match &self.answering {
            Answering::Passing(stream) if stream.holds_text() => {
                Some(FlowTime(now.0.saturating_add(PAUSE_MICROS)))
            }
            _ => None,
        };
        self.flush_parts(now, shared, out);
        if let Some(head) = head {
            out.acts.push(Act::Response { head, ended: false });
        }
        if !bytes.is_empty() {
            out.acts.push(Act::ResponseData(bytes));
        }
    }

    /// Full parts go on record.
    fn flush_parts(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        let mut full = Vec::new();
        if let Answering::Passing(stream) = &mut self.answering
            && !stream.is_unsent()
            && self.record == RecordLevel::Full
            && let Some(parts) = &mut stream.parts
        {
            while let Some(part) = parts.full() {
                full.push((part, Sealed::Nothing));
            }
            if let Some((_, sealed)) = full.first_mut() {
                *sealed = stream.take_unmasked();
            }
        }
        for ((part, bytes), sealed) in full {
            if let Some(answered) = &mut self.answered {
                answered.push(&bytes);
            }
            self.record_output(now, part, bytes, sealed, shared, out);
        }
    }

    pub(super) fn response_end(
        &mut self,
        now: FlowTime,
        mut trailers: Option<HeaderMap>,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let mut stream = match std::mem::replace(&mut self.answering, Answering::Over) {
            Answering::Passing(stream) => stream,
            other => {
                self.answering = other;
                return;
            }
        };
        let last = match stream.finish(&shared.key) {
            Ok(last) => last,
            Err(error) => {
                self.answering = Answering::Passing(stream);
                let failure = Failure::Broken(error.to_owned());
                return self.upstream_failed(now, &failure, shared, out);
            }
        };
        let sent = stream.sent;
        if let Some(most) = self.limits.bytes.filter(|most| sent > *most) {
            if let Some(head) = last.head {
                stream.keep_head(head);
            }
            self.answering = Answering::Passing(stream);
            return self.cut(now, Limit::Bytes(most), shared, out);
        }
        if let Some(trailers) = &mut trailers {
            if !stream.trailers_kept {
                stream::drop_of_bytes(trailers);
            }
            let came = sealable_headers(trailers, shared);
            if let Some(masks) = &self.masks {
                let hidden = masks.of(Direction::Response);
                self.masked += masking::fields(hidden, trailers, &shared.key);
                if matches!(self.form, Form::Grpc(_)) {
                    self.masked += grpc::hide_status(masks, trailers, &shared.key);
                }
            }
            let recorded = self.recordable_headers(trailers, shared);
            if let Some(answer) = &mut self.answer {
                answer.trailers = Some(recorded);
                answer.came_trailers = came;
            }
        }
        self.end_stream(now, *stream, false, shared, out);
        if let Some(head) = last.head {
            let ended = last.bytes.is_empty() && trailers.is_none();
            out.acts.push(Act::Response { head, ended });
            if ended {
                return;
            }
        }
        if !last.bytes.is_empty() {
            out.acts.push(Act::ResponseData(last.bytes));
        }
        out.acts.push(Act::ResponseEnd(trailers));
    }

    /// Puts on record what there is of an answer. `failed`: it is not whole.
    pub(super) fn end_stream(
        &mut self,
        now: FlowTime,
        mut stream: Stream,
        failed: bool,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        self.answering = Answering::Over;
        self.release = None;
        self.masked += stream.hidden;
        let (mut count, mut rest) = (0, None);
        let mut sealed = Sealed::Nothing;
        let unmasked = stream.take_unmasked();
        if self.record == RecordLevel::Full
            && let Some(mut parts) = stream.parts.take()
        {
            // What the agent never got is not what it was answered.
            if !(failed && stream.is_unsent()) {
                sealed = unmasked;
                while let Some((part, bytes)) = parts.full() {
                    if let Some(answered) = &mut self.answered {
                        answered.push(&bytes);
                    }
                    let sealed = std::mem::take(&mut sealed);
                    self.record_output(now, part, bytes, sealed, shared, out);
                }
                rest = parts.rest().map(|(_, bytes)| bytes);
                if let (Some(answered), Some(rest)) = (&mut self.answered, &rest) {
                    answered.push(rest);
                }
                self.record_model_answer(now, shared, out);
            }
            count = parts.count;
        }
        let (sent, unopened) = (stream.sent, stream.unopened);
        if let Some(answer) = &mut self.answer {
            answer.unlooked = stream.unlooked;
        }
        self.record_result(
            now,
            sent,
            (count, rest, sealed),
            unopened,
            failed,
            shared,
            out,
        );
    }

    /// When something is to be done though nothing happens.
    pub(super) fn deadline(&self) -> Option<FlowTime> {
        self.due().into_iter().chain(self.release).min()
    }

    pub(super) fn time_is(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        if self.due().is_some_and(|due| now >= due) {
            return self.too_late(now, shared, out);
        }
        if self.release.is_none_or(|due| now < due) {
            return;
        }
        self.release = None;
        let Answering::Passing(stream) = &mut self.answering else {
            return;
        };
        let bytes = stream.release_text(&shared.key);
        if let Some(most) = self.limits.bytes.filter(|most| stream.sent > *most) {
            stream.take_back(bytes.len());
            return self.cut(now, Limit::Bytes(most), shared, out);
        }
        self.flush_parts(now, shared, out);
        if !bytes.is_empty() {
            out.acts.push(Act::ResponseData(bytes));
        }
    }

    /// When the answer is due.
    fn due(&self) -> Option<FlowTime> {
        let most = self.limits.duration?;
        let open = matches!(self.answering, Answering::Waiting | Answering::Passing(_));
        let sent = self.sent.filter(|_| open)?;
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Some(FlowTime(sent.0.saturating_add(micros)))
    }

    pub(super) fn too_late(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        if let Some(most) = self.limits.duration {
            self.cut(now, Limit::Millis(most.as_millis()), shared, out);
        }
    }

    /// The answer grew past a limit.
    fn cut(&mut self, now: FlowTime, limit: Limit, shared: &mut Shared, out: &mut Outbox) {
        let message: Arc<str> = format!("the answer was cut off: {limit}").into();
        let severity = self.severity.unwrap_or(Severity::Medium);
        let bytes = match &self.answering {
            Answering::Passing(stream) => stream.sent,
            _ => 0,
        };
        let name = match limit {
            Limit::Bytes(_) => "bytes",
            Limit::Millis(_) => "duration",
        };
        let meta = json!({"limit": name, "bytes": bytes, "severity": severity.name()});
        let event = shared
            .journal
            .event(now, event::Kind::Limit, Some(self.number), &*message);
        out.events
            .push(event.with_meta(meta.to_string()).with_alert(severity));
        self.limits = Limits::default();
        self.break_off(now, &Reason::Limit(message), shared, out);
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}
