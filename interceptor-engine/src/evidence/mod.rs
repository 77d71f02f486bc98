//! Evidence: what the hash chain alone cannot show.
//!
//! A session's chain ([`crate::chain`]) finds what was changed in the middle of a
//! recording. Whoever can write to the store can still cut off its end, take all of
//! it away, or make its chain anew. So the host that records signs the heads of its
//! sessions' chains, and chains what it signs:
//!
//! * [`statement`] is what is signed, byte by byte;
//! * [`ledger`] reads all statements of a store, and finds those that are missing or
//!   were made by somebody else;
//! * [`listing`] compares what `sessions` says of a session with the recording;
//! * [`session`] checks one recording against the chain and what was signed of it;
//! * [`finding`] is what they find.
//!
//! Nothing here knows a clock, a store or a signature's arithmetic: a verifier brings
//! the function that checks Ed25519.

pub mod finding;
pub mod ledger;
mod listing;
pub mod session;
pub mod statement;

#[cfg(test)]
mod tests;
