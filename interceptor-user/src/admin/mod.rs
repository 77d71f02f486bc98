//! The admin socket: what commands ask of the running daemon.
