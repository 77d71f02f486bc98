//! Wire formats: bytes to messages and back. No state, no I/O, no clock.
//!
//! * [`detect`] says which protocol a flow speaks;
//! * [`http`] is HTTP/1's;
//! * [`pg`] is PostgreSQL's;
//! * [`tls`] is what of TLS is legible before anything is encrypted.
//!
//! Every parser either reads what it is given to the last byte, or says what is
//! wrong with it in sizes and names, or asks for more where more may come. None
//! copies what it reads, and none panics on any bytes.

pub mod detect;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod http;
pub mod pg;
pub mod ssh;
pub mod tls;
