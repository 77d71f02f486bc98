//! Hiding what the detectors find in a text that comes in pieces.
//!
//! The text is cut where it says so itself, never where a piece ends, so that
//! any pieces give the same: behind every line's end, since no hit goes on
//! behind it; in a line longer than [`Limits::line`], at a place that its own
//! bytes decide; around a private key, which goes over many lines. What is
//! released was looked at with some of what came before it ([`CONTEXT`]), as far
//! as any detector looks back.
//!
//! Memory is bounded: one line up to the limit, or one private key, and what is
//! too long to be held is hidden whole: `redact` at once in its place, and
//! nothing of it passes until its end is seen. What is no hit before its end is
//! seen cannot be told so: an operator's pattern that asks for an end more than
//! [`Limits::overlap`] away, in a line longer than [`Limits::line`], is missed.

mod colours;

use std::ops::Range;
use std::sync::Arc;

use self::colours::Colours;
use super::bytes::{Class, run_back};
use super::credentials::{self, PEM_LAST, private_key_begin, private_key_end};
use super::password::ends_bare;
use super::{Detector, Hit, Looks, Set, is_line_end};
use crate::mask::Direction;
use crate::mask::{MaskKey, Masked, Masks, Transform};

/// How far back any detector looks, and somewhat more.
const CONTEXT: usize = 256;

/// How much is held.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Bytes of one line; a longer one is looked at in parts.
    line: usize,
    /// How much of a part is looked at again with the next one: longer than any
    /// hit whose length is bounded.
    overlap: usize,
    /// Bytes of one private key.
    private_key: usize,
}

const LIMITS: Limits = Limits {
    line: 32 << 10,
    overlap: 4 << 10,
    private_key: 16 << 10,
};

/// What the next bytes are.
#[derive(Clone, Debug, Default)]
enum State {
    /// Text.
    #[default]
    Text,
    /// A private key's; what there is of it, or `None` where that was too much
    /// and something already stands in its place.
    PrivateKey(Option<Vec<u8>>),
    /// The rest of something too long that was hidden: up to a byte that ends a
    /// token, or to the line's end.
    Rest { line: bool },
}

/// Bytes at the end of a text that may be the beginning of a hit: its last word, with
/// those in front of it that have digits, and the white space between.
fn number_or_word(text: &[u8]) -> usize {
    /// Longer than any number in groups.
    const LONGEST: usize = 128;
    let mut kept = 0;
    let mut rest = text;
    loop {
        let space = rest
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_whitespace());
        let before = rest.len() - space.count();
        let (words, _) = rest.split_at_checked(before).unwrap_or((rest, &[]));
        let word = words
            .iter()
            .rev()
            .take_while(|byte| !byte.is_ascii_whitespace())
            .count();
        let start = words.len() - word;
        let has_digits = words
            .get(start..)
            .is_some_and(|word| word.iter().any(u8::is_ascii_digit));
        let is_last = rest.len() == text.len() && before == rest.len();
        if word == 0 || !(has_digits || is_last) {
            return kept;
        }
        kept = text.len() - start;
        if kept > LONGEST {
            return kept;
        }
        rest = words.get(..start).unwrap_or_default();
    }
}

/// Hides what the detectors find in one text.
#[derive(Clone, Debug)]
pub struct DetectStream {
    masks: Arc<Masks>,
    direction: Direction,
    limits: Limits,
    state: State,
    /// The end of what was released, and what is held.
    buffer: Vec<u8>,
    /// Where in it begins what is held.
    start: usize,
    /// Up to where there is no line's end in what is held.
    searched: usize,
    hidden: u64,
    /// Colours, where they are kept apart.
    colours: Option<Colours>,
}

impl DetectStream {
    /// A stream at its start, of what the agent gets.
    #[must_use]
    pub fn new(masks: Arc<Masks>) -> Self {
        Self::towards(masks, Direction::Response)
    }

    /// A stream at its start, of what goes one way.
    #[must_use]
    pub fn towards(masks: Arc<Masks>, direction: Direction) -> Self {
        Self {
            masks,
            direction,
            limits: LIMITS,
            state: State::Text,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            hidden: 0,
            colours: None,
        }
    }

