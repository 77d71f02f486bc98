//! One entry of a session's stream, read back.

use serde_json::Value;

use crate::chain::{Fields, Stored, number};
use crate::event::FlowTime;
use crate::packed;
use crate::sealed::{Opened, Unknown};

/// The fields as the stream has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    seq: Vec<u8>,
    at: Vec<u8>,
    kind: Vec<u8>,
    exchange: Vec<u8>,
    run: Vec<u8>,
    line: Vec<u8>,
    data: Vec<u8>,
    meta: Vec<u8>,
    coding: Vec<u8>,
    sealed: Vec<u8>,
    chain: Vec<u8>,
    stranger: Option<String>,
}

/// An entry that can be shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// When.
    pub at: FlowTime,
    /// The word that stands in the record. Text, since a newer recorder may write
    /// kinds that this program does not know.
    pub kind: String,
    /// The exchange that it belongs to.
    pub exchange: Option<u64>,
    /// The agent's run.
    pub run: String,
    /// One line for a person.
    pub line: String,
    /// The bytes.
    pub data: Vec<u8>,
    /// What the protocol's parser saw; null where there is none.
    pub meta: Value,
    /// What masks changed of it, sealed; empty where nothing was hidden.
    pub sealed: Vec<u8>,
    /// What was sealed stands in the place of what was recorded.
    pub is_unmasked: bool,
    /// The members of `meta` that were sealed.
    pub unmasked: Vec<String>,
    /// The chain's value, as it stands there.
    pub chain: String,
}

/// Whether a text has what stands on record in the place of a hidden value.
#[must_use]
pub fn is_hidden(text: &str) -> bool {
    text.contains("[redacted]") || text.contains("[credential]")
}

/// Whether a text was cut when it was recorded: what says how long it was stands at its end.
#[must_use]
pub fn is_cut(text: &str) -> bool {
    text.ends_with(" bytes)") && text.contains("\u{2026} (")
}

/// A field that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry's `{field}` is not what a recorder writes")]
pub struct EntryError {
    /// Its name.
    pub field: &'static str,
}

impl Raw {
    /// Takes the fields of an entry; unknown ones are left out ([`Raw::stranger`]).
    pub fn from_fields<N: AsRef<[u8]>>(fields: impl IntoIterator<Item = (N, Vec<u8>)>) -> Self {
        let mut raw = Self::default();
        for (name, value) in fields {
            let place = match name.as_ref() {
                b"seq" => &mut raw.seq,
                b"at" => &mut raw.at,
                b"kind" => &mut raw.kind,
                b"exchange" => &mut raw.exchange,
                b"run" => &mut raw.run,
                b"line" => &mut raw.line,
                b"data" => &mut raw.data,
                b"meta" => &mut raw.meta,
                b"coding" => &mut raw.coding,
                b"sealed" => &mut raw.sealed,
                b"chain" => &mut raw.chain,
                _ => {
                    raw.stranger = Some(String::from_utf8_lossy(name.as_ref()).into_owned());
                    continue;
                }
            };
            // Recorders leave out what is empty.
            if !place.is_empty() || value.is_empty() {
                raw.stranger = Some(String::from_utf8_lossy(name.as_ref()).into_owned());
            }
            *place = value;
        }
        raw
    }

    /// A field that no recorder writes there, or that stands there twice or empty: the
    /// chain does not cover it.
    #[must_use]
    pub fn stranger(&self) -> Option<&str> {
        self.stranger.as_deref()
    }

    /// What the chain covers, for `session`.
    #[must_use]
    pub fn stored<'a>(&'a self, session: &'a str) -> Stored<'a> {
        Stored {
            fields: Fields {
                session: session.as_bytes(),
                seq: &self.seq,
                at: &self.at,
                kind: &self.kind,
                exchange: &self.exchange,
                run: &self.run,
                line: &self.line,
                data: &self.data,
                meta: &self.meta,
                coding: &self.coding,
                sealed: &self.sealed,
            },
            chain: &self.chain,
        }
    }

