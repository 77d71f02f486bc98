//! A channel as a socket of this process: its bytes are passed between the channel's
//! queue and a pipe, whose other end a flow reads as it reads a TCP connection.

use std::sync::Arc;

use russh::{ChannelId, ChannelMsg, ChannelWriteHalf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::inbox::{Inbox, Item, PACKET, Passed};
use super::{Connection, Inboxes};
use crate::net::Socket;
use crate::net::socket::Gone;

/// Bytes between a channel and its flow.
const ROOM: usize = 64 << 10;

/// Makes a channel a socket, for as long as the connection and its flow last.
pub(super) fn socket<M>(
    connection: &Arc<Connection>,
    inboxes: &Arc<Inboxes>,
    channel: ChannelWriteHalf<M>,
) -> Option<Socket>
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let inbox = inboxes.of(channel.id())?;
    let (socket, pipe, gone) = Socket::pipe(ROOM);
    let (connection, inboxes) = (Arc::clone(connection), Arc::clone(inboxes));
    tokio::spawn(async move {
        tokio::select! {
            _ = connection.ended() => {}
            () = carry(&inbox, &channel, pipe, gone) => {}
        }
        let _ = channel.close().await;
        inboxes.forget(channel.id());
    });
    Some(socket)
}

async fn carry<M>(inbox: &Inbox, channel: &ChannelWriteHalf<M>, pipe: DuplexStream, gone: Gone)
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let (mut from_flow, mut to_flow) = tokio::io::split(pipe);
    let out = async {
        let mut bytes = vec![0; PACKET as usize];
        loop {
            let read = from_flow.read(&mut bytes).await.unwrap_or(0);
            let Some(said) = bytes.get(..read).filter(|said| !said.is_empty()) else {
                break;
            };
            if channel.data_bytes(said.to_vec()).await.is_err() {
                return;
            }
        }
        let _ = channel.eof().await;
        // An error is what its end is told by.
        let _ = gone.await;
    };
    let into = async {
        let mut passed = Passed::default();
        loop {
            match inbox.take().await {
                Item::Data(bytes) => {
                    let written = to_flow.write_all(&bytes).await.is_ok();
                    if !written || passed.add(bytes.len(), channel).await.is_err() {
                        return;
                    }
                }
                Item::Eof => {
                    let _ = to_flow.shutdown().await;
                }
                Item::Close | Item::Extended(..) => return,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = into => {}
    }
}
