//! A session that many tasks call: the exchanges of one flow of HTTP, the channels of
//! one connection of SSH.
//!
//! The engine's session is behind a lock that is held for one call at a time and
//! never while anything is waited for. Events go to the recorder under that lock, so
//! that they arrive in the order of their numbers; those that it does not take stay,
//! in front of all later ones, and nothing goes on before they are gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interceptor_engine::event::{Event, FlowTime};
use interceptor_engine::hold::Question;
use interceptor_engine::outbox::{Acting, Outbox};
use interceptor_engine::session::End;
use interceptor_policy::Protocol;
use tokio::sync::{Notify, watch};

use super::House;
use super::pump::{Asking, Outcome};
use super::serve::Flow;
use crate::approval::Asker;

/// The recorder had no room for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recorder has no room, and nothing goes on unrecorded")]
pub struct Unrecorded;

/// A session that many tasks call.
pub struct Shared<S> {
    /// What all flows share.
    pub house: Arc<House>,
    /// The flow.
    pub flow: Flow,
    protocol: Protocol,
    /// Whether the agent's leg is encrypted.
    tls: bool,
    state: Mutex<State<S>>,
    end: watch::Sender<Option<Arc<Outcome>>>,
}

impl<S> std::fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("session", &self.flow.session)
            .finish_non_exhaustive()
    }
}

struct State<S> {
    session: S,
    unrecorded: Vec<Event>,
    generation: u64,
    /// Its end is on record, and nothing comes behind it.
    closed: bool,
}

impl<S: Acting> Shared<S> {
    /// A session in which nothing was said yet. `generation` is the number of the
    /// rules that it was opened under.
    #[must_use]
    pub fn new(
        house: Arc<House>,
        flow: Flow,
        (protocol, tls): (Protocol, bool),
        session: S,
        generation: u64,
    ) -> Self {
        Self {
            house,
            flow,
            protocol,
            tls,
            state: Mutex::new(State {
                session,
                unrecorded: Vec::new(),
                generation,
                closed: false,
            }),
            end: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the session something that it answers without acts or events.
    pub fn look<T>(&self, ask: impl FnOnce(&S) -> T) -> T {
        ask(&self.lock().session)
    }

    /// Calls the session, and hands its events over; what is to be done is returned.
    pub fn call<T>(
        &self,
        ask: impl FnOnce(&mut S, FlowTime, &mut Outbox<S::Act>) -> T,
    ) -> (T, Vec<S::Act>) {
        let mut out = Outbox::default();
        let mut state = self.lock();
        let answer = ask(&mut state.session, self.flow.now(), &mut out);
        if state.closed {
            out.events.clear();
        }
        if !out.events.is_empty() {
            if state.unrecorded.is_empty() {
                state.unrecorded = std::mem::take(&mut out.events);
            } else {
                state.unrecorded.append(&mut out.events);
            }
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
    pub fn refresh(&self) {
        let generation = self.house.rules.generation();
        let mut state = self.lock();
        if state.generation != generation {
            state.generation = generation;
            let default = self.house.config.intercept.default;
            let subject = self.flow.subject(self.protocol, self.tls, default);
            let scope = self.house.rules.current().scope(&subject);
            state.session.set_scope(scope);
        }
    }

    /// Waits until every event is with the recorder, and on stable storage where that
    /// is configured.
    ///
    /// # Errors
    /// When that takes too long; the flow then ends.
    pub async fn recorded(&self) -> Result<(), Unrecorded> {
        let recorder = &self.house.recorder;
        let is_durable = || {
            let ticket = recorder.ticket();
            ticket.is_none_or(|ticket| recorder.is_durable(ticket))
        };
        if self.lock().unrecorded.is_empty() && is_durable() {
            return Ok(());
        }
        let hand = || recorder.record(&mut self.lock().unrecorded);
        recorder.settled(hand).await.map_err(|_| {
            self.end(Outcome::Unrecorded);
            Unrecorded
        })
    }

    /// Asks a person; dropped, the question is withdrawn.
    #[must_use]
    pub fn ask(&self, question: &Question) -> Asking {
        let asker = Asker {
            context: self.flow.context(&self.house, self.protocol.name()),
            // Taken back by dropping it.
            cancelled: Arc::new(Notify::new()),
        };
        self.house.desk.ask(question, asker)
    }

    /// Ends the flow; the first reason stays.
    pub fn end(&self, outcome: Outcome) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(Arc::new(outcome));
            }
            first
        });
    }

    /// Waits until the flow is to end, and says why.
    pub async fn ended(&self) -> Arc<Outcome> {
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

    /// Why the flow is to end, where it is.
    #[must_use]
    pub fn is_ended(&self) -> Option<Arc<Outcome>> {
        self.end.borrow().clone()
    }

    /// Records the end; the events that the recorder has not taken are returned.
    #[must_use]
    pub fn close(&self, reason: &str) -> Vec<Event> {
        let _ = self.call(|session, now, out| session.close(now, reason, out));
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.unrecorded)
    }
}
