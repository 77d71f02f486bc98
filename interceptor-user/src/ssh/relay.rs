//! One session that the agent opened, carried between the two legs.
//!
//! One loop a direction, which never wait for each other but where a request waits
//! for the origin's answer, since answers come in the order of requests; and one for
//! what comes of time. What
//! was passed on is granted to its sender anew; so a reader that is slow makes its
//! writer slow, and nobody else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use interceptor_engine::hold::Decision;
use interceptor_engine::ssh::{Act, Exit, Request, Size};
use russh::server::{ChannelOpenHandle, Handle};
use russh::{ChannelOpenFailure, ChannelWriteHalf, Sig, client, server};
use tokio::sync::Notify;

use super::Connection;
use super::Inboxes;
use super::agent::{Origin, Permitted};
use super::inbox::{Asked, Inbox, Item, Passed};
use crate::flow::shared::Unrecorded;

/// How long a last line without an end is held back for a mask.
const QUIET: Duration = Duration::from_millis(5);
/// How long the end of output waits for the status behind it: an agent that has ended
/// as well closes the channel at once, and a closed channel takes no status.
const EXIT: Duration = Duration::from_secs(1);
/// `SSH_EXTENDED_DATA_STDERR`.
const STDERR: u32 = 1;
/// What a shell says of a command that may not be run.
const REFUSED: u32 = 126;

/// What both ends of a channel are reached by.
pub(super) struct Ends {
    pub(super) connection: Arc<Connection>,
    pub(super) handle: Handle,
    pub(super) agent: ChannelWriteHalf<server::Msg>,
    pub(super) agent_inbox: Arc<Inbox>,
    pub(super) agent_inboxes: Arc<Inboxes>,
    pub(super) origin: Origin,
    pub(super) origin_inboxes: Arc<Inboxes>,
    pub(super) permitted: Arc<Mutex<Permitted>>,
}

/// Why a channel goes no further.
enum Over {
    /// A side closed it, or it is to be closed.
    Closed,
    /// A leg is gone.
    Gone,
}

impl From<Unrecorded> for Over {
    fn from(_: Unrecorded) -> Self {
        Self::Gone
    }
}

impl From<russh::Error> for Over {
    fn from(_: russh::Error) -> Self {
        Self::Gone
    }
}

/// Carries a channel to its end.
pub(super) async fn run(ends: Ends, reply: ChannelOpenHandle) {
    let agent_id = ends.agent.id();
    let agent_inboxes = Arc::clone(&ends.agent_inboxes);
    let connection = Arc::clone(&ends.connection);
    let ended = connection.ended();
    tokio::select! {
        _ = ended => {}
        () = Box::pin(carry(ends, reply)) => {}
    }
    agent_inboxes.forget(agent_id);
}

async fn carry(ends: Ends, reply: ChannelOpenHandle) {
    let connection = Arc::clone(&ends.connection);
    let (id, _) = connection.call(|session, now, out| session.channel(now, "session", "", out));
    let opened = ends.origin.channel_open_session().await;
    let origin = match opened {
        Ok(channel) => channel.split().1,
        Err(error) => {
            let reason = match error {
                russh::Error::ChannelOpenFailure(reason) => reason,
                _ => ChannelOpenFailure::ConnectFailed,
            };
            reply.reject(reason).await;
            let _ = connection.call(|session, now, out| session.channel_closed(now, id, out));
            return;
        }
    };
    let origin_id = origin.id();
    let origin_inboxes = Arc::clone(&ends.origin_inboxes);
    let Some(origin_inbox) = origin_inboxes.of(origin_id) else {
        return;
    };
    if connection.recorded().await.is_err() {
        return;
    }
    reply.accept().await;
    let relay = Relay {
        id,
        origin_out: origin,
        origin_inbox,
        replies: Mutex::default(),
        answered: Notify::new(),
        to_agent: tokio::sync::Mutex::default(),
        to_origin: tokio::sync::Mutex::default(),
        outgoing: Mutex::default(),
        changed: Notify::new(),
        terminal: std::sync::atomic::AtomicBool::new(false),
        ends,
    };
    let over = tokio::select! {
        over = relay.up() => over,
        over = relay.down() => over,
        over = relay.late() => over,
    };
    let _ = connection.call(|session, now, out| session.channel_closed(now, id, out));
    let _ = connection.recorded().await;
    if matches!(over, Err(Over::Closed) | Ok(())) {
        let _ = relay.ends.agent.close().await;
    }
    let _ = relay.origin_out.close().await;
    origin_inboxes.forget(origin_id);
}

/// What a request's answer is for.
struct Reply {
    wanted: bool,
    asked: Asked,
}

