//! One SSH connection: what its channels share, and the door to each of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use interceptor_policy::verdict::Severity;
use interceptor_policy::{MaskKey, Moment, Scope, Standing};
use serde_json::json;

use super::channel::{Channel, Exit, Request};
use super::outbox::{Act, Outbox};
use crate::event::{FlowTime, Kind};
use crate::hold::Decision;
use crate::journal::Journal;
use crate::outbox::Acting;
use crate::totals::Totals;

/// What a session is about, and what it works with.
#[derive(Debug)]
pub struct Settings {
    /// The rules that can apply.
    pub scope: Scope,
    /// What is remembered of the session and its principal.
    pub standing: Standing,
    /// When the session opened.
    pub opened: Moment,
    /// The host's key for hashes.
    pub key: MaskKey,
    /// Numbers the events.
    pub journal: Journal,
    /// Whether the target lets agents have a shell at all.
    pub shell: bool,
}

/// What the channels of a connection share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) scope: Scope,
    pub(super) standing: Standing,
    pub(super) opened: Moment,
    pub(super) key: MaskKey,
    pub(super) journal: Journal,
    pub(super) shell: bool,
    pub(super) totals: Totals,
    /// The remote user.
    pub(super) user: Arc<str>,
    /// Nothing more begins: a rule ended the session.
    pub(super) over: Option<Arc<str>>,
}

/// A conversation in SSH between an agent and a server.
#[derive(Debug)]
pub struct SshSession {
    shared: Shared,
    channels: BTreeMap<u64, Box<Channel>>,
    opened: u64,
    closed: bool,
}

