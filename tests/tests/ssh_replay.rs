//! A shell that was recorded, played again: as text, as an asciicast that the real
//! player plays, and on a terminal.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::sshd::{Plan, Shared, Shell, with_credentials};

/// Nothing is refused: on a slow machine a line may be opaque, and goes on all the same.
const RULES: &str = "version: 1\nrules: []\n";

static SHELL: Shared = Shared::new(Plan {
    rules: RULES,
    config: with_credentials,
});

/// What the shell is told. Its last line attacks whoever looks at the recording: it
/// asks for the cursor's place and writes to the clipboard.
const TYPED: &str = "printf '\\033[31mr-%s\\033[0m caf\\303\\251\\n' ed\r\
                     printf '\\033[6n\\033]52;c;cm0=\\007-over\\n'\r\
                     exit 3\r";

fn recorded(shell: &Shell, agent: &str) -> Result<String> {
    let words = shell.words(&["-tt"], &[]);
    let mut running = shell.agent(agent).start(&words)?;
    running.write(TYPED)?;
    let done = running.finish(Duration::from_secs(20))?;
    assert_eq!(
        done.status.code(),
        Some(3),
        "{} {}",
        done.stdout,
        done.stderr
    );
    // The agent itself gets everything.
    assert!(
        done.stdout.contains("\x1b]52;c;cm0=\x07"),
        "{:?}",
        done.stdout
    );
    Ok(shell.records()?.only_session_of(agent)?.0)
}

#[test]
fn a_recorded_shell_is_played_in_every_way_and_attacks_nobody() -> Result<()> {
    SHELL.test(|shell| {
        let session = recorded(shell, "player")?;

        let text = shell.daemon.ask(&["replay", &session, "--instant"])?;
        assert!(text.contains("< r-ed café\n"), "{text}");
        assert!(
            text.contains("\\x1b[6n\\x1b]52;c;cm0=\\x07-over\n"),
            "{text}"
        );
        assert!(text.contains("exit 3 · "), "{text}");
        assert!(!text.contains('\x1b'), "{text}");

        let cast = shell.place.path("shell.cast");
        let file = cast.display().to_string();
        let format = ["--format", "asciicast", "--output", file.as_str()];
        shell
            .daemon
            .ask(&[&["replay", session.as_str()], &format[..]].concat())?;
        cast_is_strict(&std::fs::read_to_string(&cast)?)?;
        // It wants a terminal of its own.
        let played = under_script(&format!("asciinema play -s 1000 {file}"))?;
        assert!(
            played.contains("\x1b[31mr-ed\x1b[0m café\r\n"),
            "{played:?}"
        );
        assert!(played.contains("-over\r\n"), "{played:?}");
        assert!(
            !played.contains("\x1b]52") && !played.contains("\x1b[6n"),
            "{played:?}"
        );

        let drawn = on_a_terminal(shell, &session, &[])?;
        assert!(drawn.contains("\x1b[31mr-ed\x1b[0m café\r\n"), "{drawn:?}");
        assert!(
            !drawn.contains("\x1b]52") && !drawn.contains("\x1b[6n"),
            "{drawn:?}"
        );
        let (before, after) = drawn.split_once("-over\r\n").context("no end")?;
        assert!(before.contains("terminal of 80 by 24"), "{before:?}");
        // Put in order, and then text again.
        let (_, after) = after.split_once("\x1b[?25h").context("no reset")?;
        assert!(
            after.contains("exit 3") && after.contains("session closed"),
            "{after:?}"
        );

        // A channel that is none is named with those that there are.
        let wrong = [
            "replay",
            &session,
            "--format",
            "asciicast",
            "--channel",
            "7",
        ];
        let told = shell.daemon.command(&wrong)?;
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains("there are 1 (a shell, 80 by 24)"), "{told}");
        Ok(())
    })
}

#[test]
fn a_command_without_a_terminal_is_text_and_has_no_asciicast() -> Result<()> {
    SHELL.test(|shell| {
        shell.ssh("plain", &["echo out; echo err >&2"])?.ok()?;
        let (session, _) = shell.records()?.only_session_of("plain")?;
        let text = on_a_terminal(shell, &session, &["--channel", "1"])?;
        for line in ["echo out; echo err >&2", "< out", "< err", "exit 0"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let cast = ["replay", &session, "--format", "asciicast"];
        let told = shell.daemon.command(&cast)?;
        assert!(!told.status.success());
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains("no terminal was drawn on"), "{told}");
        Ok(())
    })
}

/// What a terminal gets of a replay.
fn on_a_terminal(shell: &Shell, session: &str, more: &[&str]) -> Result<String> {
    let program = interceptor_tests::daemon::program()?;
    let config = shell.daemon.config().display();
    let line = format!(
        "stty cols 100 rows 30; {} --config {config} replay {session} --instant {}",
        program.display(),
        more.join(" ")
    );
    under_script(&line)
}

/// What a command writes to a terminal.
fn under_script(line: &str) -> Result<String> {
    let done = Command::new("script")
        .args(["-qec", line, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C.UTF-8")
        .stdin(std::process::Stdio::null())
        .output()
        .context("starting script")?;
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(
        done.status.success(),
        "{line}: {}: {out}\n`cargo xtask install servers` installs asciinema",
        done.status
    );
    Ok(out)
}

/// Reads an asciicast as its specification has it, and nothing more.
fn cast_is_strict(text: &str) -> Result<()> {
    let mut lines = text.lines();
    let header = lines.next().context("no header")?;
    let header: serde_json::Value = serde_json::from_str(header)?;
    let number = |name: &str| header.get(name).and_then(serde_json::Value::as_u64);
    ensure!(number("version") == Some(2), "{header}");
    for name in ["width", "height", "timestamp"] {
        ensure!(number(name).is_some_and(|n| n > 0), "{name}: {header}");
    }
    let mut last = 0.0;
    let mut marks = 0;
    for line in lines {
        let (at, kind, data): (f64, String, String) = serde_json::from_str(line)?;
        ensure!(at >= last, "{line}");
        last = at;
        match kind.as_str() {
            "o" => {}
            "r" => ensure!(data.split_once('x').is_some(), "{line}"),
            "m" => marks += 1,
            _ => anyhow::bail!("{line}"),
        }
    }
    // The shell itself, and three lines.
    ensure!(marks == 4, "{marks} marks in {text}");
    Ok(())
}
