//! What the agent sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use interceptor_proto::pg::frame::Head;
use interceptor_proto::pg::frontend::FunctionCall;
use interceptor_proto::pg::frontend::{Bind, Close, Describe, Execute, Parse, Query, Subject};
use interceptor_proto::pg::tag::frontend as tag;

use super::exchange::Exchange;
use super::hold::Command;
use super::inbox::{Source, Want};
use super::judge::{Asked, Judged, Ruling};
use super::owed::Owed;
use super::statements::{Portal, Prepared};
use super::{JUDGED_LIMIT, PgSession, Phase, functions, record, refuse};
use crate::event::FlowTime;
use crate::session::{End, Outbox, Side};

/// Messages that carry a name or a number and no more.
const SHORT_LIMIT: usize = 64 << 10;

impl PgSession {
    pub(super) fn want_from_agent(&self, head: Head) -> Want {
        let limit = match head.tag {
            tag::COPY_DATA => return Want::Pass,
            tag::QUERY | tag::PARSE | tag::BIND | tag::FUNCTION_CALL => JUDGED_LIMIT,
            tag::PASSWORD if self.phase == Phase::Authenticating => SHORT_LIMIT,
            tag::PASSWORD => return Want::Refuse("a password where none was asked for"),
            tag::EXECUTE
            | tag::DESCRIBE
            | tag::CLOSE
            | tag::SYNC
            | tag::FLUSH
            | tag::COPY_DONE
            | tag::COPY_FAIL
            | tag::TERMINATE => SHORT_LIMIT,
            _ => return Want::Refuse("a message that the protocol does not know"),
        };
        if self.phase == Phase::Authenticating
            && !matches!(head.tag, tag::PASSWORD | tag::TERMINATE)
        {
            return Want::Refuse("a command before the log-on was done");
        }
        if head.total() > limit {
            return Want::TooLong;
        }
        Want::Whole
    }

    pub(super) fn asked(
        &mut self,
        now: FlowTime,
        head: Head,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        let body = source.body();
        let done = match head.tag {
            tag::PASSWORD => return self.password_from_agent(now, body, source, out),
            tag::QUERY => Query::parse(body).map(|query| self.query(now, query, source, out)),
            tag::PARSE => Parse::parse(body).map(|parse| self.parse(now, parse, source, out)),
            tag::BIND => Bind::parse(body).map(|bind| self.bind(now, &bind, source, out)),
            tag::DESCRIBE => Describe::parse(body).map(|d| self.describe(d, source, out)),
            tag::EXECUTE => Execute::parse(body).map(|e| self.execute(now, e, source, out)),
            tag::CLOSE => Close::parse(body).map(|close| self.close_named(close, source, out)),
            tag::FUNCTION_CALL => {
                FunctionCall::parse(body).map(|call| self.function_call(now, &call, source, out))
            }
            tag::SYNC => {
                self.sync(now, source, out);
                Ok(())
            }
            tag::FLUSH => {
                self.record_parsed(now, out);
                source.forward(Side::Upstream, out);
                Ok(())
            }
            tag::COPY_DONE | tag::COPY_FAIL => {
                self.end_copy_in(now, head.tag == tag::COPY_FAIL, out);
                source.forward(Side::Upstream, out);
                Ok(())
            }
            tag::TERMINATE => {
                self.record_parsed(now, out);
                source.forward(Side::Upstream, out);
                self.phase = Phase::Over;
                out.end.get_or_insert(End::Closed);
                Ok(())
            }
            _ => return self.broken(now, Side::Downstream, "an unexpected message", out),
        };
        if let Err(error) = done {
            self.broken(now, Side::Downstream, &error.to_string(), out);
        }
    }

    fn query(&mut self, now: FlowTime, query: Query<'_>, source: Source<'_>, out: &mut Outbox) {
        // The server ignores it, whatever it says.
        if self.skipping {
            return source.forward(Side::Upstream, out);
        }
        let (text, classified) = self.read_statement(query.sql);
        if self.wait_for_tables(now, &classified, source, out) {
            return;
        }
        let asked = Asked {
            message: "Q",
            text: &text,
            statement: None,
            parameters: None,
        };
        let judged = self.judge(now, &asked, &classified, None, out);
        self.act(now, Command::Query, judged, &asked, source, out);
    }

