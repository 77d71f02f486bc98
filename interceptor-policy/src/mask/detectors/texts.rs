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
    /// Several passes of a few texts each are faster than one of all: each tells
    /// more of what it does not look for apart.
    passes: Vec<(Vec<Cue>, Search)>,
}

/// Hands its hits on, knowing where the last one of the same detector ends.
type Find<'f> = &'f dyn Fn(usize, &mut dyn FnMut(Range<usize>));

/// Most texts of one pass: with more, the packed search goes by half as many
/// bytes at a time.
const PASS: usize = 32;

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
        let mut add = |text: &'static str, cue| texts.push((text, cue));
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
        let passes = texts.chunks(PASS).map(|texts| {
            let (texts, cues) = texts.iter().copied().unzip();
            (cues, Search::of(texts))
        });
        Self {
            on,
            passes: passes.collect(),
        }
    }

    /// Whether any of them could be part of a hit.
    pub(super) fn may_hit(&self, chunk: &[u8]) -> bool {
        let mut header_end = 0;
        self.passes.iter().any(|(cues, search)| {
            search
                .all(chunk)
                .any(|(index, start)| match cues.get(index) {
                    // The same run need not be gone through from each beginning in it.
                    Some(Cue::Jwt) if start < header_end => false,
                    Some(Cue::Jwt) => {
                        header_end = run(chunk, start, |byte| Class::Word.has(byte));
                        at(chunk, header_end) == b'.'
                    }
                    Some(cue) => self.may_be(*cue, chunk, start),
                    None => false,
                })
        })
    }

    /// Whether any of them is in `text`.
    pub(super) fn are_in(&self, text: &[u8]) -> bool {
        self.passes
            .iter()
            .any(|(_, search)| search.all(text).next().is_some())
    }

    /// Hands every hit of a token or beside a word to `hit`; the detectors that
    /// are to be asked of the whole value.
    pub(super) fn find(&self, value: &[u8], hit: &mut dyn FnMut(Detector, Range<usize>)) -> Set {
        let mut ask = Set::default();
        for (cues, search) in &self.passes {
            let mut ends = [0; Detector::COUNT];
            for (index, start) in search.all(value) {
                if let Some(cue) = cues.get(index) {
                    self.find_at(*cue, value, start, &mut ends, &mut ask, hit);
                }
            }
        }
        ask
    }

    fn find_at(
        &self,
        cue: Cue,
        value: &[u8],
        start: usize,
        ends: &mut [usize; Detector::COUNT],
        ask: &mut Set,
        hit: &mut dyn FnMut(Detector, Range<usize>),
    ) {
        let mut found = |detector: Detector, find: Find<'_>| {
            if let Some(end) = ends.get_mut(detector as usize)
                && self.on.has(detector)
            {
                find(*end, &mut |range| {
                    *end = range.end.max(*end);
                    hit(detector, range);
                });
            }
        };
        match cue {
            // A run of beginnings must not be gone through from each.
            Cue::Token(token) => found(token.detector, &|done, hit| {
                (start >= done)
                    .then(|| token.find(value, start))
                    .flatten()
                    .into_iter()
                    .for_each(hit);
            }),
            Cue::Openai => found(OpenaiKey, &|done, hit| {
                (start >= done)
                    .then(|| tokens::openai(value, start))
                    .flatten()
                    .into_iter()
                    .for_each(hit);
            }),
            Cue::Keyword(word) => {
                for detector in word.announces {
                    found(*detector, &|done, hit| {
                        keywords::find(*detector, word, value, start, done, hit);
                    });
                }
            }
            Cue::Jwt => ask.insert(Jwt),
            Cue::PrivateKey => ask.insert(PrivateKey),
        }
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

    /// Every text, by its place among all, and where it starts; also within others.
    fn all(&self, value: &[u8]) -> impl Iterator<Item = (usize, usize)> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let found = self.next(value, from)?;
            from = found.1 + 1;
            Some(found)
        })
    }

    /// The next text that starts at `from` or behind it.
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
