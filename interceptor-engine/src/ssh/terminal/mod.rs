//! An interactive shell, line by line.
//!
//! What is sent to a terminal is keys, and what a shell makes of them (history,
//! completion, a search) only the terminal shows. So the session's output is
//! kept as the screen that it draws, and when a line is entered (CR, LF, Ctrl-O,
//! or Ctrl-D behind some text) that key is kept back: the line as it stands
//! behind the prompt is judged first.
//!
//! * The **prompt** is what stands left of the cursor when the first key of a
//!   line comes and the output has been quiet for [`Patience::settle`]. Keys that
//!   come earlier wait for that; Ctrl-C, Ctrl-Z and Ctrl-\ never do.
//! * While keys are letters and their deletion, the line is **known from them**,
//!   and is sure as soon as the screen shows the same. Nothing else is waited for.
//! * After any other key the **screen alone** says what the line is, once it has
//!   shown something for the last key and been quiet since.
//! * What does not fit together within [`Patience::most`] is entered as not sure.
//! * A bracketed **paste** with an end of line in it is judged whole before any of
//!   it goes: the other end may run it at once, whatever the mode says.
//! * Where keys are **not shown** and the prompt asks for a secret, the line is
//!   none of a shell; it is told as hidden and without its text.
//! * In the **alternate screen** nothing is judged, if the line before it ran
//!   programs that draw there and nothing else: anybody can print the sequence.
//!
//! A line that is refused is taken back by Ctrl-C and not by Ctrl-U: the latter
//! leaves what is right of the cursor, is a letter in a search and in some modes,
//! and says nothing to a continued line. A program that waited for the line gets
//! an interrupt in its place.
//!
//! What is drawn is drawn by the other end. Whoever may change its key bindings,
//! its prompt or its files can make it show one line and run another; such lines
//! are opaque to [`super::command::read_entered`], and rules can refuse them, but
//! what was set up elsewhere nobody sees here. Keys that run what no line shows
//! (Ctrl-X, which begins "edit and execute") are entered as not sure; those of a
//! user's own bindings, and `v` in vi's mode, are not known.

mod keys;
mod screen;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use interceptor_policy::operation::ssh::SshLine;

use self::keys::{Key, Line, Pasting};
use self::screen::{Screen, Shown};
use crate::event::FlowTime;

/// Most input that waits, in bytes.
pub const INPUT_LIMIT: usize = 64 << 10;

/// How long is waited for the screen.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long the output is quiet when it has come to rest, in microseconds.
    pub settle: u64,
    /// How long at most, in microseconds.
    pub most: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            settle: 40_000,
            most: 1_000_000,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send it to the service.
    Upstream(Vec<u8>),
    /// Show it to the agent, beside what the service shows.
    Downstream(Vec<u8>),
    /// Judge it, and say [`Terminal::let_pass`] or [`Terminal::refuse`].
    Entered(Entered),
}

/// A line that was entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entered {
    /// What it is, or looks like; empty where it is hidden.
    pub line: String,
    /// Whether that is certain.
    pub sure: bool,
    /// A secret, at a prompt for one: not to be recorded, nor judged as a command.
    pub hidden: bool,
}

/// What keeps the input.
#[derive(Clone, Debug)]
enum Stage {
    /// A new line: its prompt is to come.
    Fresh { since: FlowTime },
    /// Keys pass.
    Typing,
    /// A paste is collected.
    Pasting { since: FlowTime, paste: Pasting },
    /// The screen is to show what was typed.
    Waiting { since: FlowTime, key: Vec<u8> },
    /// Somebody judges.
    Judging {
        release: Vec<u8>,
        /// What the screen showed, where that was what the line was read from.
        shown: Option<Shown>,
        then: Then,
    },
}

/// What follows a line that is let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// A new line.
    Fresh,
    /// More of the same.
    Typing,
}

/// An interactive shell's terminal.
#[derive(Debug)]
pub struct Terminal {
    screen: Screen,
    patience: Patience,
    queue: VecDeque<u8>,
    acts: VecDeque<Act>,
    stage: Stage,
    line: Line,
    last_shown: FlowTime,
    last_sent: FlowTime,
    /// Whether the line before ran what draws on all of the screen.
    draws: bool,
}

impl Terminal {
    /// A terminal of this size.
    #[must_use]
    pub fn new(rows: u32, columns: u32, patience: Patience, now: FlowTime) -> Self {
        Self {
            screen: Screen::new(rows, columns),
            patience,
            queue: VecDeque::new(),
            acts: VecDeque::new(),
            stage: Stage::Fresh { since: now },
            line: Line::default(),
            last_shown: now,
            last_sent: now,
            draws: false,
        }
    }

    /// The agent's terminal has another size.
    pub fn resize(&mut self, rows: u32, columns: u32) {
        self.screen.resize(rows, columns);
    }

