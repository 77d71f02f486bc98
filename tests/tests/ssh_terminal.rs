//! Somebody sits at a terminal, in tmux, and works over SSH: with a shell's history,
//! search and completion, with pastes, an editor and `top`. Each line is judged as the
//! shell gets it, and a refused one does not run.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use interceptor_tests::records::Recorded;
use interceptor_tests::sshd::{Plan, Shared, Shell, with_credentials};
use interceptor_tests::tmux::Tmux;

const RULES: &str = r#"
version: 1
rules:
  - name: nothing-is-removed
    match: { ssh: { program: rm } }
    verdict: block
    message: Files are removed by people.
  - name: ask-first
    match: { ssh: { kind: shell, program: touch, opaque: false } }
    verdict: hold
    message: New files are asked about.
    approval: { timeout: 60s }
"#;

static SHELL: Shared = Shared::new(Plan {
    rules: RULES,
    config: with_credentials,
});

/// What the rule says, as it is shown.
const REFUSED: &str = "interceptor: Files are removed by people. (rule nothing-is-removed)";

/// Sits down at a shell, with a file that is to stay.
fn sit(shell: &Shell, agent: &str) -> Result<(Tmux, PathBuf)> {
    let kept = shell.sshd.file(&format!("kept-by-{agent}"), "kept\n")?;
    Ok((Tmux::shell(shell, agent)?, kept))
}

/// The events of a session that is over, and the lines that were judged, each with
/// whether it was certain.
fn lines(shell: &Shell, agent: &str) -> Result<(Vec<Recorded>, Vec<String>)> {
    let (_, events) = shell.records()?.only_session_of(agent)?;
    let lines = events
        .iter()
        .filter(|event| event.kind == "command" && event.meta.get("command").is_some())
        .map(
            |event| match event.meta.get("sure").is_some_and(|sure| sure == true) {
                true => event.line.clone(),
                false => format!("? {}", event.line),
            },
        )
        .collect();
    Ok((events, lines))
}

#[test]
fn a_refused_line_is_cleared_and_explained_and_the_shell_goes_on() -> Result<()> {
    SHELL.test(|shell| {
        let (desk, kept) = sit(shell, "typist")?;
        desk.runs("echo one-$((1+1))", "one-2")?;
        desk.runs(&format!("rm -f {}", kept.display()), REFUSED)?;
        desk.runs("echo two-$((1+2))", "two-3")?;
        desk.leaves(5)?;
        assert!(kept.exists());
        let (events, lines) = lines(shell, "typist")?;
        let removing = format!("rm -f {}", kept.display());
        let expected = [
            "echo one-$((1+1))",
            &removing,
            "echo two-$((1+2))",
            "exit 5",
        ];
        assert_eq!(lines, expected);
        let verdict = events
            .iter()
            .find(|event| event.kind == "verdict")
            .context("no verdict on record")?;
        assert_eq!(
            verdict.meta["rule"], "nothing-is-removed",
            "{}",
            verdict.meta
        );
        // What the agent was shown is on record as well.
        let shown: Vec<u8> = events
            .iter()
            .filter(|event| event.kind == "output")
            .flat_map(|event| event.data.clone())
            .collect();
        let shown = String::from_utf8_lossy(&shown);
        assert!(
            shown.contains("two-3") && shown.contains(REFUSED),
            "{shown}"
        );
        Ok(())
    })
}

