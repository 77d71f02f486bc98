//! Finding values by what they look like.
//!
//! Every detector is one entry of a table: its name, the bytes without which it
//! cannot hit, and a function that finds its hits in one value. The table also
//! feeds [`DetectPlan::may_hit`], which tells over a whole chunk of wire bytes,
//! far faster than any of them, that none can hit in it.
//!
//! A detector is a net for what nobody listed by column, not a wall: what a
//! query encodes (reversed, in base64, one character a row) passes it.

mod credentials;
mod email;
mod numbers;
mod pattern;

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

pub use pattern::Pattern;

use super::Transform;

/// A kind of value that can be told by its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Detector {
    /// 13 to 19 digits of a known card brand, Luhn's sum right.
    CreditCard,
    /// A US social security number, with dashes or spaces.
    UsSsn,
    /// An email address.
    Email,
    /// A JSON web token.
    Jwt,
    /// An AWS access key id, or a secret key beside a word that says so.
    AwsKey,
    /// A private key in PEM.
    PrivateKey,
}

/// Where a detector hit in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit<'p> {
    /// Bytes of the value.
    pub range: Range<usize>,
    /// What hit; of several that overlap, the one whose transform is the strictest.
    pub looks: Looks<'p>,
    /// What to put there.
    pub transform: &'p Transform,
}

/// What a hit looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Looks<'p> {
    /// What a detector finds.
    Kind(Detector),
    /// What an operator's pattern matches, as it was written.
    Pattern(&'p str),
}

impl<'p> Looks<'p> {
    /// The detector's name, or the pattern.
    #[must_use]
    pub fn name(self) -> &'p str {
        match self {
            Self::Kind(detector) => detector.name(),
            Self::Pattern(source) => source,
        }
    }
}

/// Whether no hit goes on behind this byte, but for a private key's.
const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// What must be in a value for a detector to hit.
enum Trigger {
    /// A run of digits.
    Digits,
    /// `@` between what may stand beside it.
    At,
    /// One of these.
    Texts(&'static [&'static str]),
}

struct Kind {
    detector: Detector,
    trigger: Trigger,
    find: fn(&[u8], &mut Vec<Range<usize>>),
}

const KINDS: [Kind; Detector::COUNT] = [
    Kind {
        detector: Detector::CreditCard,
        trigger: Trigger::Digits,
        find: numbers::credit_cards,
    },
    Kind {
        detector: Detector::UsSsn,
        trigger: Trigger::Digits,
        find: numbers::us_ssns,
    },
    Kind {
        detector: Detector::Email,
        trigger: Trigger::At,
        find: email::emails,
    },
    Kind {
        detector: Detector::Jwt,
        trigger: Trigger::Texts(&[credentials::JWT]),
        find: credentials::jwts,
    },
    Kind {
        detector: Detector::AwsKey,
        trigger: Trigger::Texts(credentials::AWS),
        find: credentials::aws_keys,
    },
    Kind {
        detector: Detector::PrivateKey,
        trigger: Trigger::Texts(&[credentials::PEM]),
        find: credentials::private_keys,
    },
];

impl Detector {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// Every detector, with the name that rules use.
    pub const NAMES: &'static [(&'static str, Detector)] = &[
        ("credit_card", Detector::CreditCard),
        ("us_ssn", Detector::UsSsn),
        ("email", Detector::Email),
        ("jwt", Detector::Jwt),
        ("aws_key", Detector::AwsKey),
        ("private_key", Detector::PrivateKey),
    ];

    /// The name that rules use.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, detector)| *detector == self)
            .map_or("", |(name, _)| name)
    }
}

/// The detectors in force, with what each puts in place of its hits.
#[derive(Clone, Debug, Default)]
pub struct DetectPlan {
    transforms: [Option<Transform>; Detector::COUNT],
    /// The operator's own, each once.
    patterns: Vec<(Arc<Pattern>, Transform)>,
    /// Every text of the detectors in force.
    texts: Texts,
}

