//! To a syslog server: RFC 5424, over TCP with the octets of a message counted (RFC 6587,
//! section 3.4.1), or the same over TLS (RFC 5425).
//!
//! Syslog has no answers. What was written to a connection that then breaks may be lost, and
//! nobody is told: whoever needs to know takes another destination. Data are not sent, since
//! servers take messages of a few kilobytes.

use std::io::{self, Read as _, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::event::{Exported, Level};
use super::{SendError, Sink};

/// How long connecting and each write may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Letters of a line that are sent: servers have to take 2048 octets and should take 8192.
const LINE: usize = 4096;
/// `local0`
const FACILITY: u8 = 16;
/// The number that is set aside for documents (RFC 5612): Interceptor has none of its own.
const ENTERPRISE: &str = "interceptor@32473";

/// A syslog server.
pub struct Syslog {
    address: String,
    tls: Option<Arc<ClientConfig>>,
    connection: Option<Connection>,
}

enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Syslog {
    /// One at `tcp://host:port` or `tls://host:port`; without a scheme, over TCP.
    ///
    /// # Errors
    /// When that is no address, or the system has no certificates to verify with.
    pub fn new(address: &str, ca: Option<&std::path::Path>) -> Result<Self, SendError> {
        let never = |why: String| SendError::Never(why);
        let (scheme, rest) = address.split_once("://").unwrap_or(("tcp", address));
        if rest
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok())
            .is_none()
        {
            return Err(never(format!(
                "{address:?} has no port: for example logs.internal:6514"
            )));
        }
        let tls = match scheme {
            "tcp" => None,
            "tls" => {
                let mut roots = RootCertStore::empty();
                let certificates = match ca {
                    None => rustls_native_certs::load_native_certs().certs,
                    Some(path) => {
                        use rustls::pki_types::pem::PemObject as _;
                        rustls::pki_types::CertificateDer::pem_file_iter(path)
                            .and_then(Iterator::collect)
                            .map_err(|error| never(format!("{}: {error}", path.display())))?
                    }
                };
                roots.add_parsable_certificates(certificates);
                let config = ClientConfig::builder_with_provider(crate::tls::provider())
                    .with_safe_default_protocol_versions()
                    .map_err(|error| never(error.to_string()))?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                Some(Arc::new(config))
            }
            other => return Err(never(format!("{other:?} is neither tcp:// nor tls://"))),
        };
        Ok(Self {
            address: rest.to_owned(),
            tls,
            connection: None,
        })
    }

    fn connect(&self) -> io::Result<Connection> {
        let mut last = io::Error::other("the name has no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_write_timeout(Some(PATIENCE))?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    let Some(tls) = &self.tls else {
                        return Ok(Connection::Plain(stream));
                    };
                    let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
                    let host = host
                        .trim_start_matches('[')
                        .trim_end_matches(']')
                        .to_owned();
                    let name = ServerName::try_from(host).map_err(io::Error::other)?;
                    let tls = ClientConnection::new(Arc::clone(tls), name);
                    let tls = tls.map_err(io::Error::other)?;
                    return Ok(Connection::Tls(Box::new(StreamOwned::new(tls, stream))));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.connection.as_mut().is_some_and(Connection::is_over) {
            self.connection = None;
        }
        if self.connection.is_none() {
            self.connection = Some(self.connect()?);
        }
        match &mut self.connection {
            Some(Connection::Plain(stream)) => stream.write_all(bytes),
            Some(Connection::Tls(stream)) => stream.write_all(bytes).and_then(|()| stream.flush()),
            None => Ok(()),
        }
    }
}

impl Connection {
    /// Whether the server closed it: it never says anything else.
    fn is_over(&mut self) -> bool {
        let socket = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &mut stream.sock,
        };
        if socket.set_nonblocking(true).is_err() {
            return true;
        }
        // What TLS says of itself (a ticket, say) is nothing to read.
        let read = match self {
            Self::Plain(stream) => stream.read(&mut [0]),
            Self::Tls(stream) => stream.read(&mut [0]),
        };
        let over = !is_waiting(&read);
        let socket = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &mut stream.sock,
        };
        over || socket.set_nonblocking(false).is_err()
    }
}

fn is_waiting(read: &io::Result<usize>) -> bool {
    match read {
        Ok(read) => *read > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

impl Sink for Syslog {
    fn send(&mut self, events: &[Exported]) -> Result<(), SendError> {
        let mut bytes = Vec::new();
        for event in events {
            let message = message(event);
            let _ = write!(bytes, "{} ", message.len());
            bytes.extend_from_slice(message.as_bytes());
        }
        self.write(&bytes).map_err(|error| {
            self.connection = None;
            SendError::Later(format!("{}: {error}", self.address))
        })
    }

    fn name(&self) -> String {
        format!("syslog {}", self.address)
    }
}

/// A message of RFC 5424.
fn message(event: &Exported) -> String {
    let severity = match event.level() {
        Level::Error => 3,
        Level::Warning => 4,
        Level::Notice => 5,
        Level::Info => 6,
    };
    let priority = FACILITY * 8 + severity;
    let host = word(&event.whose.host, 255);
    let kind = word(&event.entry.kind, 32);
    let mut out = format!(
        "<{priority}>1 {} {host} interceptor - {kind} [{ENTERPRISE}",
        stamp(event.time_us)
    );
    let seq = event.entry.seq.to_string();
    let exchange = event.entry.exchange.map(|exchange| exchange.to_string());
    for (name, value) in [
        ("id", event.id().as_str()),
        ("session", &event.session),
        ("seq", &seq),
        ("exchange", exchange.as_deref().unwrap_or_default()),
        ("agent", &event.whose.agent),
        ("target", &event.whose.target),
        ("protocol", &event.whose.protocol),
        ("run", &event.entry.run),
        (
            "verdict",
            event.entry.meta_text("verdict").unwrap_or_default(),
        ),
    ] {
        if !value.is_empty() {
            out.push_str(&format!(" {name}=\"{}\"", parameter(value)));
        }
    }
    out.push_str("] \u{feff}");
    // Controls are written out: a server that splits at line feeds would see two messages.
    let line = interceptor_engine::replay::escape::line(&event.entry.line);
    out.extend(line.chars().take(LINE));
    out
}

/// RFC 5424, section 6.2.3: no more than six digits of a second.
fn stamp(time_us: u64) -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
    );
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_us) * 1000)
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| "-".to_owned())
}

/// Printable ASCII without a space, or `-`.
fn word(text: &str, longest: usize) -> String {
    let word: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(longest)
        .collect();
    if word.is_empty() {
        "-".to_owned()
    } else {
        word
    }
}

/// Section 6.3.3: `"`, `\` and `]` are escaped.
fn parameter(text: &str) -> String {
    let mut out = String::new();
    for one in interceptor_engine::replay::escape::line(text)
        .chars()
        .take(1024)
    {
        if matches!(one, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(one);
    }
    out
}
