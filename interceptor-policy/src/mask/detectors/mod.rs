//! Finding values by what they look like.
//!
//! Every detector stands in one table with its name. Most credentials are lines
//! of two more: how a token begins ([`tokens`]), which word announces a secret
//! ([`keywords`]); numbers, addresses and whatever has a form of its own are
//! functions.
//!
//! [`DetectPlan::may_hit`] tells over a whole chunk of wire bytes, far faster
//! than any of them, that none can hit in it: all texts at once (packed search
//! of `aho-corasick`), all marks at once ([`marks`]), and a probe of every tenth
//! byte for digits ([`numbers`]). [`DetectPlan::scan`] asks the same first and
//! runs only what may find something. [`DetectStream`] does it over pieces.
//!
//! A detector is a net for what nobody listed by column, not a wall: what a
//! query encodes (reversed, in base64, one character a row) passes it.

mod address;
mod bytes;
#[cfg(test)]
mod corpus;
mod credentials;
mod drawn;
mod email;
mod iban;
mod keywords;
mod marks;
mod numbers;
mod password;
mod pattern;
mod phone;
mod stream;
mod texts;
mod tokens;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub use pattern::Pattern;
pub use stream::DetectStream;
use texts::Texts;

use super::{MaskKey, Masked, Transform};

/// Makes the kinds of one table: variant, name, and what finds it beside the
/// tables of texts.
macro_rules! detectors {
    ($($(#[$doc:meta])* $variant:ident $name:literal $find:expr;)*) => {
        /// A kind of value that can be told by its looks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Detector {
            $($(#[$doc])* $variant,)*
        }

        impl Detector {
            /// Every detector, with the name that rules use.
            pub const NAMES: &'static [(&'static str, Detector)] =
                &[$(($name, Detector::$variant),)*];

            /// How many there are.
            pub const COUNT: usize = Self::NAMES.len();
        }

        /// What finds each, beside the texts.
        const FINDERS: [Option<Finder>; Detector::COUNT] = [$($find,)*];
    };
}

/// Appends its hits in a value, in order.
type Finder = fn(&[u8], &mut Vec<Range<usize>>);

detectors! {
    /// 13 to 19 digits of a known card brand, Luhn's sum right.
    CreditCard "credit_card" Some(numbers::credit_cards);
    /// A US social security number, with dashes or spaces.
    UsSsn "us_ssn" Some(numbers::us_ssns);
    /// An international bank account number, check digits right.
    Iban "iban" Some(iban::ibans);
    /// An email address.
    Email "email" Some(email::emails);
    /// A telephone number: with a country, or in a form that only those have.
    Phone "phone" Some(phone::phones);
    /// An IPv4 address.
    Ipv4 "ipv4" Some(address::ipv4s);
    /// An IPv6 address.
    Ipv6 "ipv6" Some(address::ipv6s);
    /// A JSON web token.
    Jwt "jwt" Some(credentials::jwts);
    /// A token of an `Authorization` header, or its name and password.
    BearerToken "bearer_token" None;
    /// An AWS access key id, or a secret key beside a word that says so.
    AwsKey "aws_key" None;
    /// An API key, OAuth secret or access token of Google.
    GcpKey "gcp_key" None;
    /// An account key, shared access key or client secret of Azure.
    AzureKey "azure_key" Some(tokens::azure_client_secrets);
    /// A token of GitHub.
    GithubToken "github_token" None;
    /// A token of GitLab.
    GitlabToken "gitlab_token" None;
    /// A token or web hook of Slack.
    SlackToken "slack_token" None;
    /// A secret key of Stripe.
    StripeKey "stripe_key" None;
    /// A key of OpenAI.
    OpenaiKey "openai_key" None;
    /// A key of Anthropic.
    AnthropicKey "anthropic_key" None;
    /// A private key in PEM.
    PrivateKey "private_key" Some(credentials::private_keys);
    /// The password in a URL.
    UrlPassword "url_password" Some(password::url_passwords);
    /// What is assigned to a name that says password.
    KeyValuePassword "key_value_password" None;
    /// Letters drawn at random, beside a word that announces a secret.
    HighEntropySecret "high_entropy_secret" None;
}

impl Detector {
    /// The name that rules use.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, detector)| *detector == self)
            .map_or("", |(name, _)| name)
    }
}

/// Some of the detectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set(u32);

const _: () = assert!(Detector::COUNT <= 32);

impl Set {
    fn insert(&mut self, detector: Detector) {
        self.0 |= 1 << detector as u32;
    }

    fn has(self, detector: Detector) -> bool {
        self.0 & (1 << detector as u32) != 0
    }