impl DetectPlan {
    /// Adds a detector, or makes one in force stricter.
    pub(crate) fn add(&mut self, detector: Detector, transform: &Transform) {
        let Some(slot) = self.transforms.get_mut(detector as usize) else {
            return;
        };
        if slot.as_ref().is_none_or(|so_far| so_far < transform) {
            *slot = Some(transform.clone());
        }
        let texts = KINDS
            .iter()
            .filter(|kind| self.transform(kind.detector).is_some())
            .filter_map(|kind| match kind.trigger {
                Trigger::Texts(texts) => Some(texts),
                _ => None,
            })
            .flatten()
            .copied()
            .collect::<Vec<_>>();
        self.texts = Texts::of(&texts);
    }

    /// Adds an operator's pattern, or makes one in force stricter.
    pub(crate) fn add_pattern(&mut self, pattern: &Arc<Pattern>, transform: &Transform) {
        let known = self
            .patterns
            .iter_mut()
            .find(|(known, _)| known.source() == pattern.source());
        match known {
            Some((_, so_far)) if &*so_far < transform => *so_far = transform.clone(),
            Some(_) => {}
            None => self.patterns.push((Arc::clone(pattern), transform.clone())),
        }
    }

    /// The operator's patterns in force, as they were written, and what each puts in
    /// place of its hits.
    pub fn patterns(&self) -> impl Iterator<Item = (&str, &Transform)> {
        self.patterns
            .iter()
            .map(|(pattern, transform)| (pattern.source(), transform))
    }

    /// What a detector puts in place of its hits; `None` where it is not in force.
    #[must_use]
    pub fn transform(&self, detector: Detector) -> Option<&Transform> {
        self.transforms.get(detector as usize)?.as_ref()
    }

    /// Every hit in one value, in order and never overlapping: hits that do
    /// become one, with the strictest of their transforms.
    #[must_use]
    pub fn scan(&self, value: &[u8]) -> Vec<Hit<'_>> {
        let mut hits: Vec<Hit<'_>> = Vec::new();
        let mut ranges = Vec::new();
        for kind in &KINDS {
            let Some(transform) = self.transform(kind.detector) else {
                continue;
            };
            (kind.find)(value, &mut ranges);
            hits.extend(ranges.drain(..).map(|range| Hit {
                range,
                looks: Looks::Kind(kind.detector),
                transform,
            }));
        }
        for (pattern, transform) in &self.patterns {
            pattern.find(value, &mut ranges);
            hits.extend(ranges.drain(..).map(|range| Hit {
                range,
                looks: Looks::Pattern(pattern.source()),
                transform,
            }));
        }
        if hits.len() > 1 {
            hits.sort_by_key(|hit| (hit.range.start, hit.range.end));
            hits.dedup_by(|next, last| {
                if next.range.start >= last.range.end {
                    return false;
                }
                last.range.end = last.range.end.max(next.range.end);
                if next.transform > last.transform {
                    last.transform = next.transform;
                    last.looks = next.looks;
                }
                true
            });
        }
        hits
    }

    /// Whether [`scan`](Self::scan) of any value inside `chunk` could hit. Made
    /// for whole wire messages of tens of KiB; `false` is certain, `true` is
    /// not. Bytes around a value (lengths, tags) never hide a hit from it.
    #[must_use]
    pub fn may_hit(&self, chunk: &[u8]) -> bool {
        let on = |detector| self.transform(detector).is_some();
        let cards = on(Detector::CreditCard);
        let ssns = on(Detector::UsSsn);
        self.texts.are_in(chunk)
            || (on(Detector::Email) && email::may_hit(chunk))
            || ((cards || ssns) && numbers::may_hit(chunk, cards, ssns))
            || self
                .patterns
                .iter()
                .any(|(pattern, _)| pattern.may_hit(chunk))
    }
}

