//! The stream of what the kernel refused.

use std::net::SocketAddr;

use aya::maps::{MapData, RingBuf};
use interceptor_common::{Reason, RefusalRecord};
use tokio::io::unix::AsyncFd;

use super::packet::Packet;
use super::{KernelError, address, name};

/// Something the kernel refused an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Where it was going, canonical, where that is known.
    pub address: Option<SocketAddr>,
    /// IP protocol number (6 TCP, 17 UDP, …); 0 where it is not known.
    pub protocol: u32,
    /// Process; `None` where a packet was refused, which no process is behind.
    pub pid: Option<u32>,
    /// Effective user id, where a process is known.
    pub uid: Option<u32>,
    /// The thread's name; empty where a packet was refused.
    pub comm: String,
    /// A Unix socket's name, where one was asked for; an abstract one begins with `@`.
    pub unix: Option<String>,
    /// The socket option that was refused, as manuals call it.
    pub option: Option<String>,
    /// What a refused packet was.
    pub packet: Option<Packet>,
    /// Id of the socket's cgroup.
    pub cgroup_id: u64,
    /// Refusals of the same cgroup that went unreported since its last report.
    pub suppressed: u32,
}

/// The refusals, as they happen.
#[derive(Debug)]
pub struct Refusals {
    ring: AsyncFd<Ring>,
}

/// aya's ring buffer says nothing of itself.
struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl Refusals {
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        // SAFETY: the ring owns its map's descriptor and never changes it.
        let ring = unsafe { AsyncFd::register(Ring(ring)) };
        Ok(Self {
            ring: ring.map_err(|error| waiting(error.into()))?,
        })
    }

    /// The next one; waits for it. Dropping the future loses none.
    ///
    /// # Errors
    /// When the ring can no longer be waited on.
    pub async fn next(&mut self) -> Result<Refusal, KernelError> {
        loop {
            // What is there already raises no event, so look before waiting; the
            // guard is from before the second look, so nothing slips between.
            if let Some(refusal) = take(self.ring.get_mut()) {
                return Ok(refusal);
            }
            let mut guard = self.ring.readable_mut().await.map_err(waiting)?;
            if let Some(refusal) = take(guard.get_inner_mut()) {
                return Ok(refusal);
            }
            guard.clear_ready();
        }
    }
}

fn waiting(source: std::io::Error) -> KernelError {
    KernelError::Io {
        doing: "waiting for",
        path: "the ring of refusals".into(),
        source,
    }
}

/// Takes the next record that makes sense.
fn take(ring: &mut Ring) -> Option<Refusal> {
    loop {
        let item = ring.0.next()?;
        if let Some(refusal) = read(&item) {
            return Some(refusal);
        }
    }
}

fn read(bytes: &[u8]) -> Option<Refusal> {
    if bytes.len() < size_of::<RefusalRecord>() {
        return None;
    }
    // SAFETY: long enough, any bit pattern is a value, and alignment is not assumed.
    let record = unsafe { bytes.as_ptr().cast::<RefusalRecord>().read_unaligned() };
    let known = record.address != [0; 16] || record.port != 0;
    let process = record.uid != u32::MAX;
    let length = usize::try_from(record.detail_length).unwrap_or(usize::MAX);
    let detail = record.detail.get(..length).unwrap_or(&record.detail);
    let is_unix = i32::from(record.family) == libc::AF_UNIX;
    let reason = Reason::from_number(record.reason)?;
    let is_option = reason == Reason::Option;
    Some(Refusal {
        reason,
        address: known
            .then(|| address(record.family, record.address, record.port))
            .flatten(),
        protocol: if is_option { 0 } else { record.protocol },
        pid: process.then_some(record.tgid),
        uid: process.then_some(record.uid),
        comm: name(&record.comm),
        unix: is_unix.then(|| unix_name(detail)),
        option: is_option.then(|| option(record.protocol, record.port)),
        packet: (record.length > 0).then(|| Packet::read(detail, record.length)),
        cgroup_id: record.cgroup_id,
        suppressed: record.suppressed,
    })
}

/// What manuals call an option that the programs refuse.
fn option(level: u32, name: u16) -> String {
    let known = match (level, name) {
        (1, 25) => "SO_BINDTODEVICE",
        (1, 62) => "SO_BINDTOIFINDEX",
        (0, 4) => "IP_OPTIONS",
        (0, 35) => "IP_ADD_MEMBERSHIP",
        (0, 39) => "IP_ADD_SOURCE_MEMBERSHIP",
        (0, 41) => "IP_MSFILTER",
        (0, 50) => "IP_UNICAST_IF",
        (0 | 41, 42) => "MCAST_JOIN_GROUP",
        (0 | 41, 46) => "MCAST_JOIN_SOURCE_GROUP",
        (0 | 41, 48) => "MCAST_MSFILTER",
        (41, 6) => "IPV6_2292PKTOPTIONS",
        (41, 20) => "IPV6_ADD_MEMBERSHIP",
        (41, 27) => "IPV6_JOIN_ANYCAST",
        (41, 54) => "IPV6_HOPOPTS",
        (41, 55) => "IPV6_RTHDRDSTOPTS",
        (41, 57) => "IPV6_RTHDR",
        (41, 59) => "IPV6_DSTOPTS",
        (41, 76) => "IPV6_UNICAST_IF",
        _ => return format!("option {name} of level {level}"),
    };
    known.to_owned()
}

/// A Unix socket's name for people; what an agent wrote into it is no control of a
/// terminal's.
fn unix_name(bytes: &[u8]) -> String {
    let (mark, bytes) = match bytes.split_first() {
        Some((0, name)) => ("@", name),
        _ => ("", bytes),
    };
    let name = String::from_utf8_lossy(bytes);
    let name = name.trim_end_matches('\0');
    let plain = name
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c });
    mark.chars().chain(plain).collect()
}