    fn has_any(self, detectors: &[Detector]) -> bool {
        detectors.iter().any(|detector| self.has(*detector))
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn remove(&mut self, detector: Detector) {
        self.0 &= !(1 << detector as u32);
    }

    fn unite(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Those of them that are among `detectors`.
    fn only(self, detectors: &[Detector]) -> Self {
        let mut only = Self::default();
        for detector in detectors.iter().filter(|detector| self.has(**detector)) {
            only.insert(*detector);
        }
        only
    }
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

/// The detectors in force, with what each puts in place of its hits.
#[derive(Clone, Debug, Default)]
pub struct DetectPlan {
    transforms: [Option<Transform>; Detector::COUNT],
    on: Set,
    /// The operator's own, each once.
    patterns: Vec<(Arc<Pattern>, Transform)>,
    /// Every text of the detectors in force, prepared when first asked for.
    texts: OnceLock<Texts>,
}

impl DetectPlan {
    /// What hides everything that lets one in, whatever the rules say: for what is
    /// recorded beside the traffic.
    #[must_use]
    pub fn secrets() -> Self {
        use Detector as D;
        let mut plan = Self::default();
        for detector in [
            D::Jwt,
            D::BearerToken,
            D::AwsKey,
            D::GcpKey,
            D::AzureKey,
            D::GithubToken,
            D::GitlabToken,
            D::SlackToken,
            D::StripeKey,
            D::OpenaiKey,
            D::AnthropicKey,
            D::PrivateKey,
            D::UrlPassword,
            D::KeyValuePassword,
            D::HighEntropySecret,
        ] {
            plan.add(detector, &Transform::Redact);
        }
        plan
    }

    /// Adds a detector, or makes one in force stricter.
    pub(crate) fn add(&mut self, detector: Detector, transform: &Transform) {
        let Some(slot) = self.transforms.get_mut(detector as usize) else {
            return;
        };
        if slot.as_ref().is_none_or(|so_far| so_far < transform) {
            *slot = Some(transform.clone());
        }
        if !self.on.has(detector) {
            self.on.insert(detector);
            self.texts = OnceLock::new();
        }
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

    /// Adds what another one hides.
    pub(crate) fn unite(&mut self, other: &Self) {
        for (_, detector) in Detector::NAMES {
            if let Some(transform) = other.transform(*detector) {
                self.add(*detector, transform);
            }
        }
        for (pattern, transform) in &other.patterns {
            self.add_pattern(pattern, transform);
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
        self.scan_for(value, self.on)
    }

    /// `text` with everything that is hit replaced, and how many hits there were;
    /// `None` where there are none.
    #[must_use]
    pub fn hide(&self, text: &[u8], key: &MaskKey) -> Option<(Vec<u8>, usize)> {
        if !self.may_hit(text) {
            return None;
        }
        let hits = self.scan(text);
        if hits.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(text.len());
        let mut done = 0;
        for hit in &hits {
            out.extend_from_slice(text.get(done..hit.range.start).unwrap_or_default());
            let found = text.get(hit.range.clone()).unwrap_or_default();
            if hit.transform.apply(found, key, &mut out) == Masked::Null {
                out.extend_from_slice(b"[null]");
            }
            done = hit.range.end;
        }
        out.extend_from_slice(text.get(done..).unwrap_or_default());
        Some((out, hits.len()))
    }

    /// As [`scan`](Self::scan), of some detectors and the patterns.
    fn scan_for(&self, value: &[u8], on: Set) -> Vec<Hit<'_>> {
        let mut hits: Vec<Hit<'_>> = Vec::new();
        let mut hit = |detector, range| {
            if let Some(transform) = self.transform(detector) {
                hits.push(Hit {
                    range,
                    looks: Looks::Kind(detector),
                    transform,
                });
            }
        };
        let mut ask = self.texts().find(value, &mut hit);
        ask.unite(marks::seen(value, self.on, false));
        let numbers = self.numbers();
        if numbers::may_hit(value, numbers) {
            ask.unite(
                self.on
                    .only(&[Detector::CreditCard, Detector::UsSsn, Detector::Phone]),
            );
        }
        let mut ranges = Vec::new();
        for ((_, detector), find) in Detector::NAMES.iter().zip(FINDERS) {
            if let (true, Some(find)) = (ask.has(*detector) && on.has(*detector), find) {
                find(value, &mut ranges);
                ranges.drain(..).for_each(|range| hit(*detector, range));
            }
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
        self.texts().may_hit(chunk)
            || !marks::seen(chunk, self.on, true).is_empty()
            || numbers::may_hit(chunk, self.numbers())
            || self
                .patterns
                .iter()
                .any(|(pattern, _)| pattern.may_hit(chunk))
    }

    fn numbers(&self) -> numbers::Wanted {
        numbers::Wanted {
            cards: self.on.has(Detector::CreditCard),
            ssns: self.on.has(Detector::UsSsn),
            phones: self.on.has(Detector::Phone),
        }
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| Texts::of(self.on))
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
            prop::sample::select(corpus::texts()),
        ];
        prop::collection::vec(shard, 0..8).prop_map(|shards| shards.concat())
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

    #[test]
    fn digits_of_the_value_before_hide_no_number_behind_them() {
        let plan = everything();
        assert!(!plan.scan(b"030/1234567").is_empty());
        for before in ["0 1", "1", "12-3", "\0"] {
            assert!(
                plan.may_hit(format!("{before}030/1234567").as_bytes()),
                "{before:?}"
            );
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
        for _ in 0..2000 {
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
