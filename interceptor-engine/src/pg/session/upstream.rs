//! What the server answers.

use std::sync::Arc;

use interceptor_policy::RecordLevel;
use interceptor_policy::verdict::Severity;
use interceptor_proto::pg::backend::notice::code;
use interceptor_proto::pg::backend::{
    CommandComplete, CopyResponse, FunctionCallResponse, Notice, NoticeBuilder, ParameterStatus,
    ReadyForQuery, RowDescription, TransactionStatus,
};
use interceptor_proto::pg::frame::{self, Head};
use interceptor_proto::pg::tag::backend as tag;

use super::exchange::Exchange;
use super::inbox::{Source, Want};
use super::owed::Owed;
use super::statements::Undo;
use super::{MASKED_LIMIT, PgSession, Phase, refuse};
use crate::event::FlowTime;
use crate::pg::mask::{CopyPlan, Field, Fields, RowPlan, Treatment, mask_text};
use crate::session::{Outbox, Side};

/// Bytes of rows that detectors look at in one go.
const LOOKED_AT: usize = 16 << 10;

impl PgSession {
    pub(super) fn want_from_server(&mut self, head: Head) -> Want {
        let passes = match head.tag {
            tag::DATA_ROW => self.rows_pass(),
            tag::COPY_DATA => self.copy_rows_pass(),
            tag::FUNCTION_CALL_RESPONSE => self
                .owed
                .front()
                .and_then(Owed::exchange)
                .is_some_and(|exchange| exchange.masks.is_none()),
            _ => false,
        };
        if passes {
            Want::Pass
        } else if head.total() > MASKED_LIMIT {
            Want::TooLong
        } else {
            Want::Whole
        }
    }

    fn rows_pass(&mut self) -> bool {
        match self.owed.front() {
            Some(Owed::Query(exchange) | Owed::Execute(exchange)) => {
                exchange.refusal.is_none()
                    && match &exchange.plan {
                        Some(plan) => plan.is_untouched(),
                        None => exchange.masks.is_none(),
                    }
            }
            _ => false,
        }
    }

    fn copy_rows_pass(&mut self) -> bool {
        match self.owed.front().and_then(Owed::exchange) {
            Some(exchange) => {
                exchange.refusal.is_none()
                    && exchange.copy.as_ref().is_none_or(CopyPlan::is_untouched)
            }
            None => false,
        }
    }

    /// Takes a run of whole rows at the front of `rest` at once; the length of
    /// what was taken. This is where bulk results go: rows that no mask can touch
    /// pass as one range, and only a block in which a detector may find something
    /// is looked at row by row.
    pub(super) fn pass_rows(
        &mut self,
        now: FlowTime,
        at: usize,
        rest: &[u8],
        out: &mut Outbox,
    ) -> usize {
        let Some(&first) = rest.first() else { return 0 };
        if first != tag::DATA_ROW && first != tag::COPY_DATA {
            return 0;
        }
        if first == tag::DATA_ROW && !self.begin_rows(now, out) {
            return 0;
        }
        let Some(Owed::Query(exchange) | Owed::Execute(exchange)) = self.owed.front() else {
            return 0;
        };
        if exchange.refusal.is_some() {
            return 0;
        }
        let treatment = if first == tag::DATA_ROW {
            match (&exchange.plan, &exchange.masks) {
                (Some(plan), _) => plan.treatment(),
                (None, None) => Treatment::Pass,
                (None, Some(_)) => return 0,
            }
        } else {
            exchange
                .copy
                .as_ref()
                .map_or(Treatment::Pass, CopyPlan::treatment)
        };
        let limit = match treatment {
            Treatment::Rewrite => return 0,
            Treatment::Look => LOOKED_AT,
            Treatment::Pass => usize::MAX,
        };
        let (len, rows) = run_of_rows(first, rest, limit);
        let run = rest.get(..len).unwrap_or_default();
        if run.is_empty() {
            return 0;
        }
        let passes = match (first, &exchange.plan, &exchange.copy) {
            (tag::DATA_ROW, Some(plan), _) => plan.passes(run),
            (tag::COPY_DATA, _, Some(copy)) => copy.passes(run),
            _ => true,
        };
        if passes {
            exchange.rows += rows;
            out.forward(Side::Downstream, at..at + len);
            self.keep_result(now, run, out);
            return len;
        }
        let mut done = 0;
        while let Some(next) = run.get(done..).filter(|next| !next.is_empty())
            && let Ok(Some(head)) = frame::head(next)
            && let Some(row) = next.get(..head.total())
            && self.phase != Phase::Over
        {
            let source = Source::input(row, at + done);
            if first == tag::DATA_ROW {
                self.row(now, source, out);
            } else {
                self.copy_row(now, source, out);
            }
            done += row.len();
        }
        len
    }

