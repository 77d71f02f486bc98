//! One exchange: what was asked, and what has come back so far.

use std::sync::Arc;

use interceptor_policy::operation::Sql;
use interceptor_policy::verdict::Severity;
use interceptor_policy::{Limits, Masks, RecordLevel, Refusal};

use crate::event::{FlowTime, Sealed};
use crate::pg::mask::{CopyPlan, RowPlan};
use crate::pg::sql::Classified;
use crate::unmasked::Unmasked;

use super::limits::Cut;
use super::refuse::Manner;
use super::statements::{Portal, Undo};

/// Bytes of a result that make one event.
pub(super) const PART: usize = 64 << 10;

/// What was asked, and what has come back so far.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Counted within the session, from 1.
    pub(super) number: u64,
    /// When the command was forwarded or refused.
    pub(super) started: FlowTime,
    /// What it means; `None` for a function called by number.
    pub(super) classified: Option<Arc<Classified>>,
    /// The portal it runs, in the extended protocol.
    pub(super) portal: Option<Arc<Portal>>,
    /// Why it was refused, if it was: what went upstream then only makes the
    /// server answer with an error, which is replaced by ours.
    pub(super) refusal: Option<Refusal>,
    /// In which words it was refused.
    pub(super) manner: Manner,
    /// What its answer may come to.
    pub(super) limits: Limits,
    /// Its answer grew past that: what of it still comes is kept from the agent.
    pub(super) cut: Option<Cut>,
    /// What is hidden in the answer.
    pub(super) masks: Option<Arc<Masks>>,
    /// How the rows that come now are treated; `None` until their description.
    pub(super) plan: Option<Arc<RowPlan>>,
    /// How much is recorded.
    pub(super) record: RecordLevel,
    /// Frames of the result not yet in an event.
    pub(super) part: Vec<u8>,
    /// The same before masking, from the first value on that is hidden in them.
    pub(super) unmasked: Unmasked,
    /// Events of the result so far.
    pub(super) parts: u32,
    /// Rows so far, of all its results.
    pub(super) rows: u64,
    /// Bytes of rows so far, as the agent got them.
    pub(super) bytes: u64,
    /// Values hidden so far.
    pub(super) masked: u64,
    /// Command tags so far, joined by `; `.
    pub(super) tags: String,
    /// Whether it ended in an error.
    pub(super) failed: bool,
    /// Statements of its text that are done.
    pub(super) completed: usize,
    /// Names whose meaning its statements change, each with the statement's
    /// place in the text, to be restored where that statement fails.
    pub(super) undos: Vec<(usize, Undo)>,
    /// How `COPY` rows are treated while it sends them.
    pub(super) copy: Option<CopyPlan>,
    /// Whether the `COPY` is in binary format.
    pub(super) copy_binary: bool,
    /// What its statement is, with what `EXECUTE` and `FETCH` stand for put in.
    pub(super) sql: Option<Arc<Sql>>,
    /// The text, for what its effects register.
    pub(super) text: Arc<str>,
    /// Tags that it leaves once a person lets it pass.
    pub(super) tags_held: Vec<Arc<str>>,
    /// The severity that the rules give to what it raises.
    pub(super) severity: Option<Severity>,
}

impl Exchange {
    pub(super) fn new(number: u64, started: FlowTime) -> Self {
        Self {
            number,
            started,
            classified: None,
            portal: None,
            refusal: None,
            manner: Manner::Rule,
            limits: Limits::default(),
            cut: None,
            masks: None,
            plan: None,
            record: RecordLevel::Full,
            part: Vec::new(),
            unmasked: Unmasked::default(),
            parts: 0,
            rows: 0,
            bytes: 0,
            masked: 0,
            tags: String::new(),
            failed: false,
            completed: 0,
            undos: Vec::new(),
            copy: None,
            copy_binary: false,
            sql: None,
            text: Arc::from(""),
            tags_held: Vec::new(),
            severity: None,
        }
    }

    /// What it asks for, as far as it is understood.
    pub(super) fn sql(&self) -> Option<&Sql> {
        let classified = self.classified.as_deref();
        self.sql.as_deref().or(classified.map(|one| &one.sql))
    }

    /// Keeps bytes of the result for the record.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.record == RecordLevel::Full {
            self.part.extend_from_slice(bytes);
            self.unmasked.follow(bytes);
        }
    }

    /// Keeps bytes of the result for the record, with those that masks made them of.
    pub(super) fn keep_masked(&mut self, bytes: &[u8], before: &[u8]) {
        if self.record == RecordLevel::Full {
            self.unmasked.differ(&self.part, before);
            self.part.extend_from_slice(bytes);
        }
        self.bytes += bytes.len() as u64;
    }

    /// The part, with what is to be sealed beside it.
    pub(super) fn take_part(&mut self) -> (Vec<u8>, Sealed) {
        let sealed = self.unmasked.take(self.masked, 0);
        (std::mem::take(&mut self.part), sealed)
    }

    /// Whether enough is kept for an event.
    pub(super) fn part_is_full(&self) -> bool {
        self.part.len() >= PART
    }
}