    /// The service showed something.
    pub fn shown(&mut self, now: FlowTime, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.last_shown = now;
        if self.screen.show(bytes) {
            self.draws = false;
        }
        self.advance(now);
    }

    /// The agent typed something.
    pub fn typed(&mut self, now: FlowTime, bytes: &[u8]) {
        self.queue.extend(bytes);
        self.advance(now);
    }

    /// It is later.
    pub fn tick(&mut self, now: FlowTime) {
        self.advance(now);
    }

    /// When to [`Terminal::tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<FlowTime> {
        let after = |from: FlowTime, span: u64| FlowTime(from.0.saturating_add(span));
        let quiet = |since: FlowTime| after(self.last_shown.max(since), self.patience.settle);
        let until = match &self.stage {
            Stage::Fresh { .. } if self.queue.is_empty() => return None,
            Stage::Fresh { since } => quiet(*since).min(after(*since, self.patience.most)),
            Stage::Pasting { since, .. } => after(*since, self.patience.most),
            Stage::Waiting { since, .. } => {
                let most = after(*since, self.patience.most);
                match self.line.is_known() {
                    true => most,
                    false => quiet(*since).min(most),
                }
            }
            Stage::Typing | Stage::Judging { .. } => return None,
        };
        Some(until)
    }

    /// Whether more input is to be read.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        let paste = match &self.stage {
            Stage::Pasting { paste, .. } => paste.len(),
            _ => 0,
        };
        self.queue.len() + paste < INPUT_LIMIT
    }

    /// Whether a program has all of the screen, and lines are not judged.
    #[must_use]
    pub fn is_full_screen(&self) -> bool {
        self.draws && self.screen.is_alternate()
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// The line that was entered passes. `line` is what was judged, `None` for a
    /// hidden one.
    pub fn let_pass(&mut self, now: FlowTime, line: Option<&SshLine>) {
        let Stage::Judging {
            release,
            shown,
            then,
        } = &self.stage
        else {
            return;
        };
        if shown
            .as_ref()
            .is_some_and(|shown| *shown != self.screen.line())
        {
            // Meanwhile it became another.
            let key = release.clone();
            self.stage = Stage::Waiting { since: now, key };
            return self.advance(now);
        }
        let (release, then) = (release.clone(), *then);
        self.send(now, &release);
        match then {
            Then::Fresh => {
                self.draws = line.is_some_and(draws);
                self.begin(now);
            }
            Then::Typing => self.stage = Stage::Typing,
        }
        self.advance(now);
    }

    /// The line that was entered does not pass; the agent is told why. What was
    /// typed behind it is dropped: it was meant to follow.
    pub fn refuse(&mut self, now: FlowTime, why: &str) {
        if !matches!(self.stage, Stage::Judging { .. }) {
            return;
        }
        self.queue.clear();
        self.send(now, &taken_back());
        let said = explained(why);
        self.screen.show(&said);
        self.acts.push_back(Act::Downstream(said));
        self.begin(now);
    }

    fn begin(&mut self, now: FlowTime) {
        self.line = Line::default();
        self.stage = Stage::Fresh { since: now };
    }

    fn send(&mut self, now: FlowTime, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.last_sent = now;
        match self.acts.back_mut() {
            Some(Act::Upstream(before)) => before.extend_from_slice(bytes),
            _ => self.acts.push_back(Act::Upstream(bytes.to_vec())),
        }
    }

    /// Goes on as far as it can.
    fn advance(&mut self, now: FlowTime) {
        loop {
            let went_on = match &self.stage {
                Stage::Judging { .. } => false,
                Stage::Fresh { since } => self.fresh(now, *since),
                Stage::Typing => self.typing(now),
                Stage::Pasting { since, .. } => self.pasting(now, *since),
                Stage::Waiting { since, .. } => self.waiting(now, *since),
            };
            if !went_on {
                return;
            }
        }
    }

    fn is_quiet(&self, now: FlowTime, since: FlowTime) -> bool {
        let from = self.last_shown.max(since);
        now.0.saturating_sub(from.0) >= self.patience.settle
    }

    fn is_over(&self, now: FlowTime, since: FlowTime) -> bool {
        now.0.saturating_sub(since.0) >= self.patience.most
    }

    fn fresh(&mut self, now: FlowTime, since: FlowTime) -> bool {
        let Some(first) = self.queue.front().copied() else {
            return false;
        };
        if self.is_full_screen() {
            return self.typing(now);
        }
        if Key::of(first) == Key::Interrupt {
            self.queue.pop_front();
            self.send(now, &[first]);
            self.stage = Stage::Fresh { since: now };
            return true;
        }
        if self.is_quiet(now, since) {
            self.line.prompt = Some(self.screen.line().before);
        } else if !self.is_over(now, since) {
            return false;
        }
        self.stage = Stage::Typing;
        true
    }

    fn typing(&mut self, now: FlowTime) -> bool {
        if self.is_full_screen() {
            let all: Vec<u8> = self.queue.drain(..).collect();
            self.send(now, &all);
            return false;
        }
        let Some(byte) = self.queue.pop_front() else {
            return false;
        };
        match Key::of(byte) {
            Key::Enter => {
                // Its echo is due since the last key was sent.
                let (since, key) = (self.last_sent, vec![byte]);
                self.stage = Stage::Waiting { since, key };
            }
            Key::End if !self.line.is_untouched() => {
                // Its echo is due since the last key was sent.
                let (since, key) = (self.last_sent, vec![byte]);
                self.stage = Stage::Waiting { since, key };
            }
            Key::Interrupt => {
                self.send(now, &[byte]);
                self.begin(now);
            }
            Key::Runs => {
                let entered = Entered {
                    line: self.line.text(),
                    ..Entered::default()
                };
                self.line.take(byte);
                self.judge(entered, vec![byte], None, Then::Typing);
            }
            _ => {
                self.send(now, &[byte]);
                if self.line.take(byte) {
                    let paste = Pasting::default();
                    self.stage = Stage::Pasting { since: now, paste };
                }
            }
        }
        true
    }

    fn judge(&mut self, entered: Entered, release: Vec<u8>, shown: Option<Shown>, then: Then) {
        self.stage = Stage::Judging {
            release,
            shown,
            then,
        };
        self.acts.push_back(Act::Entered(entered));
    }

    fn pasting(&mut self, now: FlowTime, since: FlowTime) -> bool {
        let over = self.is_over(now, since);
        let Stage::Pasting { paste, .. } = &mut self.stage else {
            return false;
        };
        let mut ended = false;
        while let (false, Some(byte)) = (ended, self.queue.pop_front()) {
            ended = paste.take(byte) || paste.len() >= INPUT_LIMIT;
        }
        if !ended && !over {
            return false;
        }
        let content = std::mem::take(paste);
        let runs = content.runs();
        let text = self.line.pasted(content.text());
        let release = content.into_bytes();
        if !runs {
            self.send(now, &release);
            self.stage = Stage::Typing;
            return true;
        }
        let entered = Entered {
            sure: ended && text.is_some(),
            line: text.unwrap_or_default(),
            hidden: false,
        };
        self.judge(entered, release, None, Then::Typing);
        false
    }

    fn waiting(&mut self, now: FlowTime, since: FlowTime) -> bool {
        let over = self.is_over(now, since);
        let shown = self.screen.line();
        let settled = self.last_shown >= self.last_sent && self.is_quiet(now, since);
        let Some(entered) = self.line.entered(&shown, settled, over) else {
            return false;
        };
        let Stage::Waiting { key, .. } = &self.stage else {
            return false;
        };
        let key = key.clone();
        // What the screen never showed it does not show otherwise later.
        let read = (entered.sure && !self.line.is_untouched()).then_some(shown);
        self.judge(entered, key, read, Then::Fresh);
        false
    }
}