    /// Counts a row that is passed on as it comes. Where it is the first of its
    /// result, [`Self::pass_rows`] has seen its beginning.
    pub(super) fn count_row(&mut self, head: Head) {
        if matches!(head.tag, tag::DATA_ROW | tag::COPY_DATA)
            && let Some(exchange) = self.owed.front().and_then(Owed::exchange)
        {
            exchange.rows += 1;
        }
    }

    pub(super) fn answered(
        &mut self,
        now: FlowTime,
        head: Head,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        if self.phase == Phase::Authenticating {
            return self.answered_before_ready(now, head, source, out);
        }
        let body = source.body();
        let read = match head.tag {
            tag::DATA_ROW => return self.row(now, source, out),
            tag::COPY_DATA => return self.copy_row(now, source, out),
            tag::PARAMETER_STATUS => ParameterStatus::parse(body).map(|status| {
                self.dialect.report(status.name, status.value);
                source.forward(Side::Downstream, out);
            }),
            tag::NOTICE_RESPONSE => Notice::parse(body).map(|n| self.notice(&n, source, out)),
            tag::NOTIFICATION_RESPONSE => {
                source.forward(Side::Downstream, out);
                Ok(())
            }
            tag::ERROR_RESPONSE => Notice::parse(body).map(|n| self.error(now, &n, source, out)),
            tag::READY_FOR_QUERY => {
                ReadyForQuery::parse(body).map(|ready| self.ready(now, ready, source, out))
            }
            tag::ROW_DESCRIPTION => {
                RowDescription::parse(body).map(|d| self.row_description(now, &d, source, out))
            }
            tag::COMMAND_COMPLETE => {
                CommandComplete::parse(body).map(|c| self.complete(now, Some(&c), source, out))
            }
            tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED => {
                self.complete(now, None, source, out);
                Ok(())
            }
            tag::COPY_IN_RESPONSE | tag::COPY_OUT_RESPONSE | tag::COPY_BOTH_RESPONSE => {
                CopyResponse::parse(body)
                    .map(|copy| self.begin_copy(now, head.tag, &copy, source, out))
            }
            tag::COPY_DONE => {
                source.forward(Side::Downstream, out);
                self.keep_result(now, source.bytes, out);
                Ok(())
            }
            tag::FUNCTION_CALL_RESPONSE => FunctionCallResponse::parse(body)
                .map(|response| self.function_result(now, &response, source, out)),
            tag::PARSE_COMPLETE
            | tag::BIND_COMPLETE
            | tag::CLOSE_COMPLETE
            | tag::NO_DATA
            | tag::PARAMETER_DESCRIPTION => {
                self.step(now, head, source, out);
                Ok(())
            }
            tag::BACKEND_KEY_DATA => {
                self.key_data(body, source, out);
                Ok(())
            }
            _ => return self.broken(now, Side::Upstream, "an unexpected message", out),
        };
        if let Err(error) = read {
            self.broken(now, Side::Upstream, &error.to_string(), out);
        }
    }

    /// One step of the extended protocol.
    fn step(&mut self, now: FlowTime, head: Head, source: Source<'_>, out: &mut Outbox) {
        let fits = matches!(
            (head.tag, self.owed.front()),
            (tag::PARSE_COMPLETE, Some(Owed::Parse { refused: None, .. }))
                | (tag::BIND_COMPLETE, Some(Owed::Bind { .. }))
                | (tag::CLOSE_COMPLETE, Some(Owed::Close))
                | (
                    tag::NO_DATA,
                    Some(Owed::DescribeStatement { .. } | Owed::DescribePortal { .. })
                )
                | (
                    tag::PARAMETER_DESCRIPTION,
                    Some(Owed::DescribeStatement { .. })
                )
        );
        if !fits {
            return self.broken(
                now,
                Side::Upstream,
                "an answer to nothing that was asked",
                out,
            );
        }
        if head.tag == tag::PARAMETER_DESCRIPTION {
            return source.forward(Side::Downstream, out);
        }
        match self.owed.pop() {
            Some(Owed::DescribePortal { portal, ours }) => {
                if let Some(portal) = portal {
                    portal.set_fields(Arc::new(Fields::default()));
                }
                if !ours {
                    source.forward(Side::Downstream, out);
                }
            }
            _ => source.forward(Side::Downstream, out),
        }
    }

