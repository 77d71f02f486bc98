//! What a session promises, without a socket.
