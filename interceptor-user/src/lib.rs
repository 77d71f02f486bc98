//! The shell around the engine: sockets, kernel, stores and commands.
