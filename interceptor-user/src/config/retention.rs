//! How long recordings stay in Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_saphyr::Spanned;

use super::check::Check;
use super::written::{self, Amount};
use super::{SecretRef, Target, units};

/// How often a daemon looks what may go, where nothing else is said.
const EVERY: Duration = Duration::from_secs(10 * 60);

/// How long recordings stay in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long after its close a session stays; `None` for always.
    pub age: Option<Duration>,
    /// The same for sessions of these targets, instead.
    pub targets: BTreeMap<String, Duration>,
    /// How much memory closed sessions may take; beyond it, the oldest go.
    pub bytes: Option<u64>,
    /// Where they are archived before they go; `None` for nowhere.
    pub archive_to: Option<ArchiveTo>,
    /// How often is looked what may go.
    pub every: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: None,
            targets: BTreeMap::new(),
            bytes: None,
            archive_to: None,
            every: EVERY,
        }
    }
}

impl Retention {
    /// How long a session to `target` stays.
    #[must_use]
    pub fn age_of(&self, target: &str) -> Option<Duration> {
        self.targets.get(target).copied().or(self.age)
    }

    /// Whether anything ever goes.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.age.is_some() || self.bytes.is_some() || !self.targets.is_empty()
    }
}

/// Where closed sessions are archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveTo {
    /// A folder, `file:///path` or `s3://bucket/prefix`.
    pub url: String,
    /// The bucket's region; `None` for what the environment says.
    pub region: Option<String>,
    /// Where S3 is, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// The access key's id, and the key; `None` for what the environment says.
    pub key: Option<(SecretRef, SecretRef)>,
}

impl ArchiveTo {
    /// A place of which nothing more is said.
    #[must_use]
    pub fn of(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            region: None,
            endpoint: None,
            key: None,
        }
    }
}

impl Check<'_, '_> {
    pub(super) fn retention(
        &mut self,
        raw: Option<written::Retention>,
        targets: &[Target],
    ) -> Retention {
        let Some(raw) = raw else {
            return Retention::default();
        };
        let mut of_targets = BTreeMap::new();
        for (name, one) in raw.targets {
            if !targets.iter().any(|target| target.name == name) {
                let message = format!("there is no target named {name:?}");
                self.error(one.age.referenced, message, "");
            }
            if let Some(age) = self.positive(&one.age) {
                of_targets.insert(name, age);
            }
        }
        let bytes = raw.bytes.as_ref().and_then(|size| {
            let bytes = match &size.value {
                Amount::Number(number) => Some(*number),
                Amount::Text(text) => units::bytes(text),
            };
            if bytes.is_none() {
                self.error(size.referenced, "this is no size", "for example 100GiB");
            }
            bytes
        });
        let archive_to = match (&raw.archive_to, &raw.s3) {
            (Some(to), s3) => self.archive_to(to, s3.as_ref()),
            (None, None) => None,
            (None, Some(s3)) => {
                let message = "`s3` says how `archive_to` is reached, and there is none";
                self.error(s3.referenced, message, "archive_to: s3://bucket/prefix");
                None
            }
        };
        Retention {
            age: raw.age.as_ref().and_then(|age| self.positive(age)),
            targets: of_targets,
            bytes,
            archive_to,
            every: match &raw.every {
                Some(every) => self.positive(every).unwrap_or(EVERY),
                None => EVERY,
            },
        }
    }

    /// A duration that is not nothing: a session of no age would go with its close.
    fn positive(&mut self, text: &Spanned<String>) -> Option<Duration> {
        let duration = self.duration(text)?;
        if duration.is_zero() {
            self.error(text.referenced, "this is no time", "for example 90d");
            return None;
        }
        Some(duration)
    }

    fn archive_to(
        &mut self,
        to: &Spanned<String>,
        s3: Option<&Spanned<written::S3>>,
    ) -> Option<ArchiveTo> {
        let is_s3 = to.value.starts_with("s3://");
        let mut archive = ArchiveTo::of(&to.value);
        if !is_s3 {
            if to.value.contains("://") && !to.value.starts_with("file:///") {
                let help = "a folder, file:///path or s3://bucket/prefix";
                self.error(to.referenced, "this is no place for an archive", help);
                return None;
            }
            if !to.value.starts_with("file:///") {
                archive.url = self.path(to).display().to_string();
            }
        }
        let Some(s3) = s3 else {
            return Some(archive);
        };
        if !is_s3 {
            self.error(s3.referenced, "`s3` is for an `archive_to` in S3", "");
            return None;
        }
        let at = s3.referenced;
        let s3 = &s3.value;
        if let Some(endpoint) = &s3.endpoint {
            let url = endpoint.value.parse::<http::Uri>();
            let is_good = url.is_ok_and(|url| {
                matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()
            });
            if !is_good {
                let help = "for example https://s3.internal:9000";
                self.error(endpoint.referenced, "this is no address of an S3", help);
            }
        }
        archive.endpoint = s3.endpoint.as_ref().map(|endpoint| endpoint.value.clone());
        archive.region = s3.region.as_ref().map(|region| region.value.clone());
        archive.key = match (&s3.access_key_id, &s3.secret_access_key) {
            (Some(id), Some(key)) => self.secret(id).zip(self.secret(key)),
            (None, None) => None,
            _ => {
                let message = "`access_key_id` and `secret_access_key` go together";
                self.error(at, message, "without both, the environment's are used");
                None
            }
        };
        Some(archive)
    }
}
