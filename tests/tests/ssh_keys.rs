//! Who the origin is, and who logs on there.

use anyhow::{Context as _, Result};
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::needs::{REMOTE_PASSWORD, ordinary_user};
use interceptor_tests::place::Place;
use interceptor_tests::sshd::{Plan, Shared, Sshd, keygen, target, with_credentials};
use serde_json::{Value, json};

/// A target whose file knows another key.
fn changed(sshd: &Sshd, place: &Place) -> Result<Value> {
    let other = place.path("other_key");
    keygen(&other)?;
    let key = std::fs::read_to_string(other.with_extension("pub"))?;
    let known = place.file("changed", &format!("[127.0.0.1]:{} {key}", sshd.port))?;
    Ok(json!({ "targets": [target(sshd, &json!({ "known_hosts": known }))] }))
}

/// A target whose file knows nothing.
fn unknown(sshd: &Sshd, place: &Place) -> Result<Value> {
    let known = place.file("empty", "")?;
    Ok(json!({ "targets": [target(sshd, &json!({ "known_hosts": known }))] }))
}

/// A target whose first key is taken, and the proxy's credentials for it.
fn learning(sshd: &Sshd, place: &Place) -> Result<Value> {
    let known = place.file("empty", "")?;
    let settings = json!({
        "known_hosts": known,
        "unknown_host_key": "accept_new",
        "credentials": { "user": sshd.user, "key": { "file": sshd.key } },
    });
    Ok(json!({ "targets": [target(sshd, &settings)] }))
}

/// A target without credentials, where no agent gets a shell.
fn passing(sshd: &Sshd, _: &Place) -> Result<Value> {
    Ok(json!({ "targets": [target(sshd, &json!({ "shell": false }))] }))
}

const NO_RULES: &str = "version: 1\nrules: []\n";

static CHANGED: Shared = Shared::new(Plan {
    rules: NO_RULES,
    config: changed,
});
static UNKNOWN: Shared = Shared::new(Plan {
    rules: NO_RULES,
    config: unknown,
});
static LEARNING: Shared = Shared::new(Plan {
    rules: NO_RULES,
    config: learning,
});
static PASSING: Shared = Shared::new(Plan {
    rules: NO_RULES,
    config: passing,
});

static TRUSTED: Shared = Shared::new(Plan {
    rules: NO_RULES,
    config: with_credentials,
});

#[test]
fn an_agents_ssh_trusts_the_key_that_it_is_shown_with_no_word_about_it() -> Result<()> {
    TRUSTED.test(|shell| {
        let port = shell.sshd.port.to_string();
        let done = shell.agent("truster").run(&[
            "ssh",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
            "-p",
            &port,
            "agent@127.0.0.1",
            "echo trusted",
        ])?;
        assert_eq!(done.ok()?.stdout, "trusted\n");
        // In the agent's view alone.
        let ours = "Written by Interceptor";
        let seen = shell.agent("reader").run(&["cat", "/etc/ssh/ssh_config"])?;
        assert!(seen.ok()?.stdout.contains(ours));
        assert!(!std::fs::read_to_string("/etc/ssh/ssh_config")?.contains(ours));
        Ok(())
    })
}

/// A target at which sessions log on with certificates, and agents with listed keys.
fn listed(sshd: &Sshd, place: &Place) -> Result<Value> {
    let key = place.path("agents_key");
    keygen(&key)?;
    nix::unistd::chown(&key, Some(ordinary_user()?.uid), None)?;
    let authority = json!({ "user": sshd.user, "authority": { "file": sshd.authority } });
    let settings = json!({
        "credentials": authority,
        "authorized_keys": key.with_extension("pub"),
    });
    Ok(json!({ "targets": [target(sshd, &settings)] }))
}

static LISTED: Shared = Shared::new(Plan {
    rules: NO_RULES,
    config: listed,
});

#[test]
fn an_agent_shows_a_listed_key_and_the_session_has_a_certificate_of_its_own() -> Result<()> {
    LISTED.test(|shell| {
        let refused = shell.ssh("keyless", &["true"])?;
        assert_eq!(refused.status.code(), Some(255), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("Permission denied"),
            "{}",
            refused.stderr
        );
        let key = shell.place.path("agents_key").display().to_string();
        let done = shell
            .agent("keyed")
            .run(&shell.words(&["-i", &key], &["id", "-un"]))?;
        assert_eq!(done.ok()?.stdout.trim(), shell.sshd.user);
        let log = std::fs::read_to_string(&shell.sshd.log)?;
        let (id, events) = shell.records()?.only_session_of("keyed")?;
        assert!(log.contains(&format!("ID keyed in {id} ")), "{log}");
        let auth = events.iter().find(|event| event.kind == "auth");
        assert!(auth.is_some_and(|auth| auth.meta["accepted"] == true));
        assert!(!log.contains("ID keyless"), "{log}");
        Ok(())
    })
}