#[test]
fn lines_out_of_the_history_a_search_and_a_completion_are_those_that_run() -> Result<()> {
    SHELL.test(|shell| {
        let (desk, kept) = sit(shell, "historian")?;
        let kept_path = kept.display().to_string();
        desk.runs("echo needle-$((1+1))", "needle-2")?;
        desk.runs(
            &format!("echo rm -f {kept_path}"),
            &format!("\nrm -f {kept_path}"),
        )?;
        // The line before, without its first word.
        let behind_echo = ["C-a", "DC", "DC", "DC", "DC", "DC"];
        desk.keys(&["Up"])?;
        desk.keys(&behind_echo)?;
        desk.keys(&["Enter"])?;
        desk.shows(REFUSED)?;
        desk.at_prompt()?;
        // The same by a search.
        desk.keys(&["C-r"])?;
        desk.types("echo rm")?;
        desk.shows("(reverse-i-search)`echo rm'")?;
        desk.keys(&behind_echo)?;
        desk.keys(&["Enter"])?;
        desk.until("a second refusal", |screen| {
            screen.matches(REFUSED).count() == 2
        })?;
        desk.at_prompt()?;
        // A search whose line runs.
        desk.keys(&["C-r"])?;
        desk.types("needle")?;
        desk.shows("(reverse-i-search)`needle'")?;
        desk.keys(&["Enter"])?;
        desk.until("the line again", |screen| {
            screen.matches("\nneedle-2").count() == 2
        })?;
        desk.at_prompt()?;
        // Completions.
        let begin = shell.sshd.files.join("kept-by-hist");
        desk.types(&format!("cat {}", begin.display()))?;
        desk.keys(&["Tab"])?;
        desk.shows("kept-by-historian")?;
        desk.keys(&["Enter"])?;
        desk.shows("\nkept")?;
        desk.at_prompt()?;
        desk.types(&format!("rm {}", begin.display()))?;
        desk.keys(&["Tab"])?;
        desk.shows(&format!("rm {kept_path}"))?;
        desk.keys(&["Enter"])?;
        desk.until("a third refusal", |screen| {
            screen.matches(REFUSED).count() == 3
        })?;
        desk.at_prompt()?;
        desk.leaves(0)?;
        assert!(kept.exists());
        let (_, lines) = lines(shell, "historian")?;
        let expected = [
            "echo needle-$((1+1))".to_owned(),
            format!("echo rm -f {kept_path}"),
            format!("rm -f {kept_path}"),
            format!("rm -f {kept_path}"),
            "echo needle-$((1+1))".to_owned(),
            format!("cat {kept_path}"),
            format!("rm {kept_path}"),
            "exit 0".to_owned(),
        ];
        assert_eq!(lines, expected);
        Ok(())
    })
}

#[test]
fn a_paste_is_refused_whole_for_one_of_its_lines_and_passes_whole() -> Result<()> {
    SHELL.test(|shell| {
        let (desk, kept) = sit(shell, "paster")?;
        let removing = format!("rm -f {}", kept.display());
        desk.pastes(&format!(
            "echo one-$((1+1))\n{removing}\necho two-$((1+2))\n"
        ))?;
        desk.shows(REFUSED)?;
        desk.at_prompt()?;
        desk.runs("echo next-$((2+2))", "next-4")?;
        desk.pastes("echo three-$((1+4))\necho four-$((3+3))")?;
        desk.shows("four-$((3+3))")?;
        desk.keys(&["Enter"])?;
        desk.shows("four-6")?;
        desk.shows("three-5")?;
        desk.at_prompt()?;
        // Without brackets each line comes by itself; what was typed behind a refused
        // one was meant to follow it.
        desk.types(&format!(
            "echo five-$((1+6))\r{removing}\recho six-$((4+4))\r"
        ))?;
        desk.until("a second refusal", |screen| {
            screen.matches(REFUSED).count() == 2
        })?;
        desk.at_prompt()?;
        desk.runs("echo last-$((3+6))", "last-9")?;
        let screen = desk.screen()?;
        assert!(screen.contains("five-7"), "{screen}");
        for not_run in ["one-2", "two-3", "six-8"] {
            assert!(!screen.contains(not_run), "{not_run}: {screen}");
        }
        desk.leaves(0)?;
        assert!(kept.exists());
        Ok(())
    })
}

