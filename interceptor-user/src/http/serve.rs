//! Hyper on the agent's leg, to the flow's end.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::agent_io::AgentIo;
use super::conversation::Conversation;
use super::exchange;
use super::service::WINDOW;
use crate::flow::pump::Outcome;
use crate::tls::Stream;

/// How long a flow that is to end has for what is under way.
const FAREWELL: Duration = Duration::from_secs(2);
/// Exchanges that one connection may have under way (HTTP/2).
const STREAMS: u32 = 256;
/// Bytes of a head, unpacked (HTTP/2).
const HEAD_LIMIT: u32 = 64 << 10;

/// The agent's leg, and what was read of it.
#[derive(Debug)]
pub struct Agent {
    /// The leg.
    pub stream: Stream,
    /// Read already.
    pub first: Vec<u8>,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
}

/// Serves the agent until it closes, `killed` says why it must end, or the
/// conversation ends it.
pub async fn run(
    conversation: &Arc<Conversation>,
    agent: Agent,
    killed: impl Future<Output = String>,
) -> Outcome {
    let served = async {
        let outcome = if agent.http2 {
            two(conversation, agent).await
        } else {
            one(conversation, agent).await
        };
        conversation.tunnelled().await;
        outcome
    };
    let outcome = tokio::select! {
        outcome = served => outcome,
        why = killed => return Outcome::Killed(why),
    };
    match conversation.shared.is_ended().and_then(Arc::into_inner) {
        Some(why) => why,
        None => match conversation.shared.is_ended().as_deref() {
            Some(why) => Outcome::Refused(why.reason()),
            None => outcome,
        },
    }
}

async fn one(conversation: &Arc<Conversation>, agent: Agent) -> Outcome {
    // The leg's state is kept by the conversation; it must not keep it in turn.
    let asked = Arc::downgrade(conversation);
    let on_refused = Box::new(move |error: &_| match asked.upgrade() {
        Some(conversation) => conversation.malformed(error),
        None => Vec::new(),
    });
    let io = AgentIo::guarded(agent.stream, &agent.first, on_refused);
    let _ = conversation.side.set(io.side());
    let shared = Arc::clone(conversation);
    let service = service_fn(move |request| exchange::serve(Arc::clone(&shared), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .preserve_header_case(true)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = connection;
    let mut killed = false;
    let done = tokio::select! {
        done = &mut connection => done,
        _ = conversation.shared.ended() => {
            killed = true;
            Pin::new(&mut connection).graceful_shutdown();
            tokio::time::timeout(FAREWELL, &mut connection).await.unwrap_or(Ok(()))
        }
    };
    // The leg, unless it was handed over to another protocol.
    if let Some(parts) = connection.into_parts() {
        let io = parts.io.into_inner();
        if killed || io.side().is_refused() {
            let _ = tokio::time::timeout(FAREWELL, io.farewell()).await;
        }
    }
    match done {
        Ok(()) => Outcome::Closed,
        Err(error) => ended(&error),
    }
}

async fn two(conversation: &Arc<Conversation>, agent: Agent) -> Outcome {
    let io = AgentIo::framed(agent.stream, &agent.first);
    let shared = Arc::clone(conversation);
    let service = service_fn(move |request| exchange::serve(Arc::clone(&shared), request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_LIMIT)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut running = std::pin::pin!(connection);
    let done = tokio::select! {
        done = running.as_mut() => done,
        _ = conversation.shared.ended() => {
            running.as_mut().graceful_shutdown();
            tokio::time::timeout(FAREWELL, running).await.unwrap_or(Ok(()))
        }
    };
    match done {
        Ok(()) => Outcome::Closed,
        Err(error) => ended(&error),
    }
}

fn ended(error: &hyper::Error) -> Outcome {
    use std::error::Error as _;
    let io = error
        .source()
        .and_then(|one| one.downcast_ref::<std::io::Error>());
    match io {
        Some(io) => Outcome::Failed(
            interceptor_engine::session::Side::Downstream,
            io.kind().into(),
        ),
        None if error.is_incomplete_message() || error.is_canceled() => Outcome::Closed,
        None => Outcome::Refused(format!("the agent's side: {error}")),
    }
}
