//! Asking the name servers of this machine.
//!
//! What is sent is made here from the name and the type alone: numbers, flags and
//! options of the agent's own question would be a message as well.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Times that all servers are asked.
const TRIES: usize = 2;
/// The longest answer that is asked for in a datagram; what every path carries.
const ROOM: u16 = 1232;
/// Where the system's servers are written.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The system's servers, as its own programs read them: at most three.
#[must_use]
pub fn of_the_system() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    servers(&text)
}

fn servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .take(3)
        .collect()
}

/// Asks one server after the other, and gives the first answer.
///
/// # Errors
/// When none answers.
pub async fn ask(servers: &[SocketAddr], query: &Query) -> io::Result<Message> {
    let mut last = io::Error::other("no name server is configured");
    for server in servers.iter().cycle().take(servers.len() * TRIES) {
        match tokio::time::timeout(PATIENCE, one(*server, query)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn one(server: SocketAddr, query: &Query) -> io::Result<Message> {
    // A number of hickory's drawing, and a port of the kernel's.
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(ROOM);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = [0; 4096];
    let answer = loop {
        let read = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..read).map(Message::from_vec);
        // What answers something else was not asked for: it is not waited upon.
        if let Some(Ok(answer)) = answer
            && answers(&answer, &question)
        {
            break answer;
        }
    };
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    let mut tcp = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    tcp.write_all(&length.to_be_bytes()).await?;
    tcp.write_all(&bytes).await?;
    let length = tcp.read_u16().await?;
    let mut whole = vec![0; usize::from(length)];
    tcp.read_exact(&mut whole).await?;
    let answer = Message::from_vec(&whole).map_err(io::Error::other)?;
    match answers(&answer, &question) {
        true => Ok(answer),
        false => Err(io::Error::other("an answer to another question")),
    }
}

fn answers(answer: &Message, question: &Message) -> bool {
    answer.metadata.id == question.metadata.id && answer.queries == question.queries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_servers_are_read_as_its_programs_read_them() {
        let text =
            "# x\nnameserver 10.0.0.2\noptions edns0\n nameserver fd00::1 \nnameserver bad\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.2:53", "[fd00::1]:53"]);
    }
}
