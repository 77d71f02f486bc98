//! Bringing the programs into force, and taking over what a dead daemon left.
//!
//! Order: lock, cgroup, pins, maps, programs ([`prepare`]), then the hooks, the default-deny one
//! first ([`enforce`]). A hook that is pinned gets the new program in place; there is no moment
//! without one. Maps of the same [`ABI`] are taken over, so that connections that are
//! under way keep their records.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use aya::maps::{Array, Map, MapData, MapError};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use interceptor_common::{ABI, UnixLayout};
use tracing::{debug, info, warn};

use super::sys::{self, AttachType};
use super::{
    Handed, Kernel, KernelError, OLDEST_KERNEL, Options, attached, cgroup, layout, pins, unix,
};

/// The programs, compiled; `cargo xtask ebpf` rebuilds them.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../interceptor-ebpf/object/interceptor.o"
));

/// Maps that outlive the daemon.
const MAPS: [&str; 15] = [
    "SETTINGS",
    "ORIGINS",
    "LISTENERS",
    "FLOWS",
    "QUERIES",
    "REFUSALS",
    "REPORTED",
    "COUNTERS",
    "UNIX_SOCKETS",
    "COVERAGE",
    "UNIX_LAYOUT",
    "UNIX_ROOM",
    "NOTHING_YET",
    "WHEN_DOWN",
    "WENT_DIRECT",
];

/// One hook at the agents' cgroup.
#[derive(Debug)]
pub(super) struct Hook {
    /// Name of the program, and of its pin.
    pub(super) name: &'static str,
    pub(super) attach_type: AttachType,
}

impl Hook {
    /// Whether it stands at the living cgroup, as its pin in `links` says.
    pub(super) fn stands(&self, links: &Path, cgroup_id: u64) -> bool {
        sys::stands(&links.join(self.name), cgroup_id, self.attach_type)
    }
}

/// The hooks at the agents' cgroup, in the order in which they are attached: from
/// the first one on nothing leaves that is not redirected.
pub(super) static HOOKS: [Hook; 15] = [
    hook("egress", AttachType::Egress),
    hook("ingress", AttachType::Ingress),
    hook("agent_ops", AttachType::SockOps),
    hook("connect_v4", AttachType::Connect4),
    hook("connect_v6", AttachType::Connect6),
    hook("sendmsg_v4", AttachType::Sendmsg4),
    hook("sendmsg_v6", AttachType::Sendmsg6),
    hook("peer_v4", AttachType::Getpeername4),
    hook("peer_v6", AttachType::Getpeername6),
    hook("recvmsg_v4", AttachType::Recvmsg4),
    hook("recvmsg_v6", AttachType::Recvmsg6),
    hook("bind_v4", AttachType::Bind4),
    hook("bind_v6", AttachType::Bind6),
    hook("created", AttachType::SockCreate),
    hook("set_option", AttachType::Setsockopt),
];

/// Those that a kernel may lack. They come after the others, and what they see is refused by
/// no other.
pub(super) static UNIX_HOOKS: [Hook; 2] = [
    hook("unix_connect", AttachType::UnixConnect),
    hook("unix_sendmsg", AttachType::UnixSendmsg),
];

const PROXY_OPS: &str = "proxy_ops";

const fn hook(name: &'static str, attach_type: AttachType) -> Hook {
    Hook { name, attach_type }
}

