//! A connection that takes commands, whatever is at its other end.

use redis::cluster::ClusterConnection;
use redis::{Cmd, Connection, ConnectionLike, RedisResult, Value};

/// A connection for commands, whatever it leads to.
pub enum Link {
    /// One server.
    Single(Box<Connection>),
    /// A Cluster's.
    Cluster(Box<ClusterConnection>),
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    fn as_like(&self) -> &dyn ConnectionLike {
        match self {
            Self::Single(connection) => &**connection,
            Self::Cluster(connection) => &**connection,
        }
    }

    fn as_like_mut(&mut self) -> &mut dyn ConnectionLike {
        match self {
            Self::Single(connection) => &mut **connection,
            Self::Cluster(connection) => &mut **connection,
        }
    }
}

impl ConnectionLike for Link {
    fn req_packed_command(&mut self, cmd: &[u8]) -> RedisResult<Value> {
        self.as_like_mut().req_packed_command(cmd)
    }

    fn req_packed_commands(
        &mut self,
        cmd: &[u8],
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        self.as_like_mut().req_packed_commands(cmd, offset, count)
    }

    fn req_command(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        self.as_like_mut().req_command(cmd)
    }

    fn get_db(&self) -> i64 {
        self.as_like().get_db()
    }

    fn supports_pipelining(&self) -> bool {
        self.as_like().supports_pipelining()
    }

    fn check_connection(&mut self) -> bool {
        self.as_like_mut().check_connection()
    }

    fn is_open(&self) -> bool {
        self.as_like().is_open()
    }
}
