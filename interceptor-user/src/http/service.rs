//! The service's leg: connections that are made when they are needed.
//!
//! An agent's connection has one to the service: HTTP/2 shares one between its
//! exchanges, HTTP/1 has as many as exchanges are under way at once, which is one
//! where the agent speaks HTTP/1 too. A connection that the service closed between
//! two exchanges is made again, and a request that was not sent on it goes out on
//! the new one. None is shared between flows: what a service ties to a connection
//! stays with the agent that it was meant for.

use std::io;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use interceptor_engine::http::Failure;
use tokio::task::AbortHandle;

use super::body::Fed;
use super::service_io::{Asked, ServiceIo};
use super::{H2, HTTP_1_1};
use crate::host::lock;
use crate::net::{Dialer, Origin};
use crate::tls::upstream::{self as handshake, Ask, UpstreamTlsError};
use crate::tls::{LegTls, Stream};

/// Bytes of a body that may be under way on one stream.
pub(super) const WINDOW: u32 = 1 << 20;
/// Tries to send one request, where a connection closed before it took it.
const TRIES: usize = 3;

/// Why there is no connection to the service.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It could not be reached.
    #[error("could not connect to {origin}: {source}")]
    Dial {
        /// Where it was to be.
        origin: Origin,
        /// Why.
        source: io::Error,
    },
    /// No encrypted leg.
    #[error("TLS to the service: {0}")]
    Tls(#[from] UpstreamTlsError),
    /// What the target's requests are sent with cannot be had; the operator's log
    /// says more.
    #[error("the target's credentials cannot be used")]
    Credentials,
    /// The connection failed.
    #[error("{0}")]
    Http(String),
}

impl Fault {
    /// Whether the service asked for a certificate that is not there.
    #[must_use]
    pub fn wants_certificate(&self) -> bool {
        matches!(self, Self::Tls(UpstreamTlsError::ClientCertificate))
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Dial { ref source, .. } if source.kind() == io::ErrorKind::TimedOut => {
                Self::TimedOut
            }
            Fault::Dial { .. } | Fault::Credentials => Self::Unreachable(fault.to_string()),
            Fault::Tls(UpstreamTlsError::Certificate(why)) => Self::Untrusted(why),
            Fault::Tls(_) => Self::Untrusted(fault.to_string()),
            Fault::Http(why) => Self::Broken(why),
        }
    }
}

/// How the service is reached.
#[derive(Debug)]
pub struct Service {
    dialer: Dialer,
    origin: Origin,
    /// What is asked of its TLS; `None` for none.
    tls: Option<Ask>,
    http2: bool,
    /// The connection that was made while the flow was opened, or why there is none.
    first: Mutex<Option<Result<Stream, Fault>>>,
    idle: Mutex<Vec<One>>,
    shared: tokio::sync::Mutex<Option<(http2::SendRequest<Fed>, AbortHandle)>>,
    /// Every connection's task, to end them with the flow.
    tasks: Mutex<Vec<AbortHandle>>,
}

/// A connection that has one exchange at a time.
#[derive(Debug)]
struct One {
    sender: http1::SendRequest<Fed>,
    asked: Asked,
    task: AbortHandle,
}

impl Service {
    /// A service at `origin`.
    #[must_use]
    pub fn new(
        dialer: Dialer,
        origin: Origin,
        tls: Option<Ask>,
        http2: bool,
        first: Option<Result<Stream, Fault>>,
    ) -> Self {
        Self {
            dialer,
            origin,
            tls,
            http2,
            first: Mutex::new(first),
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.http2
    }

    /// Whether its leg is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// When there is no connection, or it failed.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<Fed>,
    ) -> Result<(Response<Incoming>, Lease), Fault> {
        let mut tries = 1..=TRIES;
        loop {
            let mut lease = self.lease().await?;
            let (fault, unsent) = match lease.send(request).await {
                Ok(response) => return Ok((response, lease)),
                Err((fault, unsent)) => (fault, unsent),
            };
            lease.abort();
            match unsent {
                Some(unsent) if tries.next().is_some() => request = unsent,
                _ => return Err(fault),
            }
        }
    }

    /// Ends every connection.
    pub fn close(&self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }

    async fn lease(self: &Arc<Self>) -> Result<Lease, Fault> {
        if !self.http2 {
            while let Some(mut one) = { lock(&self.idle).pop() } {
                if !one.sender.is_closed() && one.sender.ready().await.is_ok() {
                    return Ok(Lease::whole(self, one));
                }
                one.task.abort();
            }
            let one = self.open_one().await?;
            return Ok(Lease::whole(self, one));
        }
        let mut shared = self.shared.lock().await;
        if let Some((sender, _)) = shared.as_mut()
            && sender.ready().await.is_ok()
        {
            return Ok(Lease(Leased::Stream(sender.clone())));
        }
        let stream = self.connect().await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Fault::Http(words(&error)))?;
        let task = self.run(async move {
            let _ = connection.await;
        });
        *shared = Some((sender.clone(), task));
        Ok(Lease(Leased::Stream(sender)))
    }

    async fn open_one(&self) -> Result<One, Fault> {
        let stream = self.connect().await?;
        let asked = Asked::default();
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(ServiceIo::new(stream, asked.clone())))
            .await
            .map_err(|error| Fault::Http(words(&error)))?;
        let task = self.run(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(One {
            sender,
            asked,
            task,
        })
    }

    fn run(&self, connection: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let task = tokio::spawn(connection).abort_handle();
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.clone());
        task
    }

    async fn connect(&self) -> Result<Stream, Fault> {
        let first = { lock(&self.first).take() };
        if let Some(first) = first {
            return first;
        }
        let (stream, _) = connect(&self.dialer, &self.origin, self.tls.as_ref()).await?;
        Ok(stream)
    }
}

