//! One batch at a time into Redis, each of them once.
//!
//! A batch is a transaction: `MULTI`, its commands, a mark in the `hosts` hash that
//! names the batch, `EXEC`. So a server that is full, read-only or without disk
//! takes all of it or nothing, and entries of a session cannot overtake each other.
//!
//! A command inside `EXEC` can fail alone, when its key is not a stream; the failed
//! ones stay in the batch, in order, and are tried again.
//!
//! When a connection breaks in the middle, nobody knows whether `EXEC` was done. On
//! the next connection the old one is killed first, so that nothing of it is done
//! from now on. Then the mark says whether the batch was done. If not, all of it is
//! sent again. If so, what is sent again are session entries, which are refused as
//! duplicates by their IDs where they are there, and what was meant for a shared key
//! that is not a stream. Should another daemon of the same host name have written
//! the mark since, lines of the shared streams can stand there twice; session
//! entries cannot.

use std::time::Duration;

use redis::{Client, Connection, RedisError, Value};

use super::fault::Fault;
use super::resp::{Commands, Stream, bulk};

/// How long connecting may take, and each answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of a batch's buffer is kept for the next one.
const KEEP: usize = 1 << 20;

/// A place to put batches.
pub(super) struct Store {
    client: Client,
    connection: Option<Connection>,
    /// The server's name for the connection.
    connection_id: Option<i64>,
    /// A broken connection of ours that the server may still be reading from.
    fence: Option<i64>,
    prefix: String,
    /// `<prefix>:hosts`.
    hosts: String,
    host: String,
    /// This recorder's mark before the batch's number.
    writer: String,
    batch: u64,
    /// It is not known whether the batch was done.
    unsure: bool,
    /// Some of the batch may be there from a time before.
    again: bool,
    buffer: Vec<u8>,
}

