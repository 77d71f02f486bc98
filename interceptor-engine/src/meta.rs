//! The JSON object that an event carries as its `meta`, written as it grows.
//!
//! Every exchange makes a few of them; a tree of values that is built to be written
//! once and dropped was a tenth of what an exchange of HTTP cost.

use serde::Serialize;

/// A JSON object that is being written. A name is given once; nothing looks for a
/// second one.
#[derive(Debug)]
pub(crate) struct Meta {
    text: Vec<u8>,
}

/// A value that is JSON text already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written(String);

impl Meta {
    /// An object without members.
    pub(crate) fn new() -> Self {
        let mut text = Vec::with_capacity(512);
        text.push(b'{');
        Self { text }
    }

    /// Adds a member.
    pub(crate) fn put<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.name(name);
        write(&mut self.text, value);
    }

    /// Adds a member that was written before.
    pub(crate) fn put_written(&mut self, name: &str, value: &Written) {
        self.name(name);
        self.text.extend_from_slice(value.0.as_bytes());
    }

    fn name(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        write(&mut self.text, name);
        self.text.push(b':');
    }

    /// The object's text.
    pub(crate) fn finish(mut self) -> String {
        self.text.push(b'}');
        text(self.text)
    }
}

impl Written {
    /// JSON as it came from whoever wrote it.
    pub(crate) fn json(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Writes one, to be put into an object later.
    pub(crate) fn list<T: Serialize>(items: impl Iterator<Item = T>) -> Self {
        let mut buffer = Vec::with_capacity(256);
        buffer.push(b'[');
        for item in items {
            if buffer.len() > 1 {
                buffer.push(b',');
            }
            write(&mut buffer, &item);
        }
        buffer.push(b']');
        Self(text(buffer))
    }
}

/// A value that JSON has no form for (a map without text as its keys) is `null`; none
/// of ours is one.
fn write<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    let begun = buffer.len();
    if serde_json::to_writer(&mut *buffer, value).is_err() {
        buffer.truncate(begun);
        buffer.extend_from_slice(b"null");
    }
}

/// serde_json writes UTF-8 and nothing else.
fn text(buffer: Vec<u8>) -> String {
    String::from_utf8(buffer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_back() {
        let mut meta = Meta::new();
        meta.put("a", "\"\u{1}é");
        meta.put("b", &[("x", 1)]);
        meta.put("c", &true);
        meta.put_written("d", &Written::list([1, 2].iter()));
        let read: serde_json::Value = serde_json::from_str(&meta.finish()).unwrap();
        assert_eq!(
            read,
            serde_json::json!({"a": "\"\u{1}é", "b": [["x", 1]], "c": true, "d": [1, 2]})
        );
        assert_eq!(Meta::new().finish(), "{}");
    }

    #[test]
    fn what_json_has_no_form_for_is_null() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        let mut meta = Meta::new();
        meta.put("m", &map);
        assert_eq!(meta.finish(), r#"{"m":null}"#);
    }
}
