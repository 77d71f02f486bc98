//! The old daemon's side: offers what it has, and stops when the next one is ready.
//!
//! Until the next one says so, nothing changes here: one that cannot start leaves this
//! one as it was.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use interceptor_common::ABI;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{Hello, OURS, Offer, PROTOCOL, State, admit, monotonic};
use crate::flow::House;
use crate::net::listen;
use crate::wire;

/// How long the next daemon may take to be ready: it may have a Redis to wait for.
const PATIENCE: Duration = Duration::from_secs(900);

/// Waits for the next daemon at `path`. What is received is its process id, once this
/// daemon takes nothing new any more.
///
/// # Errors
/// When the socket cannot be made.
pub fn wait(house: &Arc<House>, path: &Path) -> anyhow::Result<oneshot::Receiver<u32>> {
    let listener: UnixListener = house
        .life
        .sockets
        .get("handover", || listen::at_path(path, OURS))
        .with_context(|| format!("listening at {}", path.display()))?;
    let (done, handed) = oneshot::channel();
    let house = Arc::clone(house);
    tokio::spawn(async move {
        loop {
            let stream = listen::next(&listener).await;
            match one(&house, stream).await {
                Ok(Some(next)) => {
                    drop(listener);
                    let _ = done.send(next);
                    return;
                }
                Ok(None) => {}
                Err(error) => warn!("the next daemon did not take over: {error:#}"),
            }
        }
    });
    Ok(handed)
}

async fn one(house: &Arc<House>, stream: tokio::net::UnixStream) -> anyhow::Result<Option<u32>> {
    let mut stream = admit(house, stream, PATIENCE)?;
    let offer = offer(house)?;
    house.life.is_awaited.store(true, Ordering::Release);
    let introduced = tokio::task::spawn_blocking(move || {
        let next = introduce(&mut stream, offer)?;
        anyhow::Ok((stream, next))
    })
    .await;
    house.life.is_awaited.store(false, Ordering::Release);
    let (mut stream, next) = introduced??;
    let began = Instant::now();
    house.life.stop().await;
    let state = state(house);
    let told = tokio::task::spawn_blocking(move || wire::send(&mut stream, &state)).await?;
    // From here on this daemon only ends what it has, whatever became of the next one:
    // its listeners may be accepted from already.
    house.life.sockets.let_go();
    if let Some(kernel) = &house.kernel {
        kernel.release();
    }
    if let Err(error) = told {
        error!(%error, "the next daemon went away while it took over; agents are refused until there is another one");
    }
    info!(
        to = next,
        ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        flows = house.flows.len(),
        "handed over"
    );
    Ok(Some(next))
}

/// Says what there is, and waits until the other one is ready.
fn introduce(
    stream: &mut UnixStream,
    (offer, descriptors): (Offer, Vec<std::os::fd::OwnedFd>),
) -> anyhow::Result<u32> {
    let hello: Hello = wire::receive(stream).context("hearing who it is")?;
    anyhow::ensure!(
        hello.protocol == PROTOCOL,
        "it ({}) hands over in another way than this version",
        hello.version
    );
    wire::send(stream, &offer).context("offering")?;
    for descriptor in &descriptors {
        wire::send_descriptor(stream, descriptor).context("offering a socket")?;
    }
    let ready: bool = wire::receive(stream).context("it did not become ready")?;
    anyhow::ensure!(ready, "it did not become ready");
    Ok(hello.pid)
}

fn offer(house: &House) -> anyhow::Result<(Offer, Vec<std::os::fd::OwnedFd>)> {
    let mut sockets = house.life.sockets.copies()?;
    if let Some(kernel) = &house.kernel
        && let Some(lock) = kernel.lock()?
    {
        sockets.push(("lock".to_owned(), lock));
    }
    let redis = match house.recorder.private()? {
        Some((redis, lifeline)) => {
            sockets.push(("redis".to_owned(), lifeline));
            Some(redis)
        }
        None => None,
    };
    let (started, unix) = house.started;
    let since = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let (descriptors, sockets): (Vec<String>, Vec<_>) = sockets.into_iter().unzip();
    let offer = Offer {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        abi: house.kernel.as_ref().map(|_| ABI),
        agents_cgroup: house
            .kernel
            .as_ref()
            .map(|kernel| kernel.agents_cgroup().to_owned()),
        proxy_cgroup: house
            .kernel
            .as_ref()
            .map(|kernel| kernel.listeners_cgroup().to_owned()),
        clock: monotonic()?.saturating_sub(since),
        unix,
        redis,
        watchdog: house.life.service.watchdog(),
        descriptors,
    };
    Ok((offer, sockets))
}

fn state(house: &House) -> State {
    let now = Instant::now();
    let (tickets, held) = house.desk.hand_over();
    State {
        memory: house.memory.remembered(),
        names: house.dns.names.hand_over(now),
        asked: house.dns.hand_over(now),
        tickets,
        held,
        executables: house
            .runs
            .as_ref()
            .and_then(|runs| runs.look.digests().ok())
            .unwrap_or_default(),
    }
}
