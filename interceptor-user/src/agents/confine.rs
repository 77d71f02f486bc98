//! System calls that an agent does not get, because no hook sees what they do.
//!
//! The programs in the kernel stand where internet and Unix sockets are used. Past them
//! lead sockets of other families (a hypervisor's among them), sockets that another process
//! has, and questions that the kernel asks as root. `io_uring` makes sockets without the
//! call that is filtered here, so it goes as well.
//!
//! What this does not do: keep an agent from other processes of its user, into which
//! `ptrace` and `/proc/PID/mem` lead. A user of its own does that.

use std::collections::BTreeMap;

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Families of sockets that hooks see, and the one that asks the kernel for addresses.
const FAMILIES: [libc::c_int; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// Calls that lead past the hooks.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_pidfd_getfd,
    libc::SYS_request_key,
];

/// On `x86_64`, the same calls by the numbers of another ABI.
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;

/// Puts the filter in force for this process and all that it starts; `no_new_privs` must be
/// set. A program for another architecture (32 bits on a machine of 64) is ended at its
/// first call.
///
/// # Errors
/// When the kernel does not take it.
pub fn enter() -> anyhow::Result<()> {
    // Two, since a filter of this kind has one answer.
    let other = FAMILIES
        .into_iter()
        .map(|family| condition(family.unsigned_abs().into()))
        .collect::<Result<Vec<_>, _>>()?;
    let family = vec![SeccompRule::new(other)?];
    apply(
        BTreeMap::from([(libc::SYS_socket, family)]),
        libc::EAFNOSUPPORT,
    )
    .context("filtering sockets by their family")?;
    let refused = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    apply(refused, libc::EPERM).context("filtering system calls")
}

fn condition(family: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
}

#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(unused_mut, reason = "other machines have one ABI")
)]
fn apply(mut rules: BTreeMap<i64, Vec<SeccompRule>>, answer: i32) -> anyhow::Result<()> {
    #[cfg(target_arch = "x86_64")]
    {
        let others: Vec<_> = rules
            .iter()
            .map(|(call, rules)| (call | X32, rules.clone()))
            .collect();
        rules.extend(others);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(answer.unsigned_abs()),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel answers to a call with these two arguments.
    fn answer(call: libc::c_long, first: i64, second: i64) -> i32 {
        // SAFETY: numbers, or null pointers, which are refused before they are followed.
        let done = unsafe { libc::syscall(call, first, second, 0, 0, 0, 0) };
        if done < 0 {
            return std::io::Error::last_os_error().raw_os_error().unwrap();
        }
        // SAFETY: made above.
        unsafe { libc::close(i32::try_from(done).unwrap()) };
        0
    }

    #[test]
    fn an_agent_gets_no_socket_that_no_hook_sees_and_keeps_the_others() {
        std::thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            enter().unwrap();
            for family in [libc::AF_VSOCK, libc::AF_PACKET, libc::AF_ALG, 77] {
                let said = answer(libc::SYS_socket, family.into(), 1);
                assert_eq!(said, libc::EAFNOSUPPORT, "{family}");
            }
            // The upper half of the argument is not looked at by the kernel either.
            let wide = i64::from(libc::AF_VSOCK) | 1 << 32;
            assert_eq!(answer(libc::SYS_socket, wide, 1), libc::EAFNOSUPPORT);
            for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
                assert_eq!(answer(libc::SYS_socket, family.into(), 1), 0, "{family}");
            }
            for call in REFUSED {
                assert_eq!(answer(*call, 0, 0), libc::EPERM, "{call}");
            }
            #[cfg(target_arch = "x86_64")]
            {
                let said = answer(libc::SYS_socket | X32, libc::AF_VSOCK.into(), 1);
                assert!([libc::EAFNOSUPPORT, libc::ENOSYS].contains(&said));
            }
        })
        .join()
        .unwrap();
    }
}
