//! What goes on record of a channel.
//!
//! Bytes of a terminal are an event each time they come, so that a replay has their
//! times; others are gathered to parts. Files of the file transfer protocol go on
//! record by size and hash, not by content.

use interceptor_policy::operation::ssh::{SshKind, SshLine, SshRequest};
use interceptor_policy::verdict::Severity;
use interceptor_policy::{Judgement, RecordLevel};
use serde_json::{Map, Value, json};

use super::asking::told;
use super::channel::{Channel, Exit, INPUT};
use super::outbox::Outbox;
use super::session::Shared;
use crate::event::{FlowTime, Kind, LINE_LIMIT, Sealed};
use crate::unmasked::Head;

/// Bytes that make one event.
const PART: usize = 64 << 10;
/// How long bytes wait to become a part, in microseconds.
const PATIENCE: u64 = 1_000_000;
/// A command's text on record, in bytes.
const TEXT_LIMIT: usize = 64 << 10;

/// Where bytes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stream {
    Input,
    #[default]
    Output,
    Error,
}

/// Bytes that are not on record yet, all of one stream.
#[derive(Debug, Default)]
pub(super) struct Tape {
    stream: Stream,
    since: FlowTime,
    bytes: Vec<u8>,
}

impl Channel {
    pub(super) fn tape_input(
        &mut self,
        now: FlowTime,
        bytes: &[u8],
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        self.tape(now, Stream::Input, bytes, shared, out);
    }

    pub(super) fn tape_output(
        &mut self,
        now: FlowTime,
        stderr: bool,
        bytes: &[u8],
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let stream = if stderr {
            Stream::Error
        } else {
            Stream::Output
        };
        self.tape(now, stream, bytes, shared, out);
    }

    fn tape(
        &mut self,
        now: FlowTime,
        stream: Stream,
        mut bytes: &[u8],
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        if self.record < RecordLevel::Full {
            return;
        }
        let waited = now.0.saturating_sub(self.tape.since.0) > PATIENCE;
        if self.tape.stream != stream || waited {
            self.flush_tape(now, shared, out);
        }
        while !bytes.is_empty() {
            if self.tape.bytes.is_empty() {
                self.tape.stream = stream;
                self.tape.since = now;
            }
            let room = PART - self.tape.bytes.len();
            let (part, rest) = bytes.split_at(room.min(bytes.len()));
            self.tape.bytes.extend_from_slice(part);
            bytes = rest;
            if self.tape.bytes.len() >= PART || self.terminal.is_some() {
                self.flush_tape(now, shared, out);
            }
        }
    }

