//! `cargo xtask test`.

use anyhow::Result;

use crate::install::{self, Need};
use crate::shell;

/// Set in the tests' environment when nothing may touch the kernel.
const NO_KERNEL: &str = "INTERCEPTOR_TESTS_NO_KERNEL";

/// Run all tests, with the real kernel and real servers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask test -- --test postgres_simple")]
pub(crate) struct Args {
    /// For a machine without root: what needs the kernel says SKIPPED, loudly
    #[arg(long)]
    no_kernel: bool,
    /// Only tests whose name contains this, or further arguments for `cargo test`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if !args.no_kernel && !nix::unistd::geteuid().is_root() {
        anyhow::bail!(
            "the tests load kernel programs and start servers as other users: run this as root, \
             or with --no-kernel to leave those out"
        );
    }
    install::install(&[Need::Build, Need::Servers, Need::Python])?;

    shell::step("Building the program and every test");
    // One command for both, so that they share features and thus artefacts.
    shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--tests"]))?;

    shell::step("Running every test");
    let mut tests = shell::cargo();
    tests.args(["test", "--workspace", "--no-fail-fast"]);
    if args.no_kernel {
        tests.env(NO_KERNEL, "1");
        println!("--no-kernel: tests that need the kernel print SKIPPED and check nothing");
    }
    shell::run(tests.args(&args.rest))
}
