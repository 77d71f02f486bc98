//! A response's body on its way to the agent: opened, masked, recorded.
//!
//! Three ways, chosen by the head:
//!
//! * `Raw`: nothing can be hidden; the agent gets the very bytes, and a copy is
//!   opened for the record;
//! * `Small`: something may be hidden, and the head says that it is short: it is
//!   kept until it is whole, and left as it is where nothing was hidden;
//! * `Masked`: something may be hidden, and it is long, or nobody knows how long:
//!   it is opened, masked and sent on as it comes, in no coding.

use std::sync::Arc;

use ::http::header::{self, HeaderMap, HeaderName};
use ::http::{HeaderValue, response};
use bytes::Bytes;
use interceptor_policy::mask::Direction;
use interceptor_policy::{MaskKey, Masks};

use super::body::coding::{CodingError, Decoder};
use super::masking::{self, Fault, Kind, Masker, Masking};
use crate::event::Sealed;
use crate::unmasked::Unmasked;

/// Fields that are of a body's very bytes, and false of any others.
const OF_BYTES: [HeaderName; 8] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::ETAG,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Takes off what is false of a body that was changed.
pub(super) fn drop_of_bytes(headers: &mut HeaderMap) {
    for name in &OF_BYTES {
        headers.remove(name);
    }
}

/// Bytes for the record, in parts.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) buffer: Vec<u8>,
    pub(super) count: u32,
    limit: usize,
    /// What masks made it of.
    unmasked: Unmasked,
}

impl Parts {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            count: 0,
            limit,
            unmasked: Unmasked::default(),
        }
    }

    /// The same, of a body whose unmasked bytes are sealed.
    pub(super) fn sealing(mut self, seals: bool) -> Self {
        self.unmasked = Unmasked::new(seals);
        self
    }

    /// Keeps bytes as they came, of a body in which masks may change something.
    pub(super) fn keep_unmasked(&mut self, opened: &[u8]) {
        self.unmasked.push(opened);
    }

    /// What is to be sealed beside the part that is taken.
    pub(super) fn take_unmasked(&mut self, hidden: u64, held: usize) -> Sealed {
        self.unmasked.take(hidden, held)
    }

    /// A part that is full; called until there is none.
    pub(super) fn full(&mut self) -> Option<(u32, Vec<u8>)> {
        if self.buffer.len() < self.limit {
            return None;
        }
        let rest = self.buffer.split_off(self.limit);
        self.count += 1;
        Some((self.count, std::mem::replace(&mut self.buffer, rest)))
    }

    /// The last part, where anything is left.
    pub(super) fn rest(&mut self) -> Option<(u32, Vec<u8>)> {
        if self.buffer.is_empty() {
            return None;
        }
        self.count += 1;
        Some((self.count, std::mem::take(&mut self.buffer)))
    }
}

#[derive(Debug)]
enum Way {
    Raw {
        /// `None` once it turned out not to open.
        decoder: Option<Decoder>,
    },
    /// Nothing says whether it is text; its first bytes will.
    Unsure {
        head: Box<response::Parts>,
        decoder: Decoder,
        masks: Arc<Masks>,
        small: bool,
    },
    Small {
        head: Box<response::Parts>,
        kept: Vec<u8>,
        decoder: Decoder,
        kind: Kind,
        masks: Arc<Masks>,
    },
    Masked(Box<Masking>),
}

/// A response's body on its way.
#[derive(Debug)]
pub(super) struct Stream {
    way: Way,
    /// What goes on record; `None` where nothing does.
    pub(super) parts: Option<Parts>,
    /// Bytes that the agent got.
    pub(super) sent: u64,
    /// Values hidden.
    pub(super) hidden: u64,
    /// Why the record's copy could not be opened.
    pub(super) unopened: Option<CodingError>,
    /// Whether trailers that are of the very bytes are still true.
    pub(super) trailers_kept: bool,
    /// Whether nobody looked for what masks hide, since it is no text.
    pub(super) unlooked: bool,
    /// The head of a body that was kept, and is not sent.
    unsent: Option<Box<response::Parts>>,
}

