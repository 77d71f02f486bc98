//! What was typed, as far as the keys say it, and what the screen makes of it.

use super::Entered;
use super::screen::Shown;

/// What begins a bracketed paste, and what ends it.
pub(super) const START: &[u8] = b"\x1b[200~";
const END: &[u8] = b"\x1b[201~";

/// What a byte does to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Part of a letter.
    Text,
    /// Takes the last letter back.
    Delete,
    /// Takes the line back to its begin.
    Clear,
    /// Enters the line.
    Enter,
    /// Ends the input; what is typed is entered.
    End,
    /// Drops the line, and stops what runs.
    Interrupt,
    /// May begin what runs something that no line shows.
    Runs,
    /// Anything else.
    Other,
}

impl Key {
    pub(super) const fn of(byte: u8) -> Self {
        match byte {
            b'\r' | b'\n' | 0x0f => Self::Enter,
            0x04 => Self::End,
            0x03 | 0x1a | 0x1c => Self::Interrupt,
            0x15 => Self::Clear,
            0x08 | 0x7f => Self::Delete,
            0x18 => Self::Runs,
            0x20..=0x7e | 0x80..=0xff => Self::Text,
            _ => Self::Other,
        }
    }
}

/// A line that is being typed.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// What stood left of the cursor before it, where that is certain.
    pub(super) prompt: Option<String>,
    /// What the keys make of it; `None` after a key of which they do not say.
    keys: Option<Vec<u8>>,
    touched: bool,
    /// The beginning of a sequence, and the line before it.
    escape: Vec<u8>,
    before_escape: Option<Vec<u8>>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            prompt: None,
            keys: Some(Vec::new()),
            touched: false,
            escape: Vec::new(),
            before_escape: None,
        }
    }
}

impl Line {
    /// Whether no key of it was pressed.
    pub(super) const fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Whether the keys say what it is.
    pub(super) const fn is_known(&self) -> bool {
        self.keys.is_some()
    }

    /// What the keys make of it.
    pub(super) fn text(&self) -> String {
        let keys = self.keys.as_deref().unwrap_or_default();
        String::from_utf8_lossy(keys).into_owned()
    }

    /// One more key; whether a paste begins with it.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.touched = true;
        if byte == 0x1b {
            self.before_escape = self.keys.take();
            self.escape = vec![byte];
            return false;
        }
        if !self.escape.is_empty() {
            self.escape.push(byte);
            if self.escape == START {
                self.escape.clear();
                self.keys = self.before_escape.take();
                return true;
            }
            if !START.starts_with(&self.escape) {
                self.escape.clear();
            }
            return false;
        }
        match (Key::of(byte), &mut self.keys) {
            (_, None) => {}
            (Key::Text, Some(keys)) => keys.push(byte),
            (Key::Clear, Some(keys)) => keys.clear(),
            (Key::Delete, Some(keys)) => {
                // A letter of several bytes goes as one.
                while keys.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            _ => self.keys = None,
        }
        false
    }

    /// What was pasted; all of the line then, where that is known.
    pub(super) fn pasted(&mut self, text: Option<String>) -> Option<String> {
        self.touched = true;
        match (text, &mut self.keys) {
            (Some(text), Some(keys)) => {
                keys.extend_from_slice(text.as_bytes());
                String::from_utf8(keys.clone()).ok()
            }
            _ => {
                self.keys = None;
                None
            }
        }
    }

    /// The line, once it is time to say what it is.
    pub(super) fn entered(&self, shown: &Shown, settled: bool, over: bool) -> Option<Entered> {
        if !self.touched {
            // Nothing was typed, whatever is drawn meanwhile.
            return Some(Entered {
                sure: true,
                ..Entered::default()
            });
        }
        let keys = self.keys.as_ref().map(|keys| std::str::from_utf8(keys));
        match keys {
            Some(Ok(keys)) => self.by_keys(keys, shown, over),
            Some(Err(_)) => (settled || over).then(|| unsure(self.text())),
            None => self.by_screen(shown, settled, over),
        }
    }

