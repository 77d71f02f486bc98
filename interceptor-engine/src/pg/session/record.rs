//! What of a session goes on record, in the words of the recording's schema.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use interceptor_policy::operation::{Class, Sql};
use interceptor_policy::verdict::Severity;
use interceptor_policy::{Judgement, Masks, RecordLevel, Verdict};
use interceptor_proto::pg::backend::Notice;
use interceptor_proto::pg::backend::notice::code;
use interceptor_proto::pg::frontend::Bind;
use serde_json::json;

use super::exchange::{Exchange, PART};
use super::judge::{AD_HOC, Asked, Ruling, default_severity};
use super::owed::Owed;
use super::{PgSession, literals};
use crate::event::{FlowTime, Kind, LINE_LIMIT, Sealed};
use crate::meta::{Meta, Written};
use crate::pg::mask::mask_text;
use crate::session::Outbox;
use crate::unmasked::Head;

/// Bytes of one parameter on record.
const PARAMETER_LIMIT: usize = 1 << 10;
/// Bytes of all parameters of one exchange on record.
const PARAMETERS_LIMIT: usize = 16 << 10;
/// Meanings whose part of `meta` is kept.
const META_LIMIT: usize = 256;

/// The part of a command's `meta` that is the same for every text of a meaning.
#[derive(Debug)]
pub(super) struct CommandMeta {
    rules: Vec<Arc<str>>,
    json: Arc<str>,
}

/// `COPY … FROM STDIN` data on its way.
#[derive(Debug, Default)]
pub(super) struct CopiedIn {
    part: Vec<u8>,
    bytes: u64,
}

