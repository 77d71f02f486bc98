//! `cargo xtask guest`: the release program in a Debian 12 of its own: its kernel, 6.1,
//! is the oldest that is served, systemd is the first process, and cgroup2 stands alone.
//!
//! The root file system is mmdebstrap's, made once and kept below the target folder;
//! `vagrant/provision.sh` installs there as it does in a Vagrant machine, and
//! `vagrant/check.sh` shows that it holds.
//!
//! With `--open-flows` it is measured there instead how many flows can be open at once: a
//! guest's root may have more files open than the limits of a container or a build machine
//! let its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::shell;

const EXAMPLE: &str = "cargo xtask guest --install";
/// What the guest says when all held.
const HELD: &str = "THE GUEST HELD";
/// The packages that `vagrant/provision.sh` asks for, but for those that build, and what
/// boots.
const PACKAGES: [&str; 13] = [
    "systemd-sysv",
    "dbus",
    "udev",
    "linux-image-amd64",
    "initramfs-tools",
    "ca-certificates",
    "iproute2",
    "kmod",
    "procps",
    "postgresql",
    "postgresql-client",
    "redis-server",
    "socat",
];
/// Measures how many flows are open at once, and says meanwhile how far it is. What would
/// take memory from it is stopped.
const OPEN_FLOWS: &str = "systemctl stop postgresql redis-server; \
     sysctl -q fs.file-max=2000000 net.core.somaxconn=4096; \
     (while sleep 30; do uptime; ss -s | grep ^TCP: ; ps -C interceptor -o pid,rss,nlwp,time; done) & \
     INTERCEPTOR_BIN=/vagrant/dist/interceptor \
     /vagrant/dist/interceptor-bench scale --only open";
/// Of the kernel's modules, those that find the disk.
const MODULES: &str = "virtio_pci\nvirtio_blk\next4\n";
/// Of the source tree, what is installed from it.
const TREE: [&str; 4] = ["Cargo.toml", "rules", "packaging", "vagrant"];

/// Install the program in a Debian 12 of its own, and show there that it holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask guest --install")]
pub(crate) struct Args {
    /// Install QEMU and mmdebstrap first where they are missing
    #[arg(long)]
    install: bool,
    /// A program to take instead of building one for release
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Hold 100,000 flows open there at once, in 12 GiB of memory, in place of the check;
    /// a `--binary` needs an `interceptor-bench` beside it
    #[arg(long)]
    open_flows: bool,
    /// How long the guest may take, in minutes; 20, or 90 with `--open-flows`
    #[arg(long, value_name = "MINUTES")]
    limit: Option<u64>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    super::need_qemu(args.install, EXAMPLE)?;
    let has_mmdebstrap = || shell::succeeds(Command::new("mmdebstrap").arg("--version"));
    if args.install && !has_mmdebstrap() {
        super::install(&["mmdebstrap"])?;
    }
    let folder = shell::target_dir().join("guest");
    fs::create_dir_all(&folder)?;
    let base = folder.join("base");
    if !base.exists() {
        ensure!(
            has_mmdebstrap(),
            "mmdebstrap is missing; `{EXAMPLE}` installs it"
        );
        shell::step("a Debian 12, with its kernel, PostgreSQL and Redis");
        debian(&base)?;
    }
    let binary = match args.binary {
        Some(binary) => binary,
        None => {
            shell::step("building for release");
            let release = ["build", "--release", "--workspace", "--bin", "interceptor"];
            let bench: &[&str] = match args.open_flows {
                true => &["--bin", "interceptor-bench"],
                false => &[],
            };
            shell::run(shell::cargo().args(release).args(bench))?;
            shell::target_dir().join("release/interceptor")
        }
    };
    shell::step("its disk");
    let bench = args
        .open_flows
        .then(|| binary.with_file_name("interceptor-bench"));
    let disk = disk(&folder, &base, &binary, bench.as_deref())?;
    shell::step("booting it");
    let (kernel, initrd) = (
        boot_file(&base, "vmlinuz-")?,
        boot_file(&base, "initrd.img-")?,
    );
    let mut qemu = super::qemu();
    if args.open_flows {
        // The last one counts.
        qemu.args(["-m", "12G"]);
    }
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    let drive = format!("file={},format=raw,if=virtio,cache=unsafe", disk.display());
    qemu.arg("-drive").arg(drive);
    qemu.args([
        "-append",
        // A busy machine is late with the ticks by which the kernel checks its timer.
        "root=/dev/vda rw console=ttyS0 quiet panic=-1 no_timer_check systemd.show_status=0 \
         systemd.unit=guest.target",
    ]);
    let mut held = false;
    let minutes = args.limit.unwrap_or(if args.open_flows { 90 } else { 20 });
    super::boot(&mut qemu, Duration::from_secs(minutes * 60), |line| {
        held |= line.contains(HELD);
    })?;
    ensure!(held, "what was to be shown did not hold in the guest");
    println!("\nEverything held on Debian 12's own kernel.");
    Ok(())
}

