//! Both PostgreSQL legs, between real servers and real clients: which of them is
//! encrypted, who logs on, and what an agent reads when it cannot be.

mod cancelling;
mod catalog;
mod credentials;
mod encryption;
mod harness;
mod passwords;
mod startup;
