//! Carries a `CancelRequest` to the backend that it is for.
//!
//! The request comes on a connection of its own, without a name or a password:
//! all it has is the key that the server gave out. So the keys of live sessions
//! are kept with the address that was really dialled, behind which a balancer or
//! a failover may have put another server since. A key that nobody was given is
//! dropped without an answer, as PostgreSQL does, and reported.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use interceptor_proto::pg::startup::CancelRequest;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;

use super::front::Fault;
use super::upstream;
use super::wire;
use crate::net::{Dialer, Origin};
use crate::tls::Stream;
use crate::tls::upstream::Ask;

/// How long a cancellation may take as a whole.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a session's cancellations go.
#[derive(Clone, Debug)]
pub struct CancelTo {
    /// What the agent dialled, and the proxy for it: a key of one server means
    /// nothing to another.
    pub origin: Origin,
    /// How it was dialled.
    pub dialer: Dialer,
    /// How that leg was encrypted, where it was.
    pub tls: Option<Arc<Ask>>,
    /// Told when the agent asks to cancel: what waits for a person is not with
    /// the server yet.
    pub asked: Arc<Notify>,
}

type Key = (Origin, u32, Box<[u8]>);

/// Keys of the live sessions.
#[derive(Clone, Default)]
pub struct CancelRegistry(Arc<Mutex<Keys>>);

#[derive(Default)]
struct Keys {
    next: u64,
    live: HashMap<Key, (u64, CancelTo)>,
}

impl std::fmt::Debug for CancelRegistry {
    // The keys are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelRegistry")
            .field("live", &self.live())
            .finish()
    }
}

impl CancelRegistry {
    /// Remembers a key (`BackendKeyData`) for as long as the guard lives.
    #[must_use = "the key is forgotten when the guard is dropped"]
    pub fn register(&self, process_id: u32, key: &[u8], to: CancelTo) -> CancelGuard {
        let entry = (to.origin.clone(), process_id, Box::from(key));
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.next += 1;
        let number = keys.next;
        keys.live.insert(entry.clone(), (number, to));
        CancelGuard {
            registry: self.clone(),
            entry,
            number,
        }
    }

    /// How many keys are known.
    #[must_use]
    pub fn live(&self) -> usize {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.live.len()
    }

    fn find(&self, origin: &Origin, request: &CancelRequest<'_>) -> Option<CancelTo> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (origin.clone(), request.process_id, Box::from(request.key));
        keys.live.get(&entry).map(|(_, to)| to.clone())
    }

    /// Sends a request on to where its key came from, and waits until the server
    /// has taken it. `Ok(false)` when nobody was given that key.
    ///
    /// # Errors
    /// When that server cannot be reached any more.
    pub(crate) async fn forward(
        &self,
        origin: &Origin,
        request: &CancelRequest<'_>,
    ) -> Result<bool, Fault> {
        let Some(to) = self.find(origin, request) else {
            return Ok(false);
        };
        let delivered = deliver(&to, request).await;
        // Not before: the agent would go on once its question is taken back, and
        // its next statement would be the one that the server cancels.
        to.asked.notify_waiters();
        delivered.map(|()| true)
    }
}

impl CancelGuard {
    /// Cancels what runs in this session, and waits until the server has taken it.
    ///
    /// # Errors
    /// When that server cannot be reached any more.
    pub async fn cancel(&self) -> Result<(), Fault> {
        let (origin, process_id, key) = &self.entry;
        let request = CancelRequest {
            process_id: *process_id,
            key,
        };
        match self.registry.find(origin, &request) {
            Some(to) => deliver(&to, &request).await,
            None => Ok(()),
        }
    }
}

/// Sends a request, and waits until the server has taken it.
async fn deliver(to: &CancelTo, request: &CancelRequest<'_>) -> Result<(), Fault> {
    let mut packet = Vec::new();
    request.encode(&mut packet)?;
    let deliver = async {
        let mut tcp = upstream::dial(&to.dialer, &to.origin).await?;
        let mut stream = match &to.tls {
            None => Stream::Plain(tcp),
            Some(ask) => {
                if !upstream::ask_tls(&mut tcp).await? {
                    return Err(Fault::NoUpstreamTls);
                }
                upstream::encrypt(tcp, ask).await?.0
            }
        };
        wire::send(&mut stream, &packet)
            .await
            .map_err(Fault::Upstream)?;
        // The server closes once it has sent the signal; closing earlier
        // would let an agent's next statement be the one that is cancelled.
        let _ = stream.read_u8().await;
        Ok(())
    };
    tokio::time::timeout(PATIENCE, deliver)
        .await
        .map_err(|_| Fault::Slow)?
}

/// Forgets a session's key when dropped.
#[derive(Debug)]
pub struct CancelGuard {
    registry: CancelRegistry,
    entry: Key,
    number: u64,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        let mut keys = self
            .registry
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A server that gives a key out again has forgotten the session before.
        if keys
            .live
            .get(&self.entry)
            .is_some_and(|(number, _)| *number == self.number)
        {
            keys.live.remove(&self.entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(origin: &str) -> CancelTo {
        CancelTo {
            origin: Origin::at(origin),
            dialer: Dialer::default(),
            tls: None,
            asked: Arc::default(),
        }
    }

    fn known(registry: &CancelRegistry, origin: &str, process_id: u32, key: &[u8]) -> bool {
        registry
            .find(&Origin::at(origin), &CancelRequest { process_id, key })
            .is_some()
    }

    #[test]
    fn a_key_is_known_while_its_session_lives_and_only_for_its_server() {
        let registry = CancelRegistry::default();
        let guard = registry.register(7, b"abcd", to("127.0.0.1:5432"));
        assert!(known(&registry, "127.0.0.1:5432", 7, b"abcd"));
        assert!(!known(&registry, "127.0.0.1:5433", 7, b"abcd"));
        assert!(!known(&registry, "127.0.0.1:5432", 8, b"abcd"));
        assert!(!known(&registry, "127.0.0.1:5432", 7, b"abce"));
        drop(guard);
        assert!(!known(&registry, "127.0.0.1:5432", 7, b"abcd"));
        assert_eq!(registry.live(), 0);
    }

    #[test]
    fn an_ending_session_does_not_forget_the_key_of_the_next() {
        let registry = CancelRegistry::default();
        let first = registry.register(7, b"abcd", to("127.0.0.1:5432"));
        let second = registry.register(7, b"abcd", to("127.0.0.1:5432"));
        drop(first);
        assert!(known(&registry, "127.0.0.1:5432", 7, b"abcd"));
        drop(second);
        assert_eq!(registry.live(), 0);
    }
}
