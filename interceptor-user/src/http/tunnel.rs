//! A WebSocket, or what else two legs switched to: bytes of both go through the
//! session, and what it lets through is written.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use interceptor_engine::http::{Act, Failure};
use interceptor_engine::session::Side;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::conversation::Conversation;
use crate::flow::shared::Unrecorded;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// What a tunnel is between.
#[derive(Debug)]
pub struct Ends {
    /// The agent's leg, once hyper lets go of it.
    pub agent: OnUpgrade,
    /// The service's leg, once hyper lets go of it.
    pub service: OnUpgrade,
    /// Whether messages of a WebSocket are read.
    pub websocket: bool,
}

/// Runs a tunnel to its end.
pub async fn run(conversation: Arc<Conversation>, id: u64, ends: Ends) {
    let (agent, service) = match tokio::try_join!(ends.agent, ends.service) {
        Ok(ends) => ends,
        Err(error) => {
            let why = super::service::words(&error);
            let failure = Failure::Broken(why);
            let _ = conversation
                .shared
                .call(|session, now, out| session.upstream_failed(now, id, failure, out));
            return;
        }
    };
    let tunnel = Tunnel {
        conversation: Arc::clone(&conversation),
        id,
        agent: Leg::of(TokioIo::new(agent)),
        service: Leg::of(TokioIo::new(service)),
    };
    if tunnel.run().await.is_err() {
        let why = Unrecorded.to_string();
        let _ = conversation
            .shared
            .call(|session, now, out| session.refuse(now, id, &why, out));
    }
}

type Io = TokioIo<hyper::upgrade::Upgraded>;

struct Leg {
    read: tokio::io::ReadHalf<Io>,
    write: tokio::io::WriteHalf<Io>,
    reads: bool,
    writes: bool,
    buffer: BytesMut,
}

impl Leg {
    fn of(io: Io) -> Self {
        let (read, write) = tokio::io::split(io);
        Self {
            read,
            write,
            reads: true,
            writes: true,
            buffer: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        self.buffer.reserve(CHUNK);
        match self.read.read_buf(&mut self.buffer).await {
            Ok(n) if n > 0 => Some(self.buffer.split().freeze()),
            _ => None,
        }
    }
}

struct Tunnel {
    conversation: Arc<Conversation>,
    id: u64,
    agent: Leg,
    service: Leg,
}

impl Tunnel {
    async fn run(mut self) -> Result<(), Unrecorded> {
        let id = self.id;
        while self.agent.reads || self.service.reads {
            let due = self.conversation.deadline(id);
            let (from, bytes) = tokio::select! {
                bytes = self.agent.next(), if self.agent.reads => (Side::Downstream, bytes),
                bytes = self.service.next(), if self.service.reads => (Side::Upstream, bytes),
                () = until(due), if due.is_some() => {
                    let (_, acts) = self
                        .conversation.shared.call(|session, now, out| session.time_is(now, id, out));
                    if self.act(acts).await? {
                        break;
                    }
                    continue;
                }
            };
            let ended = bytes.is_none();
            let (_, acts) = self
                .conversation
                .shared
                .call(|session, now, out| match bytes {
                    Some(bytes) => session.tunnel_data(now, id, from, bytes, out),
                    None => session.tunnel_end(now, id, from, out),
                });
            if ended {
                self.leg(from).reads = false;
            }
            if self.act(acts).await? {
                break;
            }
        }
        // Where one side is gone without a word, the other is told by the end.
        for leg in [&mut self.agent, &mut self.service] {
            if leg.writes {
                let _ = leg.write.shutdown().await;
            }
        }
        Ok(())
    }

    fn leg(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Downstream => &mut self.agent,
            Side::Upstream => &mut self.service,
        }
    }

    /// Whether it is over.
    async fn act(&mut self, acts: Vec<Act>) -> Result<bool, Unrecorded> {
        self.conversation.shared.recorded().await?;
        let mut over = false;
        for act in acts {
            match act {
                Act::TunnelData(to, bytes) => {
                    let leg = self.leg(to);
                    if leg.writes && leg.write.write_all(&bytes).await.is_err() {
                        leg.writes = false;
                        over = true;
                    } else if leg.writes && leg.write.flush().await.is_err() {
                        over = true;
                    }
                }
                Act::TunnelEnd(to) => {
                    let leg = self.leg(to);
                    if std::mem::take(&mut leg.writes) {
                        let _ = leg.write.shutdown().await;
                    }
                }
                Act::DropUpstream | Act::BreakDownstream => over = true,
                _ => {}
            }
        }
        over |= !self.agent.writes && !self.service.writes;
        Ok(over)
    }
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
