//! One exchange: both its bodies moved at once, as the engine says.
//!
//! Whatever happens is told to the session, and its acts are carried out in order.
//! A part is read only once the part before it is gone on the other side, so a slow
//! reader slows its writer and no more is kept than one part each way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, request, response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use interceptor_engine::hold::Decision;
use interceptor_engine::http::Act;
use tokio::sync::{mpsc, oneshot};

use super::body::{Broken, Driver, Fed, Part};
use super::conversation::Conversation;
use super::service::{Fault, Lease};
use super::tunnel;
use crate::flow::pump::Asking;
use crate::flow::shared::Unrecorded;

/// How long an agent may go on sending what nobody wants.
const LINGER: Duration = Duration::from_secs(10);

/// Serves one request of the agent.
///
/// # Errors
/// When there is nothing to answer with: hyper then breaks the exchange off.
pub async fn serve(
    conversation: Arc<Conversation>,
    request: Request<Incoming>,
) -> Result<Response<Fed>, Broken> {
    let (answer, answered) = oneshot::channel();
    let mut driver: Driver = Box::pin(drive(conversation, request, answer));
    let mut answered = std::pin::pin!(answered);
    let response = std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(answer) = answered.as_mut().poll(cx) {
            return std::task::Poll::Ready(answer);
        }
        if driver.as_mut().poll(cx).is_ready() {
            // Whatever it had to say is there by now.
            return answered.as_mut().poll(cx);
        }
        answered.as_mut().poll(cx)
    });
    let response = response.await.map_err(|_| Broken)?;
    Ok(response.map(|body| body.driven_by(driver)))
}

async fn drive(
    conversation: Arc<Conversation>,
    mut request: Request<Incoming>,
    answer: oneshot::Sender<Response<Fed>>,
) {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let connects = head.method == http::Method::CONNECT;
    let ended = body.is_end_stream();
    if let Some(side) = conversation.side.get() {
        side.begins(!ended);
    }
    let (id, acts) = conversation.begin(head, ended);
    let mut exchange = Exchange {
        conversation,
        id,
        connects,
        over: false,
        request: (!ended).then_some(body),
        to_service: None,
        up: VecDeque::new(),
        sending: None,
        lease: None,
        response: None,
        asking: None,
        answer: Some(answer),
        to_agent: None,
        down: VecDeque::new(),
        upgrades: (Some(upgrade), None),
    };
    if exchange.go(acts).await.is_err() {
        exchange.break_off();
    }
}

type Sending =
    std::pin::Pin<Box<dyn Future<Output = Result<(Response<Incoming>, Lease), Fault>> + Send>>;

struct Exchange {
    conversation: Arc<Conversation>,
    id: u64,
    /// It asks for a tunnel.
    connects: bool,
    /// The session has said its last about it.
    over: bool,
    /// The agent's body.
    request: Option<Incoming>,
    /// Where it goes, and what waits to.
    to_service: Option<mpsc::Sender<Part>>,
    up: VecDeque<Part>,
    /// The answer's head is waited for.
    sending: Option<Sending>,
    lease: Option<Lease>,
    /// The service's body.
    response: Option<Incoming>,
    /// A person is asked.
    asking: Option<Asking>,
    /// Where the answer's head goes, its body, and what of it waits.
    answer: Option<oneshot::Sender<Response<Fed>>>,
    to_agent: Option<mpsc::Sender<Part>>,
    down: VecDeque<Part>,
    /// Of the agent's leg, and of the service's.
    upgrades: (Option<OnUpgrade>, Option<OnUpgrade>),
}

/// What happened.
enum Happened {
    Request(Result<Option<Part>, ()>),
    Head(Result<(Response<Incoming>, Lease), Fault>),
    Response(Result<Option<Part>, String>),
    Decided(Decision),
    Due,
    /// The part in front was taken.
    Sent,
    /// The last of the request was taken.
    Asked,
    /// Nobody takes the request any more.
    Deaf,
    /// Nobody takes the answer any more.
    Gone,
}