    fn row_description(
        &mut self,
        now: FlowTime,
        description: &RowDescription<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        let masked = match self.owed.front() {
            Some(Owed::Query(exchange)) => exchange.masks.is_some(),
            Some(Owed::DescribePortal { .. }) => self.scope.masks_possible(),
            Some(Owed::DescribeStatement { .. }) => false,
            _ => {
                return self.broken(
                    now,
                    Side::Upstream,
                    "a row description that was not asked for",
                    out,
                );
            }
        };
        if masked {
            let unknown = self.unknown_tables(description);
            if !unknown.is_empty() {
                return self.wait_for_names(source, unknown, out);
            }
        }
        let fields = fields(description, source.bytes);
        let statement_described = matches!(self.owed.front(), Some(Owed::DescribeStatement { .. }));
        if let Some(Owed::Query(exchange)) = self.owed.front() {
            let plan = plan(exchange, &fields, &self.tables);
            exchange.plan = Some(Arc::new(plan));
            source.forward(Side::Downstream, out);
            return self.keep_result(now, source.bytes, out);
        }
        match self.owed.pop() {
            Some(Owed::DescribePortal { portal, ours }) => {
                if let Some(portal) = portal {
                    portal.set_fields(Arc::new(fields));
                }
                if !ours {
                    source.forward(Side::Downstream, out);
                }
            }
            Some(Owed::DescribeStatement { statement }) if statement_described => {
                if let Some(statement) = statement {
                    statement.set_fields(Arc::new(fields));
                }
                source.forward(Side::Downstream, out);
            }
            _ => source.forward(Side::Downstream, out),
        }
    }

    /// Before the first row of an execution: how its rows are treated, and its
    /// columns for the record.
    fn begin_rows(&mut self, now: FlowTime, out: &mut Outbox) -> bool {
        let Some(Owed::Execute(exchange)) = self.owed.front() else {
            return true;
        };
        if exchange.plan.is_some() {
            return true;
        }
        let described = exchange.portal.as_ref().and_then(|portal| portal.fields());
        let plan = match (&described, &exchange.masks) {
            (_, None) => RowPlan::untouched(),
            (Some(fields), Some(_)) => plan(exchange, fields, &self.tables),
            (None, Some(_)) => {
                self.broken(now, Side::Upstream, "rows without their description", out);
                return false;
            }
        };
        let raw = match described {
            Some(fields) => Some(fields.raw.clone()),
            None => exchange.portal.as_ref().and_then(|portal| {
                let fields = portal.statement.as_ref()?.fields()?;
                Some(fields.raw_with_formats(&portal.result_formats))
            }),
        };
        exchange.plan = Some(Arc::new(plan));
        if let Some(raw) = raw.filter(|_| exchange.record == RecordLevel::Full) {
            exchange.part.extend_from_slice(&raw);
        }
        true
    }

    fn row(&mut self, now: FlowTime, source: Source<'_>, out: &mut Outbox) {
        if !self.begin_rows(now, out) {
            return;
        }
        let key = self.key.clone();
        let Some(Owed::Query(exchange) | Owed::Execute(exchange)) = self.owed.front() else {
            return self.broken(now, Side::Upstream, "a row that was not asked for", out);
        };
        let Some(plan) = exchange.plan.clone() else {
            return self.broken(now, Side::Upstream, "rows without their description", out);
        };
        exchange.rows += 1;
        if plan.passes(source.bytes) {
            source.forward(Side::Downstream, out);
            return self.keep_result(now, source.bytes, out);
        }
        let mut masked = Vec::with_capacity(source.bytes.len());
        match plan.mask_row(source.body(), &key, &mut masked) {
            Ok(hidden) => {
                exchange.masked += hidden;
                out.write(Side::Downstream, &masked);
                self.keep_result(now, &masked, out);
            }
            Err(error) => self.broken(now, Side::Upstream, &error.to_string(), out),
        }
    }

