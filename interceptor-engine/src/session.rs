//! What every protocol's session is to the shell that moves its bytes.
//!
//! The shell reads into a buffer of its own and hands the filled part in. The
//! session answers in [`Outbox`]: pieces to write, as ranges of that very buffer
//! where nothing changed, and events. All input is always taken; what is not
//! whole yet is kept inside. So an idle session holds no buffer, and untouched
//! bytes are never copied.

use std::ops::Range;

use crate::event::{Event, FlowTime};
use crate::hold::{Decision, Question};
use crate::pg::catalog::TableInfo;
use interceptor_policy::operation::Table;

/// A side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The agent's.
    Downstream,
    /// The service's.
    Upstream,
}

/// Bytes to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A range of the input of the same call, forwarded as it came.
    Input(Range<usize>),
    /// Bytes that were not in the input.
    Owned(Vec<u8>),
}

/// Why a flow ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A side closed, or asked to.
    Closed,
    /// Rules ended it, or a peer broke its protocol; what there was to say to
    /// the agent is in the outbox.
    Refused(String),
}

/// Names that are to be looked up in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// As the statement has them; without a schema, those of every schema are meant.
    pub tables: Vec<Table>,
    /// What is remembered may be old by now: the session changed the schema.
    pub fresh: bool,
}

/// What a call produced. Events are with the recorder before any byte is written.
#[derive(Debug, Default)]
pub struct Outbox {
    /// To the agent.
    pub downstream: Vec<Piece>,
    /// To the service.
    pub upstream: Vec<Piece>,
    /// To the recorder.
    pub events: Vec<Event>,
    /// Set when the flow is to end once everything is written.
    pub end: Option<End>,
    /// Tables whose columns' names the session waits for; it reads nothing from
    /// upstream until [`Session::handle_catalog`].
    pub catalog: Option<Vec<u32>>,
    /// Tables named in what the agent asks; nothing more that it sends is acted
    /// on until [`Session::handle_tables`].
    pub tables: Option<Lookup>,
    /// A question; nothing more that the agent sends is acted on until
    /// [`Session::handle_decision`].
    pub ask: Option<Box<Question>>,
    /// What runs upstream is to be cancelled; nothing more is read from the
    /// agent until the service has taken that.
    pub cancel: bool,
    /// The key with which this session's commands can be cancelled.
    pub backend_key: Option<BackendKey>,
}

/// What a PostgreSQL `CancelRequest` must carry.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendKey {
    /// The backend's process.
    pub process_id: u32,
    /// The secret: 4 to 256 bytes.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendKey")
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// The pieces for `side`.
    pub fn pieces(&mut self, side: Side) -> &mut Vec<Piece> {
        match side {
            Side::Downstream => &mut self.downstream,
            Side::Upstream => &mut self.upstream,
        }
    }

    /// Adds a range of the input, joined to the last piece where they touch.
    pub fn forward(&mut self, to: Side, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let pieces = self.pieces(to);
        if let Some(Piece::Input(last)) = pieces.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
            return;
        }
        pieces.push(Piece::Input(range));
    }

    /// Adds bytes that were not in the input.
    pub fn write(&mut self, to: Side, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.owned(to).extend_from_slice(bytes);
        }
    }

    /// Where bytes that were not in the input are appended next.
    pub fn owned(&mut self, to: Side) -> &mut Vec<u8> {
        let pieces = self.pieces(to);
        if !matches!(pieces.last(), Some(Piece::Owned(_))) {
            pieces.push(Piece::Owned(Vec::new()));
        }
        match pieces.last_mut() {
            Some(Piece::Owned(last)) => last,
            // Just pushed, or matched above.
            _ => unreachable!("the last piece is owned"),
        }
    }

    /// Empties it, keeping its allocations.
    pub fn clear(&mut self) {
        self.downstream.clear();
        self.upstream.clear();
        self.events.clear();
        self.end = None;
        self.catalog = None;
        self.tables = None;
        self.ask = None;
        self.cancel = false;
        self.backend_key = None;
    }
}

/// A protocol's conversation inside a flow.
pub trait Session: Send {
    /// Takes bytes as they arrived; any chunking gives the same bytes out.
    fn handle_bytes(&mut self, now: FlowTime, from: Side, input: &[u8], out: &mut Outbox);

    /// A side closed its direction.
    fn handle_eof(&mut self, now: FlowTime, from: Side, out: &mut Outbox);

    /// Whether to read from `side` now.
    fn wants_read(&self, side: Side) -> bool;

    /// The answer to [`Outbox::catalog`]; what it lacks is not known.
    fn handle_catalog(&mut self, now: FlowTime, tables: Vec<TableInfo>, out: &mut Outbox);

    /// The answer to [`Outbox::tables`]: for each name everything that it can
    /// mean, nothing where that is not known.
    fn handle_tables(
        &mut self,
        now: FlowTime,
        tables: Vec<(Table, Vec<TableInfo>)>,
        out: &mut Outbox,
    ) {
        let _ = (now, tables, out);
    }

    /// The answer to [`Outbox::ask`].
    fn handle_decision(&mut self, now: FlowTime, decision: Decision, out: &mut Outbox) {
        let _ = (now, decision, out);
    }

    /// When [`Session::handle_time`] is to be called, if nothing else happens.
    fn deadline(&self) -> Option<FlowTime> {
        None
    }

    /// The time is `now`, at or past [`Session::deadline`].
    fn handle_time(&mut self, now: FlowTime, out: &mut Outbox) {
        let _ = (now, out);
    }

    /// Ends the session from outside, and tells the agent why where its protocol
    /// has words for it and is not in the middle of a message.
    fn refuse(&mut self, now: FlowTime, why: &str, out: &mut Outbox);

    /// Records the end, once; the shell calls it when the flow is over, however
    /// that came.
    fn close(&mut self, now: FlowTime, reason: &str, out: &mut Outbox);
}
