//! Sockets that flows arrive at.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use anyhow::Context as _;
use interceptor_policy::verdict::Severity;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tracing::{info, warn};

use super::House;
use super::serve::{self, Arrival};
use crate::config::Listener;
use crate::dns::Resolver;
use crate::handover::Sockets;
use crate::kernel::Kernel;
use crate::net;
use crate::recorder::Alert;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Their names for the next daemon.
const TCP4: &str = "redirected tcp4";
const TCP6: &str = "redirected tcp6";
const UDP: [&str; 2] = ["redirected udp4", "redirected udp6"];
/// Tries to find a port that is free in both families.
const TRIES: u32 = 64;

/// The two sockets that the kernel redirects to, on one port.
#[derive(Debug)]
pub struct Redirected {
    /// The port.
    pub port: u16,
    v4: TcpListener,
    v6: Option<TcpListener>,
    /// Where questions for names come, on the same port.
    questions: Vec<UdpSocket>,
}

impl Redirected {
    /// Binds both, on a port of the kernel's choice, and hands them to the
    /// kernel programs. A host without IPv6 has no agents that use it.
    ///
    /// # Errors
    /// When no socket can be bound, or the kernel does not take it.
    pub fn bind(kernel: &Kernel, sockets: &Sockets) -> anyhow::Result<Self> {
        if sockets.has(TCP4) {
            return Self::take(kernel, sockets);
        }
        let mut last = None;
        for _ in 0..TRIES {
            let v4 = listen((Ipv4Addr::LOCALHOST, 0).into()).context("listening on 127.0.0.1")?;
            let port = v4.local_addr().context("listening on 127.0.0.1")?.port();
            let in_use = |error: &std::io::Error| error.raw_os_error() == Some(libc::EADDRINUSE);
            let mut questions = match std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
                Ok(socket) => vec![socket],
                Err(error) if in_use(&error) => {
                    last = Some(error);
                    continue;
                }
                Err(error) => return Err(error).context("listening on 127.0.0.1 for UDP"),
            };
            let v6 = listen((Ipv6Addr::LOCALHOST, port).into());
            match v6
                .and_then(|v6| Ok((v6, std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, port))?)))
            {
                Ok((v6, socket)) => {
                    questions.push(socket);
                    return Self::adopt(kernel, sockets, port, v4, Some(v6), questions);
                }
                Err(error) if in_use(&error) => last = Some(error),
                Err(error) => {
                    warn!(%error, "no IPv6 on this host: agents' connections over it are refused");
                    return Self::adopt(kernel, sockets, port, v4, None, questions);
                }
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("no port"), Into::into))
    }

    /// The sockets of the daemon before this one.
    fn take(kernel: &Kernel, sockets: &Sockets) -> anyhow::Result<Self> {
        let context = "taking the listeners of the daemon before";
        let v4: TcpListener = sockets.get(TCP4, none).context(context)?;
        let port = v4.local_addr().context(context)?.port();
        let v6 = match sockets.has(TCP6) {
            true => Some(sockets.get(TCP6, none).context(context)?),
            false => None,
        };
        let mut questions = Vec::new();
        for name in UDP {
            if sockets.has(name) {
                questions.push(sockets.get(name, none).context(context)?);
            }
        }
        Self::marked(kernel, port, v4, v6, questions)
    }

    /// Has the next daemon find them.
    fn adopt(
        kernel: &Kernel,
        sockets: &Sockets,
        port: u16,
        v4: std::net::TcpListener,
        v6: Option<std::net::TcpListener>,
        questions: Vec<std::net::UdpSocket>,
    ) -> anyhow::Result<Self> {
        let v4 = sockets.get(TCP4, || Ok(v4))?;
        let v6 = v6.map(|v6| sockets.get(TCP6, || Ok(v6))).transpose()?;
        let named = UDP.into_iter().zip(questions);
        let questions = named
            .map(|(name, socket)| sockets.get(name, || Ok(socket)))
            .collect::<std::io::Result<_>>()?;
        Self::marked(kernel, port, v4, v6, questions)
    }

    fn marked(
        kernel: &Kernel,
        port: u16,
        v4: TcpListener,
        v6: Option<TcpListener>,
        questions: Vec<UdpSocket>,
    ) -> anyhow::Result<Self> {
        kernel.adopt_listener(v4.as_fd())?;
        if let Some(v6) = &v6 {
            kernel.adopt_listener(v6.as_fd())?;
        }
        for socket in &questions {
            kernel.adopt_listener(socket.as_fd())?;
        }
        kernel.set_port(port)?;
        kernel.set_when_down(v4.as_fd())?;
        Ok(Self {
            port,
            v4,
            v6,
            questions,
        })
    }

    /// Accepts until the task is dropped.
    pub fn accept(self, house: &Arc<House>) {
        for socket in self.questions {
            Resolver::accept(house, socket);
        }
        for listener in std::iter::once(self.v4).chain(self.v6) {
            let (house, life) = (Arc::clone(house), Arc::clone(&house.life));
            life.while_serving(async move {
                loop {
                    let tcp = net::listen::next(&listener).await;
                    let flow = redirected(Arc::clone(&house), tcp);
                    house.life.connection(flow);
                }
            });
        }
    }
}

async fn redirected(house: Arc<House>, tcp: TcpStream) {
    let Some(kernel) = house.kernel.as_ref() else {
        return;
    };
    match kernel.origin(tcp.as_fd()) {
        Ok(Some(origin)) => serve::accepted(house, tcp, Arrival::Redirected(origin)).await,
        Ok(None) => {
            let peer = tcp.peer_addr().map(|peer| peer.to_string());
            let line = format!(
                "a connection to the proxy's port that no redirect made was closed (from {})",
                peer.as_deref().unwrap_or("an unknown address")
            );
            warn!("{line}");
            house.recorder.alert(Alert {
                severity: Severity::Medium,
                kind: "bypass",
                line,
                meta: serde_json::json!({"reason": "forged", "peer": peer.ok()}).to_string(),
            });
        }
        Err(error) => {
            warn!(%error, "the kernel does not say where a connection was going: closed");
        }
    }
}

/// Listens at an explicit address for a target, and accepts until dropped.
///
/// # Errors
/// When the address cannot be bound.
pub fn explicit(house: &Arc<House>, listener: &Listener) -> anyhow::Result<()> {
    let name = format!("listener {}", listener.listen);
    let socket: TcpListener = house
        .life
        .sockets
        .get(&name, || listen(listener.listen))
        .with_context(|| format!("listening on {} for {}", listener.listen, listener.target))?;
    info!(address = %listener.listen, target = %listener.target, "listening");
    let (house, life) = (Arc::clone(house), Arc::clone(&house.life));
    let listener = Arc::new(listener.clone());
    life.while_serving(async move {
        loop {
            let tcp = net::listen::next(&socket).await;
            let arrival = Arrival::Explicit(Arc::clone(&listener));
            let flow = serve::accepted(Arc::clone(&house), tcp, arrival);
            house.life.connection(flow);
        }
    });
    Ok(())
}

/// What makes a socket that the daemon before had.
fn none<S>() -> std::io::Result<S> {
    Err(std::io::ErrorKind::NotFound.into())
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if address.port() != 0 {
        // A restart must not wait for the connections of the one before.
        socket.set_reuse_address(true)?;
    }
    socket.set_cloexec(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
