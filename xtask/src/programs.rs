//! `cargo xtask demo`, `bench` and `replay`: build a program, then be it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::install::{self, Need};
use crate::shell;

/// Show the main job end to end, on a machine that has nothing yet.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask demo --keep")]
pub(crate) struct DemoArgs {
    /// Leave everything up to play with, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Run one part alone
    #[arg(long, value_enum)]
    only: Option<Protocol>,
}

/// What has a part in the demo, and a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    /// PostgreSQL
    Postgres,
    /// HTTP, in the clear and under TLS
    Http,
    /// SSH
    Ssh,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// PostgreSQL
    Postgres,
    /// HTTP, in the clear and under TLS
    Http,
    /// SSH
    Ssh,
    /// The recorder
    Record,
    /// Connects, flows and cgroups, many of them
    Scale,
    /// What passing bytes on in the kernel would bring
    Splice,
}

/// Its name, as on a command line.
fn name(value: impl clap::ValueEnum) -> String {
    let name = value.to_possible_value();
    name.map_or_else(String::new, |name| name.get_name().to_owned())
}

pub(crate) fn demo(args: DemoArgs) -> Result<()> {
    install::install(&[Need::Build, Need::Servers])?;
    let programs = build(Profile::Dev, &["interceptor", "interceptor-demo"])?;
    let mut demo = Command::new(programs.join("interceptor-demo"));
    demo.env("INTERCEPTOR_BIN", programs.join("interceptor"))
        .current_dir(shell::root());
    if args.keep {
        demo.arg("--keep");
    }
    if let Some(only) = args.only {
        demo.args(["--only", &name(only)]);
    }
    shell::become_program(&mut demo)
}

/// Measure, each time beside a direct connection in the same run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask bench postgres --quick --only prepared")]
pub(crate) struct BenchArgs {
    /// What to measure
    #[arg(value_enum)]
    what: Subject,
    /// Arguments of the benchmark; `-- --help` names them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn bench(args: BenchArgs) -> Result<()> {
    install::install(&[Need::Build, Need::Servers, Need::Bench])?;
    let programs = build(Profile::Release, &["interceptor", "interceptor-bench"])?;
    let mut bench = Command::new(programs.join("interceptor-bench"));
    bench
        .env("INTERCEPTOR_BIN", programs.join("interceptor"))
        .current_dir(shell::root())
        .arg(name(args.what))
        .args(&args.rest);
    shell::become_program(&mut bench)
}

/// Replay a recorded session, as `interceptor replay` does.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask replay last --speed 4")]
pub(crate) struct ReplayArgs {
    /// The session, and options of `interceptor replay`; `-- --help` names them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    rest: Vec<String>,
}

pub(crate) fn replay(args: ReplayArgs) -> Result<()> {
    let programs = build(Profile::Dev, &["interceptor"])?;
    let mut replay = Command::new(programs.join("interceptor"));
    shell::become_program(replay.arg("replay").args(&args.rest))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Profile {
    Dev,
    Release,
}

/// Builds programs; gives the folder they are in.
fn build(profile: Profile, programs: &[&str]) -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--quiet"]);
    // The same packages as the tests are built with, hence the same features:
    // demo and tests then share every artefact.
    cargo.arg("--workspace");
    for program in programs {
        cargo.args(["--bin", program]);
    }
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    if !shell::succeeds_in_view(&mut cargo)? {
        anyhow::bail!("the build failed");
    }
    Ok(shell::target_dir().join(folder))
}
