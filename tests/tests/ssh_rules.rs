//! Rules over SSH: commands by their programs, lines of a shell, files, forwards.

use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::sshd::{Plan, Shared, with_credentials};

const RULES: &str = r#"
version: 1
rules:
  - name: nothing-is-removed
    match: { ssh: { program: rm } }
    unless: { ssh: { kind: shell, command: "a shell without a terminal" } }
    verdict: block
    message: Files are removed by people.
  - name: no-secrets-by-sftp
    match: { ssh: { sftp: { operation: [read, write, remove, rename], path: "/**/secret*" } } }
    verdict: block
    message: Secrets stay where they are.
  - name: no-forwards
    match: { ssh: { kind: [local_forward, remote_forward] } }
    verdict: kill
    message: Nothing is tunnelled.
"#;

static SHELL: Shared = Shared::new(Plan {
    rules: RULES,
    config: with_credentials,
});

#[test]
fn a_command_is_refused_by_its_program_however_it_is_written() -> Result<()> {
    SHELL.test(|shell| {
        let kept = shell.sshd.files.join("kept");
        std::fs::write(&kept, "x")?;
        let kept = kept.display().to_string();
        for line in [
            format!("rm {kept}"),
            format!("r''m {kept}"),
            format!("echo x | xargs -I{{}} rm {kept}"),
            format!("sh -c 'true; rm {kept}'"),
            format!("/bin/rm {kept}"),
        ] {
            let done = shell.ssh("remover", &[&line])?;
            assert_eq!(done.status.code(), Some(126), "{line}: {}", done.stderr);
            assert!(
                done.stderr.contains("Files are removed by people."),
                "{}",
                done.stderr
            );
            assert!(
                done.stderr.contains("nothing-is-removed"),
                "{}",
                done.stderr
            );
        }
        assert!(std::path::Path::new(&kept).exists());
        let done = shell.ssh("remover", &["echo rm"])?.ok()?;
        assert_eq!(done.stdout, "rm\n");
        Ok(())
    })
}

#[test]
fn a_line_of_a_shell_is_refused_before_it_runs_and_the_shell_goes_on() -> Result<()> {
    SHELL.test(|shell| {
        let kept = shell.sshd.files.join("kept-by-line");
        std::fs::write(&kept, "x")?;
        nix::unistd::chown(
            &kept,
            Some(
                nix::unistd::User::from_name(&shell.sshd.user)?
                    .context("no user")?
                    .uid,
            ),
            None,
        )?;
        let words = shell.words(&["-tt"], &[]);
        let mut running = shell.agent("line-remover").start(&words)?;
        std::thread::sleep(Duration::from_secs(2));
        running.write(&format!("rm -f {}\r", kept.display()))?;
        std::thread::sleep(Duration::from_secs(2));
        running.write("echo still-$((40+2))\r")?;
        std::thread::sleep(Duration::from_secs(2));
        running.write("exit 5\r")?;
        let done = running.finish(Duration::from_secs(20))?;
        assert!(kept.exists(), "{}", done.stdout);
        assert!(
            done.stdout.contains("Files are removed by people."),
            "{}",
            done.stdout
        );
        assert!(done.stdout.contains("still-42"), "{}", done.stdout);
        assert_eq!(done.status.code(), Some(5), "{}", done.stdout);
        let (_, events) = shell.records()?.only_session_of("line-remover")?;
        let commands: Vec<&str> = events
            .iter()
            .filter(|event| event.kind == "command")
            .map(|event| event.line.as_str())
            .collect();
        assert!(
            commands.iter().any(|line| line.starts_with("rm -f")),
            "{commands:?}"
        );
        assert!(commands.contains(&"echo still-$((40+2))"), "{commands:?}");
        Ok(())
    })
}

#[test]
fn a_file_goes_on_record_by_path_size_and_hash_and_a_secret_one_stays() -> Result<()> {
    SHELL.test(|shell| {
        let files = shell.sshd.files.display().to_string();
        std::fs::write(shell.sshd.files.join("plain"), vec![b'p'; 100_000])?;
        std::fs::write(shell.sshd.files.join("secret.txt"), "s")?;
        let batch = format!(
            "cd {files}\n-get secret.txt /dev/null\n-rename secret.txt other\nget plain /dev/null\nls\n"
        );
        let mut words = vec!["sftp".to_owned(), "-F".to_owned(), "none".to_owned()];
        words.extend(shell.options());
        words.extend(["-P".into(), shell.sshd.port.to_string(), "-b".into(), "-".into()]);
        words.push("agent@127.0.0.1".to_owned());
        let done = shell.agent("copier").run_with_input(&words, &batch)?.ok()?;
        let said = format!("{}{}", done.stdout, done.stderr);
        // OpenSSH's client has words of its own for a refusal.
        assert_eq!(said.matches("Permission denied").count(), 2, "{said}");
        assert!(shell.sshd.files.join("secret.txt").exists());
        let (_, events) = shell.records()?.only_session_of("copier")?;
        let plain = events
            .iter()
            .find(|event| event.kind == "result" && event.line.contains("plain"))
            .context("the file is not on record")?;
        assert_eq!(plain.meta["read"]["bytes"], 100_000, "{}", plain.meta);
        let expected = std::process::Command::new("sha256sum")
            .arg(shell.sshd.files.join("plain"))
            .output()?;
        let expected = String::from_utf8_lossy(&expected.stdout);
        let hash = plain.meta["read"]["sha256"].as_str().context("no hash")?;
        assert!(expected.starts_with(hash), "{hash} and {expected}");
        Ok(())
    })
}

#[test]
fn a_forward_that_a_rule_kills_does_not_open_and_ends_the_connection() -> Result<()> {
    SHELL.test(|shell| {
        let more = ["-W", "127.0.0.1:1"];
        let done = shell.agent("tunneller").run(&shell.words(&more, &[]))?;
        assert!(!done.status.success());
        let (_, events) = shell.records()?.only_session_of("tunneller")?;
        let verdict = events
            .iter()
            .find(|event| event.kind == "verdict")
            .context("no verdict")?;
        assert!(
            verdict.line.contains("Nothing is tunnelled."),
            "{}",
            verdict.line
        );
        let close = events.last().context("no close")?;
        assert!(
            close.line.contains("Nothing is tunnelled."),
            "{}",
            close.line
        );
        assert_eq!(close.meta["worst"], "kill", "{}", close.meta);
        Ok(())
    })
}
