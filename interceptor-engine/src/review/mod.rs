//! Recordings looked at again, to learn of rules: what others would have decided
//! ([`backtest`]), and a first rule file from what was seen ([`learn`]).
//!
//! Entries in, findings out; reading recordings and showing findings is the
//! shell's business.

pub mod backtest;
pub mod learn;
mod opened;

pub use backtest::{Backtest, Finding, Summary};
pub use learn::Learner;
pub use opened::Opened;

#[cfg(test)]
mod tests;
