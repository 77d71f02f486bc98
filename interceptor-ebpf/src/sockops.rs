//! The way of the record from the agent's socket into the one that the proxy
//! accepted.
//!
//! At `TCP_CONNECT` the kernel has fixed a 4-tuple that is unique in the network
//! namespace, and no SYN has left: the record goes into the flow table. At
//! `PASSIVE_ESTABLISHED` the accepted socket exists, and nobody could read it yet:
//! the record moves into its storage. So the proxy asks its own descriptor and never
//! a table, and neither a reused port nor a slow accept can mix up two flows.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_get_netns_cookie, bpf_setsockopt},
    programs::SockOpsContext,
};
use interceptor_common::{
    AF_INET, AF_INET6, COUNTER_ACCEPTED, FLAG_DIRECT, FLAG_PASSIVE, FLAG_STORED, FlowKey, Reason,
    UPSTREAM_MARK,
};

use crate::{
    maps::{FLOWS, count, origin_of, origin_or_new, proxy_port},
    report::{self, Destination, Detail, Who},
};

const TCP_CONNECT: u32 = 3;
const PASSIVE_ESTABLISHED: u32 = 5;
const STATE: u32 = 10;
/// Asks for `STATE` events of this socket.
const WATCH_STATE: i32 = 4;
const TCP_CLOSE: u32 = 7;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

/// Sockets of agents.
#[inline(always)]
pub fn agent(ctx: &SockOpsContext) {
    match ctx.op() {
        TCP_CONNECT => store(ctx),
        PASSIVE_ESTABLISHED => {
            let Some(sk) = socket(ctx) else { return };
            // SAFETY: a full socket, checked by `socket`.
            if let Some(record) = unsafe { origin_or_new(sk) } {
                // SAFETY: the storage lives as long as the socket, which is locked.
                unsafe { (*record).flags = FLAG_PASSIVE };
            }
        }
        STATE if ctx.arg(1) == TCP_CLOSE => forget(ctx),
        _ => {}
    }
}

/// Sockets of the proxy (and of whatever shares its cgroup).
#[inline(always)]
pub fn proxy(ctx: &SockOpsContext) {
    match ctx.op() {
        PASSIVE_ESTABLISHED if proxy_port() == Some(ctx.local_port() as u16) => take(ctx),
        TCP_CONNECT => mark(ctx),
        _ => {}
    }
}

/// Puts an agent's flow into the table, and notes in the socket that it is there.
#[inline(always)]
fn store(ctx: &SockOpsContext) {
    let Some(sk) = socket(ctx) else { return };
    // SAFETY: a full socket, checked by `socket`.
    let Some(record) = (unsafe { origin_of(sk) }) else {
        return;
    };
    // SAFETY: the storage lives as long as the socket, which is locked.
    let record = unsafe { &mut *record };
    if record.family == 0 || record.flags & FLAG_DIRECT != 0 {
        return;
    }
    let key = key(ctx, false);
    if FLOWS.insert(key, *record, 0).is_err() {
        let to = Destination {
            address: record.address,
            port: record.port,
            family: record.family,
            protocol: 6,
        };
        report::report(
            Reason::FlowsFull as u32,
            record.cgroup_id,
            &to,
            Detail::None,
            || Who::of(Some(record)),
        );
        return;
    }
    record.flags |= FLAG_STORED;
    // Not taken back where it fails: the entry then stays until the proxy takes it.
    let _ = ctx.set_cb_flags(WATCH_STATE);
}

/// Removes what the proxy never took.
#[inline(always)]
fn forget(ctx: &SockOpsContext) {
    let Some(sk) = socket(ctx) else { return };
    // SAFETY: a full socket, checked by `socket`.
    let stored = unsafe { origin_of(sk).is_some_and(|record| (*record).flags & FLAG_STORED != 0) };
    if stored {
        let _ = FLOWS.remove(key(ctx, false));
    }
}