#[test]
fn a_server_whose_key_has_changed_is_refused_in_words_before_any_key_of_ours_is_shown() -> Result<()>
{
    CHANGED.test(|shell| {
        let done = shell.ssh("early", &["true"])?;
        assert_eq!(done.status.code(), Some(255));
        assert!(done.stderr.contains("has changed"), "{}", done.stderr);
        let log = std::fs::read_to_string(&shell.sshd.log)?;
        assert!(!log.contains("Accepted"), "{log}");
        Ok(())
    })
}

#[test]
fn a_server_that_nobody_knows_is_refused_with_what_to_do() -> Result<()> {
    UNKNOWN.test(|shell| {
        let done = shell.ssh("stranger", &["true"])?;
        assert_eq!(done.status.code(), Some(255));
        assert!(done.stderr.contains("unknown_host_key"), "{}", done.stderr);
        Ok(())
    })
}

#[test]
fn a_key_that_was_taken_at_first_is_kept_and_another_is_refused_from_then_on() -> Result<()> {
    LEARNING.test(|shell| {
        shell.ssh("first", &["true"])?.ok()?;
        shell.ssh("second", &["true"])?.ok()?;
        shell.daemon.restart()?;
        shell.ssh("third", &["true"])?.ok()?;
        for (agent, is) in [("first", "new"), ("second", "known"), ("third", "known")] {
            let (_, events) = shell.records()?.only_session_of(agent)?;
            let open = events.first().context("nothing on record")?;
            assert_eq!(open.meta["host_key_is"], is, "{agent}: {}", open.meta);
        }
        shell.sshd.renew()?;
        let accepted = || -> Result<usize> {
            let log = std::fs::read_to_string(&shell.sshd.log)?;
            Ok(log.matches("Accepted").count())
        };
        let before = accepted()?;
        let done = shell.ssh("fourth", &["true"])?;
        assert_eq!(done.status.code(), Some(255));
        assert!(done.stderr.contains("has changed"), "{}", done.stderr);
        assert_eq!(accepted()?, before, "somebody logged on");
        eventually("the alert", SOON, || {
            let alerts = shell.records()?.stream("interceptor:alerts")?;
            Ok(alerts.iter().any(|alert| {
                let line = alert.get("line").cloned().unwrap_or_default();
                String::from_utf8_lossy(&line).contains("has changed")
            }))
        })
    })
}

#[test]
fn a_password_is_passed_through_and_stands_nowhere() -> Result<()> {
    PASSING.test(|shell| {
        let ask = shell.place.file(
            "askpass",
            &format!("#!/bin/sh\necho \"{REMOTE_PASSWORD}\"\n"),
        )?;
        let mut mode = std::fs::metadata(&ask)?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        std::fs::set_permissions(&ask, mode)?;
        let mut words: Vec<String> = shell.words(&[], &["id", "-un"]);
        for word in &mut words {
            if word == "BatchMode=yes" {
                *word = "BatchMode=no".to_owned();
            } else if word == "agent@127.0.0.1" {
                *word = format!("{}@127.0.0.1", shell.sshd.user);
            }
        }
        let agent = shell
            .agent("asker")
            .env("SSH_ASKPASS", ask.display().to_string())
            .env("SSH_ASKPASS_REQUIRE", "force");
        let done = agent.run(&words)?.ok()?;
        assert_eq!(done.stdout.trim(), shell.sshd.user);
        let (_, events) = shell.records()?.only_session_of("asker")?;
        assert!(
            events
                .iter()
                .any(|event| event.kind == "auth" && event.meta["accepted"] == true)
        );
        assert!(!shell.records()?.everything()?.contains(REMOTE_PASSWORD));
        // And no shell, where the target gives none.
        for word in &mut words {
            if word == "id" {
                *word = "bash".to_owned();
            } else if word == "-un" {
                *word = "-i".to_owned();
            }
        }
        let done = agent.run(&words)?;
        assert_eq!(done.status.code(), Some(126), "{}", done.stderr);
        Ok(())
    })
}
