//! Command lines, the programs that they are said to run, and those that real
//! shells run of them.
//!
//! `tests/corpus/shell/*.txt`: a line behind `$`, further ones behind `>`, and
//! behind `=` the programs in order, `?` for one that may be any. Every line is
//! then run by bash and by dash, in an empty folder, with a `PATH` of programs
//! that write down their names: whatever was run has to be in the list, or the
//! line opaque.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use interceptor_engine::ssh::command::read;

/// Programs that do nothing but write down their names.
const LEAVES: &[&str] = &[
    "one", "two", "three", "four", "onex", "rm", "curl", "ls", "more",
];
/// Those that do what they do, having written theirs.
const REAL: &[&str] = &[
    "env", "nohup", "nice", "timeout", "stdbuf", "setsid", "xargs", "find", "flock", "sh", "bash",
    "dash", "awk", "sed", "python3", "perl", "base64", "cat", "printf", "echo", "true", "false",
    "test", "time",
];
const SUDO: &str = "while :; do case $1 in -u) shift 2;; -*|*=*) shift;; *) break;; esac; done
exec \"$@\"";

struct Case {
    file: String,
    line: String,
    programs: String,
}

fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/shell");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut line: Option<String> = None;
        for text in std::fs::read_to_string(&path).unwrap().lines() {
            if let Some(first) = text.strip_prefix("$ ") {
                line = Some(first.to_owned());
            } else if let Some(more) = text.strip_prefix("> ").or(text.strip_prefix('>')) {
                let line = line.as_mut().unwrap();
                line.push('\n');
                line.push_str(more);
            } else if let Some(programs) = text.strip_prefix('=') {
                cases.push(Case {
                    file: file.clone(),
                    line: line.take().unwrap(),
                    programs: programs.trim().to_owned(),
                });
            }
        }
    }
    cases
}

fn said(line: &str) -> Vec<String> {
    let programs = read(line.as_bytes()).programs;
    let each = programs.iter();
    each.map(|program| program.path.as_deref().unwrap_or("?").to_owned())
        .collect()
}

#[test]
fn every_line_of_the_corpus_runs_what_it_is_said_to() {
    let cases = corpus();
    assert!(cases.len() >= 200, "{}", cases.len());
    let mut wrong = String::new();
    for case in &cases {
        let said = said(&case.line).join(" ");
        if said != case.programs {
            let _ = writeln!(
                wrong,
                "{}: {}\n  said {said}\n  is   {}",
                case.file, case.line, case.programs
            );
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A folder of programs, and the file that they write their names to.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(place.folder.path(), open.clone()).unwrap();
        let programs = place.folder.path().join("programs");
        std::fs::create_dir(&programs).unwrap();
        let put = |name: &str, does: &str| {
            let log = place.log();
            let text = format!(
                "#!/bin/sh\nprintf '%s\\n' \"${{0##*/}}\" >> '{}'\n{does}\n",
                log.display()
            );
            let path = programs.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, open.clone()).unwrap();
        };
        for name in LEAVES {
            put(name, "");
        }
        for name in REAL {
            let real = ["/usr/bin", "/bin"].map(|folder| format!("{folder}/{name}"));
            if let Some(real) = real.iter().find(|real| Path::new(real).exists()) {
                put(name, &format!("exec {real} \"$@\""));
            }
        }
        put("sudo", SUDO);
        place
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What a shell runs of a line.
    fn run(&self, shell: &str, line: &str) -> Vec<String> {
        let path = self.folder.path();
        std::fs::write(self.log(), "").unwrap();
        let work = path.join("work");
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir(&work).unwrap();
        for path in [&self.log(), &work] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut command = Command::new("/usr/bin/timeout");
        command
            .args(["-k", "1", "10", shell, "-c", line])
            .current_dir(&work)
            .env_clear()
            .env("PATH", path.join("programs"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // What a line does by mistake, nobody does.
        if is_root() {
            command.uid(65_534).gid(65_534);
        }
        command.status().unwrap();
        let log = std::fs::read_to_string(self.log()).unwrap();
        log.lines().map(str::to_owned).collect()
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.contains("Uid:\t0\t")
}

#[test]
fn no_shell_runs_what_was_not_said() {
    let place = Place::new();
    let mut wrong = String::new();
    let mut ran = 0;
    for case in corpus() {
        let said = said(&case.line);
        let names: Vec<&str> = said
            .iter()
            .map(|path| path.rsplit('/').next().unwrap_or(path))
            .collect();
        for shell in ["/bin/bash", "/bin/dash"] {
            let runs = place.run(shell, &case.line);
            ran += runs.len();
            let missed: Vec<&String> = runs
                .iter()
                .filter(|name| !names.contains(&name.as_str()))
                .collect();
            if !missed.is_empty() && !names.contains(&"?") {
                let _ = writeln!(
                    wrong,
                    "{shell} of {:?}: {missed:?}, said {said:?}",
                    case.line
                );
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    // The programs were really found and run.
    assert!(ran > 400, "{ran}");
}
