//! Forwards: what runs through one is a flow of its own, found out, judged and recorded
//! like any other.
//!
//! The rules are asked twice: here, whether there may be such a connection at all, and
//! by the flow, what may be said on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use interceptor_engine::hold::Decision;
use interceptor_engine::ssh::{Act, Request};
use interceptor_policy::operation::ssh::SshForward;
use russh::server::{ChannelOpenHandle, Handle};
use russh::{ChannelOpenFailure, ChannelWriteHalf, server};
use uuid::Uuid;

use super::agent::Origin as OriginLeg;
use super::inbox::Inbox;
use super::{Connection, Inboxes, carried};
use crate::flow::serve::{self, Flow, Inner};
use crate::net::dialer::{Dialling, Way};
use crate::net::{Host, Origin, Socket};

/// The leg on which channels to a destination are opened.
pub(super) enum Leg {
    /// The origin's, for what the agent forwards.
    Origin(OriginLeg),
    /// The agent's, for what it had the origin listen for; and who connected there.
    Agent(Handle, (String, u32)),
}

/// The way to one destination: channels of one connection, each a socket.
pub(super) struct Road {
    connection: Arc<Connection>,
    leg: Leg,
    inboxes: Arc<Inboxes>,
    to: SshForward,
    /// The one that was opened before the flow was.
    first: Mutex<Option<Socket>>,
}

impl std::fmt::Debug for Road {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Road")
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl Road {
    /// A way whose first channel is open.
    ///
    /// # Errors
    /// When the other side refuses it.
    pub(super) async fn open(
        connection: &Arc<Connection>,
        leg: Leg,
        inboxes: &Arc<Inboxes>,
        to: SshForward,
    ) -> Result<Self, russh::Error> {
        let road = Self {
            connection: Arc::clone(connection),
            leg,
            inboxes: Arc::clone(inboxes),
            to,
            first: Mutex::default(),
        };
        let first = road.channel().await?;
        *road.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
        Ok(road)
    }

    async fn channel(&self) -> Result<Socket, russh::Error> {
        let socket = match (&self.leg, &self.to) {
            (Leg::Origin(leg), SshForward::Tcp { host, port }) => {
                let (host, port) = (host.to_string(), u32::from(*port));
                let opened = leg.channel_open_direct_tcpip(host, port, "127.0.0.1", 0);
                self.socket(opened.await?.split().1)
            }
            (Leg::Origin(leg), SshForward::Socket(path)) => {
                let opened = leg.channel_open_direct_streamlocal(path.to_string());
                self.socket(opened.await?.split().1)
            }
            (Leg::Agent(leg, (from, from_port)), SshForward::Tcp { host, port }) => {
                let (host, port) = (host.to_string(), u32::from(*port));
                let opened = leg.channel_open_forwarded_tcpip(host, port, from, *from_port);
                self.socket(opened.await?.split().1)
            }
            (Leg::Agent(leg, _), SshForward::Socket(path)) => {
                let opened = leg.channel_open_forwarded_streamlocal(path.to_string());
                self.socket(opened.await?.split().1)
            }
        };
        socket.ok_or(russh::Error::ChannelOpenFailure(
            ChannelOpenFailure::ResourceShortage,
        ))
    }

    fn socket<M>(&self, channel: ChannelWriteHalf<M>) -> Option<Socket>
    where
        M: From<(russh::ChannelId, russh::ChannelMsg)> + Send + Sync + 'static,
    {
        carried::socket(&self.connection, &self.inboxes, channel)
    }

    /// Serves what comes by `agent` as a flow to where this way leads, to its end.
    pub(super) async fn serve(self, inner: (Uuid, u64), asks: Socket) {
        let connection = Arc::clone(&self.connection);
        let (house, outer) = (Arc::clone(&connection.house), &connection.flow);
        let arrival = match self.leg {
            Leg::Origin(_) => "local_forward",
            Leg::Agent(..) => "remote_forward",
        };
        let (session, channel) = inner;
        let inner = Inner {
            session,
            channel,
            origin: self.destination(outer),
            arrival,
            dialer: outer.dialer.by(Arc::new(self)),
        };
        // A task of its own: it ends on record, also where this connection ends first.
        let flow = tokio::spawn(serve::carried(house, outer, inner, asks));
        let _ = flow.await;
    }

    fn destination(&self, outer: &Flow) -> Origin {
        let (host, port) = match &self.to {
            SshForward::Tcp { host, port } => match host.parse() {
                Ok(address) => (Host::Address(address), *port),
                Err(_) => (Host::Name(Arc::clone(host)), *port),
            },
            SshForward::Socket(path) => (Host::Socket(Arc::clone(path)), 0),
        };
        let named = outer.target.as_ref().map(|target| target.name.clone());
        let via = named.unwrap_or_else(|| outer.origin.to_string());
        let via = match self.leg {
            Leg::Origin(_) => via,
            // No target of the operator's lies there: it is the agent's own side.
            Leg::Agent(..) => format!("{via} (remote forward)"),
        };
        Origin {
            host,
            port,
            via: Some(via.into()),
        }
    }
}

impl Way for Road {
    fn dial(&self) -> Dialling<'_> {
        Box::pin(async {
            let first = {
                let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
                first.take()
            };
            match first {
                Some(first) => Ok(first),
                None => self.channel().await.map_err(std::io::Error::other),
            }
        })
    }
}

