//! Socket options that lead around the redirection.
//!
//! Not load-bearing: egress drops the packets that such sockets send. But a plain
//! error at the call is better than a silent loss, and the kernel's own multicast
//! reports never come by egress.

use aya_ebpf::{
    bindings::bpf_sockopt,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_set_retval},
    programs::SockoptContext,
};
use interceptor_common::{PROBE_LEVEL, PROBE_NAME, Reason};

use crate::{
    PASS, REFUSE,
    report::{self, Destination},
};

const SOL_SOCKET: i32 = 1;
const SO_BINDTODEVICE: i32 = 25;
const SO_BINDTOIFINDEX: i32 = 62;

const SOL_IP: i32 = 0;
const IP_OPTIONS: i32 = 4;
const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_ADD_SOURCE_MEMBERSHIP: i32 = 39;
const IP_MSFILTER: i32 = 41;
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_MSFILTER: i32 = 48;
const IP_UNICAST_IF: i32 = 50;

const SOL_IPV6: i32 = 41;
const IPV6_2292PKTOPTIONS: i32 = 6;
const IPV6_ADD_MEMBERSHIP: i32 = 20;
const IPV6_JOIN_ANYCAST: i32 = 27;
const IPV6_HOPOPTS: i32 = 54;
const IPV6_RTHDRDSTOPTS: i32 = 55;
const IPV6_RTHDR: i32 = 57;
const IPV6_DSTOPTS: i32 = 59;
const IPV6_UNICAST_IF: i32 = 76;

const PAGE: i32 = 4096;

#[inline(always)]
pub fn set(ctx: &SockoptContext) -> i32 {
    let sockopt: *mut bpf_sockopt = ctx.sockopt;
    // SAFETY: fields of the context that the hook may read.
    let (level, name, length) =
        unsafe { ((*sockopt).level, (*sockopt).optname, (*sockopt).optlen) };
    if level == PROBE_LEVEL && name == PROBE_NAME {
        // Answered here: minus one keeps it from the kernel, which does not know it.
        // SAFETY: a field of the context that the hook may write.
        unsafe { (&raw mut (*sockopt).optlen).write_volatile(-1) };
        return PASS;
    }
    if !leads_around(level, name) {
        if length > PAGE {
            // The kernel showed the program one page only, and would take that page
            // for the whole; zero says "as the caller gave it".
            // SAFETY: a field of the context that the hook may write.
            unsafe { (&raw mut (*sockopt).optlen).write_volatile(0) };
        }
        return PASS;
    }
    // SAFETY: a number.
    unsafe { bpf_set_retval(-1) };
    // Which option it was stands where of other things stands where they were going.
    let option = Destination {
        address: [0; 16],
        port: name as u16,
        family: 0,
        protocol: level as u32,
    };
    // SAFETY: no arguments.
    let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    report::of_process(Reason::Option, cgroup_id, &option);
    REFUSE
}

#[inline(always)]
fn leads_around(level: i32, name: i32) -> bool {
    match level {
        SOL_SOCKET => matches!(name, SO_BINDTODEVICE | SO_BINDTOIFINDEX),
        SOL_IP => matches!(
            name,
            IP_OPTIONS
                | IP_ADD_MEMBERSHIP
                | IP_ADD_SOURCE_MEMBERSHIP
                | IP_MSFILTER
                | MCAST_JOIN_GROUP
                | MCAST_JOIN_SOURCE_GROUP
                | MCAST_MSFILTER
                | IP_UNICAST_IF
        ),
        SOL_IPV6 => matches!(
            name,
            IPV6_2292PKTOPTIONS
                | IPV6_ADD_MEMBERSHIP
                | IPV6_JOIN_ANYCAST
                | MCAST_JOIN_GROUP
                | MCAST_JOIN_SOURCE_GROUP
                | MCAST_MSFILTER
                | IPV6_HOPOPTS
                | IPV6_RTHDRDSTOPTS
                | IPV6_RTHDR
                | IPV6_DSTOPTS
                | IPV6_UNICAST_IF
        ),
        _ => false,
    }
}
