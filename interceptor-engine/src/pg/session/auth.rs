//! Until the server is ready for the first command.
//!
//! Every kind of authentication passes through as it is; what passes is never
//! recorded. The one exception is SCRAM with channel binding, which is there to
//! notice a proxy that opens TLS: see [`crate::pg::sasl`].

use interceptor_policy::verdict::Severity;
use interceptor_proto::pg::backend::{
    Authentication, BackendKeyData, Notice, NoticeBuilder, ParameterStatus, ReadyForQuery,
};
use interceptor_proto::pg::frame::Head;
use interceptor_proto::pg::tag::backend as tag;

use super::inbox::Source;
use super::owed::Owed;
use super::{PgSession, Phase};
use crate::event::{FlowTime, Kind};
use crate::pg::sasl::{SaslGuard, SaslRefusal, SaslVerdict};
use crate::session::{BackendKey, End, Outbox, Side};

/// Where the log-on is.
#[derive(Debug)]
pub(super) struct Auth {
    guard: SaslGuard,
    logged_on: bool,
    method: &'static str,
    sasl_begun: bool,
    accepted: bool,
}

impl Auth {
    pub(super) fn new(downstream_tls: bool, upstream_tls: bool, logged_on: bool) -> Self {
        Self {
            guard: SaslGuard::new(downstream_tls, upstream_tls),
            logged_on,
            method: if logged_on {
                "credentials of the target"
            } else {
                "trust"
            },
            sasl_begun: false,
            accepted: false,
        }
    }
}

impl PgSession {
    pub(super) fn answered_before_ready(
        &mut self,
        now: FlowTime,
        head: Head,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        let body = source.body();
        let read = match head.tag {
            tag::AUTHENTICATION => Authentication::parse(body)
                .map(|asked| self.authentication(now, &asked, source, out)),
            tag::PARAMETER_STATUS => ParameterStatus::parse(body).map(|status| {
                self.dialect.report(status.name, status.value);
                source.forward(Side::Downstream, out);
            }),
            tag::BACKEND_KEY_DATA => {
                self.key_data(body, source, out);
                Ok(())
            }
            tag::NEGOTIATE_PROTOCOL_VERSION | tag::NOTICE_RESPONSE => {
                source.forward(Side::Downstream, out);
                Ok(())
            }
            tag::ERROR_RESPONSE => Notice::parse(body).map(|notice| {
                let event = self.journal.event(
                    now,
                    Kind::Auth,
                    None,
                    format!("log-on of {} refused by the server", self.user),
                );
                out.events.push(event.with_alert(Severity::Low));
                self.record_error(now, None, &notice, None, out);
                source.forward(Side::Downstream, out);
                self.phase = Phase::Over;
                out.end = Some(End::Closed);
            }),
            tag::READY_FOR_QUERY if self.auth.accepted => ReadyForQuery::parse(body).map(|_| {
                self.phase = Phase::Ready;
                self.owed.pop();
                source.forward(Side::Downstream, out);
            }),
            _ => {
                return self.broken(
                    now,
                    Side::Upstream,
                    "a message before the log-on was done",
                    out,
                );
            }
        };
        if let Err(error) = read {
            self.broken(now, Side::Upstream, &error.to_string(), out);
        }
        debug_assert!(
            self.phase != Phase::Authenticating || matches!(self.owed.front(), Some(Owed::Startup))
        );
    }

    fn authentication(
        &mut self,
        now: FlowTime,
        asked: &Authentication<'_>,
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        match asked {
            Authentication::Ok => {
                self.auth.accepted = true;
                let line = format!(
                    "{} logged on to {} by {}",
                    self.user, self.database, self.auth.method
                );
                let meta = serde_json::json!({"user": &*self.user, "database": &*self.database, "method": self.auth.method, "by_proxy": self.auth.logged_on});
                let event = self.journal.event(now, Kind::Auth, None, line);
                out.events.push(event.with_meta(meta.to_string()));
            }
            Authentication::CleartextPassword => self.auth.method = "password",
            Authentication::Md5Password { .. } => self.auth.method = "md5",
            Authentication::Sasl { .. } => {
                self.auth.method = "SASL";
                self.auth.sasl_begun = true;
                match self
                    .auth
                    .guard
                    .offer(source.body().get(4..).unwrap_or_default())
                {
                    SaslVerdict::Pass => {}
                    SaslVerdict::Rewrite(bytes) => return out.write(Side::Downstream, &bytes),
                    SaslVerdict::Refuse(refusal) => return self.refuse_sasl(now, &refusal, out),
                }
            }
            Authentication::Gss | Authentication::Sspi | Authentication::KerberosV5 => {
                self.auth.method = "GSSAPI"
            }
            _ => {}
        }
        source.forward(Side::Downstream, out);
    }

    fn refuse_sasl(&mut self, now: FlowTime, refusal: &SaslRefusal, out: &mut Outbox) {
        let mut error = Vec::new();
        NoticeBuilder::fatal(refusal.code, refusal.message)
            .hint(refusal.hint)
            .encode_error(&mut error);
        out.write(Side::Downstream, &error);
        let line = refusal.message;
        let event = self.journal.event(now, Kind::Auth, None, line);
        out.events.push(event.with_alert(Severity::Low));
        self.phase = Phase::Over;
        out.end = Some(End::Refused(line.to_owned()));
    }

    pub(super) fn password_from_agent(
        &mut self,
        now: FlowTime,
        body: &[u8],
        source: Source<'_>,
        out: &mut Outbox,
    ) {
        if std::mem::take(&mut self.auth.sasl_begun) {
            match self.auth.guard.answer(body) {
                SaslVerdict::Pass => {}
                SaslVerdict::Rewrite(bytes) => return out.write(Side::Upstream, &bytes),
                SaslVerdict::Refuse(refusal) => return self.refuse_sasl(now, &refusal, out),
            }
        }
        source.forward(Side::Upstream, out);
    }

    /// What a `CancelRequest` of this session will carry.
    pub(super) fn key_data(&mut self, body: &[u8], source: Source<'_>, out: &mut Outbox) {
        if let Ok(key) = BackendKeyData::parse(body) {
            out.backend_key = Some(BackendKey {
                process_id: key.process_id,
                key: key.key.to_vec(),
            });
        }
        source.forward(Side::Downstream, out);
    }
}
