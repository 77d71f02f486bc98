//! Agents' questions for names.
//!
//! The kernel sends whatever goes to port 53 here, whichever name server was asked.
//! [`question`] reads one question and judges it; [`upstream`] asks the servers of this
//! machine, in words of its own, so that nothing of the agent's but the name itself
//! leaves; [`names`] keeps what was answered, so that a connection is known by the name
//! that its agent looked up; [`server`] brings them together and puts them on record.
//!
//! Spec: RFC 1035, RFC 7766 (over TCP).

pub mod names;
pub mod question;
pub mod server;
pub mod upstream;

pub use names::Names;
pub use server::Resolver;