impl Store {
    pub(super) fn new(client: Client, prefix: &str, host: &str, writer: String) -> Self {
        Self {
            client,
            connection: None,
            connection_id: None,
            fence: None,
            prefix: prefix.to_owned(),
            hosts: format!("{prefix}:hosts"),
            host: host.to_owned(),
            writer,
            batch: 0,
            unsure: false,
            again: false,
            buffer: Vec::new(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Begins the next batch.
    pub(super) fn begin(&mut self) {
        self.batch += 1;
        self.unsure = false;
        self.again = false;
    }

    /// Tries to have the batch done; `sign` is this host's sign of life, a JSON
    /// object without its end. Call again with the same commands after a fault;
    /// the ones that were done alone are taken out.
    pub(super) fn commit(&mut self, commands: &mut Commands, sign: &str) -> Result<(), Fault> {
        if self.connection.is_none() {
            self.connect()?;
        }
        if self.unsure {
            self.sort_out(commands)?;
            self.unsure = false;
            self.again = true;
            if commands.is_empty() {
                return Ok(());
            }
        }
        let answer = self.send(commands, sign);
        match answer {
            Ok(results) => keep_failed(commands, &results, self.again).inspect_err(|_| {
                // The mark of this number stands, and what is left is not done.
                self.batch += 1;
            }),
            Err(fault) => {
                if fault.is_connection() {
                    self.disconnect();
                    self.unsure = true;
                }
                Err(fault)
            }
        }
    }

    fn connect(&mut self) -> Result<(), Fault> {
        let mut connection = self
            .client
            .get_connection_with_timeout(PATIENCE)
            .map_err(|error| Fault::of(&error))?;
        let ready = (|| {
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.set_write_timeout(Some(PATIENCE))?;
            if let Some(old) = self.fence {
                // Without the permission to kill, the entries' IDs have to do.
                let _: Result<i64, RedisError> = redis::cmd("CLIENT")
                    .arg("KILL")
                    .arg("ID")
                    .arg(old)
                    .query(&mut connection);
            }
            redis::cmd("PING").query::<String>(&mut connection)
        })();
        ready.map_err(|error| Fault::of(&error))?;
        self.fence = None;
        self.connection_id = redis::cmd("CLIENT").arg("ID").query(&mut connection).ok();
        self.connection = Some(connection);
        Ok(())
    }

    fn disconnect(&mut self) {
        self.connection = None;
        self.fence = self.connection_id.take();
    }

    /// Takes out of `commands` what is known to be done.
    fn sort_out(&mut self, commands: &mut Commands) -> Result<(), Fault> {
        let mark = self.mark();
        let looked = (|| {
            let Some(connection) = self.connection.as_mut() else {
                return Ok(());
            };
            let sign: Option<String> = redis::cmd("HGET")
                .arg(&self.hosts)
                .arg(&self.host)
                .query(connection)?;
            if !sign.is_some_and(|sign| sign.ends_with(&mark)) {
                return Ok(());
            }
            let mut failed = vec![Stream::Session];
            for (stream, key) in Stream::SHARED {
                let kind: String = redis::cmd("TYPE")
                    .arg(format!("{}:{key}", self.prefix))
                    .query(connection)?;
                if kind != "stream" && kind != "none" {
                    failed.push(stream);
                }
            }
            commands.retain(|_, stream| failed.contains(&stream));
            self.batch += 1;
            Ok(())
        })();
        looked.map_err(|error: RedisError| {
            let fault = Fault::of(&error);
            if fault.is_connection() {
                self.disconnect();
            }
            fault
        })
    }

    /// The end of this host's sign of life.
    fn mark(&self) -> String {
        format!(",\"writer\":\"{}\",\"batch\":{}}}", self.writer, self.batch)
    }

    /// Sends the batch and reads what each of its commands came to.
    fn send(&mut self, commands: &Commands, sign: &str) -> Result<Vec<Value>, Fault> {
        let mark = self.mark();
        let Some(connection) = self.connection.as_mut() else {
            return Err(Fault::Away("not connected".to_owned()));
        };
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
        buffer.extend_from_slice(commands.bytes());
        buffer.extend_from_slice(b"*4\r\n$4\r\nHSET\r\n");
        bulk(buffer, self.hosts.as_bytes());
        bulk(buffer, self.host.as_bytes());
        bulk(buffer, [sign, &mark].concat().as_bytes());
        buffer.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        let sent = connection.send_packed_command(buffer);
        if buffer.capacity() > 2 * KEEP {
            *buffer = Vec::new();
        }
        sent.map_err(|error| Fault::of(&error))?;

        // One answer to MULTI, one to each command queued, the mark's included.
        let mut refusal = None;
        for _ in 0..commands.len() + 2 {
            let answer = connection
                .recv_response()
                .map_err(|error| Fault::of(&error))?;
            if let (Value::ServerError(error), None) = (answer, &refusal) {
                refusal = Some(Fault::of(&error.into()));
            }
        }
        let done = connection
            .recv_response()
            .map_err(|error| Fault::of(&error))?;
        match (done, refusal) {
            (Value::Array(results), None) => Ok(results),
            (_, Some(refusal)) => Err(refusal),
            (Value::ServerError(error), None) => Err(Fault::of(&error.into())),
            (_, None) => Err(Fault::Other("EXEC".to_owned())),
        }
    }
}

/// Takes out of `commands` what was done, by the results of `EXEC`.
fn keep_failed(commands: &mut Commands, results: &[Value], again: bool) -> Result<(), Fault> {
    let fault_of = |result: Option<&Value>| match result {
        Some(Value::ServerError(error)) => match Fault::of(&error.clone().into()) {
            // It is there from the time before.
            Fault::Conflict if again => None,
            fault => Some(fault),
        },
        Some(_) => None,
        None => Some(Fault::Other("EXEC".to_owned())),
    };
    let Some(first) = (0..commands.len()).find_map(|index| fault_of(results.get(index))) else {
        return Ok(());
    };
    commands.retain(|index, _| fault_of(results.get(index)).is_some());
    Err(first)
}

/// Whether a Redis answers at `url`.
pub(super) fn answers(client: &Client, patience: Duration) -> Result<(), Fault> {
    let ping = || {
        let mut connection = client.get_connection_with_timeout(patience)?;
        connection.set_read_timeout(Some(patience))?;
        redis::cmd("PING").query::<String>(&mut connection)
    };
    ping().map(drop).map_err(|error| Fault::of(&error))
}