    fn by_keys(&self, keys: &str, shown: &Shown, over: bool) -> Option<Entered> {
        let prompt = self.prompt.as_deref();
        let last = keys.rsplit('\n').next().unwrap_or(keys);
        let fits = match (prompt, last == keys) {
            (None, _) => false,
            (Some(prompt), true) => shown.before.strip_prefix(prompt) == Some(keys),
            // Of a paste of several lines the last one stands there.
            (Some(_), false) => shown.before.ends_with(last),
        };
        let behind = shown.after.is_empty() || shown.suggests;
        if fits && behind {
            return Some(Entered {
                line: keys.to_owned(),
                sure: true,
                hidden: false,
            });
        }
        if !over {
            return None;
        }
        let hidden = prompt.is_some_and(|prompt| {
            shown.before == prompt && shown.after.is_empty() && asks_for_secret(prompt)
        });
        Some(match hidden {
            true => Entered {
                hidden,
                ..Entered::default()
            },
            // What is not shown may be a secret that is asked for otherwise.
            false if prompt == Some(shown.before.as_str()) => unsure(String::new()),
            false => unsure(keys.to_owned()),
        })
    }

    fn by_screen(&self, shown: &Shown, settled: bool, over: bool) -> Option<Entered> {
        if !settled && !over {
            return None;
        }
        let whole = format!("{}{}", shown.before, shown.after);
        let line = match searched(&whole) {
            Some(found) => Some(found),
            None => {
                let prompt = self.prompt.as_deref();
                prompt.and_then(|prompt| whole.strip_prefix(prompt))
            }
        };
        let certain = settled && !shown.suggests;
        Some(match line {
            Some(line) => Entered {
                line: line.trim_end().to_owned(),
                sure: certain,
                hidden: false,
            },
            None => unsure(whole.trim_end().to_owned()),
        })
    }
}

fn unsure(line: String) -> Entered {
    Entered {
        line,
        ..Entered::default()
    }
}

/// The line that a search in the history has found, where one stands there.
fn searched(whole: &str) -> Option<&str> {
    let rest = whole.strip_prefix('(')?;
    let rest = rest.strip_prefix("failed ").unwrap_or(rest);
    let rest = rest.strip_prefix("reverse-").unwrap_or(rest);
    let rest = rest.strip_prefix("i-search)`")?;
    let (_, found) = rest.split_once("': ")?;
    // Where the text that is looked for has the same in it, nobody can say.
    (!found.contains("': ")).then_some(found)
}

/// Whether a prompt asks for what is not to be shown.
fn asks_for_secret(prompt: &str) -> bool {
    const SECRETS: &[&str] = &[
        "password",
        "passphrase",
        "passcode",
        "passwort",
        "verification code",
        "one-time code",
        "pin",
        "otp",
        "token",
        "secret",
    ];
    let prompt = prompt.trim_end().to_lowercase();
    let ends = prompt.ends_with([':', '?']);
    ends && SECRETS.iter().any(|secret| prompt.contains(secret))
}

/// A paste that is being collected.
#[derive(Clone, Debug, Default)]
pub(super) struct Pasting {
    bytes: Vec<u8>,
    ended: bool,
}

impl Pasting {
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// One more byte; whether the paste ends with it.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.bytes.push(byte);
        self.ended = self.bytes.ends_with(END);
        self.ended
    }

    fn content(&self) -> &[u8] {
        match self.ended {
            true => self.bytes.strip_suffix(END).unwrap_or(&self.bytes),
            false => &self.bytes,
        }
    }

    /// Whether something in it may enter a line, or do what keys do.
    pub(super) fn runs(&self) -> bool {
        let text = |byte: &u8| matches!(Key::of(*byte), Key::Text) || *byte == b'\t';
        !self.content().iter().all(text)
    }

    /// What it says, where it is text alone.
    pub(super) fn text(&self) -> Option<String> {
        let text = std::str::from_utf8(self.content()).ok()?;
        let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r');
        let text = text.chars().all(plain).then_some(text)?;
        Some(text.replace("\r\n", "\n").replace('\r', "\n"))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
