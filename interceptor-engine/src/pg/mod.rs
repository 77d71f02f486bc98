//! PostgreSQL: what the conversation's state is, what a statement means, and
//! what of a result is hidden.

pub mod catalog;
pub mod mask;
pub mod sasl;
pub mod session;
pub mod sql;

pub use session::{PgSession, Settings};
