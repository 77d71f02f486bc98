//! Which sockets an agent may have, and what it may bind.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_cgroup_id, bpf_set_retval},
    programs::{SockAddrContext, SockContext},
};
use interceptor_common::{AF_INET, Reason};

use crate::{
    PASS, REFUSE,
    connect::{IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM, SOCK_STREAM, refuse},
    maps::{origin_or_new, proxy_port},
    report::{self, Destination, Who},
};

const EPROTONOSUPPORT: i32 = 93;

/// Lets TCP and UDP sockets be created. A stream of another kind (MPTCP, SCTP) is
/// answered with "not supported", on which runtimes that only try fall back to TCP;
/// the rest (raw, ping, UDP-Lite) with `EPERM`.
#[inline(always)]
pub fn create(ctx: &SockContext) -> i32 {
    let sock = ctx.sock;
    // SAFETY: fields of the context that the hook may read.
    let (family, kind, protocol) = unsafe { ((*sock).family, (*sock).type_, (*sock).protocol) };
    // SAFETY: no arguments.
    let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let tcp = kind == SOCK_STREAM && protocol == IPPROTO_TCP;
    let udp = kind == SOCK_DGRAM && protocol == IPPROTO_UDP;
    let reason = if tcp || udp {
        // The cgroup that the socket is born in is the one whose hooks it meets all
        // its life, whoever connects it later. This is where it is known.
        // SAFETY: the context of this hook is the full socket.
        match unsafe { origin_or_new(sock.cast()) } {
            Some(record) => {
                let who = Who::runs();
                // SAFETY: nobody else knows the socket yet.
                unsafe {
                    (*record).cgroup_id = cgroup_id;
                    (*record).comm = who.comm;
                    (*record).tgid = who.tgid;
                    (*record).uid = who.uid;
                }
                return PASS;
            }
            None => Reason::NoStorage,
        }
    } else {
        Reason::SocketKind
    };
    if kind == SOCK_STREAM && protocol != IPPROTO_TCP {
        // SAFETY: a number.
        unsafe { bpf_set_retval(-EPROTONOSUPPORT) };
    }
    let nowhere = Destination {
        address: [0; 16],
        port: 0,
        family: family as u16,
        protocol,
    };
    report::of_process(reason, cgroup_id, &nowhere);
    REFUSE
}

/// Keeps the proxy's port for the proxy, so that nobody takes it over while the
/// daemon is down.
#[inline(always)]
pub fn bind(ctx: &SockAddrContext) -> i32 {
    // SAFETY: fields of the context that the hook may read.
    let (port, family, protocol) = unsafe {
        (
            u16::from_be((*ctx.sock_addr).user_port as u16),
            (*ctx.sock_addr).family,
            (*ctx.sock_addr).protocol,
        )
    };
    if port == 0 || proxy_port() != Some(port) {
        return PASS;
    }
    let nowhere = Destination {
        address: [0; 16],
        port,
        family: if family == 0 { AF_INET } else { family as u16 },
        protocol,
    };
    refuse(ctx, Reason::ProxyPort, &nowhere)
}
