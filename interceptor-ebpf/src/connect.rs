//! `connect`, and datagrams to name servers: note the origin, rewrite the destination;
//! and refuse everything else.
//!
//! The order matters: everything that can refuse comes before the record is
//! written, and the record before the destination is rewritten. An address that is
//! mapped (`::ffff:a.b.c.d`) is rewritten to a mapped one, so that a socket bound to
//! a mapped source keeps working.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{bpf_sock_addr, bpf_sock_tuple},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{
            bpf_bind, bpf_get_current_cgroup_id, bpf_get_prandom_u32, bpf_sk_lookup_tcp,
            bpf_sk_lookup_udp, bpf_sk_release,
        },
    },
    programs::SockAddrContext,
};
use interceptor_common::{
    AF_INET, AF_INET6, COUNTER_REDIRECTED, COVERED_REDIRECTED, DNS_PORT, FLAG_DIRECT,
    LISTENER_MARK, OriginRecord, Reason,
};

use crate::{
    PASS, REFUSE, down,
    maps::{count, cover, listener_mark, origin_of, origin_or_new, proxy_port},
    report::{self, Destination},
};

pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;
/// `lo` has this index in every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;
const LOOPBACK_V4: [u8; 4] = [127, 0, 0, 1];
const LOOPBACK_V6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Sources that connects are spread over: 127.0.0.2 and so many behind it, a power of two.
const SOURCES: u32 = 16;

/// Which loopback address a connect is rewritten to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    V4,
    V6,
    Mapped,
}

#[inline(always)]
pub fn v4(ctx: &SockAddrContext) -> i32 {
    let verdict = redirect(ctx, destination_v4(ctx), Kind::V4);
    if verdict == PASS {
        spread(ctx, Kind::V4);
    }
    verdict
}

#[inline(always)]
pub fn v6(ctx: &SockAddrContext) -> i32 {
    let to = destination_v6(ctx);
    let kind = if is_mapped(&to.address) {
        Kind::Mapped
    } else {
        Kind::V6
    };
    let verdict = redirect(ctx, to, kind);
    if verdict == PASS && kind == Kind::Mapped {
        spread(ctx, kind);
    }
    verdict
}

#[inline(always)]
pub fn datagram_v4(ctx: &SockAddrContext) -> i32 {
    datagram(ctx, destination_v4(ctx), Kind::V4)
}

#[inline(always)]
pub fn datagram_v6(ctx: &SockAddrContext) -> i32 {
    datagram(ctx, destination_v6(ctx), Kind::V6)
}

/// A datagram to an address. A socket that is connected to a mapped one says here the
/// address that `connect` has rewritten already.
#[inline(always)]
fn datagram(ctx: &SockAddrContext, to: Destination, kind: Kind) -> i32 {
    if to.port == DNS_PORT {
        return redirect(ctx, to, kind);
    }
    // SAFETY: a full socket, since the hook got it.
    let asks = unsafe { origin_of(socket(ctx).cast::<c_void>()) }
        // SAFETY: the storage lives as long as the socket.
        .is_some_and(|record| unsafe { (*record).port } == DNS_PORT);
    if asks && proxy_port() == Some(to.port) && is_proxy(&to.address, kind) {
        return PASS;
    }
    refuse(ctx, Reason::Datagram, &to)
}

#[inline(always)]
fn redirect(ctx: &SockAddrContext, to: Destination, kind: Kind) -> i32 {
    let sock_addr = ctx.sock_addr;
    // SAFETY: the context is valid for the program's run, here and below.
    let socket_type = unsafe { (*sock_addr).type_ };
    let stream = socket_type == SOCK_STREAM && to.protocol == IPPROTO_TCP;
    let asks = socket_type == SOCK_DGRAM && to.protocol == IPPROTO_UDP && to.port == DNS_PORT;
    if !stream && !asks {
        return refuse(ctx, Reason::ConnectKind, &to);
    }
    let sk = socket(ctx);
    // A socket bound to a device sends its SYN there, loopback address or not.
    // SAFETY: as above.
    let device = unsafe { (*sk).bound_dev_if };
    if device != 0 && device != LOOPBACK_INDEX {
        return refuse(ctx, Reason::DeviceBound, &to);
    }
    // 0 is nobody's: none, and no destination.
    let port = proxy_port().unwrap_or(0);
    if port != 0 && to.port == port && is_proxy(&to.address, kind) {
        return refuse(ctx, Reason::Loop, &to);
    }
    let listens = port != 0 && listens(ctx, kind, port, stream);
    // SAFETY: a full socket, since the hook got it.
    let Some(record) = (unsafe { origin_or_new(sk.cast()) }) else {
        return refuse(ctx, Reason::NoStorage, &to);
    };
    // SAFETY: the storage lives as long as the socket, which `connect` holds locked.
    let record = unsafe { &mut *record };
    note(record, &to);
    if !listens {
        // Where it listens, and not for this family, the daemon is there.
        let era = match listens_here(ctx) {
            true => None,
            false => down::may_go(ctx, record.cgroup_id),
        };
        let Some(era) = era else {
            return refuse(ctx, Reason::NoListener, &to);
        };
        record.era = era;
        record.flags = FLAG_DIRECT;
        return PASS;
    }
    // SAFETY: as above.
    unsafe { rewrite(sock_addr, kind, port) };
    if stream {
        count(COUNTER_REDIRECTED);
        cover(record.cgroup_id, COVERED_REDIRECTED);
    }
    PASS
}

