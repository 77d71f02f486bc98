//! The request: from its head, or its body where that matters, to a verdict, and
//! on its way.

use std::sync::Arc;

use ::http::header::{self, HeaderMap};
use ::http::{Method, request};
use bytes::Bytes;
use interceptor_policy::mask::Direction;
use interceptor_policy::operation::http::{HttpBody, Json};
use interceptor_policy::{
    Hold, Judgement, Masks, Permit, RecordLevel, Refusal, RuleVerdict, Verdict,
};

use super::answer::{Form, Reason};
use super::body;
use super::body::coding::{self, CodingError, Decoder};
use super::deflate;
use super::exchange::{self, Exchange};
use super::grpc::{self, Hider, Messages};
use super::head;
use super::hold::Held;
use super::masking::{self, Came, Fault, Masker, Masking};
use super::outbox::{Act, Outbox};
use super::record::sealable_headers;
use super::session::Shared;
use super::stream;
use super::tap::{Asked, Tap};
use crate::event::FlowTime;

/// How far the request is.
#[derive(Debug)]
pub(super) enum Asking {
    /// Its head has come.
    Fresh(Box<request::Parts>),
    /// It names no host.
    Nameless,
    /// Its body is waited for, since rules look at it.
    Collecting(Box<Kept>),
    /// A person is asked once the body is whole, since their word is for all of it.
    ToAsk(Box<Kept>, Box<Hold>),
    /// A person is asked.
    Held(Box<Held>),
    /// It was let pass; its body goes through.
    Passing,
    /// All of it was forwarded, or nothing more of it will be.
    Done,
}

/// A request that is kept back.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) head: request::Parts,
    pub(super) body: Vec<Bytes>,
    pub(super) size: usize,
    /// Whether the body is whole.
    pub(super) whole: bool,
    pub(super) trailers: Option<HeaderMap>,
}

impl Kept {
    fn new(head: request::Parts, whole: bool) -> Self {
        Self {
            head,
            body: Vec::new(),
            size: 0,
            whole,
            trailers: None,
        }
    }

    fn push(&mut self, data: Bytes) {
        self.size += data.len();
        self.body.push(data);
    }

    /// The bytes of the body as they were sent.
    pub(super) fn joined(&self) -> Vec<u8> {
        self.body.concat()
    }
}

impl Exchange {
    pub(super) fn begin(
        &mut self,
        now: FlowTime,
        ended: bool,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let head = match std::mem::replace(&mut self.asking, Asking::Done) {
            Asking::Fresh(head) => *head,
            _ => {
                let why = Reason::Malformed(400, "the request names no host".into());
                self.record_failure(now, &why, shared, out);
                return self.answer_with(now, &why, shared, out);
            }
        };
        if ended {
            self.request.size = Some(0);
            self.request.body = HttpBody::Absent;
        }
        if let Some(why) = shared.over.clone() {
            let why = Reason::Rule(Refusal {
                rule: None,
                message: format!("the session was ended: {why}").into(),
            });
            self.record_failure(now, &why, shared, out);
            return self.answer_with(now, &why, shared, out);
        }
        let kept = Kept::new(head, ended);
        self.needs = shared.scope.http_needs(&self.request);
        let reads = !ended && self.needs.request_body;
        if reads && !shared.refuses_early(now, &self.request) {
            if let Some(why) = self.unreadable_messages(shared) {
                self.request.body = HttpBody::Unreadable(why);
            } else {
                self.asking = Asking::Collecting(Box::new(kept));
                return;
            }
        } else if !ended && self.tells_by_its_body() {
            self.asking = Asking::Collecting(Box::new(kept));
            return;
        }
        self.decide(now, kept, shared, out);
    }