#[test]
fn what_is_written_in_an_editor_is_recorded_and_no_line_of_a_shells() -> Result<()> {
    SHELL.test(|shell| {
        let (desk, kept) = sit(shell, "editor")?;
        let removing = format!("rm -f {}", kept.display());
        let written = shell.sshd.file("written", "first\n")?;
        let open = format!("vi {}", written.display());
        desk.enters(&open)?;
        desk.until("the editor", |screen| {
            screen.contains("\nfirst\n") || screen.starts_with("first\n")
        })?;
        desk.keys(&["i"])?;
        desk.types(&removing)?;
        desk.keys(&["Enter"])?;
        desk.types("second ")?;
        desk.keys(&["Escape"])?;
        desk.shows("second first")?;
        desk.enters(":wq")?;
        desk.at_prompt()?;
        assert_eq!(
            std::fs::read_to_string(&written)?,
            format!("{removing}\nsecond first\n")
        );
        // Behind it lines are judged again, and behind what goes on drawing.
        desk.runs(&removing, REFUSED)?;
        desk.enters("top")?;
        desk.shows("PID")?;
        desk.keys(&["q"])?;
        desk.at_prompt()?;
        desk.enters(&removing)?;
        desk.until("a second refusal", |screen| {
            screen.matches(REFUSED).count() == 2
        })?;
        desk.at_prompt()?;
        desk.leaves(0)?;
        assert!(kept.exists());
        let (events, lines) = lines(shell, "editor")?;
        assert_eq!(lines, [&open, &removing, "top", &removing, "exit 0"]);
        let shown: Vec<u8> = events
            .iter()
            .filter(|event| event.kind == "output")
            .flat_map(|event| event.data.clone())
            .collect();
        assert!(String::from_utf8_lossy(&shown).contains("second"));
        Ok(())
    })
}

#[test]
fn a_resized_terminal_is_resized_at_the_other_end_and_long_lines_are_still_read() -> Result<()> {
    SHELL.test(|shell| {
        let (desk, kept) = sit(shell, "resizer")?;
        desk.runs("stty size", "30 100")?;
        desk.resize(60, 20)?;
        // The signal and the keys go different ways to ssh.
        interceptor_tests::eventually("the new size", interceptor_tests::daemon::SOON, || {
            desk.enters("stty size")?;
            std::thread::sleep(std::time::Duration::from_millis(300));
            Ok(desk.screen()?.contains("20 60"))
        })?;
        desk.at_prompt()?;
        let long = "abcdefghi ".repeat(12);
        let long = format!("echo {}end-$((1+1))", long);
        desk.runs(&long, "end-2")?;
        let removing = format!(
            "rm -f {} {}",
            kept.display(),
            "/nonexistent/long ".repeat(5)
        );
        desk.runs(removing.trim_end(), REFUSED)?;
        desk.leaves(0)?;
        assert!(kept.exists());
        let (events, lines) = lines(shell, "resizer")?;
        assert!(lines.contains(&long), "{lines:?}");
        assert!(
            lines.iter().any(|line| line == removing.trim_end()),
            "{lines:?}"
        );
        assert!(
            events
                .iter()
                .any(|event| event.kind == "resize" && event.meta["columns"] == 60),
            "no resize on record"
        );
        Ok(())
    })
}

#[test]
fn a_line_waits_for_a_person_and_a_secret_at_a_prompt_stands_nowhere() -> Result<()> {
    SHELL.test(|shell| {
        let (desk, _) = sit(shell, "patient")?;
        let made = shell.sshd.files.join("made");
        let making = format!("touch {}", made.display());
        desk.enters(&making)?;
        let question = shell.answer("patient", "approve", "OPS-12")?;
        assert_eq!(question["text"], making.as_str());
        assert_eq!(question["rule"], "ask-first");
        interceptor_tests::eventually("the file", interceptor_tests::daemon::SOON, || {
            Ok(made.exists())
        })?;
        desk.runs("echo one-$((1+1))", "one-2")?;
        let other = shell.sshd.files.join("not-made");
        desk.enters(&format!("touch {}", other.display()))?;
        shell.answer("patient", "deny", "not on a Friday")?;
        desk.shows("not on a Friday")?;
        desk.at_prompt()?;
        desk.enters("read -s -p 'Password: ' x; echo got-${#x}")?;
        desk.shows("Password:")?;
        desk.enters("hunter2-secret")?;
        desk.shows("got-14")?;
        desk.at_prompt()?;
        desk.leaves(0)?;
        assert!(!other.exists());
        let (events, _) = lines(shell, "patient")?;
        let decisions: Vec<&str> = events
            .iter()
            .filter(|event| event.kind == "approval")
            .filter_map(|event| event.meta["decision"].as_str())
            .collect();
        assert_eq!(decisions, ["approved", "denied"]);
        assert!(!shell.records()?.everything()?.contains("hunter2-secret"));
        Ok(())
    })
}
