//! What of a terminal's output another terminal may be sent.
//!
//! A recorded shell is drawn again by sending its bytes to the terminal of whoever
//! looks at it. Some sequences do more than draw: they make the terminal answer as if
//! it were typed (device status, attributes, titles, settings), write to the clipboard
//! (OSC 52), start downloads, print, lock the keyboard, turn keys and mouse into other
//! input, resize the window, clear what stood there before. So a list says what is let
//! through, and nothing else is: colours, the cursor, erasing, scrolling, insertion,
//! character sets, and the alternate screen. Marks of text direction are no sequence, and
//! are left out all the same.
//!
//! Bytes are read as UTF-8 first, so that no byte is a control in one reading and a
//! letter in another; controls of eight bits are taken for the sequences that they
//! stand for. Sequences are found as a terminal of DEC's finds them, whatever way the
//! bytes were cut.
//!
//! Spec: ECMA-48; xterm's `ctlseqs`; Williams' state diagram of a VT500's parser.

/// Longest sequence that is let through, in characters.
const SEQUENCE_LIMIT: usize = 128;
/// Longest run of characters that a terminal is to swallow; what stands behind shows.
const STRING_LIMIT: usize = 1 << 20;
/// Largest number in a sequence: repetitions and movements past any screen only cost time.
const NUMBER_LIMIT: u32 = 9999;

const ESC: char = '\u{1b}';

/// Reads bytes as UTF-8, whatever way they were cut; what is none is U+FFFD.
#[derive(Debug, Default)]
pub struct Utf8 {
    kept: Vec<u8>,
}

impl Utf8 {
    /// The characters that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.kept.extend_from_slice(bytes);
        let mut out = String::with_capacity(self.kept.len());
        let mut rest = self.kept.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    out.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = after;
                    let Some(bad) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(bad..).unwrap_or_default();
                }
            }
        }
        self.kept = rest.to_vec();
        out
    }

    /// Nothing more comes: what was begun is no character.
    pub fn finish(&mut self) -> String {
        let begun = !std::mem::take(&mut self.kept).is_empty();
        String::from(if begun { "\u{fffd}" } else { "" })
    }
}

/// Where in a sequence the next character stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In none.
    #[default]
    Ground,
    /// Behind `ESC`.
    Escape,
    /// Behind `CSI`.
    Control,
    /// In a text for the terminal; whether BEL ends it, as it does OSC.
    Text { bel: bool },
}

/// The filter. Its state goes from one part of the output to the next.
#[derive(Debug, Default)]
pub struct Filter {
    utf8: Utf8,
    state: State,
    /// The sequence so far, without its introducer.
    sequence: String,
    /// Characters of a text for the terminal.
    swallowed: usize,
    alternate: bool,
}

