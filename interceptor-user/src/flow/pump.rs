//! Moves a flow's bytes through its session.
//!
//! One future polls both legs. Bytes are read into a buffer of the thread, handed
//! to the session, and written out of that very buffer, so that an idle flow
//! holds none. What a leg does not take at once is copied, and nothing more is
//! read for it until it is gone: a slow reader slows its writer, and no more.
//!
//! Events are with the recorder before the bytes that they explain are written, and
//! on stable storage before anything goes to the service, where that is configured.
//! Until then, and while the recorder has no room, the flow stands still; when that
//! lasts too long, it ends.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use interceptor_engine::event::{Event, FlowTime};
use interceptor_engine::hold::{Decision, Question};
use interceptor_engine::pg::catalog::TableInfo;
use interceptor_engine::session::{BackendKey, End, Lookup, Outbox, Piece, Session, Side};
use interceptor_policy::operation::Table;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use crate::recorder::Recorder;
use crate::tls::Stream;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Reads in a row before other flows get their turn.
const TURNS: u32 = 64;
/// How long a peer may take to read the last of what it is told.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pieces written in one call.
const PIECES: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// An answer that is being waited for.
pub type LookUp = Pin<Box<dyn Future<Output = Vec<TableInfo>> + Send>>;

/// Names' meanings that are being waited for.
pub type Naming = Pin<Box<dyn Future<Output = Vec<(Table, Vec<TableInfo>)>> + Send>>;

/// A person's answer that is being waited for; dropped, the question is withdrawn.
pub type Asking = Pin<Box<dyn Future<Output = Decision> + Send>>;

/// A cancellation on its way.
pub type Cancelling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a session needs of the world beside its two legs.
pub trait Surroundings<S>: Send {
    /// Called before the session gets bytes: puts new rules in force.
    fn refresh(&mut self, session: &mut S);

    /// Names of tables. An empty answer where they cannot be had.
    fn look_up(&mut self, oids: Vec<u32>) -> LookUp;

    /// What names can mean. Names that cannot be looked up are answered with nothing.
    fn tables(&mut self, lookup: Lookup) -> Naming;

    /// Asks a person.
    fn ask(&mut self, question: Question) -> Asking;

    /// Cancels what runs upstream; done when the service has taken it.
    fn cancel(&mut self) -> Cancelling;

    /// The session can be cancelled with this key.
    fn has_key(&mut self, key: BackendKey);
}

/// How a flow ended.
#[derive(Debug)]
pub enum Outcome {
    /// A side closed.
    Closed,
    /// The session refused to go on.
    Refused(String),
    /// An operator or the daemon's end stopped it.
    Killed(String),
    /// The recorder had no room for too long.
    Unrecorded,
    /// A socket failed.
    Failed(Side, io::Error),
}

impl Outcome {
    /// In words, for the closing event.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Closed => "closed".to_owned(),
            Self::Refused(why) => format!("ended: {why}"),
            Self::Killed(why) => format!("killed: {why}"),
            Self::Unrecorded => "ended: the recorder had no room".to_owned(),
            Self::Failed(Side::Downstream, error) => {
                format!("the agent's connection failed: {error}")
            }
            Self::Failed(Side::Upstream, error) => {
                format!("the service's connection failed: {error}")
            }
        }
    }
}

