//! All texts of all detectors, found in one pass.
//!
//! A few dozen texts of four bytes and more are what the packed search of
//! `aho-corasick` (its Teddy) is fast at; where a machine cannot, or a text is
//! too short for it, its automaton does the same, slower.

use std::ops::Range;

use aho_corasick::packed;
use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::Detector::{self, Jwt, OpenaiKey, PrivateKey};
use super::bytes::{Class, at, run};
use super::keywords::{self, KEYWORDS, Keyword};
use super::tokens::{self, TOKENS, Token};
use super::{Set, credentials};

/// What a text that was found is of.
#[derive(Clone, Copy, Debug)]
enum Cue {
    Token(&'static Token),
    Keyword(&'static Keyword),
    Openai,
    Jwt,
    PrivateKey,
}

/// The texts of the detectors in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    on: Set,
    cues: Vec<Cue>,
    search: Search,
}

#[derive(Clone, Debug, Default)]
enum Search {
    /// There are none to find.
    #[default]
    None,
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
    /// They could not be prepared. Every place is one.
    Anywhere(Vec<&'static str>),
}

impl Texts {
    pub(super) fn of(on: Set) -> Self {
        let mut texts = Vec::new();
        let mut cues = Vec::new();
        let mut add = |text: &'static str, cue| {
            texts.push(text);
            cues.push(cue);
        };
        for token in TOKENS.iter().filter(|token| on.has(token.detector)) {
            add(token.prefix, Cue::Token(token));
        }
        for word in KEYWORDS.iter().filter(|word| on.has_any(word.announces)) {
            add(word.text, Cue::Keyword(word));
        }
        if on.has(OpenaiKey) {
            add(tokens::OPENAI, Cue::Openai);
        }
        if on.has(Jwt) {
            credentials::JWTS
                .iter()
                .for_each(|text| add(text, Cue::Jwt));
        }
        if on.has(PrivateKey) {
            add(credentials::PEM_CUE, Cue::PrivateKey);
        }
        Self {
            on,
            cues,
            search: Search::of(texts),
        }
    }

    /// Whether any of them could be part of a hit.
    pub(super) fn may_hit(&self, chunk: &[u8]) -> bool {
        let mut from = 0;
        let mut header_end = 0;
        while let Some((cue, start)) = self.next(chunk, from) {
            let may_be = match cue {
                // The same run need not be gone through from each beginning in it.
                Cue::Jwt if start < header_end => false,
                Cue::Jwt => {
                    header_end = run(chunk, start, |byte| Class::Word.has(byte));
                    at(chunk, header_end) == b'.'
                }
                _ => self.may_be(cue, chunk, start),
            };
            if may_be {
                return true;
            }
            from = start + 1;
        }
        false
    }

    /// Hands every hit of a token or beside a word to `hit`; the detectors that
    /// are to be asked of the whole value.
    pub(super) fn find(&self, value: &[u8], hit: &mut dyn FnMut(Detector, Range<usize>)) -> Set {
        let mut ask = Set::default();
        let mut ends = [0; Detector::COUNT];
        let mut from = 0;
        while let Some((cue, start)) = self.next(value, from) {
            from = start + 1;
            let mut found = |detector: Detector, find: &dyn Fn() -> Option<Range<usize>>| {
                let Some(end) = ends.get_mut(detector as usize) else {
                    return;
                };
                // A run of beginnings must not be gone through from each.
                if start >= *end
                    && self.on.has(detector)
                    && let Some(range) = find()
                {
                    *end = range.end;
                    hit(detector, range);
                }
            };
            match cue {
                Cue::Token(token) => found(token.detector, &|| token.find(value, start)),
                Cue::Openai => found(OpenaiKey, &|| tokens::openai(value, start)),
                Cue::Keyword(word) => {
                    for detector in word.announces {
                        found(*detector, &|| keywords::find(*detector, word, value, start));
                    }
                }
                Cue::Jwt => ask.insert(Jwt),
                Cue::PrivateKey => ask.insert(PrivateKey),
            }
        }
        ask
    }

    fn may_be(&self, cue: Cue, chunk: &[u8], start: usize) -> bool {
        match cue {
            Cue::Token(token) => token.may_be(chunk, start),
            Cue::Keyword(word) => word.announces.iter().any(|detector| {
                self.on.has(*detector) && keywords::may_find(*detector, word, chunk, start)
            }),
            Cue::Jwt | Cue::Openai | Cue::PrivateKey => true,
        }
    }

    /// The next text that starts at `from` or behind it.
    fn next(&self, value: &[u8], from: usize) -> Option<(Cue, usize)> {
        let (index, start) = self.search.next(value, from)?;
        self.cues.get(index).map(|cue| (*cue, start))
    }
}

impl Search {
    fn of(texts: Vec<&'static str>) -> Self {
        if texts.is_empty() {
            return Self::None;
        }
        // The limits are of a search for any texts; these are known to be fast.
        let packed = packed::Config::new()
            .heuristic_pattern_limits(false)
            .builder()
            .extend(&texts)
            .build();
        if let Some(packed) = packed {
            return Self::Packed(packed);
        }
        AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(&texts)
            .map_or(Self::Anywhere(texts), Self::Automaton)
    }

    /// The next text, by its place among all, and where it starts.
    fn next(&self, value: &[u8], from: usize) -> Option<(usize, usize)> {
        if from >= value.len() {
            return None;
        }
        match self {
            Self::None => None,
            Self::Packed(packed) => {
                let span = aho_corasick::Span::from(from..value.len());
                let found = packed.find_in(value, span)?;
                Some((found.pattern().as_usize(), found.start()))
            }
            Self::Automaton(automaton) => {
                let found = automaton.find(Input::new(value).range(from..))?;
                Some((found.pattern().as_usize(), found.start()))
            }
            Self::Anywhere(texts) => (from..value.len()).find_map(|start| {
                let rest = value.get(start..)?;
                let index = texts
                    .iter()
                    .position(|text| rest.starts_with(text.as_bytes()))?;
                Some((index, start))
            }),
        }
    }
}