impl PgSession {
    /// Puts the command and its verdict on record.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, and each is one fact of it"
    )]
    pub(super) fn record_command(
        &mut self,
        now: FlowTime,
        asked: &Asked<'_>,
        sql: &Sql,
        exchange: &mut Exchange,
        judgement: Judgement,
        meaning: u64,
        out: &mut Outbox,
    ) -> Ruling {
        let (ruling, verdict) = match judgement.verdict {
            Verdict::Allow(permit) => (Ruling::Pass(permit), "allow"),
            Verdict::Hold(hold) => (Ruling::Hold(hold), "hold"),
            Verdict::Block(refusal) => (Ruling::Refuse(refusal), "block"),
            Verdict::Kill(refusal) => (Ruling::Kill(refusal), "kill"),
        };
        let passes = matches!(ruling, Ruling::Pass(_));
        let killed = matches!(ruling, Ruling::Kill(_));
        let number = Some(exchange.number);
        let secret = holds_secret(sql);
        let masks = judgement.masks.as_deref();
        let text = (judgement.record >= RecordLevel::Commands || !passes)
            .then(|| self.recordable(asked.text, masks, secret));
        // Where it holds a password, that is nowhere.
        let mut unmasked = Head::new(self.journal.seals() && !secret);
        let mut meta = String::with_capacity(256);
        let _ = write!(
            meta,
            "{{\"message\":\"{}\",\"verdict\":\"{verdict}\",",
            asked.message
        );
        self.write_meaning(&mut meta, meaning, sql, &judgement.applied, passes);
        if let Some(name) = asked.statement.filter(|name| !name.is_empty()) {
            let _ = write!(meta, ",\"statement\":{}", json!(&**name));
        }
        if judgement.score > 0 {
            let _ = write!(
                meta,
                ",\"risk\":{},\"score\":{}",
                judgement.risk, judgement.score
            );
        }
        if !judgement.tags.is_empty() {
            let tags: Vec<&str> = judgement.tags.iter().map(|tag| &**tag).collect();
            let _ = write!(meta, ",\"leaves\":{}", json!(tags));
        }
        if judgement.record >= RecordLevel::Commands
            && let Some(parameters) = asked.parameters.filter(|p| p.len() > 2)
        {
            let came = parameters;
            let parameters = self.recordable(parameters, masks, secret);
            if unmasked.is_on() {
                let (recorded, came) = (Written::json(&parameters), Written::json(came));
                unmasked.put_written("parameters", &recorded, Some(&came));
            }
            let _ = write!(meta, ",\"parameters\":");
            // Masking inside may have left something that is no JSON.
            if serde_json::from_str::<serde::de::IgnoredAny>(&parameters).is_ok() {
                meta.push_str(&parameters);
            } else {
                let _ = write!(meta, "{}", json!(parameters));
            }
        }
        meta.push('}');
        let line = match &text {
            Some(text) => one_line(text),
            None => sql
                .statements
                .iter()
                .flat_map(|s| s.tags.first())
                .copied()
                .collect::<Vec<_>>()
                .join("; "),
        };
        let mut event = self
            .journal
            .event(now, Kind::Command, number, line)
            .with_meta(meta);
        let mut sealed = Sealed::Nothing;
        if let Some(text) = text {
            if matches!(text, Cow::Owned(_)) && unmasked.is_on() {
                unmasked.line(&event.line, || one_line(asked.text));
                sealed = Sealed::data(asked.text.into());
            }
            event = event.with_data(text.into_owned().into_bytes());
        }
        out.events.push(event.with_sealed(unmasked.beside(sealed)));
        if let Ruling::Refuse(refusal) | Ruling::Kill(refusal) = &ruling {
            self.totals.blocked += 1;
            let severity = judgement
                .severity
                .unwrap_or_else(|| default_severity(killed));
            let digest = self.scope.rules().digest();
            out.events.push(self.journal.refused(
                now,
                exchange.number,
                verdict,
                refusal,
                severity,
                digest,
            ));
        }
        if !judgement.observed.is_empty() {
            let names: Vec<&str> = judgement.observed.iter().map(|name| &**name).collect();
            let line = format!("observed only: {}", names.join(", "));
            let meta = json!({"observed": names, "rules_digest": self.scope.rules().digest()});
            out.events.push(
                self.journal
                    .event(now, Kind::Verdict, number, line)
                    .with_meta(meta.to_string())
                    .with_alert(judgement.severity.unwrap_or(Severity::Info)),
            );
        }
        ruling
    }

    /// A command as a person is shown it who is asked about it.
    pub(super) fn shown(&self, asked: &Asked<'_>, exchange: &Exchange) -> (String, Option<String>) {
        let secret = exchange.sql().is_some_and(holds_secret);
        let masks = exchange.masks.as_deref();
        let mut text = self.recordable(asked.text, masks, secret).into_owned();
        if let Some(classified) = exchange.classified.as_deref() {
            for inner in self.stands_for(classified) {
                text.push_str("\n-- which stands for:\n");
                text.push_str(&self.recordable(&inner, masks, secret));
            }
        }
        let parameters = asked
            .parameters
            .filter(|parameters| parameters.len() > 2)
            .map(|parameters| self.recordable(parameters, masks, secret).into_owned());
        (text, parameters)
    }

    fn write_meaning(
        &mut self,
        meta: &mut String,
        meaning: u64,
        sql: &Sql,
        rules: &[Arc<str>],
        allowed: bool,
    ) {
        let keep = meaning != AD_HOC && allowed;
        if keep
            && let Some(known) = self.meta.get(&meaning)
            && known.rules == rules
        {
            meta.push_str(&known.json);
            return;
        }
        let json = meaning_json(sql, rules, self.scope.rules().digest());
        meta.push_str(&json);
        if keep {
            if self.meta.len() >= META_LIMIT {
                self.meta.clear();
            }
            self.meta.insert(
                meaning,
                CommandMeta {
                    rules: rules.to_vec(),
                    json: Arc::from(json),
                },
            );
        }
    }

    /// A text as it may stand on record: what detectors hide in answers is
    /// hidden in commands too, and a password is never there.
    fn recordable<'a>(&self, text: &'a str, masks: Option<&Masks>, secret: bool) -> Cow<'a, str> {
        if secret {
            return Cow::Owned(literals::without_literals(text));
        }
        match masks.and_then(|masks| mask_text(masks, text.as_bytes(), &self.key)) {
            Some(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
            None => Cow::Borrowed(text),
        }
    }

    /// A statement that was prepared, and is not on record by being executed.
    pub(super) fn record_parsed(&mut self, now: FlowTime, out: &mut Outbox) {
        let Some(prepared) = self.unrecorded.take() else {
            return;
        };
        let secret = holds_secret(&prepared.classified.sql);
        let text = if secret {
            literals::without_literals(&prepared.text)
        } else {
            prepared.text.to_string()
        };
        let mut meta = String::from("{\"message\":\"P\",\"verdict\":\"allow\",");
        meta.push_str(&meaning_json(
            &prepared.classified.sql,
            &[],
            self.scope.rules().digest(),
        ));
        if !prepared.name.is_empty() {
            let _ = write!(meta, ",\"statement\":{}", json!(&*prepared.name));
        }
        meta.push('}');
        let line = format!("prepare: {}", one_line(&text));
        out.events.push(
            self.journal
                .event(now, Kind::Command, None, line)
                .with_data(text.into_bytes())
                .with_meta(meta),
        );
    }

    /// Keeps `COPY` data of the agent for the record.
    pub(super) fn keep_copied_in(&mut self, now: FlowTime, bytes: &[u8], out: &mut Outbox) {
        if !self.copy_in {
            return;
        }
        self.copied_in.bytes += bytes.len() as u64;
        self.copied_in.part.extend_from_slice(bytes);
        if self.copied_in.part.len() >= PART {
            self.flush_copied_in(now, out);
        }
    }

    pub(super) fn end_copy_in(&mut self, now: FlowTime, failed: bool, out: &mut Outbox) {
        if !std::mem::take(&mut self.copy_in) {
            return;
        }
        self.flush_copied_in(now, out);
        let bytes = std::mem::take(&mut self.copied_in.bytes);
        if failed {
            let exchange = self.owed.front().and_then(Owed::exchange).map(|e| e.number);
            out.events.push(self.journal.event(
                now,
                Kind::Note,
                exchange,
                format!("the agent gave up its COPY after {bytes} bytes"),
            ));
        }
    }

    fn flush_copied_in(&mut self, now: FlowTime, out: &mut Outbox) {
        let part = std::mem::take(&mut self.copied_in.part);
        if part.is_empty() {
            return;
        }
        let exchange = self.owed.front().and_then(Owed::exchange);
        let number = exchange.as_ref().map(|exchange| exchange.number);
        let level = exchange.as_ref().map_or(RecordLevel::Full, |e| e.record);
        let masks = exchange.and_then(|exchange| exchange.masks.clone());
        if level < RecordLevel::Full {
            return;
        }
        let masked = masks.and_then(|masks| mask_text(&masks, &part, &self.key));
        let (part, sealed) = match masked {
            Some(masked) if self.journal.seals() => (masked, Sealed::data(part)),
            Some(masked) => (masked, Sealed::Nothing),
            None => (part, Sealed::Nothing),
        };
        let line = format!("{} bytes of COPY data", part.len());
        let event = self.journal.event(now, Kind::Input, number, line);
        out.events.push(event.with_data(part).with_sealed(sealed));
    }

    /// Keeps bytes of the front exchange's result, and writes a part when there
    /// is enough.
    pub(super) fn keep_result(&mut self, now: FlowTime, bytes: &[u8], out: &mut Outbox) {
        let Some(exchange) = self.owed.front().and_then(Owed::exchange) else {
            return;
        };
        exchange.keep(bytes);
        if exchange.part_is_full() {
            let (part, sealed) = exchange.take_part();
            exchange.parts += 1;
            let (number, index) = (exchange.number, exchange.parts);
            let line = format!("part {index} of the result, {} bytes", part.len());
            out.events.push(
                self.journal
                    .event(now, Kind::Result, Some(number), line)
                    .with_data(part)
                    .with_sealed(sealed)
                    .with_meta(format!("{{\"part\":{index}}}")),
            );
        }
    }

    /// The end of an exchange.
    pub(super) fn record_end(&mut self, now: FlowTime, mut exchange: Exchange, out: &mut Outbox) {
        let number = Some(exchange.number);
        let micros = now.0.saturating_sub(exchange.started.0);
        if exchange.masked > 0 {
            self.totals.masked += exchange.masked;
            let severity = exchange.severity.unwrap_or(Severity::Info);
            let line = format!("{} values masked", exchange.masked);
            let meta = json!({"values": exchange.masked, "severity": severity.name()});
            out.events.push(
                self.journal
                    .event(now, Kind::Mask, number, line)
                    .with_meta(meta.to_string())
                    .with_alert(severity),
            );
        }
        if exchange.failed && exchange.part.is_empty() && exchange.rows == 0 {
            return;
        }
        let tags = std::mem::take(&mut exchange.tags);
        let mut line = String::with_capacity(tags.len() + 32);
        let _ = write!(
            line,
            "{} · {} rows · {}.{:03} ms",
            if tags.is_empty() { "(no tag)" } else { &tags },
            exchange.rows,
            micros / 1000,
            micros % 1000
        );
        let mut meta = String::with_capacity(96 + tags.len());
        meta.push_str("{\"tag\":");
        push_json_string(&mut meta, &tags);
        let _ = write!(
            meta,
            ",\"rows\":{},\"bytes\":{},\"duration_us\":{micros}",
            exchange.rows, exchange.bytes
        );
        if exchange.parts > 0 {
            let _ = write!(meta, ",\"part\":{}", exchange.parts + 1);
        }
        if exchange.failed {
            meta.push_str(",\"failed\":true");
        }
        meta.push('}');
        let (part, sealed) = exchange.take_part();
        out.events.push(
            self.journal
                .event(now, Kind::Result, number, line)
                .with_data(part)
                .with_sealed(sealed)
                .with_meta(meta),
        );
    }

    /// An error that the agent gets; `came` is what the server said, where that is another.
    pub(super) fn record_error(
        &mut self,
        now: FlowTime,
        number: Option<u64>,
        notice: &Notice<'_>,
        came: Option<&Notice<'_>>,
        out: &mut Outbox,
    ) {
        let line = error_line(notice);
        let mut unmasked = Head::new(self.journal.seals());
        if let Some(came) = came.filter(|_| unmasked.is_on()) {
            unmasked.line(&line, || error_line(came));
            for (name, letter) in ERROR_TEXTS {
                unmasked.put(name, &field(notice, letter), &field(came, letter));
            }
        }
        let mut meta = Meta::new();
        meta.put("severity", &notice.severity().map(String::from_utf8_lossy));
        meta.put("code", &field(notice, code::SQLSTATE));
        for (name, letter) in ERROR_TEXTS {
            meta.put(name, &field(notice, letter));
        }
        let event = self.journal.event(now, Kind::Error, number, line);
        let event = event.with_sealed(unmasked.beside(Sealed::Nothing));
        out.events.push(event.with_meta(meta.finish()));
    }

    /// The end of the session, with what of it never got its answer.
    pub(super) fn record_close(&mut self, now: FlowTime, reason: &str, out: &mut Outbox) {
        self.record_parsed(now, out);
        self.flush_copied_in(now, out);
        let open: Vec<Owed> = self.owed.drain().collect();
        for owed in open {
            let exchange = match owed {
                Owed::Query(exchange) | Owed::FunctionCall(exchange) | Owed::Execute(exchange) => {
                    exchange
                }
                _ => continue,
            };
            if exchange.refusal.is_some() {
                continue;
            }
            let mut exchange = *exchange;
            exchange.failed = true;
            let number = exchange.number;
            self.record_end(now, exchange, out);
            out.events.push(self.journal.event(
                now,
                Kind::Note,
                Some(number),
                "the session ended before the answer did",
            ));
        }
        out.events
            .push(self.totals.close(&mut self.journal, now, reason));
    }
}

