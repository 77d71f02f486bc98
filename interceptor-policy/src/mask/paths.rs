//! Values that are hidden by their place in a JSON document, in a form to walk
//! along with a text that streams by.

use std::sync::Arc;

use super::Transform;
use crate::matcher::Mode;
use crate::matcher::pointer::{Pointer, Position};

/// The pointers in force, with what each puts in place of what it points at.
#[derive(Clone, Debug, Default)]
pub struct JsonMask {
    parts: Vec<(Arc<Pointer>, Transform)>,
}

/// A place in a document.
#[derive(Clone, Debug)]
pub struct JsonState<'m> {
    mask: &'m JsonMask,
    at: Vec<Position>,
}

impl JsonMask {
    /// The whole document.
    #[must_use]
    pub fn root(&self) -> JsonState<'_> {
        JsonState {
            mask: self,
            at: self.start().collect(),
        }
    }

    /// The pointers as they were written, and their transforms.
    pub fn pointers(&self) -> impl Iterator<Item = (&str, &Transform)> {
        self.parts
            .iter()
            .map(|(pointer, transform)| (pointer.source(), transform))
    }

    /// Adds a pointer, or makes one in force stricter.
    pub(crate) fn add(&mut self, pointer: &Arc<Pointer>, transform: &Transform) {
        let known = self.parts.iter_mut().find(|(known, _)| known == pointer);
        match known {
            Some((_, so_far)) if &*so_far < transform => *so_far = transform.clone(),
            Some(_) => {}
            None => self.parts.push((Arc::clone(pointer), transform.clone())),
        }
    }

    pub(crate) fn unite(&mut self, other: &Self) {
        for (pointer, transform) in &other.parts {
            self.add(pointer, transform);
        }
    }

    /// How many positions a place has.
    pub(crate) fn width(&self) -> usize {
        self.parts.len()
    }

    pub(crate) fn start(&self) -> impl Iterator<Item = Position> {
        self.parts.iter().map(|(pointer, _)| pointer.start())
    }

    /// The place of an object's member, in either case of its key: whoever reads
    /// the document may tell no case apart.
    pub(crate) fn key<'s>(
        &'s self,
        at: &'s [Position],
        key: &'s str,
    ) -> impl Iterator<Item = Position> + 's {
        let parts = self.parts.iter().zip(at);
        parts.map(move |((pointer, _), at)| pointer.key(*at, key, Mode::May))
    }

    pub(crate) fn index<'s>(
        &'s self,
        at: &'s [Position],
        index: usize,
    ) -> impl Iterator<Item = Position> + 's {
        let parts = self.parts.iter().zip(at);
        parts.map(move |((pointer, _), at)| pointer.index(*at, index))
    }

    /// The strictest transform of a place.
    pub(crate) fn here(&self, at: &[Position]) -> Option<&Transform> {
        let parts = self.parts.iter().zip(at);
        parts
            .filter(|((pointer, _), at)| pointer.is_here(**at))
            .map(|((_, transform), _)| transform)
            .max()
    }
}

impl<'m> JsonState<'m> {
    /// The place of an object's member.
    #[must_use]
    pub fn key(&self, key: &str) -> JsonState<'m> {
        JsonState {
            mask: self.mask,
            at: self.mask.key(&self.at, key).collect(),
        }
    }

    /// The place of a list's item.
    #[must_use]
    pub fn index(&self, index: usize) -> JsonState<'m> {
        JsonState {
            mask: self.mask,
            at: self.mask.index(&self.at, index).collect(),
        }
    }

    /// What hides the value of this place, where something does.
    #[must_use]
    pub fn transform(&self) -> Option<&'m Transform> {
        self.mask.here(&self.at)
    }

    /// Whether nothing at this place or below it is hidden.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.at.iter().all(|at| *at == 0)
    }
}
