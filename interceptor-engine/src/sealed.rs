//! What masks hid of an event, beside it, for whoever holds the key.
//!
//! What is encrypted is not the bytes alone: a mask also changes what stands in an event's
//! `line` and `meta`. So it is a first line that says what it is, a second one that is a JSON
//! object, and the bytes:
//!
//! ```text
//! interceptor/sealed/1
//! {"line":"…","meta":{"headers":[["cookie","…"]]},"data":true}
//! …
//! ```
//!
//! * `line` is in the place of the event's own, where there is one;
//! * each member of `meta` is in the place of the event's member of that name;
//! * with `data`, what follows is in the place of the event's `data`.
//!
//! Where that saves something, all of it is compressed as an event's `data` is
//! ([`crate::packed`]), and with the same bounds.

use serde_json::{Map, Value};

use crate::packed::{self, Packer};

/// The first line.
const MAGIC: &[u8] = b"interceptor/sealed/1\n";
/// How a frame of zstd begins (RFC 8878, 3.1.1).
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What masks hid of an event, on its way to the store.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Sealed {
    /// Nothing was hidden, or nothing of it is kept.
    #[default]
    Nothing,
    /// As it was. The recorder seals it before anything else; it is never written.
    Plain(Box<Original>),
    /// Encrypted.
    Sealed(Vec<u8>),
}

/// What of an event a mask changed, as it was.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Original {
    line: Option<String>,
    /// Members of `meta`, a JSON object.
    meta: Option<String>,
    data: Option<Vec<u8>>,
}

/// What was sealed beside an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opened {
    /// In the place of its line.
    pub line: Option<String>,
    /// In the place of these members of its `meta`.
    pub meta: Map<String, Value>,
    /// In the place of its bytes.
    pub data: Option<Vec<u8>>,
}

/// What is sealed there is not what a recorder seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is sealed there is none of a recorder's")]
pub struct Unknown;

impl Sealed {
    /// An event's bytes, as they were.
    #[must_use]
    pub fn data(bytes: Vec<u8>) -> Self {
        Self::Nothing.with_data(bytes)
    }

    /// The same, beside what is there.
    #[must_use]
    pub fn with_data(self, bytes: Vec<u8>) -> Self {
        let mut original = self.into_original();
        original.data = Some(bytes);
        Self::Plain(original)
    }

    /// An event's line and members of its `meta` (a JSON object), beside what is there.
    #[must_use]
    pub(crate) fn with_head(self, line: Option<String>, meta: Option<String>) -> Self {
        if line.is_none() && meta.is_none() {
            return self;
        }
        let mut original = self.into_original();
        original.line = line;
        original.meta = meta;
        Self::Plain(original)
    }

    fn into_original(self) -> Box<Original> {
        match self {
            Self::Plain(original) => original,
            Self::Nothing | Self::Sealed(_) => Box::default(),
        }
    }

    /// Encrypts what is plain; without a way to, it is dropped.
    pub fn seal(&mut self, seal: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
        if let Self::Plain(original) = self {
            *self = seal(&original.written()).map_or(Self::Nothing, Self::Sealed);
        }
    }

    /// What may be written: what is encrypted.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Sealed(bytes) => bytes,
            Self::Nothing | Self::Plain(_) => &[],
        }
    }

    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Plain(original) => original.weight(),
            Self::Sealed(bytes) => bytes.len(),
        }
    }
}

impl std::fmt::Debug for Sealed {
    /// Never the bytes: events may be shown where a fault is told.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Nothing => return f.write_str("Nothing"),
            Self::Plain(_) => "Plain",
            Self::Sealed(_) => "Sealed",
        };
        write!(f, "{name}({} bytes)", self.weight())
    }
}

impl Original {
    fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        size_of::<Self>()
            + text(&self.line)
            + text(&self.meta)
            + self.data.as_ref().map_or(0, Vec::len)
    }

    /// As it is encrypted: compressed, where that saves something.
    fn written(&self) -> Vec<u8> {
        let plain = self.plain();
        let packed = (plain.len() >= packed::SHORTEST)
            .then(|| Packer::new().ok()?.pack(&plain).map(<[u8]>::to_vec));
        packed.flatten().unwrap_or(plain)
    }

    fn plain(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(b'{');
        let mut member = |name: &str, json: &str| {
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            out.extend_from_slice(format!("\"{name}\":{json}").as_bytes());
        };
        if let Some(line) = &self.line {
            member("line", &Value::from(line.as_str()).to_string());
        }
        if let Some(meta) = &self.meta {
            member("meta", meta);
        }
        if self.data.is_some() {
            member("data", "true");
        }
        out.extend_from_slice(b"}\n");
        out.extend_from_slice(self.data.as_deref().unwrap_or_default());
        out
    }
}

