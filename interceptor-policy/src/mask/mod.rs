//! What a mask hides, and what is put in its place.
//!
//! Ways to say *what*: by column, judged from where a value comes from; by the
//! place in a JSON document, or the name of a header; and by detector, judged
//! from what a value looks like. The first ones are certain where the origin is
//! known, and fail closed where it is not; the last is a net for what nobody
//! listed, and no more: a value that is encoded in the query itself passes it.

pub mod detectors;
mod json;
mod paths;
mod transform;

use std::sync::Arc;

pub use detectors::{DetectPlan, DetectStream, Detector, Hit, Looks, Pattern};
pub use json::{JsonFault, JsonMasker};
pub use paths::{JsonMask, JsonState};
pub use transform::{MaskKey, Masked, Transform};

use crate::matcher::Mode;
use crate::matcher::name::ColumnPattern;
use crate::matcher::pointer::Pointer;
use crate::operation::{Column, Table};

/// Which way what is hidden goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the service.
    Request,
    /// To the agent.
    #[default]
    Response,
}

impl Direction {
    /// The name that rules use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// What is hidden of what goes one way.
#[derive(Clone, Debug, Default)]
pub struct Hidden {
    detect: Option<DetectPlan>,
    json: Option<JsonMask>,
    /// By their names, in lower case.
    headers: Vec<(Arc<str>, Transform)>,
}

impl Hidden {
    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.detect.is_none() && self.json.is_none() && self.headers.is_empty()
    }

    /// Whether anything in a body is.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.detect.is_some() || self.json.is_some()
    }

    /// What is hidden by detector.
    #[must_use]
    pub fn detect(&self) -> Option<&DetectPlan> {
        self.detect.as_ref()
    }

    /// What is hidden by its place in a JSON document.
    #[must_use]
    pub fn json(&self) -> Option<&JsonMask> {
        self.json.as_ref()
    }

    /// The strictest transform for a header, where one hides it. Names are in
    /// lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Transform> {
        let named = self.headers.iter().filter(|(known, _)| **known == *name);
        named.map(|(_, transform)| transform).max()
    }

    /// The headers that are hidden, each with its transform.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &Transform)> {
        self.headers
            .iter()
            .map(|(name, transform)| (&**name, transform))
    }

    fn unite(&mut self, other: &Self) {
        if let Some(plan) = &other.detect {
            self.detect.get_or_insert_default().unite(plan);
        }
        if let Some(json) = &other.json {
            self.json.get_or_insert_default().unite(json);
        }
        self.headers.extend(other.headers.iter().cloned());
    }
}

/// The united masks of the rules that apply to one exchange.
#[derive(Clone, Debug, Default)]
pub struct Masks {
    columns: Vec<(Arc<ColumnPattern>, Transform)>,
    request: Hidden,
    response: Hidden,
}

impl Masks {
    /// What is hidden of what goes one way.
    #[must_use]
    pub fn of(&self, direction: Direction) -> &Hidden {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }

    /// The masks of both: of a request, say, and of its response.
    #[must_use]
    pub fn united(one: Option<Arc<Self>>, other: Option<Arc<Self>>) -> Option<Arc<Self>> {
        match (one, other) {
            (Some(mut one), Some(other)) => {
                let into = Arc::make_mut(&mut one);
                into.columns.extend(other.columns.iter().cloned());
                into.request.unite(&other.request);
                into.response.unite(&other.response);
                Some(one)
            }
            (one, other) => one.or(other),
        }
    }

    /// The strictest transform for a column, where one hides it. Where
    /// `column.table`, or its schema, is `None`, it is unknown, and every
    /// pattern whose other parts match hits; a name of `*` is any column of the
    /// table.
    #[must_use]
    pub fn column(&self, column: &Column) -> Option<&Transform> {
        self.columns
            .iter()
            .filter(|(pattern, _)| pattern.holds(column, Mode::May))
            .map(|(_, transform)| transform)
            .max()
    }

    /// Whether any column mask could hit a column of this table.
    #[must_use]
    pub fn touches(&self, table: &Table) -> bool {
        self.columns
            .iter()
            .any(|(pattern, _)| pattern.may_be_of(table))
    }

