//! Looking at recordings: the commands, against sessions in a real Redis.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test that panics has failed, and says where"
)]

mod again;
mod against;
mod indexed;
mod listing;
mod made;
mod replaying;
mod searching;
