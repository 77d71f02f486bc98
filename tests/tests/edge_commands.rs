//! `interceptor ca` and `interceptor completions`, as an operator runs them.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use interceptor_tests::daemon;
use interceptor_tests::place::Place;

fn interceptor(place: &Place, line: &[&str]) -> Result<Output> {
    let config = place.file("interceptor.yaml", "runtime_dir: run\nstate_dir: state\n")?;
    Command::new(daemon::program()?)
        .env("INTERCEPTOR_CONFIG", config)
        .args(line)
        .output()
        .context("starting interceptor")
}

fn printed(place: &Place, line: &[&str]) -> Result<String> {
    let output = interceptor(place, line)?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn the_authority_is_made_once_shown_and_trusted() -> Result<()> {
    let place = Place::new()?;
    let none = interceptor(&place, &["ca", "show"])?;
    assert_eq!(none.status.code(), Some(1));
    let error = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(error.contains("`interceptor ca init` makes one"), "{error}");

    let made = printed(&place, &["ca", "init", "--json"])?;
    let made: serde_json::Value = serde_json::from_str(&made)?;
    let again: serde_json::Value =
        serde_json::from_str(&printed(&place, &["ca", "init", "--json"])?)?;
    assert_eq!(made, again, "it is made once");
    let fingerprint = made["sha256"].as_str().context("a fingerprint")?;
    let shown = printed(&place, &["ca", "show"])?;
    assert!(shown.contains(fingerprint), "{shown}");
    // openssl's word on the same file.
    let certificate = made["certificate"].as_str().context("a path")?;
    let theirs = Command::new("openssl")
        .args([
            "x509",
            "-noout",
            "-fingerprint",
            "-sha256",
            "-in",
            certificate,
        ])
        .output()?;
    let theirs = String::from_utf8_lossy(&theirs.stdout).into_owned();
    assert!(theirs.contains(fingerprint), "{theirs}");

    let line = [
        "ca",
        "trust",
        "--",
        "sh",
        "-c",
        "echo $PGSSLROOTCERT; exit 7",
    ];
    let trusted = interceptor(&place, &line)?;
    assert_eq!(trusted.status.code(), Some(7), "the command's own status");
    let bundle = made["bundle"].as_str().context("a path")?;
    assert_eq!(String::from_utf8_lossy(&trusted.stdout).trim(), bundle);
    Ok(())
}

#[test]
fn a_wrong_configuration_is_shown_with_place_and_fix() -> Result<()> {
    let place = Place::new()?;
    let config = place.file("wrong.yaml", "state_dir: x\nintercept:\n  kernal: true\n")?;
    let output = Command::new(daemon::program()?)
        .args(["ca", "show", "--config"])
        .arg(&config)
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [
        "unknown key `kernal`",
        "wrong.yaml:3:3",
        "did you mean `kernel`?",
    ] {
        assert!(error.contains(part), "{part} in:\n{error}");
    }
    Ok(())
}

#[test]
fn completions_are_a_script_that_bash_reads() -> Result<()> {
    let place = Place::new()?;
    let script = place.file("completions", &printed(&place, &["completions", "bash"])?)?;
    let read = Command::new("bash").arg("-n").arg(&script).output()?;
    assert!(
        read.status.success(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    Ok(())
}
