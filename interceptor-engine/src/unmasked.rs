//! What masks change, as it was, on its way to be sealed.
//!
//! It is kept beside the part that goes on record next, and only where a key is
//! configured that it is sealed to; it is given up with that part when a mask hid
//! something in it, and forgotten otherwise.

use crate::event::Sealed;

/// Bytes beside those of the next part, unmasked.
#[derive(Default)]
pub(crate) struct Unmasked {
    is_on: bool,
    bytes: Vec<u8>,
    /// Values that were hidden when the last part was taken.
    hidden: u64,
}

impl std::fmt::Debug for Unmasked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unmasked({} bytes)", self.bytes.len())
    }
}

impl Unmasked {
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            ..Self::default()
        }
    }

    pub(crate) fn turn_on(&mut self) {
        self.is_on = true;
    }

    /// Keeps bytes as they came.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.is_on {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Keeps bytes that no mask changed, where a part is kept that one changed.
    pub(crate) fn follow(&mut self, bytes: &[u8]) {
        if !self.bytes.is_empty() {
            self.push(bytes);
        }
    }

    /// Keeps bytes that a mask changed, behind the part so far.
    pub(crate) fn differ(&mut self, so_far: &[u8], bytes: &[u8]) {
        if self.bytes.is_empty() {
            self.push(so_far);
        }
        self.push(bytes);
    }

    /// A part is taken: `hidden` values were hidden until now, and the last `held`
    /// bytes belong to the next part.
    pub(crate) fn take(&mut self, hidden: u64, held: usize) -> Sealed {
        let whole = self.bytes.len().saturating_sub(held);
        let held = self.bytes.split_off(whole);
        let bytes = std::mem::replace(&mut self.bytes, held);
        let before = std::mem::replace(&mut self.hidden, hidden);
        // A masker that was replaced counts from zero again.
        let more = hidden > if hidden < before { 0 } else { before };
        if !more || bytes.is_empty() {
            return Sealed::Nothing;
        }
        Sealed::Plain(bytes)
    }
}
