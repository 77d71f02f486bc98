//! Prepared statements and portals, as the server will know them once it has
//! come to each message.
//!
//! A name is registered when its message is forwarded, since what follows in the
//! same pipeline already refers to it. When the server skips that message after
//! an error, the registration is taken back, newest first, so that the names
//! mean here what they mean there.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::judge::ad_hoc;
use crate::pg::mask::Fields;
use crate::pg::sql::{Classified, Effect};
use interceptor_policy::operation::Statement;

/// Most statements and portals of one session.
const COUNT_LIMIT: usize = 16 * 1024;
/// Most bytes of their texts.
const BYTES_LIMIT: usize = 64 << 20;

/// A statement's text and what it means.
#[derive(Debug)]
pub(super) struct Prepared {
    /// As it was sent.
    pub(super) text: Arc<str>,
    /// What it means.
    pub(super) classified: Arc<Classified>,
    /// Its name; empty for the unnamed one.
    pub(super) name: Arc<str>,
    /// Its columns, once the server has described them; formats not known yet.
    pub(super) fields: Mutex<Option<Arc<Fields>>>,
}

impl Prepared {
    /// Its columns, where known.
    pub(super) fn fields(&self) -> Option<Arc<Fields>> {
        self.fields
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes its columns.
    pub(super) fn set_fields(&self, fields: Arc<Fields>) {
        *self.fields.lock().unwrap_or_else(PoisonError::into_inner) = Some(fields);
    }
}

/// A portal: a statement with its parameters.
#[derive(Debug)]
pub(super) struct Portal {
    /// Its name; empty for the unnamed one.
    pub(super) name: Vec<u8>,
    /// The statement; `None` where it is not known here, so that it can only be
    /// judged as unclassified.
    pub(super) statement: Option<Arc<Prepared>>,
    /// The parameters, for the record.
    pub(super) parameters: String,
    /// Of everything that was bound, for questions.
    pub(super) bound: [u8; 32],
    /// The formats asked for: none is text, one is for all columns.
    pub(super) result_formats: Vec<i16>,
    /// Its columns, once the server has described them. Shared between the
    /// `Describe` and the `Execute`s that wait for it.
    pub(super) fields: Mutex<Option<Arc<Fields>>>,
    /// Whether a `Describe` of it is already on its way.
    pub(super) description_asked: AtomicBool,
    /// How many `ReadyForQuery` were owed or sent before it was bound: it ends
    /// with the transaction that the next one closes.
    pub(super) batch: u64,
    /// A cursor `WITH HOLD`: it outlives its transaction.
    pub(super) held: bool,
}

impl Portal {
    /// Its columns, where known.
    pub(super) fn fields(&self) -> Option<Arc<Fields>> {
        self.fields
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes its columns.
    pub(super) fn set_fields(&self, fields: Arc<Fields>) {
        *self.fields.lock().unwrap_or_else(PoisonError::into_inner) = Some(fields);
    }
}

/// How to take a registration back.
#[derive(Debug)]
pub(super) enum Undo {
    /// The name meant this statement before.
    Statement(Arc<str>, Option<Arc<Prepared>>),
    /// The name meant this portal before.
    Portal(Vec<u8>, Option<Arc<Portal>>),
}

/// Too many, or too much text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// All statements and portals of a session.
#[derive(Debug, Default)]
pub(super) struct Statements {
    statements: HashMap<Arc<str>, Arc<Prepared>>,
    portals: HashMap<Vec<u8>, Arc<Portal>>,
    bytes: usize,
}

impl Statements {
    /// Registers a statement.
    pub(super) fn prepare(&mut self, prepared: Arc<Prepared>) -> Result<Undo, TooMany> {
        let name = Arc::clone(&prepared.name);
        let size = prepared.text.len() + name.len();
        if self.bytes + size > BYTES_LIMIT || self.statements.len() >= COUNT_LIMIT {
            return Err(TooMany);
        }
        let before = self.put_statement(&name, Some(prepared));
        Ok(Undo::Statement(name, before))
    }

    /// The statement of that name.
    pub(super) fn statement(&self, name: &str) -> Option<&Arc<Prepared>> {
        self.statements.get(name)
    }

    /// Registers a portal.
    pub(super) fn bind(&mut self, portal: Arc<Portal>) -> Result<Undo, TooMany> {
        let size = portal.name.len() + portal.parameters.len();
        if self.bytes + size > BYTES_LIMIT || self.portals.len() >= COUNT_LIMIT {
            return Err(TooMany);
        }
        let name = portal.name.clone();
        let before = self.put_portal(&name, Some(portal));
        Ok(Undo::Portal(name, before))
    }

    /// The portal of that name.
    pub(super) fn portal(&self, name: &[u8]) -> Option<&Arc<Portal>> {
        self.portals.get(name)
    }

