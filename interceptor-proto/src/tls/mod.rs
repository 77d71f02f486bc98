//! What of TLS is legible before anything is encrypted.
//!
//! [`client_hello`] reads the first message of a handshake, so that a flow can
//! be known by its name and protocol before it is decided who answers it. The
//! handshake itself is a library's.

pub mod client_hello;
pub mod error;

pub use client_hello::{ClientHello, client_hello};
pub use error::TlsError;
