//! Logs on to a service with its target's credentials.
//!
//! The agent is known by what the kernel says of it, so it is asked for nothing;
//! the proxy speaks for it. A password goes out in clear only where nobody can
//! listen: on the loopback, or over TLS to a server whose certificate was found
//! right or that the operator chose to trust (`require`). With SCRAM the server
//! has to prove that it knows the password as well, and `AuthenticationOk` before
//! that proof is a fault.
//!
//! Protocol: PostgreSQL manual, pages `protocol-flow` and `sasl-authentication`.

use std::io;

use interceptor_proto::pg::backend::{Authentication, Mechanisms, Message, Notice, NoticeBuilder};
use interceptor_proto::pg::frontend::{Password, SaslInitialResponse, SaslResponse};
use interceptor_proto::pg::startup::{self, StartupPacket};
use interceptor_proto::pg::{PgError, sqlstate};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::negotiate::StartupFacts;
use super::wire::{self, ReadError};
use crate::config::{Credentials, TlsMode};
use crate::secrets::{self, Secret, SecretError, SecretRef};
use crate::tls::{LegTls, Stream, binding};

/// No message of a logon is longer in an honest server.
const LIMIT: u32 = 64 * 1024;
/// Nor are there more: notices and parameters could otherwise go on for ever.
const MOST_MESSAGES: usize = 64;

/// Why the proxy could not log on.
#[derive(Debug, thiserror::Error)]
pub enum LogonError {
    /// The secret could not be had.
    #[error("the password could not be read: {0}")]
    Secret(#[from] SecretError),
    /// The server asks for a password, and none is configured.
    #[error("the server asks for a password, and the target's credentials have none")]
    NoPassword,
    /// The server asks for the password in clear where others may listen.
    #[error("the server asks for the password in clear over a leg that others may listen to")]
    WouldExpose,
    /// The server asks for something that the proxy cannot do.
    #[error("the server asks for {0}, which the proxy cannot do")]
    Unsupported(&'static str),
    /// The server refused.
    #[error("{message}")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// In the server's words.
        message: String,
        /// The server's detail.
        detail: Option<String>,
        /// The server's hint.
        hint: Option<String>,
    },
    /// SCRAM failed on our side: the server did not prove that it knows the
    /// password, or asked for too much.
    #[error("SCRAM: {0}")]
    Scram(io::Error),
    /// The server let us in before it had proved that it knows the password.
    #[error("the server let the proxy in without proving that it knows the password")]
    Unproved,
    /// The server sent something that has no place here.
    #[error("the server sent a message with tag 0x{0:02x} during the logon")]
    Unexpected(u8),
    /// The server sent too much.
    #[error("the server sent more than {MOST_MESSAGES} messages during the logon")]
    TooMany,
    /// The server's bytes are not a message, or ours would not be one.
    #[error(transparent)]
    Protocol(#[from] PgError),
    /// The connection failed.
    #[error("the connection failed during the logon: {0}")]
    Io(#[from] io::Error),
    /// The server closed.
    #[error("the server closed the connection during the logon")]
    Closed,
}

impl From<ReadError> for LogonError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Io(error),
            ReadError::Protocol(error) => Self::Protocol(error),
            ReadError::Closed => Self::Closed,
        }
    }
}

impl LogonError {
    /// What the agent is told; `named` says of which target.
    pub(super) fn answer(&self, named: &str) -> Vec<u8> {
        let text = format!("Interceptor could not log on with the credentials{named}: {self}");
        let (code, detail, hint) = match self {
            Self::Refused {
                code, detail, hint, ..
            } => (code.as_str(), detail.as_deref(), hint.as_deref()),
            Self::WouldExpose => (
                sqlstate::INVALID_AUTHORIZATION,
                None,
                Some(
                    "Set the target's `tls.upstream` to verify-full, or the server's pg_hba.conf to scram-sha-256.",
                ),
            ),
            Self::Secret(_)
            | Self::NoPassword
            | Self::Unsupported(_)
            | Self::Scram(_)
            | Self::Unproved => (sqlstate::INVALID_AUTHORIZATION, None, None),
            Self::Unexpected(_) | Self::TooMany | Self::Protocol(_) => {
                (sqlstate::PROTOCOL_VIOLATION, None, None)
            }
            Self::Io(_) | Self::Closed => (sqlstate::CANNOT_CONNECT, None, None),
        };
        let mut notice = NoticeBuilder::fatal(code, &text);
        if let Some(detail) = detail {
            notice = notice.detail(detail);
        }
        if let Some(hint) = hint {
            notice = notice.hint(hint);
        }
        let mut frame = Vec::new();
        notice.encode_error(&mut frame);
        frame
    }
}