/// Bytes that a leg has not taken yet.
#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    done: usize,
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.done..).unwrap_or_default()
    }

    fn advance(&mut self, n: usize) {
        self.done += n;
        if self.done >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// One leg with what it has not taken.
#[derive(Debug)]
struct Leg {
    stream: Stream,
    backlog: Backlog,
    unflushed: bool,
}

impl Leg {
    /// Writes as much as the leg takes; ready when nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.backlog.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, self.backlog.rest()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.backlog.advance(n);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes pieces, and keeps what the leg does not take.
    fn write(&mut self, cx: &mut Context<'_>, pieces: &[Piece], input: &[u8]) -> io::Result<()> {
        let mut slices: Vec<&[u8]> = Vec::new();
        let one;
        let slices: &[&[u8]] = match pieces {
            [] => return Ok(()),
            [piece] => {
                one = [bytes(piece, input)];
                &one
            }
            many => {
                slices.extend(many.iter().map(|piece| bytes(piece, input)));
                &slices
            }
        };
        self.unflushed |= self.stream.is_encrypted();
        let mut at = 0;
        let mut within = 0;
        while self.backlog.is_empty() && at < slices.len() {
            let written = if let [only] = slices {
                Pin::new(&mut self.stream).poll_write(cx, only.get(within..).unwrap_or_default())
            } else {
                let rest: Vec<IoSlice<'_>> = slices
                    .get(at..)
                    .unwrap_or_default()
                    .iter()
                    .take(PIECES)
                    .enumerate()
                    .map(|(i, slice)| {
                        let skip = if i == 0 { within } else { 0 };
                        IoSlice::new(slice.get(skip..).unwrap_or_default())
                    })
                    .collect();
                Pin::new(&mut self.stream).poll_write_vectored(cx, &rest)
            };
            let mut n = match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            };
            while let Some(slice) = slices.get(at)
                && n >= slice.len() - within
            {
                n -= slice.len() - within;
                within = 0;
                at += 1;
            }
            within += n;
        }
        for (i, slice) in slices.get(at..).unwrap_or_default().iter().enumerate() {
            let skip = if i == 0 { within } else { 0 };
            self.backlog
                .bytes
                .extend_from_slice(slice.get(skip..).unwrap_or_default());
        }
        Ok(())
    }

    /// Keeps pieces for later.
    fn keep(&mut self, pieces: &[Piece], input: &[u8]) {
        self.unflushed |= self.stream.is_encrypted() && !pieces.is_empty();
        for piece in pieces {
            self.backlog.bytes.extend_from_slice(bytes(piece, input));
        }
    }
}

fn bytes<'a>(piece: &'a Piece, input: &'a [u8]) -> &'a [u8] {
    match piece {
        Piece::Input(range) => input.get(range.clone()).unwrap_or_default(),
        Piece::Owned(bytes) => bytes,
    }
}

/// A flow under way.
pub struct Pump<'a, S, W> {
    session: &'a mut S,
    surroundings: W,
    downstream: Leg,
    upstream: Leg,
    recorder: Recorder,
    began: Instant,
    stall: Duration,
    out: Outbox,
    end: Option<Outcome>,
    look_up: Option<LookUp>,
    naming: Option<Naming>,
    asking: Option<Asking>,
    cancelling: Option<Cancelling>,
    timer: Option<(FlowTime, Pin<Box<Sleep>>)>,
    waiting_for_room: Option<(RoomFuture, Pin<Box<Sleep>>)>,
    unrecorded: bool,
    /// What must be on stable storage before anything goes on.
    undurable: Option<u64>,
}

type RoomFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<'a, S: Session, W: Surroundings<S>> Pump<'a, S, W> {
    /// A pump between two legs. `began` is the session's time zero.
    pub fn new(
        session: &'a mut S,
        surroundings: W,
        downstream: Stream,
        upstream: Stream,
        recorder: Recorder,
        began: Instant,
        stall: Duration,
    ) -> Self {
        let leg = |stream| Leg {
            stream,
            backlog: Backlog::default(),
            unflushed: false,
        };
        Self {
            session,
            surroundings,
            downstream: leg(downstream),
            upstream: leg(upstream),
            recorder,
            began,
            stall,
            out: Outbox::default(),
            end: None,
            look_up: None,
            naming: None,
            asking: None,
            cancelling: None,
            timer: None,
            waiting_for_room: None,
            unrecorded: false,
            undurable: None,
        }
    }

    /// Moves bytes until a side closes, the session ends it, or `killed` says
    /// why it must end; then says goodbye to both sides.
    ///
    /// `pending` are bytes that were read before: of the agent, and of the service.
    /// Returned beside the outcome: events that the recorder did not take.
    pub async fn run(
        mut self,
        pending: (Vec<u8>, Vec<u8>),
        killed: impl Future<Output = String> + Send,
    ) -> (Outcome, Vec<Event>) {
        let mut killed = std::pin::pin!(killed);
        let mut pending = Some(pending);
        let outcome = std::future::poll_fn(|cx| {
            if let Some((from_agent, from_service)) = pending.take() {
                for (side, bytes) in [
                    (Side::Upstream, from_service),
                    (Side::Downstream, from_agent),
                ] {
                    if !bytes.is_empty() {
                        let now = self.now();
                        self.session.handle_bytes(now, side, &bytes, &mut self.out);
                        if let Err(outcome) = self.act(cx, &bytes) {
                            return Poll::Ready(outcome);
                        }
                    }
                }
            }
            if let Poll::Ready(why) = killed.as_mut().poll(cx) {
                return Poll::Ready(Outcome::Killed(why));
            }
            self.poll(cx)
        })
        .await;
        self.farewell(&outcome).await;
        (outcome, self.out.events)
    }

    fn now(&self) -> FlowTime {
        FlowTime(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        for _ in 0..TURNS {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(outcome) => return Poll::Ready(outcome),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One round; whether anything moved.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Outcome> {
        if !self.poll_room(cx)? {
            return Ok(false);
        }
        let down_drained = drained(self.downstream.poll_drain(cx), Side::Downstream)?;
        let up_drained = drained(self.upstream.poll_drain(cx), Side::Upstream)?;
        if let Some(outcome) = self.end.take() {
            if down_drained {
                return Err(outcome);
            }
            self.end = Some(outcome);
            return Ok(false);
        }
        if let Some(look_up) = &mut self.look_up
            && let Poll::Ready(tables) = look_up.as_mut().poll(cx)
        {
            self.look_up = None;
            let now = self.now();
            self.session.handle_catalog(now, tables, &mut self.out);
            self.act(cx, &[])?;
            return Ok(true);
        }
        if let Some(naming) = &mut self.naming
            && let Poll::Ready(tables) = naming.as_mut().poll(cx)
        {
            self.naming = None;
            let now = self.now();
            self.session.handle_tables(now, tables, &mut self.out);
            self.act(cx, &[])?;
            return Ok(true);
        }
        if let Some(asking) = &mut self.asking
            && let Poll::Ready(decision) = asking.as_mut().poll(cx)
        {
            self.asking = None;
            let now = self.now();
            self.session.handle_decision(now, decision, &mut self.out);
            self.act(cx, &[])?;
            return Ok(true);
        }
        if let Some(cancelling) = &mut self.cancelling
            && cancelling.as_mut().poll(cx).is_ready()
        {
            self.cancelling = None;
        }
        if self.is_due(cx) {
            let now = self.now();
            self.session.handle_time(now, &mut self.out);
            self.act(cx, &[])?;
            return Ok(true);
        }
        let mut moved = false;
        if down_drained && self.session.wants_read(Side::Upstream) {
            moved |= self.read(cx, Side::Upstream)?;
        }
        if up_drained
            && self.end.is_none()
            && !self.unrecorded
            && self.cancelling.is_none()
            && self.session.wants_read(Side::Downstream)
        {
            moved |= self.read(cx, Side::Downstream)?;
        }
        Ok(moved)
    }

    /// Whether the session wants to be told the time now; else its next such
    /// moment wakes this flow.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(due) = self.session.deadline() else {
            self.timer = None;
            return false;
        };
        if self.timer.as_ref().is_none_or(|(at, _)| *at != due) {
            let at = self.began + Duration::from_micros(due.0);
            self.timer = Some((due, Box::pin(tokio::time::sleep_until(at.into()))));
        }
        let due = self
            .timer
            .as_mut()
            .is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        if due {
            self.timer = None;
        }
        due
    }

    fn read(&mut self, cx: &mut Context<'_>, side: Side) -> Result<bool, Outcome> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            let stream = match side {
                Side::Downstream => &mut self.downstream.stream,
                Side::Upstream => &mut self.upstream.stream,
            };
            match Pin::new(stream).poll_read(cx, &mut buf) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => return Err(Outcome::Failed(side, error)),
                Poll::Ready(Ok(())) => {}
            }
            let now = self.now();
            let input = buf.filled();
            self.surroundings.refresh(self.session);
            if input.is_empty() {
                self.session.handle_eof(now, side, &mut self.out);
            } else {
                self.session.handle_bytes(now, side, input, &mut self.out);
            }
            self.act(cx, input)?;
            Ok(true)
        })
    }

    /// Does what the session asks: first the record, then the bytes.
    fn act(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<(), Outcome> {
        if let Some(key) = self.out.backend_key.take() {
            self.surroundings.has_key(key);
        }
        if let Some(oids) = self.out.catalog.take() {
            self.look_up = Some(self.surroundings.look_up(oids));
        }
        if let Some(lookup) = self.out.tables.take() {
            self.naming = Some(self.surroundings.tables(lookup));
        }
        if let Some(question) = self.out.ask.take() {
            self.asking = Some(self.surroundings.ask(*question));
        }
        if std::mem::take(&mut self.out.cancel) {
            self.cancelling = Some(self.surroundings.cancel());
        }
        if let Some(end) = self.out.end.take() {
            self.end = Some(match end {
                End::Closed => Outcome::Closed,
                End::Refused(why) => Outcome::Refused(why),
            });
        }
        let recorded =
            self.out.events.is_empty() || self.recorder.record(&mut self.out.events).is_ok();
        self.unrecorded |= !recorded;
        if !self.out.upstream.is_empty() {
            let ticket = self.recorder.ticket();
            self.undurable = ticket.filter(|ticket| !self.recorder.is_durable(*ticket));
        }
        if !self.unrecorded && self.undurable.is_none() {
            let down = self.downstream.write(cx, &self.out.downstream, input);
            down.map_err(|error| Outcome::Failed(Side::Downstream, error))?;
            let up = self.upstream.write(cx, &self.out.upstream, input);
            up.map_err(|error| Outcome::Failed(Side::Upstream, error))?;
        } else {
            // Bytes wait with the events that explain them.
            self.downstream.keep(&self.out.downstream, input);
            self.upstream.keep(&self.out.upstream, input);
        }
        self.out.downstream.clear();
        self.out.upstream.clear();
        Ok(())
    }

    /// Whether the recorder has room; while it has not, nothing is read or written.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Result<bool, Outcome> {
        loop {
            if let Some(ticket) = self.undurable
                && self.recorder.is_durable(ticket)
            {
                self.undurable = None;
                self.waiting_for_room = None;
            }
            let recorded = !self.unrecorded && self.undurable.is_none();
            if recorded && self.recorder.has_room() {
                self.waiting_for_room = None;
                return Ok(true);
            }
            if self.unrecorded && self.recorder.record(&mut self.out.events).is_ok() {
                self.unrecorded = false;
                self.undurable = self.recorder.ticket();
                continue;
            }
            let undurable = self.undurable;
            let wait = |recorder: Recorder| -> RoomFuture {
                Box::pin(async move {
                    match undurable {
                        Some(ticket) => recorder.durable(ticket).await,
                        None => recorder.room().await,
                    }
                })
            };
            let (room, patience) = self.waiting_for_room.get_or_insert_with(|| {
                let patience = Box::pin(tokio::time::sleep(self.stall));
                (wait(self.recorder.clone()), patience)
            });
            if patience.as_mut().poll(cx).is_ready() {
                return Err(Outcome::Unrecorded);
            }
            if room.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
            *room = wait(self.recorder.clone());
        }
    }

    /// Tells both sides what there is to tell, and closes.
    async fn farewell(&mut self, outcome: &Outcome) {
        let why = match outcome {
            Outcome::Killed(why) => Some(why.as_str()),
            Outcome::Unrecorded => {
                // What nobody recorded is never sent.
                self.downstream.backlog = Backlog::default();
                self.upstream.backlog = Backlog::default();
                Some("the recorder has no room, and nothing goes on unrecorded")
            }
            Outcome::Failed(Side::Upstream, _) => Some("the connection to the service failed"),
            _ => None,
        };
        if let Some(why) = why {
            let now = self.now();
            let mut last = Outbox::default();
            self.session.refuse(now, why, &mut last);
            self.downstream.keep(&last.downstream, &[]);
            self.out.events.append(&mut last.events);
        }
        let down = async {
            let leg = &mut self.downstream;
            if std::future::poll_fn(|cx| leg.poll_drain(cx)).await.is_err() {
                return;
            }
            if leg.stream.shutdown().await.is_err() {
                return;
            }
            // Closing with unread bytes would reset the connection, and the
            // agent would lose what it was just told.
            let mut rest = [0; 1024];
            while matches!(leg.stream.read(&mut rest).await, Ok(n) if n > 0) {}
        };
        let up = async {
            let leg = &mut self.upstream;
            if std::future::poll_fn(|cx| leg.poll_drain(cx)).await.is_ok() {
                let _ = leg.stream.shutdown().await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, async { tokio::join!(down, up) }).await;
    }
}

fn drained(poll: Poll<io::Result<()>>, side: Side) -> Result<bool, Outcome> {
    match poll {
        Poll::Ready(Ok(())) => Ok(true),
        Poll::Ready(Err(error)) => Err(Outcome::Failed(side, error)),
        Poll::Pending => Ok(false),
    }
}