    /// A field in which bytes stand that a recorder may not have compressed, as far as that
    /// can be said without unpacking them. The chain covers it all the same.
    #[must_use]
    pub fn unreadable(&self) -> Option<&'static str> {
        match &*self.coding {
            b"" => None,
            packed::CODING => packed::length(&self.data).is_none().then_some("data"),
            _ => Some("coding"),
        }
    }

    /// Reads the fields, and unpacks `data`. Text that is not UTF-8 is shown with
    /// replacements; the chain is checked on the bytes.
    ///
    /// # Errors
    /// A number that is none; `data` that no recorder packed.
    pub fn read(self) -> Result<Entry, EntryError> {
        let field = |field| EntryError { field };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let exchange = if self.exchange.is_empty() {
            None
        } else {
            Some(number(&self.exchange).ok_or(field("exchange"))?)
        };
        let data = match &*self.coding {
            b"" => self.data,
            packed::CODING => packed::unpack(&self.data).ok_or(field("data"))?,
            _ => return Err(field("coding")),
        };
        Ok(Entry {
            seq: number(&self.seq).ok_or(field("seq"))?,
            at: FlowTime(number(&self.at).ok_or(field("at"))?),
            kind: text(self.kind),
            exchange,
            run: text(self.run),
            line: text(self.line),
            meta: serde_json::from_slice(&self.meta).unwrap_or(Value::Null),
            data,
            sealed: self.sealed,
            is_unmasked: false,
            unmasked: Vec::new(),
            chain: text(self.chain),
        })
    }
}

impl Entry {
    /// Puts what was sealed in the place of what was recorded.
    ///
    /// # Errors
    /// When no recorder wrote it.
    pub fn unmask(&mut self, plain: &[u8]) -> Result<(), Unknown> {
        let Opened { line, meta, data } = Opened::read(plain)?;
        if let Some(line) = line {
            self.line = line;
        }
        if let Some(data) = data {
            self.data = data;
        }
        self.unmasked = meta.keys().cloned().collect();
        match &mut self.meta {
            Value::Object(own) => own.extend(meta),
            own if !meta.is_empty() => *own = Value::Object(meta),
            _ => {}
        }
        self.is_unmasked = true;
        Ok(())
    }

    /// A text in `meta`, where there is one.
    #[must_use]
    pub fn meta_text(&self, name: &str) -> Option<&str> {
        self.meta
            .get(name)?
            .as_str()
            .filter(|text| !text.is_empty())
    }

    /// A number in `meta`, where there is one.
    #[must_use]
    pub fn meta_number(&self, name: &str) -> Option<u64> {
        self.meta.get(name)?.as_u64()
    }

    /// The text of a command: its bytes, or the line where there are none.
    #[must_use]
    pub fn command(&self) -> String {
        if self.data.is_empty() {
            self.line.clone()
        } else {
            String::from_utf8_lossy(&self.data).into_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_none_is_named_by_its_field() {
        let raw = |seq: &str, at: &str, exchange: &str| {
            Raw::from_fields([
                ("seq", seq.into()),
                ("at", at.into()),
                ("exchange", exchange.into()),
                ("of-later", "x".into()),
            ])
            .read()
        };
        assert_eq!(raw("1", "2", "").unwrap().exchange, None);
        assert_eq!(raw("1", "2", "0").unwrap().exchange, Some(0));
        assert_eq!(raw("x", "2", ""), Err(EntryError { field: "seq" }));
        assert_eq!(raw("1", "-2", ""), Err(EntryError { field: "at" }));
        assert_eq!(raw("1", "2", "01"), Err(EntryError { field: "exchange" }));
    }

    #[test]
    fn packed_data_is_read_as_what_it_was_and_a_bomb_is_not() {
        let raw = |coding: &str, data: &[u8]| {
            Raw::from_fields([
                ("seq", b"1".to_vec()),
                ("at", b"2".to_vec()),
                ("data", data.to_vec()),
                ("coding", coding.into()),
            ])
        };
        let text = "said. ".repeat(200).into_bytes();
        let mut packer = packed::Packer::new().unwrap();
        let packed = packer.pack(&text).unwrap().to_vec();
        assert_eq!(raw("zstd", &packed).unreadable(), None);
        assert_eq!(raw("zstd", &packed).stranger(), None);
        assert_eq!(raw("zstd", &packed).read().unwrap().data, text);

        let bomb = zstd::bulk::compress(&vec![0; packed::LONGEST + 1], 3).unwrap();
        let cut = &packed[..packed.len() - 1];
        for (coding, data, field) in [
            ("zstd", &bomb[..], "data"),
            ("zstd", cut, "data"),
            ("zstd", b"", "data"),
            ("gzip", &packed, "coding"),
        ] {
            assert_eq!(raw(coding, data).unreadable(), Some(field));
            assert_eq!(raw(coding, data).read(), Err(EntryError { field }));
        }
    }
}
