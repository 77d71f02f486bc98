//! What a session whose answers are acts tells the shell.

use interceptor_policy::Scope;

use crate::event::{Event, FlowTime};
use crate::session::End;

/// What a call produced. Events are with the recorder before anything is done.
#[derive(Debug)]
pub struct Outbox<A> {
    /// To the recorder.
    pub events: Vec<Event>,
    /// To be done, in order; all of the exchange or channel that the call was about.
    pub acts: Vec<A>,
    /// Set when the flow is to end once everything is done.
    pub end: Option<End>,
}

impl<A> Default for Outbox<A> {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            acts: Vec::new(),
            end: None,
        }
    }
}

/// A session that many tasks of the shell call, each about its exchange or channel.
pub trait Acting {
    /// What it tells to do.
    type Act;

    /// Puts other rules in force, for what is judged from now on.
    fn set_scope(&mut self, scope: Scope);

    /// Records the end, once; the shell calls it when the flow is over.
    fn close(&mut self, now: FlowTime, reason: &str, out: &mut Outbox<Self::Act>);
}
