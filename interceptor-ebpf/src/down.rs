//! While no daemon listens: where the operator wants agents to go on without one
//! (`intercept.when_down: allow`), their connects go where they were going, counted.
//!
//! What says so is not the settings, which stand while a daemon changes, but a word that
//! only who listens writes: the network namespace that it listens in. In another one nobody
//! ever listens, and an agent's connects there are refused as ever.
//!
//! With the next daemon another era begins, and packets of what went direct before are
//! dropped: nothing goes on unjudged under a daemon that is there.

use aya_ebpf::{
    helpers::generated::{bpf_get_netns_cookie, bpf_ktime_get_ns},
    programs::SockAddrContext,
};
use interceptor_common::{AF_INET, AF_INET6, Direct, FLAG_DIRECT, OriginRecord};

use crate::maps::{NOTHING_YET, WENT_DIRECT, WHEN_DOWN};

const BPF_NOEXIST: u64 = 1;

/// The era in which what would be refused for want of a listener may go direct; `None`
/// where it may not. It is counted: what cannot be counted may not.
#[inline(always)]
pub fn may_go(ctx: &SockAddrContext, cgroup_id: u64) -> Option<u32> {
    let down = WHEN_DOWN.get(0)?;
    // Before the context is asked: a daemon that begins another era may write in between.
    let era = down.era;
    // SAFETY: the context is valid for the program's run.
    if down.netns == 0 || unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) } != down.netns {
        return None;
    }
    let found = WENT_DIRECT.get_ptr_mut(cgroup_id).or_else(|| {
        let nothing = NOTHING_YET.get_ptr(0)?.cast::<Direct>();
        // SAFETY: the shorter of the two, and all zero.
        let _ = WENT_DIRECT.insert(cgroup_id, unsafe { &*nothing }, BPF_NOEXIST);
        WENT_DIRECT.get_ptr_mut(cgroup_id)
    });
    let went = found?;
    // SAFETY: no arguments; and this CPU's values, as with `count`.
    unsafe {
        let now = bpf_ktime_get_ns();
        if (*went).count == 0 {
            (*went).since = now;
        }
        (*went).until = now;
        (*went).count += 1;
    }
    Some(era)
}

/// Whether a packet's other end is where its socket went direct in this era.
#[inline(always)]
pub fn is_between(record: &OriginRecord, family: u16, address: &[u32; 4], port: u16) -> bool {
    if record.flags & FLAG_DIRECT == 0 || record.port != port {
        return false;
    }
    if WHEN_DOWN.get(0).is_none_or(|down| down.era != record.era) {
        return false;
    }
    // SAFETY: sixteen bytes either way.
    let went: [u32; 4] = unsafe { core::mem::transmute(record.address) };
    let mapped =
        record.family == AF_INET6 && went[0] == 0 && went[1] == 0 && went[2] == 0xffffu32.to_be();
    if family == AF_INET {
        address[0] == if mapped { went[3] } else { went[0] } && (mapped || record.family == AF_INET)
    } else {
        record.family == AF_INET6 && *address == went
    }
}
