//! PostgreSQL's two legs: everything before the conversation proper, and what
//! goes on beside it.
//!
//! * [`front`] opens a flow: one call from the agent's first bytes to two legs
//!   with a session between them;
//! * [`negotiate`] hears the agent out, and decides which leg is encrypted;
//! * [`upstream`] asks the service for TLS, and encrypts that leg;
//! * [`logon`] logs on with the target's credentials;
//! * [`cancel`] carries a `CancelRequest` to the backend that it is for;
//! * [`catalog`] looks up names of tables, on a connection of its own;
//! * [`again`] asks a scratch database what was recorded.
//!
//! What the conversation means is the engine's business.
//!
//! Protocol: PostgreSQL manual, pages `protocol-flow` and
//! `protocol-message-formats`.

pub mod again;
pub mod cancel;
pub mod catalog;
pub mod front;
pub mod logon;
pub mod negotiate;
pub mod upstream;
mod wire;

pub use cancel::{CancelGuard, CancelRegistry, CancelTo};
pub use catalog::{Catalog, Catalogs};
pub use front::{Cancelled, Fault, Front, FrontError, FrontRequest, Legs, Opened, open};
pub use negotiate::StartupFacts;
