//! What a request has to have for a match to hold for it, for the index of rules.

use std::borrow::Cow;

use super::{Asks, HttpMatch};
use crate::matcher::key::needed;
use crate::matcher::pointer::folded;
use crate::matcher::text::Text;

/// One of these things, at least, in any mode; in lower case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// One of these hosts.
    Hosts(Vec<String>),
    /// A path at or below one of these, without a slash at the end.
    Paths(Vec<String>),
    /// One of these methods.
    Methods(Vec<String>),
}

/// A text as the index has it: what compares alike is alike here.
pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    match text
        .bytes()
        .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
    {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.chars().map(folded).collect()),
    }
}

impl HttpMatch {
    /// The key that fits the fewest requests.
    pub(crate) fn key(&self) -> Option<Key> {
        let whole = |text: &Text| {
            let text = text.exact_text().filter(|text| text.is_ascii())?;
            Some(lower(text).into_owned())
        };
        let keys = self.fields.iter().filter_map(|field| match &field.asks {
            Asks::Host(of) => needed(of, &whole).map(Key::Hosts),
            Asks::Path(of) => needed(of, &beginning).map(Key::Paths),
            Asks::Method(of) => needed(of, &whole).map(Key::Methods),
            _ => None,
        });
        keys.min_by_key(|key| match key {
            Key::Paths(_) => 0,
            Key::Hosts(_) => 1,
            Key::Methods(_) => 2,
        })
    }
}

/// The whole segments that a path pattern begins with, as written.
fn beginning(text: &Text) -> Option<String> {
    let Text::Glob(glob) = text else {
        return None;
    };
    let source = glob.source();
    let plain = match source.find(['*', '?', '[', ']', '{', '}', '\\']) {
        // The segment that the wildcard is in is none of them.
        Some(at) => source.get(..at)?.rsplit_once('/')?.0,
        None => source.strip_suffix('/').unwrap_or(source),
    };
    let known = plain.starts_with('/') && plain.is_ascii();
    known.then(|| lower(plain).into_owned())
}