pub(super) fn prepare(options: &Options, handed: Option<Handed>) -> Result<Kernel, KernelError> {
    check_kernel()?;
    if !pins::shares_mounts_with_init() {
        return Err(KernelError::PrivateMounts);
    }
    let taken = handed.is_some();
    let same_layout = handed.as_ref().is_some_and(|handed| handed.same_layout);
    let (lock, born_in) = match handed {
        Some(handed) => (handed.lock, Some(handed.listeners_cgroup)),
        None => (pins::lock(&options.runtime_dir)?, None),
    };
    let root = cgroup::root()?;
    let agents = cgroup::child(&root, &options.cgroup)?;
    cgroup::make(&agents)?;
    let proxy = own_cgroup(&root, &agents, &options.cgroup)?;

    let folder = pins::mounted(&options.runtime_dir)?;
    let (maps, links) = folders(&folder);
    for path in [&maps, &links] {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(KernelError::io("making", path)(error));
            }
            _ => {}
        }
    }

    let agents_dir = File::open(&agents).map_err(KernelError::io("opening", &agents))?;
    check_alone(&agents_dir, &agents, &links)?;

    let mut ebpf = load_object(&maps, options.max_flows)?;
    load_programs(&mut ebpf)?;
    let mut programs: Vec<(&'static Hook, OwnedFd)> = Vec::new();
    for hook in &HOOKS {
        let program = program(&ebpf, hook.name)?;
        let program = program
            .try_clone_to_owned()
            .map_err(KernelError::io("keeping a program for", &agents))?;
        programs.push((hook, program));
    }
    let mut proxy_links = vec![attach_proxy(&ebpf, &proxy)?];
    // An accepted socket is of the cgroup that its listener was born in.
    let listeners_cgroup = born_in.unwrap_or_else(|| proxy.clone());
    if listeners_cgroup != proxy && listeners_cgroup.is_dir() {
        proxy_links.push(attach_proxy(&ebpf, &listeners_cgroup)?);
    }
    let without_unix = match unix::load(&maps) {
        Ok(unix) => {
            programs.extend(unix);
            let mut layout: Array<MapData, UnixLayout> = map(&mut ebpf, "UNIX_LAYOUT")?;
            match layout::read() {
                Ok(read) => layout
                    .set(0, read, 0)
                    .map_err(KernelError::map("telling where sockets are kept"))?,
                Err(why) => warn!("no Unix socket counts as an agent's own: {why}"),
            }
            None
        }
        Err(why) => {
            warn!("Unix sockets are not seen, and agents connect to them as their user may: {why}");
            Some(why)
        }
    };
    // The maps before the hooks: what cannot be read must not be in force.
    let kernel = Kernel {
        settings: Mutex::new(map(&mut ebpf, "SETTINGS")?),
        listeners: Mutex::new(map(&mut ebpf, "LISTENERS")?),
        origins: map(&mut ebpf, "ORIGINS")?,
        queries: map(&mut ebpf, "QUERIES")?,
        counters: map(&mut ebpf, "COUNTERS")?,
        unix_sockets: Mutex::new(map(&mut ebpf, "UNIX_SOCKETS")?),
        coverage: Mutex::new(map(&mut ebpf, "COVERAGE")?),
        when_down: Mutex::new(map(&mut ebpf, "WHEN_DOWN")?),
        went_direct: Mutex::new(map(&mut ebpf, "WENT_DIRECT")?),
        goes_direct: options.goes_direct,
        unix_default: options.unix,
        without_unix,
        refusals: Mutex::new(Some(
            ebpf.take_map("REFUSALS")
                .ok_or(KernelError::Missing { name: "REFUSALS" })?,
        )),
        _proxy_links: proxy_links,
        listeners_cgroup,
        agents_cgroup: agents,
        cgroup_root: root,
        proxy_cgroup: proxy,
        folder,
        programs,
        lock: Mutex::new(Some(lock)),
    };
    if !same_layout {
        // Nobody listens yet; an older daemon's port may be somebody else's by now.
        kernel.set_port(0)?;
    }
    if !taken && !options.goes_direct {
        // What the daemon before allowed ends now, and not when this one listens.
        kernel.put_when_down(0)?;
    }
    Ok(kernel)
}

/// Brings the programs into force, where older ones stand in their place.
pub(super) fn enforce(kernel: &Kernel) -> Result<(), KernelError> {
    let agents = &kernel.agents_cgroup;
    let dir = File::open(agents).map_err(KernelError::io("opening", agents))?;
    let id = cgroup::id(agents)?;
    let (maps, links) = folders(&kernel.folder);
    for (hook, program) in &kernel.programs {
        attach(hook, program.as_fd(), &dir, agents, id, &links)?;
    }
    attached::take_over(&kernel.folder, &kernel.cgroup_root, &kernel.programs);
    remove_other_maps(&kernel.folder, &maps);
    info!(cgroup = %agents.display(), "interception is in force");
    Ok(())
}

/// Where the pins of maps and of links are.
fn folders(pins: &Path) -> (PathBuf, PathBuf) {
    (pins.join(format!("maps-{ABI}")), pins.join("links"))
}

fn check_kernel() -> Result<(), KernelError> {
    let release = release();
    if version(&release).is_some_and(|found| found >= OLDEST_KERNEL) {
        Ok(())
    } else {
        Err(KernelError::KernelTooOld { found: release })
    }
}

/// The kernel's release, as `uname -r` prints it.
pub(super) fn release() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Major and minor of a release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Sees to it that the proxy has a cgroup that it shares with no one, and says which.
///
/// A service has one already. From anywhere else (a shell's session, the root) this
/// process moves into a sibling of the agents' cgroup: the programs for accepted
/// sockets then stand there, and not in everybody's way.
fn own_cgroup(root: &Path, agents: &Path, name: &str) -> Result<PathBuf, KernelError> {
    let pid = std::process::id();
    let current = cgroup::of_process(pid)?;
    let path = root.join(current.trim_start_matches('/'));
    if path.starts_with(agents) {
        return Err(KernelError::InsideAgents {
            path: agents.to_owned(),
        });
    }
    if current.ends_with(".service") && path.is_dir() {
        return Ok(path);
    }
    let own = cgroup::child(root, &format!("{name}-proxy"))?;
    cgroup::make(&own)?;
    cgroup::place(&own, pid)?;
    Ok(own)
}