/// What is sent at the end of a body.
#[derive(Debug, Default)]
pub(super) struct Last {
    /// The head, where it was kept.
    pub(super) head: Option<Box<response::Parts>>,
    /// The last bytes.
    pub(super) bytes: Bytes,
}

impl Stream {
    pub(super) fn raw(headers: &HeaderMap, parts: Option<Parts>, limit: u64) -> Self {
        let opened = Decoder::new(headers, limit);
        let unopened = opened.as_ref().err().copied();
        let decoder = opened.ok();
        Self::of(Way::Raw { decoder }, parts, unopened)
    }

    /// Keeps the head until the body is whole.
    pub(super) fn small(
        head: Box<response::Parts>,
        decoder: Decoder,
        kind: Kind,
        masks: Arc<Masks>,
        parts: Option<Parts>,
    ) -> Self {
        let way = Way::Small {
            head,
            kept: Vec::new(),
            decoder,
            kind,
            masks,
        };
        Self::of(way, parts, None)
    }

    /// Keeps the head until the first bytes say whether it is text. `small`: it
    /// says that it is short.
    pub(super) fn unsure(
        head: Box<response::Parts>,
        decoder: Decoder,
        masks: Arc<Masks>,
        small: bool,
        parts: Option<Parts>,
    ) -> Self {
        let way = Way::Unsure {
            head,
            decoder,
            masks,
            small,
        };
        Self::of(way, parts, None)
    }

    pub(super) fn masked(masking: Masking, parts: Option<Parts>) -> Self {
        Self::of(Way::Masked(Box::new(masking)), parts, None)
    }

    fn of(way: Way, parts: Option<Parts>, unopened: Option<CodingError>) -> Self {
        let trailers_kept = !matches!(way, Way::Masked(_));
        Self {
            way,
            parts,
            sent: 0,
            hidden: 0,
            unopened,
            trailers_kept,
            unlooked: false,
            unsent: None,
        }
    }

