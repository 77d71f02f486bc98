//! What could not be opened, for a while.
//!
//! An agent that pins a certificate breaks the handshake off at ours; a service
//! that asks for the agent's own certificate cannot be answered for it. Neither can
//! be known before it was tried, and by then that flow is lost. So it is kept who
//! went where, and their next flow goes by `uninspected`, like anything else that
//! cannot be read.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interceptor_policy::Principal;
use lru::LruCache;

use crate::net::Origin;

/// How long it is kept: a client may be given our authority meanwhile.
const KEPT: Duration = Duration::from_secs(600);
/// How many are kept. The name is the agent's to choose, so there must be a bound.
const MOST: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Who, where, and under which name.
type Key = (Arc<str>, u32, Origin, Option<String>);

/// Why a flow is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The agent broke the handshake off at our certificate.
    Pinned,
    /// The service asks for a certificate that is not configured.
    ClientCertificate,
    /// The agent offers nothing but protocols that are not HTTP.
    NotHttp,
}

impl Why {
    /// In words, behind "it cannot be opened: ".
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Pinned => {
                "the agent does not accept certificates of the local authority (it may pin the service's own)"
            }
            Self::ClientCertificate => {
                "the service asks for a client certificate, and the target's `credentials` have none"
            }
            Self::NotHttp => "the agent offers no protocol that is read inside TLS (ALPN)",
        }
    }
}

/// What could not be opened.
#[derive(Debug)]
pub struct Unopened(Mutex<LruCache<Key, (Why, Instant)>>);

impl Default for Unopened {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl Unopened {
    /// Keeps that a flow could not be opened.
    pub fn note(
        &self,
        principal: &Principal,
        origin: &Origin,
        name: Option<&str>,
        why: Why,
        now: Instant,
    ) {
        self.lock().put(key(principal, origin, name), (why, now));
    }

    /// Why a flow like this one could not be opened a while ago.
    #[must_use]
    pub fn why(
        &self,
        principal: &Principal,
        origin: &Origin,
        name: Option<&str>,
        now: Instant,
    ) -> Option<Why> {
        let (why, since) = *self.lock().get(&key(principal, origin, name))?;
        (now.saturating_duration_since(since) < KEPT).then_some(why)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<Key, (Why, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(principal: &Principal, origin: &Origin, name: Option<&str>) -> Key {
    (
        Arc::from(principal.agent.as_str()),
        principal.uid,
        origin.clone(),
        name.map(str::to_owned),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_about_one_agent_one_place_and_one_name_and_not_for_ever() {
        let known = Unopened::default();
        let principal = |agent: &str| Principal {
            agent: agent.to_owned(),
            ..Principal::default()
        };
        let at = Origin::at("10.0.0.1:443");
        let other = Origin::at("10.0.0.2:443");
        let now = Instant::now();
        known.note(&principal("a"), &at, Some("x.test"), Why::Pinned, now);
        let asked = |agent: &str, at, name, now| known.why(&principal(agent), at, name, now);
        assert_eq!(asked("a", &at, Some("x.test"), now), Some(Why::Pinned));
        assert_eq!(asked("b", &at, Some("x.test"), now), None);
        assert_eq!(asked("a", &other, Some("x.test"), now), None);
        assert_eq!(asked("a", &at, Some("y.test"), now), None);
        assert_eq!(asked("a", &at, Some("x.test"), now + KEPT), None);
    }
}