fn meaning_json(sql: &Sql, rules: &[Arc<str>], digest: &str) -> String {
    let tags: Vec<&str> = sql
        .statements
        .iter()
        .flat_map(|s| s.tags.iter().copied())
        .collect();
    let mut classes = interceptor_policy::operation::Classes::default();
    for statement in &sql.statements {
        classes = classes.union(statement.classes);
    }
    let classes: Vec<&str> = classes.names().collect();
    let mut tables: Vec<String> = sql
        .statements
        .iter()
        .flat_map(|s| s.tables.iter())
        .map(|table| match &table.schema {
            Some(schema) => format!("{schema}.{}", table.name),
            None => table.name.to_string(),
        })
        .collect();
    tables.sort_unstable();
    tables.dedup();
    let rules: Vec<&str> = rules.iter().map(|rule| &**rule).collect();
    format!(
        "\"tags\":{},\"classes\":{},\"tables\":{},\"rules\":{},\"rules_digest\":\"{digest}\"",
        json!(tags),
        json!(classes),
        json!(tables),
        json!(rules)
    )
}

/// Texts of an error that are on record.
const ERROR_TEXTS: [(&str, u8); 3] = [
    ("message", code::MESSAGE),
    ("detail", code::DETAIL),
    ("hint", code::HINT),
];

