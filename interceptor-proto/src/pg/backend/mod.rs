//! Messages sent by the server (upstream → downstream).
//!
//! Each is read from the body of a whole frame, uses it up or refuses it, and
//! borrows from it, which is also what PostgreSQL's own client does: it drops a
//! connection whose message is longer than its fields.
//!
//! * [`authentication`]: the requests, and the key for cancelling;
//! * [`row`]: `RowDescription` and `DataRow`, the bulk of the traffic;
//! * [`notice`]: `ErrorResponse` and `NoticeResponse`;
//! * [`session`]: state, completion, COPY, and what comes unasked.
//!
//! Format: PostgreSQL manual, page `protocol-message-formats`.

pub mod authentication;
pub mod notice;
pub mod row;
pub mod session;

pub use authentication::{Authentication, BackendKeyData, Mechanisms};
pub use notice::{Fields, Notice, NoticeBuilder, Severity};
pub use row::{Columns, DataRow, DataRowBuilder, Field, OwnedField, RowDescription};
pub use session::{
    CommandComplete, CopyResponse, FunctionCallResponse, NegotiateProtocolVersion, Notification,
    ParameterDescription, ParameterStatus, ReadyForQuery, TransactionStatus,
};

use super::{PgError, body::Body, tag::backend as tag, write};

/// Any message of the server, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// An authentication request, or that none is needed.
    Authentication(Authentication<'a>),
    /// What a `CancelRequest` needs.
    BackendKeyData(BackendKeyData<'a>),
    /// A setting's value.
    ParameterStatus(ParameterStatus<'a>),
    /// The next exchange may begin.
    ReadyForQuery(ReadyForQuery),
    /// The columns to come.
    RowDescription(RowDescription<'a>),
    /// One row.
    DataRow(DataRow<'a>),
    /// A statement is done.
    CommandComplete(CommandComplete<'a>),
    /// An empty text is done.
    EmptyQueryResponse,
    /// A portal has more rows than were asked for.
    PortalSuspended,
    /// The parameters' types.
    ParameterDescription(ParameterDescription<'a>),
    /// No rows will come.
    NoData,
    /// `Parse` is done.
    ParseComplete,
    /// `Bind` is done.
    BindComplete,
    /// `Close` is done.
    CloseComplete,
    /// The server waits for COPY data.
    CopyInResponse(CopyResponse<'a>),
    /// COPY data will come.
    CopyOutResponse(CopyResponse<'a>),
    /// Both (replication).
    CopyBothResponse(CopyResponse<'a>),
    /// Data of a COPY.
    CopyData(&'a [u8]),
    /// End of a COPY's data.
    CopyDone,
    /// An error.
    ErrorResponse(Notice<'a>),
    /// Something worth knowing.
    NoticeResponse(Notice<'a>),
    /// Another session's `NOTIFY`.
    NotificationResponse(Notification<'a>),
    /// A function's result.
    FunctionCallResponse(FunctionCallResponse<'a>),
    /// The server speaks less than it was asked to.
    NegotiateProtocolVersion(NegotiateProtocolVersion<'a>),
}

impl<'a> Message<'a> {
    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// An unknown tag, and a body that is not what the tag promises.
    pub fn parse(tag: u8, body: &'a [u8]) -> Result<Self, PgError> {
        Ok(match tag {
            tag::AUTHENTICATION => Self::Authentication(Authentication::parse(body)?),
            tag::BACKEND_KEY_DATA => Self::BackendKeyData(BackendKeyData::parse(body)?),
            tag::PARAMETER_STATUS => Self::ParameterStatus(ParameterStatus::parse(body)?),
            tag::READY_FOR_QUERY => Self::ReadyForQuery(ReadyForQuery::parse(body)?),
            tag::ROW_DESCRIPTION => Self::RowDescription(RowDescription::parse(body)?),
            tag::DATA_ROW => Self::DataRow(DataRow::parse(body)?),
            tag::COMMAND_COMPLETE => Self::CommandComplete(CommandComplete::parse(body)?),
            tag::EMPTY_QUERY_RESPONSE => {
                empty("EmptyQueryResponse", body, Self::EmptyQueryResponse)?
            }
            tag::PORTAL_SUSPENDED => empty("PortalSuspended", body, Self::PortalSuspended)?,
            tag::PARAMETER_DESCRIPTION => {
                Self::ParameterDescription(ParameterDescription::parse(body)?)
            }
            tag::NO_DATA => empty("NoData", body, Self::NoData)?,
            tag::PARSE_COMPLETE => empty("ParseComplete", body, Self::ParseComplete)?,
            tag::BIND_COMPLETE => empty("BindComplete", body, Self::BindComplete)?,
            tag::CLOSE_COMPLETE => empty("CloseComplete", body, Self::CloseComplete)?,
            tag::COPY_IN_RESPONSE => Self::CopyInResponse(CopyResponse::parse(body)?),
            tag::COPY_OUT_RESPONSE => Self::CopyOutResponse(CopyResponse::parse(body)?),
            tag::COPY_BOTH_RESPONSE => Self::CopyBothResponse(CopyResponse::parse(body)?),
            tag::COPY_DATA => Self::CopyData(body),
            tag::COPY_DONE => empty("CopyDone", body, Self::CopyDone)?,
            tag::ERROR_RESPONSE => Self::ErrorResponse(Notice::parse(body)?),
            tag::NOTICE_RESPONSE => Self::NoticeResponse(Notice::parse(body)?),
            tag::NOTIFICATION_RESPONSE => Self::NotificationResponse(Notification::parse(body)?),
            tag::FUNCTION_CALL_RESPONSE => {
                Self::FunctionCallResponse(FunctionCallResponse::parse(body)?)
            }
            tag::NEGOTIATE_PROTOCOL_VERSION => {
                Self::NegotiateProtocolVersion(NegotiateProtocolVersion::parse(body)?)
            }
            tag => {
                return Err(PgError::UnknownTag {
                    tag,
                    sender: "backend",
                });
            }
        })
    }
}

/// Appends a message that has no fields, such as `ParseComplete`.
pub fn encode_empty(tag: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[tag, 0, 0, 0, 4]);
}

fn empty<'a>(
    name: &'static str,
    body: &[u8],
    message: Message<'a>,
) -> Result<Message<'a>, PgError> {
    Body::new(name, body).finish()?;
    Ok(message)
}
