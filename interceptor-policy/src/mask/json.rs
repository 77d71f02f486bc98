//! Hides values in JSON that streams by: one document, or several with white
//! space between them, as in NDJSON.
//!
//! Two questions are asked of every value. *Where* it is: a pointer that hits
//! puts something else in its place, a whole object or list included. *What it
//! looks like*: detectors are asked about strings as they read once decoded, so
//! that `\u0034111…` hides no card number, about keys, and about numbers.
//!
//! | what is hidden | `redact`, `hash`, `partial`, `constant` | `null` |
//! | --- | --- | --- |
//! | a string | a string | `null` |
//! | a number, `true`, `false` | a string, made of the text that it was | `null` |
//! | an object, a list | a string: the constant, or `"[redacted]"` | `null` |
//! | `null` | stays: there was nothing | `null` |
//! | what a detector hits in a string or a key | that part of it | `[null]` in its place |
//! | what a detector hits in a number | a string with that part hidden | the same |
//!
//! What nothing is hidden of goes through byte for byte, spelling and white space
//! included. A key that an object has twice is hidden twice. The outcome does not
//! hang on how the text was cut into pieces.
//!
//! Little is held: a value that a pointer hits up to [`Limits::value`] decoded
//! bytes, past which it is redacted whole; a longer string that detectors look
//! at goes through a [`DetectStream`], which holds a line.
//!
//! Fails closed: what is no JSON is a [`JsonFault`], and nothing more comes out,
//! since whoever reads it otherwise than this may see what was to be hidden.
//! Lone surrogates are let pass, since services send them (an emoji cut in two).
//!
//! Format: RFC 8259.

use std::fmt;
use std::sync::Arc;

use super::detectors::DetectStream;
use super::{Direction, MaskKey, Masked, Masks, Transform};
use crate::matcher::pointer::Position;
use crate::operation::json::number;

mod strings;
mod text;

use text::quoted;

/// How much is held, and how deep a document may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Bytes of a value in whose place something else is put.
    value: usize,
    /// Bytes of a string before it goes through a stream.
    whole: usize,
    /// Bytes of a key.
    key: usize,
    /// Bytes of a number.
    number: usize,
    depth: usize,
}

const LIMITS: Limits = Limits {
    value: 64 << 10,
    whole: 4 << 10,
    key: 16 << 10,
    number: 1 << 10,
    depth: 512,
};

/// Why a text cannot be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonFault {
    /// It is no JSON; how many bytes of it were.
    Malformed {
        /// Bytes before the first that is wrong, or of the whole text that ended
        /// too soon.
        at: u64,
    },
    /// It is nested too deep.
    TooDeep,
    /// A key or a number of it is too long.
    TooLong,
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { at } => write!(f, "no JSON after {at} bytes"),
            Self::TooDeep => write!(f, "JSON nested deeper than {}", LIMITS.depth),
            Self::TooLong => f.write_str("JSON with a key or a number that is too long"),
        }
    }
}

impl std::error::Error for JsonFault {}

/// What the next byte is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between documents. `apart`: whether the last one is over for certain.
    Between {
        apart: bool,
    },
    /// In front of a value; `first`: or of the list's end.
    Value {
        first: bool,
    },
    /// In front of a key; `first`: or of the object's end.
    Key {
        first: bool,
    },
    Colon,
    /// Behind a value.
    After,
    Text {
        key: bool,
        escaped: bool,
    },
    Number,
    Word {
        word: &'static [u8],
        read: usize,
    },
}

/// What becomes of the string that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes through.
    Passed,
    /// It is part of something hidden.
    Dropped,
    /// It is held until all of it is known.
    Held,
    /// It is too long to be held, and detectors look at it in parts.
    Streamed,
    /// It is too long, and is replaced.
    Replaced,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    object: bool,
    /// Of the list's next item.
    index: usize,
}

/// Hides values in one text.
#[derive(Debug)]
pub struct JsonMasker {
    masks: Arc<Masks>,
    direction: Direction,
    limits: Limits,
    state: State,
    levels: Vec<Level>,
    /// Where the levels that are not hidden stand, so many positions each.
    places: Vec<Position>,
    /// Where the value stands that is being read.
    place: Vec<Position>,
    /// The level from which on everything is part of something hidden.
    hiding: Option<usize>,
    fate: Fate,
    held: Vec<u8>,
    stream: Option<DetectStream>,
    streamed: Vec<u8>,
    hidden: u64,
    read: u64,
    mark: usize,
    fault: Option<JsonFault>,
}

impl JsonMasker {
    /// A masker at the start of a text.
    #[must_use]
    pub fn new(masks: Arc<Masks>, direction: Direction) -> Self {
        Self {
            masks,
            direction,
            limits: LIMITS,
            state: State::Between { apart: true },
            levels: Vec::new(),
            places: Vec::new(),
            place: Vec::new(),
            hiding: None,
            fate: Fate::Passed,
            held: Vec::new(),
            stream: None,
            streamed: Vec::new(),
            hidden: 0,
            read: 0,
            mark: 0,
            fault: None,
        }
    }

