//! The local authority, and both TLS legs.
