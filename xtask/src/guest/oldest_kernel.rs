//! `cargo xtask oldest-kernel`: the kernel's tests on the oldest kernel that is
//! promised, Debian 12's 6.1, without rebooting.
//!
//! The kernel is taken out of Debian's package, not installed; the tests' programs go
//! into an initramfs with the libraries that they ask for, under the paths they were
//! built at. There cgroup2 stands alone at `/sys/fs/cgroup`, which is the other layout
//! to try.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell;

/// What the guest says when it is through.
const END: &str = "THE END OF THE TESTS";
/// The kernel's tests.
const TESTS: [&str; 2] = ["kernel_interception", "kernel_exec"];

/// Run the kernel's tests on the oldest kernel that is promised.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask oldest-kernel --install")]
pub(crate) struct Args {
    /// Install QEMU first where it is missing
    #[arg(long)]
    install: bool,
    /// A kernel to boot instead of the one that Debian's `linux-image-amd64` stands for
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// How long the guest may take, in minutes
    #[arg(long, default_value_t = 20, value_name = "MINUTES")]
    limit: u64,
}

pub(crate) fn run(args: Args) -> Result<()> {
    super::need_qemu(args.install, "cargo xtask oldest-kernel --install")?;
    let folder = shell::target_dir().join("oldest-kernel");
    fs::create_dir_all(&folder)?;
    let kernel = match args.kernel {
        Some(kernel) => kernel,
        None => debian_kernel(&folder)?,
    };
    let busybox = package_file(&folder, "busybox-static", "./bin/busybox")?;

    shell::step("building the tests");
    shell::run(shell::cargo().args(["build", "-p", "interceptor-user", "--bin", "interceptor"]))?;
    let tests = tests()?;
    let initramfs = initramfs(&folder, &busybox, &tests)?;

    shell::step(&format!("booting {}", kernel.display()));
    boot(&kernel, &initramfs, Duration::from_secs(args.limit * 60))
}

/// The kernel that Debian's meta-package stands for.
fn debian_kernel(folder: &Path) -> Result<PathBuf> {
    let depends =
        shell::output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))
            .context("asking for Debian's kernel; with --kernel FILE another one is booted")?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .context("apt-cache knows no linux-image-amd64; give --kernel FILE")?
        .to_owned();
    let path = format!("./boot/vmlinuz-{package}");
    package_file(folder, &format!("linux-image-{package}"), &path)
}

/// A file out of a Debian package, downloaded once.
fn package_file(folder: &Path, package: &str, path: &str) -> Result<PathBuf> {
    let file = folder.join(package).join(path);
    if file.exists() {
        return Ok(file);
    }
    let unpacked = folder.join(package);
    fs::create_dir_all(&unpacked)?;
    shell::run_quietly(
        Command::new("apt-get")
            .args(["download", package])
            .current_dir(&unpacked),
    )?;
    let deb = fs::read_dir(&unpacked)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
        .with_context(|| format!("apt-get downloaded no {package}"))?;
    let all = unpacked.join("all");
    shell::run_quietly(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&all))?;
    let from = all.join(path);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(&from, &file).with_context(|| format!("{package} has no {path}"))?;
    fs::remove_dir_all(&all)?;
    fs::remove_file(&deb)?;
    Ok(file)
}

/// Builds the tests, and says where they are.
fn tests() -> Result<Vec<PathBuf>> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "-p", "interceptor-tests", "--no-run"]);
    cargo.args(["--message-format=json"]);
    for test in TESTS {
        cargo.args(["--test", test]);
    }
    let found: Vec<PathBuf> = shell::output(&mut cargo)?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| {
            message
                .pointer("/target/name")
                .and_then(serde_json::Value::as_str)
                .is_some_and(|name| TESTS.contains(&name))
        })
        .filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
        .collect();
    ensure!(
        found.len() == TESTS.len(),
        "cargo built {} of {} tests",
        found.len(),
        TESTS.len()
    );
    Ok(found)
}

/// A root file system with the tests, what they start, and what those link to.
fn initramfs(folder: &Path, busybox: &Path, tests: &[PathBuf]) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "run"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy(busybox, root.join("bin/busybox"))?;
    for name in [
        "sh", "mount", "ip", "poweroff", "ls", "cat", "grep", "id", "sed", "echo", "touch", "uname",
    ] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    let debug = shell::target_dir().join("debug");
    let helpers = ["interceptor", "kernel-helper"].map(|name| debug.join(name));
    for program in tests.iter().chain(&helpers) {
        install(&root, program)?;
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n\
         interceptor-test:x:999:999::/nonexistent:/bin/sh\n",
    )?;
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nnogroup:x:65534:\ninterceptor-test:x:999:\n",
    )?;
    fs::write(
        root.join("etc/nsswitch.conf"),
        "passwd: files\ngroup: files\n",
    )?;
    let mut init = "#!/bin/sh\n\
        export PATH=/bin RUST_BACKTRACE=0 HOME=/\n\
        mount -t proc proc /proc\n\
        mount -t sysfs sys /sys\n\
        mount -t devtmpfs dev /dev\n\
        mount -t tmpfs tmp /tmp\n\
        mount -t cgroup2 none /sys/fs/cgroup\n\
        ip link set lo up\n\
        uname -a\n"
        .to_owned();
    for test in tests {
        init.push_str(&format!("'{}' --test-threads 1\n", test.display()));
    }
    init.push_str(&format!("echo {END}\npoweroff -f\n"));
    let path = root.join("init");
    fs::write(&path, init)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;

    let archive = folder.join("initramfs.gz");
    let pack = "find . | \"$1\" cpio -o -H newc | gzip -1 > \"$2\"";
    shell::run_quietly(
        Command::new("/bin/sh")
            .args(["-e", "-c", pack, "sh"])
            .arg(busybox)
            .arg(&archive)
            .current_dir(&root),
    )?;
    Ok(archive)
}

/// Puts a program where it is on this host, with the libraries that it links to.
fn install(root: &Path, program: &Path) -> Result<()> {
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let to = inside(program);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    shell::run_quietly(Command::new("strip").arg("-o").arg(&to).arg(program))?;
    for line in shell::output(Command::new("ldd").arg(program))?.lines() {
        let Some(library) = line
            .split_whitespace()
            .find(|word| word.starts_with('/'))
            .map(Path::new)
        else {
            continue;
        };
        let to = inside(library);
        if !to.exists() {
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(library, &to)?;
        }
    }
    Ok(())
}

/// Boots, and judges the guest by what it says.
fn boot(kernel: &Path, initramfs: &Path, limit: Duration) -> Result<()> {
    let mut qemu = super::qemu();
    qemu.arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1"]);
    let (mut passed, mut ended) = (0, false);
    super::boot(&mut qemu, limit, |line| {
        passed += usize::from(line.contains("test result: ok."));
        ended |= line.contains(END);
    })?;
    if !ended || passed != TESTS.len() {
        bail!(
            "{passed} of {} test programs passed on that kernel",
            TESTS.len()
        );
    }
    Ok(())
}