impl Exchange {
    async fn go(&mut self, acts: Vec<Act>) -> Result<(), Unrecorded> {
        self.act(acts).await?;
        while !(self.over && self.down.is_empty()) {
            let acts = match self.next().await {
                Happened::Sent => continue,
                Happened::Asked => {
                    self.to_service = None;
                    continue;
                }
                Happened::Request(part) => self.agent_said(part),
                Happened::Head(Ok((response, lease))) => self.head(response, lease),
                Happened::Head(Err(fault)) => {
                    self.sending = None;
                    self.fails(fault.into())
                }
                Happened::Response(part) => self.service_said(part),
                Happened::Decided(decision) => {
                    self.asking = None;
                    self.call(|session, now, id, out| session.decided(now, id, decision, out))
                }
                Happened::Due => self.call(|session, now, id, out| session.time_is(now, id, out)),
                Happened::Deaf => {
                    // Its answer says why, or its end does.
                    self.to_service = None;
                    self.up.clear();
                    self.forgo_request();
                    continue;
                }
                Happened::Gone => {
                    self.leave();
                    return Ok(());
                }
            };
            self.act(acts).await?;
        }
        Ok(())
    }

    fn call(
        &self,
        ask: impl FnOnce(
            &mut interceptor_engine::http::HttpSession,
            interceptor_engine::event::FlowTime,
            u64,
            &mut interceptor_engine::http::Outbox,
        ),
    ) -> Vec<Act> {
        let id = self.id;
        self.conversation
            .shared
            .call(|session, now, out| ask(session, now, id, out))
            .1
    }

    fn fails(&self, failure: interceptor_engine::http::Failure) -> Vec<Act> {
        self.call(|session, now, id, out| session.upstream_failed(now, id, failure, out))
    }

    /// Waits for the next thing to happen.
    async fn next(&mut self) -> Happened {
        let reads_request = self.request.is_some()
            && self.up.is_empty()
            && self.conversation.wants_request(self.id);
        let reads_response = self.response.is_some() && self.down.is_empty();
        let due = self.conversation.deadline(self.id);
        let Self {
            request,
            to_service,
            up,
            sending,
            response,
            asking,
            answer,
            to_agent,
            down,
            ..
        } = self;
        tokio::select! {
            biased;
            permit = reserve(to_agent.as_ref()), if !down.is_empty() => match (permit, down.pop_front()) {
                (Ok(permit), Some(part)) => {
                    permit.send(part);
                    Happened::Sent
                }
                _ => Happened::Gone,
            },
            () = gone(answer, to_agent.as_ref()), if down.is_empty() => Happened::Gone,
            head = some(sending), if sending.is_some() => Happened::Head(head),
            part = frame(response), if reads_response => {
                Happened::Response(part.map_err(|error| super::service::words(&error)))
            }
            permit = reserve(to_service.as_ref()), if !up.is_empty() && to_service.is_some() => {
                match (permit, up.pop_front()) {
                    (Ok(permit), Some(part)) => {
                        let ends = matches!(part, Part::End(_));
                        permit.send(part);
                        if ends { Happened::Asked } else { Happened::Sent }
                    }
                    _ => Happened::Deaf,
                }
            }
            part = frame(request), if reads_request => Happened::Request(part.map_err(drop)),
            decision = some(asking), if asking.is_some() => Happened::Decided(decision),
            () = until(due), if due.is_some() => Happened::Due,
        }
    }

    fn agent_said(&mut self, part: Result<Option<Part>, ()>) -> Vec<Act> {
        match part {
            Ok(Some(Part::Data(bytes))) => {
                self.call(|session, now, id, out| session.request_data(now, id, bytes, out))
            }
            Ok(Some(Part::End(trailers))) => self.request_ends(trailers),
            Ok(None) => self.request_ends(None),
            Ok(Some(Part::Broken)) | Err(()) => {
                self.leave();
                Vec::new()
            }
        }
    }

