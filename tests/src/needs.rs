//! What a test needs of the machine, and what happens where that is missing.
//!
//! A test that cannot run fails. Only `INTERCEPTOR_TESTS_NO_KERNEL=1`, which
//! `cargo xtask test --no-kernel` sets, makes it say SKIPPED and pass.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::User;

/// Whether tests that need the kernel run. Prints a loud line where they do not.
///
/// # Errors
/// When they should and this process is not root.
pub fn kernel() -> Result<bool> {
    if std::env::var_os("INTERCEPTOR_TESTS_NO_KERNEL").is_some_and(|value| value == "1") {
        #[allow(clippy::print_stderr, reason = "a skipped test must be seen")]
        {
            let thread = std::thread::current();
            eprintln!(
                "SKIPPED, NOTHING CHECKED: {} needs the kernel, and INTERCEPTOR_TESTS_NO_KERNEL is set",
                thread.name().unwrap_or("a test")
            );
        }
        return Ok(false);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "this test loads kernel programs: run it as root, or set INTERCEPTOR_TESTS_NO_KERNEL=1 \
             to leave it out"
        );
    }
    Ok(true)
}

/// Name of the ordinary user that agents run as.
pub const ORDINARY_USER: &str = "interceptor-test";

/// The ordinary user that agents run as; made where there is none.
///
/// # Errors
/// When it is not there and cannot be made.
pub fn ordinary_user() -> Result<User> {
    let look_up = || User::from_name(ORDINARY_USER).context("looking up the tests' user");
    if let Some(user) = look_up()? {
        return Ok(user);
    }
    // Two test programs may get here at once; the look-up afterwards decides.
    let made = Command::new("useradd")
        .args(["--system", "--no-create-home", "--home-dir", "/nonexistent"])
        .args(["--shell", "/usr/sbin/nologin", ORDINARY_USER])
        .output()
        .context("starting useradd")?;
    look_up()?.with_context(|| {
        format!(
            "making the user {ORDINARY_USER}: {}",
            String::from_utf8_lossy(&made.stderr)
        )
    })
}

/// Name of the user that agents log on as over SSH.
pub const REMOTE_USER: &str = "interceptor-ssh";
/// Its password, for this machine's own loopback servers.
pub const REMOTE_PASSWORD: &str = "a remote user's password";

/// The user that agents log on as over SSH, with a shell, a home and a password; made
/// where there is none.
///
/// # Errors
/// When it is not there and cannot be made.
pub fn remote_user() -> Result<User> {
    let look_up = || User::from_name(REMOTE_USER).context("looking up the remote user");
    if look_up()?.is_none() {
        let made = Command::new("useradd")
            .args([
                "--system",
                "--create-home",
                "--shell",
                "/bin/bash",
                REMOTE_USER,
            ])
            .output()
            .context("starting useradd")?;
        look_up()?.with_context(|| {
            format!(
                "making the user {REMOTE_USER}: {}",
                String::from_utf8_lossy(&made.stderr)
            )
        })?;
    }
    let mut set = Command::new("chpasswd")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .context("starting chpasswd")?;
    if let Some(mut input) = set.stdin.take() {
        use std::io::Write as _;
        writeln!(input, "{REMOTE_USER}:{REMOTE_PASSWORD}")?;
    }
    if !set.wait()?.success() {
        bail!("setting the remote user's password");
    }
    look_up()?.context("the remote user is gone")
}

/// The user that PostgreSQL runs as: it refuses root. `None` for the caller.
///
/// # Errors
/// When root has no user `postgres` to use.
pub fn database_user() -> Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres").context("looking up the user postgres")?;
    Ok(Some(user.context(
        "no user postgres: install PostgreSQL (`cargo xtask install servers`)",
    )?))
}
