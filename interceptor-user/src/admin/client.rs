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

/// Who asks is an agent, whom the kernel keeps from the daemon's socket.
#[derive(Debug, thiserror::Error)]
#[error("this process is under interception, and an agent may not ask the daemon at {socket}")]
pub struct Confined {
    socket: String,
}

/// Asks the daemon; blocks until it answers.
///
/// # Errors
/// [`Unreachable`], [`Confined`], or what the daemon says.
pub fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> anyhow::Result<T> {
    let mut answer = String::new();
    for tried in 0..TRIES {
        answer = match one(socket, request) {
            // It was placed, and the daemon ended before it could say so.
            Err(error) if tried > 0 && error.is::<Confined>() => {
                return Err(
                    error.context("the daemon ended before it had answered; run the command again")
                );
            }
            asked => asked?,
        };
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
    let place = socket.display().to_string();
    let mut stream = UnixStream::connect(socket).map_err(|source| {
        // What a file's mode forbids is EACCES.
        if source.raw_os_error() == Some(libc::EPERM) {
            anyhow::Error::new(Confined { socket: place })
        } else {
            Unreachable {
                socket: place,
                source,
            }
            .into()
        }
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
