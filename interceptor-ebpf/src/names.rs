//! `getpeername`, and who a datagram is from: an agent sees whom it asked, not the
//! proxy.

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use interceptor_common::{AF_INET, AF_INET6, OriginRecord};

use crate::{PASS, connect::socket, maps::origin_of};

#[inline(always)]
pub fn peer_v4(ctx: &SockAddrContext) -> i32 {
    if let Some(record) = connected(ctx)
        && record.family == AF_INET
    {
        let a = &record.address;
        let ip = u32::from_ne_bytes([a[0], a[1], a[2], a[3]]);
        // SAFETY: fields of the context that the hook may write.
        unsafe { (&raw mut (*ctx.sock_addr).user_ip4).write_volatile(ip) };
        set_port(ctx.sock_addr, record.port);
    }
    PASS
}

#[inline(always)]
pub fn peer_v6(ctx: &SockAddrContext) -> i32 {
    if let Some(record) = connected(ctx)
        && record.family == AF_INET6
    {
        // SAFETY: sixteen bytes either way.
        let words: [u32; 4] = unsafe { core::mem::transmute(record.address) };
        // SAFETY: fields of the context that the hook may write.
        unsafe {
            (&raw mut (*ctx.sock_addr).user_ip6[0]).write_volatile(words[0]);
            (&raw mut (*ctx.sock_addr).user_ip6[1]).write_volatile(words[1]);
            (&raw mut (*ctx.sock_addr).user_ip6[2]).write_volatile(words[2]);
            (&raw mut (*ctx.sock_addr).user_ip6[3]).write_volatile(words[3]);
        }
        set_port(ctx.sock_addr, record.port);
    }
    PASS
}

/// As [`peer_v6`], for an answer: a socket for both families may have asked over IPv4.
#[inline(always)]
pub fn sender_v6(ctx: &SockAddrContext) -> i32 {
    let Some(record) = connected(ctx) else {
        return PASS;
    };
    if record.family != AF_INET {
        return peer_v6(ctx);
    }
    let a = &record.address;
    let ip = u32::from_ne_bytes([a[0], a[1], a[2], a[3]]);
    // SAFETY: fields of the context that the hook may write.
    unsafe {
        (&raw mut (*ctx.sock_addr).user_ip6[0]).write_volatile(0);
        (&raw mut (*ctx.sock_addr).user_ip6[1]).write_volatile(0);
        (&raw mut (*ctx.sock_addr).user_ip6[2]).write_volatile(0xffffu32.to_be());
        (&raw mut (*ctx.sock_addr).user_ip6[3]).write_volatile(ip);
    }
    set_port(ctx.sock_addr, record.port);
    PASS
}

#[inline(always)]
fn connected(ctx: &SockAddrContext) -> Option<OriginRecord> {
    // SAFETY: a full socket, since the hook got it; the copy is of plain data.
    unsafe { origin_of(socket(ctx).cast()).map(|record| *record) }
}

#[inline(always)]
fn set_port(sock_addr: *mut bpf_sock_addr, port: u16) {
    // SAFETY: a field of the context that the hook may write.
    unsafe { (&raw mut (*sock_addr).user_port).write_volatile(u32::from(port.to_be())) };
}
