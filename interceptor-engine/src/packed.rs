//! `data` as it stands in a stream where it is long: compressed.
//!
//! An entry with `coding: zstd` has one frame of zstd as its `data`, whose head says how
//! many bytes it is unpacked. What is hashed is what stands there
//! ([`crate::chain`]), so the chain is checked without unpacking anything.
//!
//! Who can write to the store can put anything there, a bomb too. So a frame that says
//! that it is longer than what a recorder packs is not unpacked at all, and one that
//! grows past what it says is given up there.
//!
//! Spec: RFC 8878.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

/// The word in `coding`.
pub const CODING: &[u8] = b"zstd";

/// Shorter `data` is left as it is: below, the writer would do twice the work for an
/// event, for about a hundred bytes.
pub const SHORTEST: usize = 512;

/// Longer `data` is left as it is, so nothing has to be unpacked to more.
pub const LONGEST: usize = 16 << 20;

/// The fastest of zstd's levels that also makes use of how often each byte comes. Of rows
/// and of JSON it saves half as much again as the ones below it.
const LEVEL: i32 = 1;

/// Room that is kept from one event to the next.
const KEPT: usize = 256 << 10;

/// Compresses one `data` after another.
pub struct Packer {
    context: Compressor<'static>,
    out: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    /// One that has compressed nothing.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            context: Compressor::new(LEVEL)?,
            out: Vec::new(),
        })
    }

    /// `data` compressed, where that saves an eighth of it or more.
    ///
    /// What is compressed or encrypted already is not worth a probe of its own: zstd
    /// gives it up in a third of the time that hashing it takes.
    pub fn pack(&mut self, data: &[u8]) -> Option<&[u8]> {
        if data.len() < SHORTEST || data.len() > LONGEST {
            return None;
        }
        let room = data.len() - data.len() / 8;
        if self.out.len() < room || self.out.len() > KEPT.max(room) {
            self.out = vec![0; room.next_multiple_of(4096)];
        }
        // It ends with an error where the room is too small.
        let out = self.out.get_mut(..room)?;
        let length = self.context.compress_to_buffer(data, out).ok()?;
        self.out.get(..length)
    }
}

/// How many bytes `packed` says that it is unpacked; `None` where it is not one whole frame
/// that a recorder may have written. What is in the frame's blocks is not looked at.
#[must_use]
pub fn length(packed: &[u8]) -> Option<usize> {
    let length = get_frame_content_size(packed).ok()??;
    let length = usize::try_from(length).ok()?;
    let is_one = find_frame_compressed_size(packed) == Ok(packed.len());
    ((1..=LONGEST).contains(&length) && is_one).then_some(length)
}

/// What was compressed; `None` where `packed` is none of a recorder's.
#[must_use]
pub fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let length = length(packed)?;
    let mut decompressor = Decompressor::new().ok()?;
    let data = decompressor.decompress(packed, length).ok()?;
    (data.len() == length).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(data: &[u8]) -> Option<Vec<u8>> {
        Packer::new().unwrap().pack(data).map(<[u8]>::to_vec)
    }

    #[test]
    fn what_is_long_and_compresses_is_packed_and_nothing_else() {
        let text = "an event's data, as it is said again and again. ".repeat(40);
        let packed = pack(text.as_bytes()).unwrap();
        assert!(packed.len() < text.len() / 8, "{}", packed.len());
        assert_eq!(unpack(&packed).unwrap(), text.as_bytes());

        assert_eq!(pack(&text.as_bytes()[..SHORTEST - 1]), None);
        assert!(pack(&text.as_bytes()[..SHORTEST]).is_some());
        assert!(pack(&vec![b'x'; LONGEST]).is_some());
        assert_eq!(pack(&vec![b'x'; LONGEST + 1]), None);
        // Packed twice is no shorter.
        let noise: Vec<u8> = (0..4000_u32).flat_map(noise).collect();
        assert_eq!(pack(&noise), None);
    }

    /// Four bytes that nothing compresses.
    fn noise(at: u32) -> [u8; 4] {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(at.to_be_bytes());
        [hash[0], hash[1], hash[2], hash[3]]
    }

    #[test]
    fn one_packer_packs_long_and_short_after_each_other() {
        let mut packer = Packer::new().unwrap();
        for length in [600, 1 << 20, 700, LONGEST, 512, 70_000] {
            let data: Vec<u8> = (0..length).map(|at| (at / 7 % 50) as u8).collect();
            let packed = packer.pack(&data).unwrap();
            assert_eq!(unpack(packed).unwrap(), data);
            assert!(packer.out.len() <= KEPT.max(length));
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        // Says what it is, and is too long.
        let honest = zstd::bulk::compress(&vec![0; LONGEST + 1], 3).unwrap();
        assert!(honest.len() < 10_000);
        assert_eq!((length(&honest), unpack(&honest)), (None, None));
        // Does not say how long it is.
        let silent = zstd::encode_all(&vec![0; 100_000][..], 3).unwrap();
        assert_eq!((length(&silent), unpack(&silent)), (None, None));
        // Says that it is shorter: the head of one frame, the blocks of another.
        let (short, long) = (vec![0; 70_000], vec![0; 2 << 20]);
        let mut lying = zstd::bulk::compress(&long, 3).unwrap();
        let head = zstd::bulk::compress(&short, 3).unwrap();
        lying[..9].copy_from_slice(&head[..9]);
        assert_eq!(unpack(&lying), None);
        // Two frames, of which the first one is what it says.
        let two = [head.clone(), head.clone()].concat();
        assert_eq!((length(&two), unpack(&two)), (None, None));
        assert_eq!(unpack(&head).unwrap(), short);
        assert_eq!(unpack(b""), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_changed_frame_is_unpacked_to_no_more_than_it_says(at: prop::sample::Index, to: u8) {
            let text = "names, orders, dates; ".repeat(60);
            let mut packed = pack(text.as_bytes()).unwrap();
            *at.get_mut(&mut packed) = to;
            let said = length(&packed);
            let unpacked = unpack(&packed);
            prop_assert!(unpacked.is_none_or(|data| Some(data.len()) == said));
        }
    }
}
