//! One channel: what is asked for on it, and its bytes in both directions.

use std::sync::Arc;

use bytes::Bytes;
use interceptor_policy::operation::ssh::{SftpRequest, SshForward, SshKind, SshLine, SshRequest};
use interceptor_policy::{DetectStream, Masks, RecordLevel};
use serde_json::json;

use super::asking::{Held, Waits};
use super::command;
use super::outbox::{Act, Outbox};
use super::record::Tape;
use super::session::Shared;
use super::sftp::Sftp;
use super::terminal::{Patience, Terminal};
use crate::event::{FlowTime, Kind};
use crate::unmasked::Unmasked;

/// Where the input's bytes stand among the [`Channel::unmasked`].
pub(super) const INPUT: usize = 2;

/// A terminal's size, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
}

/// What is asked for on a channel, or by its opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A shell.
    Shell,
    /// A command.
    Exec(Bytes),
    /// A subsystem; `sftp` is read.
    Subsystem(String),
    /// A variable of the environment.
    Env {
        /// Its name.
        name: String,
    },
    /// The agent's keys are lent to the origin.
    AgentForward,
    /// X11, from the origin back.
    X11,
    /// A connection from the origin on.
    LocalForward(SshForward),
    /// The origin listens.
    RemoteForward(SshForward),
    /// A terminal for what runs next.
    Terminal {
        /// `TERM`.
        name: String,
        /// Its size.
        size: Size,
    },
    /// The terminal's size changed.
    Resize(Size),
    /// A signal for what runs.
    Signal(String),
}

/// How what ran on a channel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With a status.
    Status(u32),
    /// By a signal.
    Signal(String),
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: u64,
    /// The exchange under way: the number of what runs, or of what was asked last.
    pub(super) exchange: Option<u64>,
    pub(super) begun: FlowTime,
    pub(super) kind: Option<SshKind>,
    pub(super) record: RecordLevel,
    pub(super) masks: Option<Arc<Masks>>,
    pub(super) terminal: Option<(String, Size)>,
    pub(super) held: Option<Held>,
    pub(super) sftp: Option<Box<Sftp>>,
    /// An interactive shell, line by line.
    pub(super) shell: Option<Box<Terminal>>,
    /// Of standard output and standard error.
    pub(super) maskers: [Option<Box<DetectStream>>; 2],
    /// What they were given, until it is on record.
    pub(super) unmasked: [Unmasked; 3],
    /// Of what the agent sends.
    pub(super) input_masker: Option<Box<DetectStream>>,
    pub(super) tape: Tape,
    pub(super) bytes: [u64; 2],
    pub(super) exit: Option<Exit>,
    pub(super) running: bool,
    pub(super) closed: bool,
}

