//! An interactive shell on a channel: each line judged when it is entered.
//!
//! [`Terminal`] keeps the key that enters a line until the verdict is there. A line
//! that is not certainly what the other end gets is judged as one that may be any.

use std::sync::Arc;

use interceptor_policy::operation::ssh::{SshKind, SshLine, SshRequest};
use interceptor_policy::{DetectStream, Masks, Permit};
use serde_json::json;

use super::asking::Waits;
use super::channel::Channel;
use super::command;
use super::outbox::{Act, Outbox};
use super::session::Shared;
use super::terminal::{self, Entered};
use crate::event::{FlowTime, Kind};

impl Channel {
    /// Does what the terminal says.
    pub(super) fn shell_acts(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        while let Some(act) = self.shell.as_mut().and_then(|shell| shell.poll()) {
            match act {
                terminal::Act::Upstream(bytes) => out.acts.push(Act::ToOrigin(bytes.into())),
                terminal::Act::Downstream(bytes) => {
                    self.tape_output(now, false, &bytes, shared, out);
                    out.acts.push(Act::ToAgent {
                        stderr: false,
                        bytes: bytes.into(),
                    });
                }
                terminal::Act::Entered(entered) => self.entered(now, entered, shared, out),
            }
        }
    }

    fn entered(&mut self, now: FlowTime, entered: Entered, shared: &mut Shared, out: &mut Outbox) {
        let pass = |channel: &mut Self, line: Option<&SshLine>| {
            if let Some(shell) = &mut channel.shell {
                shell.let_pass(now, line);
            }
        };
        if entered.hidden {
            let line = "a secret was entered at a prompt for one";
            let event = shared.journal.event(now, Kind::Note, self.exchange, line);
            let meta = json!({"channel": self.id});
            out.events.push(event.with_meta(meta.to_string()));
            return pass(self, None);
        }
        let line = match entered.sure {
            true => command::read_entered(entered.line.as_bytes()),
            false => SshLine::unsure(entered.line),
        };
        if line.sure && line.text.trim().is_empty() {
            return pass(self, Some(&line));
        }
        let request = SshRequest {
            user: Arc::clone(&shared.user),
            kind: SshKind::Shell,
            line: Some(line),
            ..SshRequest::default()
        };
        self.judge(now, request, Waits::Line, shared, out);
    }

    /// A line goes on, and what its own rules hide is hidden from now on.
    pub(super) fn line_released(
        &mut self,
        now: FlowTime,
        permit: Permit,
        request: &SshRequest,
        masks: Option<Arc<Masks>>,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let more = masks.filter(|masks| masks.has_detectors());
        if let Some(more) = more
            && self
                .masks
                .as_ref()
                .is_none_or(|own| !Arc::ptr_eq(own, &more))
        {
            self.output_end(now, shared, out);
            for masker in self.maskers.iter_mut().flatten() {
                shared.totals.masked += masker.hidden();
            }
            let all = Masks::united(self.masks.take(), Some(more));
            let stream = || {
                let all = all.as_ref()?;
                Some(Box::new(
                    DetectStream::new(Arc::clone(all)).through_colours(),
                ))
            };
            self.maskers = [stream(), stream()];
            self.masks = all;
        }
        // Spent on the key that is let go.
        drop(permit);
        if let Some(shell) = &mut self.shell {
            shell.let_pass(now, request.line.as_ref());
        }
    }

    pub(super) fn line_refused(&mut self, now: FlowTime, why: &str) {
        if let Some(shell) = &mut self.shell {
            shell.refuse(now, why);
        }
    }

    /// When the terminal is to be told the time, if nothing else happens.
    pub(super) fn deadline(&self) -> Option<FlowTime> {
        self.shell.as_ref()?.deadline()
    }

    pub(super) fn time_is(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        if let Some(shell) = &mut self.shell {
            shell.tick(now);
        }
        self.shell_acts(now, shared, out);
    }
}
