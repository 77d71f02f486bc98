//! Packets: default deny.
//!
//! The load-bearing half. Whatever way round `connect` there is (a routing header, a
//! device, a socket kind nobody thought of), its packets end here, unless they go
//! over loopback, to the proxy, from a socket whose record is in the flow table, or a
//! question to the proxy's resolver, whose asker is written down on the way.
//!
//! An agent's own servers are let be on loopback: their answers may leave, and what
//! reaches them must come from the proxy's upstream leg, which is marked, and so has
//! been judged.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_skb_cgroup_id, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use interceptor_common::{
    AF_INET, AF_INET6, COVERED_QUESTIONS, DNS_PORT, FLAG_PASSIVE, FLAG_STORED, QueryKey, Reason,
    UPSTREAM_MARK,
};

use crate::{
    PASS, REFUSE,
    connect::LOOPBACK_INDEX,
    down,
    maps::{QUERIES, cover, origin_of, proxy_port},
    report::{self, Destination, Detail, Who},
};

const ETH_P_IP: u32 = 0x0800;
const ETH_P_IPV6: u32 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_LISTEN: u32 = 10;

/// The headers that are looked at.
#[derive(Clone, Copy)]
struct Packet {
    source: [u32; 4],
    destination: [u32; 4],
    source_port: u16,
    destination_port: u16,
    family: u16,
    protocol: u8,
    /// No options, no extension headers, and the transport is TCP.
    plain_tcp: bool,
    /// The same, and it is UDP.
    plain_udp: bool,
}

#[inline(always)]
pub fn egress(ctx: &SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let packet = parse(skb);
    let sk = full_socket(skb);
    if let (Some(packet), Some(sk)) = (&packet, sk)
        && may_leave(skb, packet, sk)
    {
        return PASS;
    }
    refuse(skb, Reason::Egress, packet, sk)
}

#[inline(always)]
pub fn ingress(ctx: &SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let packet = parse(skb);
    let sk = full_socket(skb);
    if let (Some(packet), Some(sk)) = (&packet, sk)
        && may_arrive(skb, packet, sk)
    {
        return PASS;
    }
    // Whoever is behind the socket has no part in what a stranger sends.
    refuse(skb, Reason::Ingress, packet, None)
}

#[inline(always)]
fn may_leave(skb: *mut __sk_buff, packet: &Packet, sk: *mut bpf_sock) -> bool {
    // SAFETY: a full socket, checked by `full_socket`.
    if let Some(record) = unsafe { origin_of(sk.cast()) }
        && (packet.plain_tcp || packet.plain_udp)
        // SAFETY: the storage lives as long as the socket.
        && down::is_between(unsafe { &*record }, packet.family, &packet.destination, packet.destination_port)
    {
        return true;
    }
    // SAFETY: a field of the context.
    if unsafe { (*skb).ifindex } != LOOPBACK_INDEX {
        return false;
    }
    if packet.plain_udp {
        return may_ask(packet, sk);
    }
    if !packet.plain_tcp {
        return false;
    }
    if !is_loopback(packet.family, &packet.destination) {
        return false;
    }
    // SAFETY: a full socket, checked by `full_socket`.
    let flags = unsafe { origin_of(sk.cast()).map_or(0, |record| (*record).flags) };
    if flags & FLAG_STORED != 0 {
        return is_proxy_address(packet.family, &packet.destination)
            && proxy_port() == Some(packet.destination_port);
    }
    // SAFETY: a field of a full socket.
    flags & FLAG_PASSIVE != 0 || unsafe { (*sk).state } == TCP_LISTEN
}

/// Whether a datagram is a question to the resolver; whose it is, is written down first.
#[inline(always)]
fn may_ask(packet: &Packet, sk: *mut bpf_sock) -> bool {
    if proxy_port() != Some(packet.destination_port)
        || !is_proxy_address(packet.family, &packet.destination)
    {
        return false;
    }
    // SAFETY: a full socket, checked by `full_socket`.
    let Some(record) = (unsafe { origin_of(sk.cast()) }) else {
        return false;
    };
    // SAFETY: the storage lives as long as the socket.
    if unsafe { (*record).port } != DNS_PORT {
        return false;
    }
    let key = QueryKey {
        // SAFETY: sixteen bytes either way.
        agent: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(packet.source) },
        agent_port: packet.source_port,
        family: packet.family,
        reserved: 0,
    };
    // SAFETY: as above.
    let asks = QUERIES.insert(&key, unsafe { &*record }, 0).is_ok();
    if asks {
        // SAFETY: as above.
        cover(unsafe { (*record).cgroup_id }, COVERED_QUESTIONS);
    }
    asks
}

