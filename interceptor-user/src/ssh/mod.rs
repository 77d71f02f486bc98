//! What of SSH needs sockets.
//!
//! * [`front`] opens the leg to the origin, checks its host key, and then the
//!   agent's leg, with the key that stands for the origin;
//! * [`authority`] keeps those keys and signs them, [`known_hosts`] knows the origins';
//! * [`agent`] is the server that the agent speaks to, [`origin`] the client that the
//!   origin does; both only sort what comes to their channels' [`inbox`]es;
//! * [`logon`] lets the agent in, by what the origin says;
//! * [`relay`] carries one channel between the two, and does what the engine's
//!   session says; [`forward`] carries those that are opened from the origin's side;
//! * [`Connection`] is what the channels share.
//!
//! Both legs are russh's. What its event loops call never waits for the other leg:
//! what a peer may send is granted when what it sent was passed on (`vendor/russh`).
//!
//! Spec: RFC 4252, 4253, 4254; OpenSSH's `PROTOCOL`.

pub mod agent;
pub mod authority;
mod carried;
pub mod forward;
pub mod front;
mod inbox;
pub mod incoming;
pub mod known_hosts;
mod logon;
pub mod origin;
mod own_keys;
mod relay;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use interceptor_engine::ssh::SshSession;
use russh::ChannelId;

use crate::flow::shared::Shared;
use inbox::Inbox;

/// What the channels of one connection share.
pub(crate) type Connection = Shared<SshSession>;

/// Channels that may be open on one connection.
const CHANNELS: usize = 256;

/// The queues of a leg's channels.
#[derive(Debug, Default)]
pub(crate) struct Inboxes(Mutex<HashMap<ChannelId, Arc<Inbox>>>);

impl Inboxes {
    /// A new channel's; `None` where there are too many.
    fn open(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= CHANNELS {
            return None;
        }
        Some(Arc::clone(all.entry(id).or_default()))
    }

    fn of(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).cloned()
    }

    fn forget(&self, id: ChannelId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&id);
    }

    /// Puts something in; an error where that is more than a peer sends in good faith.
    fn put(&self, id: ChannelId, item: inbox::Item) -> Result<(), russh::Error> {
        match self.of(id) {
            Some(inbox) if !inbox.put(item) => Err(russh::Error::Inconsistent),
            _ => Ok(()),
        }
    }
}

/// Algorithms of both legs: what OpenSSH offers by itself, without SHA-1.
fn algorithms() -> russh::Preferred {
    use russh::cipher;
    use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
    russh::Preferred {
        // The client decides, and to the origin that is the proxy: what the processor has
        // instructions for comes first.
        cipher: vec![
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_128_CTR,
            cipher::AES_192_CTR,
            cipher::AES_256_CTR,
        ]
        .into(),
        key: vec![
            Algorithm::Ed25519,
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            },
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP384,
            },
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP521,
            },
            Algorithm::Rsa {
                hash: Some(HashAlg::Sha512),
            },
            Algorithm::Rsa {
                hash: Some(HashAlg::Sha256),
            },
        ]
        .into(),
        ..russh::Preferred::default()
    }
}
