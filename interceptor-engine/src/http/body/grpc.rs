//! Messages of gRPC, told apart and counted. What they say, only their schema
//! could tell.
//!
//! Spec: gRPC over HTTP2, "Length-Prefixed-Message".

/// A flag, and four bytes of length.
const PREFIX: usize = 5;

/// Counts the messages of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    prefix: Vec<u8>,
    /// Bytes that are left of the message under way.
    left: u64,
    count: u64,
}

impl Messages {
    /// Takes the next bytes of the body.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let now = usize::try_from(self.left).unwrap_or(usize::MAX);
                let now = now.min(bytes.len());
                self.left -= now as u64;
                bytes = bytes.get(now..).unwrap_or_default();
                continue;
            }
            let wanted = (PREFIX - self.prefix.len()).min(bytes.len());
            let (prefix, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            self.prefix.extend_from_slice(prefix);
            bytes = rest;
            if let [_, a, b, c, d] = self.prefix.as_slice() {
                self.left = u64::from(u32::from_be_bytes([*a, *b, *c, *d]));
                self.count += 1;
                self.prefix.clear();
            }
        }
    }

    /// How many have begun.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_the_same_however_they_are_cut() {
        let body = [
            &[0, 0, 0, 0, 3][..],
            b"abc",
            &[0, 0, 0, 0, 0],
            &[1, 0, 0, 1, 0],
            &[0; 256],
        ]
        .concat();
        for size in [1, 2, 5, 7, 1000] {
            let mut messages = Messages::default();
            body.chunks(size).for_each(|piece| messages.push(piece));
            assert_eq!(messages.count(), 3, "by {size}");
        }
    }
}
