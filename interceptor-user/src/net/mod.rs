//! What both legs of a flow are made of: where it goes, how the service is dialled,
//! and the bytes' way.

pub mod dialer;
pub mod listen;
pub mod origin;
pub mod socket;

pub use dialer::Dialer;
pub use origin::{Host, Origin};
pub use socket::Socket;