/// How to log on.
pub(super) struct Logon<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<&'a SecretRef>,
    /// Whether the server is on this machine.
    pub(super) loopback: bool,
    pub(super) mode: TlsMode,
    pub(super) tls: Option<&'a LegTls>,
}

/// The agent's startup packet in the name of the credentials' user.
///
/// # Errors
/// When what comes out would be too long.
pub(super) fn startup(
    raw: &[u8],
    facts: &StartupFacts,
    credentials: &Credentials,
) -> Result<Vec<u8>, LogonError> {
    let Ok((_, StartupPacket::Startup(startup))) = startup::packet(raw, startup::LENGTH_MAX) else {
        return Err(PgError::StartupLayout.into());
    };
    let mut builder = startup.to_builder();
    if let Some(user) = &credentials.user {
        builder = builder.set(b"user", user.as_bytes());
        // Without one, the server would take the name of the user, and that is no
        // longer the agent's.
        let named = startup
            .get(b"database")
            .is_some_and(|name| !name.is_empty());
        if !named {
            builder = builder.set(b"database", facts.database.as_bytes());
        }
    }
    let mut packet = Vec::new();
    builder.encode(&mut packet)?;
    Ok(packet)
}

/// Answers whatever the server asks for, up to `AuthenticationOk`; gives what the
/// agent is to see of it, which begins with that.
///
/// # Errors
/// When the server refuses, or cannot be trusted.
pub(super) async fn logon(stream: &mut Stream, logon: &Logon<'_>) -> Result<Vec<u8>, LogonError> {
    let mut buffer = Vec::new();
    // Messages that the server puts before its consent, such as what it
    // understands of a newer protocol.
    let mut before = Vec::new();
    let mut scram = Scram::Unasked;
    for _ in 0..MOST_MESSAGES {
        let message = wire::message(stream, &mut buffer, LIMIT).await?;
        let read = Message::parse(message.tag, message.body())?;
        let authentication = match read {
            Message::Authentication(authentication) => authentication,
            Message::ErrorResponse(error) => return Err(refused(&error)),
            Message::NoticeResponse(_) | Message::NegotiateProtocolVersion(_) => {
                before.extend_from_slice(&message.raw);
                continue;
            }
            _ => return Err(LogonError::Unexpected(message.tag)),
        };
        let mut reply = Zeroizing::new(Vec::new());
        match authentication {
            Authentication::Ok => {
                if !matches!(scram, Scram::Unasked | Scram::Proved) {
                    return Err(LogonError::Unproved);
                }
                before.extend_from_slice(&message.raw);
                before.append(&mut buffer);
                return Ok(before);
            }
            Authentication::CleartextPassword => {
                if !logon.may_show_password() {
                    return Err(LogonError::WouldExpose);
                }
                let secret = logon.secret().await?;
                let password = secret.expose().as_bytes();
                Password { password }.encode(&mut reply)?;
            }
            Authentication::Md5Password { salt } => {
                let secret = logon.secret().await?;
                let hash = Zeroizing::new(md5_hash(
                    logon.user.as_bytes(),
                    secret.expose().as_bytes(),
                    salt,
                ));
                let password = hash.as_bytes();
                Password { password }.encode(&mut reply)?;
            }
            Authentication::Sasl(offered) => {
                let secret = logon.secret().await?;
                let (mechanism, exchange) = choose(stream, offered, &secret)?;
                SaslInitialResponse {
                    mechanism: mechanism.as_bytes(),
                    data: Some(exchange.message()),
                }
                .encode(&mut reply)?;
                scram = Scram::First(exchange);
            }
            Authentication::SaslContinue(data) => {
                let Scram::First(exchange) = scram else {
                    return Err(LogonError::Unexpected(message.tag));
                };
                let exchange = prove(exchange, data.to_vec()).await?;
                SaslResponse {
                    data: exchange.message(),
                }
                .encode(&mut reply)?;
                scram = Scram::Last(exchange);
            }
            Authentication::SaslFinal(data) => {
                let Scram::Last(mut exchange) = scram else {
                    return Err(LogonError::Unexpected(message.tag));
                };
                exchange.finish(data).map_err(LogonError::Scram)?;
                scram = Scram::Proved;
                continue;
            }
            Authentication::Gss | Authentication::GssContinue(_) => {
                return Err(LogonError::Unsupported("GSSAPI"));
            }
            Authentication::Sspi => return Err(LogonError::Unsupported("SSPI")),
            Authentication::KerberosV5 => return Err(LogonError::Unsupported("Kerberos V5")),
            Authentication::Unknown { .. } => {
                return Err(LogonError::Unsupported("an unknown authentication method"));
            }
        }
        wire::send(stream, &reply).await?;
    }
    Err(LogonError::TooMany)
}