/// Moves a flow into the socket that was accepted for it.
#[inline(always)]
fn take(ctx: &SockOpsContext) {
    let key = key(ctx, true);
    let Some(found) = FLOWS.get_ptr(key) else {
        return;
    };
    // A copy: the entry may be recycled as soon as it is removed.
    // SAFETY: the map's memory stays mapped while the program runs.
    let flow = unsafe { *found };
    let Some(sk) = socket(ctx) else { return };
    // SAFETY: a full socket, checked by `socket`.
    if let Some(record) = unsafe { origin_or_new(sk) } {
        // SAFETY: the storage lives as long as the socket, which is locked.
        unsafe { *record = flow };
        count(COUNTER_ACCEPTED);
    }
    let _ = FLOWS.remove(key);
}

/// Marks the proxy's connections to this host, so that an agent's own server can be
/// reached through the proxy and by nobody else.
#[inline(always)]
fn mark(ctx: &SockOpsContext) {
    let (family, _, remote) = addresses(ctx);
    let loopback = if family == AF_INET {
        remote[0].to_ne_bytes()[0] == 127
    } else {
        remote == [0, 0, 0, 1u32.to_be()]
    };
    if loopback {
        let mut mark = UPSTREAM_MARK;
        // SAFETY: context and value are valid. Where it fails, the agent's server
        // sees nobody, which is the safe way round.
        unsafe {
            bpf_setsockopt(
                ctx.ops.cast(),
                SOL_SOCKET,
                SO_MARK,
                (&raw mut mark).cast(),
                4,
            );
        }
    }
}

/// The flow's key, seen from the agent's end or from the proxy's.
#[inline(always)]
fn key(ctx: &SockOpsContext, from_proxy: bool) -> FlowKey {
    let (family, local, remote) = addresses(ctx);
    let local_port = ctx.local_port() as u16;
    let remote_port = u32::from_be(ctx.remote_port()) as u16;
    // SAFETY: the context is valid.
    let netns = unsafe { bpf_get_netns_cookie(ctx.ops.cast()) };
    let (agent, proxy, agent_port, proxy_port) = if from_proxy {
        (remote, local, remote_port, local_port)
    } else {
        (local, remote, local_port, remote_port)
    };
    FlowKey {
        netns,
        // SAFETY: sixteen bytes either way.
        agent: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(agent) },
        // SAFETY: sixteen bytes either way.
        proxy: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(proxy) },
        agent_port,
        proxy_port,
        family,
        reserved: 0,
    }
}

/// Family, local and remote address; a mapped pair is IPv4, as its packets are.
#[inline(always)]
fn addresses(ctx: &SockOpsContext) -> (u16, [u32; 4], [u32; 4]) {
    let ops = ctx.ops;
    if ctx.family() == u32::from(AF_INET6) {
        // SAFETY: fields of the context; volatile, since merged loads are refused.
        let (local, remote) = unsafe {
            (
                [
                    (&raw const (*ops).local_ip6[0]).read_volatile(),
                    (&raw const (*ops).local_ip6[1]).read_volatile(),
                    (&raw const (*ops).local_ip6[2]).read_volatile(),
                    (&raw const (*ops).local_ip6[3]).read_volatile(),
                ],
                [
                    (&raw const (*ops).remote_ip6[0]).read_volatile(),
                    (&raw const (*ops).remote_ip6[1]).read_volatile(),
                    (&raw const (*ops).remote_ip6[2]).read_volatile(),
                    (&raw const (*ops).remote_ip6[3]).read_volatile(),
                ],
            )
        };
        if !(remote[0] == 0 && remote[1] == 0 && remote[2] == 0xffffu32.to_be()) {
            return (AF_INET6, local, remote);
        }
    }
    (
        AF_INET,
        [ctx.local_ip4(), 0, 0, 0],
        [ctx.remote_ip4(), 0, 0, 0],
    )
}

/// The full socket behind the event.
#[inline(always)]
fn socket(ctx: &SockOpsContext) -> Option<*mut c_void> {
    // SAFETY: the union's only real member; null for a socket that is not full.
    let sk: *mut bpf_sock = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    (!sk.is_null()).then(|| sk.cast())
}
