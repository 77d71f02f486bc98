//! A scratch web service, of which what was recorded is asked again: a connection for
//! each request.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use interceptor_engine::replay::again::{BODY, Response};
use tokio::net::TcpStream;

use crate::config::TlsMode;
use crate::net::{Host, Socket};
use crate::tls::Stream;
use crate::tls::upstream::{self, Ask};

/// How long an exchange may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a scratch service is.
#[derive(Debug)]
pub struct ScratchService {
    /// Its name, as it was written.
    pub host: String,
    /// The same with the port, where one is written.
    pub authority: String,
    /// Where that is.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Who signs its certificate; whoever the system trusts where none is named.
    pub ca: Option<PathBuf>,
    /// What stands before every path.
    pub prefix: String,
}

impl ScratchService {
    /// Whether it is who it should be, before anything is sent: under TLS alone, since
    /// in the clear each request finds out for itself.
    ///
    /// # Errors
    /// When it does not answer, or shows a certificate that is not good enough.
    pub async fn check(&self) -> anyhow::Result<()> {
        if self.tls {
            let connected = tokio::time::timeout(PATIENCE, Box::pin(self.connect())).await;
            connected.context("it does not answer in time")??;
        }
        Ok(())
    }

    /// Asks it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> anyhow::Result<Response> {
        let asked = self.exchange(method, path, headers, body);
        let answered = tokio::time::timeout(PATIENCE, Box::pin(asked)).await;
        answered.context("it does not answer in time")?
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> anyhow::Result<Response> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix));
        if let Some(fields) = request.headers_mut() {
            for (name, value) in headers {
                let name = HeaderName::from_bytes(name.as_bytes())?;
                fields.append(name, HeaderValue::from_str(value)?);
            }
            let host = HeaderValue::from_str(&self.authority)?;
            fields.insert(header::HOST, host);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body)))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(self.connect().await?)).await?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let headers = head.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        let headers = headers.collect();
        let body = Limited::new(body, BODY).collect().await;
        connection.abort();
        Ok(Response {
            status: head.status.as_u16(),
            headers,
            body: body.ok().map(|body| body.to_bytes().to_vec()),
        })
    }

    async fn connect(&self) -> anyhow::Result<Stream> {
        let tcp = Socket::Tcp(TcpStream::connect(self.address).await?);
        tcp.send_at_once();
        if !self.tls {
            return Ok(Stream::Plain(tcp));
        }
        let ask = Ask {
            mode: TlsMode::VerifyFull,
            ca: self.ca.clone(),
            name: None,
            host: match self.host.parse::<IpAddr>() {
                Ok(address) => Host::Address(address),
                Err(_) => Host::Name(self.host.as_str().into()),
            },
            alpn: &[b"http/1.1"],
            identity: None,
        };
        match upstream::connect(tcp, &ask).await {
            Ok((stream, _)) => Ok(stream),
            Err(error) => bail!("{error}"),
        }
    }
}
