//! Why Redis does not take what it is sent, in words that say what to do.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a batch is not in Redis. All of them are tried again: nothing is dropped
/// because Redis refuses it.
///
/// Carries error codes and never what a server said in its own words, which may
/// quote what was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It cannot be reached, or the connection broke.
    #[error("Redis cannot be reached ({0})")]
    Away(String),
    /// It does not answer in time.
    #[error("Redis does not answer in time")]
    Slow,
    /// It is loading its data, or busy with a script.
    #[error("Redis is busy ({0})")]
    Busy(String),
    /// Its memory is full.
    #[error(
        "Redis is out of memory (OOM): raise its `maxmemory`; recordings are never evicted to make room"
    )]
    Memory,
    /// It cannot write to its disk.
    #[error("Redis cannot persist what it is sent (MISCONF): look at its disk and its log")]
    Disk,
    /// It is a replica.
    #[error("Redis is a read-only replica (READONLY): `recorder.redis` must name the primary")]
    ReadOnly,
    /// The credentials are missing, wrong, or not enough.
    #[error(
        "Redis refuses the recorder's credentials ({0}): docs/recording.md has the permissions that it needs"
    )]
    Denied(String),
    /// A key that should be a stream is something else.
    #[error(
        "a key of the recorder's is not a stream (WRONGTYPE): rename it, or set another `recorder.prefix`"
    )]
    WrongType,
    /// No replica has what the server took.
    #[error(
        "Redis has it, and no replica of it follows: what would be lost in a failover is sent again"
    )]
    Unfollowed,
    /// A Cluster's slots are somewhere else than was known.
    #[error("the Cluster's slots are moving")]
    Moved,
    /// A Cluster's slot is on its way to another node.
    #[error("the Cluster's slots are moving")]
    Ask {
        /// That node.
        node: String,
    },
    /// A session's stream has entries that come later than the ones to write.
    #[error("a session's stream has entries that this recorder did not write")]
    Conflict,
    /// Anything else.
    #[error("Redis answered with an error ({0})")]
    Other(String),
}

/// How Redis begins the message about an entry ID that is not the highest.
const CONFLICT: &str = "The ID specified in XADD is equal or smaller";

impl Fault {
    /// Whether the connection is of no more use, and it is not known what of the
    /// batch was done.
    pub(super) fn is_connection(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Slow)
    }

    /// Reads an error of the client's, or one that the client read for us.
    #[must_use]
    pub fn of(error: &RedisError) -> Self {
        if error.is_timeout() {
            return Self::Slow;
        }
        match error.kind() {
            ErrorKind::Io => Self::Away(error.category().to_owned()),
            ErrorKind::AuthenticationFailed => Self::Denied(code(error)),
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown => Self::Busy(code(error)),
                ServerErrorKind::ReadOnly => Self::ReadOnly,
                ServerErrorKind::Moved => Self::Moved,
                ServerErrorKind::Ask => match error.redirect_node() {
                    Some((node, _)) => Self::Ask {
                        node: node.to_owned(),
                    },
                    None => Self::Moved,
                },
                ServerErrorKind::NoPerm => Self::Denied(code(error)),
                ServerErrorKind::ResponseError
                    if error
                        .detail()
                        .is_some_and(|text| text.starts_with(CONFLICT)) =>
                {
                    Self::Conflict
                }
                _ => Self::by_code(&code(error)),
            },
            ErrorKind::Extension => Self::by_code(&code(error)),
            ErrorKind::Parse => Self::Away("it does not speak Redis's protocol".to_owned()),
            _ => Self::Other(error.category().to_owned()),
        }
    }

    fn by_code(code: &str) -> Self {
        match code {
            "OOM" => Self::Memory,
            "MISCONF" | "NOREPLICAS" => Self::Disk,
            "WRONGTYPE" => Self::WrongType,
            "NOAUTH" | "WRONGPASS" => Self::Denied(code.to_owned()),
            "BUSY" => Self::Busy(code.to_owned()),
            other => Self::Other(other.to_owned()),
        }
    }
}

fn code(error: &RedisError) -> String {
    error.code().unwrap_or("ERR").to_owned()
}
