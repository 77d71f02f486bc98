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
//! * What **draws without it** ([`drawing`]) gets its keys one by one, and the prompt
//!   tells that it is over.
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

mod drawing;
mod keys;
mod screen;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use interceptor_policy::operation::ssh::SshLine;

use self::drawing::{Drawing, Found, draws};
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
    /// A line is to be taken back, and the agent to be told why.
    TakingBack { since: FlowTime, said: Vec<u8> },
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
    /// Of such a program, until the prompt shows that it has ended.
    drawing: Option<Drawing>,
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
            drawing: None,
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
        if let Some(drawing) = &mut self.drawing
            && drawing.shown(&self.screen.line())
        {
            // Whatever is switched on behind the prompt, no program of the line's did.
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
                match self.line.is_known() || !self.has_come() {
                    true => most,
                    false => quiet(*since).min(most),
                }
            }
            Stage::TakingBack { since, .. } => {
                quiet(self.last_sent).min(after(*since, self.patience.most))
            }
            Stage::Typing if self.drawing.is_some() && !self.queue.is_empty() => {
                let most = after(self.last_sent, self.patience.most);
                match self.has_come() {
                    true => quiet(self.last_sent).min(most),
                    false => most,
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
                self.entered(line);
                self.begin(now);
            }
            Then::Typing => self.stage = Stage::Typing,
        }
        self.advance(now);
    }

    /// What a line that is let go means for what is typed next.
    fn entered(&mut self, line: Option<&SshLine>) {
        let empty = self.line.is_untouched() && line.is_some_and(|line| line.text.is_empty());
        if empty && self.drawing.is_some() {
            // To a pager it is a key as any other.
            return;
        }
        self.draws = line.is_some_and(draws);
        let prompt = self.line.prompt.take();
        self.drawing = match self.draws {
            true => prompt.map(Drawing::behind),
            false => None,
        };
    }

    /// The line that was entered does not pass; the agent is told why. What was
    /// typed behind it is dropped: it was meant to follow.
    pub fn refuse(&mut self, now: FlowTime, why: &str) {
        if !matches!(self.stage, Stage::Judging { .. }) {
            return;
        }
        let said = explained(why);
        self.stage = Stage::TakingBack { since: now, said };
        self.advance(now);
    }

    /// An interrupt that comes while a shell still draws what was typed can be lost
    /// in it: readline shows it and asks for no new line before the next key. So it
    /// waits until the screen has come to rest.
    fn taking_back(&mut self, now: FlowTime, since: FlowTime) -> bool {
        if !self.is_quiet(now, self.last_sent) && !self.is_over(now, since) {
            return false;
        }
        let Stage::TakingBack { said, .. } = &mut self.stage else {
            return false;
        };
        let said = std::mem::take(said);
        self.queue.clear();
        self.send(now, &taken_back());
        self.screen.show(&said);
        self.acts.push_back(Act::Downstream(said));
        self.begin(now);
        false
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
                Stage::TakingBack { since, .. } => self.taking_back(now, *since),
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

    /// Whether something was shown since the last key was sent.
    fn has_come(&self) -> bool {
        self.last_shown >= self.last_sent
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
        let Some(first) = self.queue.front().copied() else {
            return false;
        };
        if self.drawing.is_some() && Key::of(first) != Key::Interrupt {
            return self.drawn_beside(now);
        }
        self.queue.pop_front();
        self.pressed(now, first)
    }

    /// A key while a program may run that draws without having all of the screen.
    fn drawn_beside(&mut self, now: FlowTime) -> bool {
        let shown = self.screen.line();
        let found = match &self.drawing {
            Some(drawing) if self.has_come() && self.is_quiet(now, self.last_sent) => {
                drawing.found(&shown)
            }
            Some(_) if !self.is_over(now, self.last_sent) => return false,
            _ => Found::Lost,
        };
        match found {
            Found::Over => {
                self.drawing = None;
                self.draws = false;
                self.line = Line::default();
                self.line.prompt = Some(shown.before);
                return true;
            }
            Found::Lost => {
                self.drawing = None;
                return true;
            }
            Found::Runs => {}
        }
        let length = drawing::first_key(&self.queue);
        let key: Vec<u8> = self.queue.drain(..length).collect();
        if let Some(drawing) = &mut self.drawing {
            drawing.sent(&key, &shown);
        }
        // What follows the first byte of a key does nothing by itself.
        key.into_iter().all(|byte| self.pressed(now, byte))
    }

    /// One byte of what is typed at a line.
    fn pressed(&mut self, now: FlowTime, byte: u8) -> bool {
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
        let settled = self.has_come() && self.is_quiet(now, since);
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
