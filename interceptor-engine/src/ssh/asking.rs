//! Judging a request: it passes, is refused, or waits for a person.

use std::sync::Arc;

use interceptor_policy::operation::ssh::{SshForward, SshKind, SshRequest};
use interceptor_policy::verdict::Severity;
use interceptor_policy::{Hold, Judgement, Operation, Permit, Refusal, Verdict};
use serde_json::json;

use super::channel::Channel;
use super::outbox::{Act, Outbox};
use super::session::Shared;
use super::sftp::Waiting;
use crate::event::FlowTime;
use crate::hold::{Decision, Digest, Question, question_id};
use crate::journal::Settled;
use crate::session::End;

/// What a verdict is waited for with.
#[derive(Debug)]
pub(super) enum Waits {
    /// A request of the channel's.
    Request,
    /// A packet of the file transfer protocol.
    File(Waiting),
    /// A line that was entered in a shell.
    Line,
}

/// A request that waits for a person.
#[derive(Debug)]
pub(super) struct Held {
    request: SshRequest,
    hold: Hold,
    exchange: u64,
    since: FlowTime,
    severity: Severity,
    tags: Vec<Arc<str>>,
    masks: Option<Arc<interceptor_policy::Masks>>,
    record: interceptor_policy::RecordLevel,
    waits: Waits,
}

impl Channel {
    /// Judges a request and acts on the verdict.
    pub(super) fn judge(
        &mut self,
        now: FlowTime,
        request: SshRequest,
        waits: Waits,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if let Some(why) = shared.over.clone() {
            return self.refuse(now, &why, waits, out);
        }
        shared.totals.exchanges += 1;
        let exchange = shared.totals.exchanges;
        if matches!(waits, Waits::Request) {
            self.exchange = Some(exchange);
        }
        if !shared.shell && request.opens_shell() {
            let refusal = Refusal {
                rule: None,
                message: "the target has `shell: false`".into(),
            };
            self.record_command(now, exchange, &request, None, "block", shared, out);
            return self.blocked(now, exchange, "block", &refusal, None, waits, shared, out);
        }
        let moment = shared.moment(now);
        let judged = shared
            .scope
            .judge(&Operation::Ssh(&request), &mut shared.standing, moment);
        let word = match &judged.verdict {
            Verdict::Allow(_) => "allow",
            Verdict::Hold(_) => "hold",
            Verdict::Block(_) => "block",
            Verdict::Kill(_) => "kill",
        };
        self.record_command(now, exchange, &request, Some(&judged), word, shared, out);
        let Judgement {
            verdict,
            masks,
            record,
            tags,
            severity,
            ..
        } = judged;
        match verdict {
            Verdict::Allow(permit) => {
                if let Some(refusal) = unmaskable(&request, masks.as_deref()) {
                    return self.blocked(
                        now, exchange, "block", &refusal, severity, waits, shared, out,
                    );
                }
                self.release(now, &request, permit, masks, record, waits, shared, out);
            }
            Verdict::Block(refusal) => {
                self.blocked(
                    now, exchange, "block", &refusal, severity, waits, shared, out,
                );
            }
            Verdict::Kill(refusal) => {
                let words = refusal.told();
                shared.over = Some(Arc::clone(&words));
                shared.totals.killed = true;
                self.blocked(
                    now, exchange, "kill", &refusal, severity, waits, shared, out,
                );
                out.end
                    .get_or_insert_with(|| End::Refused(words.as_ref().to_owned()));
            }
            Verdict::Hold(hold) => {
                let held = Held {
                    request,
                    hold,
                    exchange,
                    since: now,
                    severity: severity.unwrap_or(Severity::Medium),
                    tags,
                    masks,
                    record,
                    waits,
                };
                self.hold(now, held, shared, out);
            }
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one call, and each is one fact of it"
    )]
    fn release(
        &mut self,
        now: FlowTime,
        request: &SshRequest,
        permit: Permit,
        masks: Option<Arc<interceptor_policy::Masks>>,
        record: interceptor_policy::RecordLevel,
        waits: Waits,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        match waits {
            Waits::File(file) => self.sftp_release(now, permit, file, shared, out),
            Waits::Line => self.line_released(now, permit, request, masks, shared, out),
            Waits::Request => {
                self.begin(now, request.kind, masks, record);
                out.acts.push(Act::Forward(permit));
            }
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one call, and each is one fact of it"
    )]
    fn blocked(
        &mut self,
        now: FlowTime,
        exchange: u64,
        word: &str,
        refusal: &Refusal,
        severity: Option<Severity>,
        waits: Waits,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        shared.totals.blocked += 1;
        let severity = severity.unwrap_or(match word {
            "kill" => Severity::High,
            _ => Severity::Medium,
        });
        let digest = shared.scope.rules().digest();
        out.events.push(
            shared
                .journal
                .refused(now, exchange, word, refusal, severity, digest),
        );
        self.refuse(now, &refusal.told(), waits, out);
    }

    fn refuse(&mut self, now: FlowTime, why: &Arc<str>, waits: Waits, out: &mut Outbox) {
        match waits {
            Waits::File(file) => self.sftp_refuse(&file, why, out),
            Waits::Line => self.line_refused(now, why),
            Waits::Request => out.acts.push(Act::Refuse(Arc::clone(why))),
        }
    }