/// Finds any of several texts in one pass.
#[derive(Clone, Debug, Default)]
enum Texts {
    /// There are none to find.
    #[default]
    None,
    Some(AhoCorasick),
    /// They could not be prepared; every chunk is scanned.
    Anywhere,
}

impl Texts {
    fn of(texts: &[&str]) -> Self {
        if texts.is_empty() {
            return Self::None;
        }
        AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(texts)
            .map_or(Self::Anywhere, Self::Some)
    }

    fn are_in(&self, chunk: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Some(searcher) => searcher.is_match(chunk),
            Self::Anywhere => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;

    use super::*;

    fn plan(detectors: &[(Detector, Transform)]) -> DetectPlan {
        let mut plan = DetectPlan::default();
        for (detector, transform) in detectors {
            plan.add(*detector, transform);
        }
        plan
    }

    fn everything() -> DetectPlan {
        let all: Vec<_> = Detector::NAMES
            .iter()
            .map(|(_, detector)| (*detector, Transform::Redact))
            .collect();
        plan(&all)
    }

    const TRUE: [(Detector, &str); 6] = [
        (Detector::CreditCard, "4111 1111 1111 1111"),
        (Detector::UsSsn, "123-45-6789"),
        (Detector::Email, "alice@example.com"),
        (
            Detector::Jwt,
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        ),
        (Detector::AwsKey, "AKIAIOSFODNN7EXAMPLE"),
        (
            Detector::PrivateKey,
            "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----",
        ),
    ];

    #[test]
    fn the_table_is_in_the_order_of_the_detectors() {
        for (index, (kind, (name, detector))) in KINDS.iter().zip(Detector::NAMES).enumerate() {
            assert_eq!(kind.detector, *detector);
            assert_eq!(*detector as usize, index);
            assert_eq!(detector.name(), *name);
        }
    }

    #[test]
    fn every_detector_hits_its_own_alone_in_the_middle_of_a_text() {
        let plan = everything();
        for (detector, text) in TRUE {
            let value = format!("before {text}, after");
            let hits = plan.scan(value.as_bytes());
            assert_eq!(hits.len(), 1, "{value}: {hits:?}");
            assert_eq!(hits[0].looks, Looks::Kind(detector));
            assert_eq!(value.get(hits[0].range.clone()), Some(text));
        }
    }

    #[test]
    fn a_detector_that_is_not_in_force_never_hits() {
        for (off, _) in TRUE {
            let mut plan = everything();
            plan.transforms[off as usize] = None;
            for (detector, text) in TRUE {
                let hit = !plan.scan(text.as_bytes()).is_empty();
                assert_eq!(hit, detector != off, "{detector:?} without {off:?}");
            }
        }
    }

    #[test]
    fn the_strictest_transform_of_a_detector_wins_in_any_order() {
        let (mild, strict) = (Transform::Hash, Transform::Redact);
        for order in [[&mild, &strict], [&strict, &mild]] {
            let mut plan = DetectPlan::default();
            for transform in order {
                plan.add(Detector::Jwt, transform);
            }
            assert_eq!(plan.transform(Detector::Jwt), Some(&strict));
        }
    }

    #[test]
    fn hits_that_overlap_become_one_with_the_strictest_transform() {
        let plan = plan(&[
            (Detector::Email, Transform::Hash),
            (Detector::PrivateKey, Transform::Redact),
        ]);
        let value = b"-----BEGIN PRIVATE KEY-----\nme@example.com\n-----END PRIVATE KEY-----";
        let hits = plan.scan(value);
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].looks, Looks::Kind(Detector::PrivateKey));
        assert_eq!(hits[0].range, 0..value.len());
        assert_eq!(hits[0].transform, &Transform::Redact);
    }

    #[test]
    fn an_operators_pattern_hits_beside_the_detectors() {
        let mut plan = plan(&[(Detector::Email, Transform::Hash)]);
        let pattern = Arc::new(Pattern::new(r"EMP-\d{6}").unwrap());
        plan.add_pattern(&pattern, &Transform::Hash);
        plan.add_pattern(&pattern, &Transform::Redact);
        plan.add_pattern(&pattern, &Transform::Null);
        assert_eq!(
            plan.patterns().collect::<Vec<_>>(),
            [(r"EMP-\d{6}", &Transform::Redact)]
        );
        let value = b"EMP-123456 is a@b.co";
        let hits = plan.scan(value);
        assert_eq!(hits.len(), 2);
        assert_eq!(hits[0].looks.name(), r"EMP-\d{6}");
        assert_eq!(hits[0].range, 0..10);
        assert_eq!(hits[0].transform, &Transform::Redact);
        assert_eq!(hits[1].looks, Looks::Kind(Detector::Email));
        assert!(plan.may_hit(b"xEMP-123456x") && !plan.may_hit(b"EMP-12345"));
    }

    #[test]
    fn ordinary_wire_text_is_passed_over_without_a_scan() {
        let row = b"D\0\0\0\x2a\0\x03\0\0\0\x07ordered\0\0\0\x132024-01-15 10:11:12\0\0\0\x0512345";
        let chunk = row.repeat(1000);
        assert!(!everything().may_hit(&chunk));
    }

    /// Texts from which something may come together.
    fn shards() -> impl Strategy<Value = String> {
        let shard = prop_oneof![
            "[0-9]{1,20}",
            "[0-9]{3}[- ][0-9]{2}[- ][0-9]{4}",
            "4[0-9]{3}[- ]?[0-9]{4}[- ]?[0-9]{4}[- ]?[0-9]{4}",
            "[a-z@. -]{0,12}",
            "eyJ[a-zA-Z0-9_.-]{0,30}",
            "(AKIA|ASIA)[A-Z0-9]{12,18}",
            "[sS]ecret[_a-z]{0,8}[:= ]{1,2}[A-Za-z0-9/+]{38,42}",
            "-----(BEGIN|END) (RSA )?(PRIVATE|PUBLIC) KEY-----",
            prop::sample::select(TRUE.to_vec()).prop_map(|(_, text)| text.to_owned()),
        ];
        prop::collection::vec(shard, 0..12).prop_map(|shards| shards.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_hits_never_overlap(value in prop::collection::vec(any::<u8>(), 0..400)) {
            check(&value)?;
        }

        #[test]
        fn no_text_panics_and_hits_never_overlap(value in shards()) {
            check(value.as_bytes())?;
        }

        #[test]
        fn what_hits_in_a_value_is_seen_in_any_chunk_around_it(
            value in shards(),
            before in "[0-9 a-z@.\\x00-]{0,40}",
            after in "[0-9 a-z@.\\x00-]{0,40}",
        ) {
            let plan = everything();
            if !plan.scan(value.as_bytes()).is_empty() {
                let chunk = format!("{before}{value}{after}");
                prop_assert!(plan.may_hit(chunk.as_bytes()));
            }
        }
    }

    fn check(value: &[u8]) -> Result<(), TestCaseError> {
        let plan = everything();
        let hits = plan.scan(value);
        let mut end = 0;
        for hit in &hits {
            prop_assert!(hit.range.start >= end && hit.range.start < hit.range.end);
            end = hit.range.end;
        }
        prop_assert!(end <= value.len());
        if !hits.is_empty() {
            prop_assert!(plan.may_hit(value));
        }
        Ok(())
    }

    #[test]
    fn the_property_reaches_hits_of_every_detector() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut seen = std::collections::BTreeSet::new();
        let plan = everything();
        for _ in 0..400 {
            let value = shards().new_tree(&mut runner).unwrap().current();
            seen.extend(
                plan.scan(value.as_bytes())
                    .iter()
                    .map(|hit| hit.looks.name()),
            );
        }
        assert_eq!(seen.len(), Detector::COUNT, "{seen:?}");
    }
}