/// Refuses to stand beside programs that are not ours: with two redirections at one
/// cgroup, the second sees the first one's proxy as the origin.
fn check_alone(dir: &File, agents: &Path, links: &Path) -> Result<(), KernelError> {
    for hook in HOOKS.iter().filter(|hook| {
        matches!(
            hook.attach_type,
            AttachType::Connect4 | AttachType::Connect6
        )
    }) {
        let ours = sys::open_pin(&links.join(hook.name))
            .and_then(|link| sys::link_info(link.as_fd()))
            .map(|info| info.program)
            .ok();
        let programs: Vec<u32> = sys::attached(dir.as_fd(), hook.attach_type)
            .map_err(KernelError::io("asking for the programs at", agents))?
            .into_iter()
            .filter(|program| Some(*program) != ours)
            .collect();
        if !programs.is_empty() {
            return Err(KernelError::Occupied {
                path: agents.to_owned(),
                hook: hook.name,
                programs,
            });
        }
    }
    Ok(())
}

fn load_object(maps: &Path, max_flows: u32) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("FLOWS", max_flows.max(1));
    for name in MAPS {
        loader.map_pin_path(name, maps.join(name));
    }
    Ok(loader.load(OBJECT)?)
}

fn load_programs(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let names = HOOKS.iter().map(|hook| hook.name).chain([PROXY_OPS]);
    for name in names {
        let program = ebpf
            .program_mut(name)
            .ok_or(KernelError::Missing { name })?;
        let loaded = match program {
            Program::CgroupSkb(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSockopt(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => return Err(KernelError::Missing { name }),
        };
        loaded.map_err(|source| KernelError::Program { name, source })?;
    }
    Ok(())
}

fn program<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, KernelError> {
    let program = ebpf.program(name).ok_or(KernelError::Missing { name })?;
    program
        .fd()
        .map(AsFd::as_fd)
        .map_err(|source| KernelError::Program { name, source })
}

/// The agents' side is pinned; the proxy's ends with the proxy, like the sockets that
/// it serves.
fn attach_proxy(ebpf: &Ebpf, cgroup: &Path) -> Result<OwnedFd, KernelError> {
    let dir = File::open(cgroup).map_err(KernelError::io("opening", cgroup))?;
    sys::link_create(program(ebpf, PROXY_OPS)?, dir.as_fd(), AttachType::SockOps).map_err(
        |source| KernelError::Attach {
            hook: PROXY_OPS,
            path: cgroup.to_owned(),
            source,
        },
    )
}

/// Brings one hook into force: into the pinned link where there is one that still
/// stands at the living cgroup, else by a new link that takes the old pin's place.
pub(super) fn attach(
    hook: &Hook,
    program: BorrowedFd<'_>,
    dir: &File,
    agents: &Path,
    agents_id: u64,
    links: &Path,
) -> Result<(), KernelError> {
    let pin = links.join(hook.name);
    let failed = |source| KernelError::Attach {
        hook: hook.name,
        path: agents.to_owned(),
        source,
    };
    if let Ok(link) = sys::open_pin(&pin) {
        // A cgroup that was removed and made anew has another id and no programs.
        let live = sys::link_info(link.as_fd()).is_ok_and(|info| {
            info.cgroup_id == agents_id && info.attach_type == hook.attach_type as u32
        });
        if live {
            match sys::link_update(link.as_fd(), program) {
                Ok(()) => return Ok(()),
                Err(error) => debug!(hook = hook.name, %error, "attaching beside the old program"),
            }
        }
    }
    let link = sys::link_create(program, dir.as_fd(), hook.attach_type).map_err(failed)?;
    let new = links.join(format!("{}_new", hook.name));
    let _ = fs::remove_file(&new);
    sys::pin(link.as_fd(), &new).map_err(failed)?;
    // Replaces the old pin, if any, whose link then ends: the new one stands already.
    fs::rename(&new, &pin).map_err(failed)
}

/// Maps of another version have no use any more once all hooks are replaced.
fn remove_other_maps(folder: &Path, ours: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let other = path != ours && entry.file_name().to_string_lossy().starts_with("maps-");
        if other {
            for pin in fs::read_dir(&path).into_iter().flatten().flatten() {
                let _ = fs::remove_file(pin.path());
            }
            let _ = fs::remove_dir(&path);
        }
    }
}

/// Takes a map out of the object, as the type that it is.
fn map<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Missing { name })?;
    T::try_from(map).map_err(KernelError::map("opening a map"))
}
