//! Errors and notices of the server: passed as they are, without what a mask
//! hides, or replaced where they answer something that was refused.

use interceptor_policy::operation::{Operation, PgOperation, Sql};
use interceptor_proto::pg::backend::notice::code;
use interceptor_proto::pg::backend::{Notice, NoticeBuilder, Notification};
use interceptor_proto::pg::frame;
use interceptor_proto::pg::tag::backend as tag;

use super::inbox::Source;
use super::owed::Owed;
use super::record::holds_secret;
use super::statements::Undo;
use super::{PgSession, refuse};
use crate::event::FlowTime;
use crate::pg::mask::{mask_text, without_values};
use crate::session::{Outbox, Side};

impl PgSession {
    pub(super) fn notice(&mut self, notice: &Notice<'_>, source: Source<'_>, out: &mut Outbox) {
        match self.without_values(notice) {
            None => source.forward(Side::Downstream, out),
            Some(builder) => {
                let mut framed = Vec::new();
                builder.builder().encode_notice(&mut framed);
                out.write(Side::Downstream, &framed);
            }
        }
    }

    /// What another session said, without what detectors find in it. It answers
    /// nothing that was asked, so the masks are those of an empty message.
    pub(super) fn notification(
        &mut self,
        now: FlowTime,
        notification: &Notification<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        let nothing = Sql::default();
        let operation = Operation::Postgres(PgOperation {
            sql: &nothing,
            meaning: None,
            text: "",
            database: &self.database,
            user: &self.user,
        });
        let masks = match self.scope.masks_possible() {
            true => {
                let now = self.opened.after(now.0);
                self.scope.preview(&operation, &self.standing, now).masks
            }
            false => None,
        };
        let masked = masks.and_then(|masks| mask_text(&masks, notification.payload, &self.key));
        let Some(masked) = masked else {
            return source.forward(Side::Downstream, out);
        };
        let mut body = notification.process_id.to_be_bytes().to_vec();
        for text in [notification.channel, &masked] {
            body.extend(text.iter().filter(|byte| **byte != 0));
            body.push(0);
        }
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        let mut framed = vec![tag::NOTIFICATION_RESPONSE];
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&body);
        out.write(Side::Downstream, &framed);
    }

    pub(super) fn error(
        &mut self,
        now: FlowTime,
        notice: &Notice<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
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
                    replaced = Some(refuse::error(
                        session,
                        exchange.number,
                        &refusal,
                        exchange.manner,
                        false,
                    ));
                }
            }
        }
        // What is said about a statement with a password may have it as well.
        let came = Some(notice).filter(|_| replaced.is_none() && !self.asked_for_a_secret());
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
                self.record_error(now, number, notice, None, out);
            }
            Some(framed) => {
                out.write(Side::Downstream, framed);
                if let Ok(notice) = Notice::parse(framed.get(frame::HEADER..).unwrap_or_default()) {
                    self.record_error(now, number, &notice, came, out);
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

    /// Whether what is answered now has a password among its literals.
    fn asked_for_a_secret(&mut self) -> bool {
        let exchange = self.owed.front().and_then(Owed::exchange);
        exchange
            .and_then(|exchange| exchange.sql())
            .is_some_and(holds_secret)
    }

    /// The notice without what a mask hides; `None` where nothing is hidden.
    fn without_values(&mut self, notice: &Notice<'_>) -> Option<OwnedNotice> {
        let key = self.key.clone();
        let exchange = self.owed.front().and_then(Owed::exchange)?;
        let masks = exchange.masks.clone()?;
        let fields = without_values(notice, exchange.sql(), &masks, &key)?;
        Some(OwnedNotice { fields })
    }
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
