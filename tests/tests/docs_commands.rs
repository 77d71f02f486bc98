//! Every command that the documents show in a block marked `console` works.
//!
//! Such a block holds lines that begin with `$ `; each is run by `bash` where a
//! daemon runs over the sample shop, with `interceptor` on the path, the shop's
//! port in `$PGPORT`, and a recorded session in `$SESSION`. What stands below a
//! command is for the reader and not compared. Blocks of other kinds
//! (`text`, `sh`) are not run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use interceptor_tests::world::{Plan, alone};

const DOCUMENTS: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    "docs",
    "rules",
];

#[test]
fn every_command_in_the_documents_works() -> Result<()> {
    alone(&Plan::default(), |world| {
        world
            .agent("reader")
            .psql(world.postgres.port, "SELECT 1;\n")?
            .ok()?;
        let (session, _) = world.records()?.only_session_of("reader")?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let programs = interceptor_tests::daemon::program()?;
        let programs = programs.parent().context("a program in no folder")?;
        let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
        let mut count = 0;
        for document in documents(&root)? {
            let text = std::fs::read_to_string(&document)?;
            for command in commands(&text) {
                let done = Command::new("timeout")
                    .args(["60", "bash", "-ec", command])
                    .current_dir(&root)
                    .env("PATH", &path)
                    .env("INTERCEPTOR_CONFIG", world.daemon.config())
                    .env("SESSION", &session)
                    .env("PGHOST", "127.0.0.1")
                    .env("PGPORT", world.postgres.port.to_string())
                    .env("PGUSER", "agent")
                    .env("PGDATABASE", "postgres")
                    .env("REDIS_PORT", world.redis.port.to_string())
                    .stdin(std::process::Stdio::null())
                    .output()?;
                assert!(
                    done.status.success(),
                    "{}: `{command}`: {}\n{}{}",
                    document.display(),
                    done.status,
                    String::from_utf8_lossy(&done.stdout),
                    String::from_utf8_lossy(&done.stderr)
                );
                count += 1;
            }
        }
        assert!(count > 0, "no command found in any document");
        Ok(())
    })
}

fn documents(root: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let mut open: Vec<_> = DOCUMENTS.iter().map(|name| root.join(name)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The commands in blocks marked `console`.
fn commands(text: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim() {
            "```console" => inside = true,
            "```" => inside = false,
            line if inside => commands.extend(line.strip_prefix("$ ")),
            _ => {}
        }
    }
    commands
}

#[test]
fn only_commands_in_blocks_marked_console_are_found() {
    let text = "```console\n$ one\noutput\n$ two\n```\n```text\n$ three\n```\n";
    assert_eq!(commands(text), ["one", "two"]);
}
