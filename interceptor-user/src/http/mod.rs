//! HTTP's two legs: everything of it that needs a socket.
//!
//! * [`front`] opens a flow: from the agent's first bytes to two legs, TLS opened
//!   on both where there is TLS;
//! * [`unopened`] remembers what could not be opened, so that the next flow goes
//!   by `uninspected` and not by trial;
//! * [`agent_io`] is the agent's leg: HTTP/1 passes a strict guard before hyper
//!   reads a byte of it;
//! * [`service`] is the service's: dialled when it is needed, and again when it
//!   closed between two exchanges, its HTTP/1 behind a guard as well ([`service_io`]);
//! * [`conversation`] is what the exchanges of a flow share: the engine's session,
//!   the recorder, and how it all ends;
//! * [`credentials`] are what requests are sent with, that the agent never has;
//! * [`exchange`] drives one exchange, [`body`] carries what it forwards;
//! * [`tunnel`] carries a WebSocket;
//! * [`again`] asks a scratch service what was recorded;
//! * [`serve`] runs hyper on the agent's leg.
//!
//! What an exchange means, whether it passes, and what is put on record is the
//! engine's business: here its acts are carried out, in their order, and its
//! events are with the recorder first.
//!
//! Spec: RFC 9110, 9112 (HTTP/1.1), 9113 (HTTP/2).

mod accepted;
pub mod again;
pub mod agent_io;
pub mod body;
pub mod conversation;
pub mod credentials;
pub mod exchange;
pub mod front;
pub mod serve;
pub mod service;
pub mod service_io;
pub mod tunnel;
pub mod unopened;

pub use credentials::Tokens;
pub use unopened::Unopened;

/// HTTP/2 in ALPN (RFC 7301).
pub const H2: &[u8] = b"h2";
/// HTTP/1.1 in ALPN.
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// What all HTTP flows share.
#[derive(Debug, Default)]
pub struct Common {
    /// What of agents' TLS could not be opened.
    pub unopened: Unopened,
    /// Tokens that were fetched for targets.
    pub tokens: std::sync::Arc<Tokens>,
}
