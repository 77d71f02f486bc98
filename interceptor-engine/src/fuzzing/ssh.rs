//! What must hold for command lines, and for the terminal of an interactive shell.

use interceptor_policy::operation::ssh::SshLine;

use crate::event::FlowTime;
use crate::ssh::command::{read, read_entered};
use crate::ssh::terminal::{Act, Patience, Terminal};

/// Reads a command line, as an `exec` and as a shell's.
///
/// Any bytes give an answer. A line of its own behind a line that is understood is
/// seen, or something is opaque: nothing hides what follows.
pub fn ssh_command(input: &[u8]) {
    for read in [read, read_entered] {
        let line = read(input);
        assert!(line.programs.len() <= 1024);
        let Ok(text) = std::str::from_utf8(input) else {
            assert!(!line.sure && line.is_opaque());
            continue;
        };
        assert_eq!(&*line.text, text);
        assert!(line.sure);
        // What is continued by its end, or takes what follows as its text, does not run it.
        if line.is_opaque() || text.contains("<<") || text.ends_with('\\') {
            continue;
        }
        let more = read(format!("{text}\nremove --all").as_bytes());
        let seen = |line: &SshLine| {
            let mut programs = line.programs.iter();
            programs.any(|program| program.name() == Some("remove"))
        };
        assert!(more.is_opaque() || seen(&more));
        // A simple word is a program, whatever else stands there.
        for program in &line.programs {
            assert!(program.path.is_none() || program.name().is_some());
        }
    }
}

/// Types, shows, waits, judges, as the input says.
///
/// Nothing is sent that was not typed, nor in another order; and no key that enters a
/// line goes on but by being let pass.
pub fn ssh_terminal(input: &[u8]) {
    let patience = Patience::default();
    let mut desk = Desk {
        terminal: Terminal::new(24, 40, patience, FlowTime(0)),
        typed: Vec::new(),
        sent: 0,
        judging: false,
    };
    let mut now = 0;
    let mut rest = input;
    while let Some((op, after)) = rest.split_first() {
        let length = usize::from(op >> 3).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        now += 1_000;
        let at = FlowTime(now);
        match op & 7 {
            0 | 1 if desk.terminal.wants_input() => {
                desk.typed.extend_from_slice(bytes);
                desk.terminal.typed(at, bytes);
                desk.drain(false);
            }
            2 => {
                desk.terminal.shown(at, bytes);
                desk.drain(false);
            }
            // Typed, and shown at once.
            3 => {
                desk.typed.extend_from_slice(bytes);
                desk.terminal.typed(at, bytes);
                desk.drain(false);
                desk.terminal.shown(at, bytes);
                desk.drain(false);
            }
            4 => {
                let size = |at| u32::from(bytes.get(at).copied().unwrap_or_default());
                desk.terminal.resize(size(0), size(1));
            }
            5 => {
                now += u64::try_from(length).unwrap_or_default() * 50_000;
                desk.terminal.tick(FlowTime(now));
                desk.drain(false);
            }
            6 if desk.judging => {
                desk.judging = false;
                // A line that draws nothing, so that every line is judged.
                let line = read_entered(b"true");
                desk.terminal.let_pass(at, Some(&line));
                desk.drain(true);
            }
            7 if desk.judging => {
                desk.judging = false;
                desk.terminal.refuse(at, "not here\u{1b}[2J");
                // It is taken back when the screen is at rest, and at the latest now.
                now += patience.most;
                desk.terminal.tick(FlowTime(now));
                // What waited behind it is dropped.
                desk.sent = desk.typed.len();
                let taken = desk.terminal.poll();
                assert!(matches!(taken, Some(Act::Upstream(bytes)) if bytes == [3]));
                desk.drain(false);
            }
            _ => {}
        }
        // It never waits for nothing.
        if let Some(deadline) = desk.terminal.deadline() {
            assert!(deadline.0 <= now + patience.most + patience.settle);
        }
    }
}

struct Desk {
    terminal: Terminal,
    typed: Vec<u8>,
    /// How much of what was typed was sent, or passed over.
    sent: usize,
    judging: bool,
}

impl Desk {
    fn drain(&mut self, passed: bool) {
        while let Some(act) = self.terminal.poll() {
            match act {
                Act::Upstream(bytes) => {
                    for byte in bytes {
                        let enters = matches!(byte, b'\r' | b'\n' | 0x0f);
                        assert!(passed || !enters);
                        let left = self.typed.get(self.sent..).unwrap_or_default();
                        let at = left.iter().position(|typed| *typed == byte);
                        assert!(at.is_some());
                        self.sent += at.unwrap_or_default() + 1;
                    }
                }
                Act::Downstream(bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    // Its own colours are put back, and that is all.
                    assert_eq!(text.matches('\u{1b}').count(), 1);
                }
                Act::Entered(_) => self.judging = true,
            }
        }
    }
}
