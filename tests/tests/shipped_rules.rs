//! The rules that are shipped hold what their own tests promise.

use std::process::{Command, Output};

use anyhow::{Context as _, Result};

fn rules(command: &str) -> Result<Output> {
    Command::new(interceptor_tests::daemon::program()?)
        .args([
            "rules",
            command,
            concat!(env!("CARGO_MANIFEST_DIR"), "/../rules"),
        ])
        .output()
        .context("starting interceptor")
}

#[test]
fn the_shipped_rules_are_well_formed() -> Result<()> {
    let done = rules("check")?;
    assert!(done.status.success(), "{done:?}");
    Ok(())
}

#[test]
fn the_shipped_rules_pass_their_own_tests() -> Result<()> {
    let done = rules("test")?;
    assert!(done.status.success(), "{done:?}");
    Ok(())
}