/// What takes a line back at the other end.
#[must_use]
pub fn taken_back() -> Vec<u8> {
    vec![0x03]
}

/// What the agent's terminal is shown of a refusal: on a line of its own, without
/// any character that would mean something to it.
#[must_use]
pub fn explained(why: &str) -> Vec<u8> {
    let plain = why.chars().map(|c| if c.is_control() { ' ' } else { c });
    let plain: String = plain.collect();
    format!("\r\n\u{1b}[0minterceptor: {plain}\r\n").into_bytes()
}

/// Programs that draw on all of the screen, and have it until they end.
const DRAWING: &[&str] = &[
    "vi",
    "vim",
    "nvim",
    "view",
    "vimdiff",
    "nano",
    "pico",
    "emacs",
    "mcedit",
    "mc",
    "less",
    "more",
    "most",
    "man",
    "info",
    "top",
    "htop",
    "btop",
    "atop",
    "iotop",
    "iftop",
    "nethogs",
    "glances",
    "ncdu",
    "watch",
    "tig",
    "lazygit",
    "k9s",
    "vipw",
    "vigr",
    "visudo",
    "sudoedit",
    "crontab",
    "dialog",
    "whiptail",
    "aptitude",
    "cfdisk",
    "cgdisk",
    "alsamixer",
    "nmtui",
    "journalctl",
    "systemctl",
    "git",
    "psql",
    "mysql",
    "ranger",
    "nnn",
    "fzf",
    "bat",
    "delta",
];
/// Programs that run another, which may be one of those.
const LENDING: &[&str] = &["sudo", "doas", "env", "nice", "command", "exec", "time"];

/// Whether a line runs such programs and nothing else.
fn draws(line: &SshLine) -> bool {
    let mut one = false;
    let all = line.programs.iter().all(|program| {
        let name = program.name().unwrap_or_default();
        one |= DRAWING.contains(&name);
        DRAWING.contains(&name) || LENDING.contains(&name)
    });
    all && one
}
