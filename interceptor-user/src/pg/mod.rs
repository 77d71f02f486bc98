//! What PostgreSQL needs of sockets: both legs of a session, log-on, the catalog.
