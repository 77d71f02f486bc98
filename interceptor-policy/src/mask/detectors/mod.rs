//! Finding values by what they look like.
//!
//! Every detector is one entry of [`Detector::ALL`]: a name, the bytes without
//! which it cannot hit, and a function that finds its hits in one value.

use std::ops::Range;

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
    /// Which detector; of several that overlap, the one whose transform is the strictest.
    pub detector: Detector,
    /// What to put there.
    pub transform: &'p Transform,
}

/// The detectors in force, with what each puts in place of its hits.
#[derive(Clone, Debug, Default)]
pub struct DetectPlan {
    transforms: [Option<Transform>; Detector::COUNT],
}

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
}

impl DetectPlan {
    pub(crate) fn add(&mut self, detector: Detector, transform: &Transform) {
        let _ = (detector, transform, &self.transforms);
    }

    /// What a detector puts in place of its hits; `None` where it is not in force.
    #[must_use]
    pub fn transform(&self, detector: Detector) -> Option<&Transform> {
        self.transforms.get(detector as usize)?.as_ref()
    }

    /// Every hit in one value, in order and never overlapping.
    #[must_use]
    pub fn scan(&self, _value: &[u8]) -> Vec<Hit<'_>> {
        Vec::new()
    }

    /// Whether [`scan`](Self::scan) of any value inside `chunk` could hit. Made
    /// for whole wire messages of tens of KiB; `false` is certain, `true` is not.
    #[must_use]
    pub fn may_hit(&self, _chunk: &[u8]) -> bool {
        true
    }
}
