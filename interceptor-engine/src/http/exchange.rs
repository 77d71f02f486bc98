//! One exchange: what was asked, and what has come back so far.

use std::sync::Arc;

use ::http::{Method, request};
use interceptor_policy::mask::Direction;
use interceptor_policy::operation::http::HttpRequest;
use interceptor_policy::scope::HttpNeeds;
use interceptor_policy::verdict::Severity;
use interceptor_policy::{Limits, Masks, RecordLevel, Refusal};

use super::answer::{self, Form, Reason};
use super::asking::Asking;
use super::body::ModelCall;
use super::body::model_answer::AnswerReader;
use super::grpc;
use super::head;
use super::masking::Masking;
use super::outbox::{Act, Failure, Outbox};
use super::session::Shared;
use super::stream::Stream;
use super::tap::Tap;
use super::tunnel::Tunnel;
use crate::event::FlowTime;
use crate::session::End;

/// How far the answer is.
#[derive(Debug)]
pub(super) enum Answering {
    /// Nothing has come.
    Waiting,
    /// It goes through.
    Passing(Box<Stream>),
    /// The protocol was changed.
    Tunnel(Box<Tunnel>),
    /// The agent has got it, or will get nothing more.
    Over,
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Counted within the session, from 1.
    pub(super) number: u64,
    /// When its head came.
    pub(super) begun: FlowTime,
    /// When it was forwarded.
    pub(super) sent: Option<FlowTime>,
    /// What rules see of it.
    pub(super) request: HttpRequest,
    /// `https://host/path`, without the query.
    pub(super) url: String,
    pub(super) method: Method,
    pub(super) version: ::http::Version,
    /// What the rules that may apply ask about.
    pub(super) needs: HttpNeeds,
    /// In which form the agent is answered.
    pub(super) form: Form,
    pub(super) asking: Asking,
    pub(super) answering: Answering,
    /// What its answer may come to.
    pub(super) limits: Limits,
    /// What is hidden in the answer.
    pub(super) masks: Option<Arc<Masks>>,
    /// How much is recorded.
    pub(super) record: RecordLevel,
    /// The severity that the rules give to what it raises.
    pub(super) severity: Option<Severity>,
    /// Tags that it leaves once a person lets it pass.
    pub(super) tags_held: Vec<Arc<str>>,
    /// Hides in the request's body what is hidden there.
    pub(super) masking: Option<Box<Masking>>,
    /// What of the request's body goes on record.
    pub(super) tap: Option<Tap>,
    /// Its messages on their way to the record, where it is a call of gRPC.
    pub(super) asked: Option<super::tap::Asked>,
    /// The call of a model that its body makes.
    pub(super) model: Option<ModelCall>,
    /// Collects what a model answers, where it is one that is asked.
    pub(super) answered: Option<AnswerReader>,
    /// Whether it asks for a WebSocket whose messages may be compressed.
    pub(super) offers_deflate: bool,
    /// Values hidden so far.
    pub(super) masked: u64,
    /// When text that waits for its line's end goes on without it.
    pub(super) release: Option<FlowTime>,
    /// What of the answer is on record at its end.
    pub(super) answer: Option<super::record::Answer>,
}

impl Exchange {
    pub(super) fn new(
        number: u64,
        now: FlowTime,
        mut head: request::Parts,
        host_mismatch: bool,
        shared: &Shared,
    ) -> Self {
        let names_host = head::make_absolute(&mut head, shared.downstream_tls);
        let mut request = head::request(&head, false, host_mismatch);
        super::body::read_query(&mut request);
        let url = if head.method == Method::CONNECT {
            head.uri.to_string()
        } else {
            let scheme = if shared.downstream_tls {
                "https"
            } else {
                "http"
            };
            let authority = head.uri.authority().map_or("", |name| name.as_str());
            format!("{scheme}://{authority}{}", head.uri.path())
        };
        Self {
            number,
            begun: now,
            sent: None,
            url,
            method: head.method.clone(),
            version: head.version,
            form: form(&request, &head.headers),
            needs: HttpNeeds::default(),
            request,
            asking: if names_host {
                Asking::Fresh(Box::new(head))
            } else {
                Asking::Nameless
            },
            answering: Answering::Waiting,
            limits: Limits::default(),
            masks: None,
            record: RecordLevel::Full,
            severity: None,
            tags_held: Vec::new(),
            masking: None,
            tap: None,
            asked: None,
            model: None,
            answered: None,
            offers_deflate: false,
            masked: 0,
            release: None,
            answer: None,
        }
    }

