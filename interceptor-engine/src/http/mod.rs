//! HTTP between an agent and a service: exchanges, judged, masked, recorded.
//!
//! The shell has both legs' connections and hands over heads and bodies; what is
//! to be done comes back in an [`Outbox`]. HTTP/1 has one exchange at a time,
//! HTTP/2 many in one [`HttpSession`].
//!
//! * [`session`] is the door, and what exchanges share; `exchange` is one of
//!   them: its request (`asking`), a person's word (`hold`), its response
//!   (`answering`), what becomes of a changed protocol (`tunnel`, `websocket`, `deflate`);
//! * [`body`] reads what requests say, [`grpc`] what messages of gRPC do; `masking` hides what is masked, and
//!   `stream` does so while a response goes through; `answer` makes the answers that are ours;
//! * `head` reads heads; `record` and `tap` write what goes on record; `rules` asks the
//!   rules.
//!
//! What is forwarded is what was judged: heads are the very ones but for fields
//! of one hop, bodies the very bytes but where a mask changes them. Whatever
//! cannot be read where rules ask for it is refused by the rules themselves.
//!
//! Spec: RFC 9110; what is on the wire is the shell's business.

mod answer;
mod answering;
mod asking;
pub mod body;
mod deflate;
mod exchange;
pub mod grpc;
mod head;
mod hold;
mod masking;
mod outbox;
mod record;
mod rules;
mod session;
mod stream;
mod tap;
mod tunnel;
mod websocket;

#[cfg(test)]
mod tests;

pub use body::read_request;
pub use head::host_of;
pub use outbox::{Act, Failure, Outbox};
pub use session::{Bounds, HttpSession, Settings};