#[inline(always)]
fn may_arrive(skb: *mut __sk_buff, packet: &Packet, sk: *mut bpf_sock) -> bool {
    // SAFETY: a full socket, checked by `full_socket`.
    if let Some(record) = unsafe { origin_of(sk.cast()) }
        && (packet.plain_tcp || packet.plain_udp)
        // SAFETY: the storage lives as long as the socket.
        && down::is_between(unsafe { &*record }, packet.family, &packet.source, packet.source_port)
    {
        return true;
    }
    // SAFETY: a field of the context.
    if unsafe { (*skb).ifindex } != LOOPBACK_INDEX {
        return false;
    }
    if packet.plain_udp {
        // SAFETY: a full socket, checked by `full_socket`.
        let asked = unsafe { origin_of(sk.cast()).map_or(0, |record| (*record).port) };
        return asked == DNS_PORT
            && proxy_port() == Some(packet.source_port)
            && is_proxy_address(packet.family, &packet.source);
    }
    if !packet.plain_tcp {
        return false;
    }
    // SAFETY: a full socket, checked by `full_socket`.
    let flags = unsafe { origin_of(sk.cast()).map_or(0, |record| (*record).flags) };
    if flags & FLAG_STORED != 0 {
        return is_proxy_address(packet.family, &packet.source)
            && proxy_port() == Some(packet.source_port);
    }
    // SAFETY: a field of the context.
    unsafe { (*skb).mark == UPSTREAM_MARK }
}

#[inline(always)]
fn refuse(
    skb: *mut __sk_buff,
    reason: Reason,
    packet: Option<Packet>,
    sk: Option<*mut bpf_sock>,
) -> i32 {
    // SAFETY: the context is valid.
    let cgroup_id = unsafe { bpf_skb_cgroup_id(skb) };
    let to = match packet {
        Some(packet) => Destination {
            // SAFETY: sixteen bytes either way.
            address: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(packet.destination) },
            port: packet.destination_port,
            family: packet.family,
            protocol: u32::from(packet.protocol),
        },
        None => Destination {
            address: [0; 16],
            port: 0,
            family: 0,
            protocol: 0,
        },
    };
    report::report(reason as u32, cgroup_id, &to, Detail::Packet(skb), || {
        // SAFETY: a full socket, checked by `full_socket`.
        Who::of(sk.and_then(|sk| unsafe { origin_of(sk.cast()) }))
    });
    REFUSE
}

#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the union's only real member; the verifier insists on both checks.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let full = bpf_sk_fullsock(sk);
        (!full.is_null()).then_some(full)
    }
}

#[inline(always)]
fn parse(skb: *mut __sk_buff) -> Option<Packet> {
    // SAFETY: a field of the context.
    let protocol = u32::from(u16::from_be(unsafe { (*skb).protocol } as u16));
    match protocol {
        ETH_P_IP => v4(skb),
        ETH_P_IPV6 => v6(skb),
        _ => None,
    }
}

#[inline(always)]
fn v4(skb: *mut __sk_buff) -> Option<Packet> {
    let header: [u32; 5] = load(skb, 0)?;
    let first = header[0].to_ne_bytes()[0];
    let protocol = header[2].to_ne_bytes()[1];
    let plain = first == 0x45;
    let ports = if plain {
        load::<[u16; 2]>(skb, 20)
    } else {
        None
    };
    let (source_port, destination_port) = match ports {
        Some(ports) => (u16::from_be(ports[0]), u16::from_be(ports[1])),
        None => (0, 0),
    };
    Some(Packet {
        source: [header[3], 0, 0, 0],
        destination: [header[4], 0, 0, 0],
        source_port,
        destination_port,
        family: AF_INET,
        protocol,
        plain_tcp: plain && protocol == TCP && ports.is_some(),
        plain_udp: plain && protocol == UDP && ports.is_some(),
    })
}

#[inline(always)]
fn v6(skb: *mut __sk_buff) -> Option<Packet> {
    let header: [u32; 10] = load(skb, 0)?;
    let protocol = header[1].to_ne_bytes()[2];
    let ports = load::<[u16; 2]>(skb, 40);
    let (source_port, destination_port) = match ports {
        Some(ports) => (u16::from_be(ports[0]), u16::from_be(ports[1])),
        None => (0, 0),
    };
    Some(Packet {
        source: [header[2], header[3], header[4], header[5]],
        destination: [header[6], header[7], header[8], header[9]],
        source_port,
        destination_port,
        family: AF_INET6,
        protocol,
        plain_tcp: protocol == TCP && ports.is_some(),
        plain_udp: protocol == UDP && ports.is_some(),
    })
}

#[inline(always)]
fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of it or fails.
    unsafe {
        let done = bpf_skb_load_bytes(
            skb.cast(),
            offset,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
        );
        (done == 0).then(|| value.assume_init())
    }
}

#[inline(always)]
fn is_loopback(family: u16, address: &[u32; 4]) -> bool {
    if family == AF_INET {
        address[0].to_ne_bytes()[0] == 127
    } else {
        is_proxy_address(family, address)
    }
}

#[inline(always)]
fn is_proxy_address(family: u16, address: &[u32; 4]) -> bool {
    if family == AF_INET {
        address[0] == u32::from_ne_bytes([127, 0, 0, 1])
    } else {
        address[0] == 0 && address[1] == 0 && address[2] == 0 && address[3] == 1u32.to_be()
    }
}
