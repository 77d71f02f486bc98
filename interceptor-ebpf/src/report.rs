//! Telling user space what was refused, without letting one agent drown the rest.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    },
};
use interceptor_common::{
    COUNTER_LOST, COUNTER_SUPPRESSED, DETAIL, OriginRecord, Reason, RefusalRecord, UnixName,
};

use crate::maps::{REFUSALS, REPORTED, Reported, count, cover};

/// Reports that a cgroup may make in a second; the ring holds some three thousand.
const PER_SECOND: u32 = 32;
const SECOND: u64 = 1_000_000_000;

// What is shown of a packet is bounded by a mask.
const _: () = assert!(DETAIL.is_power_of_two());

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

/// Who is behind something, where that is known.
#[derive(Clone, Copy)]
pub struct Who {
    /// Name of the thread.
    pub comm: [u8; 16],
    /// Process.
    pub tgid: u32,
    /// Effective user id; all ones where nobody is known.
    pub uid: u32,
}

impl Who {
    /// The process that is running.
    #[inline(always)]
    pub fn runs() -> Self {
        Self {
            comm: bpf_get_current_comm().unwrap_or([0; 16]),
            tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
            uid: bpf_get_current_uid_gid() as u32,
        }
    }

    /// The process that a socket's record names.
    #[inline(always)]
    pub fn of(record: Option<*mut OriginRecord>) -> Self {
        match record {
            Some(record) => {
                // SAFETY: the storage lives as long as the socket, which the caller holds.
                let record = unsafe { &*record };
                let known = record.tgid != 0;
                Self {
                    comm: record.comm,
                    tgid: record.tgid,
                    uid: if known { record.uid } else { u32::MAX },
                }
            }
            None => Self {
                comm: [0; 16],
                tgid: 0,
                uid: u32::MAX,
            },
        }
    }
}

/// What is shown of something beside where it was going.
#[derive(Clone, Copy)]
pub enum Detail {
    /// Nothing.
    None,
    /// The first bytes of a packet.
    Packet(*mut __sk_buff),
    /// A Unix socket's name, that many bytes of it.
    Name(*const UnixName, u32),
}

/// Counts and reports something on behalf of the process that is running.
#[inline(always)]
pub fn of_process(reason: Reason, cgroup_id: u64, to: &Destination) {
    report(reason as u32, cgroup_id, to, Detail::None, Who::runs);
}

/// Counts and reports something by the number of its [`Reason`], of a process that is found
/// out only if it is reported.
#[inline(always)]
pub fn report(
    reason: u32,
    cgroup_id: u64,
    to: &Destination,
    detail: Detail,
    who: impl FnOnce() -> Who,
) {
    count(reason);
    cover(cgroup_id, reason as usize);
    let Some((at, suppressed)) = admit(cgroup_id) else {
        return;
    };
    // Written where it stays: it would take half of a program's stack.
    let Some(mut entry) = REFUSALS.reserve(0) else {
        count(COUNTER_LOST);
        return;
    };
    let who = who();
    let record: *mut RefusalRecord = entry.as_mut_ptr();
    // SAFETY: memory of that size, all of which is written.
    unsafe {
        (*record).address = to.address;
        (*record).comm = who.comm;
        (*record).cgroup_id = cgroup_id;
        (*record).at = at;
        (*record).reason = reason;
        (*record).tgid = who.tgid;
        (*record).uid = who.uid;
        (*record).protocol = to.protocol;
        (*record).port = to.port;
        (*record).family = to.family;
        (*record).suppressed = suppressed;
        (*record).detail_length = 0;
        (*record).length = 0;
        (*record).detail = [0; DETAIL];
        match detail {
            Detail::None => {}
            Detail::Packet(skb) => {
                let length = (*skb).len;
                let shown = if length > DETAIL as u32 {
                    DETAIL as u32
                } else {
                    length
                };
                // Linux 6.1 learns nothing from a comparison with zero. So zero becomes more
                // than there is, which is not loaded; volatile, or the compiler compares.
                let shown = (&raw const shown).read_volatile();
                let shown = (shown.wrapping_sub(1) & (DETAIL as u32 - 1)) + 1;
                (*record).length = length;
                if bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*record).detail).cast(), shown) == 0
                {
                    (*record).detail_length = shown;
                }
            }
            Detail::Name(name, length) => {
                let words = name.cast::<u64>();
                let to = (&raw mut (*record).detail).cast::<u64>();
                let mut i = 0;
                while i < size_of::<UnixName>() / 8 {
                    to.add(i).write(words.add(i).read());
                    i += 1;
                }
                (*record).detail_length = length;
            }
        }
    }
    entry.submit(0);
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