    fn request_ends(&mut self, trailers: Option<http::HeaderMap>) -> Vec<Act> {
        self.has_request();
        self.call(|session, now, id, out| session.request_end(now, id, trailers, out))
    }

    fn has_request(&mut self) {
        self.request = None;
        if let Some(side) = self.conversation.side.get() {
            side.has_request();
        }
    }

    /// What is left of the request is wanted by nobody. Over HTTP/1 it is read and
    /// dropped all the same: an agent that is still sending would lose its answer if
    /// its connection closed.
    fn forgo_request(&mut self) {
        let left = self.request.take();
        let Some(side) = self.conversation.side.get() else {
            return;
        };
        side.has_request();
        // Where the daemon itself ends, there is nothing left to read it.
        if let Some(left) = left
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(LINGER, drain(left)));
        }
    }

    fn head(&mut self, mut response: Response<Incoming>, lease: Lease) -> Vec<Act> {
        self.sending = None;
        self.lease = Some(lease);
        self.upgrades.1 = Some(hyper::upgrade::on(&mut response));
        let (mut head, body) = response.into_parts();
        // Where else the service could be reached is out of our sight.
        head.headers.remove("alt-svc");
        let ended = body.is_end_stream();
        let acts =
            self.call(|session, now, id, out| session.response_head(now, id, head, ended, out));
        if ended {
            self.service_is_done();
        } else {
            self.response = Some(body);
        }
        acts
    }

    fn service_said(&mut self, part: Result<Option<Part>, String>) -> Vec<Act> {
        match part {
            Ok(Some(Part::Data(bytes))) => {
                self.call(|session, now, id, out| session.response_data(now, id, bytes, out))
            }
            Ok(Some(Part::End(trailers))) => self.response_ends(trailers),
            Ok(None) => self.response_ends(None),
            Ok(Some(Part::Broken)) => self.response_breaks("the connection failed".to_owned()),
            Err(why) => self.response_breaks(why),
        }
    }

    fn response_ends(&mut self, trailers: Option<http::HeaderMap>) -> Vec<Act> {
        self.response = None;
        let acts = self.call(|session, now, id, out| session.response_end(now, id, trailers, out));
        self.service_is_done();
        acts
    }

    fn response_breaks(&mut self, why: String) -> Vec<Act> {
        self.response = None;
        self.fails(interceptor_engine::http::Failure::Broken(why))
    }

    /// The service has answered in full: its connection is good for another
    /// exchange, unless a part of this request is still to come.
    fn service_is_done(&mut self) {
        let whole = self.to_service.is_none() && self.request.is_none() && self.up.is_empty();
        if let Some(lease) = self.lease.take() {
            if whole {
                lease.give_back();
            } else {
                self.lease = Some(lease);
            }
        }
    }

    /// The agent went away.
    fn leave(&mut self) {
        let _ = self.call(|session, now, id, out| session.agent_left(now, id, out));
        self.over = true;
        self.down.clear();
        self.drop_service();
    }

    /// What nobody recorded is not said.
    fn break_off(&mut self) {
        let why = Unrecorded.to_string();
        let _ = self.call(|session, now, id, out| session.refuse(now, id, &why, out));
        self.over = true;
        self.down.clear();
        self.drop_service();
        // Both halves end without their end.
        self.answer = None;
        self.to_agent = None;
    }

    fn drop_service(&mut self) {
        self.forgo_request();
        self.sending = None;
        self.response = None;
        self.up.clear();
        self.to_service = None;
        if let Some(lease) = self.lease.take() {
            lease.abort();
        }
    }

    async fn act(&mut self, acts: Vec<Act>) -> Result<(), Unrecorded> {
        self.conversation.shared.recorded().await?;
        for act in acts {
            match act {
                Act::Request { head, ended } => self.send(*head, ended),
                Act::RequestData(bytes) => self.up.push_back(Part::Data(bytes)),
                Act::RequestEnd(trailers) => self.up.push_back(Part::End(trailers)),
                Act::Ask(question) => self.asking = Some(self.conversation.shared.ask(&question)),
                Act::Response { head, ended } => self.answer(*head, ended),
                Act::ResponseData(bytes) => self.down.push_back(Part::Data(bytes)),
                Act::ResponseEnd(trailers) => {
                    self.down.push_back(Part::End(trailers));
                    self.over = true;
                }
                Act::DropUpstream => self.drop_service(),
                Act::BreakDownstream => {
                    self.down.push_back(Part::Broken);
                    if self.to_agent.is_none() {
                        self.down.clear();
                        self.answer = None;
                    }
                    self.over = true;
                }
                Act::Tunnel { websocket } => self.tunnel(websocket),
                // Only of a tunnel, which carries out its own.
                Act::TunnelData(..) | Act::TunnelEnd(_) => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, head: request::Parts, ended: bool) {
        let body = if ended {
            Fed::empty()
        } else {
            let (feed, body) = Fed::channel();
            self.to_service = Some(feed);
            body
        };
        let conversation = Arc::clone(&self.conversation);
        self.sending = Some(Box::pin(async move { conversation.send(head, body).await }));
    }

    fn answer(&mut self, mut head: response::Parts, ended: bool) {
        // Each leg has its own version.
        head.version = http::Version::default();
        if let Some(side) = self.conversation.side.get() {
            let switches = head.status == http::StatusCode::SWITCHING_PROTOCOLS
                || (self.connects && head.status.is_success());
            side.answers(switches);
        }
        let body = if ended {
            self.over = true;
            Fed::empty()
        } else {
            let (feed, body) = Fed::channel();
            self.to_agent = Some(feed);
            body
        };
        if let Some(answer) = self.answer.take() {
            // Where nobody waits for it any more, the next thing to happen says so.
            let _ = answer.send(Response::from_parts(head, body));
        }
    }

    fn tunnel(&mut self, websocket: bool) {
        let (Some(agent), Some(service)) = (self.upgrades.0.take(), self.upgrades.1.take()) else {
            return;
        };
        if let Some(lease) = self.lease.take() {
            lease.hand_over();
        }
        self.over = true;
        let ends = tunnel::Ends {
            agent,
            service,
            websocket,
        };
        let conversation = Arc::clone(&self.conversation);
        let id = self.id;
        self.id = u64::MAX;
        let run = tunnel::run(Arc::clone(&conversation), id, ends);
        conversation.tunnel(run);
    }
}

impl Drop for Exchange {
    /// Hyper lets go of an exchange whose agent is gone.
    fn drop(&mut self) {
        if !self.over {
            self.leave();
        }
        self.forgo_request();
        if let Some(side) = self.conversation.side.get() {
            side.ends();
        }
    }
}

async fn frame(body: &mut Option<Incoming>) -> Result<Option<Part>, hyper::Error> {
    let Some(body) = body else {
        return std::future::pending().await;
    };
    let Some(frame) = body.frame().await else {
        return Ok(None);
    };
    Ok(Some(match frame?.into_data() {
        Ok(bytes) => Part::Data(bytes),
        Err(frame) => Part::End(frame.into_trailers().ok()),
    }))
}

async fn drain(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

async fn some<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn reserve(feed: Option<&mpsc::Sender<Part>>) -> Result<mpsc::Permit<'_, Part>, Broken> {
    match feed {
        Some(feed) => feed.reserve().await.map_err(|_| Broken),
        None => std::future::pending().await,
    }
}

/// Nobody waits for the answer any more.
async fn gone(
    answer: &mut Option<oneshot::Sender<Response<Fed>>>,
    to_agent: Option<&mpsc::Sender<Part>>,
) {
    match (answer, to_agent) {
        (Some(answer), _) => answer.closed().await,
        (None, Some(feed)) => feed.closed().await,
        (None, None) => std::future::pending().await,
    }
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