    pub(super) fn flush_tape(&mut self, _now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        if self.tape.bytes.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.tape.bytes);
        let index = match self.tape.stream {
            Stream::Output => 0,
            Stream::Error => 1,
            Stream::Input => INPUT,
        };
        let masker = match self.tape.stream {
            Stream::Input => self.input_masker.as_ref(),
            _ => self.maskers.get(index).and_then(Option::as_ref),
        };
        let (hidden, held) = masker.map_or((0, 0), |masker| (masker.hidden(), masker.held()));
        let unmasked = self.unmasked.get_mut(index);
        let sealed = unmasked.map_or(Sealed::Nothing, |unmasked| unmasked.take(hidden, held));
        let (kind, name) = match self.tape.stream {
            Stream::Input => (Kind::Input, "stdin"),
            Stream::Output => (Kind::Output, "stdout"),
            Stream::Error => (Kind::Output, "stderr"),
        };
        let line = format!("{} bytes of {name}", bytes.len());
        let mut meta = json!({"channel": self.id, "stream": name});
        if self.terminal.is_some()
            && let Some(meta) = meta.as_object_mut()
        {
            meta.insert("terminal".to_owned(), json!(true));
        }
        // When the first of them came.
        let event = shared
            .journal
            .event(self.tape.since, kind, self.exchange, line);
        let event = event.with_data(bytes).with_sealed(sealed);
        out.events.push(event.with_meta(meta.to_string()));
    }

    /// What is asked for, and the verdict.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, and each is one fact of it"
    )]
    pub(super) fn record_command(
        &mut self,
        now: FlowTime,
        exchange: u64,
        request: &SshRequest,
        judged: Option<&Judgement>,
        verdict: &str,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let mut meta = Map::new();
        let mut put = |name: &str, value: Value| {
            meta.insert(name.to_owned(), value);
        };
        put("channel", json!(self.id));
        put("ssh", json!(request.kind.name()));
        put("user", json!(&*request.user));
        put("verdict", json!(verdict));
        put("rules_digest", json!(shared.scope.rules().digest()));
        let record = judged.map_or(RecordLevel::Full, |judged| judged.record);
        let refused = matches!(verdict, "block" | "kill");
        let in_full = record >= RecordLevel::Commands || refused;
        let shown = |text: &str| hide(text, judged, shared);
        let mut unmasked = Head::new(shared.journal.seals());
        if in_full {
            if let Some(line) = &request.line {
                let text = cut(shown(&line.text));
                let programs = programs(line, &shown);
                if unmasked.is_on() {
                    unmasked.put("command", &text, &cut(line.text.to_string()));
                    let came = self::programs(line, &str::to_owned);
                    unmasked.put("programs", &programs, &came);
                }
                put("command", json!(text));
                put("sure", json!(line.sure));
                put("opaque", json!(line.is_opaque()));
                put("programs", programs);
            }
            if let Some(operation) = &request.sftp {
                let names = operation.operations.iter().map(|one| json!(one.name()));
                put("operation", Value::Array(names.collect()));
                let paths = operation.paths.iter().map(|path| json!(&**path));
                put("paths", Value::Array(paths.collect()));
            }
            if let Some(name) = &request.env {
                put("env", json!(&**name));
            }
        }
        if let Some(name) = &request.subsystem {
            put("subsystem", json!(&**name));
        }
        if let Some((name, size)) = &self.terminal {
            let (columns, rows) = (size.columns, size.rows);
            put(
                "terminal",
                json!({"name": name, "columns": columns, "rows": rows}),
            );
        }
        if let Some(judged) = judged {
            let names =
                |of: &[std::sync::Arc<str>]| json!(of.iter().map(|one| &**one).collect::<Vec<_>>());
            put("rules", names(&judged.applied));
            if judged.score > 0 {
                put("risk", json!(judged.risk));
                put("score", json!(judged.score));
            }
            if !judged.tags.is_empty() {
                put("leaves", names(&judged.tags));
            }
        }
        let line = if in_full {
            let told = told(request);
            let line = one_line(&shown(&told));
            unmasked.line(&line, || one_line(&told));
            line
        } else {
            request.kind.name().to_owned()
        };
        let event = shared
            .journal
            .event(now, Kind::Command, Some(exchange), line);
        let event = event.with_sealed(unmasked.beside(Sealed::Nothing));
        out.events
            .push(event.with_meta(Value::Object(meta).to_string()));
        if let Some(judged) = judged
            && !judged.observed.is_empty()
        {
            let names: Vec<&str> = judged.observed.iter().map(|name| &**name).collect();
            let line = format!("observed only: {}", names.join(", "));
            let meta = json!({"observed": names, "rules_digest": shared.scope.rules().digest()});
            let event = shared
                .journal
                .event(now, Kind::Verdict, Some(exchange), line);
            let severity = judged.severity.unwrap_or(Severity::Info);
            out.events
                .push(event.with_meta(meta.to_string()).with_alert(severity));
        }
    }

    /// What ran is over.
    pub(super) fn record_result(&mut self, now: FlowTime, shared: &mut Shared, out: &mut Outbox) {
        let mut masked = 0;
        for masker in self.maskers.iter_mut().chain([&mut self.input_masker]) {
            masked += masker.take().map_or(0, |masker| masker.hidden());
        }
        if masked > 0 {
            shared.totals.masked += masked;
            let line = format!("{masked} values masked");
            let meta = json!({"channel": self.id, "values": masked, "severity": "info"});
            let event = shared.journal.event(now, Kind::Mask, self.exchange, line);
            out.events
                .push(event.with_meta(meta.to_string()).with_alert(Severity::Info));
        }
        let micros = now.0.saturating_sub(self.begun.0);
        let [up, down] = self.bytes;
        let (how, status, signal) = match &self.exit {
            Some(Exit::Status(status)) => (format!("exit {status}"), Some(*status), None),
            Some(Exit::Signal(signal)) => (format!("ended by {signal}"), None, Some(signal)),
            None => ("over".to_owned(), None, None),
        };
        let line = format!(
            "{how} · {up} bytes in, {down} bytes out · {}.{:03} ms",
            micros / 1000,
            micros % 1000
        );
        let meta = json!({
            "channel": self.id,
            "ssh": self.kind.map(SshKind::name),
            "status": status,
            "signal": signal,
            "bytes_in": up,
            "bytes_out": down,
            "duration_us": micros,
        });
        let event = shared.journal.event(now, Kind::Result, self.exchange, line);
        out.events.push(event.with_meta(meta.to_string()));
    }
}

/// A text as it may stand on record.
fn hide(text: &str, judged: Option<&Judgement>, shared: &Shared) -> String {
    let plan = judged
        .and_then(|judged| judged.masks.as_deref())
        .and_then(interceptor_policy::Masks::detect);
    match plan.and_then(|plan| plan.hide(text.as_bytes(), &shared.key)) {
        Some((hidden, _)) => String::from_utf8_lossy(&hidden).into_owned(),
        None => text.to_owned(),
    }
}

/// The programs that a line runs, each text as `shown` gives it.
fn programs(line: &SshLine, shown: &dyn Fn(&str) -> String) -> Value {
    let programs = line.programs.iter().take(64).map(|program| {
        let arguments = program.arguments.iter().take(64);
        let arguments = arguments.map(|argument| argument.as_deref().map(shown));
        json!({
            "path": program.path.as_deref(),
            "arguments": arguments.collect::<Vec<_>>(),
            "stdin": program.stdin.name(),
        })
    });
    Value::Array(programs.collect())
}

/// At most as long as a command's text on record.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_LIMIT {
        let mut end = TEXT_LIMIT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let whole = text.len();
        text.truncate(end);
        text.push_str(&format!("… ({whole} bytes)"));
    }
    text
}

fn one_line(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(LINE_LIMIT).collect()
}
