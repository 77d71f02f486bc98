//! A program's options, read over to what stands behind them.

use super::Field;

/// The options that a program is known to have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// Letters without a value.
    pub(super) flags: &'static str,
    /// Letters with a value, in the same word or the next.
    pub(super) values: &'static str,
    /// Long names without a value, without their dashes.
    pub(super) long_flags: &'static [&'static str],
    /// Long names with a value, in the same word or the next.
    pub(super) long_values: &'static [&'static str],
}

impl Options {
    /// Where the first operand stands; `None` where that is not certain: for an
    /// option that is not known here, and for a field that is not.
    pub(super) fn skip(&self, args: &[Field]) -> Option<usize> {
        let mut at = 0;
        loop {
            let Some(arg) = args.get(at) else {
                return Some(args.len());
            };
            let arg = arg.as_deref()?;
            if arg == "--" {
                return Some(at + 1);
            }
            at += match (arg.strip_prefix("--"), arg.strip_prefix('-')) {
                (Some(long), _) => self.long(long)?,
                (None, Some(letters)) if !letters.is_empty() => self.letters(letters)?,
                _ => return Some(at),
            };
        }
    }

    /// How many words a long option takes.
    fn long(&self, long: &str) -> Option<usize> {
        match long.split_once('=') {
            Some((name, _)) => self.long_values.contains(&name).then_some(1),
            None if self.long_flags.contains(&long) => Some(1),
            None => self.long_values.contains(&long).then_some(2),
        }
    }

    /// How many words a cluster of letters takes.
    fn letters(&self, letters: &str) -> Option<usize> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            if self.values.contains(letter) {
                return Some(if rest.as_str().is_empty() { 2 } else { 1 });
            }
            if !self.flags.contains(letter) {
                return None;
            }
        }
        Some(1)
    }
}
