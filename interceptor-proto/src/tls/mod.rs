//! The TLS ClientHello.
