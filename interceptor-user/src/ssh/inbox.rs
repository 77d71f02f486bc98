//! What one side said on a channel and nobody has taken yet.
//!
//! The transport's loop puts in and never waits, so that no channel stands in the
//! way of another, and an answer always finds its way. How much can be in here is
//! bounded by what was granted: a peer is let send more only when something was
//! taken out and passed on.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use russh::{ChannelId, ChannelMsg, ChannelWriteHalf, Pty, Sig};
use tokio::sync::Notify;

/// What may be sent on a channel before anything of it was passed on.
pub(super) const WINDOW: u32 = 2 << 20;
/// The longest packet.
pub(super) const PACKET: u32 = 32 << 10;
/// What is passed on before the sender is granted as much anew.
const GRANT: u32 = WINDOW / 8;
/// Requests that may wait; OpenSSH sends a handful.
const REQUESTS: usize = 256;
/// Pieces shorter than this are joined, so that bytes cost no more than bytes.
const JOINED: usize = 4 << 10;

/// One thing that was said on a channel.
#[derive(Debug)]
pub(super) enum Item {
    /// Bytes.
    Data(Bytes),
    /// Bytes on another stream than the first (RFC 4254, section 5.2).
    Extended(u32, Bytes),
    /// No more bytes.
    Eof,
    /// The end.
    Close,
    /// Something is asked for; whether an answer is wanted.
    Ask(Asked, bool),
    /// What was asked for is granted, or not.
    Answer(bool),
    /// What ran ended.
    ExitStatus(u32),
    /// What ran was ended.
    ExitSignal {
        /// By which signal.
        signal: Sig,
        /// Whether its memory was kept.
        core_dumped: bool,
        /// In words.
        message: String,
        /// Their language.
        language: String,
    },
}

/// A request as it goes on, with what rules do not look at.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Shell,
    Exec(Bytes),
    Subsystem(String),
    Env(String, String),
    Terminal {
        name: String,
        size: [u32; 4],
        modes: Vec<(Pty, u32)>,
    },
    Resize([u32; 4]),
    Signal(Sig),
    AgentForward,
    X11 {
        single: bool,
        protocol: String,
        cookie: String,
        screen: u32,
    },
}

/// A side's queue.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    items: Mutex<Items>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Items {
    queue: VecDeque<Item>,
    requests: usize,
    closed: bool,
}

impl Inbox {
    /// Puts something in; false where that is more than a peer sends in good faith.
    pub(super) fn put(&self, item: Item) -> bool {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = match &item {
            Item::Ask(..) | Item::Answer(_) => {
                items.requests += 1;
                items.requests <= REQUESTS
            }
            Item::Close => {
                items.closed = true;
                true
            }
            _ => true,
        };
        if let (Item::Data(new), Some(Item::Data(last))) = (&item, items.queue.back_mut())
            && last.len() + new.len() <= JOINED
        {
            let mut joined = BytesMut::with_capacity(last.len() + new.len());
            joined.extend_from_slice(last);
            joined.extend_from_slice(new);
            *last = joined.freeze();
        } else {
            items.queue.push_back(item);
        }
        drop(items);
        self.filled.notify_one();
        fits
    }

    /// Takes the next thing, once there is one.
    pub(super) async fn take(&self) -> Item {
        loop {
            let filled = self.filled.notified();
            if let Some(item) = self.pop() {
                return item;
            }
            filled.await;
        }
    }

    fn pop(&self) -> Option<Item> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let item = items.queue.pop_front()?;
        if matches!(item, Item::Ask(..) | Item::Answer(_)) {
            items.requests -= 1;
        }
        Some(item)
    }

    /// Waits until the side has closed the channel, whatever else is in here.
    pub(super) async fn closed(&self) {
        let mut wait = tokio::time::interval(std::time::Duration::from_millis(200));
        loop {
            let closed = {
                let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
                items.closed
            };
            if closed {
                return;
            }
            wait.tick().await;
        }
    }
}

/// What was passed on of a side's bytes and not granted to it anew.
#[derive(Debug, Default)]
pub(super) struct Passed(u32);

impl Passed {
    /// Counts bytes that were passed on, and grants their sender as much where that is
    /// worth a message.
    ///
    /// # Errors
    /// When the side is gone.
    pub(super) async fn add<M>(
        &mut self,
        bytes: usize,
        sender: &ChannelWriteHalf<M>,
    ) -> Result<(), russh::Error>
    where
        M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
    {
        self.0 = self
            .0
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.0 >= GRANT {
            sender.grant_window(std::mem::take(&mut self.0)).await?;
        }
        Ok(())
    }
}