    /// Does what the rules say with the message that runs an exchange.
    fn act(
        &mut self,
        now: FlowTime,
        command: Command,
        judged: Judged,
        asked: &Asked<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        let Judged {
            mut exchange,
            ruling,
        } = judged;
        match ruling {
            Ruling::Pass(permit) => self.run(command, exchange, permit, source, out),
            Ruling::Hold(hold) => self.hold(now, command, exchange, hold, asked, source, out),
            Ruling::Refuse(refusal) => {
                exchange.refusal = Some(refusal);
                self.run_nothing(command, exchange, out);
            }
            Ruling::Kill(refusal) => {
                let number = exchange.number;
                exchange.refusal = Some(refusal.clone());
                self.run_nothing(command, exchange, out);
                self.end_killed(number, &refusal, out);
            }
        }
    }

    pub(super) fn owe(&mut self, command: Command, exchange: Exchange) {
        let exchange = Box::new(exchange);
        self.owed.push(match command {
            Command::Query => Owed::Query(exchange),
            Command::Execute => Owed::Execute(exchange),
            Command::FunctionCall => Owed::FunctionCall(exchange),
        });
    }

    /// Before an `Execute` under masks: its columns, where nobody has asked yet.
    pub(super) fn ask_description(&mut self, exchange: &Exchange, out: &mut Outbox) {
        let portal = exchange.portal.clone();
        if let Some(portal) = portal.filter(|_| exchange.masks.is_some())
            && !portal.description_asked.swap(true, Ordering::Relaxed)
        {
            out.write(Side::Upstream, &refuse::describe_portal(&portal.name));
            self.owed.push(Owed::DescribePortal {
                portal: Some(portal),
                ours: true,
            });
        }
    }

    fn parse(&mut self, now: FlowTime, parse: Parse<'_>, source: Source<'_>, out: &mut Outbox) {
        if self.skipping {
            return source.forward(Side::Upstream, out);
        }
        let (text, classified) = self.read_statement(parse.sql);
        if self.wait_for_tables(now, &classified, source, out) {
            return;
        }
        self.record_parsed(now, out);
        let Ok(name) = std::str::from_utf8(parse.statement).map(Arc::<str>::from) else {
            return self.broken(
                now,
                Side::Downstream,
                "a statement's name is not UTF-8",
                out,
            );
        };
        let prepared = Arc::new(Prepared {
            text: Arc::from(&*text),
            classified: Arc::clone(&classified),
            name: Arc::clone(&name),
            fields: std::sync::Mutex::new(None),
        });
        let Ok(undo) = self.statements.prepare(Arc::clone(&prepared)) else {
            return self.broken(now, Side::Downstream, "too many prepared statements", out);
        };
        let asked = Asked {
            message: "P",
            text: &text,
            statement: Some(&name),
            parameters: None,
        };
        match self.judge_parse(now, &asked, &classified, out) {
            Ok(()) => {
                self.owed.push(Owed::Parse {
                    undo,
                    refused: None,
                });
                source.forward(Side::Upstream, out);
                self.unrecorded = Some(prepared);
            }
            Err(judged) => {
                let Judged {
                    mut exchange,
                    ruling,
                } = *judged;
                let number = exchange.number;
                let (refusal, kills) = match ruling {
                    Ruling::Kill(refusal) => (refusal, true),
                    Ruling::Refuse(refusal) => (refusal, false),
                    // A judgement that changed in between: refused, to be sure.
                    Ruling::Hold(hold) => (hold.reason, false),
                    Ruling::Pass(_) => (refuse::changed(), false),
                };
                exchange.refusal = Some(refusal.clone());
                out.write(
                    Side::Upstream,
                    &refuse::parse(parse.statement, exchange.number),
                );
                self.owed.push(Owed::Parse {
                    undo,
                    refused: Some(Box::new(exchange)),
                });
                if kills {
                    self.end_killed(number, &refusal, out);
                }
            }
        }
    }