impl Opened {
    /// Reads what was decrypted.
    ///
    /// # Errors
    /// When no recorder wrote it, or it says to be longer than what one compresses.
    pub fn read(plain: &[u8]) -> Result<Self, Unknown> {
        if plain.starts_with(ZSTD) {
            let unpacked = packed::unpack(plain).ok_or(Unknown)?;
            return Self::of(&unpacked).ok_or(Unknown);
        }
        match plain.starts_with(MAGIC) {
            true => Self::of(plain).ok_or(Unknown),
            // Before there was more than bytes, there were the bytes alone.
            false => Ok(Self {
                data: Some(plain.to_vec()),
                ..Self::default()
            }),
        }
    }

    fn of(plain: &[u8]) -> Option<Self> {
        let rest = plain.strip_prefix(MAGIC)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (head, data) = rest.split_at_checked(end)?;
        let head: Value = serde_json::from_slice(head).ok()?;
        let data = data.get(1..)?;
        let has_data = head.get("data").and_then(Value::as_bool).unwrap_or(false);
        if !has_data && !data.is_empty() {
            return None;
        }
        let line = head.get("line").and_then(Value::as_str);
        let meta = head.get("meta").and_then(Value::as_object);
        Some(Self {
            line: line.map(str::to_owned),
            meta: meta.cloned().unwrap_or_default(),
            data: has_data.then(|| data.to_vec()),
        })
    }
}

#[cfg(test)]
impl Sealed {
    /// What would be sealed.
    pub(crate) fn plain(&self) -> Option<Opened> {
        match self {
            Self::Plain(original) => Some(Opened::read(&original.plain()).unwrap()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn opened(sealed: Sealed) -> (usize, Opened) {
        let mut sealed = sealed;
        let mut written = Vec::new();
        sealed.seal(|plain| {
            written = plain.to_vec();
            Some(b"encrypted".to_vec())
        });
        assert_eq!(sealed.bytes(), b"encrypted");
        (written.len(), Opened::read(&written).unwrap())
    }

    #[test]
    fn what_is_sealed_is_read_back_whatever_of_it_there_is() {
        let data = b"{\"line\":\"mine\"}\ninterceptor/sealed/1\n\xff".to_vec();
        let (_, read) = opened(Sealed::data(data.clone()));
        assert_eq!((read.line, read.data), (None, Some(data.clone())));
        assert!(read.meta.is_empty());

        let head = |sealed: Sealed| {
            let meta = json!({"url": "a\nb", "headers": [["a", "b"]]});
            sealed.with_head(Some("a \"line\"\n".into()), Some(meta.to_string()))
        };
        let (_, read) = opened(head(Sealed::Nothing));
        assert_eq!(read.line.as_deref(), Some("a \"line\"\n"));
        assert_eq!(read.meta["url"], "a\nb");
        assert_eq!(read.data, None);
        for sealed in [
            head(Sealed::data(data.clone())),
            head(Sealed::Nothing).with_data(data.clone()),
        ] {
            let (_, read) = opened(sealed);
            assert_eq!(read.meta.len(), 2);
            assert_eq!(read.data.as_ref(), Some(&data));
        }
        assert_eq!(Sealed::Nothing.with_head(None, None), Sealed::Nothing);
        let (_, read) = opened(Sealed::data(Vec::new()));
        assert_eq!(read.data, Some(Vec::new()));
    }

    #[test]
    fn what_is_long_is_compressed_and_what_gains_nothing_is_not() {
        let text = "card 4111 1111 1111 1111, ".repeat(2000).into_bytes();
        let (length, read) = opened(Sealed::data(text.clone()));
        assert!(length < text.len() / 20, "{length}");
        assert_eq!(read.data, Some(text));
        let noise: Vec<u8> = (0_u32..2000)
            .flat_map(|at| {
                use sha2::Digest as _;
                sha2::Sha256::digest(at.to_be_bytes())
            })
            .collect();
        let (length, read) = opened(Sealed::data(noise.clone()));
        assert!(length >= noise.len());
        assert_eq!(read.data, Some(noise));
    }

    #[test]
    fn a_bomb_and_what_no_recorder_wrote_are_not_opened() {
        let long = zstd::bulk::compress(&vec![0; packed::LONGEST + 1], 3).unwrap();
        let silent = zstd::encode_all(&vec![b'x'; 100_000][..], 3).unwrap();
        let other = zstd::bulk::compress(b"something else", 3).unwrap();
        let behind = [MAGIC, b"{}\nbytes that are said nowhere"].concat();
        let unended = [MAGIC, b"{}"].concat();
        for plain in [&long, &silent, &other, &behind, &unended] {
            assert_eq!(Opened::read(plain), Err(Unknown));
        }
    }

    #[test]
    fn bytes_alone_are_what_was_sealed_once() {
        let read = Opened::read(b"as they were").unwrap();
        assert_eq!(read.data.as_deref(), Some(&b"as they were"[..]));
        assert_eq!(Opened::read(b"").unwrap().data, Some(Vec::new()));
    }
}