    fn hold(&mut self, now: FlowTime, held: Held, shared: &mut Shared, out: &mut Outbox) {
        let session = shared.journal.session();
        let approval = Arc::clone(&held.hold.approval);
        let reason = &held.hold.reason;
        let question = Question {
            id: question_id(session, held.exchange),
            session,
            exchange: held.exchange,
            approval,
            rule: reason.rule.clone().unwrap_or_else(|| "default".into()),
            message: Arc::clone(&reason.message),
            digest: digest(&held, shared),
            text: told(&held.request),
            parameters: None,
            meta: json!({"kind": held.request.kind.name(), "user": &*held.request.user}).into(),
        };
        let rules = shared.scope.rules().digest();
        out.events
            .push(shared.journal.held(now, &question, held.severity, rules));
        self.held = Some(held);
        out.acts.push(Act::Ask(Box::new(question)));
    }

    /// A person decided, or time did.
    pub(super) fn decided(
        &mut self,
        now: FlowTime,
        decision: Decision,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let Some(held) = self.held.take() else {
            return;
        };
        let why = decision.refusal(&held.hold.reason.message);
        let said = (decision.word(), decision.by());
        record_settled(now, &held, said, why.as_deref(), shared, out);
        let refusal = match (decision, why) {
            (Decision::Approved { approved, .. }, _) => {
                let Held {
                    request,
                    hold,
                    tags,
                    masks,
                    record,
                    waits,
                    ..
                } = held;
                let moment = shared.moment(now);
                shared.standing.tag(&tags, moment);
                let permit = hold.release(approved);
                if let Some(refusal) = unmaskable(&request, masks.as_deref()) {
                    return self.refuse(now, &refusal.told(), waits, out);
                }
                self.release(now, &request, permit, masks, record, waits, shared, out);
                return self.go_on(now, shared, out);
            }
            (_, why) => Refusal {
                rule: held.hold.reason.rule.clone(),
                message: why.unwrap_or_default().into(),
            },
        };
        shared.totals.blocked += 1;
        self.refuse(now, &refusal.told(), held.waits, out);
        self.go_on(now, shared, out);
    }

    /// Reads on behind what a person decided.
    fn go_on(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        self.sftp_resume(now, shared, out);
        self.shell_acts(now, shared, out);
    }

    /// The channel ended while a person was asked.
    pub(super) fn take_back_question(
        &mut self,
        now: FlowTime,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if let Some(held) = self.held.take() {
            let why = "the agent went away while a person was asked";
            record_settled(now, &held, ("withdrawn", ""), Some(why), shared, out);
        }
    }
}

fn record_settled(
    now: FlowTime,
    held: &Held,
    (word, by): (&'static str, &str),
    why: Option<&str>,
    shared: &mut Shared,
    out: &mut Outbox,
) {
    let settled = Settled {
        exchange: held.exchange,
        since: held.since,
        word,
        by,
        why,
        severity: held.severity,
    };
    out.events.push(shared.journal.settled(now, &settled));
}

/// Whether a mask applies to what cannot be masked: a file's bytes, whose length is
/// told before them, and protocols that are not text.
fn unmaskable(request: &SshRequest, masks: Option<&interceptor_policy::Masks>) -> Option<Refusal> {
    use interceptor_policy::operation::ssh::SftpOperation::Read;
    let detects = masks.is_some_and(interceptor_policy::Masks::has_detectors);
    let what = match request.kind {
        _ if !detects => return None,
        SshKind::Sftp => {
            let reads = request.sftp.as_ref()?.operations.contains(&Read);
            reads.then_some("the content of a file")?
        }
        SshKind::Subsystem => "a subsystem that is not read",
        _ => return None,
    };
    Some(Refusal {
        rule: None,
        message: format!("a mask applies, and {what} cannot be masked").into(),
    })
}

/// Everything that an answer is bound to.
fn digest(held: &Held, shared: &Shared) -> Digest {
    let request = &held.request;
    let mut parts: Vec<&[u8]> = vec![request.kind.name().as_bytes(), request.user.as_bytes()];
    let told = told(request);
    parts.push(told.as_bytes());
    if let Waits::File(file) = &held.waits {
        parts.push(file.raw());
    }
    Digest::of(shared.scope.subject(), &parts)
}

/// A request in one line, as a person is asked about it and as it is recorded.
pub(super) fn told(request: &SshRequest) -> String {
    let forward = || match &request.forward {
        Some(SshForward::Tcp { host, port }) => format!("{host}:{port}"),
        Some(SshForward::Socket(path)) => path.to_string(),
        None => String::new(),
    };
    match request.kind {
        SshKind::Shell | SshKind::Exec => match &request.line {
            Some(line) => line.text.to_string(),
            None => "a shell".to_owned(),
        },
        SshKind::Sftp => match &request.sftp {
            None => "file transfer (sftp)".to_owned(),
            Some(operation) => {
                let names: Vec<&str> = operation.operations.iter().map(|one| one.name()).collect();
                let paths: Vec<&str> = operation.paths.iter().map(|path| &**path).collect();
                format!("sftp {} {}", names.join("+"), paths.join(" "))
            }
        },
        SshKind::LocalForward => format!("a connection from the server to {}", forward()),
        SshKind::RemoteForward => format!("the server to listen at {}", forward()),
        SshKind::AgentForward => "to lend the agent's keys to the server".to_owned(),
        SshKind::X11 => "X11 from the server".to_owned(),
        SshKind::Env => format!(
            "the variable {}",
            request.env.as_deref().unwrap_or_default()
        ),
        SshKind::Subsystem => {
            let name = request.subsystem.as_deref().unwrap_or_default();
            format!("the subsystem {name}")
        }
    }
}
