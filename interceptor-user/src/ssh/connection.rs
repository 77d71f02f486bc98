//! What the channels of one connection share.
//!
//! The engine's session is behind a lock that is held for one call at a time and
//! never while anything is waited for. Events go to the recorder under that lock, so
//! that they arrive in the order of their numbers; those that it does not take stay,
//! in front of all later ones, and nothing goes on before they are gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interceptor_engine::event::{Event, FlowTime};
use interceptor_engine::hold::Question;
use interceptor_engine::session::End;
use interceptor_engine::ssh::{Act, Outbox, SshSession};
use interceptor_policy::Protocol;
use tokio::sync::{Notify, watch};

use super::Unrecorded;
use crate::approval::Asker;
use crate::flow::House;
use crate::flow::pump::{Asking, Outcome};
use crate::flow::serve::Flow;

/// What the channels of one connection share.
pub(crate) struct Connection {
    pub(super) house: Arc<House>,
    pub(super) flow: Flow,
    state: Mutex<State>,
    end: watch::Sender<Option<Arc<Outcome>>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("session", &self.flow.session)
            .finish_non_exhaustive()
    }
}

struct State {
    session: SshSession,
    unrecorded: Vec<Event>,
    generation: u64,
    closed: bool,
}

impl Connection {
    /// A connection on which nothing was said. `generation` is the number of the
    /// rules that the session was opened under.
    pub(crate) fn new(house: Arc<House>, flow: Flow, session: SshSession, generation: u64) -> Self {
        Self {
            house,
            flow,
            state: Mutex::new(State {
                session,
                unrecorded: Vec::new(),
                generation,
                closed: false,
            }),
            end: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the session, and hands its events over; what is to be done is returned.
    pub(super) fn call<T>(
        &self,
        ask: impl FnOnce(&mut SshSession, FlowTime, &mut Outbox) -> T,
    ) -> (T, Vec<Act>) {
        let mut out = Outbox::default();
        let mut state = self.lock();
        let answer = ask(&mut state.session, self.flow.now(), &mut out);
        if state.closed {
            out.events.clear();
        }
        if !out.events.is_empty() {
            state.unrecorded.append(&mut out.events);
            let _ = self.house.recorder.record(&mut state.unrecorded);
        }
        drop(state);
        if let Some(end) = out.end.take() {
            self.end(match end {
                End::Closed => Outcome::Closed,
                End::Refused(why) => Outcome::Refused(why),
            });
        }
        (answer, out.acts)
    }

    /// Puts the rules in force that are in force now.
    pub(super) fn refresh(&self) {
        let generation = self.house.rules.generation();
        let mut state = self.lock();
        if state.generation != generation {
            state.generation = generation;
            let default = self.house.config.intercept.default;
            let subject = self.flow.subject(Protocol::Ssh, true, default);
            let scope = self.house.rules.current().scope(&subject);
            state.session.set_scope(scope);
        }
    }

    /// Waits until every event is with the recorder.
    ///
    /// # Errors
    /// When that takes too long; the flow then ends.
    pub(super) async fn recorded(&self) -> Result<(), Unrecorded> {
        if self.lock().unrecorded.is_empty() {
            return Ok(());
        }
        let recorder = &self.house.recorder;
        let handed = tokio::time::timeout(self.house.config.recorder.stall, async {
            loop {
                recorder.room().await;
                let mut state = self.lock();
                if recorder.record(&mut state.unrecorded).is_ok() {
                    return;
                }
            }
        });
        handed.await.map_err(|_| {
            self.end(Outcome::Unrecorded);
            Unrecorded
        })
    }

    /// Asks a person; dropped, the question is withdrawn.
    pub(super) fn ask(&self, question: &Question) -> Asking {
        let asker = Asker {
            context: self.flow.context(&self.house, "ssh"),
            // Taken back by dropping it.
            cancelled: Arc::new(Notify::new()),
        };
        self.house.desk.ask(question, asker)
    }

    /// Ends the flow; the first reason stays.
    pub(super) fn end(&self, outcome: Outcome) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(Arc::new(outcome));
            }
            first
        });
    }

    /// Waits until the flow is to end, and says why.
    pub(crate) async fn ended(&self) -> Arc<Outcome> {
        let mut end = self.end.subscribe();
        let why = end
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Records the end; the events that the recorder has not taken are returned.
    #[must_use]
    pub(crate) fn close(&self, reason: &str) -> Vec<Event> {
        let _ = self.call(|session, now, out| session.close(now, reason, out));
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.unrecorded)
    }
}