struct Relay {
    ends: Ends,
    id: u64,
    origin_out: ChannelWriteHalf<client::Msg>,
    origin_inbox: Arc<Inbox>,
    replies: Mutex<VecDeque<Reply>>,
    answered: Notify,
    /// One message at a time, since it may go in several packets.
    to_agent: tokio::sync::Mutex<()>,
    to_origin: tokio::sync::Mutex<()>,
    /// For the origin, in the order in which the session said so.
    outgoing: Mutex<VecDeque<Bytes>>,
    /// There may be something in it, or another moment to wait for.
    changed: Notify,
    terminal: std::sync::atomic::AtomicBool,
}

impl Relay {
    /// From the agent to the origin.
    async fn up(&self) -> Result<(), Over> {
        let mut passed = Passed::default();
        loop {
            match self.ends.agent_inbox.take().await {
                Item::Data(bytes) => {
                    let length = bytes.len();
                    self.call_and_do(|session, now, id, out| session.input(now, id, bytes, out))
                        .await?;
                    self.send().await?;
                    self.wants_input().await;
                    passed.add(length, &self.ends.agent).await?;
                }
                Item::Eof => {
                    self.call_and_do(|session, now, id, out| session.input_end(now, id, out))
                        .await?;
                    self.all_said().await;
                    self.send().await?;
                    self.origin_out.eof().await?;
                }
                Item::Ask(asked, wanted) => self.request(asked, wanted).await?,
                // A client has one stream.
                Item::Close | Item::Extended(..) => return Err(Over::Closed),
                Item::Answer(_) | Item::ExitStatus(_) | Item::ExitSignal { .. } => {}
            }
        }
    }

    /// From the origin to the agent.
    async fn down(&self) -> Result<(), Over> {
        let mut passed = Passed::default();
        // The end of output that is kept back, until when.
        let mut ended: Option<tokio::time::Instant> = None;
        loop {
            let held = {
                let (held, _) = self
                    .ends
                    .connection
                    .call(|session, _, _| session.holds_output(self.id));
                held
            };
            let item = if let Some(until) = ended {
                match tokio::time::timeout_at(until, self.origin_inbox.take()).await {
                    Ok(item) => item,
                    Err(_) => {
                        ended = None;
                        self.ends.agent.eof().await?;
                        continue;
                    }
                }
            } else if held {
                match tokio::time::timeout(QUIET, self.origin_inbox.take()).await {
                    Ok(item) => item,
                    Err(_) => {
                        self.call_and_do(|session, now, id, out| session.quiet(now, id, out))
                            .await?;
                        self.origin_inbox.take().await
                    }
                }
            } else {
                self.origin_inbox.take().await
            };
            let (bytes, stderr) = match item {
                Item::Data(bytes) => (bytes, false),
                Item::Extended(STDERR, bytes) => (bytes, true),
                Item::Extended(..) => return Err(Over::Closed),
                Item::Eof => {
                    self.call_and_do(|session, now, id, out| session.output_end(now, id, out))
                        .await?;
                    ended = Some(tokio::time::Instant::now() + EXIT);
                    continue;
                }
                Item::Close => {
                    self.call_and_do(|session, now, id, out| session.output_end(now, id, out))
                        .await?;
                    return Ok(());
                }
                Item::Answer(accepted) => {
                    self.answer(accepted).await?;
                    continue;
                }
                Item::ExitStatus(status) => {
                    self.exited(Exit::Status(status)).await?;
                    self.ends.agent.exit_status(status).await?;
                    if ended.take().is_some() {
                        self.ends.agent.eof().await?;
                    }
                    continue;
                }
                Item::ExitSignal {
                    signal,
                    core_dumped,
                    message,
                    language,
                } => {
                    self.exited(Exit::Signal(signal_name(&signal))).await?;
                    let id = self.ends.agent.id();
                    let told = self.ends.handle.exit_signal_request(
                        id,
                        signal,
                        core_dumped,
                        message,
                        language,
                    );
                    told.await.map_err(|()| Over::Gone)?;
                    if ended.take().is_some() {
                        self.ends.agent.eof().await?;
                    }
                    continue;
                }
                Item::Ask(..) => continue,
            };
            let length = bytes.len();
            self.call_and_do(|session, now, id, out| session.output(now, id, stderr, bytes, out))
                .await?;
            passed.add(length, &self.origin_out).await?;
        }
    }

