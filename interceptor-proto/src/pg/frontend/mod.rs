//! Messages sent by the client (downstream → upstream).
//!
//! Each is read from the body of a whole frame, uses it up or refuses it, and
//! borrows from it. Those that the proxy itself sends can be written.
//!
//! * [`query`]: `Query`, `FunctionCall`;
//! * [`extended`]: `Parse`, `Bind`, `Describe`, `Execute`, `Close`;
//! * [`copy`]: `CopyFail`; the other two of COPY carry nothing to read;
//! * [`authentication`]: what tag `p` may mean.
//!
//! Format: PostgreSQL manual, page `protocol-message-formats`.

pub mod authentication;
pub mod copy;
pub mod extended;
pub mod query;

pub use authentication::{Password, SaslInitialResponse, SaslResponse};
pub use copy::CopyFail;
pub use extended::{Bind, Close, Describe, Execute, Parse, Subject};
pub use query::{FunctionCall, Query};

use super::{PgError, body::Body, tag::frontend as tag, write};

/// Any message of the client, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Run these statements.
    Query(Query<'a>),
    /// Prepare a statement.
    Parse(Parse<'a>),
    /// Make a portal of a statement and values.
    Bind(Bind<'a>),
    /// Describe a statement or portal.
    Describe(Describe<'a>),
    /// Run a portal.
    Execute(Execute<'a>),
    /// Close a statement or portal.
    Close(Close<'a>),
    /// Send what you have.
    Flush,
    /// End of an implicit transaction and of skipping after an error.
    Sync,
    /// Call a function by OID.
    FunctionCall(FunctionCall<'a>),
    /// Data of a COPY.
    CopyData(&'a [u8]),
    /// End of a COPY's data.
    CopyDone,
    /// The client gives a COPY up.
    CopyFail(CopyFail<'a>),
    /// An answer to an authentication request, unread: only the kind of
    /// authentication tells which.
    Password(&'a [u8]),
    /// The client is leaving.
    Terminate,
}

impl<'a> Message<'a> {
    /// Reads the body of a frame.
    ///
    /// PostgreSQL does not look at what `Terminate` and `CopyDone` carry, so
    /// neither does this.
    ///
    /// # Errors
    ///
    /// An unknown tag, and a body that is not what the tag promises.
    pub fn parse(tag: u8, body: &'a [u8]) -> Result<Self, PgError> {
        Ok(match tag {
            tag::QUERY => Self::Query(Query::parse(body)?),
            tag::PARSE => Self::Parse(Parse::parse(body)?),
            tag::BIND => Self::Bind(Bind::parse(body)?),
            tag::DESCRIBE => Self::Describe(Describe::parse(body)?),
            tag::EXECUTE => Self::Execute(Execute::parse(body)?),
            tag::CLOSE => Self::Close(Close::parse(body)?),
            tag::FLUSH => {
                Body::new("Flush", body).finish()?;
                Self::Flush
            }
            tag::SYNC => {
                Body::new("Sync", body).finish()?;
                Self::Sync
            }
            tag::FUNCTION_CALL => Self::FunctionCall(FunctionCall::parse(body)?),
            tag::COPY_DATA => Self::CopyData(body),
            tag::COPY_DONE => Self::CopyDone,
            tag::COPY_FAIL => Self::CopyFail(CopyFail::parse(body)?),
            tag::PASSWORD => Self::Password(body),
            tag::TERMINATE => Self::Terminate,
            tag => {
                return Err(PgError::UnknownTag {
                    tag,
                    sender: "frontend",
                });
            }
        })
    }
}

/// `Flush`, whole.
pub const FLUSH: [u8; 5] = [tag::FLUSH, 0, 0, 0, 4];
/// `Sync`, whole.
pub const SYNC: [u8; 5] = [tag::SYNC, 0, 0, 0, 4];
/// `Terminate`, whole.
pub const TERMINATE: [u8; 5] = [tag::TERMINATE, 0, 0, 0, 4];
/// `CopyDone`, whole.
pub const COPY_DONE: [u8; 5] = [tag::COPY_DONE, 0, 0, 0, 4];
