//! Telling user space what was refused, without letting one agent drown the rest.

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::bpf_ktime_get_ns,
};
use interceptor_common::{COUNTER_LOST, COUNTER_SUPPRESSED, Reason, RefusalRecord};

use crate::maps::{REFUSALS, REPORTED, Reported, count};

/// Reports that a cgroup may make in a second; the ring holds some three thousand.
const PER_SECOND: u32 = 32;
const SECOND: u64 = 1_000_000_000;

/// Where something was going.
#[derive(Clone, Copy)]
pub struct Destination {
    /// As in `interceptor_common`.
    pub address: [u8; 16],
    /// In host byte order.
    pub port: u16,
    /// `AF_INET`, `AF_INET6`.
    pub family: u16,
    /// IP protocol number.
    pub protocol: u32,
}

/// Counts and reports a refusal on behalf of the process that is running.
#[inline(always)]
pub fn of_process(reason: Reason, cgroup_id: u64, to: &Destination) {
    count(reason as u32);
    let Some((at, suppressed)) = admit(cgroup_id) else {
        return;
    };
    send(&RefusalRecord {
        address: to.address,
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
        cgroup_id,
        at,
        reason: reason as u32,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: bpf_get_current_uid_gid() as u32,
        protocol: to.protocol,
        port: to.port,
        family: to.family,
        suppressed,
    });
}

/// Counts and reports a refused packet. Whatever runs just then has no part in it,
/// so no process is named.
#[inline(always)]
pub fn of_packet(reason: Reason, cgroup_id: u64, to: &Destination) {
    count(reason as u32);
    let Some((at, suppressed)) = admit(cgroup_id) else {
        return;
    };
    send(&RefusalRecord {
        address: to.address,
        comm: [0; 16],
        cgroup_id,
        at,
        reason: reason as u32,
        tgid: 0,
        uid: u32::MAX,
        protocol: to.protocol,
        port: to.port,
        family: to.family,
        suppressed,
    });
}

/// Whether the cgroup may report now; then the time, and how many it had to leave
/// out. Two CPUs may race here: a report more or less, never an unbounded number.
#[inline(always)]
fn admit(cgroup_id: u64) -> Option<(u64, u32)> {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(state) = REPORTED.get_ptr_mut(cgroup_id) else {
        let first = Reported {
            since: now,
            count: 1,
            suppressed: 0,
        };
        return match REPORTED.insert(cgroup_id, first, 0) {
            Ok(()) => Some((now, 0)),
            Err(_) => {
                count(COUNTER_LOST);
                None
            }
        };
    };
    // SAFETY: the map's memory stays mapped while the program runs; an entry that is
    // recycled meanwhile costs a count.
    let state = unsafe { &mut *state };
    if now.wrapping_sub(state.since) > SECOND {
        state.since = now;
        state.count = 0;
    }
    if state.count >= PER_SECOND {
        state.suppressed += 1;
        count(COUNTER_SUPPRESSED);
        return None;
    }
    state.count += 1;
    let suppressed = state.suppressed;
    state.suppressed = 0;
    Some((now, suppressed))
}

#[inline(always)]
fn send(record: &RefusalRecord) {
    if REFUSALS.output(record, 0).is_err() {
        count(COUNTER_LOST);
    }
}