    fn copy_row(&mut self, now: FlowTime, source: Source<'_>, out: &mut Outbox) {
        let key = self.key.clone();
        let Some(exchange) = self.owed.front().and_then(Owed::exchange) else {
            return self.broken(now, Side::Upstream, "COPY data that was not asked for", out);
        };
        exchange.rows += 1;
        let masked = match &exchange.copy {
            Some(copy) => copy.mask(exchange.rows, source.body(), exchange.copy_binary, &key),
            None => Ok(None),
        };
        match masked {
            Ok(None) => {
                source.forward(Side::Downstream, out);
                self.keep_result(now, source.bytes, out);
            }
            Ok(Some((row, hidden))) => {
                exchange.masked += hidden;
                let mut framed = Vec::with_capacity(row.len() + frame::HEADER);
                framed.push(tag::COPY_DATA);
                let len = u32::try_from(row.len() + 4).unwrap_or(u32::MAX);
                framed.extend_from_slice(&len.to_be_bytes());
                framed.extend_from_slice(&row);
                out.write(Side::Downstream, &framed);
                self.keep_result(now, &framed, out);
            }
            Err(error) => self.end_with(
                now,
                interceptor_proto::pg::sqlstate::FEATURE_NOT_SUPPORTED,
                &error.to_string(),
                out,
            ),
        }
    }

    fn begin_copy(
        &mut self,
        now: FlowTime,
        kind: u8,
        copy: &CopyResponse<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        let Some(Owed::Query(exchange) | Owed::Execute(exchange)) = self.owed.front() else {
            return self.broken(now, Side::Upstream, "a COPY that was not asked for", out);
        };
        // A COPY that was not seen to be one when it was judged has no plan, so
        // nothing of it can be hidden.
        if kind != tag::COPY_IN_RESPONSE && exchange.masks.is_some() && exchange.copy.is_none() {
            return self.end_with(
                now,
                interceptor_proto::pg::sqlstate::FEATURE_NOT_SUPPORTED,
                "a COPY that cannot be masked, and a mask applies to it",
                out,
            );
        }
        exchange.copy_binary = copy.format != 0;
        let number = exchange.number;
        source.forward(Side::Downstream, out);
        if kind != tag::COPY_OUT_RESPONSE {
            self.copy_in = true;
            self.owed.swallow_syncs_behind_front();
        }
        if kind == tag::COPY_BOTH_RESPONSE {
            let event = self.journal.event(
                now,
                crate::event::Kind::Note,
                Some(number),
                "a replication stream begins",
            );
            out.events.push(event.with_alert(Severity::Medium));
        }
    }

    fn function_result(
        &mut self,
        now: FlowTime,
        response: &FunctionCallResponse<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        let key = self.key.clone();
        let Some(Owed::FunctionCall(exchange)) = self.owed.front() else {
            return self.broken(
                now,
                Side::Upstream,
                "a function's result that was not asked for",
                out,
            );
        };
        exchange.rows += 1;
        let hidden = match (&exchange.masks, response.value) {
            (Some(masks), Some(value)) => mask_text(masks, value, &key),
            _ => None,
        };
        match hidden {
            None => {
                source.forward(Side::Downstream, out);
                self.keep_result(now, source.bytes, out);
            }
            Some(value) => {
                exchange.masked += 1;
                let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
                let mut framed = vec![tag::FUNCTION_CALL_RESPONSE];
                framed.extend_from_slice(&len.saturating_add(8).to_be_bytes());
                framed.extend_from_slice(&len.to_be_bytes());
                framed.extend_from_slice(&value);
                out.write(Side::Downstream, &framed);
                self.keep_result(now, &framed, out);
            }
        }
    }

