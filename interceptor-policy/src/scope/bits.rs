//! A set of small numbers.

/// A set of small numbers; the first 64 without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    first: u64,
    rest: Vec<u64>,
}

impl Bits {
    /// Adds one; whether it was not there.
    pub(super) fn set(&mut self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        let word = match (index / 64).checked_sub(1) {
            None => &mut self.first,
            Some(at) => {
                if self.rest.len() <= at {
                    self.rest.resize(at + 1, 0);
                }
                match self.rest.get_mut(at) {
                    Some(word) => word,
                    None => return false,
                }
            }
        };
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.iter().all(|word| *word == 0)
    }

    /// Adds all of another set.
    pub(super) fn unite(&mut self, other: &Self) {
        self.first |= other.first;
        if self.rest.len() < other.rest.len() {
            self.rest.resize(other.rest.len(), 0);
        }
        for (word, more) in self.rest.iter_mut().zip(&other.rest) {
            *word |= more;
        }
    }

    /// The numbers in it, smallest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.first)
            .chain(self.rest.iter().copied())
            .zip((0..).step_by(64))
            .flat_map(|(mut word, base)| {
                std::iter::from_fn(move || {
                    let bit = word.trailing_zeros();
                    // Of nothing, this takes nothing.
                    word &= word.wrapping_sub(1);
                    (bit < 64).then_some(base + bit as usize)
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_once_and_in_order() {
        let mut bits = Bits::default();
        for number in [700, 3, 64, 63, 0, 127] {
            assert!(bits.set(number), "{number}");
            assert!(!bits.set(number), "{number}");
        }
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 3, 63, 64, 127, 700]);
        assert_eq!(Bits::default().iter().count(), 0);
        let mut more = Bits::default();
        more.set(5);
        more.unite(&bits);
        assert_eq!(more.iter().collect::<Vec<_>>(), [0, 3, 5, 63, 64, 127, 700]);
    }
}