impl Filter {
    /// The next part of what may be sent on.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let text = self.utf8.push(bytes);
        let mut out = String::with_capacity(text.len());
        for char in text.chars() {
            self.take(char, &mut out);
        }
        out
    }

    /// What a terminal is to be sent when nothing more comes, so that it is as it was.
    pub fn finish(&mut self) -> String {
        let mut out = self.utf8.finish();
        if std::mem::take(&mut self.alternate) {
            out.push_str("\u{1b}[?1049l");
        }
        out.push_str(RESET);
        self.state = State::Ground;
        out
    }

    fn take(&mut self, char: char, out: &mut String) {
        match char {
            // A control of eight bits stands for a sequence of two characters.
            '\u{80}'..='\u{9f}' => {
                let second = char::from_u32(u32::from(char) - 0x40).unwrap_or('\\');
                self.take(ESC, out);
                self.take(second, out);
            }
            ESC => self.enter(State::Escape),
            // These break off whatever was begun.
            '\u{18}' | '\u{1a}' => self.enter(State::Ground),
            _ => match self.state {
                State::Ground => ground(char, out),
                State::Escape => self.escape(char, out),
                State::Control => self.control(char, out),
                State::Text { bel } => {
                    self.swallowed += 1;
                    if (bel && char == '\u{7}') || self.swallowed > STRING_LIMIT {
                        self.enter(State::Ground);
                    }
                }
            },
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.sequence.clear();
        self.swallowed = 0;
    }

    fn escape(&mut self, char: char, out: &mut String) {
        match char {
            '[' if self.sequence.is_empty() => self.enter(State::Control),
            ']' if self.sequence.is_empty() => self.enter(State::Text { bel: true }),
            'P' | 'X' | '^' | '_' if self.sequence.is_empty() => {
                self.enter(State::Text { bel: false });
            }
            ' '..='/' if self.sequence.len() < SEQUENCE_LIMIT => self.sequence.push(char),
            '0'..='~' => {
                let draws = match self.sequence.as_str() {
                    // Cursor saved and restored; index, next line, reverse index; keypad.
                    "" => matches!(char, '7' | '8' | 'D' | 'E' | 'M' | '=' | '>'),
                    // Character sets.
                    "(" | ")" | "*" | "+" => true,
                    // Lines of double size, and the test picture.
                    "#" => matches!(char, '3'..='6' | '8'),
                    _ => false,
                };
                if draws {
                    out.push(ESC);
                    out.push_str(&self.sequence);
                    out.push(char);
                }
                if self.sequence.is_empty() && char == 'c' {
                    // A reset would take what stood there before with it.
                    if std::mem::take(&mut self.alternate) {
                        out.push_str("\u{1b}[?1049l");
                    }
                    out.push_str("\u{1b}[!p\u{1b}[H\u{1b}[2J");
                }
                self.enter(State::Ground);
            }
            char if char < ' ' => ground(char, out),
            _ => self.enter(State::Ground),
        }
    }

    fn control(&mut self, char: char, out: &mut String) {
        match char {
            ' '..='?' => {
                if self.sequence.len() < SEQUENCE_LIMIT {
                    self.sequence.push(char);
                } else {
                    // Too long to be let through, and still to be read to its end.
                    self.sequence.clear();
                    self.sequence.push_str("<too long");
                }
            }
            '@'..='~' => {
                let sequence = std::mem::take(&mut self.sequence);
                if let Some(sequence) = self.drawing(&sequence, char) {
                    out.push_str("\u{1b}[");
                    out.push_str(&sequence);
                    out.push(char);
                }
                self.enter(State::Ground);
            }
            char if char < ' ' => ground(char, out),
            char => {
                self.enter(State::Ground);
                ground(char, out);
            }
        }
    }

    /// A control sequence's parameters, as far as it draws.
    fn drawing(&mut self, sequence: &str, last: char) -> Option<String> {
        let simple = |text: &str| text.chars().all(|c| matches!(c, '0'..='9' | ';' | ':'));
        match (sequence, last) {
            ("!", 'p') => return Some(sequence.to_owned()),
            // The cursor's shape.
            (shape, 'q') => {
                let number = shape.strip_suffix(' ')?;
                return matches!(number, "" | "0" | "1" | "2" | "3" | "4" | "5" | "6")
                    .then(|| sequence.to_owned());
            }
            _ => {}
        }
        if let Some(private) = sequence.strip_prefix('?') {
            return match last {
                'h' | 'l' if simple(private) => self.modes(private, last == 'h'),
                'J' | 'K' if matches!(private, "" | "0" | "1" | "2") => Some(sequence.to_owned()),
                _ => None,
            };
        }
        if !simple(sequence) {
            return None;
        }
        let small = sequence.split([';', ':']).all(|number| {
            number.is_empty() || number.parse().is_ok_and(|n: u32| n <= NUMBER_LIMIT)
        });
        let draws = match last {
            'h' | 'l' => {
                // Insertion, and line feeds that are new lines. Not the keyboard's lock.
                let known: Vec<&str> = sequence
                    .split(';')
                    .filter(|m| matches!(*m, "4" | "20"))
                    .collect();
                return (!known.is_empty()).then(|| known.join(";"));
            }
            // Not what was scrolled away: it is the viewer's own.
            'J' => matches!(sequence, "" | "0" | "1" | "2"),
            // With more numbers it is another thing, of the mouse's.
            'T' => !sequence.contains(';'),
            '@'
            | 'A'..='I'
            | 'K'..='M'
            | 'P'
            | 'S'
            | 'X'
            | 'Z'
            | '`'
            | 'a'
            | 'b'
            | 'd'
            | 'e'
            | 'f'
            | 'm'
            | 'r'
            | 's'
            | 'u' => true,
            _ => false,
        };
        (draws && small).then(|| sequence.to_owned())
    }

    /// Private modes that draw.
    fn modes(&mut self, modes: &str, set: bool) -> Option<String> {
        let mut known = Vec::new();
        for mode in modes.split(';') {
            match mode {
                // Reverse, origin, wrapping, blinking and visible cursor, margins.
                "5" | "6" | "7" | "12" | "25" | "45" | "69" | "1048" => {}
                "47" | "1047" | "1049" => self.alternate = set,
                _ => continue,
            }
            known.push(mode);
        }
        (!known.is_empty()).then(|| format!("?{}", known.join(";")))
    }
}

/// What undoes whatever is let through, without moving the cursor: wrapping, margins,
/// origin, insertion, reverse, character sets, colours, the cursor's looks.
const RESET: &str = "\u{f}\u{1b}(B\u{1b}7\u{1b}[?6l\u{1b}[?69l\u{1b}[r\u{1b}8\u{1b}[?6l\u{1b}[4l\
                     \u{1b}[20l\u{1b}[?5l\u{1b}[?7h\u{1b}[?25h\u{1b}[0 q\u{1b}>\u{1b}[0m";

/// What undoes all of it, the alternate screen included, for whoever breaks off in the
/// middle and cannot ask a [`Filter`].
#[must_use]
pub fn reset() -> String {
    format!("\u{1b}[?1047l{RESET}")
}

fn ground(char: char, out: &mut String) {
    match char {
        // BEL, BS, HT, LF, VT, FF, CR, SO, SI. Not ENQ, which is answered.
        '\u{7}'..='\u{f}' => out.push(char),
        char if char < ' ' || char == '\u{7f}' => {}
        // Marks of text direction make one line read as another.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
        }
        char => out.push(char),
    }
}
