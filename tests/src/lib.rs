//! Real servers and clients for the tests, the demo and the benchmarks, on
//! private ports.
//!
//! * [`place`]: a folder that goes when its owner goes, however it went;
//! * [`process`]: servers that die with whoever started them;
//! * [`postgres`], [`redis`], [`pgbouncer`], [`nginx`], [`sshd`], [`s3`], [`certs`]: the
//!   servers and their keys; [`scripted`], one that says what a test tells it to;
//! * [`daemon`]: Interceptor itself, as a process, under a configuration of its own;
//! * [`agent`]: commands that run as an agent, through `interceptor exec`;
//! * [`hooks`], [`wire`]: taking Interceptor's hooks out, and seeing what then leaves;
//! * [`tmux`]: a terminal that somebody sits at;
//! * [`records`]: what landed in Redis;
//! * [`world`] and, for HTTP, [`web`]: all of it together, shared by the tests of a
//!   file.
//!
//! Nothing here knows how Interceptor is built: it is started as an operator
//! starts it and watched from outside.

pub mod agent;
pub mod certs;
pub mod cluster;
pub mod daemon;
pub mod dnsmasq;
pub mod hooks;
pub mod needs;
pub mod nginx;
pub mod peers;
pub mod pgbouncer;
pub mod place;
pub mod postgres;
pub mod process;
pub mod records;
pub mod redis;
pub mod s3;
pub mod scripted;
pub mod sshd;
pub mod steady;
pub mod tmux;
pub mod web;
pub mod wire;
pub mod world;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `question` until it answers yes; an error that names `what` after
/// `limit`. For what happens soon in another process: nothing signals it.
///
/// # Errors
/// The last error of `question`, or that the time is over.
pub fn eventually(
    what: &str,
    limit: Duration,
    mut question: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = question();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if start.elapsed() > limit {
            match answer {
                Err(error) => return Err(error.context(format!("waited {limit:?} for {what}"))),
                Ok(_) => bail!("waited {limit:?} for {what}, which never came"),
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