    /// Whether not even the head was sent.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self.way, Way::Small { .. } | Way::Unsure { .. }) || self.unsent.is_some()
    }

    /// Takes the head back of a body that will not be sent after all.
    pub(super) fn keep_head(&mut self, head: Box<response::Parts>) {
        self.unsent = Some(head);
    }

    /// The last bytes that were given will not be sent.
    pub(super) fn take_back(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_sub(bytes as u64);
        if let Some(parts) = &mut self.parts {
            let left = parts.buffer.len().saturating_sub(bytes);
            parts.buffer.truncate(left);
        }
    }

    /// The first bytes have come of a body of which nothing else says what it is.
    fn make_sure(
        &mut self,
        mut head: Box<response::Parts>,
        mut decoder: Decoder,
        masks: Arc<Masks>,
        small: bool,
        data: &Bytes,
        key: &MaskKey,
    ) -> Result<Last, Fault> {
        let mut opened = Vec::new();
        if let Err(error) = decoder.push(data, &mut opened) {
            self.unsent = Some(head);
            return Err(error.why());
        }
        if is_binary(&opened) {
            self.sent += data.len() as u64;
            self.unlooked = true;
            if let Some(parts) = &mut self.parts {
                parts.buffer.extend_from_slice(&opened);
            }
            self.way = Way::Raw {
                decoder: Some(decoder),
            };
            return Ok(Last {
                head: Some(head),
                bytes: data.clone(),
            });
        }
        let places = masks.of(Direction::Response).json().is_some();
        let kind = if places && masking::begins_like_json(&opened) {
            Kind::Json
        } else {
            Kind::Text
        };
        if small {
            // Opened again from its start, when it is whole.
            let fresh = Decoder::new(&head.headers, decoder.limit());
            self.way = Way::Small {
                decoder: fresh.map_err(CodingError::why)?,
                head,
                kept: data.to_vec(),
                kind,
                masks,
            };
            return Ok(Last::default());
        }
        drop_of_bytes(&mut head.headers);
        self.trailers_kept = false;
        let masker = Masker::new(kind, masks, Direction::Response);
        let mut masking = Masking::new(decoder, masker);
        let masked = masking.push_opened(&opened, key)?;
        self.keep_unmasked(&opened);
        self.hidden = masking.masker.hidden();
        self.way = Way::Masked(Box::new(masking));
        Ok(Last {
            head: Some(head),
            bytes: self.give(masked),
        })
    }

    /// Takes more of the body; what the agent gets of it.
    pub(super) fn push(&mut self, data: Bytes, key: &MaskKey) -> Result<Last, Fault> {
        if matches!(self.way, Way::Unsure { .. })
            && let Way::Unsure {
                head,
                decoder,
                masks,
                small,
            } = std::mem::replace(&mut self.way, Way::Raw { decoder: None })
        {
            return self.make_sure(head, decoder, masks, small, &data, key);
        }
        self.push_on(data, key)
            .map(|bytes| Last { head: None, bytes })
    }

    fn push_on(&mut self, data: Bytes, key: &MaskKey) -> Result<Bytes, Fault> {
        match &mut self.way {
            // Made sure of above.
            Way::Unsure { .. } => Ok(data),
            Way::Raw { decoder } => {
                if let (Some(parts), Some(opener)) = (&mut self.parts, &mut *decoder)
                    && let Err(error) = opener.push(&data, &mut parts.buffer)
                {
                    self.unopened = Some(error);
                    *decoder = None;
                }
                self.sent += data.len() as u64;
                Ok(data)
            }
            Way::Small { kept, .. } => {
                kept.extend_from_slice(&data);
                Ok(Bytes::new())
            }
            Way::Masked(masking) => {
                let masked = masking.push(&data, key)?;
                if let Some(parts) = &mut self.parts {
                    parts.unmasked.push(&masking.opened);
                }
                self.hidden = masking.masker.hidden();
                Ok(self.give(masked))
            }
        }
    }

    /// Whether text waits for its line's end.
    pub(super) fn holds_text(&self) -> bool {
        matches!(&self.way, Way::Masked(masking) if masking.masker.holds_text())
    }

    /// Nothing has come for a while: gives of it what may be given.
    pub(super) fn release_text(&mut self, key: &MaskKey) -> Bytes {
        let mut masked = Vec::new();
        if let Way::Masked(masking) = &mut self.way {
            masking.masker.release_text(key, &mut masked);
            self.hidden = masking.masker.hidden();
        }
        self.give(masked)
    }

    /// What masks made bytes of.
    fn keep_unmasked(&mut self, opened: &[u8]) {
        if let Some(parts) = &mut self.parts {
            parts.unmasked.push(opened);
        }
    }

    /// What the last bytes were made of, where masks may change them.
    pub(super) fn opened(&self) -> &[u8] {
        match &self.way {
            Way::Masked(masking) => &masking.opened,
            _ => &[],
        }
    }

    /// What is to be sealed beside the part that is taken.
    pub(super) fn take_unmasked(&mut self) -> Sealed {
        let held = match &self.way {
            Way::Masked(masking) => masking.masker.held(),
            _ => 0,
        };
        let hidden = self.hidden;
        let parts = self.parts.as_mut();
        parts.map_or(Sealed::Nothing, |parts| parts.unmasked.take(hidden, held))
    }

    /// Masked bytes, for the record and for the agent.
    fn give(&mut self, masked: Vec<u8>) -> Bytes {
        self.sent += masked.len() as u64;
        if let Some(parts) = &mut self.parts {
            parts.buffer.extend_from_slice(&masked);
        }
        masked.into()
    }

    /// The body is over. Where it fails, not even a head that was kept is sent.
    pub(super) fn finish(&mut self, key: &MaskKey) -> Result<Last, Fault> {
        let way = std::mem::replace(&mut self.way, Way::Raw { decoder: None });
        match way {
            Way::Raw { decoder } => {
                if let (Some(mut decoder), Some(parts)) = (decoder, &mut self.parts)
                    && let Err(error) = decoder.finish(&mut parts.buffer)
                {
                    self.unopened = Some(error);
                }
                Ok(Last::default())
            }
            // Nothing has come.
            Way::Unsure { head, .. } => Ok(Last {
                head: Some(head),
                bytes: Bytes::new(),
            }),
            Way::Masked(mut masking) => {
                let masked = masking.finish(key)?;
                self.keep_unmasked(&masking.opened);
                self.hidden = masking.masker.hidden();
                Ok(Last {
                    head: None,
                    bytes: self.give(masked),
                })
            }
            Way::Small {
                head,
                kept,
                mut decoder,
                kind,
                masks,
            } => {
                let mut opened = Vec::new();
                let done = decoder
                    .push(&kept, &mut opened)
                    .and_then(|()| decoder.finish(&mut opened));
                let masked = done
                    .map_err(CodingError::why)
                    .and_then(|()| masking::whole(kind, &masks, Direction::Response, &opened, key));
                self.keep_unmasked(&opened);
                match masked {
                    Ok((masked, hidden)) => Ok(self.whole(head, kept, masked, hidden)),
                    Err(fault) => {
                        self.unsent = Some(head);
                        Err(fault)
                    }
                }
            }
        }
    }

    /// A short body that is whole: as it came, or with what is hidden hidden.
    fn whole(
        &mut self,
        mut head: Box<response::Parts>,
        kept: Vec<u8>,
        masked: Vec<u8>,
        hidden: u64,
    ) -> Last {
        self.hidden = hidden;
        if let Some(parts) = &mut self.parts {
            parts.buffer.extend_from_slice(&masked);
        }
        let bytes = if hidden == 0 {
            Bytes::from(kept)
        } else {
            self.trailers_kept = false;
            drop_of_bytes(&mut head.headers);
            let length = HeaderValue::from(masked.len());
            head.headers.insert(header::CONTENT_LENGTH, length);
            Bytes::from(masked)
        };
        self.sent += bytes.len() as u64;
        Last {
            head: Some(head),
            bytes,
        }
    }
}

