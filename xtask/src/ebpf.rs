//! `cargo xtask ebpf`: builds the kernel programs.
//!
//! The compiled object is in the tree and embedded, so that nobody who builds
//! Interceptor needs LLVM; this command makes it, and `--check` shows that it is what
//! the source says. The build is reproducible for one set of tools: paths are
//! remapped and debug information is stripped (BTF stays, the kernel reads it). A
//! manifest beside the object names those tools and the digest of the sources, which
//! is what is left to compare where the tools are others.
//!
//! Two sets of tools will do: Debian's `rustc-web`, which brings `core` for the BPF
//! target ready-made, and a rustup nightly with `rust-src`. Both need `bpf-linker`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "interceptor-ebpf/object/interceptor.o";
const MANIFEST: &str = "interceptor-ebpf/object/manifest.json";
/// Everything that the object is made of.
const SOURCES: [&str; 5] = [
    "interceptor-common/Cargo.toml",
    "interceptor-common/src",
    "interceptor-ebpf/Cargo.lock",
    "interceptor-ebpf/Cargo.toml",
    "interceptor-ebpf/src",
];
const DEBIAN_PACKAGES: [&str; 6] = [
    "rustc-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];
const LINKER_VERSION: &str = "0.13.0";

/// Rebuilds the eBPF object from source.
///
/// Example: cargo xtask ebpf --install
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail when the committed object does not match its source
    #[arg(long)]
    pub(crate) check: bool,
    /// Install what is missing first (Debian packages, bpf-linker)
    #[arg(long)]
    pub(crate) install: bool,
}

/// What stands beside the object.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    /// BLAKE3 over the paths and bytes of the sources.
    sources: String,
    /// BLAKE3 of the object.
    object: String,
    /// What it was built with.
    tools: Versions,
}

/// Versions of the tools; equal versions give equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Versions {
    rustc: String,
    linker: String,
    objcopy: String,
}

/// A set of tools that can build the object.
struct Tools {
    kind: Kind,
    linker: PathBuf,
    objcopy: PathBuf,
    versions: Versions,
}

/// Where `core` for the BPF target comes from.
enum Kind {
    /// Ready-made beside Debian's compiler.
    Debian,
    /// Built on the way, from `rust-src`.
    Nightly,
}

/// Runs the command.
///
/// # Errors
/// When a tool is missing, the build fails, or the object differs.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let root = root()?;
    if args.install {
        install()?;
    }
    if args.check {
        return check(&root);
    }
    let tools = Tools::find()?;
    let object = build(&root, &tools)?;
    let manifest = Manifest {
        sources: sources(&root)?,
        object: blake3::hash(&object).to_hex().to_string(),
        tools: tools.versions,
    };
    let mut text = serde_json::to_string_pretty(&manifest)?;
    text.push('\n');
    let path = root.join(OBJECT);
    fs::create_dir_all(path.parent().context("the object has a folder")?)?;
    let changed = fs::read(&path).ok().as_deref() != Some(&object[..]);
    fs::write(&path, &object).with_context(|| format!("writing {}", path.display()))?;
    fs::write(root.join(MANIFEST), text)?;
    say(&format!(
        "{OBJECT}: {} bytes, {}",
        object.len(),
        if changed { "new" } else { "as it was" }
    ));
    Ok(())
}

/// Compares the committed object with its source, as far as the tools at hand allow.
fn check(root: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(root.join(MANIFEST))
        .with_context(|| format!("reading {MANIFEST}; `cargo xtask ebpf` writes it"))?;
    let manifest: Manifest =
        serde_json::from_str(&text).with_context(|| format!("reading {MANIFEST}"))?;
    let committed = fs::read(root.join(OBJECT)).with_context(|| format!("reading {OBJECT}"))?;
    ensure!(
        blake3::hash(&committed).to_hex().as_str() == manifest.object,
        "{OBJECT} is not the object that {MANIFEST} names; run `cargo xtask ebpf`"
    );
    ensure!(
        sources(root)? == manifest.sources,
        "the sources of {OBJECT} have changed since it was built; run `cargo xtask ebpf`"
    );
    match Tools::find() {
        Ok(tools) if tools.versions == manifest.tools => {
            ensure!(
                build(root, &tools)? == committed,
                "{OBJECT} is not what its source builds to, with the very tools that {MANIFEST} names"
            );
            say(&format!(
                "{OBJECT} is what its source builds to, byte for byte"
            ));
        }
        _ => say(&format!(
            "{OBJECT} belongs to its source, by digest; it was built with {} and {}, which are not here, so it was not rebuilt",
            manifest.tools.rustc, manifest.tools.linker
        )),
    }
    Ok(())
}

