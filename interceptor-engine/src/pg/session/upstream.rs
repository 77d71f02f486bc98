//! What the server answers.

use std::sync::Arc;

use interceptor_policy::verdict::Severity;
use interceptor_proto::pg::backend::{
    CommandComplete, CopyResponse, FunctionCallResponse, Notice, Notification, ParameterStatus,
    ReadyForQuery, RowDescription, TransactionStatus,
};
use interceptor_proto::pg::frame::Head;
use interceptor_proto::pg::tag::backend as tag;

use super::inbox::{Source, Want};
use super::owed::Owed;
use super::{MASKED_LIMIT, PgSession, Phase, rows};
use crate::event::FlowTime;
use crate::pg::mask::{Field, Fields, mask_text};
use crate::session::{Outbox, Side};

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
        if self.swallow(now, head, out) {
            return;
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
                Notification::parse(body).map(|n| self.notification(now, &n, source, out))
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
            let unknown = self.unknown_tables(now, description);
            if !unknown.is_empty() {
                return self.wait_for_names(source, unknown, out);
            }
        }
        let fields = fields(description, source.bytes);
        let statement_described = matches!(self.owed.front(), Some(Owed::DescribeStatement { .. }));
        if let Some(Owed::Query(exchange)) = self.owed.front() {
            let plan = rows::plan(exchange, &fields, &self.tables);
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
                exchange.keep_masked(&framed, source.bytes);
                self.keep_result(now, &[], out);
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