fn field<'a>(notice: &Notice<'a>, letter: u8) -> Option<Cow<'a, str>> {
    notice.get(letter).map(String::from_utf8_lossy)
}

fn error_line(notice: &Notice<'_>) -> String {
    let severity = notice.severity().map(String::from_utf8_lossy);
    let state = field(notice, code::SQLSTATE);
    one_line(&format!(
        "{} {}: {}",
        severity.as_deref().unwrap_or("ERROR"),
        state.as_deref().unwrap_or("?????"),
        field(notice, code::MESSAGE).unwrap_or_default(),
    ))
}

/// Whether the statement carries a password among its literals.
pub(super) fn holds_secret(sql: &Sql) -> bool {
    const TAGS: [&str; 10] = [
        "CREATE ROLE",
        "ALTER ROLE",
        "CREATE USER MAPPING",
        "ALTER USER MAPPING",
        "CREATE SERVER",
        "ALTER SERVER",
        "CREATE SUBSCRIPTION",
        "ALTER SUBSCRIPTION",
        "CREATE FOREIGN DATA WRAPPER",
        "ALTER FOREIGN DATA WRAPPER",
    ];
    sql.statements.iter().any(|statement| {
        statement.classes.contains(Class::Dcl)
            && statement.tags.iter().any(|tag| tag.ends_with("ROLE"))
            || statement.tags.iter().any(|tag| TAGS.contains(tag))
            || statement.functions.iter().any(|f| f.contains("dblink"))
    })
}

