//! The agent's leg, as hyper reads it.
//!
//! HTTP/1 passes the strict guard first: hyper sees no byte of a head that two
//! readers may take for two different requests. What the guard refuses is answered
//! once the answers before it are out; nothing behind it is read.
//!
//! Behind a request to switch protocols the guard lets nothing through until the
//! service has answered: [`AgentSide::answered_switch`].

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use interceptor_proto::http::HttpError;
use interceptor_proto::http::guard::RequestGuard;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::accepted::{Accepted, poll_inspect};
use crate::tls::Stream;

/// What to answer for bytes that the guard refuses; asked once.
pub type OnRefused = Box<dyn FnOnce(&HttpError) -> Vec<u8> + Send>;

/// What the exchanges tell of themselves, and the guard's state.
pub struct AgentSide(Mutex<State>);

impl std::fmt::Debug for AgentSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentSide")
            .field("is_refused", &self.is_refused())
            .finish_non_exhaustive()
    }
}

struct State {
    guard: Option<RequestGuard>,
    ready: Accepted,
    /// The guard refused; what is to be said about it is here until it is written.
    refused: bool,
    answer: Vec<u8>,
    on_refused: Option<OnRefused>,
    /// An exchange is under way; its request's body is still to come; its answer
    /// has begun.
    busy: bool,
    reads_body: bool,
    answers: bool,
    waker: Option<Waker>,
}

impl State {
    /// Has the guard look at bytes.
    fn inspect(&mut self, bytes: &[u8]) {
        let State { guard, ready, .. } = self;
        let Some(guard) = guard else {
            ready.more().extend_from_slice(bytes);
            return;
        };
        if let Err(error) = guard.feed(bytes, ready.more()) {
            self.refuse(&error);
        }
    }

    fn refuse(&mut self, error: &HttpError) {
        self.refused = true;
        if let Some(on_refused) = self.on_refused.take() {
            self.answer = on_refused(error);
        }
    }
}

impl AgentSide {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An exchange begins.
    pub fn begins(&self, has_body: bool) {
        let mut state = self.lock();
        state.busy = true;
        state.reads_body = has_body;
        state.answers = false;
    }

    /// Its request is whole, or not wanted any more.
    pub fn has_request(&self) {
        self.lock().reads_body = false;
    }

    /// Its answer begins: bytes that the guard kept back behind a request to switch
    /// protocols are the next protocol's where it is a switch, and HTTP where not.
    pub fn answers(&self, switches: bool) {
        let mut state = self.lock();
        state.answers = true;
        let State { guard, ready, .. } = &mut *state;
        let Some(guard) = guard.as_mut().filter(|guard| guard.waits_for_switch()) else {
            return;
        };
        if switches {
            guard.switched(ready.more());
        } else if let Err(error) = guard.refused_switch(ready.more()) {
            state.refuse(&error);
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// It is over.
    pub fn ends(&self) {
        let mut state = self.lock();
        state.busy = false;
        state.reads_body = false;
        state.answers = false;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Whether the guard refused what the agent sent.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.lock().refused
    }
}

/// The agent's leg.
pub struct AgentIo {
    stream: Stream,
    side: Arc<AgentSide>,
}

impl std::fmt::Debug for AgentIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentIo")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl AgentIo {
    /// A leg of HTTP/1, of which `first` was read already.
    #[must_use]
    pub fn guarded(stream: Stream, first: &[u8], on_refused: OnRefused) -> Self {
        let io = Self::new(stream, Some(RequestGuard::new()));
        {
            let mut state = io.side.lock();
            state.on_refused = Some(on_refused);
            state.inspect(first);
        }
        io
    }

    /// A leg of HTTP/2, whose frames are delimited by themselves.
    #[must_use]
    pub fn framed(stream: Stream, first: &[u8]) -> Self {
        let io = Self::new(stream, None);
        io.side.lock().ready.more().extend_from_slice(first);
        io
    }

    fn new(stream: Stream, guard: Option<RequestGuard>) -> Self {
        let side = AgentSide(Mutex::new(State {
            guard,
            ready: Accepted::default(),
            refused: false,
            answer: Vec::new(),
            on_refused: None,
            busy: false,
            reads_body: false,
            answers: false,
            waker: None,
        }));
        Self {
            stream,
            side: Arc::new(side),
        }
    }

    /// Where exchanges tell how far they are.
    #[must_use]
    pub fn side(&self) -> Arc<AgentSide> {
        Arc::clone(&self.side)
    }

    /// Says what is left to say, closes, and reads what still comes: closing with
    /// unread bytes would reset the connection, and the agent would lose what it was
    /// just told.
    pub async fn farewell(mut self) {
        let answer = {
            let mut state = self.side.lock();
            if state.answers {
                // In the middle of another answer, this would be read as a part of it.
                Vec::new()
            } else {
                std::mem::take(&mut state.answer)
            }
        };
        if !answer.is_empty() && self.stream.write_all(&answer).await.is_err() {
            return;
        }
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 1024];
        while matches!(self.stream.read(&mut rest).await, Ok(n) if n > 0) {}
    }
}

impl AsyncRead for AgentIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let side = Arc::clone(&this.side);
        loop {
            let mut state = side.lock();
            if state.ready.give(buf) {
                return Poll::Ready(Ok(()));
            }
            if state.refused {
                return match (state.busy, state.reads_body) {
                    // Nothing can complete the request that is under way.
                    (true, true) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                    // The answers before it come first; the end would break them off.
                    (true, false) => {
                        state.waker = Some(cx.waker().clone());
                        Poll::Pending
                    }
                    (false, _) => Poll::Ready(Ok(())),
                };
            }
            if state.guard.is_none() {
                drop(state);
                return Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            // Also woken when the guard lets go of what it keeps back.
            state.waker = Some(cx.waker().clone());
            drop(state);
            let got = poll_inspect(&mut this.stream, cx, |got| side.lock().inspect(got));
            if ready!(got)? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for AgentIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Leaves the closing to [`AgentIo::farewell`] where there is something to say.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.side.is_refused() {
            return Pin::new(&mut this.stream).poll_flush(cx);
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