/// Gives a TCP socket a source on loopback, where it has none of its own. All flows have
/// one destination, so from one source there would be no more of them than there are
/// ephemeral ports: 28,000. `::1` is alone, and stays.
///
/// What is bound already, or cannot be, keeps what it has.
#[inline(always)]
fn spread(ctx: &SockAddrContext, kind: Kind) {
    // SAFETY: fields of the context and of its socket that the hook may read.
    let is_free = unsafe {
        let sk = socket(ctx);
        let source = if kind == Kind::V4 {
            (*sk).src_ip4
        } else {
            (*sk).src_ip6[3]
        };
        // What goes direct goes out by the host's own address.
        let direct =
            origin_of(sk.cast::<c_void>()).is_some_and(|record| (*record).flags & FLAG_DIRECT != 0);
        (*ctx.sock_addr).type_ == SOCK_STREAM && source == 0 && !direct
    };
    if !is_free {
        return;
    }
    // SAFETY: no arguments.
    let which = unsafe { bpf_get_prandom_u32() } & (SOURCES - 1);
    let address = u32::from_be_bytes([127, 0, 0, 2])
        .wrapping_add(which)
        .to_be();
    // Port 0 leaves the choice to `connect`, which knows the destination.
    if kind == Kind::V4 {
        bind(
            ctx,
            Source4 {
                family: AF_INET,
                port: 0,
                address,
                zero: [0; 8],
            },
        );
    } else {
        bind(
            ctx,
            Source6 {
                family: AF_INET6,
                port: 0,
                flow: 0,
                address: [0, 0, 0xffffu32.to_be(), address],
                scope: 0,
            },
        );
    }
}

#[inline(always)]
fn bind<T>(ctx: &SockAddrContext, mut source: T) {
    let length = size_of::<T>() as i32;
    // SAFETY: the address lies on the stack, as long as is said.
    unsafe { bpf_bind(ctx.sock_addr.cast(), (&raw mut source).cast(), length) };
}

/// `sockaddr_in`.
#[repr(C)]
struct Source4 {
    family: u16,
    port: u16,
    address: u32,
    zero: [u8; 8],
}

/// `sockaddr_in6`.
#[repr(C)]
struct Source6 {
    family: u16,
    port: u16,
    flow: u32,
    address: [u32; 4],
    scope: u32,
}

/// Writes the origin into the socket's record. The cgroup that the socket was born
/// in stays, since all hooks follow that one, whoever connects it.
#[inline(always)]
fn note(record: &mut OriginRecord, to: &Destination) {
    let uid_gid = bpf_get_current_uid_gid();
    record.address = to.address;
    record.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    if record.cgroup_id == 0 {
        // SAFETY: no arguments.
        record.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    }
    record.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    record.uid = uid_gid as u32;
    record.gid = (uid_gid >> 32) as u32;
    record.flags = 0;
    record.port = to.port;
    record.family = to.family;
}

/// Whether the proxy's own listener would take the connection, or the question, in the network
/// namespace of the socket.
#[inline(always)]
pub fn listens_here(ctx: &SockAddrContext) -> bool {
    proxy_port().is_some_and(|port| listens(ctx, Kind::V4, port, true))
}

/// As [`listens_here`], for one address and kind of socket.
#[inline(always)]
fn listens(ctx: &SockAddrContext, kind: Kind, port: u16, stream: bool) -> bool {
    // SAFETY: all bytes zero is a valid value of these plain structures.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if kind == Kind::V6 {
        // SAFETY: plain data; which member counts is said by the size.
        let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        v6.saddr[3] = 1u32.to_be();
        v6.daddr[3] = 1u32.to_be();
        v6.dport = port.to_be();
        36
    } else {
        // SAFETY: as above.
        let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        v4.saddr = u32::from_ne_bytes(LOOPBACK_V4);
        v4.daddr = u32::from_ne_bytes(LOOPBACK_V4);
        v4.dport = port.to_be();
        12
    };
    // BPF_F_CURRENT_NETNS.
    let netns = u64::MAX;
    // SAFETY: context and tuple are valid; the socket is released below.
    unsafe {
        let ctx = ctx.sock_addr.cast();
        let found = if stream {
            bpf_sk_lookup_tcp(ctx, &raw mut tuple, size, netns, 0)
        } else {
            bpf_sk_lookup_udp(ctx, &raw mut tuple, size, netns, 0)
        };
        if found.is_null() {
            return false;
        }
        let ours = listener_mark(found.cast()) == Some(LISTENER_MARK);
        bpf_sk_release(found.cast());
        ours
    }
}