    /// A statement is done: `CommandComplete`, or one of the two in its place.
    fn complete(
        &mut self,
        now: FlowTime,
        command: Option<&CommandComplete<'_>>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        if !self.begin_rows(now, out) {
            return;
        }
        let batch = self.ready_sent;
        self.copy_in = false;
        let Some(Owed::Query(exchange) | Owed::Execute(exchange)) = self.owed.front() else {
            return self.broken(
                now,
                Side::Upstream,
                "a completion of nothing that was asked",
                out,
            );
        };
        if let Some(command) = command {
            if !exchange.tags.is_empty() {
                exchange.tags.push_str("; ");
            }
            if exchange.tags.len() < 4096 {
                exchange
                    .tags
                    .push_str(&String::from_utf8_lossy(command.tag));
            }
        }
        let place = exchange.completed;
        exchange.completed += 1;
        exchange.plan = None;
        if let Some(classified) = exchange
            .classified
            .clone()
            .filter(|c| !c.effects.is_empty())
        {
            exchange.undos.retain(|(at, _)| *at != place);
            let text = Arc::clone(&exchange.text);
            self.statements
                .complete_effects(place, &classified.effects, &text, batch);
        }
        source.forward(Side::Downstream, out);
        if matches!(self.owed.front(), Some(Owed::Execute(_)))
            && let Some(Owed::Execute(exchange)) = self.owed.pop()
        {
            self.record_end(now, *exchange, out);
        }
    }

    fn notice(&mut self, notice: &Notice<'_>, source: Source<'_>, out: &mut Outbox) {
        match self.without_values(notice) {
            None => source.forward(Side::Downstream, out),
            Some(builder) => {
                let mut framed = Vec::new();
                builder.builder().encode_notice(&mut framed);
                out.write(Side::Downstream, &framed);
            }
        }
    }

    fn error(&mut self, now: FlowTime, notice: &Notice<'_>, source: Source<'_>, out: &mut Outbox) {
        self.copy_in = false;
        let session = self.journal.session();
        let front = self.owed.front();
        let skips = front.as_ref().is_some_and(|owed| owed.skips_on_error());
        let mut number = None;
        let mut replaced = None;
        if let Some(owed) = front {
            let refusal = owed.refusal().cloned();
            if let Some(exchange) = owed.exchange() {
                exchange.failed = true;
                number = Some(exchange.number);
                if let Some(refusal) = refusal.filter(|_| !notice.is_fatal()) {
                    replaced = Some(refuse::error(session, exchange.number, &refusal, false));
                }
            }
        }
        let masked = match replaced {
            Some(error) => Some(error),
            None => self.without_values(notice).map(|owned| {
                let mut framed = Vec::new();
                owned.builder().encode_error(&mut framed);
                framed
            }),
        };
        match &masked {
            None => {
                source.forward(Side::Downstream, out);
                self.record_error(now, number, notice, out);
            }
            Some(framed) => {
                out.write(Side::Downstream, framed);
                if let Ok(notice) = Notice::parse(framed.get(frame::HEADER..).unwrap_or_default()) {
                    self.record_error(now, number, &notice, out);
                }
            }
        }
        if skips {
            let (skipped, sync_to_come) = self.owed.skip_to_sync();
            self.skipping = sync_to_come;
            let mut undos: Vec<Undo> = Vec::new();
            for owed in skipped {
                match owed {
                    Owed::Parse { undo, .. } | Owed::Bind { undo } => undos.push(undo),
                    Owed::Execute(exchange) => {
                        let mut exchange = *exchange;
                        undos.extend(exchange.undos.drain(..).map(|(_, undo)| undo));
                        if Some(exchange.number) == number {
                            self.record_end(now, exchange, out);
                        } else if exchange.refusal.is_none() {
                            let line = "skipped by the server after the error before it";
                            let event = self.journal.event(
                                now,
                                crate::event::Kind::Note,
                                Some(exchange.number),
                                line,
                            );
                            out.events.push(event);
                        }
                    }
                    _ => {}
                }
            }
            for undo in undos.into_iter().rev() {
                self.statements.undo(undo);
            }
        }
    }

    fn ready(&mut self, now: FlowTime, ready: ReadyForQuery, source: Source<'_>, out: &mut Outbox) {
        self.copy_in = false;
        source.forward(Side::Downstream, out);
        match self.owed.pop() {
            Some(Owed::Query(exchange) | Owed::FunctionCall(exchange)) => {
                let mut exchange = *exchange;
                // What was not completed did not happen.
                for (_, undo) in exchange.undos.drain(..).rev() {
                    self.statements.undo(undo);
                }
                if exchange.refusal.is_none() {
                    self.record_end(now, exchange, out);
                }
            }
            Some(Owed::Startup | Owed::Sync) => {}
            _ => {
                return self.broken(
                    now,
                    Side::Upstream,
                    "ready while it still owes an answer",
                    out,
                );
            }
        }
        if ready.status == TransactionStatus::Idle {
            let done = self.ready_sent.saturating_sub(self.owed.ready_owed());
            self.statements.end_transaction(done);
        }
    }

    /// The notice without what a mask hides: what detectors find in any text,
    /// and, where the statement touches a masked column, the fields in which
    /// PostgreSQL quotes values. `None` where nothing is hidden.
    fn without_values(&mut self, notice: &Notice<'_>) -> Option<OwnedNotice> {
        let key = self.key.clone();
        let exchange = self.owed.front().and_then(Owed::exchange)?;
        let masks = exchange.masks.clone()?;
        let sql = exchange.sql.as_deref().or(exchange
            .classified
            .as_deref()
            .map(|classified| &classified.sql));
        let quotes = masks.has_columns()
            && sql.is_some_and(|sql| {
                sql.statements
                    .iter()
                    .any(|statement| crate::pg::mask::mentions_masked(statement, &masks))
            });
        let mut changed = false;
        let fields: Vec<(u8, String)> = notice
            .fields()
            .filter_map(|(letter, text)| {
                if quotes && matches!(letter, code::DETAIL | code::WHERE | code::INTERNAL_QUERY) {
                    changed = true;
                    return None;
                }
                // Conversions quote the value in the message itself.
                let quoted = quotes && letter == code::MESSAGE && text.contains(&b'"');
                if quoted {
                    changed = true;
                    return Some((letter, without_quoted(&String::from_utf8_lossy(text))));
                }
                match mask_text(&masks, text, &key) {
                    Some(masked) => {
                        changed = true;
                        Some((letter, String::from_utf8_lossy(&masked).into_owned()))
                    }
                    None => Some((letter, String::from_utf8_lossy(text).into_owned())),
                }
            })
            .collect();
        changed.then_some(OwnedNotice { fields })
    }
}

