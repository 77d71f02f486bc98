//! `interceptor ca trust` on a real store of a real system: this one's, in a view of
//! the file system that nobody else has.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::program;
use interceptor_tests::needs;
use interceptor_tests::place::Place;

/// Gives the store layers of its own, runs the rest, and lets them go.
const VIEW: &str = r#"
set -e
mount -t tmpfs none "$WORK"
for folder in /etc/ssl/certs /usr/local/share/ca-certificates /etc/ssh; do
    name=$(echo "$folder" | tr / _)
    mkdir -p "$WORK/$name" "$WORK/$name.work"
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=$WORK/$name,workdir=$WORK/$name.work" "$folder"
done
"$INTERCEPTOR" --config "$CONFIG" ca init > /dev/null
"$INTERCEPTOR" --config "$CONFIG" ca trust > /dev/null
openssl verify -CApath /etc/ssl/certs "$RUN/ca.pem"
cat /etc/ssh/ssh_config.d/interceptor.conf
ssh -G nowhere.test | grep -i globalknownhosts
"$INTERCEPTOR" --config "$CONFIG" ca trust --remove > /dev/null
! openssl verify -CApath /etc/ssl/certs "$RUN/ca.pem" 2> /dev/null
test ! -e /etc/ssh/ssh_config.d/interceptor.conf
echo gone
"#;

#[test]
fn the_whole_system_trusts_the_authority_and_forgets_it_again() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let place = Place::new()?;
    let run = place.subfolder("run")?;
    let config = format!(
        "runtime_dir: {}\nstate_dir: {}\n",
        run.display(),
        place.subfolder("state")?.display()
    );
    let config = place.file("interceptor.yaml", &config)?;
    let done = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", VIEW])
        .env("WORK", place.subfolder("work")?)
        .env("INTERCEPTOR", program()?)
        .env("CONFIG", config)
        .env("RUN", &run)
        .output()
        .context("starting unshare")?;
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{said}\n{errors}");
    assert!(said.contains("ca.pem: OK"), "{said}");
    let known = run.join("ssh_known_hosts").display().to_string();
    assert_eq!(said.matches(&known).count(), 2, "{said}");
    assert!(said.ends_with("gone\n"), "{said}");
    // Nobody else saw any of it.
    let store = "/usr/local/share/ca-certificates/interceptor.crt";
    assert!(!std::path::Path::new(store).exists());
    Ok(())
}
