//! `cargo xtask`: the source tree's own tools.
//!
//! Orders builds and runs programs; links none of the workspace's crates, so
//! that it builds in seconds on a machine that has nothing yet. What needs real
//! servers (demo, bench) is a program of the crate `interceptor-tests`, which
//! these commands build and start.

#![allow(
    clippy::print_stdout,
    reason = "what these commands have to say goes to the terminal"
)]

mod ci;
mod ebpf;
mod fuzz;
mod guest;
mod install;
mod programs;
mod shell;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use guest::{debian, oldest_kernel};

/// The source tree's own tools.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job end to end, on a machine that has nothing yet
    Demo(programs::DemoArgs),
    /// Run all tests, with the real kernel and real servers
    Test(test::Args),
    /// Replay a recorded session, as `interceptor replay` does
    Replay(programs::ReplayArgs),
    /// Measure, each time beside a direct connection in the same run
    Bench(programs::BenchArgs),
    /// Rebuild the kernel programs' object from source
    Ebpf(ebpf::Args),
    /// Run the kernel's tests on the oldest kernel that is promised
    OldestKernel(oldest_kernel::Args),
    /// Install the program in a Debian 12 of its own, and show there that it holds
    Guest(debian::Args),
    /// Run a fuzz target of the parsers for a bounded time
    Fuzz(fuzz::Args),
    /// Check what a change must hold to: formatting, lints, licences, layering
    Ci(ci::Args),
    /// Install what the other commands need, and do nothing else
    Install(install::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => programs::demo(args),
        Command::Test(args) => test::run(args),
        Command::Replay(args) => programs::replay(args),
        Command::Bench(args) => programs::bench(args),
        Command::Ebpf(args) => ebpf::run(args),
        Command::OldestKernel(args) => oldest_kernel::run(args),
        Command::Guest(args) => debian::run(args),
        Command::Fuzz(args) => fuzz::run(args),
        Command::Ci(args) => ci::run(args),
        Command::Install(args) => install::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
