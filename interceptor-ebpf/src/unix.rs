//! Unix sockets: what is listed goes where the list says, by a name that the agent cannot
//! move; what is not, by the operator's default.
//!
//! The only hooks that see them (`connect`, and datagrams with an address) are there from
//! Linux 6.7 on, and a name can be changed by a kfunc alone. So these programs are not
//! loaded by aya: user space puts the kfuncs' numbers in where [`CAST`] and [`SET_PATH`]
//! stand, and loads them under a licence that kfuncs ask for.
//!
//! A name is compared byte by byte and never looked up: another spelling, a link or a
//! mount leads past the list, to the default. `socketpair`, and what is accepted, never
//! come here.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_set_retval,
    },
    programs::SockAddrContext,
};
use interceptor_common::{
    COUNTER_REDIRECTED, COVERED_SAME, COVERED_UNIX, KFUNC_CAST, KFUNC_SET_PATH, Reason, SUN_PATH,
    UNIX_ABSENT, UNIX_ALLOW, UNIX_BLOCK, UNIX_OWN, UNIX_SAME, UNIX_TO_PATH, UNIX_TO_PROXY,
    UnixName,
};

use crate::{
    PASS, REFUSE,
    connect::{SOCK_STREAM, listens_here},
    down, listener,
    maps::{UNIX_SOCKETS, count, cover, unix_default},
    report::{self, Destination, Detail, Who},
};

const AF_UNIX: u16 = 1;
const ECONNREFUSED: i32 = 111;

/// A name that is read by words.
#[repr(align(8))]
struct Aligned(UnixName);

/// `struct bpf_sock_addr_kern`, as far as it is read.
#[repr(C)]
struct Kern {
    sk: u64,
    address: u64,
    scratch: u64,
    extra: u64,
    length: u32,
}

/// `bpf_cast_to_kern_ctx`.
const CAST: usize = KFUNC_CAST as usize;
/// `bpf_sock_addr_set_sun_path`.
const SET_PATH: usize = KFUNC_SET_PATH as usize;

#[inline(always)]
pub fn connect(ctx: &SockAddrContext) -> i32 {
    decide(ctx, true)
}

#[inline(always)]
pub fn datagram(ctx: &SockAddrContext) -> i32 {
    decide(ctx, false)
}

/// What comes of a name. Numbers, and one place that acts on them: the program's stack has
/// no room for more.
#[derive(Clone, Copy)]
struct Outcome {
    passes: bool,
    /// Whether it is refused as if nobody listened: who finds none begins one.
    nobody: bool,
    /// A [`Reason`] to report; [`SILENT`] for none.
    reason: u32,
    /// A counter of the cgroup's; [`UNCOUNTED`] for none.
    covers: usize,
}

const SILENT: u32 = u32::MAX;
const UNCOUNTED: usize = usize::MAX;

impl Outcome {
    #[inline(always)]
    const fn refused(reason: Reason) -> Self {
        Self {
            passes: false,
            nobody: false,
            reason: reason as u32,
            covers: UNCOUNTED,
        }
    }

    #[inline(always)]
    const fn passed(covers: usize) -> Self {
        Self {
            passes: true,
            nobody: false,
            reason: SILENT,
            covers,
        }
    }

    #[inline(always)]
    const fn unjudged() -> Self {
        Self {
            passes: true,
            nobody: false,
            reason: Reason::UnixUnjudged as u32,
            covers: UNCOUNTED,
        }
    }
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, connects: bool) -> i32 {
    // SAFETY: user space puts the kfunc's number in here; the verifier knows its types.
    let kern: *mut Kern = unsafe {
        let cast: unsafe extern "C" fn(*mut bpf_sock_addr) -> *mut Kern =
            core::mem::transmute(CAST);
        cast(ctx.sock_addr)
    };
    let mut name = Aligned([0; 112]);
    let name = &mut name.0;
    // SAFETY: a field of the kernel's context, here and below.
    let length = unsafe { read((*kern).address, (*kern).length, name) };
    let outcome = judge(ctx, kern, name, length, connects);
    // SAFETY: no arguments.
    let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    if outcome.covers != UNCOUNTED {
        cover(cgroup_id, outcome.covers);
    }
    if outcome.nobody {
        // SAFETY: a number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    if outcome.reason != SILENT {
        let nowhere = Destination {
            address: [0; 16],
            port: 0,
            family: AF_UNIX,
            protocol: 0,
        };
        let detail = Detail::Name(name, length);
        report::report(outcome.reason, cgroup_id, &nowhere, detail, Who::runs);
    }
    if outcome.passes { PASS } else { REFUSE }
}

