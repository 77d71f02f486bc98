//! One frame at a time into Redis, each of its commands once.
//!
//! Commands for keys that one server has go as a transaction: `MULTI`, the commands, a
//! mark that names the frame, `EXEC`. So a server that is full, read-only or without
//! disk takes all of it or nothing, and entries of a session cannot overtake each
//! other. On one server ([`single`]) that is the whole frame; in a Cluster
//! ([`cluster`]), what belongs to one slot.
//!
//! When a connection breaks in the middle, nobody knows whether `EXEC` was done. On
//! the next connection the old one is killed first, so that nothing of it is done from
//! now on. Then the mark says whether the frame was done. The mark stays in Redis with
//! the id of the process that wrote the frame, so whoever sends on what a dead process
//! left asks it, too.
//!
//! An entry of a session has an ID of its own, and Redis refuses one that is not
//! higher than the last. What is refused is looked for, and was done where it is there
//! with the same `chain`.
//!
//! A command inside `EXEC` can fail alone, when its key is not a stream; the failed
//! ones stay in the batch, in order, and are tried again.

mod cluster;
mod single;

use redis::{Connection, RedisResult, Value};
use uuid::Uuid;

use super::fault::Fault;
use super::place::Place;
use super::resp::{self, Commands, Stream, bulk};
use super::spool::Frame;

use std::time::{Duration, Instant};

/// How long connecting may take, and each answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a replica has to follow before it is asked again, in milliseconds.
const FOLLOW_MS: u32 = 1_000;

/// How long a server without a replica is taken for one.
const ALONE: Duration = Duration::from_secs(1);

/// How much of a buffer is kept for the next batch.
const KEEP: usize = 1 << 20;

/// A frame on its way.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Who wrote it.
    writer: Uuid,
    number: u64,
    /// Grows when some of the commands were done and others were not.
    part: u32,
    pub(super) commands: Commands,
    /// It is not known whether it was done.
    unsure: bool,
    /// A process before this one may have sent it.
    inherited: bool,
}

impl Batch {
    /// Nothing but a sign of life.
    pub(super) fn empty(writer: Uuid) -> Self {
        Self {
            writer,
            ..Self::default()
        }
    }

    /// A frame of `writer`'s; `inherited` where that is a process before this one,
    /// which may have sent it.
    pub(super) fn of(writer: Uuid, frame: &mut Frame, inherited: bool) -> Self {
        Self {
            writer,
            number: frame.number,
            part: 0,
            commands: std::mem::take(&mut frame.commands),
            unsure: inherited,
            inherited,
        }
    }

    fn mark(&self) -> String {
        format!("{}.{}", self.number, self.part)
    }

    /// Whether `mark` says that this part of it was done.
    fn is_done_by(&self, mark: Option<&str>) -> bool {
        if self.inherited && self.part == 0 {
            return mark
                .and_then(number_of)
                .is_some_and(|number| number >= self.number);
        }
        mark == Some(&self.mark())
    }

    /// All of it was done but what `failed`, which is a part by itself from now on;
    /// the first fault.
    fn left(&mut self, failed: Vec<(usize, Fault)>) -> Fault {
        self.commands
            .retain(|index, _| failed.iter().any(|(one, _)| *one == index));
        self.part += 1;
        self.unsure = false;
        let first = failed.into_iter().next();
        first.map_or_else(|| Fault::Other("EXEC".to_owned()), |(_, fault)| fault)
    }

    fn done(&mut self) {
        self.commands.clear();
        self.unsure = false;
    }
}

/// A place to put batches.
pub(super) enum Store {
    Single(Box<single::Single>),
    Cluster(Box<cluster::Cluster>),
}

