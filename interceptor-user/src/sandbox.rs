//! What the daemon gives up once the kernel programs stand.
//!
//! Capabilities and the filter of system calls belong to a thread and go to those that it
//! starts, so [`enter`] is called while there is one: behind what needs all of root's power
//! (mounting the bpffs, loading programs), before the first byte of an agent's is read.
//!
//! Which files are left to it says [`crate::fence`].

use std::collections::BTreeMap;

use anyhow::Context as _;
use caps::{CapSet, Capability, CapsHashSet};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::Sandbox;

/// What the daemon works with, and for what.
const KEPT: [Capability; 3] = [
    // Origins, listeners' marks, hooks of units that come later.
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    // Listeners below 1024.
    Capability::CAP_NET_BIND_SERVICE,
];

/// System calls that no part of the daemon makes, and that whoever had taken it over would.
const DENIED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// What `clone` makes namespaces by, as `unshare` does.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Commands of `bpf(2)` that are not needed any more.
const BPF_MAP_CREATE: u64 = 0;
const BPF_PROG_LOAD: u64 = 5;

/// On `x86_64`, the same calls by the numbers of another ABI.
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;

/// What is in force, as the kernel says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InForce {
    /// The daemon's user id.
    pub uid: u32,
    /// Capabilities that it has.
    pub capabilities: Vec<String>,
    /// Whether nothing that it starts can gain any.
    pub no_new_privs: bool,
    /// Whether system calls are filtered.
    pub seccomp: bool,
    /// Whether Landlock keeps all files from it but its own.
    #[serde(default)]
    pub landlock: bool,
}

impl InForce {
    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let has = |yes: bool| if yes { "yes" } else { "no" };
        format!(
            "uid {}, {} capabilities, no new privileges: {}, system calls filtered: {}, own files only (Landlock): {}",
            self.uid,
            self.capabilities.len(),
            has(self.no_new_privs),
            has(self.seccomp),
            has(self.landlock)
        )
    }
}

/// Gives up what the daemon does not work with. What cannot be given up is told, and is no
/// reason not to start.
pub fn enter(config: &Sandbox) {
    if config.capabilities
        && let Err(error) = drop_capabilities(&KEPT)
    {
        warn!("capabilities that are not needed stay: {error:#}");
    }
    if config.seccomp
        && let Err(error) = filter()
    {
        warn!("system calls are not filtered: {error:#}");
    }
    // No core dump that holds keys, no debugger of the same user's.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        warn!(%error, "the daemon's memory can be dumped");
    }
}

/// What is in force for this process.
#[must_use]
pub fn in_force() -> InForce {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let mut capabilities: Vec<String> = caps::read(None, CapSet::Effective)
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    capabilities.sort();
    InForce {
        uid: nix::unistd::geteuid().as_raw(),
        capabilities,
        no_new_privs: field("NoNewPrivs") == Some("1"),
        seccomp: field("Seccomp") == Some("2"),
        landlock: crate::fence::is_in_force(),
    }
}

/// Gives up all capabilities but these, for good.
pub(crate) fn drop_capabilities(kept: &[Capability]) -> anyhow::Result<()> {
    let has = caps::read(None, CapSet::Permitted).context("reading capabilities")?;
    let kept: CapsHashSet = kept
        .iter()
        .copied()
        .filter(|one| has.contains(one))
        .collect();
    // First those that what it starts could have, since that takes one that goes too.
    if has.contains(&Capability::CAP_SETPCAP) {
        let bounding = caps::read(None, CapSet::Bounding).context("reading the bounding set")?;
        for capability in bounding.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability).context("bounding capabilities")?;
        }
    }
    caps::clear(None, CapSet::Ambient).context("clearing ambient capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("clearing inheritable capabilities")?;
    caps::set(None, CapSet::Effective, &kept).context("dropping effective capabilities")?;
    caps::set(None, CapSet::Permitted, &kept).context("dropping permitted capabilities")?;
    nix::sys::prctl::set_no_new_privs().context("setting no_new_privs")
}