/// The longest run of whole rows at the front of `rest`: its bytes and rows.
/// Ends at the first row past `limit` bytes.
fn run_of_rows(first: u8, rest: &[u8], limit: usize) -> (usize, u64) {
    let mut len = 0;
    let mut rows = 0;
    while len < limit
        && let Some(next) = rest.get(len..)
        && next.first() == Some(&first)
        && let Ok(Some(head)) = frame::head(next)
        && head.total() <= next.len()
    {
        len += head.total();
        rows += 1;
    }
    (len, rows)
}

/// A message with what stands in double quotes hidden.
fn without_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.push('"');
        }
        out.push_str(if index % 2 == 1 { "[redacted]" } else { part });
    }
    out
}

/// A notice whose fields were changed.
struct OwnedNotice {
    fields: Vec<(u8, String)>,
}

impl OwnedNotice {
    fn builder(&self) -> NoticeBuilder<'_> {
        use interceptor_proto::pg::backend::Severity as Level;
        let field = |letter| {
            self.fields
                .iter()
                .find(|(found, _)| *found == letter)
                .map(|(_, text)| text.as_str())
        };
        let level = match field(code::SEVERITY_PLAIN).or(field(code::SEVERITY)) {
            Some("FATAL" | "PANIC") => Level::Fatal,
            Some("WARNING") => Level::Warning,
            Some("ERROR") => Level::Error,
            _ => Level::Notice,
        };
        let mut builder = NoticeBuilder::new(
            level,
            field(code::SQLSTATE).unwrap_or("XX000"),
            field(code::MESSAGE).unwrap_or_default(),
        );
        for (letter, text) in &self.fields {
            if !matches!(
                *letter,
                code::SEVERITY | code::SEVERITY_PLAIN | code::SQLSTATE | code::MESSAGE
            ) {
                builder = builder.field(*letter, text);
            }
        }
        builder
    }
}

fn fields(description: &RowDescription<'_>, raw: &[u8]) -> Fields {
    Fields {
        fields: description
            .fields()
            .map(|field| Field {
                name: Arc::from(String::from_utf8_lossy(field.name)),
                table_oid: field.table_oid,
                attribute: field.attribute,
                type_oid: field.type_oid,
                binary: field.format != 0,
            })
            .collect(),
        raw: raw.to_vec(),
    }
}

fn plan(exchange: &Exchange, fields: &Fields, tables: &crate::pg::mask::TableNames) -> RowPlan {
    let Some(masks) = &exchange.masks else {
        return RowPlan::untouched();
    };
    let sql = exchange.sql.as_deref().or(exchange
        .classified
        .as_deref()
        .map(|classified| &classified.sql));
    RowPlan::new(fields, masks, sql, tables)
}
