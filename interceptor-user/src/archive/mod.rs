//! Closed sessions, kept outside of Redis: one object a session, in a folder or in S3.
//!
//! * [`format`] is what an object looks like, and checks one while it is read;
//! * [`place`] is where objects are: a whole one, or none;
//! * [`ledger`] says which sessions there are in Redis, and which must stay there;
//! * [`keep`] brings a session into the archive, and out of Redis;
//! * [`restore`] brings it back;
//! * [`retention`] does both of what may go, again and again;
//! * [`source`] lets every command that reads recordings read an archive.
//!
//! An archive is a copy, byte for byte, of what stands in Redis: fields, entry IDs, and the
//! session's entries of `sessions`. So whatever can be proved of a recording can be proved
//! of its archive.

pub mod format;
pub mod keep;
pub mod ledger;
pub mod place;
pub mod restore;
pub mod retention;
pub mod source;

use crate::recorder::evidence::KeyError;
use crate::recorder::read::ReadError;

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The place is none.
    #[error("{0:?} is no place for an archive: a folder, file:///path or s3://bucket/prefix")]
    Place(String),
    /// The store does not do what it is asked.
    #[error("{place}: {why}")]
    Store {
        /// Where.
        place: String,
        /// Why; without what it is asked with.
        why: String,
    },
    /// There is no such object.
    #[error("session {0} is not in the archive")]
    Unknown(String),
    /// An object is not what was written.
    #[error("the archive of session {session} is no good: {why}")]
    Broken {
        /// The session.
        session: String,
        /// What is wrong with it.
        why: format::Fault,
    },
    /// A secret of the configuration cannot be had.
    #[error(transparent)]
    Secret(#[from] crate::secrets::SecretError),
    /// What is done to recordings cannot be signed.
    #[error(
        "removing recordings is signed with the key of a host that records there, and it cannot be had: {0}"
    )]
    Key(#[from] KeyError),
    /// Reading or writing failed on the way.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Redis does not do what it is asked.
    #[error(transparent)]
    Read(Box<ReadError>),
    /// The session must stay where it is.
    #[error("session {session} stays in Redis: {why}")]
    Stays {
        /// The session.
        session: String,
        /// Why.
        why: ledger::Stays,
    },
    /// Another recording is there under the same name.
    #[error("session {session} is {whereabouts} already, and is another one there")]
    Differs {
        /// The session.
        session: String,
        /// Where.
        whereabouts: &'static str,
    },
}

impl From<ReadError> for ArchiveError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Archive(error) => *error,
            other => Self::Read(Box::new(other)),
        }
    }
}
