//! An index of recordings in the Redis that has them, where that has the query engine.
//!
//! Of each closed session the grams of its text ([`grams`](interceptor_engine::replay::grams))
//! stand in a hash, `<prefix>:grams:{ID}`, which the engine indexes. Words that have a gram
//! which a session has not are not in it; all others are read, as all are where there is no
//! index. So what is found is the same with and without one, and what is shown is always what
//! the recording says: the index proves nothing, and may be dropped.
//!
//! [`keep`] writes it, on a thread of the daemon; [`RuledOut`] is what `search` asks for.
//!
//! Spec: Redis manual, `FT.CREATE`, `FT.SEARCH` and "Tags" (`RediSearch` 2.4 and newer).

pub mod keep;

use std::collections::HashSet;

use interceptor_engine::replay::grams::Grams;
use redis::{Value, cmd};

use crate::recorder::read::{ReadError, Reader};

/// Most sessions that are asked for: the engine's own limit, where nobody set another, and
/// what is asked for where that is too many for it.
const MOST: [usize; 2] = [1_000_000, 10_000];

/// Most grams of the words that are asked for; fewer only rule out less.
const ASKED: usize = 32;

/// What a session is said to have that may have any.
const ALL: &str = "all";

/// The field of [`indexed`] with the ID of the last entry.
const AT: &str = "at";

/// What the one field of a hash is called.
const FIELD: &str = "grams";

/// The key of a session's grams; on the slot of its recording.
pub(crate) fn key(reader: &Reader, session: &str) -> String {
    reader.key(&format!("grams:{{{session}}}"))
}

fn name(reader: &Reader) -> String {
    reader.key("grams")
}

/// Makes the index, where there is none; whether the server has a query engine.
fn create(reader: &mut Reader) -> Result<bool, ReadError> {
    let known = reader.run(cmd("COMMAND").arg("INFO").arg("FT.CREATE"))?;
    if !matches!(&known, Value::Array(told) if told.iter().any(|one| *one != Value::Nil)) {
        return Ok(false);
    }
    let name = name(reader);
    let all = reader.run(&cmd("FT._LIST"))?;
    if has(&all, &name) {
        return Ok(true);
    }
    let mut create = cmd("FT.CREATE");
    create.arg(name).arg("ON").arg("HASH");
    create.arg("PREFIX").arg(1).arg(reader.key("grams:"));
    create.arg("STOPWORDS").arg(0);
    create.arg("SCHEMA").arg(FIELD).arg("TAG");
    create.arg("SEPARATOR").arg(",");
    reader.run(&create)?;
    // Whoever dropped it may have dropped what it was made of, too.
    reader.run(cmd("HDEL").arg(indexed(reader)).arg(AT))?;
    Ok(true)
}

/// The hash that has how far the index has come in `sessions`.
fn indexed(reader: &Reader) -> String {
    reader.key("indexed")
}

/// Whether a name is in a list.
fn has(list: &Value, name: &str) -> bool {
    let (Value::Array(all) | Value::Set(all)) = list else {
        return false;
    };
    all.iter().any(|one| match one {
        Value::BulkString(text) => text == name.as_bytes(),
        Value::SimpleString(text) => text == name,
        _ => false,
    })
}

/// Writes a session's grams.
fn put(reader: &mut Reader, session: &str, grams: &Grams) -> Result<(), ReadError> {
    let names: Vec<String> = grams.names().collect();
    let names = match grams.has_all() {
        true => ALL.to_owned(),
        false => names.join(","),
    };
    let key = key(reader, session);
    reader
        .run(cmd("HSET").arg(key).arg(FIELD).arg(names))
        .map(drop)
}

/// Takes them away.
fn take(reader: &mut Reader, session: &str) -> Result<(), ReadError> {
    let key = key(reader, session);
    reader.run(cmd("UNLINK").arg(key)).map(drop)
}

/// The sessions that have not what is looked for, as the index says. Any other one may have
/// it: so nothing is missed for an index that is not whole, or an answer that is cut off.
#[derive(Debug, Default)]
pub(crate) struct RuledOut(HashSet<String>);

impl RuledOut {
    /// Asks the index; none where there is no index, or nothing can be said of these words.
    pub(crate) fn by(reader: &mut Reader, words: &str) -> Self {
        let grams = Grams::of(words);
        let all: Vec<String> = grams
            .names()
            .take(ASKED)
            .map(|name| format!("@{FIELD}:{{{name}}}"))
            .collect();
        if all.is_empty() {
            return Self::default();
        }
        let query = format!("-(({}) | @{FIELD}:{{{ALL}}})", all.join(" "));
        let name = name(reader);
        let answer = MOST.iter().find_map(|most| {
            let mut search = cmd("FT.SEARCH");
            search.arg(&name).arg(&query).arg("NOCONTENT");
            search.arg("LIMIT").arg(0).arg(most);
            search.arg("DIALECT").arg(2);
            reader.run(&search).ok()
        });
        let answer = answer.unwrap_or_default();
        Self::read(&reader.key("grams:{"), &answer)
    }

    /// Their number, and their keys, each of which begins with `before`.
    fn read(before: &str, answer: &Value) -> Self {
        let Value::Array(parts) = answer else {
            return Self::default();
        };
        let session = |key: &Value| {
            let Value::BulkString(key) = key else {
                return None;
            };
            let key = std::str::from_utf8(key).ok()?;
            let id = key.strip_prefix(before)?.strip_suffix('}')?;
            Some(id.to_owned())
        };
        Self(parts.iter().filter_map(session).collect())
    }

    /// Whether a session is one of them.
    pub(crate) fn has(&self, session: &str) -> bool {
        self.0.contains(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn only_what_is_named_is_ruled_out() {
        let answer = Value::Array(vec![
            Value::Int(9),
            bulk("i:grams:{one}"),
            bulk("i:grams:two"),
            bulk("other:grams:{three}"),
        ]);
        let out = RuledOut::read("i:grams:{", &answer);
        assert!(out.has("one") && !out.has("two") && !out.has("three"));
        assert!(!RuledOut::read("i:grams:{", &Value::Nil).has("one"));
    }

    #[test]
    fn an_index_is_known_by_its_name() {
        let list = Value::Array(vec![bulk("a"), Value::SimpleString("i:grams".into())]);
        assert!(has(&list, "i:grams") && !has(&list, "grams") && !has(&Value::Nil, "a"));
    }
}
