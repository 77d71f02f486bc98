//! The leg to the origin, as its client.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use russh::client::{self, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, Sig};
use tokio::sync::mpsc;

use super::Inboxes;
use super::inbox::Item;
use super::incoming::Incoming;
use super::known_hosts::{HostKeyFault, Known, Verified};

/// What the origin's host key came to.
#[derive(Debug, Default)]
pub(super) struct HostKey {
    pub(super) verified: Option<Result<Verified, HostKeyFault>>,
    pub(super) line: Option<String>,
    pub(super) fingerprint: String,
}

/// Why the leg ended.
#[derive(Debug)]
pub(super) struct Handler {
    pub(super) known: Known,
    pub(super) accept_new: bool,
    pub(super) host_key: Arc<Mutex<HostKey>>,
    pub(super) inboxes: Arc<Inboxes>,
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) gone: tokio::sync::watch::Sender<Option<String>>,
}

impl Handler {
    fn put(&self, id: ChannelId, item: Item) -> Result<(), russh::Error> {
        self.inboxes.put(id, item)
    }

    /// Hands a channel on that the origin opens; where nobody takes it, dropping
    /// its reply refuses it.
    fn incoming(&self, id: ChannelId, incoming: Incoming) {
        if self.inboxes.open(id).is_some() && self.incoming.try_send(incoming).is_ok() {
            return;
        }
        self.inboxes.forget(id);
    }
}

impl client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut verified = self.known.check(shown, now);
        let key = shown.public_key();
        let mut line = None;
        if self.accept_new && matches!(verified, Err(HostKeyFault::Unknown { .. })) {
            verified = Ok(Verified::New);
            line = self.known.line(&key).ok();
        }
        let accepted = verified.is_ok();
        let mut host_key = self.host_key.lock().unwrap_or_else(PoisonError::into_inner);
        *host_key = HostKey {
            verified: Some(verified),
            line,
            fingerprint: key.fingerprint(russh::keys::HashAlg::Sha256).to_string(),
        };
        Ok(accepted)
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        // The agent's side has counted it already.
        let _ = self.inboxes.open(id);
        Ok(())
    }

    async fn channel_success(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.put(id, Item::Answer(true))
    }

    async fn channel_failure(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.put(id, Item::Answer(false))
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.put(id, Item::Close)
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.put(id, Item::Eof)
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

    async fn exit_status(
        &mut self,
        id: ChannelId,
        status: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.put(id, Item::ExitStatus(status))
    }

    async fn exit_signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        core_dumped: bool,
        message: &str,
        language: &str,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let item = Item::ExitSignal {
            signal,
            core_dumped,
            message: message.to_owned(),
            language: language.to_owned(),
        };
        self.put(id, item)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        connected_address: &str,
        connected_port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let id = channel.id();
        let incoming = Incoming::tcp(
            channel,
            reply,
            (connected_address, connected_port),
            (originator_address, originator_port),
        );
        self.incoming(id, incoming);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let id = channel.id();
        self.incoming(id, Incoming::socket(channel, reply, path));
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let id = channel.id();
        self.incoming(id, Incoming::keys(channel, reply));
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        originator_address: &str,
        originator_port: u32,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let id = channel.id();
        let from = (originator_address, originator_port);
        self.incoming(id, Incoming::x11(channel, reply, from));
        Ok(())
    }

    // What a client never has to accept; dropping the reply refuses it.
    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: client::DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        let why = match &reason {
            client::DisconnectReason::ReceivedDisconnect(told) => {
                format!("the server closed it: {}", told.message)
            }
            client::DisconnectReason::Error(error) => {
                format!("the server's connection failed: {error}")
            }
        };
        self.gone.send_replace(Some(why));
        match reason {
            client::DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            client::DisconnectReason::Error(error) => Err(error),
        }
    }
}