    /// The masks by column: each pattern as it was written, and its transform.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Transform)> {
        self.columns
            .iter()
            .map(|(pattern, transform)| (pattern.source(), transform))
    }

    /// Whether there is any mask by column.
    #[must_use]
    pub fn has_columns(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Whether there is any mask by detector of what the agent gets.
    #[must_use]
    pub fn has_detectors(&self) -> bool {
        self.response.detect.is_some()
    }

    /// The masks by detector of what the agent gets.
    #[must_use]
    pub fn detect(&self) -> Option<&DetectPlan> {
        self.response.detect()
    }

    /// Everything that is hidden: which way, what, as it is written in rules, and
    /// how.
    #[must_use]
    pub fn listed(&self) -> Vec<(Direction, &str, &Transform)> {
        let columns = self.columns();
        let mut all: Vec<_> = columns
            .map(|(pattern, with)| (Direction::Response, pattern, with))
            .collect();
        for direction in [Direction::Response, Direction::Request] {
            let hidden = self.of(direction);
            let pointers = hidden.json().into_iter().flat_map(JsonMask::pointers);
            let kinds = Detector::NAMES.iter().filter_map(|(name, detector)| {
                let with = hidden.detect()?.transform(*detector)?;
                Some((*name, with))
            });
            let patterns = hidden.detect().into_iter().flat_map(DetectPlan::patterns);
            let named = pointers
                .chain(hidden.headers())
                .chain(kinds)
                .chain(patterns);
            all.extend(named.map(|(what, with)| (direction, what, with)));
        }
        all
    }

    /// Adds what one rule masks.
    pub(crate) fn add(&mut self, entry: &MaskEntry) {
        let hidden = match entry.direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        };
        match &entry.what {
            MaskWhat::Columns(patterns) => self.columns.extend(
                patterns
                    .iter()
                    .map(|pattern| (Arc::clone(pattern), entry.with.clone())),
            ),
            MaskWhat::Detect(detectors) => {
                let plan = hidden.detect.get_or_insert_default();
                for detector in detectors {
                    plan.add(*detector, &entry.with);
                }
            }
            MaskWhat::Patterns(patterns) => {
                let plan = hidden.detect.get_or_insert_default();
                for pattern in patterns {
                    plan.add_pattern(pattern, &entry.with);
                }
            }
            MaskWhat::Json(pointers) => {
                let json = hidden.json.get_or_insert_default();
                for pointer in pointers {
                    json.add(pointer, &entry.with);
                }
            }
            MaskWhat::Headers(names) => {
                let names = names.iter();
                let named = names.map(|name| (Arc::clone(name), entry.with.clone()));
                hidden.headers.extend(named);
            }
        }
    }
}

/// One entry of a rule's `mask`.
#[derive(Clone, Debug)]
pub(crate) struct MaskEntry {
    pub(crate) what: MaskWhat,
    pub(crate) with: Transform,
    pub(crate) direction: Direction,
}

impl MaskEntry {
    /// Whether it hides something in a response's body.
    pub(crate) const fn is_of_response_body(&self) -> bool {
        matches!(self.direction, Direction::Response)
            && !matches!(self.what, MaskWhat::Headers(_) | MaskWhat::Columns(_))
    }

    /// Whether only an answer of SQL could have what it hides.
    pub(crate) const fn is_of_sql(&self) -> bool {
        matches!(self.what, MaskWhat::Columns(_))
    }

    /// Whether only HTTP could have what it hides.
    pub(crate) const fn is_of_http(&self) -> bool {
        matches!(self.what, MaskWhat::Json(_) | MaskWhat::Headers(_))
            || matches!(self.direction, Direction::Request)
    }

    /// Whether a column that chooses rows may be one that it hides. A `*` is all
    /// columns of its table, and without one it is any column there is:
    /// `count(*)` chooses by none, and never gets here.
    pub(crate) fn may_hide(&self, predicate: &Column) -> bool {
        let MaskWhat::Columns(patterns) = &self.what else {
            return false;
        };
        patterns
            .iter()
            .any(|pattern| match (&*predicate.name, &predicate.table) {
                ("*", None) => true,
                ("*", Some(table)) => pattern.may_be_of(table),
                _ => pattern.holds(predicate, Mode::May),
            })
    }
}

/// What an entry hides.
#[derive(Clone, Debug)]
pub(crate) enum MaskWhat {
    Columns(Vec<Arc<ColumnPattern>>),
    Detect(Vec<Detector>),
    Patterns(Vec<Arc<Pattern>>),
    Json(Vec<Arc<Pointer>>),
    /// Names, in lower case.
    Headers(Vec<Arc<str>>),
}
