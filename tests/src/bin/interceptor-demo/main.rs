//! The main job, end to end, with real servers: what `cargo xtask demo` runs.
//!
//! It checks what it shows: when a refusal, a mask or a record is not as it
//! says, it ends with an error.
//!
//! * [`postgres`], [`http`], [`ssh`]: a protocol's part;
//! * [`style`]: how things are shown.

#![allow(clippy::print_stdout, reason = "showing is what a demo does")]

mod http;
mod postgres;
mod ssh;
mod style;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use interceptor_tests::daemon;
use interceptor_tests::needs;
use interceptor_tests::sshd::Shell;
use interceptor_tests::web::Web;
use interceptor_tests::world::World;

use style::{RED, Style};

/// The main job, end to end, with real servers.
#[derive(Debug, Parser)]
struct Cli {
    /// Leave everything up to play with, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Run one part alone
    #[arg(long, value_parser = ["postgres", "http", "ssh"])]
    only: Option<String>,
}

fn main() -> ExitCode {
    match demo(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!();
            Style::new().line(RED, &format!("The demo failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn demo(cli: &Cli) -> Result<()> {
    let style = Style::new();
    ensure!(
        needs::kernel()?,
        "the demo loads kernel programs: unset INTERCEPTOR_TESTS_NO_KERNEL"
    );
    let wants = |part: &str| cli.only.as_deref().is_none_or(|only| only == part);
    let shop = wants("postgres")
        .then(|| postgres::show(&style))
        .transpose()?;
    let pages = wants("http").then(|| http::show(&style)).transpose()?;
    let shell = wants("ssh").then(|| ssh::show(&style)).transpose()?;
    style.title("What to try next");
    if !cli.keep {
        println!(
            "   cargo xtask demo --keep          leave all of it up, and be the agent yourself"
        );
        println!("   cargo xtask test                 every promise, tested against real servers");
        println!("   cargo xtask bench postgres       what it costs; bench http");
        println!(
            "   rules/                           the rules that were in force; README.md has more"
        );
        return Ok(());
    }
    println!("   In another terminal, as root:");
    if let Some((world, session)) = &shop {
        try_shop(world, session)?;
    }
    if let Some((web, session)) = &pages {
        try_pages(web, session)?;
    }
    if let Some((shell, session)) = &shell {
        try_shell(shell, session)?;
    }
    println!("\n   Everything here ends with Ctrl-C.");
    wait_for_ctrl_c()
}

/// The shipped rules.
fn rules() -> PathBuf {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    tree.parent().unwrap_or(tree).join("rules")
}

fn try_shop(world: &World, session: &str) -> Result<()> {
    let program = daemon::program()?;
    let program = program.display();
    println!(
        "\n   export INTERCEPTOR_CONFIG={}",
        world.daemon.config().display()
    );
    println!(
        "   {program} exec --agent me --user {} -- psql -h 127.0.0.1 -p {} -U agent postgres",
        needs::ORDINARY_USER,
        world.postgres.port
    );
    println!("   {program} sessions list");
    println!("   {program} replay {session}");
    println!(
        "   redis-cli -p {} XREAD BLOCK 0 STREAMS interceptor:live '$'",
        world.redis.port
    );
    Ok(())
}

fn try_pages(web: &Web, session: &str) -> Result<()> {
    let program = daemon::program()?;
    let program = program.display();
    println!(
        "\n   export INTERCEPTOR_CONFIG={}",
        web.daemon.config().display()
    );
    println!(
        "   {program} exec --agent me --user {} -- curl -i https://localhost:{}/files/customer.json",
        needs::ORDINARY_USER,
        web.nginx.port_tls
    );
    println!("   {program} replay {session}");
    Ok(())
}

fn try_shell(shell: &Shell, session: &str) -> Result<()> {
    let program = daemon::program()?;
    let program = program.display();
    println!(
        "\n   export INTERCEPTOR_CONFIG={}",
        shell.daemon.config().display()
    );
    println!(
        "   {program} exec --agent me --user {} -- ssh {} -p {} agent@127.0.0.1",
        needs::ORDINARY_USER,
        shell.options().join(" "),
        shell.sshd.port
    );
    println!("   {program} replay {session}");
    Ok(())
}

fn wait_for_ctrl_c() -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("blocking signals")?;
    match signals.wait() {
        Ok(_) => Ok(()),
        Err(error) => bail!("waiting for Ctrl-C: {error}"),
    }
}