/// Builds in a folder of its own, so that what is committed changes only at the end.
fn build(root: &Path, tools: &Tools) -> anyhow::Result<Vec<u8>> {
    let crate_dir = root.join("interceptor-ebpf");
    let target_dir = crate_dir.join("target");
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    // One flag a separator: paths may hold blanks.
    let flags = [
        format!("-Clinker={}", tools.linker.display()),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        remap(&cargo_home.join("registry/src"), "/registry"),
        remap(root, "/interceptor"),
    ]
    .join("\x1f");
    let mut command = match tools.kind {
        Kind::Debian => {
            let mut command = Command::new("cargo");
            command
                .env("RUSTC", DEBIAN_RUSTC)
                .env("RUSTC_BOOTSTRAP", "1");
            command.args(["build", "--release", "--locked", "--target", TARGET]);
            command
        }
        Kind::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"]);
            command.args(["--release", "--locked", "--target", TARGET]);
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC");
            command
        }
    };
    command
        .current_dir(&crate_dir)
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER");
    run_it(&mut command)?;
    let built = target_dir.join(TARGET).join("release/interceptor-ebpf");
    let stripped = target_dir.join("interceptor.o");
    run_it(
        Command::new(&tools.objcopy)
            .arg("--strip-debug")
            .arg(&built)
            .arg(&stripped),
    )?;
    let object = fs::read(&stripped)?;
    for path in [root, &cargo_home] {
        ensure!(
            !contains(&object, path.as_os_str().as_encoded_bytes()),
            "the object names a path of this machine: {}",
            path.display()
        );
    }
    Ok(object)
}

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

impl Tools {
    fn find() -> anyhow::Result<Self> {
        let Some(linker) = find_program("bpf-linker", &cargo_bin()) else {
            bail!(
                "bpf-linker is missing; `cargo xtask ebpf --install` installs it, or by hand:\n  \
                 LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version {LINKER_VERSION} --locked --no-default-features --features llvm-22"
            );
        };
        let Some(objcopy) = find_program("llvm-objcopy", &llvm_bins()) else {
            bail!("llvm-objcopy is missing: apt-get install llvm-22");
        };
        let (kind, rustc) = if debian_has_target() {
            (Kind::Debian, output(Command::new(DEBIAN_RUSTC).arg("-V"))?)
        } else if nightly_has_source() {
            let version = output(Command::new("rustup").args(["run", "nightly", "rustc", "-V"]))?;
            (Kind::Nightly, version)
        } else {
            bail!(
                "no compiler for {TARGET}. One of these is needed:\n  \
                 on Debian: apt-get install {}   (or: cargo xtask ebpf --install)\n  \
                 with rustup: rustup toolchain install nightly --component rust-src",
                DEBIAN_PACKAGES.join(" ")
            );
        };
        let objcopy_version = output(Command::new(&objcopy).arg("--version"))?;
        let versions = Versions {
            rustc,
            linker: output(Command::new(&linker).arg("--version"))?,
            objcopy: objcopy_version
                .lines()
                .find(|line| line.contains("version"))
                .unwrap_or_default()
                .trim()
                .to_owned(),
        };
        Ok(Self {
            kind,
            linker,
            objcopy,
            versions,
        })
    }
}

fn debian_has_target() -> bool {
    let mut command = Command::new(DEBIAN_RUSTC);
    command.args(["--print", "target-libdir", "--target", TARGET]);
    output(&mut command).is_ok_and(|path| {
        fs::read_dir(path).is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        })
    })
}

fn nightly_has_source() -> bool {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    output(&mut command).is_ok_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
    })
}

/// Installs the Debian way's tools, those that are missing.
fn install() -> anyhow::Result<()> {
    if !debian_has_target() || find_program("llvm-objcopy", &llvm_bins()).is_none() {
        say(&format!("installing {}", DEBIAN_PACKAGES.join(" ")));
        run_it(
            Command::new("apt-get")
                .args(["-o", "DPkg::Lock::Timeout=300", "install", "-y"])
                .args(["--no-install-recommends"])
                .args(DEBIAN_PACKAGES)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )?;
    }
    if find_program("bpf-linker", &cargo_bin()).is_none() {
        say(&format!("installing bpf-linker {LINKER_VERSION}"));
        run_it(
            Command::new("cargo")
                .args(["install", "bpf-linker", "--version", LINKER_VERSION])
                .args(["--locked", "--no-default-features", "--features", "llvm-22"])
                .env("LLVM_PREFIX", "/usr/lib/llvm-22"),
        )?;
    }
    Ok(())
}

/// Digest of everything that the object is made of: path, length and bytes of each
/// file, in order of the paths.
fn sources(root: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let name = file.strip_prefix(root)?.to_string_lossy().into_owned();
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
        hasher.update(&u64::try_from(bytes.len())?.to_be_bytes());
        hasher.update(&bytes);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else {
        files.push(path.to_owned());
    }
    Ok(())
}

fn root() -> anyhow::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .context("xtask lives in the workspace")
}

fn cargo_bin() -> Vec<PathBuf> {
    env::var_os("HOME")
        .map(|home| Path::new(&home).join(".cargo/bin"))
        .into_iter()
        .collect()
}

fn llvm_bins() -> Vec<PathBuf> {
    (17..=30)
        .rev()
        .map(|version| PathBuf::from(format!("/usr/lib/llvm-{version}/bin")))
        .collect()
}

/// A program in one of the folders it is usually in, the newest first, or in `PATH`.
fn find_program(name: &str, usual: &[PathBuf]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    usual
        .iter()
        .cloned()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run_it(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty()
        && haystack
            .windows(needle.len())
            .any(|window| window == needle)
}

#[allow(
    clippy::print_stdout,
    reason = "a command of the source tree talks to its person"
)]
fn say(line: &str) {
    println!("{line}");
}
