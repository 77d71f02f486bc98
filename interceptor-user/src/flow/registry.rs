//! The flows under way, so that they can be listed and killed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;

/// What a flow is, for lists.
#[derive(Clone, Debug, Serialize)]
pub struct FlowFacts {
    /// Its session.
    pub session: Uuid,
    /// The agent's name.
    pub agent: String,
    /// The agent's run.
    pub run: Option<Arc<str>>,
    /// Where it goes.
    pub origin: String,
    /// The configured target.
    pub target: Option<String>,
    /// What it speaks.
    pub protocol: &'static str,
    /// Process id of the agent at `connect`; 0 where not known.
    pub pid: u32,
    /// When it opened, RFC 3339.
    pub opened: String,
}

/// A flow, and how to end it.
type Place = (FlowFacts, watch::Sender<Option<String>>);

/// The flows under way.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<HashMap<Uuid, Place>>>);

/// A flow's place in the registry; left when dropped.
#[derive(Debug)]
pub struct Entry {
    registry: Registry,
    session: Uuid,
    killed: watch::Receiver<Option<String>>,
}

impl Registry {
    /// Enters a flow.
    #[must_use]
    pub fn enter(&self, facts: FlowFacts) -> Entry {
        let (kill, killed) = watch::channel(None);
        let session = facts.session;
        self.lock().insert(session, (facts, kill));
        Entry {
            registry: self.clone(),
            session,
            killed,
        }
    }

    /// The flows under way, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<FlowFacts> {
        let mut flows: Vec<FlowFacts> = self
            .lock()
            .values()
            .map(|(facts, _)| facts.clone())
            .collect();
        flows.sort_by_key(|facts| facts.session);
        flows
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends one; whether it was there.
    #[must_use]
    pub fn kill(&self, session: Uuid, why: &str) -> bool {
        match self.lock().get(&session) {
            Some((_, kill)) => kill.send(Some(why.to_owned())).is_ok(),
            None => false,
        }
    }

    /// Ends all.
    pub fn kill_all(&self, why: &str) {
        for (_, kill) in self.lock().values() {
            let _ = kill.send(Some(why.to_owned()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Waits until somebody ends the flow, and says why.
    pub fn killed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut killed = self.killed.clone();
        async move {
            // The guard that `wait_for` returns must not live across an await.
            let why = killed
                .wait_for(Option::is_some)
                .await
                .ok()
                .map(|why| why.clone());
            match why {
                Some(why) => why.unwrap_or_default(),
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.session);
    }
}
