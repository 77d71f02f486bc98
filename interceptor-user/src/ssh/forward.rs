//! Channels that the origin opens: connections to where it was let listen, the
//! agent's keys, X11.
//!
//! Each is passed on only where a rule permitted, on this connection, what brings
//! it; what is inside is carried as it is, and goes by `uninspected`, but for the
//! agent's keys and X11, which the permission is about.

use std::sync::{Arc, PoisonError};

use interceptor_engine::hold::Decision;
use interceptor_engine::ssh::{Act, Request};
use interceptor_policy::operation::ssh::SshForward;
use russh::server::Handle;
use russh::{Channel, ChannelOpenFailure, ChannelWriteHalf, client};

use super::Connection;
use super::Inboxes;
use super::agent::Permitted;
use super::inbox::{Inbox, Item, WINDOW};
use crate::config::Uninspected;

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

/// Whether the origin may listen for the agent.
pub(super) async fn may_listen(connection: &Connection, at: SshForward) -> bool {
    if connection.house.config.intercept.uninspected == Uninspected::Block {
        let what = "a remote forward: what runs inside is not read, and `uninspected` is `block`";
        let _ = connection.call(|session, now, out| session.unknown(now, what, out));
        return false;
    }
    connection.refresh();
    let (id, mut acts) = connection.call(|session, now, out| {
        let id = session.channel(now, "remote forward", "", out);
        session.ask(now, id, Request::RemoteForward(at), out);
        id
    });
    let mut allowed = false;
    while let Some(act) = acts.pop() {
        match act {
            Act::Forward(permit) => {
                drop(permit);
                allowed = true;
            }
            Act::Ask(question) => {
                let decision: Decision = connection.ask(&question).await;
                let ((), more) =
                    connection.call(|session, now, out| session.decided(now, id, decision, out));
                acts.extend(more);
            }
            _ => {}
        }
    }
    let _ = connection.call(|session, now, out| session.channel_closed(now, id, out));
    allowed && connection.recorded().await.is_ok()
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
    let (id, _) = connection.call(|session, now, out| session.channel(now, kind, &what, out));
    let handle = &ways.handle;
    let opened = match incoming.kind {
        Kind::Tcp { at, from } => {
            handle
                .channel_open_forwarded_tcpip(at.0, at.1, from.0, from.1)
                .await
        }
        Kind::Socket(path) => handle.channel_open_forwarded_streamlocal(path).await,
        Kind::Keys => handle.channel_open_agent().await,
        Kind::X11 { from } => handle.channel_open_x11(from.0, from.1).await,
    };
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

/// Bytes of one side to the other, until it closes.
async fn pump<A, B>(inbox: &Inbox, own: &ChannelWriteHalf<A>, other: &ChannelWriteHalf<B>)
where
    A: From<(russh::ChannelId, russh::ChannelMsg)> + Send + Sync + 'static,
    B: From<(russh::ChannelId, russh::ChannelMsg)> + Send + Sync + 'static,
{
    let mut passed = 0;
    loop {
        match inbox.take().await {
            Item::Data(bytes) => {
                passed += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                if other.data_bytes(bytes).await.is_err() {
                    return;
                }
                if passed >= WINDOW / 8 {
                    if own.grant_window(passed).await.is_err() {
                        return;
                    }
                    passed = 0;
                }
            }
            Item::Eof => {
                let Ok(()) = other.eof().await else { return };
            }
            Item::Close | Item::Extended(..) => return,
            _ => {}
        }
    }
}