    /// Forgets a statement.
    pub(super) fn close_statement(&mut self, name: &str) {
        self.put_statement(&Arc::from(name), None);
    }

    /// Forgets a portal.
    pub(super) fn close_portal(&mut self, name: &[u8]) {
        self.put_portal(&name.to_vec(), None);
    }

    /// Forgets the portals that ended with the transaction which the
    /// `ReadyForQuery` number `batch` closed.
    pub(super) fn end_transaction(&mut self, batch: u64) {
        if !self.portals.is_empty() {
            self.portals
                .retain(|_, portal| portal.held || portal.batch > batch);
            self.recount();
        }
    }

    /// Takes the meaning from every name that a statement with these effects
    /// changes, until the server has said that it did.
    pub(super) fn begin_effects(&mut self, effects: &[(usize, Effect)]) -> Vec<(usize, Undo)> {
        let mut undos = Vec::new();
        for (place, effect) in effects {
            match effect {
                Effect::Prepare { name, .. } | Effect::Deallocate { name: Some(name) } => {
                    let before = self.put_statement(name, None);
                    undos.push((*place, Undo::Statement(Arc::clone(name), before)));
                }
                Effect::DeclareCursor { name, .. } | Effect::Close { cursor: Some(name) } => {
                    let name = name.as_bytes().to_vec();
                    let before = self.put_portal(&name, None);
                    undos.push((*place, Undo::Portal(name, before)));
                }
                Effect::Deallocate { name: None } | Effect::DiscardAll => {
                    for (name, before) in self.statements.drain() {
                        undos.push((*place, Undo::Statement(name, Some(before))));
                    }
                    self.recount();
                }
                _ => {}
            }
        }
        undos
    }

    /// Gives names the meaning that the statement at `place` gave them.
    pub(super) fn complete_effects(
        &mut self,
        place: usize,
        effects: &[(usize, Effect)],
        text: &Arc<str>,
        batch: u64,
    ) {
        for (_, effect) in effects.iter().filter(|(at, _)| *at == place) {
            match effect {
                Effect::Prepare { name, inner } => {
                    let prepared = Prepared {
                        text: Arc::clone(text),
                        classified: Arc::new(ad_hoc(Statement::clone(inner))),
                        name: Arc::clone(name),
                        fields: Mutex::new(None),
                    };
                    self.put_statement(name, Some(Arc::new(prepared)));
                }
                Effect::DeclareCursor { name, inner, hold } => {
                    let statement = Prepared {
                        text: Arc::clone(text),
                        classified: Arc::new(ad_hoc(Statement::clone(inner))),
                        name: Arc::from(""),
                        fields: Mutex::new(None),
                    };
                    let portal = Portal {
                        name: name.as_bytes().to_vec(),
                        statement: Some(Arc::new(statement)),
                        parameters: String::new(),
                        bound: [0; 32],
                        result_formats: Vec::new(),
                        fields: Mutex::new(None),
                        description_asked: AtomicBool::new(false),
                        batch,
                        held: *hold,
                    };
                    self.put_portal(&name.as_bytes().to_vec(), Some(Arc::new(portal)));
                }
                _ => {}
            }
        }
    }

    /// Takes a registration back.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Statement(name, before) => {
                self.put_statement(&name, before);
            }
            Undo::Portal(name, before) => {
                self.put_portal(&name, before);
            }
        }
    }

    fn put_statement(
        &mut self,
        name: &Arc<str>,
        statement: Option<Arc<Prepared>>,
    ) -> Option<Arc<Prepared>> {
        self.bytes += statement
            .as_ref()
            .map_or(0, |s| s.text.len() + s.name.len());
        let before = match statement {
            Some(statement) => self.statements.insert(Arc::clone(name), statement),
            None => self.statements.remove(name),
        };
        let freed = before.as_ref().map_or(0, |s| s.text.len() + s.name.len());
        self.bytes = self.bytes.saturating_sub(freed);
        before
    }

    fn put_portal(&mut self, name: &Vec<u8>, portal: Option<Arc<Portal>>) -> Option<Arc<Portal>> {
        self.bytes += portal
            .as_ref()
            .map_or(0, |p| p.name.len() + p.parameters.len());
        let before = match portal {
            Some(portal) => self.portals.insert(name.clone(), portal),
            None => self.portals.remove(name),
        };
        let freed = before
            .as_ref()
            .map_or(0, |p| p.name.len() + p.parameters.len());
        self.bytes = self.bytes.saturating_sub(freed);
        before
    }

    fn recount(&mut self) {
        let statements: usize = self
            .statements
            .values()
            .map(|s| s.text.len() + s.name.len())
            .sum();
        let portals: usize = self
            .portals
            .values()
            .map(|p| p.name.len() + p.parameters.len())
            .sum();
        self.bytes = statements + portals;
    }
}