#[inline(always)]
fn judge(
    ctx: &SockAddrContext,
    kern: *mut Kern,
    name: &UnixName,
    length: u32,
    connects: bool,
) -> Outcome {
    let no = Outcome::refused(Reason::UnixSocket);
    if length == 0 {
        return no;
    }
    let Some(entry) = UNIX_SOCKETS.get_ptr(name) else {
        return match unix_default() {
            UNIX_BLOCK => no,
            UNIX_ALLOW => Outcome::passed(UNCOUNTED),
            // SAFETY: a field of the kernel's context.
            UNIX_SAME if listener::is_same(unsafe { (*kern).sk }, name, length) => {
                Outcome::passed(COVERED_SAME)
            }
            UNIX_SAME => Outcome { nobody: true, ..no },
            _ => Outcome::unjudged(),
        };
    };
    // SAFETY: entries are replaced whole and by user space alone; one that is recycled
    // while this runs leads to another listed name.
    let (verdict, to_length) = unsafe { ((*entry).verdict, (*entry).length) };
    let outcome = match verdict {
        UNIX_TO_PROXY => {
            // SAFETY: a field of the context.
            if !connects || unsafe { (*ctx.sock_addr).type_ } != SOCK_STREAM {
                return no;
            }
            if !listens_here(ctx) {
                // SAFETY: no arguments.
                return match down::may_go(ctx, unsafe { bpf_get_current_cgroup_id() }) {
                    Some(_) => Outcome::passed(UNCOUNTED),
                    None => Outcome::refused(Reason::NoListener),
                };
            }
            Outcome::passed(COVERED_UNIX)
        }
        UNIX_TO_PATH => Outcome::unjudged(),
        UNIX_OWN => return Outcome::refused(Reason::OwnService),
        UNIX_ABSENT => {
            return Outcome {
                passes: false,
                nobody: true,
                ..Outcome::passed(Reason::UnixSocket as usize)
            };
        }
        _ => return no,
    };
    // Zero is refused by the kernel. Asked together, the two become one question that the
    // verifier does not follow.
    if to_length > SUN_PATH as u32 {
        return no;
    }
    // SAFETY: the verifier knows the types, and the length is within the entry.
    let changed = unsafe {
        let set: unsafe extern "C" fn(*mut Kern, *const u8, u32) -> i32 =
            core::mem::transmute(SET_PATH);
        set(kern, (&raw const (*entry).to).cast(), to_length)
    };
    if changed != 0 {
        return no;
    }
    if verdict == UNIX_TO_PROXY {
        count(COUNTER_REDIRECTED);
    }
    outcome
}

/// Reads a name as the kernel understands it: a path to its first zero, an abstract name
/// as long as it is. Says how long; 0 for none.
#[inline(always)]
fn read(address: u64, length: u32, name: &mut UnixName) -> u32 {
    // The family's two bytes stand in front.
    let mut length = length.wrapping_sub(2);
    if length == 0 || length > 110 {
        return 0;
    }
    if length > SUN_PATH as u32 {
        length = SUN_PATH as u32;
    }
    let from = (address + 2) as *const core::ffi::c_void;
    let to: *mut core::ffi::c_void = name.as_mut_ptr().cast();
    // SAFETY: both read what the kernel copied for this call, within its length, into
    // `name`, which is longer.
    unsafe {
        // With room for the zero that is put behind a path without one. What stands behind
        // the path's own is whatever the caller's memory held.
        let read = bpf_probe_read_kernel_str(to, length + 1, from);
        if read < 1 {
            return 0;
        }
        if name[0] != 0 {
            return (read - 1) as u32;
        }
        if bpf_probe_read_kernel(to, length, from) != 0 {
            return 0;
        }
    }
    length
}