impl Store {
    pub(super) fn new(place: Place, prefix: &str, host: &str) -> Self {
        if place.is_cluster() {
            Self::Cluster(Box::new(cluster::Cluster::new(place, prefix, host)))
        } else {
            Self::Single(Box::new(single::Single::new(place, prefix, host)))
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        match self {
            Self::Single(single) => single.is_connected(),
            Self::Cluster(cluster) => cluster.is_connected(),
        }
    }

    /// Tries to have the batch done; `sign` is this host's sign of life, where one is
    /// due. Call again with the same batch after a fault; what was done is taken out.
    pub(super) fn commit(&mut self, batch: &mut Batch, sign: Option<&str>) -> Result<(), Fault> {
        match self {
            Self::Single(single) => single.commit(batch, sign),
            Self::Cluster(cluster) => cluster.commit(batch, sign),
        }
    }

    /// The number of the last frame of `writer`'s that reached Redis, perhaps in part.
    pub(super) fn reached(&mut self, writer: Uuid) -> Result<Option<u64>, Fault> {
        match self {
            Self::Single(single) => single.reached(writer),
            Self::Cluster(cluster) => cluster.reached(writer),
        }
    }

    /// Takes away what is remembered of `writer`.
    pub(super) fn forget(&mut self, writer: Uuid) -> Result<(), Fault> {
        match self {
            Self::Single(single) => single.forget(writer),
            Self::Cluster(cluster) => cluster.forget(writer),
        }
    }
}

/// The number in a mark.
fn number_of(mark: &str) -> Option<u64> {
    mark.split_once('.')?.0.parse().ok()
}

/// Appends `MULTI`.
fn begin(buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
}

/// Appends `HSET key field value`.
fn hset(buffer: &mut Vec<u8>, key: &str, field: &str, value: &str) {
    buffer.extend_from_slice(b"*4\r\n$4\r\nHSET\r\n");
    for part in [key, field, value] {
        bulk(buffer, part.as_bytes());
    }
}

/// Appends `EXEC`.
fn exec(buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
}

/// Reads what `count` commands between `MULTI` and `EXEC` came to; the outer fault is
/// the connection's.
fn transaction(
    connection: &mut Connection,
    count: usize,
) -> Result<Result<Vec<Value>, Fault>, Fault> {
    let mut refusal = None;
    // One answer to MULTI, one to each command queued.
    for _ in 0..=count {
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
    Ok(match (done, refusal) {
        (Value::Array(results), None) => Ok(results),
        (_, Some(refusal)) => Err(refusal),
        (Value::ServerError(error), None) => Err(Fault::of(&error.into())),
        (_, None) => Err(Fault::Other("EXEC".to_owned())),
    })
}

/// Why a command was not done, where it was not.
fn fault_of(result: Option<&Value>) -> Option<Fault> {
    match result {
        Some(Value::ServerError(error)) => Some(Fault::of(&error.clone().into())),
        Some(_) => None,
        None => Some(Fault::Other("EXEC".to_owned())),
    }
}

/// Of commands with `faults`, which were done after all: the entry is there from a
/// time before, with the same `chain`.
fn confirm(
    connection: &mut Connection,
    commands: &Commands,
    conflicts: &[usize],
) -> RedisResult<Vec<bool>> {
    let mut asking = redis::pipe();
    let mut wanted = Vec::with_capacity(conflicts.len());
    for index in conflicts {
        let parts = commands.command(*index).and_then(resp::parts);
        let parts = parts.unwrap_or_default();
        let (Some(key), Some(id), Some(chain)) = (parts.get(1), parts.get(2), parts.last()) else {
            return Ok(vec![false; conflicts.len()]);
        };
        asking.cmd("XRANGE").arg(*key).arg(*id).arg(*id);
        wanted.push(*chain);
    }
    let found: Vec<Value> = asking.query(connection)?;
    let holds = |(found, wanted): (&Value, &&[u8])| {
        let chain = |value: &Value| matches!(value, Value::BulkString(bytes) if bytes == wanted);
        // [[id, [name, value, …]]]; the chain stands last.
        matches!(found, Value::Array(entries) if matches!(entries.first(),
            Some(Value::Array(entry)) if matches!(entry.get(1),
                Some(Value::Array(fields)) if fields.last().is_some_and(chain))))
    };
    Ok(found.iter().zip(&wanted).map(holds).collect())
}

/// What of a transaction's commands was not done; `indices` are theirs in `commands`.
fn failed(
    connection: &mut Connection,
    commands: &Commands,
    indices: &[usize],
    results: &[Value],
) -> Result<Vec<(usize, Fault)>, Fault> {
    let mut failed: Vec<(usize, Fault)> = indices
        .iter()
        .enumerate()
        .filter_map(|(at, index)| Some((*index, fault_of(results.get(at))?)))
        .collect();
    let conflicts: Vec<usize> = failed
        .iter()
        .filter(|(_, fault)| *fault == Fault::Conflict)
        .map(|(index, _)| *index)
        .collect();
    if !conflicts.is_empty() {
        let there = confirm(connection, commands, &conflicts).map_err(|error| Fault::of(&error))?;
        let done: Vec<usize> = conflicts
            .into_iter()
            .zip(there)
            .filter_map(|(index, there)| there.then_some(index))
            .collect();
        failed.retain(|(index, _)| done.binary_search(index).is_err());
    }
    Ok(failed)
}

/// Whether the stream's key is something else, so that commands for it fail alone.
fn is_no_stream(connection: &mut Connection, prefix: &str, stream: Stream) -> RedisResult<bool> {
    let Some((_, key)) = Stream::SHARED.iter().find(|(shared, _)| *shared == stream) else {
        return Ok(true);
    };
    let kind: String = redis::cmd("TYPE")
        .arg(format!("{prefix}:{key}"))
        .query(connection)?;
    Ok(kind != "stream" && kind != "none")
}

/// What is known of a server's replicas.
///
/// Once one follows, `WAIT` goes along with each transaction, so that being sure costs no
/// journey of its own.
#[derive(Clone, Copy, Debug, Default)]
struct Followers {
    /// Whether one follows, and when that was seen.
    seen: Option<(bool, Instant)>,
}

impl Followers {
    /// Appends `WAIT` where a replica follows; whether it did.
    fn ask(self, buffer: &mut Vec<u8>) -> bool {
        let follows = matches!(self.seen, Some((true, _)));
        if follows {
            buffer.extend_from_slice(b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n");
            bulk(buffer, FOLLOW_MS.to_string().as_bytes());
        }
        follows
    }

    /// Reads what came of that: how many replicas have what was done.
    fn answer(connection: &mut Connection) -> Result<u64, Fault> {
        match connection.recv_response() {
            Ok(Value::Int(count)) => Ok(u64::try_from(count).unwrap_or(0)),
            Ok(Value::ServerError(error)) => Err(Fault::of(&error.into())),
            Ok(_) => Err(Fault::Other("WAIT".to_owned())),
            Err(error) => Err(Fault::of(&error)),
        }
    }

    /// Waits until a replica has what was done, where one follows: what fails over to a
    /// replica that has not is lost with the server. `have` is how many were found to
    /// have it, where they were asked along with it; `wrote` is whether this connection
    /// did it: `WAIT` knows of nothing else.
    fn follow(
        &mut self,
        connection: &mut Connection,
        have: Option<u64>,
        wrote: bool,
    ) -> Result<(), Fault> {
        if wrote && have.is_some_and(|have| have > 0) {
            return Ok(());
        }
        if let (None, Some((false, at))) = (have, self.seen)
            && at.elapsed() < ALONE
        {
            return Ok(());
        }
        let replication = Replication::of(connection)?;
        self.seen = Some((replication.follows, Instant::now()));
        if !replication.follows {
            return Ok(());
        }
        if !wrote {
            return replication.reached(connection);
        }
        if have.is_some() {
            return Err(Fault::Unfollowed);
        }
        let have: u64 = redis::cmd("WAIT")
            .arg(1)
            .arg(FOLLOW_MS)
            .query(connection)
            .map_err(|error| Fault::of(&error))?;
        match have {
            0 => Err(Fault::Unfollowed),
            _ => Ok(()),
        }
    }
}

/// What a server says of its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Replication {
    /// Whether one is connected.
    follows: bool,
    /// How far the server is.
    offset: u64,
    /// How far the first of its replicas is.
    replica: Option<u64>,
}

impl Replication {
    fn of(connection: &mut Connection) -> Result<Self, Fault> {
        let info: String = redis::cmd("INFO")
            .arg("replication")
            .query(connection)
            .map_err(|error| Fault::of(&error))?;
        Ok(Self::read(&info))
    }

    fn read(info: &str) -> Self {
        let mut read = Self::default();
        for line in info.lines() {
            let Some((name, value)) = line.trim().split_once(':') else {
                continue;
            };
            // slave0:ip=…,port=…,state=online,offset=…,lag=0
            let is_replica = name
                .strip_prefix("slave")
                .is_some_and(|rest| rest.parse::<u32>().is_ok());
            if name == "connected_slaves" {
                read.follows = value != "0";
            } else if name == "master_repl_offset" {
                read.offset = value.parse().unwrap_or(u64::MAX);
            } else if is_replica {
                let part = value
                    .split(',')
                    .find_map(|part| part.strip_prefix("offset="));
                read.replica = read.replica.max(part.and_then(|text| text.parse().ok()));
            }
        }
        read
    }

    /// Waits until a replica is where the server was. Replicas tell every second how far
    /// they are.
    fn reached(self, connection: &mut Connection) -> Result<(), Fault> {
        let patience = Duration::from_millis(u64::from(FOLLOW_MS) * 2);
        let began = Instant::now();
        let mut now = self;
        while now.replica.is_none_or(|replica| replica < self.offset) {
            if began.elapsed() > patience {
                return Err(Fault::Unfollowed);
            }
            std::thread::sleep(Duration::from_millis(50));
            now = Self::of(connection)?;
        }
        Ok(())
    }
}

/// Ends a connection that broke, so that nothing of it is done from now on. Without
/// the permission to do that, marks and entries' IDs have to do.
fn fence(connection: &mut Connection, old: i64) {
    let _: RedisResult<i64> = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("ID")
        .arg(old)
        .query(connection);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_replicas_are_is_read() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
                    slave0:ip=10.0.0.2,port=6379,state=online,offset=90,lag=0\r\n\
                    slave1:ip=10.0.0.3,port=6379,state=online,offset=100,lag=1\r\n\
                    master_repl_offset:104\r\nsecond_repl_offset:-1\r\n";
        assert_eq!(
            Replication::read(info),
            Replication {
                follows: true,
                offset: 104,
                replica: Some(100),
            }
        );
        let alone =
            Replication::read("role:master\r\nconnected_slaves:0\r\nmaster_repl_offset:7\r\n");
        assert!(!alone.follows && alone.replica.is_none());
    }
}
