//! A command line, as the programs that it would run.
//!
//! It is read as a POSIX shell and bash read it, whether or not a command of it
//! would be reached: all of a list, of a pipeline, of loops and functions, and
//! what other programs are given to run (`sudo`, `xargs`, `sh -c`). Which shell
//! stands at the other end is not known. Where they differ, the line runs all
//! that any of them would, or it is opaque.
//!
//! **What is not certain is opaque**: a fault in the grammar, a form that is not
//! known here, a text that is too long or too deep. An opaque program is added to
//! those that were found, never put in the place of one. What the reader does not
//! know of, it cannot say: aliases and functions of the other end's own files,
//! other programs under a known name, what a program does by itself.
//!
//! One pass: the parser hands every command to [`programs`] as it is closed, so
//! that nothing is kept of a line but its programs. Bounds: [`LINE_LIMIT`]
//! bytes, [`DEPTH_LIMIT`] levels, [`PROGRAM_LIMIT`] programs, and a text that is
//! read again (the code of `eval`) counts again.
//!
//! Spec: POSIX.1-2024, Shell Command Language; the bash manual.

mod grammar;
mod interpreters;
mod programs;
mod runners;
mod shells;
mod skip;
mod word;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use interceptor_policy::operation::ssh::{SshLine, SshProgram, SshStdin};

use self::grammar::Parser;

/// Longest line, in bytes.
pub const LINE_LIMIT: usize = 64 << 10;
/// How deep its parts may be within each other.
const DEPTH_LIMIT: usize = 24;
/// Most programs of one line.
const PROGRAM_LIMIT: usize = 256;
/// Most characters that are read, those that are read again included.
const WORK_LIMIT: usize = 1 << 20;

/// Reads the command line of an `exec`. Any bytes give an answer.
#[must_use]
pub fn read(line: &[u8]) -> SshLine {
    read_as(line, false)
}

/// Reads a line that was entered in an interactive shell: that expands history,
/// may take comments for words, and keeps what a line defines for the next.
#[must_use]
pub fn read_entered(line: &[u8]) -> SshLine {
    read_as(line, true)
}

fn read_as(line: &[u8], entered: bool) -> SshLine {
    let Ok(text) = std::str::from_utf8(line) else {
        return SshLine::unsure(String::from_utf8_lossy(line));
    };
    let mut found = Found {
        entered,
        ..Found::default()
    };
    let plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.len() > LINE_LIMIT || !text.chars().all(plain) {
        found.opaque();
    } else {
        found.code(text, SshStdin::Inherited);
    }
    SshLine {
        text: text.into(),
        sure: true,
        programs: found.programs,
    }
}

/// That a text is no command line that is known here.
#[derive(Clone, Copy, Debug)]
struct Fault;

type Read<T> = Result<T, Fault>;

/// One field of a command: a word, or a part of one that was split. `None` is
/// any number of any.
type Field = Option<String>;

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    programs: Vec<SshProgram>,
    /// Of each, whether its input is what stands around its command.
    inherits: Vec<bool>,
    entered: bool,
    /// Variables whose one value in all of the text is certain.
    known: HashMap<String, String>,
    depth: usize,
    work: usize,
}

impl Found {
    /// Something that is not known may run.
    fn opaque(&mut self) {
        if !self.programs.iter().any(SshProgram::is_opaque) {
            self.programs.push(SshProgram::opaque());
            self.inherits.push(false);
        }
    }

    fn push(&mut self, program: SshProgram, inherits: bool) {
        if self.programs.len() < PROGRAM_LIMIT {
            self.programs.push(program);
            self.inherits.push(inherits);
        } else {
            self.opaque();
        }
    }

    /// A text that is run by a shell of its own.
    fn code(&mut self, text: &str, stdin: SshStdin) {
        let outer = std::mem::take(&mut self.known);
        self.within(text, stdin);
        self.known = outer;
    }

    /// A text that is run by the same shell.
    fn within(&mut self, text: &str, stdin: SshStdin) {
        self.work = self.work.saturating_add(text.len());
        if self.depth >= DEPTH_LIMIT || self.work > WORK_LIMIT {
            return self.opaque();
        }
        self.depth += 1;
        let depth = self.depth;
        if Parser::new(text, self).all(stdin).is_err() {
            self.opaque();
        }
        self.depth = depth - 1;
    }
}
