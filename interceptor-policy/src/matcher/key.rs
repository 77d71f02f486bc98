//! What a statement has to have for a match to hold for it: for an index of
//! rules, so that a statement meets those alone that it could concern.
//!
//! A key leaves a rule out only where its match cannot hold in either mode; it
//! is good for nothing else.

use std::borrow::Cow;

use super::Matcher;
use super::name::{ColumnPattern, TablePattern};
use super::postgres::{Asks, PgMatch};
use super::tags::Tag;
use crate::operation::Classes;

/// One of these things, at least, in any mode. Names are in lower case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A table of one of these names, in whatever schema.
    Tables(Vec<String>),
    /// A function of one of these names, in whatever schema.
    Functions(Vec<String>),
    /// A column of one of these names, or a `*`.
    Columns(Vec<String>),
    /// A command that begins with one of these words.
    Words(Vec<String>),
    /// One of these classes.
    Classes(Classes),
}

/// A name as the index has it.
pub(crate) fn folded(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// A command's first word.
pub(crate) fn first_word(tag: &str) -> &str {
    tag.split(' ').next().unwrap_or(tag)
}

impl PgMatch {
    /// The key that fits the fewest statements; with `elsewhere` without what
    /// asks for tables and columns.
    pub(crate) fn key(&self, elsewhere: bool) -> Option<Key> {
        let fields = || {
            self.fields
                .iter()
                .filter(move |field| !(elsewhere && field.names_tables()))
        };
        let lower = |name: &str| folded(name).into_owned();
        let named = |field: &super::postgres::PgField| match &field.asks {
            Asks::Tables(of) => needed(of, &|leaf| leaf.exact_name().map(lower)).map(Key::Tables),
            Asks::Functions(of) => {
                needed(of, &|leaf| leaf.exact_name().map(lower)).map(Key::Functions)
            }
            Asks::Columns(of) => needed(of, &|leaf| leaf.exact_name().map(lower)).map(Key::Columns),
            Asks::Statement(of) => needed(of, &|leaf| match leaf {
                Tag::Words(words) => Some(lower(first_word(words))),
                Tag::Text(_) => None,
            })
            .map(Key::Words),
            Asks::Class(class) => Some(Key::Classes(class.classes())),
            _ => None,
        };
        fields().filter_map(named).min_by_key(|key| match key {
            Key::Tables(_) => 0,
            Key::Functions(_) => 1,
            Key::Words(_) => 2,
            Key::Columns(_) => 3,
            Key::Classes(_) => 4,
        })
    }
}

/// The names of which a thing has to have one, for the matcher to hold for it; `known`
/// gives a leaf's, where it is for one alone.
pub(super) fn needed<L>(
    of: &Matcher<L>,
    known: &impl Fn(&L) -> Option<String>,
) -> Option<Vec<String>> {
    match of {
        Matcher::Leaf(leaf) => Some(vec![known(leaf)?]),
        Matcher::Any(inner) => {
            let all: Option<Vec<_>> = inner.iter().map(|one| needed(one, known)).collect();
            all.map(|all| all.concat())
        }
        // Whichever of them says so.
        Matcher::All(inner) => inner
            .iter()
            .filter_map(|one| needed(one, known))
            .min_by_key(Vec::len),
        Matcher::Not(_) => None,
    }
}

impl TablePattern {
    /// The name of all that it holds for, whatever their schema and case.
    fn exact_name(&self) -> Option<&str> {
        self.name().exact_text()
    }
}

impl ColumnPattern {
    fn exact_name(&self) -> Option<&str> {
        self.column().exact_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::postgres::{ClassMatch, PgField};
    use crate::operation::Class;

    fn leaf(name: &str) -> Matcher<TablePattern> {
        Matcher::Leaf(TablePattern::new(name).unwrap())
    }

    fn key(asks: Vec<Asks>) -> Option<Key> {
        let fields = asks.into_iter().map(|asks| PgField {
            name: "",
            shown: String::new(),
            asks,
        });
        PgMatch::new(fields.collect()).key(false)
    }

    fn tables(of: Matcher<TablePattern>) -> Option<Vec<String>> {
        match key(vec![Asks::Tables(of)]) {
            Some(Key::Tables(names)) => Some(names),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_list_has_the_names_of_all_and_a_wildcard_has_none() {
        let any = |names: &[&str]| tables(Matcher::Any(names.iter().map(|n| leaf(n)).collect()));
        assert_eq!(
            any(&["public.Users", "orders"]),
            Some(vec!["users".into(), "orders".into()])
        );
        assert_eq!(any(&["users", "o*"]), None);
        assert_eq!(tables(Matcher::Not(Box::new(leaf("users")))), None);
        let all = Matcher::All(vec![leaf("u*"), leaf("users")]);
        assert_eq!(tables(all), Some(vec!["users".into()]));
    }

    #[test]
    fn tables_say_more_than_classes_and_elsewhere_they_are_left_out() {
        let class = Matcher::Leaf(Class::Read);
        let fields = || {
            vec![
                Asks::Class(ClassMatch::new(&class)),
                Asks::Tables(leaf("t")),
            ]
        };
        assert_eq!(key(fields()), Some(Key::Tables(vec!["t".into()])));
        let fields = fields().into_iter().map(|asks| PgField {
            name: "",
            shown: String::new(),
            asks,
        });
        let elsewhere = PgMatch::new(fields.collect()).key(true);
        assert_eq!(elsewhere, Some(Key::Classes(Classes::of(Class::Read))));
    }
}