    /// Looks through colours, as a terminal's output has them.
    #[must_use]
    pub fn through_colours(mut self) -> Self {
        self.colours = Some(Colours::default());
        self
    }

    /// How many hits were hidden.
    #[must_use]
    pub fn hidden(&self) -> u64 {
        self.hidden
    }

    /// How many bytes are held back until more is known.
    #[must_use]
    pub fn held(&self) -> usize {
        let kept = match &self.state {
            State::PrivateKey(Some(kept)) => kept.len(),
            _ => 0,
        };
        kept + self.buffer.len() - self.start
    }

    /// Takes the next piece, and appends to `out` what is certain by now.
    pub fn push(&mut self, piece: &[u8], key: &MaskKey, out: &mut Vec<u8>) {
        if self.masks.of(self.direction).detect().is_none() {
            out.extend_from_slice(piece);
            return;
        }
        match &mut self.colours {
            Some(colours) => colours.split(piece, &mut self.buffer),
            None => self.buffer.extend_from_slice(piece),
        }
        while self.step(false, key, out) {}
        self.forget(out);
    }

    /// The text is over: appends the rest.
    pub fn finish(&mut self, key: &MaskKey, out: &mut Vec<u8>) {
        if let Some(colours) = &mut self.colours {
            colours.finish(&mut self.buffer);
        }
        while self.step(true, key, out) {}
        if let State::PrivateKey(kept) = std::mem::take(&mut self.state) {
            self.close_private_key(kept, key, out);
        }
        if let Some(colours) = &mut self.colours {
            colours.put_back(usize::MAX, out);
        }
        self.buffer.clear();
        (self.start, self.searched) = (0, 0);
    }

    /// Whoever sends waits for an answer, perhaps: appends what is held as if
    /// the text ended here, but for a last word in which a secret has begun. A
    /// number that comes in two parts with such a pause between is not seen; what
    /// has no reader who waits is better off without this.
    pub fn flush(&mut self, key: &MaskKey, out: &mut Vec<u8>) {
        if !matches!(self.state, State::Text) {
            return;
        }
        let held = self.pending();
        let word = held
            .iter()
            .rev()
            .take_while(|byte| !ends_bare(**byte))
            .count();
        let last = held.len() - word;
        let begun = held.get(last..).unwrap_or_default();
        let plan = self.masks.of(self.direction).detect();
        let secret = plan.is_some_and(|plan| plan.texts().are_in(begun));
        let end = if secret { last } else { held.len() };
        // A private key's first line has spaces.
        let dashes = memchr::memmem::rfind(held, b"-----").unwrap_or(end);
        match private_key_begin(held) {
            Some(_) => self.release_or_private_key(self.buffer.len(), key, out),
            None => self.release(self.start + end.min(dashes), key, out),
        }
        self.forget(out);
    }

    /// The sender pauses, in the middle of a line, perhaps: appends what is held but
    /// for the last word, and for the words with digits in front of it, which a
    /// number in groups may go on from. What is given stays in sight of whatever
    /// looks back.
    pub fn flush_words(&mut self, key: &MaskKey, out: &mut Vec<u8>) {
        if !matches!(self.state, State::Text) || private_key_begin(self.pending()).is_some() {
            return;
        }
        let held = self.pending();
        let end = held.len() - number_or_word(held);
        let dashes = memchr::memmem::rfind(held, b"-----").unwrap_or(end);
        self.release(self.start + end.min(dashes), key, out);
        self.forget(out);
    }