/// Puts a channel on record whose inside is a session of its own: that session, and the
/// channel's number.
pub(super) fn announce(connection: &Connection, kind: &str, what: &str) -> (Uuid, u64) {
    let session = Uuid::now_v7();
    let (channel, _) = connection.call(|engine, now, out| {
        engine.channel(now, kind, &format!("{what}, session {session}"), out)
    });
    (session, channel)
}

/// Whether the rules let a forward be.
async fn may_be(
    connection: &Connection,
    id: u64,
    request: Request,
    given_up: impl Future<Output = ()> + Send,
) -> Result<(), Arc<str>> {
    connection.refresh();
    let ((), acts) = connection.call(|session, now, out| session.ask(now, id, request, out));
    let mut acts = VecDeque::from(acts);
    let mut allowed: Result<(), Arc<str>> = Err("no rule allows it".into());
    let mut given_up = std::pin::pin!(given_up);
    while let Some(act) = acts.pop_front() {
        match act {
            Act::Forward(permit) => {
                drop(permit);
                allowed = Ok(());
            }
            Act::Refuse(why) => return Err(why),
            Act::Ask(question) => {
                let decision = tokio::select! {
                    decision = connection.ask(&question) => decision,
                    () = &mut given_up => Decision::Cancelled,
                };
                let ((), more) =
                    connection.call(|session, now, out| session.decided(now, id, decision, out));
                acts.extend(more);
            }
            _ => {}
        }
    }
    allowed
}

/// Whether the origin may listen for the agent.
pub(super) async fn may_listen(connection: &Connection, at: SshForward) -> bool {
    let (id, _) =
        connection.call(|session, now, out| session.channel(now, "remote forward", "", out));
    let request = Request::RemoteForward(at);
    let allowed = may_be(connection, id, request, std::future::pending()).await;
    let _ = connection.call(|session, now, out| session.channel_closed(now, id, out));
    allowed.is_ok() && connection.recorded().await.is_ok()
}

/// A forward that the agent opens.
pub(super) struct Local {
    pub(super) connection: Arc<Connection>,
    pub(super) agent: ChannelWriteHalf<server::Msg>,
    pub(super) agent_inbox: Arc<Inbox>,
    pub(super) agent_inboxes: Arc<Inboxes>,
    pub(super) origin: OriginLeg,
    pub(super) origin_inboxes: Arc<Inboxes>,
    pub(super) to: SshForward,
}

impl Local {
    /// Carries it to its end.
    pub(super) async fn run(self, reply: ChannelOpenHandle) {
        let (connection, inboxes) = (Arc::clone(&self.connection), self.agent_inboxes.clone());
        let agent = self.agent.id();
        let (kind, what) = match &self.to {
            SshForward::Tcp { host, port } => ("direct-tcpip", format!("{host}:{port}")),
            SshForward::Socket(path) => ("direct-streamlocal", path.to_string()),
        };
        let inner = announce(&connection, kind, &what);
        tokio::select! {
            _ = connection.ended() => {}
            () = Box::pin(self.carry(inner, reply)) => {}
        }
        inboxes.forget(agent);
        let _ = connection.call(|session, now, out| session.channel_closed(now, inner.1, out));
        let _ = connection.recorded().await;
    }

    async fn carry(self, inner: (Uuid, u64), reply: ChannelOpenHandle) {
        let connection = &self.connection;
        let request = Request::LocalForward(self.to.clone());
        let given_up = self.agent_inbox.closed();
        if let Err(why) = may_be(connection, inner.1, request, given_up).await {
            let reason = format!("Refused by Interceptor: {why}");
            let refused = ChannelOpenFailure::Other { code: 1, reason };
            return reply.reject(refused).await;
        }
        if connection.recorded().await.is_err() {
            return;
        }
        let leg = Leg::Origin(self.origin);
        let road = match Road::open(connection, leg, &self.origin_inboxes, self.to).await {
            Ok(road) => road,
            Err(russh::Error::ChannelOpenFailure(why)) => return reply.reject(why).await,
            Err(_) => return reply.reject(ChannelOpenFailure::ConnectFailed).await,
        };
        let Some(asks) = carried::socket(connection, &self.agent_inboxes, self.agent) else {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        };
        reply.accept().await;
        road.serve(inner, asks).await;
    }
}
