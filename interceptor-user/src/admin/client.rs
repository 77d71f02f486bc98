//! Asking.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use super::{Fault, Request};

/// Longest answer.
const ANSWER_LIMIT: u64 = 16 << 20;

/// How often a daemon is asked that closes without a word.
const TRIES: u32 = 3;

/// No daemon answers.
#[derive(Debug, thiserror::Error)]
#[error("the daemon does not answer at {socket}: {source}; is `interceptor run` running?")]
pub struct Unreachable {
    socket: String,
    source: std::io::Error,
}

/// Asks the daemon; blocks until it answers.
///
/// # Errors
/// [`Unreachable`], or what the daemon says.
pub fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> anyhow::Result<T> {
    let mut answer = String::new();
    for _ in 0..TRIES {
        answer = one(socket, request)?;
        // One that was just replaced closes without a word; the next one answers.
        if !answer.is_empty() {
            break;
        }
    }
    if let Ok(fault) = serde_json::from_str::<Fault>(&answer) {
        anyhow::bail!("{}", fault.error);
    }
    serde_json::from_str(&answer).context("the daemon's answer makes no sense")
}

fn one(socket: &Path, request: &Request) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket).map_err(|source| Unreachable {
        socket: socket.display().to_string(),
        source,
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).context("asking the daemon")?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_LIMIT))
        .read_line(&mut answer)
        .context("reading the daemon's answer")?;
    Ok(answer)
}
