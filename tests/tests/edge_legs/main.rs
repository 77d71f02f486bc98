//! Both PostgreSQL legs, between real servers and real clients: which of them is
//! encrypted, who logs on, and what an agent reads when it cannot be.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and says where"
)]

mod cancelling;
mod catalog;
mod credentials;
mod encryption;
mod harness;
mod passwords;
mod startup;
