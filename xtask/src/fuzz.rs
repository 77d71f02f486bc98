//! `cargo xtask fuzz`: a fuzz target of the parsers for a bounded time.
//!
//! Instrumentation needs a compiler that takes `-Z` flags. A nightly is used
//! where rustup has one; otherwise the tree's own compiler is told to behave
//! like one, which serves here because the flags concern coverage only and no
//! unstable language or library feature is used. For the same reason there is no
//! address sanitizer: the crate has no unsafe code to watch.
//!
//! What the fuzzer finds new goes to `target/fuzz-corpus`, not to the corpus in
//! the tree, which is chosen by hand. An input that breaks a promise is left
//! where the fuzzer says; once fixed, it belongs in the tree's corpus.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// The version that this tree was tried with.
const CARGO_FUZZ: &str = "0.13.2";

/// Run a fuzz target for a bounded time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask fuzz pg_startup --seconds 60")]
pub(crate) struct Args {
    /// Which target; `all` takes one after the other
    target: String,
    /// How long each may run
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let known = targets()?;
    let chosen: Vec<&String> = match args.target.as_str() {
        "all" => known.iter().collect(),
        name => known.iter().filter(|known| *known == name).collect(),
    };
    if chosen.is_empty() {
        bail!(
            "no fuzz target `{}`; there are {}, and all",
            args.target,
            known.join(", ")
        );
    }
    install()?;
    for target in chosen {
        shell::step(&format!("{target}, {} s", args.seconds));
        fuzz(target, args.seconds)?;
    }
    Ok(())
}

/// The targets, by their files.
fn targets() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    let mut names = Vec::new();
    for entry in folder
        .read_dir()
        .with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|s| s.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn folder() -> PathBuf {
    shell::root().join("interceptor-proto/fuzz")
}

fn install() -> Result<()> {
    if shell::succeeds(shell::cargo().args(["fuzz", "--version"])) {
        return Ok(());
    }
    shell::step("installing cargo-fuzz");
    shell::run(shell::cargo().args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ]))
}

fn fuzz(target: &str, seconds: u64) -> Result<()> {
    let found = shell::target_dir().join("fuzz-corpus").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
    let mut command = instrumenting();
    command
        .current_dir(folder())
        .args(["fuzz", "run", "--sanitizer", "none", target])
        // The fuzzer writes to the first folder and only reads the second.
        .args([found, folder().join("corpus").join(target)])
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .args(["-max_len=8192", "-print_final_stats=1"]);
    shell::run(&mut command)
}

/// A cargo whose compiler takes `-Z` flags.
fn instrumenting() -> Command {
    let mut nightly = Command::new("cargo");
    nightly.arg("+nightly");
    if shell::succeeds(Command::new("cargo").args(["+nightly", "--version"])) {
        // Set by the cargo that runs us; they would win over `+nightly`.
        nightly.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        return nightly;
    }
    let mut own = shell::cargo();
    own.env("RUSTC_BOOTSTRAP", "1");
    own
}
