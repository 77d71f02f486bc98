//! Questions in Redis: kept there so that they outlive the daemon and any host's
//! operator sees them, and answers taken from there.
//!
//! Two threads, since a client that waits for new entries can do nothing else.
//! Neither is on a flow's way: while Redis is away, questions are answered at the
//! admin socket, and what happened is written when it is back.
//!
//! * `<prefix>:approvals`: a stream, `kind` one of `asked`, `changed`, `answer`;
//! * `<prefix>:approval:{ID}`: a hash with the question's state.
//!
//! What the daemon itself wrote is believed again only with its own signature: a
//! ticket that somebody else calls approved stays what it was.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use interceptor_policy::approval::Answer;
use redis::streams::{StreamRangeReply, StreamReadOptions, StreamReadReply};
use redis::{Commands as _, RedisResult};
use tracing::{info, warn};

use super::desk::{self, Desk};
use super::facts::{Facts, State};
use super::signature::{Key, SignedAnswer};
use crate::recorder::place::{Link, Place};

/// Changes that may wait for Redis.
const QUEUE: usize = 16_384;
/// How long connecting may take, and each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a reader waits for new entries at once.
const WAIT_MS: usize = 1_000;
/// How long to wait after a fault.
const PAUSE: Duration = Duration::from_secs(1);
/// Entries that the stream keeps, about.
const ENTRIES: usize = 100_000;
/// How long a closed question can be looked up.
const KEEP_SECONDS: i64 = 30 * 24 * 3600;
/// How far back a new daemon looks: what was asked before that is not taken over.
const LOOK_BACK_SECONDS: i64 = 8 * 24 * 3600;
/// Entries of one page.
const PAGE: usize = 1_000;

/// Where a desk's changes go.
#[derive(Clone, Debug)]
pub struct Mirror {
    changes: Option<SyncSender<Change>>,
}

#[derive(Debug)]
struct Change {
    kind: &'static str,
    line: String,
    facts: Facts,
}

/// What the threads need.
#[derive(Debug)]
pub struct Settings {
    /// The Redis that is recorded to.
    pub place: Place,
    /// First part of every key.
    pub prefix: String,
    /// This host's name.
    pub host: String,
    /// Signs what this daemon wrote.
    pub own: Key,
    /// What answers are signed with; `None`: none is taken from Redis.
    pub answers: Option<Key>,
}

/// The other end of a [`Mirror`], to be given to [`run`].
#[derive(Debug)]
pub struct Changes(Receiver<Change>);

impl Mirror {
    /// A mirror, and what is to be given to [`run`].
    #[must_use]
    pub fn new() -> (Self, Changes) {
        let (changes, receiver) = sync_channel(QUEUE);
        let mirror = Self {
            changes: Some(changes),
        };
        (mirror, Changes(receiver))
    }

    /// One that keeps nothing.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { changes: None }
    }

    pub(super) fn asked(&self, facts: &Facts) {
        self.send("asked", facts.line(), facts);
    }

    pub(super) fn changed(&self, facts: &Facts, line: &str) {
        self.send("changed", line.to_owned(), facts);
    }

    fn send(&self, kind: &'static str, line: String, facts: &Facts) {
        let Some(changes) = &self.changes else {
            return;
        };
        let change = Change {
            kind,
            line,
            facts: facts.clone(),
        };
        if let Err(TrySendError::Full(change)) = changes.try_send(change) {
            warn!(
                question = change.facts.id,
                "Redis has been away for too long: this change of a question is not kept there"
            );
        }
    }
}

/// Starts both threads; they end with the process.
///
/// # Errors
/// When a thread cannot be started.
pub fn run(settings: Settings, changes: Changes, desk: Desk) -> std::io::Result<()> {
    let settings = Arc::new(settings);
    let writer = Arc::clone(&settings);
    std::thread::Builder::new()
        .name("approvals-out".to_owned())
        .spawn(move || write(&writer, &changes))?;
    std::thread::Builder::new()
        .name("approvals-in".to_owned())
        .spawn(move || read(&settings, &desk))?;
    Ok(())
}

