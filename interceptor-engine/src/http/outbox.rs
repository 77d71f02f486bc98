//! What the session tells the shell to do.

use ::http::{HeaderMap, request, response};
use bytes::Bytes;

use crate::hold::Question;
use crate::session::Side;

/// What a call produced.
pub type Outbox = crate::outbox::Outbox<Act>;

/// Something to do.
#[derive(Debug)]
pub enum Act {
    /// Send this head upstream. Fields of one hop are gone, the URI is absolute
    /// and `host` is there: HTTP/1 sends the origin form, HTTP/2 drops `host`.
    /// Credentials are added now.
    Request {
        /// The head.
        head: Box<request::Parts>,
        /// Whether nothing follows.
        ended: bool,
    },
    /// More of the request's body.
    RequestData(Bytes),
    /// The request's end.
    RequestEnd(Option<HeaderMap>),
    /// Ask a person, and hand the answer to `decided`.
    Ask(Box<Question>),
    /// Answer the agent with this head. Its `content-length` is right or absent.
    Response {
        /// The head.
        head: Box<response::Parts>,
        /// Whether nothing follows.
        ended: bool,
    },
    /// More of the response's body.
    ResponseData(Bytes),
    /// The response's end.
    ResponseEnd(Option<HeaderMap>),
    /// Nothing more is wanted of the service: its stream is reset, or its
    /// connection closed. No more of the request is read.
    DropUpstream,
    /// Break off the answer so that the agent sees that it is not whole.
    BreakDownstream,
    /// Behind the response's head, take both sides' upgraded streams, and hand
    /// what they bring to `tunnel_data`.
    Tunnel {
        /// Whether it is a WebSocket, and read as one.
        websocket: bool,
    },
    /// Bytes of a tunnel, to this side.
    TunnelData(Side, Bytes),
    /// The end of a tunnel's direction to this side.
    TunnelEnd(Side),
}

/// Why the service gave no answer, or not all of one. The words are for the
/// agent, and hold no payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be reached.
    Unreachable(String),
    /// It could not show that it is what it should be.
    Untrusted(String),
    /// It did not answer in time.
    TimedOut,
    /// It broke off, or said what is not HTTP.
    Broken(String),
}

impl Failure {
    /// The status that tells of it.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::TimedOut => 504,
            _ => 502,
        }
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Unreachable(why) => format!("the service could not be reached: {why}"),
            Self::Untrusted(why) => format!("the service is not trusted: {why}"),
            Self::TimedOut => "the service did not answer in time".to_owned(),
            Self::Broken(why) => format!("the service broke off its answer: {why}"),
        }
    }
}
