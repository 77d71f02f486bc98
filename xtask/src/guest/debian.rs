//! `cargo xtask guest`: the release program in a Debian 12 of its own: its kernel, 6.1,
//! is the oldest that is served, systemd is the first process, and cgroup2 stands alone.
//!
//! The root file system is mmdebstrap's, made once and kept below the target folder;
//! `vagrant/provision.sh` installs there as it does in a Vagrant machine, and
//! `vagrant/check.sh` shows that it holds.

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
    /// How long the guest may take, in minutes
    #[arg(long, default_value_t = 20, value_name = "MINUTES")]
    limit: u64,
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
            shell::run(shell::cargo().args(release))?;
            shell::target_dir().join("release/interceptor")
        }
    };
    shell::step("its disk");
    let disk = disk(&folder, &base, &binary)?;
    shell::step("booting it");
    let (kernel, initrd) = (
        boot_file(&base, "vmlinuz-")?,
        boot_file(&base, "initrd.img-")?,
    );
    let mut qemu = super::qemu();
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    let drive = format!("file={},format=raw,if=virtio,cache=unsafe", disk.display());
    qemu.arg("-drive").arg(drive);
    qemu.args([
        "-append",
        "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.show_status=0 \
         systemd.unit=guest.target",
    ]);
    let mut held = false;
    super::boot(&mut qemu, Duration::from_secs(args.limit * 60), |line| {
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
fn disk(folder: &Path, base: &Path, binary: &Path) -> Result<PathBuf> {
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
    let program = tree.join("dist/interceptor");
    shell::run_quietly(Command::new("strip").arg("-o").arg(program).arg(binary))?;
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
             TTYPath=/dev/ttyS0\nTimeoutStartSec=infinity\n\
             ExecStart=/bin/bash -c '/vagrant/vagrant/provision.sh && /vagrant/vagrant/check.sh \
             && echo {HELD}'\n"
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