    /// How many values, or parts of values, were hidden.
    #[must_use]
    pub fn hidden(&self) -> u64 {
        self.hidden + self.stream.as_ref().map_or(0, DetectStream::hidden)
    }

    /// Takes the next piece, and appends to `out` what is certain by now.
    ///
    /// # Errors
    /// Why the text cannot be masked. What was appended before may be sent, and
    /// nothing after it.
    pub fn push(
        &mut self,
        piece: &[u8],
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut rest = piece;
        while !rest.is_empty() {
            match self.step(rest, key, out) {
                Ok(taken) => {
                    self.read += taken as u64;
                    rest = rest.get(taken..).unwrap_or_default();
                }
                Err(fault) => {
                    self.fault = Some(fault);
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// The text is over: appends the rest.
    ///
    /// # Errors
    /// Why it cannot be masked; that it ended too soon is one reason.
    pub fn finish(&mut self, key: &MaskKey, out: &mut Vec<u8>) -> Result<(), JsonFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let ended = match self.state {
            State::Number => self.end_number(key, out),
            _ => Ok(()),
        };
        let whole = matches!(self.state, State::Between { .. });
        let ended = ended.and_then(|()| if whole { Ok(()) } else { self.malformed() });
        if let Err(fault) = ended {
            self.fault = Some(fault);
        }
        ended
    }

    fn malformed<T>(&self) -> Result<T, JsonFault> {
        Err(JsonFault::Malformed { at: self.read })
    }

    /// Takes at least one byte, or changes the state; how many it took.
    fn step(&mut self, rest: &[u8], key: &MaskKey, out: &mut Vec<u8>) -> Result<usize, JsonFault> {
        let Some(byte) = rest.first().copied() else {
            return Ok(0);
        };
        match self.state {
            State::Text {
                key: is_key,
                escaped,
            } => {
                return self.text(rest, is_key, escaped, key, out);
            }
            State::Number => return self.number(rest, key, out),
            State::Word { word, read } => {
                if word.get(read) != Some(&byte) {
                    return self.malformed();
                }
                match read + 1 == word.len() {
                    true => self.end_word(word, key, out),
                    false => {
                        self.state = State::Word {
                            word,
                            read: read + 1,
                        }
                    }
                }
                return Ok(1);
            }
            _ => {}
        }
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            if let State::Between { apart } = &mut self.state {
                *apart = true;
            }
            self.put(byte, out);
            return Ok(1);
        }
        match (self.state, byte) {
            // A byte order mark, of which readers know.
            (State::Between { .. }, 0xef | 0xbb | 0xbf) if self.read < 3 => {
                let mark = [0xef, 0xbb, 0xbf];
                if mark.get(self.mark) != Some(&byte) {
                    return self.malformed();
                }
                self.mark += 1;
                self.put(byte, out);
            }
            (State::Between { apart: true }, _) if self.mark == 0 || self.mark == 3 => {
                self.place.clear();
                if let Some(json) = self.masks.of(self.direction).json() {
                    self.place.extend(json.start());
                }
                self.begin(byte, out)?;
            }
            (State::Value { first: true }, b']') | (State::Key { first: true }, b'}') => {
                self.close(byte, key, out)?;
            }
            (State::Value { .. }, _) => {
                self.next_item();
                self.begin(byte, out)?;
            }
            (State::Key { .. }, b'"') => {
                self.fate = match self.hiding {
                    Some(_) => Fate::Dropped,
                    None => Fate::Held,
                };
                self.held.clear();
                self.state = State::Text {
                    key: true,
                    escaped: false,
                };
            }
            (State::Colon, b':') => {
                self.put(byte, out);
                self.state = State::Value { first: false };
            }
            (State::After, b',') => {
                self.put(byte, out);
                let object = self.levels.last().is_some_and(|level| level.object);
                self.state = match object {
                    true => State::Key { first: false },
                    false => State::Value { first: false },
                };
            }
            (State::After, b']' | b'}') => self.close(byte, key, out)?,
            _ => return self.malformed(),
        }
        Ok(1)
    }

    fn put(&self, byte: u8, out: &mut Vec<u8>) {
        if self.hiding.is_none() {
            out.push(byte);
        }
    }

    /// Of a list: where its next item stands. A member's place is known by its key.
    fn next_item(&mut self) {
        let Some(level) = self.levels.last_mut().filter(|level| !level.object) else {
            return;
        };
        let index = level.index;
        level.index += 1;
        if self.hiding.is_some() {
            return;
        }
        if let Some(json) = self.masks.of(self.direction).json() {
            let from = self.places.len().saturating_sub(json.width());
            let at = self.places.get(from..).unwrap_or_default();
            self.place.clear();
            self.place.extend(json.index(at, index));
        }
    }

    /// What hides the value that is being read, by its place.
    fn transform(&self) -> Option<&Transform> {
        self.masks.of(self.direction).json()?.here(&self.place)
    }

    /// The first byte of a value.
    fn begin(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), JsonFault> {
        match byte {
            b'{' | b'[' => self.open(byte, out),
            b'"' => {
                let looked_at = self.masks.of(self.direction).detect().is_some();
                self.fate = match self.hiding {
                    Some(_) => Fate::Dropped,
                    None if looked_at || self.transform().is_some() => Fate::Held,
                    None => Fate::Passed,
                };
                if self.fate == Fate::Passed {
                    out.push(byte);
                }
                self.held.clear();
                self.state = State::Text {
                    key: false,
                    escaped: false,
                };
                Ok(())
            }
            b'-' | b'0'..=b'9' => {
                self.held.clear();
                self.held.push(byte);
                self.state = State::Number;
                Ok(())
            }
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.malformed(),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), JsonFault> {
        self.state = State::Word { word, read: 1 };
        Ok(())
    }

    fn open(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), JsonFault> {
        if self.levels.len() >= self.limits.depth {
            return Err(JsonFault::TooDeep);
        }
        if self.hiding.is_none() {
            match self.transform() {
                Some(_) => self.hiding = Some(self.levels.len()),
                None => {
                    out.push(byte);
                    self.places.extend_from_slice(&self.place);
                }
            }
        }
        let object = byte == b'{';
        self.levels.push(Level { object, index: 0 });
        self.state = match object {
            true => State::Key { first: true },
            false => State::Value { first: true },
        };
        Ok(())
    }

    fn close(&mut self, byte: u8, key: &MaskKey, out: &mut Vec<u8>) -> Result<(), JsonFault> {
        match self.levels.pop() {
            Some(level) if level.object == (byte == b'}') => {}
            _ => return self.malformed(),
        }
        match self.hiding {
            Some(from) if from == self.levels.len() => {
                self.hiding = None;
                // The place is still the one that it was opened at: nothing in
                // what is hidden moved it.
                let transform = self.transform().cloned().unwrap_or(Transform::Redact);
                self.replace(&transform, None, key, out);
            }
            Some(_) => {}
            None => {
                out.push(byte);
                let width = self.width();
                let left = self.places.len().saturating_sub(width);
                self.places.truncate(left);
            }
        }
        self.end_value();
        Ok(())
    }

    fn width(&self) -> usize {
        let json = self.masks.of(self.direction).json();
        json.map_or(0, super::JsonMask::width)
    }

    fn end_value(&mut self) {
        self.state = match self.levels.is_empty() {
            true => State::Between { apart: false },
            false => State::After,
        };
    }

    /// Puts something in a value's place; `None` for one that is not to be had.
    fn replace(
        &mut self,
        transform: &Transform,
        value: Option<&[u8]>,
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) {
        self.hidden += 1;
        let mut put = Vec::new();
        let masked = match (transform, value) {
            (Transform::Hash | Transform::Partial { .. }, None) => {
                Transform::Redact.apply(b"", key, &mut put)
            }
            (transform, value) => transform.apply(value.unwrap_or_default(), key, &mut put),
        };
        match masked {
            Masked::Null => out.extend_from_slice(b"null"),
            Masked::Text => quoted(&put, out),
        }
    }

    fn end_word(&mut self, word: &'static [u8], key: &MaskKey, out: &mut Vec<u8>) {
        if self.hiding.is_none() {
            match self.transform().cloned() {
                Some(transform) if word != b"null" => {
                    self.replace(&transform, Some(word), key, out);
                }
                _ => out.extend_from_slice(word),
            }
        }
        self.end_value();
    }

    fn number(
        &mut self,
        rest: &[u8],
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) -> Result<usize, JsonFault> {
        let part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let taken = rest.iter().take_while(|byte| part(byte)).count();
        if self.held.len() + taken > self.limits.number {
            return Err(JsonFault::TooLong);
        }
        self.held.extend(rest.iter().take(taken));
        if taken < rest.len() {
            self.end_number(key, out)?;
        }
        Ok(taken)
    }

    fn end_number(&mut self, key: &MaskKey, out: &mut Vec<u8>) -> Result<(), JsonFault> {
        if number(&self.held) != Some(self.held.len()) {
            return self.malformed();
        }
        let held = std::mem::take(&mut self.held);
        if self.hiding.is_none() {
            match self.transform().cloned() {
                Some(transform) => self.replace(&transform, Some(&held), key, out),
                None => match self.detected(&held, key) {
                    Some(hidden) => quoted(&hidden, out),
                    None => out.extend_from_slice(&held),
                },
            }
        }
        self.held = held;
        self.end_value();
        Ok(())
    }

    /// Where the member of this key stands.
    fn member(&mut self, name: &str) {
        if let Some(json) = self.masks.of(self.direction).json() {
            let from = self.places.len().saturating_sub(json.width());
            let at = self.places.get(from..).unwrap_or_default();
            self.place.clear();
            self.place.extend(json.key(at, name));
        }
    }
}

#[cfg(test)]
mod tests;
