//! A connection to a scratch database, on which what was recorded is asked again.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use interceptor_engine::replay::again::{Parameter, Rows};
use interceptor_engine::replay::pg::Frames;
use interceptor_proto::pg::backend::Message;
use interceptor_proto::pg::frontend::Query;
use interceptor_proto::pg::startup::StartupBuilder;
use interceptor_proto::pg::tag::frontend as tag;
use tokio::net::TcpStream;

use super::logon::{Logon, logon};
use super::upstream::{ALPN, ask_tls, encrypt};
use super::wire;
use crate::config::TlsMode;
use crate::net::{Host, Socket};
use crate::secrets::SecretRef;
use crate::tls::Stream;
use crate::tls::upstream::Ask;

/// Longest message of an answer.
const LIMIT: u32 = 1 << 30;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Bytes of a `CopyData` message.
const COPY_PART: usize = 64 << 10;

/// Where a scratch database is, and as whom it is spoken to.
#[derive(Debug)]
pub struct ScratchPlace {
    /// Where, as it was written.
    pub host: String,
    /// Where that is.
    pub address: SocketAddr,
    /// As whom.
    pub user: String,
    /// Which database.
    pub database: String,
    /// Where the password is.
    pub password: Option<SecretRef>,
    /// How much is asked of its TLS; `Mirror` is none.
    pub mode: TlsMode,
    /// Who signs its certificate; whoever the system trusts where none is named.
    pub ca: Option<PathBuf>,
}

/// A connection to it.
#[derive(Debug)]
pub struct Scratch {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Scratch {
    /// Connects and logs on.
    ///
    /// # Errors
    /// When it does not answer, or does not let us in.
    pub async fn open(place: &ScratchPlace) -> anyhow::Result<Self> {
        let opened = tokio::time::timeout(PATIENCE, Self::connect(place)).await;
        opened.context("it does not answer in time")?
    }

    async fn connect(place: &ScratchPlace) -> anyhow::Result<Self> {
        let mut tcp = Socket::Tcp(TcpStream::connect(place.address).await?);
        tcp.send_at_once();
        let (mut stream, tls) = match place.mode {
            TlsMode::Disable | TlsMode::Mirror => (Stream::Plain(tcp), None),
            mode => {
                if !ask_tls(&mut tcp).await? {
                    bail!("it has no TLS, and sslmode asks for it");
                }
                let ask = Ask {
                    mode,
                    ca: place.ca.clone(),
                    name: None,
                    host: host(&place.host),
                    alpn: ALPN,
                    identity: None,
                };
                let (stream, tls) = encrypt(tcp, &ask).await?;
                (stream, Some(tls))
            }
        };
        let mut packet = Vec::new();
        StartupBuilder::new(0)
            .set(b"user", place.user.as_bytes())
            .set(b"database", place.database.as_bytes())
            .set(b"application_name", b"interceptor replay")
            .set(b"client_encoding", b"UTF8")
            .encode(&mut packet)?;
        wire::send(&mut stream, &packet).await?;
        let answer = logon(
            &mut stream,
            &Logon {
                user: &place.user,
                password: place.password.as_ref(),
                loopback: place.address.ip().to_canonical().is_loopback(),
                mode: place.mode,
                tls: tls.as_ref(),
            },
        )
        .await?;
        let mut scratch = Self {
            stream,
            buffer: answer,
        };
        if let Some((_, message)) = scratch.answer(&[]).await?.error {
            bail!("{message}");
        }
        Ok(scratch)
    }