    /// Whether nothing more can come of it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.answering, Answering::Over) && matches!(self.asking, Asking::Done)
    }

    /// Whether more of the request's body is to be read.
    pub(super) fn wants_request(&self) -> bool {
        matches!(
            self.asking,
            Asking::Collecting(_) | Asking::ToAsk(..) | Asking::Passing
        )
    }

    /// Whether something may be hidden in the answer's body.
    pub(super) fn masks_answer(&self) -> bool {
        let masks = self.masks.as_ref();
        masks.is_some_and(|masks| masks.of(Direction::Response).has_body())
    }

    /// How messages of gRPC are written that go one way.
    pub(super) fn grpc_form(
        &self,
        headers: &::http::HeaderMap,
        direction: Direction,
        shared: &Shared,
    ) -> grpc::Form {
        let media = head::media_type(headers);
        let known = shared.grpc.as_ref().zip(self.request.grpc.as_ref());
        let shape = known.and_then(|(schemas, call)| match direction {
            Direction::Request => schemas.input(&call.service, &call.method),
            Direction::Response => schemas.output(&call.service, &call.method),
        });
        grpc::Form::new(headers, media.as_deref(), shape)
    }

    /// Whether the service knows of it.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.is_some()
    }

    /// Answers in the service's place, and is done with it.
    pub(super) fn answer_with(
        &mut self,
        now: FlowTime,
        reason: &Reason,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if let Some(tap) = self.tap.take() {
            self.record_rest(now, tap, shared, out);
        }
        let session = shared.journal.session();
        let head_only = self.method == Method::HEAD;
        let acts = answer::acts(reason, &self.form, session, self.number, head_only);
        out.acts.extend(acts);
        if self.is_sent() {
            out.acts.push(Act::DropUpstream);
        }
        self.asking = Asking::Done;
        self.answering = Answering::Over;
    }

    /// As [`Self::answer_with`] where nothing of an answer was sent, and breaks
    /// the answer off otherwise.
    pub(super) fn break_off(
        &mut self,
        now: FlowTime,
        reason: &Reason,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        match std::mem::replace(&mut self.answering, Answering::Over) {
            Answering::Waiting => {
                if !matches!(reason, Reason::Limit(_)) {
                    self.record_failure(now, reason, shared, out);
                }
                self.answer_with(now, reason, shared, out);
            }
            Answering::Over => {}
            Answering::Passing(stream) => {
                let unsent = stream.is_unsent();
                self.end_stream(now, *stream, true, shared, out);
                if !matches!(reason, Reason::Limit(_)) {
                    self.record_failure(now, reason, shared, out);
                }
                if unsent {
                    self.answer_with(now, reason, shared, out);
                } else {
                    self.break_answer(reason, shared, out);
                }
                self.asking = Asking::Done;
            }
            Answering::Tunnel(tunnel) => {
                self.end_tunnel(now, *tunnel, &reason.message(), shared, out);
                self.record_failure(now, reason, shared, out);
                out.acts.extend([Act::BreakDownstream, Act::DropUpstream]);
                self.asking = Asking::Done;
            }
        }
    }

    /// Ends an answer that is under way. A call of gRPC has room for a reason
    /// there; any other client sees that it is not whole.
    fn break_answer(&self, reason: &Reason, shared: &Shared, out: &mut Outbox) {
        let status = match self.form {
            Form::Grpc(_) => answer::grpc_trailers(reason, shared.journal.session(), self.number),
            _ => None,
        };
        out.acts.push(match status {
            Some(trailers) => Act::ResponseEnd(Some(trailers)),
            None => Act::BreakDownstream,
        });
        out.acts.push(Act::DropUpstream);
    }

    /// A rule ends the session with this exchange.
    pub(super) fn kill(
        &mut self,
        now: FlowTime,
        refusal: Refusal,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        shared.totals.killed = true;
        shared.over = Some(Arc::clone(&refusal.message));
        out.end = Some(End::Refused(refusal.message.to_string()));
        self.break_off_unrecorded(now, &Reason::Rule(refusal), shared, out);
    }

    /// Refuses what a verdict on record refuses.
    pub(super) fn break_off_unrecorded(
        &mut self,
        now: FlowTime,
        reason: &Reason,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        match std::mem::replace(&mut self.answering, Answering::Over) {
            Answering::Waiting => self.answer_with(now, reason, shared, out),
            Answering::Over => {}
            Answering::Passing(stream) => {
                let unsent = stream.is_unsent();
                self.end_stream(now, *stream, true, shared, out);
                if unsent {
                    self.answer_with(now, reason, shared, out);
                } else {
                    self.break_answer(reason, shared, out);
                }
            }
            Answering::Tunnel(tunnel) => {
                self.end_tunnel(now, *tunnel, &reason.message(), shared, out);
                out.acts.extend([Act::BreakDownstream, Act::DropUpstream]);
            }
        }
        self.asking = Asking::Done;
    }

    pub(super) fn upstream_failed(
        &mut self,
        now: FlowTime,
        failure: &Failure,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        self.break_off(now, &Reason::Upstream(failure.clone()), shared, out);
    }

    pub(super) fn agent_left(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        self.take_back_question(now, shared, out);
        if self.is_sent() {
            out.acts.push(Act::DropUpstream);
        }
        self.cut_short(now, shared, out);
    }

    /// Nothing more comes of it: puts on record what there was.
    pub(super) fn cut_short(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        self.take_back_question(now, shared, out);
        if let Some(tap) = self.tap.take() {
            self.record_rest(now, tap, shared, out);
        }
        if let Asking::Collecting(_) = self.asking {
            let line = format!(
                "{} to {} was given up before it could be judged",
                self.method, self.request.host
            );
            self.record_note(now, &line, shared, out);
        }
        match std::mem::replace(&mut self.answering, Answering::Over) {
            Answering::Waiting if self.is_sent() => {
                self.record_note(now, "it ended before its answer began", shared, out);
            }
            Answering::Passing(stream) => {
                self.end_stream(now, *stream, true, shared, out);
                self.record_note(now, "it ended before its answer did", shared, out);
            }
            Answering::Tunnel(tunnel) => {
                self.end_tunnel(now, *tunnel, "it ended", shared, out);
            }
            Answering::Waiting | Answering::Over => {}
        }
        self.asking = Asking::Done;
    }
}

/// The form in which the client reads answers.
fn form(request: &HttpRequest, headers: &::http::HeaderMap) -> Form {
    use ::http::header::{ACCEPT, CONTENT_TYPE};
    if head::is_grpc(request.content_type.as_deref())
        && let Some(kind) = headers.get(CONTENT_TYPE)
    {
        return Form::Grpc(kind.clone());
    }
    if !request.graphql.is_empty() {
        return Form::GraphQl {
            modern: accepts_graphql(headers.get_all(ACCEPT).iter()),
        };
    }
    Form::Problem
}

/// Whether a client reads GraphQL's own media type.
pub(super) fn accepts_graphql<'a>(accept: impl Iterator<Item = &'a ::http::HeaderValue>) -> bool {
    accept
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/graphql-response+json"))
}