/// The key of the stream.
#[must_use]
pub fn stream_key(prefix: &str) -> String {
    format!("{prefix}:approvals")
}

/// The key of one question.
#[must_use]
pub fn question_key(prefix: &str, id: &str) -> String {
    format!("{prefix}:approval:{{{id}}}")
}

fn write(settings: &Settings, changes: &Changes) {
    let mut connection = None;
    while let Ok(change) = changes.0.recv() {
        loop {
            let done = match &mut connection {
                Some(connection) => put(settings, connection, &change),
                None => settings.place.connect(PATIENCE).and_then(|fresh| {
                    let fresh = connection.insert(fresh);
                    put(settings, fresh, &change)
                }),
            };
            match done {
                Ok(()) => break,
                Err(error) => {
                    connection = None;
                    warn!(kind = ?error.kind(), "a question could not be kept in Redis; trying again");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

fn put(settings: &Settings, connection: &mut Link, change: &Change) -> RedisResult<()> {
    let facts = &change.facts;
    let json = serde_json::to_string(facts).unwrap_or_default();
    let signature = own_signature(&settings.own, facts, &json);
    let key = question_key(&settings.prefix, &facts.id);
    let last = facts.answers.last();
    let mut pipe = redis::pipe();
    pipe.hset_multiple(
        &key,
        &[
            ("state", facts.state.name()),
            ("agent", &facts.agent),
            ("target", &facts.target),
            ("rule", &facts.rule),
            ("message", &facts.message),
            ("text", &facts.text),
            ("digest", &facts.digest),
            ("host", &facts.host),
            ("json", &json),
            ("signature", &signature),
        ],
    )
    .expire_at(&key, facts.expires_at.saturating_add(KEEP_SECONDS))
    .xadd_maxlen(
        stream_key(&settings.prefix),
        redis::streams::StreamMaxlen::Approx(ENTRIES),
        "*",
        &[
            ("kind", change.kind),
            ("id", &facts.id),
            ("state", facts.state.name()),
            ("host", &facts.host),
            ("agent", &facts.agent),
            ("target", &facts.target),
            ("rule", &facts.rule),
            ("by", last.map_or("", |answer| answer.by.as_str())),
            ("digest", &facts.digest),
            ("line", &change.line),
        ],
    );
    if !settings.place.is_cluster() {
        return pipe.atomic().exec(connection);
    }
    // A Cluster has them on two servers; who finds the hash without its entry finds
    // the question all the same.
    pipe.cmd_iter()
        .try_for_each(|command| command.exec(connection))
}

fn own_signature(key: &Key, facts: &Facts, json: &str) -> String {
    key.sign(&own(facts, json))
}

/// What this daemon wrote of a question, in the form that is signed.
fn own(facts: &Facts, json: &str) -> SignedAnswer {
    SignedAnswer {
        id: facts.id.clone(),
        digest: facts.digest.clone(),
        approves: facts.state == State::Approved,
        by: facts.host.clone(),
        groups: Vec::new(),
        reason: json.to_owned(),
        at: facts.asked_at,
    }
}

fn read(settings: &Settings, desk: &Desk) {
    let mut last: Option<String> = None;
    loop {
        let wait = Duration::from_millis(WAIT_MS as u64);
        let end = settings
            .place
            .connect(PATIENCE + wait)
            .and_then(|mut connection| follow(settings, desk, &mut connection, &mut last));
        if let Err(error) = end {
            warn!(kind = ?error.kind(), "answers cannot be read from Redis; trying again");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Takes over what was open, then answers as they come; returns only with a fault.
fn follow(
    settings: &Settings,
    desk: &Desk,
    connection: &mut Link,
    last: &mut Option<String>,
) -> RedisResult<()> {
    if last.is_none() {
        *last = Some(restore(settings, desk, connection)?);
    }
    let key = stream_key(&settings.prefix);
    let options = StreamReadOptions::default().block(WAIT_MS).count(PAGE);
    loop {
        let from = last.clone().unwrap_or_else(|| "0".to_owned());
        let reply: Option<StreamReadReply> =
            connection.xread_options(&[&key], &[from], &options)?;
        for entry in reply.into_iter().flat_map(|reply| reply.keys) {
            for entry in entry.ids {
                let field = |name: &str| entry.get::<String>(name).unwrap_or_default();
                if field("kind") == "answer" {
                    take(settings, desk, &field);
                }
                *last = Some(entry.id.clone());
            }
        }
    }
}

/// Takes one answer from Redis, or says why not.
fn take(settings: &Settings, desk: &Desk, field: &dyn Fn(&str) -> String) {
    let Some(key) = &settings.answers else {
        warn!(
            question = field("id"),
            "an answer came by way of Redis, and no `approvals.key` is configured to check it by"
        );
        return;
    };
    let groups = field("groups");
    let answer = SignedAnswer {
        id: field("id"),
        digest: field("digest"),
        approves: field("decision") == "approve",
        by: field("by"),
        groups: groups
            .split(',')
            .filter(|group| !group.is_empty())
            .map(str::to_owned)
            .collect(),
        reason: field("reason"),
        at: field("at").parse().unwrap_or_default(),
    };
    if !key.verify(&answer, &field("signature")) {
        warn!(
            question = answer.id,
            "an answer in Redis is not signed with `approvals.key`, and is not taken"
        );
        return;
    }
    let taken = desk.answer(
        &answer.id,
        Some(&answer.digest),
        Answer {
            by: answer.by.as_str().into(),
            uid: None,
            groups: answer
                .groups
                .iter()
                .map(|g| Arc::from(g.as_str()))
                .collect(),
            approves: answer.approves,
            reason: (!answer.reason.is_empty()).then(|| answer.reason.clone()),
        },
    );
    match taken {
        Ok(facts) => info!(
            question = facts.id,
            by = answer.by,
            "answered by way of Redis"
        ),
        // Other hosts' questions, and answers from before a restart.
        Err(desk::Refused::Unknown(_) | desk::Refused::Over(_)) => {}
        Err(error) => warn!(question = answer.id, by = answer.by, %error, "an answer is not taken"),
    }
}

/// What this host's daemon before this one left open; where to read on from.
fn restore(settings: &Settings, desk: &Desk, connection: &mut Link) -> RedisResult<String> {
    let key = stream_key(&settings.prefix);
    let since = desk::now().saturating_sub(LOOK_BACK_SECONDS).max(0) * 1000;
    let mut from = since.to_string();
    let mut last = from.clone();
    let mut oldest: Option<String> = None;
    let mut found = Vec::new();
    loop {
        let page: StreamRangeReply = connection.xrange_count(&key, &from, "+", PAGE)?;
        let full = page.ids.len() == PAGE;
        for entry in page.ids {
            let field = |name: &str| entry.get::<String>(name).unwrap_or_default();
            if field("kind") == "asked"
                && field("host") == settings.host
                && let Some(facts) = left_open(settings, connection, &field("id"))?
            {
                oldest.get_or_insert_with(|| entry.id.clone());
                found.push(facts);
            }
            last.clone_from(&entry.id);
        }
        if !full {
            break;
        }
        from = format!("({last}");
    }
    let questions = desk.restore(found);
    if questions > 0 {
        info!(questions, "questions that were left open are tickets now");
    }
    // Answers to those may stand behind them.
    Ok(oldest.unwrap_or(last))
}

fn left_open(settings: &Settings, connection: &mut Link, id: &str) -> RedisResult<Option<Facts>> {
    let (json, signature): (Option<String>, Option<String>) = redis::cmd("HMGET")
        .arg(question_key(&settings.prefix, id))
        .arg("json")
        .arg("signature")
        .query(connection)?;
    let (Some(json), Some(signature)) = (json, signature) else {
        return Ok(None);
    };
    let Ok(facts) = serde_json::from_str::<Facts>(&json) else {
        return Ok(None);
    };
    if !settings.own.verify(&own(&facts, &json), &signature) {
        warn!(
            question = id,
            "a question in Redis is not as this host wrote it, and is left alone"
        );
        return Ok(None);
    }
    Ok(matches!(facts.state, State::Open | State::Approved | State::Denied).then_some(facts))
}