/// Makes the root file system, or nothing.
fn debian(base: &Path) -> Result<()> {
    let making = base.with_extension("making");
    if making.exists() {
        fs::remove_dir_all(&making)?;
    }
    let modules = format!(
        "mkdir -p \"$1/etc/initramfs-tools/conf.d\" && \
         echo MODULES=list > \"$1/etc/initramfs-tools/conf.d/modules\" && \
         printf '{}' > \"$1/etc/initramfs-tools/modules\"",
        MODULES.replace('\n', "\\n")
    );
    shell::run_quietly(
        Command::new("mmdebstrap")
            .args(["--variant=minbase", "--format=directory"])
            .arg(format!("--include={}", PACKAGES.join(",")))
            .arg("--aptopt=Acquire::Languages \"none\"")
            .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
            .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
            .arg(format!("--essential-hook={modules}"))
            .arg("bookworm")
            .arg(&making),
    )?;
    Ok(fs::rename(&making, base)?)
}

/// What Debian's kernel package put into `/boot`.
fn boot_file(base: &Path, prefix: &str) -> Result<PathBuf> {
    fs::read_dir(base.join("boot"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(prefix))
        })
        .with_context(|| format!("no {prefix}* in {}/boot", base.display()))
}

/// A disk with the file system, the program, and what the first process starts.
fn disk(folder: &Path, base: &Path, binary: &Path, bench: Option<&Path>) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let mut copy = Command::new("cp");
    shell::run_quietly(copy.args(["-a", "--reflink=auto"]).arg(base).arg(&root))?;
    let tree = root.join("vagrant");
    fs::create_dir_all(tree.join("dist"))?;
    for part in TREE {
        let from = shell::root().join(part);
        shell::run_quietly(Command::new("cp").arg("-a").arg(from).arg(&tree))?;
    }
    for (program, name) in [(Some(binary), "interceptor"), (bench, "interceptor-bench")] {
        let Some(program) = program else { continue };
        let to = tree.join("dist").join(name);
        shell::run_quietly(Command::new("strip").arg("-o").arg(to).arg(program))?;
    }
    let work = match bench {
        Some(_) => OPEN_FLOWS,
        None => "/vagrant/vagrant/provision.sh && /vagrant/vagrant/check.sh",
    };
    let units = root.join("etc/systemd/system");
    fs::write(
        units.join("guest.target"),
        "[Unit]\nDescription=The guest's work\nRequires=multi-user.target guest.service\n\
         After=multi-user.target\nAllowIsolate=yes\n",
    )?;
    fs::write(
        units.join("guest.service"),
        format!(
            "[Unit]\nDescription=Installs, and shows that it holds\n\
             After=multi-user.target postgresql.service redis-server.service\n\
             Requires=multi-user.target\nSuccessAction=poweroff-force\nFailureAction=poweroff-force\n\
             [Service]\nType=oneshot\nStandardOutput=tty\nStandardError=tty\n\
             TTYPath=/dev/ttyS0\nTimeoutStartSec=infinity\nLimitNOFILE=1048576\n\
             ExecStart=/bin/bash -c '{work} && echo {HELD}'\n"
        ),
    )?;
    fs::write(root.join("etc/fstab"), "/dev/vda / ext4 defaults 0 0\n")?;
    fs::write(root.join("etc/hostname"), "interceptor\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost interceptor\n")?;
    let image = folder.join("disk.ext4");
    if image.exists() {
        fs::remove_file(&image)?;
    }
    shell::run_quietly(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-d"])
            .arg(&root)
            .arg(&image)
            .arg("4G"),
    )?;
    fs::remove_dir_all(&root)?;
    Ok(image)
}
