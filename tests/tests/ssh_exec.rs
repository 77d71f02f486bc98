//! Commands over SSH, between OpenSSH's client and server: run, judged, recorded.

use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::sshd::{Plan, Shared, with_credentials};

const RULES: &str = r#"
version: 1
rules:
  - name: no-environment
    match: { ssh: { kind: env, env: "TEST_*" } }
    verdict: block
  - name: cards-are-hidden
    match: { ssh: { kind: [exec, shell] } }
    mask: [{ detect: [credit_card], with: redact }]
"#;

static SHELL: Shared = Shared::new(Plan {
    rules: RULES,
    config: with_credentials,
});

#[test]
fn a_command_runs_without_any_key_of_the_agents_and_its_status_comes_back() -> Result<()> {
    SHELL.test(|shell| {
        let done = shell.ssh("runner", &["echo out; echo err >&2; exit 7"])?;
        assert_eq!(done.status.code(), Some(7), "{}", done.stderr);
        assert_eq!(done.stdout, "out\n");
        assert_eq!(done.stderr, "err\n");
        let (_, events) = shell.records()?.only_session_of("runner")?;
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        for kind in [
            "open", "auth", "channel", "command", "output", "result", "close",
        ] {
            assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
        }
        let command = events
            .iter()
            .find(|event| event.kind == "command")
            .context("no command")?;
        assert!(
            command.line.contains("echo out; echo err"),
            "{}",
            command.line
        );
        let result = events
            .iter()
            .find(|event| event.kind == "result")
            .context("no result")?;
        assert_eq!(result.meta["status"], 7, "{}", result.meta);
        Ok(())
    })
}

#[test]
fn what_goes_in_comes_out_whole_and_in_order_however_much_it_is() -> Result<()> {
    SHELL.test(|shell| {
        // More than both windows, through a command that answers more than it is asked.
        let script = "head -c 20000000 /dev/zero | tr '\\0' 'x' | \
                      \"$@\" 'cat | sed s/x/xy/g | head -c 40000000' | sha256sum";
        let words = shell.words(&[], &[]);
        let mut run = vec!["/bin/sh", "-c", script, "sh"];
        run.extend(words.iter().map(String::as_str));
        let done = shell.agent("mover").run(&run)?.ok()?;
        let expected = std::process::Command::new("/bin/sh")
            .args(["-c", "yes xy | tr -d '\\n' | head -c 40000000 | sha256sum"])
            .output()?;
        assert_eq!(done.stdout, String::from_utf8_lossy(&expected.stdout));
        Ok(())
    })
}

#[test]
fn a_card_number_is_hidden_from_agent_and_record_even_without_a_lines_end() -> Result<()> {
    SHELL.test(|shell| {
        let done = shell
            .ssh("curious", &["printf 'card 4111 1111 '; sleep 0.3; printf '1111 1111\\n'; printf '4111111111111111'"])?
            .ok()?;
        assert!(!done.stdout.contains("4111111111111111"), "{}", done.stdout);
        let mut records = shell.records()?;
        let (_, events) = records.only_session_of("curious")?;
        let output: Vec<u8> = events
            .iter()
            .filter(|event| event.kind == "output")
            .flat_map(|event| event.data.clone())
            .collect();
        assert_eq!(String::from_utf8_lossy(&output), done.stdout);
        Ok(())
    })
}

#[test]
fn a_variable_that_a_rule_blocks_does_not_arrive_and_another_does() -> Result<()> {
    SHELL.test(|shell| {
        let more = ["-o", "SendEnv=TEST_ONE LC_TWO"];
        let words = shell.words(&more, &["env"]);
        let done = shell
            .agent("sender")
            .env("TEST_ONE", "secret-one")
            .env("LC_TWO", "two")
            .run(&words)?
            .ok()?;
        assert!(done.stdout.contains("LC_TWO=two"), "{}", done.stdout);
        assert!(!done.stdout.contains("TEST_ONE"), "{}", done.stdout);
        assert!(!shell.records()?.everything()?.contains("secret-one"));
        Ok(())
    })
}

#[test]
fn a_terminal_has_the_size_that_the_agent_says_and_ends_with_its_shell() -> Result<()> {
    SHELL.test(|shell| {
        let words = shell.words(&["-tt"], &[]);
        let mut running = shell.agent("typist").start(&words)?;
        running.write("stty size; echo done-$((40+2)); exit 3\n")?;
        let done = running.finish(Duration::from_secs(20))?;
        assert_eq!(done.status.code(), Some(3), "{}", done.stderr);
        assert!(done.stdout.contains("done-42"), "{}", done.stdout);
        let (_, events) = shell.records()?.only_session_of("typist")?;
        let terminal = events
            .iter()
            .find(|event| event.kind == "command" && event.meta["ssh"] == "shell")
            .context("no shell on record")?;
        assert!(
            terminal.meta["terminal"]["columns"].is_u64(),
            "{}",
            terminal.meta
        );
        Ok(())
    })
}

#[test]
fn many_channels_share_one_connection_and_none_waits_for_another() -> Result<()> {
    SHELL.test(|shell| {
        let folder = "/tmp/interceptor-mux";
        let script = format!(
            "d=$(mktemp -d {folder}.XXXXXX); S=$d/s; \"$@\" -o ControlMaster=yes -o ControlPath=$S -N agent@127.0.0.1 & \
             until [ -S $S ]; do sleep 0.1; done; \
             \"$@\" -o ControlPath=$S agent@127.0.0.1 'yes | head -c 50000000' | (sleep 8; wc -c) & slow=$!; \
             sleep 1; start=$(date +%s); \
             for i in 1 2 3; do \"$@\" -o ControlPath=$S agent@127.0.0.1 echo quick-$i; done; \
             took=$(( $(date +%s) - start )); echo took $took; wait $slow; \
             \"$@\" -o ControlPath=$S -O exit agent@127.0.0.1; rm -r $d"
        );
        let mut words = shell.words(&[], &[]);
        words.pop();
        let mut run = vec!["/bin/sh", "-c", &script, "sh"];
        run.extend(words.iter().map(String::as_str));
        let done = shell.agent("multiplexer").run(&run)?;
        for quick in ["quick-1", "quick-2", "quick-3", "50000000"] {
            assert!(done.stdout.contains(quick), "{} {}", done.stdout, done.stderr);
        }
        let took = done
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("took "))
            .context("no time")?;
        assert!(took.parse::<u32>()? < 5, "{}", done.stdout);
        let sessions = shell.records()?.closed_sessions_of("multiplexer", 1)?;
        assert_eq!(sessions.len(), 1);
        Ok(())
    })
}
