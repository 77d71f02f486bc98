//! Colours in a text, kept apart from it while it is looked at.
//!
//! `AKIA…` is the same secret with a colour in its middle, as `grep` writes it that was
//! asked for a part. So what only colours is taken out, and put back where it stood;
//! what stood in a hit, behind what stands in its place. Nothing is lost and the order
//! stays, so that a terminal has the colours that it had.
//!
//! Taken out are SGR, the erasing of a line's rest, which `grep` has beside it, and what
//! chooses character sets, which `tput sgr0` has. What moves the cursor is not: the
//! terminal then shows another text than its bytes say.

use std::collections::VecDeque;

/// Longest sequence.
const LONGEST: usize = 64;
/// Bytes that are kept apart at a time; what comes beyond is text.
const LIMIT: usize = 64 << 10;

/// What was taken out.
#[derive(Clone, Debug, Default)]
pub(super) struct Colours {
    /// A sequence that has begun.
    begun: Vec<u8>,
    /// Where in the text each stood, in order.
    apart: VecDeque<(usize, Vec<u8>)>,
    bytes: usize,
}

/// What the beginning of some bytes is.
enum Begins {
    Colour(usize),
    Perhaps,
    Text,
}

fn begins(bytes: &[u8]) -> Begins {
    let sequence = match bytes {
        [0x1b] | [0x1b, b'('] => return Begins::Perhaps,
        [0x1b, b'(', ..] => return Begins::Colour(3),
        [0x1b, b'[', sequence @ ..] => sequence,
        [0x0e | 0x0f, ..] => return Begins::Colour(1),
        _ => return Begins::Text,
    };
    let is_parameter = |byte: &&u8| matches!(byte, b'0'..=b'9' | b';' | b':');
    let parameters = sequence.iter().take(LONGEST).take_while(is_parameter);
    let length = parameters.count();
    match sequence.get(length) {
        Some(b'm' | b'K') => Begins::Colour(2 + length + 1),
        None if length < LONGEST => Begins::Perhaps,
        _ => Begins::Text,
    }
}

impl Colours {
    /// Appends to `text` what is text of the next piece.
    pub(super) fn split(&mut self, piece: &[u8], text: &mut Vec<u8>) {
        let mut joined = std::mem::take(&mut self.begun);
        let mut rest = if joined.is_empty() {
            piece
        } else {
            joined.extend_from_slice(piece);
            joined.as_slice()
        };
        loop {
            let next = memchr::memchr3(0x1b, 0x0e, 0x0f, rest);
            let (plain, after) = rest.split_at(next.unwrap_or(rest.len()));
            text.extend_from_slice(plain);
            rest = after;
            match begins(rest) {
                _ if rest.is_empty() => return,
                Begins::Perhaps => {
                    self.begun = rest.to_vec();
                    return;
                }
                Begins::Colour(length) if self.bytes + length <= LIMIT => {
                    let (colour, after) = rest.split_at(length);
                    self.bytes += length;
                    match self.apart.back_mut() {
                        Some((at, before)) if *at == text.len() => {
                            before.extend_from_slice(colour);
                        }
                        _ => self.apart.push_back((text.len(), colour.to_vec())),
                    }
                    rest = after;
                }
                Begins::Colour(_) | Begins::Text => {
                    let (first, after) = rest.split_at(1);
                    text.extend_from_slice(first);
                    rest = after;
                }
            }
        }
    }

    /// Nothing more comes: what has begun is text.
    pub(super) fn finish(&mut self, text: &mut Vec<u8>) {
        text.append(&mut self.begun);
    }

    /// Appends what stood at `at` and before, and was not yet put back.
    pub(super) fn put_back(&mut self, at: usize, out: &mut Vec<u8>) {
        while let Some((_, colour)) = self.apart.pop_front_if(|(stood, _)| *stood <= at) {
            self.bytes -= colour.len();
            out.extend_from_slice(&colour);
        }
    }

    /// Appends a part of the text, with what stood before, in and at the end of it.
    pub(super) fn copy(&mut self, text: &[u8], from: usize, to: usize, out: &mut Vec<u8>) {
        let mut done = from;
        self.put_back(from, out);
        while let Some(at) = self.apart.front().map(|(at, _)| *at).filter(|at| *at <= to) {
            out.extend_from_slice(text.get(done..at).unwrap_or_default());
            self.put_back(at, out);
            done = at;
        }
        out.extend_from_slice(text.get(done..to).unwrap_or_default());
    }

    /// So much of the text's beginning is gone.
    pub(super) fn forget(&mut self, bytes: usize) {
        for (at, _) in &mut self.apart {
            *at = at.saturating_sub(bytes);
        }
    }
}