    fn bind(&mut self, now: FlowTime, bind: &Bind<'_>, source: Source<'_>, out: &mut Outbox) {
        source.forward(Side::Upstream, out);
        if self.skipping {
            return;
        }
        let statement = std::str::from_utf8(bind.statement)
            .ok()
            .and_then(|name| self.statements.statement(name))
            .cloned();
        let portal = Arc::new(Portal {
            name: bind.portal.to_vec(),
            statement,
            parameters: record::parameters(bind),
            bound: *blake3::hash(source.body()).as_bytes(),
            result_formats: bind.result_formats.iter().collect(),
            fields: std::sync::Mutex::new(None),
            description_asked: AtomicBool::new(false),
            batch: self.ready_sent + 1,
            held: false,
        });
        match self.statements.bind(portal) {
            Ok(undo) => self.owed.push(Owed::Bind { undo }),
            Err(_) => self.broken(now, Side::Downstream, "too many portals", out),
        }
    }

    fn describe(&mut self, describe: Describe<'_>, source: Source<'_>, out: &mut Outbox) {
        source.forward(Side::Upstream, out);
        if self.skipping {
            return;
        }
        self.owed.push(match describe.subject {
            Subject::Statement(name) => Owed::DescribeStatement {
                statement: std::str::from_utf8(name)
                    .ok()
                    .and_then(|name| self.statements.statement(name))
                    .cloned(),
            },
            Subject::Portal(name) => {
                let portal = self.statements.portal(name).cloned();
                if let Some(portal) = &portal {
                    portal.description_asked.store(true, Ordering::Relaxed);
                }
                Owed::DescribePortal {
                    portal,
                    ours: false,
                }
            }
        });
    }

    fn execute(
        &mut self,
        now: FlowTime,
        execute: Execute<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        if self.skipping {
            return source.forward(Side::Upstream, out);
        }
        let portal = self.statements.portal(execute.portal).cloned();
        let statement = portal.as_ref().and_then(|portal| portal.statement.clone());
        if let (Some(unrecorded), Some(statement)) = (&self.unrecorded, &statement)
            && Arc::ptr_eq(unrecorded, statement)
        {
            self.unrecorded = None;
        }
        let (text, classified) = match &statement {
            Some(statement) => (
                Arc::clone(&statement.text),
                Arc::clone(&statement.classified),
            ),
            None => (Arc::from(""), self.dialect.unclassified()),
        };
        if self.wait_for_tables(now, &classified, source, out) {
            return;
        }
        let asked = Asked {
            message: "E",
            text: &text,
            statement: statement.as_ref().map(|statement| &statement.name),
            parameters: portal.as_ref().map(|portal| portal.parameters.as_str()),
        };
        let judged = self.judge(now, &asked, &classified, portal.clone(), out);
        self.act(now, Command::Execute, judged, &asked, source, out);
    }

    fn close_named(&mut self, close: Close<'_>, source: Source<'_>, out: &mut Outbox) {
        source.forward(Side::Upstream, out);
        if self.skipping {
            return;
        }
        match close.subject {
            Subject::Statement(name) => {
                if let Ok(name) = std::str::from_utf8(name) {
                    self.statements.close_statement(name);
                }
            }
            Subject::Portal(name) => self.statements.close_portal(name),
        }
        self.owed.push(Owed::Close);
    }

    fn function_call(
        &mut self,
        now: FlowTime,
        call: &FunctionCall<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        if self.skipping {
            return source.forward(Side::Upstream, out);
        }
        let (text, classified) = functions::called(call.function);
        let asked = Asked {
            message: "F",
            text: &text,
            statement: None,
            parameters: None,
        };
        let judged = self.judge(now, &asked, &classified, None, out);
        self.act(now, Command::FunctionCall, judged, &asked, source, out);
    }

    fn sync(&mut self, now: FlowTime, source: Source<'_>, out: &mut Outbox) {
        self.record_parsed(now, out);
        source.forward(Side::Upstream, out);
        // Part of the COPY data, for the server.
        if self.copy_in {
            return;
        }
        self.skipping = false;
        self.ready_sent += 1;
        self.owed.push(Owed::Sync);
    }

    /// A message that would have to be read whole and is too long for that.
    pub(super) fn too_long(&mut self, now: FlowTime, from: Side, head: Head, out: &mut Outbox) {
        let limit = match from {
            Side::Downstream => JUDGED_LIMIT,
            Side::Upstream => super::MASKED_LIMIT,
        };
        let why = format!(
            "a message of {} bytes must be read whole to be judged, and the limit is {limit}",
            head.total()
        );
        self.end_with(
            now,
            interceptor_proto::pg::sqlstate::PROGRAM_LIMIT_EXCEEDED,
            &why,
            out,
        );
    }
}
