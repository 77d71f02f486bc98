//! Guests: the tests and the program on another kernel, without rebooting.
//!
//! QEMU boots them in software emulation, so no virtualisation is needed.

pub(crate) mod debian;
pub(crate) mod oldest_kernel;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::shell;

const QEMU: &str = "qemu-system-x86_64";

/// Installs Debian packages, where that was asked for.
fn install(packages: &[&str]) -> Result<()> {
    shell::run_quietly(
        Command::new("apt-get")
            .args(["-o", "DPkg::Lock::Timeout=300", "install", "-y"])
            .arg("--no-install-recommends")
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// Installs QEMU where `install` is given and it is missing.
fn need_qemu(may_install: bool, example: &str) -> Result<()> {
    let is_there = || shell::succeeds(Command::new(QEMU).arg("--version"));
    if may_install && !is_there() {
        install(&["qemu-system-x86"])?;
    }
    ensure!(is_there(), "{QEMU} is missing; `{example}` installs it");
    Ok(())
}

/// QEMU with a console and no network.
fn qemu() -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args(["-m", "2G", "-smp", "2", "-nographic", "-no-reboot"]);
    qemu.args(["-nic", "none"]);
    qemu
}

/// Boots, shows what the guest says, and gives each line to `line`.
fn boot(qemu: &mut Command, limit: Duration, mut line: impl FnMut(&str)) -> Result<()> {
    let mut qemu = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting QEMU")?;
    let output = qemu.stdout.take().context("QEMU has no output")?;
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if say
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let said = loop {
        match hear.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(said) => {
                println!("  {}", said.trim_end());
                line(&said);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                break Err(anyhow::anyhow!("the guest was not through after {limit:?}"));
            }
        }
    };
    let _ = qemu.kill();
    qemu.wait()?;
    said
}