impl Channel {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            exchange: None,
            begun: FlowTime::default(),
            kind: None,
            record: RecordLevel::default(),
            masks: None,
            terminal: None,
            held: None,
            sftp: None,
            shell: None,
            maskers: [None, None],
            unmasked: Default::default(),
            input_masker: None,
            tape: Tape::default(),
            bytes: [0; 2],
            exit: None,
            running: false,
            closed: false,
        }
    }

    /// Judges what is judged; the rest says how something runs.
    pub(super) fn ask(
        &mut self,
        now: FlowTime,
        request: Request,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let mut asked = SshRequest {
            user: Arc::clone(&shared.user),
            ..SshRequest::default()
        };
        match request {
            Request::Terminal { name, size } => {
                self.terminal = Some((name, size));
                return out.acts.push(Act::Pass);
            }
            Request::Resize(size) => {
                self.resized(now, size, shared, out);
                return out.acts.push(Act::Pass);
            }
            Request::Signal(name) => {
                let line = format!("signal {name}");
                let event = shared.journal.event(now, Kind::Note, self.exchange, line);
                let meta = json!({"channel": self.id, "signal": name});
                out.events.push(event.with_meta(meta.to_string()));
                return out.acts.push(Act::Pass);
            }
            Request::Shell => {
                asked.kind = SshKind::Shell;
                // Its lines do not come one by one, and nothing shows them.
                if self.terminal.is_none() {
                    asked.line = Some(SshLine::unsure("a shell without a terminal"));
                }
            }
            Request::Exec(line) => {
                asked.kind = SshKind::Exec;
                asked.line = Some(command::read(&line));
            }
            Request::Subsystem(name) if name == "sftp" => asked.kind = SshKind::Sftp,
            Request::Subsystem(name) => {
                asked.kind = SshKind::Subsystem;
                asked.subsystem = Some(name.into());
            }
            Request::Env { name } => {
                asked.kind = SshKind::Env;
                asked.env = Some(name.into());
            }
            Request::AgentForward => asked.kind = SshKind::AgentForward,
            Request::X11 => asked.kind = SshKind::X11,
            Request::LocalForward(to) => {
                asked.kind = SshKind::LocalForward;
                asked.forward = Some(to);
            }
            Request::RemoteForward(at) => {
                asked.kind = SshKind::RemoteForward;
                asked.forward = Some(at);
            }
        }
        self.judge(now, asked, Waits::Request, shared, out);
    }

    /// What was asked for is passed on: from now on its bytes are its own.
    pub(super) fn begin(
        &mut self,
        now: FlowTime,
        kind: SshKind,
        masks: Option<Arc<Masks>>,
        record: RecordLevel,
    ) {
        let runs = matches!(
            kind,
            SshKind::Shell | SshKind::Exec | SshKind::Sftp | SshKind::Subsystem
        );
        if !runs {
            return;
        }
        self.kind = Some(kind);
        self.begun = now;
        self.record = record;
        self.running = true;
        if kind == SshKind::Shell
            && let Some((_, size)) = &self.terminal
        {
            let terminal = Terminal::new(size.rows, size.columns, Patience::default(), now);
            self.shell = Some(Box::new(terminal));
        }
        let detecting = masks.as_ref().filter(|masks| masks.has_detectors());
        if kind == SshKind::Sftp {
            self.sftp = Some(Box::default());
        } else if let Some(masks) = detecting {
            let stream = || {
                let stream = DetectStream::new(Arc::clone(masks));
                Some(Box::new(stream.through_colours()))
            };
            self.maskers = [stream(), stream()];
        }
        if let Some(masks) = masks.as_ref()
            && self.terminal.is_none()
            && masks
                .of(interceptor_policy::mask::Direction::Request)
                .detect()
                .is_some()
        {
            let stream = DetectStream::towards(
                Arc::clone(masks),
                interceptor_policy::mask::Direction::Request,
            );
            self.input_masker = Some(Box::new(stream));
        }
        self.masks = masks;
    }

    pub(super) fn answered(
        &mut self,
        now: FlowTime,
        accepted: bool,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if !accepted {
            let line = "the server refused it";
            let event = shared.journal.event(now, Kind::Error, self.exchange, line);
            let meta = json!({"channel": self.id});
            out.events.push(event.with_meta(meta.to_string()));
        }
    }

    fn resized(&mut self, now: FlowTime, size: Size, shared: &mut Shared, out: &mut Outbox) {
        if let Some((_, terminal)) = &mut self.terminal {
            *terminal = size;
        }
        if let Some(shell) = &mut self.shell {
            shell.resize(size.rows, size.columns);
        }
        self.flush_tape(now, shared, out);
        let line = format!("{} by {}", size.columns, size.rows);
        let meta = json!({"channel": self.id, "columns": size.columns, "rows": size.rows});
        let event = shared.journal.event(now, Kind::Resize, self.exchange, line);
        out.events.push(event.with_meta(meta.to_string()));
    }

    pub(super) fn wants_input(&self) -> bool {
        match &self.shell {
            // It keeps what is typed while a line is judged.
            Some(shell) => shell.wants_input(),
            None => self.held.is_none(),
        }
    }

    pub(super) fn input(
        &mut self,
        now: FlowTime,
        bytes: Bytes,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        self.bytes[0] += bytes.len() as u64;
        if self.sftp.is_some() {
            return self.sftp_input(now, &bytes, shared, out);
        }
        if let Some(shell) = &mut self.shell {
            shell.typed(now, &bytes);
            return self.shell_acts(now, shared, out);
        }
        let bytes = match &mut self.input_masker {
            None => bytes,
            Some(masker) => {
                // What is typed at a terminal is not recorded, and not sealed either.
                if self.terminal.is_none()
                    && let Some(unmasked) = self.unmasked.get_mut(INPUT)
                {
                    if shared.journal.seals() && self.record == RecordLevel::Full {
                        unmasked.turn_on();
                    }
                    unmasked.push(&bytes);
                }
                let mut hidden = Vec::with_capacity(bytes.len());
                masker.push(&bytes, &shared.key, &mut hidden);
                hidden.into()
            }
        };
        self.pass_input(now, bytes, shared, out);
    }

    fn pass_input(&mut self, now: FlowTime, bytes: Bytes, shared: &mut Shared, out: &mut Outbox) {
        if bytes.is_empty() {
            return;
        }
        // What is typed shows in the output where it is not secret; a password
        // that is typed does not, and is not recorded.
        if self.terminal.is_none() {
            self.tape_input(now, &bytes, shared, out);
        }
        out.acts.push(Act::ToOrigin(bytes));
    }

    pub(super) fn input_end(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        if let Some(masker) = &mut self.input_masker {
            let mut rest = Vec::new();
            masker.finish(&shared.key, &mut rest);
            self.pass_input(now, rest.into(), shared, out);
        }
    }

    pub(super) fn output(
        &mut self,
        now: FlowTime,
        stderr: bool,
        bytes: Bytes,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        self.bytes[1] += bytes.len() as u64;
        if self.sftp.is_some() && !stderr {
            return self.sftp_output(now, &bytes, shared, out);
        }
        let bytes = match self.maskers.get_mut(usize::from(stderr)) {
            Some(Some(masker)) => {
                if let Some(unmasked) = self.unmasked.get_mut(usize::from(stderr)) {
                    if shared.journal.seals() && self.record == RecordLevel::Full {
                        unmasked.turn_on();
                    }
                    unmasked.push(&bytes);
                }
                let mut shown = Vec::with_capacity(bytes.len());
                masker.push(&bytes, &shared.key, &mut shown);
                shown.into()
            }
            _ => bytes,
        };
        self.show(now, stderr, bytes, shared, out);
    }

    fn show(
        &mut self,
        now: FlowTime,
        stderr: bool,
        bytes: Bytes,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if bytes.is_empty() {
            return;
        }
        self.tape_output(now, stderr, &bytes, shared, out);
        if let Some(shell) = &mut self.shell {
            shell.shown(now, &bytes);
        }
        out.acts.push(Act::ToAgent { stderr, bytes });
        self.shell_acts(now, shared, out);
    }

    pub(super) fn holds_output(&self) -> bool {
        let mut maskers = self.maskers.iter().flatten();
        maskers.any(|masker| masker.held() > 0)
    }

    /// A prompt has no line's end behind it, and somebody waits for it.
    pub(super) fn quiet(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        for stderr in [false, true] {
            let mut shown = Vec::new();
            if let Some(Some(masker)) = self.maskers.get_mut(usize::from(stderr)) {
                masker.flush(&shared.key, &mut shown);
            }
            self.show(now, stderr, shown.into(), shared, out);
        }
    }

    pub(super) fn output_end(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        for stderr in [false, true] {
            let mut shown = Vec::new();
            if let Some(Some(masker)) = self.maskers.get_mut(usize::from(stderr)) {
                masker.finish(&shared.key, &mut shown);
            }
            self.show(now, stderr, shown.into(), shared, out);
        }
    }

    pub(super) fn exited(
        &mut self,
        now: FlowTime,
        exit: Exit,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        self.exit = Some(exit);
        // More of its output may still come, so it is not over yet.
        self.flush_tape(now, shared, out);
    }

    pub(super) fn close(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.take_back_question(now, shared, out);
        self.finish(now, shared, out);
    }

    /// What ran is over: its last bytes and its result go on record.
    fn finish(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        if !std::mem::replace(&mut self.running, false) {
            self.flush_tape(now, shared, out);
            return;
        }
        self.flush_tape(now, shared, out);
        self.sftp_end(now, shared, out);
        self.record_result(now, shared, out);
    }
}

/// One operation on files.
pub(super) fn file_request(user: &Arc<str>, operation: SftpRequest) -> SshRequest {
    SshRequest {
        user: Arc::clone(user),
        kind: SshKind::Sftp,
        sftp: Some(operation),
        ..SshRequest::default()
    }
}
