//! The leg to the agent, as its server.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use interceptor_policy::operation::ssh::SshForward;
use russh::server::{Auth, ChannelOpenHandle, Handle, Msg, PublicKeyOffer, Response, Session};
use russh::server::{Handler as ServerHandler, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig, client};

use super::Connection;
use super::inbox::{Asked, Item};
use super::logon::Logon;
use super::relay;
use super::{Inboxes, forward, origin};

/// The origin's connection, once the agent is let in.
pub(super) type Origin = Arc<client::Handle<origin::Handler>>;

/// What the agent may be sent from the origin's side, as it was permitted.
#[derive(Debug, Default)]
pub(super) struct Permitted {
    pub(super) keys: bool,
    pub(super) x11: bool,
    pub(super) forwards: HashSet<String>,
}

/// The agent's side of a connection.
pub(super) struct Handler {
    pub(super) connection: Arc<Connection>,
    pub(super) inboxes: Arc<Inboxes>,
    pub(super) origin_inboxes: Arc<Inboxes>,
    pub(super) logon: Logon,
    pub(super) origin: Option<Origin>,
    pub(super) permitted: Arc<Mutex<Permitted>>,
    pub(super) ready: tokio::sync::watch::Sender<Option<Origin>>,
}

impl Handler {
    fn put(&self, id: ChannelId, item: Item) -> Result<(), russh::Error> {
        self.inboxes.put(id, item)
    }

    fn ask(&self, id: ChannelId, asked: Asked, session: &Session) -> Result<(), russh::Error> {
        self.put(id, Item::Ask(asked, session.wants_reply(id)))
    }

    /// Carries a channel that the agent opens: a session, or a forward.
    async fn open(
        &self,
        channel: Channel<Msg>,
        to: Option<SshForward>,
        reply: ChannelOpenHandle,
        handle: Handle,
    ) {
        let Some(origin) = self.origin.clone() else {
            return reply
                .reject(ChannelOpenFailure::AdministrativelyProhibited)
                .await;
        };
        let Some(agent_inbox) = self.inboxes.open(channel.id()) else {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        };
        let (_, agent) = channel.split();
        let connection = Arc::clone(&self.connection);
        let agent_inboxes = Arc::clone(&self.inboxes);
        let origin_inboxes = Arc::clone(&self.origin_inboxes);
        match to {
            None => {
                let ends = relay::Ends {
                    connection,
                    handle,
                    agent,
                    agent_inbox,
                    agent_inboxes,
                    origin,
                    origin_inboxes,
                    permitted: Arc::clone(&self.permitted),
                };
                tokio::spawn(relay::run(ends, reply));
            }
            Some(to) => {
                let local = forward::Local {
                    connection,
                    agent,
                    agent_inbox,
                    agent_inboxes,
                    origin,
                    origin_inboxes,
                    to,
                };
                tokio::spawn(local.run(reply));
            }
        }
    }

    fn permitted(&self) -> MutexGuard<'_, Permitted> {
        self.permitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown(&self, what: &str) {
        let _ = self
            .connection
            .call(|session, now, out| session.unknown(now, what, out));
    }

    async fn let_in(&mut self, auth: Auth) -> Auth {
        if auth == Auth::Accept {
            self.origin = self.logon.take_origin();
            self.ready.send_replace(self.origin.clone());
        }
        auth
    }
}

impl ServerHandler for Handler {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        let auth = self.logon.none(&self.connection, user).await;
        Ok(self.let_in(auth).await)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let auth = self.logon.password(&self.connection, user, password).await;
        Ok(self.let_in(auth).await)
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.logon.offered(offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        shown: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let key = shown.public_key;
        let auth = self.logon.key(&self.connection, user, key).await;
        Ok(self.let_in(auth).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let response = response.map(|response| {
            response
                .map(|one| String::from_utf8_lossy(&one).into_owned())
                .collect()
        });
        let auth = self
            .logon
            .interactive(&self.connection, user, submethods, response)
            .await;
        Ok(self.let_in(auth).await)
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.put(id, Item::Close)
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.put(id, Item::Eof)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open(channel, None, reply, session.handle()).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Ok(port) = u16::try_from(port) else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        let host = host.into();
        let to = SshForward::Tcp { host, port };
        self.open(channel, Some(to), reply, session.handle()).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let to = SshForward::Socket(path.into());
        self.open(channel, Some(to), reply, session.handle()).await;
        Ok(())
    }

    // Only a server opens these; dropping the reply refuses them.
    async fn channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.unknown("a channel of type x11 from the agent");
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.unknown("a channel of type forwarded-tcpip from the agent");
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        // The origin's side has counted it already.
        let _ = self.inboxes.open(id);
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.put(id, Item::Data(Bytes::copy_from_slice(data)))
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        stream: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.put(id, Item::Extended(stream, Bytes::copy_from_slice(data)))
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let asked = Asked::Terminal {
            name: term.to_owned(),
            size: [columns, rows, width, height],
            modes: modes.to_vec(),
        };
        self.ask(id, asked, session)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        single: bool,
        protocol: &str,
        cookie: &str,
        screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let asked = Asked::X11 {
            single,
            protocol: protocol.to_owned(),
            cookie: cookie.to_owned(),
            screen,
        };
        self.ask(id, asked, session)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(id, Asked::Env(name.to_owned(), value.to_owned()), session)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(id, Asked::Shell, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(id, Asked::Exec(Bytes::copy_from_slice(line)), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(id, Asked::Subsystem(name.to_owned()), session)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(id, Asked::Resize([columns, rows, width, height]), session)
    }

    async fn agent_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        // Answered at once by russh: yes here only says that it was understood. Its
        // channels are opened when the rules and the origin said yes as well.
        self.put(id, Item::Ask(Asked::AgentForward, false))?;
        let _ = session;
        Ok(true)
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(id, Asked::Signal(signal), session)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Some(origin) = self.origin.clone() else {
            return Ok(false);
        };
        let Ok(asked) = u16::try_from(*port) else {
            return Ok(false);
        };
        let at = SshForward::Tcp {
            host: address.into(),
            port: asked,
        };
        if !forward::may_listen(&self.connection, at).await {
            return Ok(false);
        }
        let Ok(got) = origin.tcpip_forward(address, *port).await else {
            return Ok(false);
        };
        if *port == 0 {
            *port = got;
        }
        self.permitted()
            .forwards
            .insert(format!("{address}:{port}"));
        Ok(true)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.permitted()
            .forwards
            .remove(&format!("{address}:{port}"));
        match self.origin.clone() {
            Some(origin) => Ok(origin.cancel_tcpip_forward(address, port).await.is_ok()),
            None => Ok(false),
        }
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Some(origin) = self.origin.clone() else {
            return Ok(false);
        };
        if !forward::may_listen(&self.connection, SshForward::Socket(path.into())).await
            || origin.streamlocal_forward(path).await.is_err()
        {
            return Ok(false);
        }
        self.permitted().forwards.insert(path.to_owned());
        Ok(true)
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.permitted().forwards.remove(path);
        match self.origin.clone() {
            Some(origin) => Ok(origin.cancel_streamlocal_forward(path).await.is_ok()),
            None => Ok(false),
        }
    }
}
