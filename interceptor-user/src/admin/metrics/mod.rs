//! `admin.metrics`: numbers for Prometheus.
//!
//! * [`list`] is the list of all metrics, a line or a few each;
//! * [`text`] is the format.
//!
//! Numbers only, and no names but those that the configuration has: agents, targets, reasons.
//! So it tells nobody what an agent said or where it went; that it is on a port of its own,
//! and not at the admin socket, is what a collector wants.

mod list;
mod text;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Daemon;
use crate::flow::House;
use crate::net::listen;

/// Connections at once.
const AT_ONCE: usize = 16;
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may stand.
const LONGEST: Duration = Duration::from_secs(600);

/// Listens at `address` and answers until the daemon takes nothing new any more; the one that
/// takes over goes on at the same socket.
///
/// # Errors
/// When it cannot listen there.
pub fn serve(house: &Arc<House>, daemon: Daemon, address: SocketAddr) -> anyhow::Result<()> {
    let listener: TcpListener = house
        .life
        .sockets
        .get(&format!("metrics {address}"), || {
            std::net::TcpListener::bind(address)
        })
        .with_context(|| format!("listening at {address} (admin.metrics)"))?;
    let (house, life) = (Arc::clone(house), Arc::clone(&house.life));
    let room = Arc::new(Semaphore::new(AT_ONCE));
    life.while_serving(async move {
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let stream = listen::next(&listener).await;
            let (house, daemon) = (Arc::clone(&house), daemon.clone());
            tokio::spawn(async move {
                let _place = place;
                let answer = service_fn(move |request| {
                    let answered = answer(&house, &daemon, &request);
                    async move { Ok::<_, Infallible>(answered) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), answer);
                let _ = tokio::time::timeout(LONGEST, served).await;
            });
        }
    });
    Ok(())
}

fn answer<B>(house: &House, daemon: &Daemon, request: &Request<B>) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            // Agents' processes are counted in files of the kernel's.
            let text = tokio::task::block_in_place(|| list::all(house, daemon));
            let mut response = Response::new(Full::from(text));
            let kind = header::HeaderValue::from_static(text::CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        (&Method::GET, _) => plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"),
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
    }
}
