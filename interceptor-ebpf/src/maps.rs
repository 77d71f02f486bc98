//! Every map, its size, and what happens when it is full.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use interceptor_common::{
    COUNTERS as COUNTER_SLOTS, FlowKey, OriginRecord, QueryKey, RefusalRecord, Settings,
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
pub static REFUSALS: RingBuf<RefusalRecord, 262144> = RingBuf::new();

/// How much each cgroup reported lately. Evicts: what is lost is bookkeeping that
/// starts afresh.
#[btf_map]
pub static REPORTED: LruHashMap<u64, Reported, 1024> = LruHashMap::new();

/// Counters, a slot a reason and those named `COUNTER_*`.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { COUNTER_SLOTS as usize }> = PerCpuArray::new();

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