    /// What comes of time, and what the other loops left for the origin.
    async fn late(&self) -> Result<(), Over> {
        loop {
            let (deadline, _) = self
                .ends
                .connection
                .call(|session, _, _| session.deadline(self.id));
            let due = async {
                match deadline {
                    Some(due) => {
                        let at = self.ends.connection.flow.began + Duration::from_micros(due.0);
                        tokio::time::sleep_until(at.into()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            let is_due = tokio::select! {
                () = due => true,
                () = self.changed.notified() => false,
            };
            if is_due {
                self.call_and_do(|session, now, id, out| session.time_is(now, id, out))
                    .await?;
            }
            self.send().await?;
        }
    }

    /// Waits until the session takes more of the agent's: a terminal keeps what is
    /// typed while a line is judged, up to a limit.
    async fn wants_input(&self) {
        loop {
            let (wants, _) = self
                .ends
                .connection
                .call(|session, _, _| session.wants_input(self.id));
            if wants {
                return;
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    /// Waits until nothing of the agent's is kept back any more: behind the end of its
    /// input nothing can follow.
    async fn all_said(&self) {
        loop {
            let (keeps, _) = self
                .ends
                .connection
                .call(|session, _, _| session.keeps_input(self.id));
            if !keeps {
                return;
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    /// Sends what there is for the origin.
    async fn send(&self) -> Result<(), Over> {
        let _one = self.to_origin.lock().await;
        loop {
            let next = {
                let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
                outgoing.pop_front()
            };
            let Some(bytes) = next else { return Ok(()) };
            self.ends.connection.recorded().await?;
            self.origin_out.data_bytes(bytes).await?;
        }
    }

    async fn exited(&self, exit: Exit) -> Result<(), Over> {
        self.call_and_do(|session, now, id, out| session.exited(now, id, exit, out))
            .await
    }

    async fn call_and_do(
        &self,
        ask: impl FnOnce(
            &mut interceptor_engine::ssh::SshSession,
            interceptor_engine::event::FlowTime,
            u64,
            &mut interceptor_engine::ssh::Outbox,
        ),
    ) -> Result<(), Over> {
        // Lines and files are judged by the rules of the moment, however long ago the
        // shell was opened.
        self.ends.connection.refresh();
        let ((), acts) = self.ends.connection.call(|session, now, out| {
            ask(session, now, self.id, out);
            self.queue(&mut out.acts);
        });
        self.carry_out(acts, None).await
    }

    /// Takes out what is for the origin, while its order is certain.
    fn queue(&self, acts: &mut Vec<Act>) {
        let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        acts.retain_mut(|act| match act {
            Act::ToOrigin(bytes) => {
                outgoing.push_back(std::mem::take(bytes));
                false
            }
            _ => true,
        });
        drop(outgoing);
        self.changed.notify_one();
    }

    /// Does what is to be done, in order, once what explains it is recorded.
    async fn carry_out(&self, acts: Vec<Act>, request: Option<(&Asked, bool)>) -> Result<(), Over> {
        if !acts.is_empty() {
            self.ends.connection.recorded().await?;
        }
        let mut acts = VecDeque::from(acts);
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Forward(permit) => {
                    if let Some((asked, wanted)) = request {
                        self.pass(asked, wanted).await?;
                    }
                    drop(permit);
                }
                Act::Pass => {
                    if let Some((asked, wanted)) = request {
                        self.pass(asked, wanted).await?;
                    }
                }
                Act::Refuse(why) => {
                    if let Some((asked, wanted)) = request {
                        self.refuse(asked, wanted, &why).await?;
                    }
                }
                Act::Ask(question) => {
                    let decision = tokio::select! {
                        decision = self.ends.connection.ask(&question) => decision,
                        () = self.ends.agent_inbox.closed() => Decision::Cancelled,
                    };
                    let ((), more) = self.ends.connection.call(|session, now, out| {
                        session.decided(now, self.id, decision, out);
                        self.queue(&mut out.acts);
                    });
                    self.ends.connection.recorded().await?;
                    acts.extend(more);
                }
                // Queued when it was said.
                Act::ToOrigin(_) => {}
                Act::ToAgent { stderr, bytes } => self.show(stderr, bytes).await?,
                Act::Close => return Err(Over::Closed),
            }
        }
        Ok(())
    }

    async fn show(&self, stderr: bool, bytes: Bytes) -> Result<(), Over> {
        let _one = self.to_agent.lock().await;
        match stderr {
            true => self.ends.agent.extended_data_bytes(STDERR, bytes).await?,
            false => self.ends.agent.data_bytes(bytes).await?,
        }
        Ok(())
    }

    /// Something is asked for.
    async fn request(&self, asked: Asked, wanted: bool) -> Result<(), Over> {
        let size = |size: &[u32; 4]| Size {
            columns: size[0],
            rows: size[1],
        };
        let request = match &asked {
            Asked::Shell => Request::Shell,
            Asked::Exec(line) => Request::Exec(line.clone()),
            Asked::Subsystem(name) => Request::Subsystem(name.clone()),
            Asked::Env(name, _) => Request::Env { name: name.clone() },
            Asked::Terminal {
                name, size: asked, ..
            } => {
                self.terminal
                    .store(true, std::sync::atomic::Ordering::Relaxed);
                Request::Terminal {
                    name: name.clone(),
                    size: size(asked),
                }
            }
            Asked::Resize(asked) => Request::Resize(size(asked)),
            Asked::Signal(signal) => Request::Signal(signal_name(signal)),
            Asked::AgentForward => Request::AgentForward,
            Asked::X11 { .. } => Request::X11,
        };
        self.ends.connection.refresh();
        let ((), acts) = self.ends.connection.call(|session, now, out| {
            session.ask(now, self.id, request, out);
            self.queue(&mut out.acts);
        });
        Box::pin(self.carry_out(acts, Some((&asked, wanted)))).await
    }

    /// Passes a request on, and waits for its answer where one comes.
    async fn pass(&self, asked: &Asked, wanted: bool) -> Result<(), Over> {
        let origin = &self.origin_out;
        let answers = !matches!(asked, Asked::Resize(_) | Asked::Signal(_))
            && (wanted || !matches!(asked, Asked::Env(..)));
        if answers {
            let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
            replies.push_back(Reply {
                wanted,
                asked: asked.clone(),
            });
        }
        match asked.clone() {
            Asked::Shell => origin.request_shell(true).await?,
            Asked::Exec(line) => origin.exec(true, line.to_vec()).await?,
            Asked::Subsystem(name) => origin.request_subsystem(true, name).await?,
            Asked::Env(name, value) => origin.set_env(wanted, name, value).await?,
            Asked::Terminal { name, size, modes } => {
                let [columns, rows, width, height] = size;
                origin
                    .request_pty(true, &name, columns, rows, width, height, &modes)
                    .await?;
            }
            Asked::Resize([columns, rows, width, height]) => {
                origin.window_change(columns, rows, width, height).await?;
            }
            Asked::Signal(signal) => origin.signal(signal).await?,
            Asked::AgentForward => origin.agent_forward(true).await?,
            Asked::X11 {
                single,
                protocol,
                cookie,
                screen,
            } => {
                origin
                    .request_x11(true, single, protocol, cookie, screen)
                    .await?;
            }
        }
        if answers {
            self.answered.notified().await;
        }
        Ok(())
    }

    /// The origin answers the first request that waits.
    async fn answer(&self, accepted: bool) -> Result<(), Over> {
        let reply = {
            let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
            replies.pop_front()
        };
        let Some(reply) = reply else { return Ok(()) };
        self.call_and_do(|session, now, id, out| session.answered(now, id, accepted, out))
            .await?;
        if accepted {
            let mut permitted = self
                .ends
                .permitted
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match reply.asked {
                Asked::AgentForward => permitted.keys = true,
                Asked::X11 { .. } => permitted.x11 = true,
                _ => {}
            }
        }
        if reply.wanted {
            self.say(accepted).await?;
        }
        self.answered.notify_one();
        Ok(())
    }

    async fn say(&self, accepted: bool) -> Result<(), Over> {
        let (handle, id) = (&self.ends.handle, self.ends.agent.id());
        let said = match accepted {
            true => handle.channel_success(id).await,
            false => handle.channel_failure(id).await,
        };
        said.map_err(|()| Over::Gone)
    }

    /// Refuses a request as a server does that does not run it: a command ends at
    /// once, with the reason on its standard error.
    async fn refuse(&self, asked: &Asked, wanted: bool, why: &str) -> Result<(), Over> {
        let end = match self.terminal.load(std::sync::atomic::Ordering::Relaxed) {
            true => "\r\n",
            false => "\n",
        };
        let words = format!("Refused by Interceptor: {why}{end}");
        match asked {
            Asked::Shell | Asked::Exec(_) => {
                if wanted {
                    self.say(true).await?;
                }
                self.show(true, words.into()).await?;
                self.ends.agent.exit_status(REFUSED).await?;
                self.ends.agent.eof().await?;
                Err(Over::Closed)
            }
            Asked::Subsystem(_) => {
                self.show(true, words.into()).await?;
                if wanted {
                    self.say(false).await?;
                }
                Err(Over::Closed)
            }
            _ if wanted => self.say(false).await,
            _ => Ok(()),
        }
    }
}

fn signal_name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}
