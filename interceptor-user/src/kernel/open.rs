//! TCP connections that were open before interception, and are ended.
//!
//! The packets of a socket that no hook saw connect are dropped at the cgroup's egress. So
//! that whoever waits for their answer learns of it at once, and not when the kernel has
//! given up sending them again, the socket itself is ended (`ECONNABORTED`): those of a
//! cgroup when it is attached, and one by one what egress drops a packet of.
//!
//! The kernel is asked over netlink (`sock_diag(7)`), as `ss -K` does. It ends sockets where
//! it was built with `CONFIG_INET_DIAG_DESTROY`; elsewhere they wait as long as they will.
//!
//! What this does not do: it neither sees nor ends sockets of other network namespaces than
//! the daemon's own, which it may not enter, nor anything but TCP, where nobody waits.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use interceptor_common::Reason;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, Nla as _,
};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagDestroy, SockDiagMessage, TCP_LISTEN, TCP_TIME_WAIT,
};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{debug, warn};

use super::{Kernel, Refusal, cgroup};

/// `NETLINK_SOCK_DIAG`.
const SOCK_DIAG: i32 = 4;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP_ID: u16 = 21;
/// Any socket, whatever its cookie.
const ANY: [u8; 8] = [0xff; 8];
/// How long the kernel has for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
const TCP: u8 = 6;

/// A connection over TCP, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTcp {
    family: u8,
    id: SocketId,
    cgroup_id: u64,
    state: u8,
}

impl OpenTcp {
    /// Its own end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.id.source_address.to_canonical(), self.id.source_port)
    }

    /// The other end.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(
            self.id.destination_address.to_canonical(),
            self.id.destination_port,
        )
    }

    fn read(response: &InetResponse) -> Option<Self> {
        let cgroup_id = response.nlas.iter().find_map(|attribute| match attribute {
            Nla::Other(other) if other.kind() == CGROUP_ID && other.value_len() == 8 => {
                let mut value = [0; 8];
                other.emit_value(&mut value);
                Some(u64::from_ne_bytes(value))
            }
            _ => None,
        })?;
        Some(Self {
            family: response.header.family,
            id: response.header.socket_id.clone(),
            cgroup_id,
            state: response.header.state,
        })
    }

    /// A server goes on, and what has ended already stays so.
    fn is_connection(&self) -> bool {
        self.state != TCP_LISTEN && self.state != TCP_TIME_WAIT
    }
}

impl fmt::Display for OpenTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.local(), self.remote())
    }
}

impl Kernel {
    /// The connections of a cgroup and those below it that do not end at the proxy.
    pub(super) fn open_tcp(&self, path: &Path) -> Vec<OpenTcp> {
        let cgroups: BTreeSet<u64> = cgroup::tree(path)
            .filter_map(|path| cgroup::id(&path).ok())
            .collect();
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let port = settings.get(&0, 0).map_or(0, |settings| settings.port);
        let is_meant = |one: &OpenTcp| {
            let to = one.remote();
            let to_proxy = to.ip().is_loopback() && to.port() == port;
            cgroups.contains(&one.cgroup_id) && one.is_connection() && !to_proxy
        };
        let mut open = Vec::new();
        for family in [AF_INET, AF_INET6] {
            match ask(family, SocketId::new_v4(), NLM_F_DUMP) {
                Ok(found) => open.extend(found.into_iter().filter(is_meant)),
                Err(error) => warn!(%error, "open connections cannot be listed, and are not ended"),
            }
        }
        open
    }

    /// Ends the connection whose packet egress dropped; `None` where there is none, or the
    /// kernel does not end it.
    #[must_use]
    pub fn end_dropped(&self, refusal: &Refusal) -> Option<OpenTcp> {
        let packet = refusal.packet.as_ref()?;
        if refusal.reason != Reason::Egress || packet.protocol != Some(TCP) {
            return None;
        }
        let id = SocketId {
            source_port: packet.source_port?,
            destination_port: packet.destination_port?,
            source_address: packet.source?,
            destination_address: packet.destination?,
            interface_id: 0,
            cookie: ANY,
        };
        let family = match id.source_address.is_ipv4() {
            true => AF_INET,
            false => AF_INET6,
        };
        // Where no connection has these ends, a server that listens at the near one is what
        // the kernel finds.
        let found = ask(family, id, 0).ok()?.into_iter().next()?;
        let is_it = found.cgroup_id == refusal.cgroup_id && found.is_connection();
        (is_it && end(&found)).then_some(found)
    }
}

/// Ends connections; says which were there to be ended.
pub(super) fn end_all(mut open: Vec<OpenTcp>) -> Vec<OpenTcp> {
    open.retain(end);
    open
}

fn end(one: &OpenTcp) -> bool {
    let request = SockDiagDestroy::new(request(one.family, one.id.clone()));
    match talk(request, NLM_F_ACK) {
        Ok(_) => true,
        // It ended by itself.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
        Err(error) => {
            debug!(%error, "{one} is cut off, and not ended");
            false
        }
    }
}

fn ask(family: u8, id: SocketId, flags: u16) -> io::Result<Vec<OpenTcp>> {
    let found = talk(request(family, id), flags)?;
    Ok(found.iter().filter_map(OpenTcp::read).collect())
}

fn request(family: u8, socket_id: SocketId) -> SockDiagMessage {
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    })
}

/// Asks the kernel one thing, and reads its answer to the end.
fn talk<M: NetlinkSerializable>(request: M, flags: u16) -> io::Result<Vec<InetResponse>> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(SOCK_DIAG)),
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes)?;
    let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
    let mut answers = Vec::new();
    let mut room = vec![0; 64 << 10];
    loop {
        let length = (&socket).read(&mut room)?;
        let mut rest = room.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match answer.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(one)) => {
                    answers.push(*one);
                    if !is_dump {
                        return Ok(answers);
                    }
                }
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                _ => {}
            }
            let long = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
            rest = rest
                .get(long.next_multiple_of(4).max(4)..)
                .unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_is_found_by_its_ends_and_a_server_is_none() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let id = |from: SocketAddr, to: SocketAddr| SocketId {
            source_port: from.port(),
            destination_port: to.port(),
            source_address: from.ip(),
            destination_address: to.ip(),
            interface_id: 0,
            cookie: ANY,
        };
        let (near, far) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let found = ask(AF_INET, id(near, far), 0).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].local(), found[0].remote()), (near, far));
        assert!(found[0].is_connection() && found[0].cgroup_id > 0);

        let nobody = SocketAddr::new(near.ip(), 1);
        let found = ask(AF_INET, id(far, nobody), 0).unwrap();
        assert!(!found[0].is_connection(), "{found:?}");

        let all = ask(AF_INET, SocketId::new_v4(), NLM_F_DUMP).unwrap();
        assert!(
            all.iter()
                .any(|one| one.local() == near && one.remote() == far)
        );
    }
}