impl SshSession {
    /// A session in which nothing was asked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            shared: Shared {
                scope: settings.scope,
                standing: settings.standing,
                opened: settings.opened,
                key: settings.key,
                journal: settings.journal,
                shell: settings.shell,
                totals: Totals::default(),
                user: Arc::default(),
                over: None,
            },
            channels: BTreeMap::new(),
            opened: 0,
            closed: false,
        }
    }

    /// Records the opening, with the shell's facts as a JSON object.
    pub fn open(&mut self, now: FlowTime, line: String, meta: String, out: &mut Outbox) {
        let event = self.shared.journal.event(now, Kind::Open, None, line);
        out.events.push(event.with_meta(meta));
    }

    /// How an attempt to log on ended: `user` is whom the agent asked to be,
    /// `upstream` whom it was at the origin and by what. No secret is handed in,
    /// so none is recorded.
    pub fn logon(
        &mut self,
        now: FlowTime,
        user: &str,
        method: &str,
        upstream: Option<(&str, &str)>,
        out: &mut Outbox,
    ) {
        if let Some((upstream, _)) = upstream {
            self.shared.user = upstream.into();
        }
        let line = match upstream {
            Some((name, by)) => format!("{user} logged on as {name} by {by}"),
            None => format!("{user} was not let in by {method}"),
        };
        let meta = json!({
            "user": user,
            "method": method,
            "accepted": upstream.is_some(),
            "upstream_user": upstream.map(|(user, _)| user),
            "upstream_method": upstream.map(|(_, method)| method),
        });
        let event = self.shared.journal.event(now, Kind::Auth, None, line);
        out.events.push(event.with_meta(meta.to_string()));
    }

    /// A channel that the agent, or for a remote forward the origin, opens; its
    /// number here.
    pub fn channel(&mut self, now: FlowTime, kind: &str, what: &str, out: &mut Outbox) -> u64 {
        self.opened += 1;
        let id = self.opened;
        let line = match what {
            "" => format!("channel {id}: {kind}"),
            what => format!("channel {id}: {kind} {what}"),
        };
        let meta = json!({"channel": id, "type": kind, "what": what});
        let event = self.shared.journal.event(now, Kind::Channel, None, line);
        out.events.push(event.with_meta(meta.to_string()));
        self.channels.insert(id, Box::new(Channel::new(id)));
        id
    }

    fn with(
        &mut self,
        id: u64,
        out: &mut Outbox,
        act: impl FnOnce(&mut Channel, &mut Shared, &mut Outbox),
    ) {
        if let Some(channel) = self.channels.get_mut(&id) {
            act(channel, &mut self.shared, out);
        }
    }

    /// Something is asked for on a channel. The acts say what becomes of it; when
    /// one of them asks a person, the answer is to come by [`Self::decided`].
    pub fn ask(&mut self, now: FlowTime, id: u64, request: Request, out: &mut Outbox) {
        self.with(id, out, |channel, shared, out| {
            channel.ask(now, request, shared, out);
        });
    }

    /// What became of a question.
    pub fn decided(&mut self, now: FlowTime, id: u64, decision: Decision, out: &mut Outbox) {
        self.with(id, out, |channel, shared, out| {
            channel.decided(now, decision, shared, out);
        });
    }

    /// The origin's answer to a request that was passed on.
    pub fn answered(&mut self, now: FlowTime, id: u64, accepted: bool, out: &mut Outbox) {
        self.with(id, out, |channel, shared, out| {
            channel.answered(now, accepted, shared, out);
        });
    }

    /// Bytes of the agent's.
    pub fn input(&mut self, now: FlowTime, id: u64, bytes: Bytes, out: &mut Outbox) {
        self.shared.totals.bytes_up += bytes.len() as u64;
        self.with(id, out, |channel, shared, out| {
            channel.input(now, bytes, shared, out);
        });
    }

    /// The agent sends no more.
    pub fn input_end(&mut self, now: FlowTime, id: u64, out: &mut Outbox) {
        self.with(id, out, |channel, shared, out| {
            channel.input_end(now, shared, out);
        });
    }

    /// Bytes of the origin's.
    pub fn output(&mut self, now: FlowTime, id: u64, stderr: bool, bytes: Bytes, out: &mut Outbox) {
        self.shared.totals.bytes_down += bytes.len() as u64;
        self.with(id, out, |channel, shared, out| {
            channel.output(now, stderr, bytes, shared, out);
        });
    }

    /// The origin sends no more.
    pub fn output_end(&mut self, now: FlowTime, id: u64, out: &mut Outbox) {
        self.with(id, out, |channel, shared, out| {
            channel.output_end(now, shared, out);
        });
    }

    /// Whether something of the origin's is held back that a reader may wait for;
    /// then [`Self::quiet`] is to be called when nothing more comes for a moment.
    #[must_use]
    pub fn holds_output(&self, id: u64) -> bool {
        self.channels
            .get(&id)
            .is_some_and(|channel| channel.holds_output())
    }

    /// Nothing has come of the origin's for a moment.
    pub fn quiet(&mut self, now: FlowTime, id: u64, out: &mut Outbox) {
        self.with(id, out, |channel, shared, out| {
            channel.quiet(now, shared, out);
        });
    }

    /// Whether more of the agent's is to be handed in now: not while a person is
    /// asked.
    #[must_use]
    pub fn wants_input(&self, id: u64) -> bool {
        self.channels
            .get(&id)
            .is_some_and(|channel| channel.wants_input())
    }

    /// When [`Self::time_is`] is to be called for a channel, if nothing else happens.
    #[must_use]
    pub fn deadline(&self, id: u64) -> Option<FlowTime> {
        self.channels.get(&id)?.deadline()
    }

    /// Whether something of the agent's waits to go on: it may send no more, and its
    /// last line is still to be judged.
    #[must_use]
    pub fn keeps_input(&self, id: u64) -> bool {
        self.channels
            .get(&id)
            .is_some_and(|channel| channel.held.is_some() || channel.deadline().is_some())
    }

    /// The time is `now`.
    pub fn time_is(&mut self, now: FlowTime, id: u64, out: &mut Outbox) {
        self.with(id, out, |channel, shared, out| {
            channel.time_is(now, shared, out);
        });
    }

    /// What runs on a channel ended.
    pub fn exited(&mut self, now: FlowTime, id: u64, exit: Exit, out: &mut Outbox) {
        self.with(id, out, |channel, shared, out| {
            channel.exited(now, exit, shared, out);
        });
    }

    /// A channel is over.
    pub fn channel_closed(&mut self, now: FlowTime, id: u64, out: &mut Outbox) {
        if let Some(mut channel) = self.channels.remove(&id) {
            channel.close(now, &mut self.shared, out);
        }
    }

    /// Something was asked for that nobody here knows, and was refused unjudged.
    pub fn unknown(&mut self, now: FlowTime, what: &str, out: &mut Outbox) {
        self.shared.totals.blocked += 1;
        let line = format!("refused: {what}");
        let meta = json!({
            "verdict": "block",
            "rule": null,
            "message": what,
            "severity": Severity::Low.name(),
        });
        let event = self.shared.journal.event(now, Kind::Verdict, None, line);
        out.events
            .push(event.with_meta(meta.to_string()).with_alert(Severity::Low));
    }

    /// Something worth telling.
    pub fn note(&mut self, now: FlowTime, line: &str, out: &mut Outbox) {
        out.events
            .push(self.shared.journal.event(now, Kind::Note, None, line));
    }
}

impl Acting for SshSession {
    type Act = Act;

    fn set_scope(&mut self, scope: Scope) {
        self.shared.scope = scope;
    }

    fn close(&mut self, now: FlowTime, reason: &str, out: &mut Outbox) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        for (_, mut channel) in std::mem::take(&mut self.channels) {
            channel.close(now, &mut self.shared, out);
        }
        let shared = &mut self.shared;
        out.events
            .push(shared.totals.close(&mut shared.journal, now, reason));
    }
}

impl Shared {
    /// The time as rules ask for it.
    pub(super) fn moment(&self, now: FlowTime) -> Moment {
        self.opened.after(now.0)
    }
}
