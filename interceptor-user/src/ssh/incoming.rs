//! Channels that the origin opens: connections to where it was let listen, the
//! agent's keys, X11.
//!
//! Each is passed on only where a rule permitted, on this connection, what brings
//! it. A connection is a flow of its own; the agent's keys and X11 are carried as they
//! are, since they are what the permission is about.

use std::sync::{Arc, PoisonError};

use interceptor_policy::operation::ssh::SshForward;
use russh::server::Handle;
use russh::{Channel, ChannelOpenFailure, ChannelWriteHalf, client};

use super::Connection;
use super::Inboxes;
use super::agent::Permitted;
use super::carried;
use super::forward::{self, Leg, Road};
use super::inbox::{Inbox, Item, Passed};

/// Where a channel from the origin belongs.
#[derive(Debug)]
enum Kind {
    Tcp {
        at: (String, u32),
        from: (String, u32),
    },
    Socket(String),
    Keys,
    X11 {
        from: (String, u32),
    },
}

/// A channel that the origin opens.
pub(super) struct Incoming {
    channel: Channel<client::Msg>,
    reply: client::ChannelOpenHandle,
    kind: Kind,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Incoming {
    pub(super) fn tcp(
        channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        at: (&str, u32),
        from: (&str, u32),
    ) -> Self {
        let kind = Kind::Tcp {
            at: (at.0.to_owned(), at.1),
            from: (from.0.to_owned(), from.1),
        };
        Self {
            channel,
            reply,
            kind,
        }
    }

    pub(super) fn socket(
        channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        path: &str,
    ) -> Self {
        Self {
            channel,
            reply,
            kind: Kind::Socket(path.to_owned()),
        }
    }

    pub(super) fn keys(channel: Channel<client::Msg>, reply: client::ChannelOpenHandle) -> Self {
        Self {
            channel,
            reply,
            kind: Kind::Keys,
        }
    }

    pub(super) fn x11(
        channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        from: (&str, u32),
    ) -> Self {
        let from = (from.0.to_owned(), from.1);
        Self {
            channel,
            reply,
            kind: Kind::X11 { from },
        }
    }

    fn is_permitted(&self, permitted: &Permitted) -> bool {
        match &self.kind {
            Kind::Tcp { at, .. } => permitted.forwards.contains(&format!("{}:{}", at.0, at.1)),
            Kind::Socket(path) => permitted.forwards.contains(path),
            Kind::Keys => permitted.keys,
            Kind::X11 { .. } => permitted.x11,
        }
    }

    fn told(&self) -> (&'static str, String) {
        match &self.kind {
            Kind::Tcp { at, from } => (
                "forwarded-tcpip",
                format!("{}:{} from {}:{}", at.0, at.1, from.0, from.1),
            ),
            Kind::Socket(path) => ("forwarded-streamlocal", path.clone()),
            Kind::Keys => ("auth-agent", String::new()),
            Kind::X11 { from } => ("x11", format!("from {}:{}", from.0, from.1)),
        }
    }
}

/// Both sides' queues, and what was permitted.
pub(super) struct Ways {
    pub(super) connection: Arc<Connection>,
    pub(super) handle: Handle,
    pub(super) agent_inboxes: Arc<Inboxes>,
    pub(super) origin_inboxes: Arc<Inboxes>,
    pub(super) permitted: Arc<std::sync::Mutex<Permitted>>,
}

/// Carries a channel that the origin opens, to its end.
pub(super) async fn run(ways: Ways, incoming: Incoming) {
    let origin_id = incoming.channel.id();
    let connection = Arc::clone(&ways.connection);
    let origin_inboxes = Arc::clone(&ways.origin_inboxes);
    tokio::select! {
        _ = connection.ended() => {}
        () = Box::pin(carry(&ways, incoming)) => {}
    }
    origin_inboxes.forget(origin_id);
}

async fn carry(ways: &Ways, incoming: Incoming) {
    let connection = &ways.connection;
    let permitted = {
        let permitted = ways
            .permitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        incoming.is_permitted(&permitted)
    };
    let (kind, what) = incoming.told();
    if !permitted {
        let what = format!("a channel of type {kind} that nothing permitted");
        let _ = connection.call(|session, now, out| session.unknown(now, &what, out));
        return incoming
            .reply
            .reject(ChannelOpenFailure::AdministrativelyProhibited)
            .await;
    }
    let handle = &ways.handle;
    let opened = match incoming.kind {
        Kind::Tcp { at, from } => {
            let (host, port) = (at.0.into(), u16::try_from(at.1).unwrap_or_default());
            let to = SshForward::Tcp { host, port };
            let ends = (incoming.channel, incoming.reply);
            return inner(ways, ends, (kind, &what), to, from).await;
        }
        Kind::Socket(path) => {
            let to = SshForward::Socket(path.into());
            let ends = (incoming.channel, incoming.reply);
            return inner(ways, ends, (kind, &what), to, Default::default()).await;
        }
        Kind::Keys => handle.channel_open_agent().await,
        Kind::X11 { from } => handle.channel_open_x11(from.0, from.1).await,
    };
    let (id, _) = connection.call(|session, now, out| session.channel(now, kind, &what, out));
    let agent = match opened {
        Ok(channel) => channel.split().1,
        Err(_) => {
            let _ = connection.call(|session, now, out| session.channel_closed(now, id, out));
            return incoming
                .reply
                .reject(ChannelOpenFailure::ConnectFailed)
                .await;
        }
    };
    let inboxes = (
        ways.agent_inboxes.of(agent.id()),
        ways.origin_inboxes.of(incoming.channel.id()),
    );
    let (Some(agent_inbox), Some(origin_inbox)) = inboxes else {
        return;
    };
    incoming.reply.accept().await;
    let (_, origin) = incoming.channel.split();
    tokio::select! {
        () = pump(&agent_inbox, &agent, &origin) => {}
        () = pump(&origin_inbox, &origin, &agent) => {}
    }
    let _ = agent.close().await;
    let _ = origin.close().await;
    ways.agent_inboxes.forget(agent.id());
    let _ = connection.call(|session, now, out| session.channel_closed(now, id, out));
}

/// A connection to where the origin was let listen, as a flow of its own.
async fn inner(
    ways: &Ways,
    (channel, reply): (Channel<client::Msg>, client::ChannelOpenHandle),
    (kind, what): (&str, &str),
    to: SshForward,
    from: (String, u32),
) {
    let connection = &ways.connection;
    let leg = Leg::Agent(ways.handle.clone(), from);
    let road = match Road::open(connection, leg, &ways.agent_inboxes, to).await {
        Ok(road) => road,
        Err(_) => return reply.reject(ChannelOpenFailure::ConnectFailed).await,
    };
    let (_, channel) = channel.split();
    let Some(asks) = carried::socket(connection, &ways.origin_inboxes, channel) else {
        return reply.reject(ChannelOpenFailure::ResourceShortage).await;
    };
    let inner = forward::announce(connection, kind, what);
    reply.accept().await;
    road.serve(inner, asks).await;
    let _ = connection.call(|session, now, out| session.channel_closed(now, inner.1, out));
}

/// Bytes of one side to the other, until it closes.
async fn pump<A, B>(inbox: &Inbox, own: &ChannelWriteHalf<A>, other: &ChannelWriteHalf<B>)
where
    A: From<(russh::ChannelId, russh::ChannelMsg)> + Send + Sync + 'static,
    B: From<(russh::ChannelId, russh::ChannelMsg)> + Send + Sync + 'static,
{
    let mut passed = Passed::default();
    loop {
        match inbox.take().await {
            Item::Data(bytes) => {
                let length = bytes.len();
                if other.data_bytes(bytes).await.is_err() || passed.add(length, own).await.is_err()
                {
                    return;
                }
            }
            Item::Eof if other.eof().await.is_err() => return,
            Item::Close | Item::Extended(..) => return,
            _ => {}
        }
    }
}
