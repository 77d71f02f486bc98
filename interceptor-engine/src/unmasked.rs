//! What masks change, as it was, on its way to be sealed.
//!
//! It is kept beside the part that goes on record next, and only where a key is
//! configured that it is sealed to; it is given up with that part when a mask hid
//! something in it, and forgotten otherwise.

use serde::Serialize;

use crate::event::Sealed;
use crate::meta::{Meta, Written};

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
        Sealed::data(bytes)
    }
}

/// An event's line and `meta`, as far as they are not what they were.
pub(crate) struct Head {
    is_on: bool,
    line: Option<String>,
    meta: Option<Meta>,
}

impl Head {
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            line: None,
            meta: None,
        }
    }

    /// Whether anything is kept: what came need not be written where it is not.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// The event's line.
    pub(crate) fn line(&mut self, recorded: &str, came: impl FnOnce() -> String) {
        if self.is_on {
            self.line = Some(came()).filter(|came| came != recorded);
        }
    }

    /// A member of its `meta`.
    pub(crate) fn put<T>(&mut self, name: &str, recorded: &T, came: &T)
    where
        T: Serialize + PartialEq + ?Sized,
    {
        if self.is_on && recorded != came {
            self.meta.get_or_insert_with(Meta::new).put(name, came);
        }
    }

    /// A text that masks were given, and what they made of it.
    pub(crate) fn put_text(&mut self, name: &str, recorded: &str, came: &str) {
        self.put(name, recorded, came);
    }

    /// A member that was written before; `came` is there where it is kept.
    pub(crate) fn put_written(&mut self, name: &str, recorded: &Written, came: Option<&Written>) {
        if let Some(came) = came.filter(|came| self.is_on && *came != recorded) {
            self.meta
                .get_or_insert_with(Meta::new)
                .put_written(name, came);
        }
    }

    /// Beside what is to be sealed of the event's bytes.
    pub(crate) fn beside(self, sealed: Sealed) -> Sealed {
        sealed.with_head(self.line, self.meta.map(Meta::finish))
    }
}