/// Dials a service, and encrypts where that is asked for.
///
/// # Errors
/// When it cannot be reached, or its TLS is not what is asked for.
pub async fn connect(
    dialer: &Dialer,
    origin: &Origin,
    tls: Option<&Ask>,
) -> Result<(Stream, Option<LegTls>), Fault> {
    let tcp = dialer.dial(origin).await.map_err(|source| Fault::Dial {
        origin: origin.clone(),
        source,
    })?;
    let Some(ask) = tls else {
        return Ok((Stream::Plain(tcp), None));
    };
    let shaken = tokio::time::timeout(dialer.timeout, handshake::connect(tcp, ask));
    match shaken.await {
        Ok(shaken) => {
            let (stream, facts) = shaken?;
            Ok((stream, Some(facts)))
        }
        Err(_) => Err(Fault::Dial {
            origin: origin.clone(),
            source: io::ErrorKind::TimedOut.into(),
        }),
    }
}

/// What of a service's protocols an agent can be offered in turn.
#[must_use]
pub fn speaks_http2(stream: &Stream) -> bool {
    stream.alpn().is_some_and(|protocol| protocol == H2)
}

/// Protocols to offer, of those that an agent offers.
#[must_use]
pub fn offer(offered: &[Vec<u8>]) -> &'static [&'static [u8]] {
    let has = |protocol: &[u8]| offered.iter().any(|one| one == protocol);
    match (has(H2), has(HTTP_1_1)) {
        (true, true) => &[H2, HTTP_1_1],
        (true, false) => &[H2],
        (false, true) => &[HTTP_1_1],
        (false, false) => &[],
    }
}

/// A connection, or a stream of one, for one exchange.
#[derive(Debug)]
pub struct Lease(Leased);

#[derive(Debug)]
enum Leased {
    /// A whole connection, and where it goes back to.
    Whole(Arc<Service>, Option<One>),
    /// One stream of many.
    Stream(http2::SendRequest<Fed>),
}

impl Lease {
    fn whole(service: &Arc<Service>, one: One) -> Self {
        Self(Leased::Whole(Arc::clone(service), Some(one)))
    }

    /// Sends a request; with the fault, the request where none of it was sent.
    async fn send(
        &mut self,
        request: Request<Fed>,
    ) -> Result<Response<Incoming>, (Fault, Option<Request<Fed>>)> {
        let sent = match &mut self.0 {
            Leased::Whole(_, Some(one)) => {
                one.asked.expect(request.method());
                one.sender.try_send_request(request).await
            }
            Leased::Stream(sender) => sender.try_send_request(request).await,
            Leased::Whole(_, None) => {
                return Err((Fault::Http("no connection".to_owned()), Some(request)));
            }
        };
        sent.map_err(|mut failed| {
            let unsent = failed.take_message();
            let error = failed.into_error();
            if asks_for_certificate(&error) {
                return (UpstreamTlsError::ClientCertificate.into(), None);
            }
            (Fault::Http(words(&error)), unsent)
        })
    }

    /// The exchange is over, and the connection as good as before.
    pub fn give_back(mut self) {
        if let Leased::Whole(service, one) = &mut self.0
            && let Some(one) = one.take()
            && !one.sender.is_closed()
        {
            lock(&service.idle).push(one);
        }
    }

    /// The connection was handed over to another protocol: it ends by itself.
    pub fn hand_over(mut self) {
        if let Leased::Whole(_, one) = &mut self.0 {
            one.take();
        }
    }

    /// Nothing more is wanted of the service.
    pub fn abort(self) {
        drop(self);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A stream is reset when its two halves are dropped.
        if let Leased::Whole(_, Some(one)) = &self.0 {
            one.task.abort();
        }
    }
}

/// What went wrong with a message, without anything of the message.
#[must_use]
pub fn words(error: &hyper::Error) -> String {
    use std::error::Error as _;
    let what = if error.is_parse() {
        "it does not speak HTTP as it should"
    } else if error.is_incomplete_message() || error.is_closed() {
        "it closed the connection"
    } else if error.is_timeout() {
        "it took too long"
    } else {
        "the connection failed"
    };
    match error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
    {
        Some(source) => format!("{what} ({})", source.kind()),
        None => what.to_owned(),
    }
}

/// Whether the service ended a handshake because it was shown no certificate; in
/// TLS 1.3 that is found with the first answer.
fn asks_for_certificate(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(one) = source {
        if let Some(error) = one.downcast_ref::<io::Error>()
            && let Some(inner) = error.get_ref()
            && let Some(rustls::Error::AlertReceived(alert)) = inner.downcast_ref()
        {
            return *alert == rustls::AlertDescription::CertificateRequired;
        }
        source = one.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_is_offered() {
        let offered =
            |list: &[&[u8]]| offer(&list.iter().map(|one| one.to_vec()).collect::<Vec<_>>());
        assert_eq!(offered(&[b"h2", b"http/1.1"]), [H2, HTTP_1_1]);
        assert_eq!(offered(&[b"http/1.1", b"spdy/3"]), [HTTP_1_1]);
        assert!(offered(&[b"imap"]).is_empty());
        assert!(offered(&[]).is_empty());
    }
}
