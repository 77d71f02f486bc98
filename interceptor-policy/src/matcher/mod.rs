//! Matching.
pub(crate) mod name;