    /// Why a call of gRPC cannot be waited for and read.
    fn unreadable_messages(&self, shared: &Shared) -> Option<&'static str> {
        if !head::is_grpc(self.request.content_type.as_deref()) {
            return None;
        }
        let known = shared.grpc.as_ref().zip(self.request.grpc.as_ref());
        match known.map(|(schemas, call)| schemas.asks_once(&call.service, &call.method)) {
            Some(true) => None,
            // Its client may wait for an answer before it says more.
            _ => Some("it is a stream of messages, or nothing says that it is not"),
        }
    }

    /// Whether the body is read for what it tells, though no rule asks: whether an
    /// error has to be one of JSON-RPC or GraphQL, and what a model is asked. A
    /// body that says that it is long, or does not say how long it is, is not
    /// waited for.
    fn tells_by_its_body(&self) -> bool {
        const SHORT: u64 = 256 << 10;
        let json = self.request.content_type.as_deref() == Some("application/json");
        json && self.method == Method::POST && self.request.size.is_some_and(|size| size <= SHORT)
    }

    pub(super) fn request_data(
        &mut self,
        now: FlowTime,
        data: Bytes,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        match std::mem::replace(&mut self.asking, Asking::Done) {
            Asking::Collecting(mut kept) => {
                kept.push(data);
                if kept.size <= shared.bounds.request_body {
                    self.asking = Asking::Collecting(kept);
                    return;
                }
                self.request.body = HttpBody::Unreadable("it is longer than is looked at");
                self.decide(now, *kept, shared, out);
            }
            Asking::ToAsk(mut kept, hold) => {
                kept.push(data);
                if kept.size <= shared.bounds.request_body {
                    self.asking = Asking::ToAsk(kept, hold);
                    return;
                }
                let refusal = Refusal {
                    rule: hold.reason.rule.clone(),
                    message: "a person would be asked, and the body is too long for that".into(),
                };
                self.record_refusal(now, "block", &refusal, shared, out);
                self.answer_with(now, &Reason::Rule(refusal), shared, out);
            }
            Asking::Passing => {
                self.asking = Asking::Passing;
                let data = match &mut self.masking {
                    None => data,
                    Some(masking) => match masking.push(&data, &shared.key) {
                        Ok(masked) => {
                            if shared.journal.seals() {
                                let came = Came::to(masking);
                                self.tap_unmasked(&came);
                            }
                            masked.into()
                        }
                        Err(fault) => return self.unmaskable(now, fault, shared, out),
                    },
                };
                self.tap_request(now, &data, shared, out);
                if !data.is_empty() {
                    out.acts.push(Act::RequestData(data));
                }
            }
            // Bytes that nobody asked for.
            other => self.asking = other,
        }
    }

    pub(super) fn request_end(
        &mut self,
        now: FlowTime,
        trailers: Option<HeaderMap>,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        match std::mem::replace(&mut self.asking, Asking::Done) {
            Asking::Collecting(mut kept) => {
                kept.whole = true;
                kept.trailers = trailers;
                self.read_body(&kept, shared);
                self.decide(now, *kept, shared, out);
            }
            Asking::ToAsk(mut kept, hold) => {
                kept.whole = true;
                kept.trailers = trailers;
                self.hold(now, *kept, *hold, shared, out);
            }
            Asking::Passing => {
                if let Some(mut masking) = self.masking.take() {
                    let done = masking.finish(&shared.key);
                    if done.is_ok() && shared.journal.seals() {
                        self.tap_unmasked(&Came::to(&masking));
                    }
                    match done {
                        Ok(masked) if masked.is_empty() => {}
                        Ok(masked) => {
                            let data = Bytes::from(masked);
                            self.tap_request(now, &data, shared, out);
                            out.acts.push(Act::RequestData(data));
                        }
                        Err(fault) => return self.unmaskable(now, fault, shared, out),
                    }
                    self.masked += masking.masker.hidden();
                }
                if let Some(tap) = self.tap.take() {
                    self.record_rest(now, tap, shared, out);
                }
                let trailers = self.request_trailers(now, trailers, shared, out);
                out.acts.push(Act::RequestEnd(trailers));
            }
            other => self.asking = other,
        }
    }

    /// Opens and reads a body that is whole.
    fn read_body(&mut self, kept: &Kept, shared: &Shared) {
        self.request.size = Some(kept.size as u64);
        if head::is_grpc(self.request.content_type.as_deref()) {
            let form = self.grpc_form(&kept.head.headers, Direction::Request, shared);
            self.request.body = match form.read_only(&kept.joined()) {
                Ok(text) => match Json::parse(text.as_bytes()) {
                    Some(document) => HttpBody::Json(vec![document]),
                    None => HttpBody::Unreadable("its message has too many values"),
                },
                Err(why) => HttpBody::Unreadable(why),
            };
            return;
        }
        let limit = shared.bounds.request_body as u64;
        let opened = Decoder::new(&kept.head.headers, limit).and_then(|mut decoder| {
            let mut opened = Vec::new();
            for data in &kept.body {
                decoder.push(data, &mut opened)?;
            }
            decoder.finish(&mut opened).map(|()| opened)
        });
        match opened {
            Ok(opened) => {
                let said = body::read(&mut self.request, &kept.head.headers, &opened);
                self.model = said.model;
                if let Some(rpc) = said.rpc {
                    self.form = Form::JsonRpc {
                        ids: rpc.ids,
                        batch: rpc.batch,
                    };
                } else if !self.request.graphql.is_empty() {
                    let accept = kept.head.headers.get_all(header::ACCEPT);
                    self.form = Form::GraphQl {
                        modern: exchange::accepts_graphql(accept.iter()),
                    };
                }
            }
            Err(error) => self.request.body = HttpBody::Unreadable(error.why()),
        }
    }

    /// Judges it, puts it on record, and does what the rules say.
    fn decide(&mut self, now: FlowTime, mut kept: Kept, shared: &mut Shared, out: &mut Outbox) {
        let mut judgement = shared.judge(now, &self.request);
        let misdirected = self.request.host_mismatch
            && matches!(judgement.verdict, Verdict::Allow(_) | Verdict::Hold(_))
            && !allowed_by_rule(&judgement, shared);
        if misdirected {
            judgement.verdict = Verdict::Block(Refusal {
                rule: None,
                message: "the request's host does not belong to the name and the address that \
                    the connection is to, and no rule allows that"
                    .into(),
            });
        }
        if matches!(judgement.verdict, Verdict::Allow(_) | Verdict::Hold(_))
            && let Some(why) = self.unreadable_protocol(&kept.head, shared)
        {
            judgement.verdict = Verdict::Block(Refusal {
                rule: None,
                message: why.into(),
            });
        }
        self.record = judgement.record;
        self.masks.clone_from(&judgement.masks);
        self.limits = judgement.limits;
        self.severity = judgement.severity;
        if matches!(judgement.verdict, Verdict::Hold(_)) {
            self.tags_held.clone_from(&judgement.tags);
        }
        // Where no mask is of a field, what a body's masks change of the head hides nothing.
        let of_fields = judgement
            .masks
            .as_deref()
            .is_some_and(|masks| masks.of(Direction::Request).headers().next().is_some());
        let came = of_fields
            .then(|| sealable_headers(&kept.head.headers, shared))
            .flatten();
        let masked = match judgement.verdict {
            Verdict::Allow(_) | Verdict::Hold(_) => self.mask_request(&mut kept, shared),
            _ => Ok(None),
        };
        if let Err(why) = &masked {
            judgement.verdict = Verdict::Block(Refusal {
                rule: None,
                message: (*why).into(),
            });
        }
        self.record_command(now, (&kept.head, came), &judgement, shared, out);
        if self.record >= RecordLevel::Commands && !(kept.whole && kept.body.is_empty()) {
            if head::is_grpc(self.request.content_type.as_deref()) {
                let form = self.grpc_form(&kept.head.headers, Direction::Request, shared);
                let messages = Messages::telling(form);
                self.asked = Some(Asked::new(messages, shared.journal.seals()));
            } else {
                self.tap = Some(Tap::new(&kept.head.headers, self.masks.as_ref(), shared));
            }
            if let Ok(Some(came)) = &masked {
                self.tap_unmasked(came);
            }
            for data in &kept.body {
                self.tap_request(now, data, shared, out);
            }
            if kept.whole
                && let Some(tap) = self.tap.take()
            {
                self.record_rest(now, tap, shared, out);
            }
        }
        self.record_model(now, shared, out);
        match judgement.verdict {
            Verdict::Allow(permit) => self.forward(now, permit, kept, shared, out),
            Verdict::Hold(hold) if kept.whole => self.hold(now, kept, hold, shared, out),
            Verdict::Hold(hold) if kept.size <= shared.bounds.request_body => {
                self.asking = Asking::ToAsk(Box::new(kept), Box::new(hold));
            }
            Verdict::Hold(hold) => {
                let refusal = Refusal {
                    rule: hold.reason.rule.clone(),
                    message: "a person would be asked, and the body is too long for that".into(),
                };
                self.record_refusal(now, "block", &refusal, shared, out);
                self.answer_with(now, &Reason::Rule(refusal), shared, out);
            }
            Verdict::Block(refusal) if misdirected => {
                let reason = Reason::Malformed(421, refusal.message);
                self.answer_with(now, &reason, shared, out);
            }
            Verdict::Block(refusal) => {
                self.answer_with(now, &Reason::Rule(refusal), shared, out);
            }
            Verdict::Kill(refusal) => self.kill(now, refusal, shared, out),
        }
    }

    /// Hides in what the agent sends what masks hide there: in fields and in a
    /// body that is whole now, in one that still comes as it comes. Gives what came of the
    /// body, where something may have been changed in it.
    fn mask_request(&mut self, kept: &mut Kept, shared: &Shared) -> Result<Option<Came>, Fault> {
        let Some(masks) = self.masks.clone() else {
            return Ok(None);
        };
        let hidden = masks.of(Direction::Request);
        self.masked += masking::fields(hidden, &mut kept.head.headers, &shared.key);
        let kind = self.request.content_type.as_deref();
        if head::is_grpc(kind) {
            // Found out now, and not when the call was made.
            let answers = self.grpc_form(&kept.head.headers, Direction::Response, shared);
            Hider::new(answers, Arc::clone(&masks), Direction::Response)?;
            return self.mask_messages(kept, masks, shared);
        }
        if !hidden.has_body()
            || kept.whole && kept.body.is_empty()
            || stream::is_text(kind) == Some(false)
        {
            return Ok(None);
        }
        let kind = masking::Kind::of(kind);
        let mut decoder =
            Decoder::new(&kept.head.headers, shared.bounds.decoded).map_err(CodingError::why)?;
        if kept.whole {
            let mut opened = Vec::new();
            let done = decoder
                .push(&kept.joined(), &mut opened)
                .and_then(|()| decoder.finish(&mut opened));
            done.map_err(CodingError::why)?;
            let (masked, count) =
                masking::whole(kind, &masks, Direction::Request, &opened, &shared.key)?;
            if count == 0 {
                return Ok(None);
            }
            self.masked += count;
            stream::drop_of_bytes(&mut kept.head.headers);
            let length = header::HeaderValue::from(masked.len());
            kept.head.headers.insert(header::CONTENT_LENGTH, length);
            kept.size = masked.len();
            kept.body = vec![Bytes::from(masked)];
            return Ok(Some(Came {
                opened,
                hidden: count,
                held: 0,
            }));
        }
        let masker = Masker::new(kind, masks, Direction::Request);
        let mut masking = Masking::new(decoder, masker);
        let masked = masking.push(&kept.joined(), &shared.key)?;
        stream::drop_of_bytes(&mut kept.head.headers);
        kept.size = masked.len();
        kept.body = if masked.is_empty() {
            Vec::new()
        } else {
            vec![Bytes::from(masked)]
        };
        let came = shared.journal.seals().then(|| Came::to(&masking));
        self.masking = Some(Box::new(masking));
        Ok(came)
    }

    /// Hides in the messages of gRPC that the agent sends.
    fn mask_messages(
        &mut self,
        kept: &mut Kept,
        masks: Arc<Masks>,
        shared: &Shared,
    ) -> Result<Option<Came>, Fault> {
        if !masks.of(Direction::Request).has_body() || kept.whole && kept.body.is_empty() {
            return Ok(None);
        }
        let headers = &mut kept.head.headers;
        let form = self.grpc_form(headers, Direction::Request, shared);
        let hider = Hider::new(form, masks, Direction::Request)?;
        let decoder = Decoder::new(headers, shared.bounds.decoded).map_err(CodingError::why)?;
        stream::drop_of_bytes(headers);
        let mut masking = Masking::new(decoder, Masker::Grpc(Box::new(hider)));
        let mut masked = masking.push(&kept.joined(), &shared.key)?;
        let mut came = shared.journal.seals().then(|| Came::to(&masking));
        if kept.whole {
            masked.extend(masking.finish(&shared.key)?);
            if let Some(came) = &mut came {
                came.opened.extend_from_slice(&masking.opened);
            }
            self.masked += masking.masker.hidden();
        } else {
            self.masking = Some(Box::new(masking));
        }
        kept.size = masked.len();
        kept.body = if masked.is_empty() {
            Vec::new()
        } else {
            vec![Bytes::from(masked)]
        };
        Ok(came)
    }

    /// The rest of a body turned out not to be one in which something can be
    /// hidden: the service never gets all of it.
    fn unmaskable(&mut self, now: FlowTime, fault: Fault, shared: &mut Shared, out: &mut Outbox) {
        let refusal = Refusal {
            rule: None,
            message: fault.into(),
        };
        self.record_refusal(now, "block", &refusal, shared, out);
        self.break_off_unrecorded(now, &Reason::Rule(refusal), shared, out);
    }

    /// Why it cannot pass although rules allow it: what comes behind its answer
    /// would be read by nobody.
    fn unreadable_protocol(&self, head: &request::Parts, shared: &Shared) -> Option<&'static str> {
        if head.method == Method::CONNECT && !shared.uninspected {
            return Some("what goes through a tunnel would be read by nobody");
        }
        None
    }

    /// Sends on what was permitted.
    pub(super) fn forward(
        &mut self,
        now: FlowTime,
        permit: Permit,
        kept: Kept,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let Kept {
            mut head,
            body,
            whole,
            trailers,
            ..
        } = kept;
        head::drop_hop(&mut head.headers);
        if self.request.websocket {
            head::wish_websocket(&mut head.headers);
            // Messages in any other extension could not be read.
            self.offers_deflate = deflate::keep_known(&mut head.headers);
        }
        // Whoever waits for it has been told to go on, or the body would not be here.
        head.headers.remove(header::EXPECT);
        for name in &shared.injected {
            head.headers.remove(name);
        }
        if self.needs.response_body || self.masks_answer() {
            coding::accept_known(&mut head.headers);
            grpc::accept_known(&mut head.headers);
            // A range could cut what is to be hidden in two.
            head.headers.remove(header::RANGE);
            head.headers.remove(header::IF_RANGE);
        }
        // Spent by the acts below.
        drop(permit);
        self.sent = Some(now);
        let trailers = self.request_trailers(now, trailers, shared, out);
        let ended = whole && body.is_empty() && trailers.is_none();
        out.acts.push(Act::Request {
            head: Box::new(head),
            ended,
        });
        out.acts.extend(body.into_iter().map(Act::RequestData));
        self.asking = if whole { Asking::Done } else { Asking::Passing };
        if whole && !ended {
            out.acts.push(Act::RequestEnd(trailers));
        }
    }
}

/// Whether a rule, and not merely a default, allows it.
fn allowed_by_rule(judgement: &Judgement, shared: &Shared) -> bool {
    let rules = shared.scope.rules().rules();
    judgement.applied.iter().any(|name| {
        let named = rules.iter().find(|rule| rule.name() == name);
        named.is_some_and(|rule| rule.verdict() == Some(RuleVerdict::Allow))
    })
}