/// Whether the beginning of a body shows that it is no text.
fn is_binary(start: &[u8]) -> bool {
    let start = start.get(..1024).unwrap_or(start);
    let text = match std::str::from_utf8(start) {
        Ok(_) => true,
        // It may end inside a character.
        Err(error) => error.error_len().is_none(),
    };
    !text || start.contains(&0)
}

/// Whether a content type is of text, in which something can be told by its
/// looks; `None` where only the bytes could say.
pub(super) fn is_text(content_type: Option<&str>) -> Option<bool> {
    const TEXTS: [&str; 13] = [
        "application/json",
        "application/xml",
        "application/javascript",
        "application/x-javascript",
        "application/ecmascript",
        "application/x-www-form-urlencoded",
        "application/graphql",
        "application/yaml",
        "application/x-yaml",
        "application/toml",
        "application/sql",
        "application/x-sh",
        "application/problem+json",
    ];
    const OTHERS: [&str; 12] = [
        "application/pdf",
        "application/zip",
        "application/gzip",
        "application/x-gzip",
        "application/x-tar",
        "application/x-7z-compressed",
        "application/vnd.rar",
        "application/wasm",
        "application/protobuf",
        "application/x-protobuf",
        "application/x-git-upload-pack-result",
        "application/x-git-receive-pack-result",
    ];
    let kind = content_type?;
    let family = kind.split('/').next().unwrap_or_default();
    let text = family == "text"
        || TEXTS.contains(&kind)
        || kind.contains("json")
        || kind.ends_with("+xml")
        || kind.ends_with("+yaml");
    let other = matches!(family, "image" | "audio" | "video" | "font")
        || OTHERS.contains(&kind)
        || kind.starts_with("application/grpc");
    match (text, other) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}