/// Refuses the calls that no part of the program makes.
pub(crate) fn filter() -> anyhow::Result<()> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in DENIED {
        rules.insert(*call, Vec::new());
    }
    let command = |number| -> anyhow::Result<SeccompRule> {
        let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number)?;
        Ok(SeccompRule::new(vec![is])?)
    };
    let bpf = || anyhow::Ok(vec![command(BPF_MAP_CREATE)?, command(BPF_PROG_LOAD)?]);
    rules.insert(libc::SYS_bpf, bpf()?);
    let has = |flag: libc::c_int| -> anyhow::Result<SeccompRule> {
        let flag = u64::from(flag.unsigned_abs());
        let one = SeccompCmpOp::MaskedEq(flag);
        let is = SeccompCondition::new(0, SeccompCmpArgLen::Qword, one, flag)?;
        Ok(SeccompRule::new(vec![is])?)
    };
    let namespaces = NAMESPACES.into_iter().map(has);
    rules.insert(libc::SYS_clone, namespaces.collect::<anyhow::Result<_>>()?);
    refuse(rules, libc::EPERM)?;
    // Its flags are in memory, where no filter looks. Whoever is told that there is no such
    // call, the C library among them, makes the other one.
    let newer = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    refuse(newer, libc::ENOSYS)
}

#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(unused_mut, reason = "other machines have one ABI")
)]
fn refuse(mut rules: BTreeMap<i64, Vec<SeccompRule>>, answer: i32) -> anyhow::Result<()> {
    #[cfg(target_arch = "x86_64")]
    {
        let others: Vec<_> = rules
            .iter()
            .map(|(call, rules)| (call | X32, rules.clone()))
            .collect();
        rules.extend(others);
    }
    let refuse = SeccompAction::Errno(answer.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?;
    apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(call: libc::c_long, first: u64) -> bool {
        // SAFETY: calls that are refused before they look at their arguments, which are
        // all null; nothing is done where they are not.
        let done = unsafe { libc::syscall(call, first, 0, 0, 0, 0, 0) };
        done < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
    }

    /// Whether `clone` makes no process in a namespace of its own.
    fn no_namespace(flag: libc::c_int) -> bool {
        let flags = flag | libc::SIGCHLD;
        // SAFETY: a child, if there is one, ends at once.
        unsafe {
            match libc::syscall(libc::SYS_clone, i64::from(flags), 0, 0, 0, 0) {
                0 => libc::_exit(0),
                done => done < 0,
            }
        }
    }

    #[test]
    fn what_is_given_up_is_gone_for_the_thread_and_those_that_it_starts() {
        let nothing = Sandbox {
            capabilities: true,
            seccomp: true,
            landlock: false,
        };
        let given_up = std::thread::spawn(move || {
            // Of a null pointer: the kernel looks, and finds nothing to load.
            let before = refused(libc::SYS_bpf, BPF_PROG_LOAD);
            enter(&nothing);
            let inside = std::thread::spawn(|| {
                let all = [libc::SYS_ptrace, libc::SYS_keyctl, libc::SYS_unshare];
                let calls = all.map(|call| refused(call, u64::MAX));
                for flag in NAMESPACES {
                    assert!(no_namespace(flag), "{flag:x}");
                }
                assert!(std::process::Command::new("true").status().is_ok());
                (in_force(), calls, refused(libc::SYS_bpf, BPF_PROG_LOAD))
            });
            (before, inside.join().unwrap())
        });
        let (before, (said, calls, bpf)) = given_up.join().unwrap();
        assert!(said.no_new_privs);
        assert!(said.seccomp);
        assert_eq!(calls, [true; 3]);
        assert!(bpf);
        if nix::unistd::geteuid().is_root() {
            assert!(!before, "root may load programs before");
            assert!(said.capabilities.contains(&"CAP_BPF".to_owned()));
        }
        for gone in ["CAP_SYS_ADMIN", "CAP_SETUID", "CAP_NET_RAW", "CAP_KILL"] {
            assert!(!said.capabilities.contains(&gone.to_owned()), "{gone}");
        }
    }
}
