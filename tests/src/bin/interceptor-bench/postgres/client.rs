//! A client that does nothing but receive: a client that also understands would
//! be what is measured.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

/// A session that is logged on.
pub(crate) struct Session {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Session {
    /// Logs on as `agent`.
    pub(crate) fn open(port: u16, tls: bool) -> Result<Self> {
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match tls {
            false => Box::new(tcp),
            true => {
                tcp.write_all(&[0, 0, 0, 8, 4, 210, 22, 47])?;
                let mut answer = [0];
                tcp.read_exact(&mut answer)?;
                if answer != *b"S" {
                    bail!("no TLS on this road");
                }
                let name = ServerName::try_from("localhost")?;
                let connection = rustls::ClientConnection::new(config()?, name)?;
                Box::new(rustls::StreamOwned::new(connection, tcp))
            }
        };
        let mut session = Self {
            stream,
            buffer: vec![0; 256 * 1024],
        };
        let body = [
            &196_608_u32.to_be_bytes()[..],
            b"user\0agent\0database\0postgres\0\0",
        ]
        .concat();
        let length = u32::try_from(body.len() + 4)?;
        session
            .stream
            .write_all(&[&length.to_be_bytes()[..], &body].concat())?;
        session.stream.flush()?;
        session.until_ready()?;
        Ok(session)
    }

    /// Runs a simple query; gives how many rows answered it.
    pub(crate) fn query(&mut self, sql: &str) -> Result<u64> {
        let length = u32::try_from(sql.len() + 5)?;
        let message = [&b"Q"[..], &length.to_be_bytes(), sql.as_bytes(), b"\0"].concat();
        self.stream.write_all(&message)?;
        self.stream.flush()?;
        self.until_ready()
    }

    /// Walks over messages, by their lengths, up to `ReadyForQuery`; counts those
    /// that are rows.
    fn until_ready(&mut self) -> Result<u64> {
        let mut rows = 0;
        // What of the current message is still to come, and the head so far.
        let mut skip = 0_usize;
        let mut head = Vec::with_capacity(5);
        loop {
            let read = self.stream.read(&mut self.buffer).context("reading")?;
            if read == 0 {
                bail!("the connection ended");
            }
            let mut rest = self.buffer.get(..read).unwrap_or_default();
            while !rest.is_empty() {
                let step = skip.min(rest.len());
                skip -= step;
                rest = rest.get(step..).unwrap_or_default();
                if skip > 0 || rest.is_empty() {
                    break;
                }
                let wanted = (5 - head.len()).min(rest.len());
                let (more, after) = rest.split_at(wanted);
                head.extend_from_slice(more);
                rest = after;
                let [tag, length @ ..] = head.as_slice() else {
                    continue;
                };
                let Ok(length) = <[u8; 4]>::try_from(length) else {
                    continue;
                };
                match tag {
                    b'Z' => return Ok(rows),
                    b'D' | b'd' => rows += 1,
                    b'E' => bail!("refused: {}", String::from_utf8_lossy(rest)),
                    _ => {}
                }
                skip = usize::try_from(u32::from_be_bytes(length))?.saturating_sub(4);
                head.clear();
            }
        }
    }
}

fn config() -> Result<Arc<rustls::ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes any certificate: every road has one of its own, and who is there is
/// not what is measured.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
