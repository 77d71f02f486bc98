//! `cargo xtask fuzz`: a fuzz target of the parsers for a bounded time. Targets are in
//! a crate of their own beside each crate that has some.
//!
//! Instrumentation needs a compiler that takes `-Z` flags. A nightly is used
//! where rustup has one; otherwise the tree's own compiler is told to behave
//! like one, which serves here because the flags concern coverage only and no
//! unstable language or library feature is used. For the same reason there is no
//! address sanitizer: the crates have no unsafe code to watch.
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

/// The crates of fuzz targets, by their folders.
const CRATES: [&str; 2] = ["interceptor-engine/fuzz", "interceptor-proto/fuzz"];

pub(crate) fn run(args: Args) -> Result<()> {
    let known = targets()?;
    let chosen: Vec<&Target> = match args.target.as_str() {
        "all" => known.iter().collect(),
        name => known.iter().filter(|known| known.name == name).collect(),
    };
    if chosen.is_empty() {
        let names: Vec<&str> = known.iter().map(|target| target.name.as_str()).collect();
        bail!(
            "no fuzz target `{}`; there are {}, and all",
            args.target,
            names.join(", ")
        );
    }
    install()?;
    for target in chosen {
        shell::step(&format!("{}, {} s", target.name, args.seconds));
        fuzz(target, args.seconds)?;
    }
    Ok(())
}

/// A target, and the folder of its crate.
#[derive(Debug)]
struct Target {
    folder: PathBuf,
    name: String,
}

/// The targets, by their files.
fn targets() -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for apart in CRATES {
        let folder = shell::root().join(apart);
        let files = folder.join("fuzz_targets");
        for entry in files
            .read_dir()
            .with_context(|| format!("reading {}", files.display()))?
        {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "rs")
                && let Some(name) = path.file_stem()
            {
                targets.push(Target {
                    folder: folder.clone(),
                    name: name.to_string_lossy().into_owned(),
                });
            }
        }
    }
    targets.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(targets)
}

fn install() -> Result<()> {
    if shell::succeeds(shell::cargo().args(["fuzz", "--version"])) {
        return Ok(());
    }
    shell::step("installing cargo-fuzz");
    shell::run(shell::cargo().args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ]))
}

fn fuzz(target: &Target, seconds: u64) -> Result<()> {
    let Target { folder, name } = target;
    let found = shell::target_dir().join("fuzz-corpus").join(name);
    std::fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
    let mut command = instrumenting();
    command
        .current_dir(folder)
        .args(["fuzz", "run", "--sanitizer", "none", name])
        // The fuzzer writes to the first folder and only reads the second.
        .args([found, folder.join("corpus").join(name)])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_built_has_a_corpus_and_has_its_corpus_tested() {
        for target in targets().unwrap() {
            let Target { folder, name } = &target;
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            let corpus = folder.join("corpus").join(name).read_dir().unwrap();
            assert!(corpus.count() > 0, "{name}");
            let tested = folder.join("../src/fuzzing/mod.rs");
            let tested = std::fs::read_to_string(tested).unwrap();
            assert!(tested.contains(&format!("run(\"{name}\"")), "{name}");
        }
        assert!(targets().unwrap().len() >= 16);
    }
}