/// Sets the destination to the proxy.
///
/// Volatile, word by word: LLVM would merge neighbours into a store that the
/// verifier refuses.
#[inline(always)]
unsafe fn rewrite(sock_addr: *mut bpf_sock_addr, kind: Kind, port: u16) {
    let words: [u32; 4] = match kind {
        Kind::V6 => [0, 0, 0, 1u32.to_be()],
        Kind::Mapped | Kind::V4 => [0, 0, 0xffffu32.to_be(), u32::from_ne_bytes(LOOPBACK_V4)],
    };
    // SAFETY: fields of the context that the hook may write.
    unsafe {
        if kind == Kind::V4 {
            (&raw mut (*sock_addr).user_ip4).write_volatile(words[3]);
        } else {
            (&raw mut (*sock_addr).user_ip6[0]).write_volatile(words[0]);
            (&raw mut (*sock_addr).user_ip6[1]).write_volatile(words[1]);
            (&raw mut (*sock_addr).user_ip6[2]).write_volatile(words[2]);
            (&raw mut (*sock_addr).user_ip6[3]).write_volatile(words[3]);
        }
        (&raw mut (*sock_addr).user_port).write_volatile(u32::from(port.to_be()));
    }
}

/// Refuses, and says so.
#[inline(always)]
pub fn refuse(ctx: &SockAddrContext, reason: Reason, to: &Destination) -> i32 {
    // SAFETY: a full socket, since the hook got it.
    let born_in =
        unsafe { origin_of(socket(ctx).cast::<c_void>()).map(|record| (*record).cgroup_id) };
    let cgroup_id = match born_in {
        Some(id) if id != 0 => id,
        // SAFETY: no arguments.
        _ => unsafe { bpf_get_current_cgroup_id() },
    };
    report::of_process(reason, cgroup_id, to);
    REFUSE
}

/// The destination of an IPv4 address; unspecified means loopback, as for the kernel.
#[inline(always)]
pub fn destination_v4(ctx: &SockAddrContext) -> Destination {
    // SAFETY: fields of the context that the hook may read.
    let (ip, port, protocol) = unsafe {
        (
            (*ctx.sock_addr).user_ip4,
            (*ctx.sock_addr).user_port,
            (*ctx.sock_addr).protocol,
        )
    };
    let ip = if ip == 0 {
        LOOPBACK_V4
    } else {
        ip.to_ne_bytes()
    };
    let mut address = [0; 16];
    address[0] = ip[0];
    address[1] = ip[1];
    address[2] = ip[2];
    address[3] = ip[3];
    Destination {
        address,
        port: u16::from_be(port as u16),
        family: AF_INET,
        protocol,
    }
}

/// The destination of an IPv6 address; unspecified means loopback, mapped or not.
#[inline(always)]
pub fn destination_v6(ctx: &SockAddrContext) -> Destination {
    // SAFETY: fields of the context that the hook may read; volatile, since merged
    // loads are refused by the verifier as merged stores are.
    let (words, port, protocol) = unsafe {
        let sock_addr = ctx.sock_addr;
        (
            [
                (&raw const (*sock_addr).user_ip6[0]).read_volatile(),
                (&raw const (*sock_addr).user_ip6[1]).read_volatile(),
                (&raw const (*sock_addr).user_ip6[2]).read_volatile(),
                (&raw const (*sock_addr).user_ip6[3]).read_volatile(),
            ],
            (*sock_addr).user_port,
            (*sock_addr).protocol,
        )
    };
    let mut words = words;
    if words[0] == 0 && words[1] == 0 && words[3] == 0 {
        if words[2] == 0 {
            words[3] = 1u32.to_be();
        } else if words[2] == 0xffffu32.to_be() {
            words[3] = u32::from_ne_bytes(LOOPBACK_V4);
        }
    }
    // SAFETY: sixteen bytes either way.
    let address: [u8; 16] = unsafe { core::mem::transmute(words) };
    Destination {
        address,
        port: u16::from_be(port as u16),
        family: AF_INET6,
        protocol,
    }
}

#[inline(always)]
pub fn socket(ctx: &SockAddrContext) -> *mut aya_ebpf::bindings::bpf_sock {
    // SAFETY: the union's only real member.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

#[inline(always)]
fn is_mapped(address: &[u8; 16]) -> bool {
    let words = words(address);
    words[0] == 0 && words[1] == 0 && words[2] == 0xffffu32.to_be()
}

/// Whether the address is one that the proxy listens on.
#[inline(always)]
fn is_proxy(address: &[u8; 16], kind: Kind) -> bool {
    let have = words(address);
    match kind {
        Kind::V4 => have[0] == u32::from_ne_bytes(LOOPBACK_V4),
        Kind::Mapped => have[3] == u32::from_ne_bytes(LOOPBACK_V4),
        Kind::V6 => have == words(&LOOPBACK_V6),
    }
}

#[inline(always)]
fn words(address: &[u8; 16]) -> [u32; 4] {
    // SAFETY: sixteen bytes either way.
    unsafe { core::mem::transmute(*address) }
}
