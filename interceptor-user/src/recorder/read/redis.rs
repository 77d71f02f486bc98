//! Recordings that are in Redis.

use redis::{RedisError, Value};

use super::{ReadError, Source, StreamEntry};
use crate::recorder::Fault;
use crate::recorder::place::{Link, Place};

/// How long connecting may take, and each answer; more than following waits.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// A Redis.
pub(super) struct FromRedis {
    connection: Link,
}

impl FromRedis {
    pub(super) fn open(url: &str) -> Result<Self, ReadError> {
        let connection = Place::open(url)?.connect(PATIENCE)?;
        Ok(Self { connection })
    }
}

impl From<RedisError> for ReadError {
    fn from(error: RedisError) -> Self {
        Self::Redis(Fault::of(&error))
    }
}

impl Source for FromRedis {
    fn after(
        &mut self,
        key: &str,
        after: &str,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ReadError> {
        let answer = redis::cmd("XRANGE")
            .arg(key)
            .arg(format!("({after}"))
            .arg("+")
            .arg("COUNT")
            .arg(count)
            .query(&mut self.connection)?;
        entries(answer)
    }

    fn before(
        &mut self,
        key: &str,
        before: Option<&str>,
        count: usize,
    ) -> Result<Vec<StreamEntry>, ReadError> {
        let from = before.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
        let answer = redis::cmd("XREVRANGE")
            .arg(key)
            .arg(from)
            .arg("-")
            .arg("COUNT")
            .arg(count)
            .query(&mut self.connection)?;
        entries(answer)
    }

    fn follow(&mut self, key: &str, after: &str) -> Result<Vec<StreamEntry>, ReadError> {
        let answer: Value = redis::cmd("XREAD")
            .arg("COUNT")
            .arg(1000)
            .arg("BLOCK")
            .arg(1000)
            .arg("STREAMS")
            .arg(key)
            .arg(after)
            .query(&mut self.connection)?;
        let Value::Array(mut streams) = answer else {
            return Ok(Vec::new());
        };
        match streams.pop() {
            Some(Value::Array(mut stream)) => entries(stream.pop().unwrap_or_default()),
            _ => Err(ReadError::Shape),
        }
    }

    fn has(&mut self, key: &str) -> Result<bool, ReadError> {
        Ok(redis::cmd("EXISTS").arg(key).query(&mut self.connection)?)
    }

    fn run(&mut self, command: &redis::Cmd) -> Result<Value, ReadError> {
        Ok(command.query(&mut self.connection)?)
    }
}

/// Reads `[[id, [field, value, …]], …]`.
fn entries(answer: Value) -> Result<Vec<StreamEntry>, ReadError> {
    let Value::Array(answers) = answer else {
        return Err(ReadError::Shape);
    };
    answers.into_iter().map(entry).collect()
}

fn entry(answer: Value) -> Result<StreamEntry, ReadError> {
    let Value::Array(parts) = answer else {
        return Err(ReadError::Shape);
    };
    let mut parts = parts.into_iter();
    let (Some(Value::BulkString(id)), Some(Value::Array(flat))) = (parts.next(), parts.next())
    else {
        return Err(ReadError::Shape);
    };
    let mut fields = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) =
        (flat.next(), flat.next())
    {
        fields.push((String::from_utf8_lossy(&name).into_owned(), value));
    }
    Ok(StreamEntry {
        id: String::from_utf8_lossy(&id).into_owned(),
        fields,
    })
}
