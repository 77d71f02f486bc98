//! The grams of a recording: which runs of three characters its text has anywhere. Words
//! that have a gram which a recording has not are not in it, so an index of grams says
//! which recordings need not be looked through; whether the words are in the others, only
//! looking tells.
//!
//! A gram is three neighbours of the printable characters of ASCII, upper case as lower
//! case. White space parts grams, since words are found whatever space is between them; so
//! does everything else, of which nothing is known here.

use std::collections::BTreeSet;

/// Grams of a recording past which it is taken to have all.
const MOST: usize = 20_000;

/// First and last character of one.
const FIRST: u8 = b'!';
const LAST: u8 = b'~';
/// How many characters there are.
const CHARACTERS: u32 = (LAST - FIRST + 1) as u32;

/// Three characters, as a number.
type Gram = u32;

/// Grams of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grams {
    found: BTreeSet<Gram>,
    all: bool,
}

impl Grams {
    /// Those of words that are looked for, which a text that has them has; empty where
    /// nothing can be said.
    #[must_use]
    pub fn of(words: &str) -> Self {
        let mut grams = Self::default();
        for word in words.split_whitespace() {
            grams.add(word);
        }
        grams
    }

    /// Adds those of a text.
    pub fn add(&mut self, text: &str) {
        if self.all {
            return;
        }
        let mut last = [None; 2];
        for char in text.chars() {
            let number = number(char);
            if let ([Some(first), Some(second)], Some(third)) = (last, number) {
                self.found
                    .insert((first * CHARACTERS + second) * CHARACTERS + third);
            }
            let [_, second] = last;
            last = [second, number];
        }
        if self.found.len() > MOST {
            self.add_all();
        }
    }

    /// It may have any.
    pub fn add_all(&mut self) {
        self.all = true;
        self.found.clear();
    }

    /// Whether it may have any.
    #[must_use]
    pub const fn has_all(&self) -> bool {
        self.all
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.found.is_empty()
    }

    /// Their names: four digits to base 36 each.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.found.iter().map(|gram| name(*gram))
    }
}

/// A character's number; `None` for one that parts grams. Two that a search without regard
/// to case takes for one have one number: `ſ` and the Kelvin sign are letters of ASCII there
/// (Unicode, `CaseFolding.txt`, status C).
fn number(char: char) -> Option<u32> {
    let char = match char {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => char.to_ascii_lowercase(),
    };
    let byte = u8::try_from(char).ok()?;
    (FIRST..=LAST)
        .contains(&byte)
        .then(|| u32::from(byte - FIRST))
}

fn name(gram: Gram) -> String {
    let mut rest = gram;
    let mut digits = ['0'; 4];
    for digit in digits.iter_mut().rev() {
        *digit = char::from_digit(rest % 36, 36).unwrap_or('0');
        rest /= 36;
    }
    digits.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, words: &str) -> bool {
        let (mut text_has, sought) = (Grams::default(), Grams::of(words));
        text_has.add(text);
        text_has.has_all() || sought.found.is_subset(&text_has.found)
    }

    #[test]
    fn words_that_are_there_are_never_ruled_out() {
        let text = "DELETE\tFROM  \"Orders\" WHERE straße = 'x' -- Größe, ſecret \u{212a}EY";
        for words in [
            "delete from",
            "orders",
            "rder",
            "LETE FROM \"ord",
            "straße",
            "größe",
            "secret",
            "key",
            "x",
        ] {
            assert!(has(text, words), "{words}");
        }
        assert!(!has(text, "insert") && !has(text, "from customers"));
        assert!(Grams::of("id é ab").is_empty());
    }

    #[test]
    fn each_gram_has_a_name_of_its_own_without_anything_to_escape() {
        let last = CHARACTERS.pow(3) - 1;
        let names: BTreeSet<String> = (0..=last).map(name).collect();
        assert_eq!(names.len(), last as usize + 1);
        let plain =
            |name: &String| name.len() == 4 && name.bytes().all(|b| b.is_ascii_alphanumeric());
        assert!(names.iter().all(plain));
    }

    #[test]
    fn a_text_with_too_many_may_have_any() {
        let mut grams = Grams::default();
        for first in '!'..='@' {
            for second in '!'..='@' {
                let each: String = ('!'..='@')
                    .flat_map(|third| [first, second, third])
                    .collect();
                grams.add(&each);
            }
        }
        assert!(grams.has_all());
        assert_eq!(grams.names().count(), 0);
    }
}
