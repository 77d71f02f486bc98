//! The programs at the agents' cgroup, entry points only.
//!
//! | hook | does |
//! | --- | --- |
//! | `sock_create` | lets TCP and UDP sockets be, remembers their cgroup |
//! | `connect4`, `connect6` | TCP, and UDP to port 53: notes the origin, rewrites to the proxy; all else is refused |
//! | `sendmsg4`, `sendmsg6` | to port 53: the same; all else is refused |
//! | `getpeername4`, `getpeername6`, `recvmsg4`, `recvmsg6` | names the origin, not the proxy |
//! | `bind4`, `bind6` | refuses the proxy's port |
//! | `connect` and datagrams of Unix sockets | listed: to the proxy, or where the list says; all else by the operator's default (Linux 6.7) |
//! | `setsockopt` | refuses what leads around the redirection |
//! | sock_ops (agents) | puts the flow into the table once its addresses are fixed |
//! | sock_ops (proxy) | moves the flow from the table into the accepted socket |
//! | skb egress, ingress | default deny: only redirected flows, questions to the resolver, and an agent's own servers on loopback |
//!
//! Every helper used here is there on Linux 6.1 for its program type, but for those of the
//! two programs for Unix sockets, which are left out there; the object is loaded there by
//! a test.
//!
//! What these programs do not do: see AF_VSOCK or AF_PACKET sockets, or sockets that were
//! born outside the cgroup.
#![no_std]
#![no_main]

mod backstop;
mod connect;
mod down;
mod listener;
mod maps;
mod names;
mod options;
mod report;
mod sockets;
mod sockops;
mod unix;

use aya_ebpf::{
    macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, sock_ops},
    programs::{SkBuffContext, SockAddrContext, SockContext, SockOpsContext, SockoptContext},
};

/// The kernel's "go on" for every hook here.
const PASS: i32 = 1;
/// The kernel's "no" (`EPERM` where nothing else was set).
const REFUSE: i32 = 0;

#[cgroup_sock(sock_create)]
fn created(ctx: SockContext) -> i32 {
    sockets::create(&ctx)
}

#[cgroup_sock_addr(connect4)]
fn connect_v4(ctx: SockAddrContext) -> i32 {
    connect::v4(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn connect_v6(ctx: SockAddrContext) -> i32 {
    connect::v6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg_v4(ctx: SockAddrContext) -> i32 {
    connect::datagram_v4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg_v6(ctx: SockAddrContext) -> i32 {
    connect::datagram_v6(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
fn peer_v4(ctx: SockAddrContext) -> i32 {
    names::peer_v4(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
fn peer_v6(ctx: SockAddrContext) -> i32 {
    names::peer_v6(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg_v4(ctx: SockAddrContext) -> i32 {
    names::peer_v4(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg_v6(ctx: SockAddrContext) -> i32 {
    names::sender_v6(&ctx)
}

#[cgroup_sock_addr(bind4)]
fn bind_v4(ctx: SockAddrContext) -> i32 {
    sockets::bind(&ctx)
}

#[cgroup_sock_addr(bind6)]
fn bind_v6(ctx: SockAddrContext) -> i32 {
    sockets::bind(&ctx)
}

// The two for Unix sockets stand in sections of their kind of program; user space attaches
// them where they belong.
#[cgroup_sock_addr(connect4)]
fn unix_connect(ctx: SockAddrContext) -> i32 {
    unix::connect(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn unix_sendmsg(ctx: SockAddrContext) -> i32 {
    unix::datagram(&ctx)
}

#[cgroup_sockopt(setsockopt)]
fn set_option(ctx: SockoptContext) -> i32 {
    options::set(&ctx)
}

#[sock_ops]
fn agent_ops(ctx: SockOpsContext) -> u32 {
    sockops::agent(&ctx);
    1
}

#[sock_ops]
fn proxy_ops(ctx: SockOpsContext) -> u32 {
    sockops::proxy(&ctx);
    1
}

#[cgroup_skb(egress)]
fn egress(ctx: SkBuffContext) -> i32 {
    backstop::egress(&ctx)
}

#[cgroup_skb(ingress)]
fn ingress(ctx: SkBuffContext) -> i32 {
    backstop::ingress(&ctx)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// No helper used here asks for the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";
