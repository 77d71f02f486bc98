//! The demo shows what it says: it checks its own claims, and runs to its end.

use std::process::Command;

use anyhow::{Context as _, Result};
use interceptor_tests::needs;

#[test]
fn the_demo_runs_to_its_end() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let done = Command::new(env!("CARGO_BIN_EXE_interceptor-demo"))
        .args(["--only", "postgres"])
        .env("INTERCEPTOR_BIN", interceptor_tests::daemon::program()?)
        .output()
        .context("starting the demo")?;
    let shown = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{shown}");
    assert!(shown.contains("What to try next"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colours where no terminal is");
    Ok(())
}