/// How far SCRAM has come.
enum Scram {
    Unasked,
    First(ScramSha256),
    Last(ScramSha256),
    Proved,
}

impl Logon<'_> {
    async fn secret(&self) -> Result<Secret, LogonError> {
        let reference = self.password.ok_or(LogonError::NoPassword)?;
        Ok(secrets::resolve(reference).await?)
    }

    fn may_show_password(&self) -> bool {
        self.loopback
            || self
                .tls
                .is_some_and(|tls| tls.verified == Some(Ok(())) || self.mode == TlsMode::Require)
    }
}

/// The strongest mechanism that both sides have.
fn choose(
    stream: &Stream,
    offered: Mechanisms<'_>,
    secret: &Secret,
) -> Result<(&'static str, ScramSha256), LogonError> {
    let bound = stream
        .server_certificate()
        .and_then(|der| binding::server_end_point(&CertificateDer::from(der)));
    let (mechanism, channel) = match bound {
        Some(hash) if offered.offers(SCRAM_SHA_256_PLUS.as_bytes()) => (
            SCRAM_SHA_256_PLUS,
            ChannelBinding::tls_server_end_point(hash),
        ),
        // Says that binding was possible and not offered, so that the server
        // notices when somebody took the offer away.
        Some(_) if offered.offers(SCRAM_SHA_256.as_bytes()) => {
            (SCRAM_SHA_256, ChannelBinding::unrequested())
        }
        None if offered.offers(SCRAM_SHA_256.as_bytes()) => {
            (SCRAM_SHA_256, ChannelBinding::unsupported())
        }
        _ => return Err(LogonError::Unsupported("a SASL mechanism other than SCRAM")),
    };
    let exchange = ScramSha256::new(secret.expose().as_bytes(), channel);
    Ok((mechanism, exchange))
}

/// Thousands of rounds of hashing: not on a thread that moves others' bytes.
async fn prove(mut exchange: ScramSha256, data: Vec<u8>) -> Result<ScramSha256, LogonError> {
    tokio::task::spawn_blocking(move || exchange.update(&data).map(|()| exchange))
        .await
        .map_err(|error| LogonError::Scram(io::Error::other(error)))?
        .map_err(LogonError::Scram)
}

fn refused(error: &Notice<'_>) -> LogonError {
    let text =
        |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let code = text(error.sqlstate()).filter(|code| code.len() == 5);
    LogonError::Refused {
        code: code.unwrap_or_else(|| sqlstate::INVALID_AUTHORIZATION.to_owned()),
        message: text(error.message()).unwrap_or_else(|| "the server refused".to_owned()),
        detail: text(error.get(b'D')),
        hint: text(error.get(b'H')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_out_in_clear_only_where_nobody_can_listen() {
        let tls = |verified| LegTls {
            version: "TLSv1.3",
            cipher: String::new(),
            sni: None,
            verified: Some(verified),
        };
        let (right, wrong) = (tls(Ok(())), tls(Err("expired".to_owned())));
        let shows = |loopback, mode, tls| {
            Logon {
                user: "u",
                password: None,
                loopback,
                mode,
                tls,
            }
            .may_show_password()
        };
        assert!(shows(true, TlsMode::Disable, None));
        assert!(!shows(false, TlsMode::Disable, None));
        assert!(!shows(false, TlsMode::Mirror, None));
        assert!(!shows(false, TlsMode::Mirror, Some(&wrong)));
        assert!(shows(false, TlsMode::Mirror, Some(&right)));
        assert!(shows(false, TlsMode::Require, Some(&wrong)));
        assert!(shows(false, TlsMode::VerifyFull, Some(&right)));
    }

    #[test]
    fn the_agents_packet_goes_on_in_another_name_and_to_the_same_database() {
        let mut raw = Vec::new();
        startup::StartupBuilder::new(2)
            .set(b"user", b"bot")
            .set(b"options", b"-c work_mem=1MB")
            .encode(&mut raw)
            .unwrap();
        let facts = StartupFacts {
            user: "bot".to_owned(),
            database: "bot".to_owned(),
            ..StartupFacts::default()
        };
        let credentials = Credentials {
            user: Some("agent_rw".to_owned()),
            password: None,
        };
        let packet = startup(&raw, &facts, &credentials).unwrap();
        let Ok((_, StartupPacket::Startup(read))) = startup::packet(&packet, startup::LENGTH_MAX)
        else {
            panic!("it is a startup packet");
        };
        assert_eq!(read.minor, 2);
        assert_eq!(read.user(), Some(&b"agent_rw"[..]));
        assert_eq!(read.database(), Some(&b"bot"[..]));
        assert_eq!(read.get(b"options"), Some(&b"-c work_mem=1MB"[..]));
    }
}
