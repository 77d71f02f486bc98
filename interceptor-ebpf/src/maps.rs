//! Every map, its size, and what happens when it is full.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use interceptor_common::{
    COUNTERS as COUNTER_SLOTS, COVERED_REDIRECTED, Coverage, Direct, FlowKey, OriginRecord,
    QueryKey, Reason, RefusalRecord, Settings, UnixEntry, UnixLayout, UnixName, WhenDown,
};

/// What user space decided. One entry.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// The origin, in the socket it belongs to: first in the agent's, then also in the
/// one that the proxy accepted. No capacity of its own; where the kernel has no
/// memory for it, the socket is not created or connected.
#[btf_map]
pub static ORIGINS: SkStorage<OriginRecord> = SkStorage::new();

/// Marks the proxy's listeners. Written from user space only.
#[btf_map]
pub static LISTENERS: SkStorage<u64> = SkStorage::new();

/// Flows between `connect` and accept. Refuses when full, and the SYN then does not
/// leave; evicting would lose a live flow of another agent's instead.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, OriginRecord, 65536> = HashMap::new();

/// Who asks for names, by the socket that the resolver gets the question from. Evicts:
/// what is lost is a question, and its asker asks again.
#[btf_map]
pub static QUERIES: LruHashMap<QueryKey, OriginRecord, 16384> = LruHashMap::new();

/// Refusals on their way to user space. A full ring loses reports and counts them;
/// what was refused stays refused.
#[btf_map]
pub static REFUSALS: RingBuf<RefusalRecord, 524288> = RingBuf::new();

/// How much each cgroup reported lately. Evicts: what is lost is bookkeeping that
/// starts afresh.
#[btf_map]
pub static REPORTED: LruHashMap<u64, Reported, 1024> = LruHashMap::new();

/// What is done with which Unix sockets. Written from user space only.
#[btf_map]
pub static UNIX_SOCKETS: HashMap<UnixName, UnixEntry, 1024> = HashMap::new();

/// Where the kernel keeps what tells whose a Unix socket is. Written from user space only.
#[btf_map]
pub static UNIX_LAYOUT: Array<UnixLayout, 1> = Array::new();

/// Room to compare names in, which a program's stack has not.
#[btf_map]
pub static UNIX_ROOM: PerCpuArray<[u64; 28], 1> = PerCpuArray::new();

/// What each cgroup did. Memory is taken as cgroups come; user space removes those that
/// are over. When it is full a cgroup more is not counted, and what it does is held all
/// the same.
#[btf_map]
pub static COVERAGE: PerCpuHashMap<u64, Coverage, 16384, { BPF_F_NO_PREALLOC as usize }> =
    PerCpuHashMap::new();

/// What a cgroup did that did nothing yet: all zero, and never written. A program's stack
/// has no room for it.
#[btf_map]
pub static NOTHING_YET: Array<Coverage, 1> = Array::new();

/// What holds while nobody listens: nothing, as long as user space does not say.
#[btf_map]
pub static WHEN_DOWN: Array<WhenDown, 1> = Array::new();

/// What went direct of each cgroup, until a daemon has told it. Refuses when full, and the
/// connect with it.
#[btf_map]
pub static WENT_DIRECT: PerCpuHashMap<u64, Direct, 4096, { BPF_F_NO_PREALLOC as usize }> =
    PerCpuHashMap::new();

/// Counters, a slot a reason and those named `COUNTER_*`.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { COUNTER_SLOTS as usize }> = PerCpuArray::new();

const BPF_NOEXIST: u64 = 1;

// A slot for each reason, in front of those that have names of their own.
const _: () = assert!(Reason::ALL.len() <= COVERED_REDIRECTED);

/// How much a cgroup reported in the current second.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reported {
    /// When that second began, in nanoseconds.
    pub since: u64,
    /// Reports in it.
    pub count: u32,
    /// Left out since the last one that was sent.
    pub suppressed: u32,
}

/// The proxy's port, or `None` while there is no proxy.
#[inline(always)]
pub fn proxy_port() -> Option<u16> {
    match SETTINGS.get(0) {
        Some(settings) if settings.port != 0 => Some(settings.port),
        _ => None,
    }
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(slot: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the slot of this CPU; programs of a hook do not nest on it, and a
        // lost addition would cost a count and nothing else.
        unsafe { *value += 1 }
    }
}

/// Adds one to a counter of a cgroup's: the slot of a [`Reason`], or one named `COVERED_*`.
#[inline(always)]
pub fn cover(cgroup_id: u64, slot: usize) {
    let found = COVERAGE.get_ptr_mut(cgroup_id).or_else(|| {
        let _ = COVERAGE.insert(cgroup_id, NOTHING_YET.get(0)?, BPF_NOEXIST);
        COVERAGE.get_ptr_mut(cgroup_id)
    });
    if let Some(slots) = found
        && slot < 24
    {
        // SAFETY: the slots of this CPU, as with `count`.
        unsafe { *slots.cast::<u64>().add(slot) += 1 }
    }
}

/// What is done with a Unix socket that is not listed.
#[inline(always)]
pub fn unix_default() -> u16 {
    SETTINGS.get(0).map_or(0, |settings| settings.unix)
}

/// The record in a socket's storage.
///
/// # Safety
/// `sk` is a full socket that the verifier knows as such.
#[inline(always)]
pub unsafe fn origin_of(sk: *mut c_void) -> Option<*mut OriginRecord> {
    // SAFETY: as the caller says.
    unsafe { storage(map(&ORIGINS), sk, 0) }
}

/// The record in a socket's storage, made where it is not there yet. `None` when
/// the kernel has no memory for it.
///
/// # Safety
/// As for [`origin_of`].
#[inline(always)]
pub unsafe fn origin_or_new(sk: *mut c_void) -> Option<*mut OriginRecord> {
    // SAFETY: as the caller says.
    unsafe { storage(map(&ORIGINS), sk, BPF_SK_STORAGE_GET_F_CREATE as u64) }
}

/// The mark of a listening socket.
///
/// # Safety
/// As for [`origin_of`].
#[inline(always)]
pub unsafe fn listener_mark(sk: *mut c_void) -> Option<u64> {
    // SAFETY: as the caller says; the value lives as long as the socket is held.
    unsafe { storage::<u64>(map(&LISTENERS), sk, 0).map(|mark| *mark) }
}

/// The map's address, which the loader turns into its descriptor.
#[inline(always)]
fn map<T>(definition: &'static T) -> *mut c_void {
    core::ptr::from_ref(definition).cast_mut().cast()
}

/// aya's methods take a `SockAddrContext` only; the helper itself serves all hooks.
#[inline(always)]
unsafe fn storage<T>(map: *mut c_void, sk: *mut c_void, flags: u64) -> Option<*mut T> {
    // SAFETY: the verifier checks both pointers.
    let value = unsafe { bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags) }.cast::<T>();
    (!value.is_null()).then_some(value)
}
