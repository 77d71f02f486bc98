//! Questions that rules put to people, and the answers.
//!
//! * [`desk`] has the open questions, counts answers and tells the flow;
//! * [`facts`] is a question as people and Redis see it;
//! * [`people`] says who somebody is and in which groups;
//! * [`signature`] proves an answer that came by way of Redis;
//! * [`store`] keeps questions in Redis, so that they outlive the daemon, and
//!   takes answers from there.
//!
//! What is counted as a yes is the rule language's business
//! ([`interceptor_policy::approval`]); nothing here makes a permit.

pub mod desk;
pub mod facts;
pub mod people;
pub mod signature;
pub mod store;

pub use desk::{Asker, Desk};
pub use facts::{Facts, State};
