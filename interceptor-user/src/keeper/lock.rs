//! What the keeper gives up once it has the keys: everything but reading its socket,
//! writing to it and to the log, and memory.

use std::collections::BTreeMap;

use anyhow::Context as _;
use caps::{CapSet, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::wire::Plan;

/// What is in force for the keeper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    /// Its process id.
    #[serde(default)]
    pub pid: u32,
    /// Whether it has no capability.
    pub capabilities: bool,
    /// Whether all system calls are refused but those that it makes.
    pub seccomp: bool,
    /// Whether Landlock keeps all files and networks from it.
    pub landlock: bool,
}

impl Locked {
    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let has = |yes: bool| if yes { "yes" } else { "no" };
        format!(
            "pid {}, without capabilities: {}, only its own system calls: {}, no files (Landlock): {}",
            self.pid,
            has(self.capabilities),
            has(self.seccomp),
            has(self.landlock)
        )
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.capabilities && self.seccomp && self.landlock
    }
}

/// What it is asked to do with its key, and what memory takes. Nothing that opens, connects,
/// forks or executes.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_futex,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_sched_yield,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Before the first secret: nothing inherited, nobody who looks, and an end with the daemon.
pub(crate) fn alone() {
    // SAFETY: nothing in this process has a descriptor above those three yet.
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        warn!(%error, "the memory of a process beside the daemon can be dumped");
    }
    if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        warn!(%error, "a process beside the daemon may outlive one whose socket somebody else has");
    }
    // It ends behind the daemon's last session, whoever is told to end before.
    for one in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: a signal that is ignored runs no code.
        let _ = unsafe { signal(one, SigHandler::SigIgn) };
    }
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// Gives up everything. What cannot be given up is told.
pub(super) fn enter(plan: &Plan) -> Locked {
    let done = |what: &str, done: anyhow::Result<bool>| match done {
        Ok(whole) => whole,
        Err(error) => {
            warn!("the keeper of the keys keeps {what}: {error:#}");
            false
        }
    };
    let capabilities = plan.capabilities && done("capabilities", drop_capabilities());
    let landlock = done("files", leave_files());
    let seccomp = plan.seccomp && done("system calls", filter());
    Locked {
        pid: std::process::id(),
        capabilities,
        seccomp,
        landlock,
    }
}

fn drop_capabilities() -> anyhow::Result<bool> {
    nix::sys::prctl::set_no_new_privs().context("setting no_new_privs")?;
    let none = CapsHashSet::new();
    caps::clear(None, CapSet::Ambient).context("clearing ambient capabilities")?;
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding).context("clearing the bounding set")?;
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &none).context("dropping capabilities")?;
    }
    Ok(true)
}

/// A domain without a rule: no file is opened by name, no port bound or connected to, no
/// process outside signalled. As much of it as the kernel knows.
fn leave_files() -> anyhow::Result<bool> {
    const NEWEST: ABI = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn filter() -> anyhow::Result<bool> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in ALLOWED {
        rules.insert(*call, Vec::new());
    }
    // Memory, but none that can be executed.
    let plain = || -> anyhow::Result<SeccompRule> {
        let execute = SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs()));
        let not = SeccompCondition::new(2, SeccompCmpArgLen::Dword, execute, 0)?;
        Ok(SeccompRule::new(vec![not])?)
    };
    rules.insert(libc::SYS_mmap, vec![plain()?]);
    rules.insert(libc::SYS_mprotect, vec![plain()?]);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?;
    apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(true)
}