    fn pending(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Drops what was released but for the context. Colours that follow it wait for
    /// nothing.
    fn forget(&mut self, out: &mut Vec<u8>) {
        let forgotten = self.start.saturating_sub(CONTEXT);
        self.buffer.drain(..forgotten);
        if let Some(colours) = &mut self.colours {
            // Those of a private key stand behind what stands in its place.
            if !matches!(self.state, State::PrivateKey(Some(_))) {
                colours.put_back(self.start, out);
            }
            colours.forget(forgotten);
        }
        self.start -= forgotten;
        self.searched = self.searched.saturating_sub(forgotten);
    }

    /// One step of what can be done by now; whether there may be another.
    fn step(&mut self, over: bool, key: &MaskKey, out: &mut Vec<u8>) -> bool {
        if self.pending().is_empty() {
            return false;
        }
        match &mut self.state {
            State::Text => self.text(over, key, out),
            State::PrivateKey(_) => self.private_key(over, key, out),
            State::Rest { line } => {
                let line = *line;
                let rest = self.pending();
                let is_end = |byte: &u8| is_line_end(*byte) || (!line && ends_bare(*byte));
                match rest.iter().position(is_end) {
                    Some(end) => {
                        self.start += end;
                        self.state = State::Text;
                    }
                    None => self.start = self.buffer.len(),
                }
                true
            }
        }
    }

    /// Releases whole lines, or a part of a long one.
    fn text(&mut self, over: bool, key: &MaskKey, out: &mut Vec<u8>) -> bool {
        let from = self.searched.max(self.start);
        let mut lines = self.start;
        for end in memchr::memchr2_iter(b'\n', b'\r', self.buffer.get(from..).unwrap_or_default()) {
            if from + end - lines >= self.limits.line {
                break;
            }
            lines = from + end + 1;
        }
        let rest = self.buffer.len() - lines;
        if lines == self.start {
            self.searched = self.buffer.len().min(self.start + self.limits.line);
        }
        let whole = if over && rest < self.limits.line {
            self.buffer.len()
        } else {
            lines
        };
        if whole > self.start {
            self.release_or_private_key(whole, key, out);
            true
        } else if rest >= self.limits.line {
            self.part(key, out);
            true
        } else {
            false
        }
    }

    /// Releases up to `end`, or up to a private key that begins before.
    fn release_or_private_key(&mut self, end: usize, key: &MaskKey, out: &mut Vec<u8>) {
        match self.key_before(end) {
            Some(found) => {
                self.release(found.start, key, out);
                self.start = found.end;
                let first_line = self.buffer.get(found).unwrap_or_default();
                self.state = State::PrivateKey(Some(first_line.to_vec()));
            }
            None => self.release(end, key, out),
        }
    }

    fn key_before(&self, end: usize) -> Option<Range<usize>> {
        let plan = self.masks.of(self.direction).detect()?;
        let text = self.buffer.get(self.start..end)?;
        let found = plan
            .on
            .has(Detector::PrivateKey)
            .then(|| private_key_begin(text))??;
        Some(self.start + found.start..self.start + found.end)
    }

    /// Releases a part of a line of which the limit's worth is held.
    fn part(&mut self, key: &MaskKey, out: &mut Vec<u8>) {
        let window = self.start + self.limits.line;
        if self.key_before(window).is_some() {
            self.release_or_private_key(window, key, out);
            return;
        }
        let masks = Arc::clone(&self.masks);
        let Some(plan) = masks.detect() else {
            self.release(window, key, out);
            return;
        };
        let text = self.buffer.get(..window).unwrap_or_default();
        let mut cut = self.cut(text, window - self.limits.overlap);
        // A token that is not yet one for want of its end.
        if plan.on.has(Detector::Jwt) {
            let is = |byte| Class::Dotted.has(byte);
            let tail = run_back(text, window, self.limits.line, is);
            let open = credentials::open_jwt(text.get(tail..).unwrap_or_default());
            match open.map(|open| tail + open) {
                Some(open) if open > self.start => cut = cut.min(open),
                Some(_) => return self.hide_rest(false, window, key, out),
                None => {}
            }
        }
        for hit in hits(plan, text, self.start) {
            if hit.range.start >= cut || hit.range.end <= cut {
                continue;
            }
            if hit.range.start > self.start {
                cut = hit.range.start;
            } else if hit.range.end < window {
                cut = hit.range.end;
            } else {
                // It fills all there is, and goes on.
                let line = matches!(hit.looks, Looks::Pattern(_));
                return self.hide_rest(line, window, key, out);
            }
        }
        self.release(cut, key, out);
    }

    /// The last place up to `most` where a word ends, or that place itself where
    /// there is none near.
    fn cut(&self, text: &[u8], most: usize) -> usize {
        let least = most.saturating_sub(self.limits.overlap).max(self.start + 1);
        let near = text.get(least..most).unwrap_or_default();
        let end = near
            .iter()
            .rposition(|byte| ends_bare(*byte) && *byte != b' ');
        end.map_or(most, |end| least + end + 1)
    }

    fn hide_rest(&mut self, line: bool, end: usize, key: &MaskKey, out: &mut Vec<u8>) {
        let _ = Transform::Redact.apply(b"", key, out);
        self.hidden += 1;
        self.start = end;
        self.state = State::Rest { line };
    }

    /// Appends what is held up to `end`, with what the detectors find hidden.
    fn release(&mut self, end: usize, key: &MaskKey, out: &mut Vec<u8>) {
        let text = self.buffer.get(..end).unwrap_or_default();
        let mut colours = self.colours.as_mut();
        let mut copy = |from: usize, to: usize, out: &mut Vec<u8>| match &mut colours {
            Some(colours) => colours.copy(text, from, to, out),
            None => out.extend_from_slice(text.get(from..to).unwrap_or_default()),
        };
        let mut done = self.start;
        if let Some(plan) = self.masks.of(self.direction).detect() {
            for hit in hits(plan, text, self.start) {
                copy(done, hit.range.start, out);
                let found = text.get(hit.range.clone()).unwrap_or_default();
                put(hit.transform, found, key, out);
                self.hidden += 1;
                done = hit.range.end;
            }
        }
        copy(done, text.len(), out);
        self.start = end.min(self.buffer.len());
    }

    /// Takes what there is of a private key, to its end.
    fn private_key(&mut self, over: bool, key: &MaskKey, out: &mut Vec<u8>) -> bool {
        let held = self.pending();
        let end = private_key_end(held, 0);
        // Its last line may have begun.
        let taken = match end {
            Some(end) => end,
            None if over => held.len(),
            None => held.len().saturating_sub(PEM_LAST),
        };
        let part = self.start..self.start + taken;
        let State::PrivateKey(kept) = &mut self.state else {
            return false;
        };
        match kept {
            Some(whole) if whole.len() + taken <= self.limits.private_key => {
                whole.extend_from_slice(self.buffer.get(part).unwrap_or_default());
            }
            Some(_) => {
                *kept = None;
                put(&Transform::Redact, b"", key, out);
                self.hidden += 1;
            }
            None => {}
        }
        self.start += taken;
        if end.is_some()
            && let State::PrivateKey(kept) = std::mem::take(&mut self.state)
        {
            self.close_private_key(kept, key, out);
        }
        taken > 0
    }

    fn close_private_key(&mut self, kept: Option<Vec<u8>>, key: &MaskKey, out: &mut Vec<u8>) {
        if let Some(whole) = kept {
            let plan = self.masks.of(self.direction).detect();
            let transform = plan.and_then(|plan| plan.transform(Detector::PrivateKey));
            put(transform.unwrap_or(&Transform::Redact), &whole, key, out);
            self.hidden += 1;
        }
    }
}

/// The hits of `text` from `start` on; of one that begins before, what is left.
/// Private keys are the stream's own.
fn hits<'p>(plan: &'p super::DetectPlan, text: &[u8], start: usize) -> Vec<Hit<'p>> {
    if !plan.may_hit(text) {
        return Vec::new();
    }
    let mut others = Set(plan.on.0);
    others.remove(Detector::PrivateKey);
    let mut hits = plan.scan_for(text, others);
    hits.retain_mut(|hit| {
        hit.range.start = hit.range.start.max(start);
        !hit.range.is_empty()
    });
    hits
}

/// NULL has no place in a text.
fn put(transform: &Transform, found: &[u8], key: &MaskKey, out: &mut Vec<u8>) {
    if transform.apply(found, key, out) == Masked::Null {
        out.extend_from_slice(b"[null]");
    }
}

#[cfg(test)]
mod tests;
