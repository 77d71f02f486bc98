//! One server, perhaps with another that takes over.

use redis::{Connection, RedisError, RedisResult};
use uuid::Uuid;

use super::{
    Batch, Commands, Fault, Followers, KEEP, PATIENCE, Place, begin, exec, failed, fence, hset,
    is_no_stream, number_of, transaction,
};
use crate::recorder::resp::Stream;

/// The server, and the way to it.
pub(in super::super) struct Single {
    place: Place,
    connection: Option<Connection>,
    /// The server's name for the connection.
    connection_id: Option<i64>,
    /// Tells one run of the server from another's.
    server: String,
    /// A broken connection of ours that the server may still be reading from.
    fence: Option<(String, i64)>,
    prefix: String,
    /// `<prefix>:hosts`.
    hosts: String,
    /// `<prefix>:writers`: by process, the mark of its last frame.
    writers: String,
    host: String,
    /// What was done has not been seen at a replica.
    unfollowed: bool,
    followers: Followers,
    buffer: Vec<u8>,
}

/// What of a batch was not done, and how many replicas have the rest.
type Sent = (Vec<(usize, Fault)>, Option<u64>);

impl Single {
    pub(super) fn new(place: Place, prefix: &str, host: &str) -> Self {
        Self {
            place,
            connection: None,
            connection_id: None,
            server: String::new(),
            fence: None,
            prefix: prefix.to_owned(),
            hosts: format!("{prefix}:hosts"),
            writers: format!("{prefix}:writers"),
            host: host.to_owned(),
            unfollowed: false,
            followers: Followers::default(),
            buffer: Vec::new(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    pub(super) fn commit(&mut self, batch: &mut Batch, sign: Option<&str>) -> Result<(), Fault> {
        let done = self.attempt(batch, sign);
        if let Err(fault) = &done {
            // A server that became a replica is not the one that the Sentinels name.
            let moved = self.place.fails_over() && *fault == Fault::ReadOnly;
            if fault.is_connection() || moved {
                self.disconnect();
            }
        }
        done
    }

    fn attempt(&mut self, batch: &mut Batch, sign: Option<&str>) -> Result<(), Fault> {
        self.connect()?;
        let mut have = None;
        if !self.unfollowed {
            let rest = if batch.unsure {
                self.sort_out(batch)?
            } else {
                None
            };
            // Until it is known that all of it was done, and is safe, the batch stays
            // whole.
            let all = std::mem::take(&mut batch.commands);
            let todo = rest.as_ref().unwrap_or(&all);
            // A replica can be waited for only behind something that this connection
            // wrote, so a batch that was done writes its mark again.
            let is_due = !all.is_empty() || sign.is_some();
            batch.unsure = !all.is_empty();
            let sent = is_due.then(|| self.send(batch, todo, sign)).transpose();
            match sent {
                Ok(Some((failed, _))) if !failed.is_empty() => {
                    batch.commands = rest.unwrap_or(all);
                    return Err(batch.left(failed));
                }
                Ok(sent) => {
                    have = sent.and_then(|(_, have)| have);
                    batch.commands = all;
                }
                Err(fault) => {
                    batch.commands = all;
                    return Err(fault);
                }
            }
            self.unfollowed = is_due && self.place.fails_over();
        }
        if self.unfollowed {
            let mut followers = self.followers;
            // The batch's mark, at least, was written by this connection.
            let followed = followers.follow(self.connected()?, have, true);
            self.followers = followers;
            followed?;
            self.unfollowed = false;
        }
        batch.done();
        Ok(())
    }

    fn connect(&mut self) -> Result<(), Fault> {
        if self.connection.is_some() {
            return Ok(());
        }
        let ready = || {
            let mut connection = self.place.connect_single(PATIENCE)?;
            let server = run_id(&mut connection);
            if let Some((old, id)) = &self.fence
                && *old == server
            {
                fence(&mut connection, *id);
            }
            redis::cmd("PING").exec(&mut connection)?;
            Ok((connection, server))
        };
        let (mut connection, server) = ready().map_err(|error: RedisError| Fault::of(&error))?;
        self.fence = None;
        self.followers = Followers::default();
        self.server = server;
        self.connection_id = redis::cmd("CLIENT").arg("ID").query(&mut connection).ok();
        self.connection = Some(connection);
        Ok(())
    }

    fn connected(&mut self) -> Result<&mut Connection, Fault> {
        self.connection
            .as_mut()
            .ok_or_else(|| Fault::Away("not connected".to_owned()))
    }

    fn disconnect(&mut self) {
        self.connection = None;
        self.unfollowed = false;
        let server = std::mem::take(&mut self.server);
        self.fence = self.connection_id.take().map(|id| (server, id));
    }

    /// What of the batch is not known to be done; `None`: nothing is.
    fn sort_out(&mut self, batch: &Batch) -> Result<Option<Commands>, Fault> {
        let (prefix, key) = (self.prefix.clone(), self.writers.clone());
        let connection = self.connected()?;
        let mut look = || -> RedisResult<Option<Vec<Stream>>> {
            let mark: Option<String> = redis::cmd("HGET")
                .arg(&key)
                .arg(batch.writer.to_string())
                .query(connection)?;
            if !batch.is_done_by(mark.as_deref()) {
                return Ok(None);
            }
            // Its sessions' entries tell for themselves whether they are there.
            let mut failed = vec![Stream::Session];
            for (stream, _) in Stream::SHARED {
                if is_no_stream(connection, &prefix, stream)? {
                    failed.push(stream);
                }
            }
            Ok(Some(failed))
        };
        let failed = look().map_err(|error| Fault::of(&error))?;
        Ok(failed.map(|failed| {
            let mut rest = batch.commands.clone();
            rest.retain(|_, stream| failed.contains(&stream));
            rest
        }))
    }

    /// Sends `todo`, and tells which of it was not done, and how many replicas have the
    /// rest, where they were asked.
    fn send(
        &mut self,
        batch: &mut Batch,
        todo: &Commands,
        sign: Option<&str>,
    ) -> Result<Sent, Fault> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        begin(&mut buffer);
        buffer.extend_from_slice(todo.bytes());
        let mut count = todo.len();
        if batch.unsure {
            let writer = batch.writer.to_string();
            hset(&mut buffer, &self.writers, &writer, &batch.mark());
            count += 1;
        }
        if let Some(sign) = sign {
            hset(&mut buffer, &self.hosts, &self.host, sign);
            count += 1;
        }
        exec(&mut buffer);
        let asked = self.place.fails_over() && self.followers.ask(&mut buffer);
        let sent = self.connected()?.send_packed_command(&buffer);
        if buffer.capacity() <= 2 * KEEP {
            self.buffer = buffer;
        }
        sent.map_err(|error| Fault::of(&error))?;

        let connection = self.connected()?;
        let answer = transaction(connection, count)?;
        let have = asked.then(|| Followers::answer(connection)).transpose()?;
        let results = match answer {
            Ok(results) => results,
            Err(fault) => {
                // Nothing of it was done.
                batch.unsure = false;
                return Err(fault);
            }
        };
        let indices: Vec<usize> = (0..todo.len()).collect();
        let failed = failed(connection, todo, &indices, &results)?;
        Ok((failed, have))
    }

    pub(super) fn reached(&mut self, writer: Uuid) -> Result<Option<u64>, Fault> {
        let key = self.writers.clone();
        let mark = self.ask(|connection| {
            redis::cmd("HGET")
                .arg(key)
                .arg(writer.to_string())
                .query::<Option<String>>(connection)
        })?;
        Ok(mark.as_deref().and_then(number_of))
    }

    pub(super) fn forget(&mut self, writer: Uuid) -> Result<(), Fault> {
        let key = self.writers.clone();
        self.ask(|connection| {
            redis::cmd("HDEL")
                .arg(key)
                .arg(writer.to_string())
                .exec(connection)
        })
    }

    fn ask<T>(&mut self, ask: impl FnOnce(&mut Connection) -> RedisResult<T>) -> Result<T, Fault> {
        self.connect()?;
        let answer = ask(self.connected()?).map_err(|error| Fault::of(&error));
        if let Err(fault) = &answer
            && fault.is_connection()
        {
            self.disconnect();
        }
        answer
    }
}

/// Changes with every start of the server; nothing where it is not told.
fn run_id(connection: &mut Connection) -> String {
    let info: RedisResult<String> = redis::cmd("INFO").arg("server").query(connection);
    info.ok()
        .and_then(|info| {
            let line = info.lines().find_map(|line| line.strip_prefix("run_id:"))?;
            Some(line.trim().to_owned())
        })
        .unwrap_or_default()
}