/// On one line, and short enough for one.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_LIMIT));
    let mut space = false;
    for c in text.trim().chars() {
        if line.len() >= LINE_LIMIT {
            break;
        }
        if c.is_whitespace() || c.is_control() {
            space = true;
            continue;
        }
        if std::mem::take(&mut space) {
            line.push(' ');
        }
        line.push(c);
    }
    line
}

fn push_json_string(out: &mut String, text: &str) {
    if text
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\' || b == b' ')
    {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        let _ = write!(out, "{}", json!(text));
    }
}

/// Parameters as a JSON array: text as text, binary as `\x…`, long ones cut.
pub(super) fn parameters(bind: &Bind<'_>) -> String {
    let mut out = String::from("[");
    for (index, value) in bind.parameters.clone().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if out.len() > PARAMETERS_LIMIT {
            out.push_str("\"…\"");
            break;
        }
        let Some(value) = value else {
            out.push_str("null");
            continue;
        };
        let cut = value.get(..PARAMETER_LIMIT).unwrap_or(value);
        let binary = bind.parameter_formats.of(index).unwrap_or(0) != 0;
        let mut text = match std::str::from_utf8(cut) {
            Ok(text) if !binary => text.to_owned(),
            _ if !binary => String::from_utf8_lossy(cut).into_owned(),
            _ => format!("\\x{}", hex::encode(cut)),
        };
        if cut.len() < value.len() {
            let _ = write!(text, "… ({} bytes)", value.len());
        }
        push_json_string(&mut out, &text);
    }
    out.push(']');
    out
}