    /// Asks a text, or a statement with its parameters; `copied` goes into a
    /// `COPY … FROM STDIN`.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn ask(
        &mut self,
        text: &str,
        parameters: Option<&[Parameter]>,
        copied: &[u8],
    ) -> anyhow::Result<Rows> {
        let Some(parameters) = parameters else {
            let mut query = Vec::new();
            let sql = text.as_bytes();
            Query { sql }.encode(&mut query)?;
            wire::send(&mut self.stream, &query).await?;
            return self.answer(copied).await;
        };
        // The unnamed statement, without a word on its parameters' types.
        let mut bytes = Vec::new();
        message(
            &mut bytes,
            tag::PARSE,
            &[b"\0", text.as_bytes(), b"\0\0\0"].concat(),
        )?;
        message(&mut bytes, tag::DESCRIBE, b"S\0")?;
        message(&mut bytes, tag::SYNC, b"")?;
        wire::send(&mut self.stream, &bytes).await?;
        let described = self.answer(&[]).await?;
        if described.error.is_some() {
            return Ok(described);
        }
        let mut bytes = Vec::new();
        message(&mut bytes, tag::BIND, &bind(parameters)?)?;
        message(&mut bytes, tag::EXECUTE, b"\0\0\0\0\0")?;
        message(&mut bytes, tag::SYNC, b"")?;
        wire::send(&mut self.stream, &bytes).await?;
        let mut rows = self.answer(copied).await?;
        rows.columns = described.columns;
        Ok(rows)
    }

    /// Reads up to where the next thing may be asked.
    async fn answer(&mut self, copied: &[u8]) -> anyhow::Result<Rows> {
        let mut rows = Rows::default();
        let mut frames = Frames::default();
        loop {
            let message = wire::message(&mut self.stream, &mut self.buffer, LIMIT).await?;
            frames.push(&message.raw, |frame| rows.take(&frame));
            match Message::parse(message.tag, message.body())? {
                Message::ReadyForQuery(_) => return Ok(rows),
                Message::CommandComplete(done) => {
                    if !rows.tag.is_empty() {
                        rows.tag.push_str("; ");
                    }
                    rows.tag.push_str(&String::from_utf8_lossy(done.tag));
                }
                Message::ErrorResponse(error) => {
                    let text = |bytes: Option<&[u8]>| {
                        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
                    };
                    rows.error = Some((text(error.sqlstate()), text(error.message())));
                    if error.severity().is_some_and(|word| word == b"FATAL") {
                        return Ok(rows);
                    }
                }
                Message::CopyInResponse(_) => self.copy_in(copied).await?,
                Message::CopyBothResponse(_) => bail!("it replicates, which is not done again"),
                _ => {}
            }
        }
    }

    async fn copy_in(&mut self, copied: &[u8]) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        for part in copied.chunks(COPY_PART) {
            message(&mut bytes, tag::COPY_DATA, part)?;
        }
        message(&mut bytes, tag::COPY_DONE, b"")?;
        Ok(wire::send(&mut self.stream, &bytes).await?)
    }
}

fn host(name: &str) -> Host {
    match name.parse::<IpAddr>() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(name.into()),
    }
}

/// A message: tag, length, body.
fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) -> anyhow::Result<()> {
    let length = i32::try_from(body.len().saturating_add(4)).context("it is too long")?;
    out.push(tag);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    Ok(())
}

/// `Bind` of the unnamed statement to the unnamed portal; values come as text.
fn bind(parameters: &[Parameter]) -> anyhow::Result<Vec<u8>> {
    let count = u16::try_from(parameters.len()).context("too many parameters")?;
    let mut body = vec![0, 0];
    body.extend_from_slice(&count.to_be_bytes());
    for parameter in parameters {
        let binary = matches!(parameter, Parameter::Binary(_));
        body.extend_from_slice(&u16::from(binary).to_be_bytes());
    }
    body.extend_from_slice(&count.to_be_bytes());
    for parameter in parameters {
        let value = match parameter {
            Parameter::Null => {
                body.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            }
            Parameter::Text(text) => text.as_bytes(),
            Parameter::Binary(bytes) => bytes,
        };
        let length = i32::try_from(value.len()).context("a parameter is too long")?;
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value);
    }
    body.extend_from_slice(&[0, 0]);
    Ok(body)
}
