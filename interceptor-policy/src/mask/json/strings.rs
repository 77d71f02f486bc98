//! Strings, keys included: held, streamed or replaced.

use std::sync::Arc;

use super::super::Transform;
use super::super::detectors::DetectStream;
use super::text::{decoded, escape, quoted, whole_part};
use super::{Fate, JsonFault, JsonMasker, MaskKey, State};

impl JsonMasker {
    /// A text with what the detectors hit hidden, where they hit.
    pub(super) fn detected(&mut self, text: &[u8], key: &MaskKey) -> Option<Vec<u8>> {
        let plan = self.masks.of(self.direction).detect()?;
        let (out, hits) = plan.hide(text, key)?;
        self.hidden += hits as u64;
        Some(out)
    }

    /// The inside of a string, or its end.
    pub(super) fn text(
        &mut self,
        rest: &[u8],
        is_key: bool,
        mut escaped: bool,
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) -> Result<usize, JsonFault> {
        let mut end = None;
        let mut taken = 0;
        for byte in rest {
            match byte {
                _ if escaped => escaped = false,
                b'"' => {
                    end = Some(taken);
                    break;
                }
                b'\\' => escaped = true,
                _ => {}
            }
            if *byte < 0x20 {
                self.read += taken as u64;
                return self.malformed();
            }
            taken += 1;
        }
        let inside = rest.get(..taken).unwrap_or_default();
        match self.fate {
            Fate::Passed => out.extend_from_slice(inside),
            // Held all the same, in small parts, so that it is known to be one.
            Fate::Dropped | Fate::Held | Fate::Streamed | Fate::Replaced => {
                for part in inside.chunks(self.limits.whole.max(1)) {
                    self.held.extend_from_slice(part);
                    self.overflow(is_key, key, out)?;
                }
            }
        }
        let Some(_) = end else {
            self.state = State::Text {
                key: is_key,
                escaped,
            };
            return Ok(taken);
        };
        self.end_text(is_key, key, out)?;
        Ok(taken + 1)
    }

    /// Lets go of what is too much to hold.
    fn overflow(
        &mut self,
        is_key: bool,
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonFault> {
        if is_key && self.fate == Fate::Held {
            return match self.held.len() > self.limits.key {
                true => Err(JsonFault::TooLong),
                false => Ok(()),
            };
        }
        if self.fate == Fate::Held {
            let by_place = self.transform().is_some();
            let most = match by_place {
                true => self.limits.value,
                false => self.limits.whole,
            };
            if self.held.len() <= most {
                return Ok(());
            }
            self.fate = match by_place {
                true => Fate::Replaced,
                false => {
                    out.push(b'"');
                    Fate::Streamed
                }
            };
        }
        if self.held.len() <= self.limits.whole {
            return Ok(());
        }
        let cut = whole_part(&self.held);
        self.release(cut, key, out)
    }

    /// Of a string that is not held: its next part.
    fn release(&mut self, cut: usize, key: &MaskKey, out: &mut Vec<u8>) -> Result<(), JsonFault> {
        let part = self.held.get(..cut).unwrap_or_default();
        let Some(text) = decoded(part) else {
            return self.malformed();
        };
        if self.fate == Fate::Streamed {
            let (masks, direction) = (&self.masks, self.direction);
            let stream = self
                .stream
                .get_or_insert_with(|| DetectStream::towards(Arc::clone(masks), direction));
            self.streamed.clear();
            stream.push(text.as_bytes(), key, &mut self.streamed);
            escape(&self.streamed, out);
        }
        self.held.drain(..cut);
        Ok(())
    }

    pub(super) fn end_text(
        &mut self,
        is_key: bool,
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonFault> {
        match self.fate {
            Fate::Passed => {
                out.push(b'"');
            }
            Fate::Dropped => self.release(self.held.len(), key, out)?,
            Fate::Held => {
                let held = std::mem::take(&mut self.held);
                let Some(text) = decoded(&held) else {
                    return self.malformed();
                };
                let by_place = match is_key {
                    true => None,
                    false => self.transform().cloned(),
                };
                match by_place {
                    Some(transform) => {
                        self.replace(&transform, Some(text.as_bytes()), key, out);
                    }
                    None => match self.detected(text.as_bytes(), key) {
                        Some(hidden) => quoted(&hidden, out),
                        None => {
                            out.push(b'"');
                            out.extend_from_slice(&held);
                            out.push(b'"');
                        }
                    },
                }
                if is_key {
                    self.member(&text);
                }
                self.held = held;
            }
            Fate::Streamed => {
                self.release(self.held.len(), key, out)?;
                if let Some(stream) = &mut self.stream {
                    self.streamed.clear();
                    stream.finish(key, &mut self.streamed);
                    escape(&self.streamed, out);
                }
                out.push(b'"');
            }
            Fate::Replaced => {
                self.release(self.held.len(), key, out)?;
                let transform = self.transform().cloned().unwrap_or(Transform::Redact);
                self.replace(&transform, None, key, out);
            }
        }
        self.held.clear();
        match is_key {
            true => self.state = State::Colon,
            false => self.end_value(),
        }
        Ok(())
    }
}
