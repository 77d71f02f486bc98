//! Messages of gRPC: told apart, opened, judged, masked, recorded.
//!
//! * [`schema`] holds what an operator's descriptor set says of services and
//!   messages; without one, fields are known by their numbers alone;
//! * [`wire`] cuts a message into its fields, [`text`] shows it as JSON, and
//!   [`hide`] hides what masks hide in it.
//!
//! A message that is masked is kept until it is whole, and goes on as it was where
//! nothing in it is hidden. Otherwise it is written anew, uncompressed, which any
//! message may be.
//!
//! Spec: gRPC over HTTP2, "Length-Prefixed-Message" and "Message-Encoding".

mod hide;
pub mod schema;
mod text;
mod wire;

use std::sync::Arc;

use ::http::HeaderMap;
use interceptor_policy::mask::Direction;
use interceptor_policy::{MaskKey, Masks};

pub use schema::Schemas;

use super::body::coding::Decoder;
use super::masking::{self, Fault};
use schema::Shape;

/// A flag, and four bytes of length.
const PREFIX: usize = 5;
/// Bytes of one message that is looked at, as it comes and opened: what clients
/// take at most unless they are told otherwise.
const MESSAGE_LIMIT: usize = 4 << 20;
/// Bytes of one message on record.
const RECORD_LIMIT: usize = 256 << 10;

const LONG: Fault = "something may have to be hidden in a message that is too long";
const CUT: Fault = "something may have to be hidden in a message that is not whole";
const CODED: Fault = "something may have to be hidden in a message that cannot be opened";
const DAMAGED: Fault = "something may have to be hidden in a message that is no protobuf";
const NAMELESS: Fault =
    "something may have to be hidden in a message, and no descriptor set says what its fields are";
const BASE64: Fault = "something may have to be hidden in a message that is written in base64";

/// How messages of one direction are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Form {
    /// What its fields are, where that is known.
    shape: Option<Shape>,
    /// `grpc-encoding`; `None` for none.
    coding: Option<Arc<str>>,
    /// Messages are not protobuf but what the content type says, as JSON is.
    other: bool,
    /// `grpc-web-text`.
    base64: bool,
}

impl Form {
    /// By a head, and what is known of the method's message.
    pub(super) fn new(headers: &HeaderMap, media: Option<&str>, shape: Option<Shape>) -> Self {
        let coding = headers
            .get("grpc-encoding")
            .map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase())
            .filter(|coding| !coding.is_empty() && coding != "identity");
        let media = media.unwrap_or_default();
        let sub = media.rsplit_once('+').map(|(_, sub)| sub);
        Self {
            shape,
            coding: coding.map(Arc::from),
            other: sub.is_some_and(|sub| sub != "proto"),
            base64: media.starts_with("application/grpc-web-text"),
        }
    }

    /// Opens one message; `None` where it cannot be.
    fn open<'m>(&self, flag: u8, payload: &'m [u8], limit: usize) -> Option<Opened<'m>> {
        if flag & 1 == 0 {
            return Some(Opened::AsIs(payload));
        }
        let coding = self.coding.as_deref().filter(|one| {
            // What gRPC knows by these names.
            matches!(*one, "gzip" | "deflate")
        })?;
        let mut opened = Vec::new();
        let mut decoder = Decoder::of(coding, limit as u64).ok()?;
        decoder.push(payload, &mut opened).ok()?;
        decoder.finish(&mut opened).ok()?;
        Some(Opened::Anew(opened))
    }

    /// What a message says, as JSON; or why that cannot be told.
    fn read(&self, flag: u8, payload: &[u8]) -> Result<String, &'static str> {
        if flag & 0x80 != 0 {
            // Trailers in a frame, as browsers get them.
            return Ok(String::from_utf8_lossy(payload).into_owned());
        }
        if self.base64 {
            return Err("it is written in base64");
        }
        let opened = self
            .open(flag, payload, MESSAGE_LIMIT)
            .ok_or("it cannot be opened")?;
        if self.other {
            return String::from_utf8(opened.bytes().to_vec()).map_err(|_| "it is no text");
        }
        text::json(self.shape.as_ref(), opened.bytes())
    }

    /// The one message of a whole body, as JSON.
    pub(super) fn read_only(&self, body: &[u8]) -> Result<String, &'static str> {
        let mut frames = Frames::default();
        frames.push(body);
        let one = frames.next(MESSAGE_LIMIT).map_err(|_| "it is too long")?;
        let (flag, payload) = one.ok_or("it holds no whole message")?;
        let read = self.read(flag, &payload)?;
        if flag & 0x80 != 0 || !frames.is_empty() {
            return Err("it holds more than one message");
        }
        Ok(read)
    }

    /// Whether fields are known by their names.
    pub(super) fn has_names(&self) -> bool {
        self.shape.is_some() || self.other
    }
}

enum Opened<'m> {
    AsIs(&'m [u8]),
    Anew(Vec<u8>),
}

impl Opened<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::AsIs(bytes) => bytes,
            Self::Anew(bytes) => bytes,
        }
    }
}

/// Cuts a body into its messages.
#[derive(Debug, Default)]
struct Frames {
    buffer: Vec<u8>,
    used: usize,
}

impl Frames {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    fn is_empty(&self) -> bool {
        self.buffer.len() == self.used
    }

    /// The next message, once it is whole.
    fn next(&mut self, limit: usize) -> Result<Option<(u8, Vec<u8>)>, Fault> {
        let rest = self.buffer.get(self.used..).unwrap_or_default();
        let Some(([flag, a, b, c, d], body)) = rest.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > limit {
            return Err(LONG);
        }
        let Some(payload) = body.get(..length) else {
            return Ok(None);
        };
        self.used += PREFIX + length;
        Ok(Some((*flag, payload.to_vec())))
    }
}

fn write(flag: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let length = u32::try_from(payload.len()).map_err(|_| LONG)?;
    out.push(flag);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

/// Hides values in the messages of one direction.
#[derive(Debug)]
pub(super) struct Hider {
    frames: Frames,
    form: Form,
    masks: Arc<Masks>,
    direction: Direction,
    pub(super) hidden: u64,
}

impl Hider {
    /// Fails where what is hidden can never be found.
    pub(super) fn new(form: Form, masks: Arc<Masks>, direction: Direction) -> Result<Self, Fault> {
        if form.base64 {
            return Err(BASE64);
        }
        if masks.of(direction).json().is_some() && !form.has_names() {
            return Err(NAMELESS);
        }
        Ok(Self {
            frames: Frames::default(),
            form,
            masks,
            direction,
            hidden: 0,
        })
    }

    pub(super) fn push(
        &mut self,
        piece: &[u8],
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        self.frames.push(piece);
        while let Some((flag, payload)) = self.frames.next(MESSAGE_LIMIT)? {
            match self.message(flag, &payload, key)? {
                Some(hidden) => write(flag & !1, &hidden, out)?,
                None => write(flag, &payload, out)?,
            }
        }
        Ok(())
    }

    /// One message with what is hidden hidden; `None` where that is nothing.
    fn message(
        &mut self,
        flag: u8,
        payload: &[u8],
        key: &MaskKey,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let hidden = self.masks.of(self.direction);
        if flag & 0x80 != 0 {
            // Trailers, as lines.
            let masked = hidden.detect().and_then(|plan| plan.hide(payload, key));
            return Ok(masked.map(|(masked, count)| {
                self.hidden += count as u64;
                masked
            }));
        }
        let opened = self.form.open(flag, payload, MESSAGE_LIMIT).ok_or(CODED)?;
        if self.form.other {
            let masked = masking::message(&self.masks, self.direction, opened.bytes(), key);
            return Ok(masked.map(|(masked, count)| {
                self.hidden += count;
                masked
            }));
        }
        let (masked, count) = hide::message(self.form.shape.as_ref(), hidden, key, opened.bytes())
            .map_err(|_| DAMAGED)?;
        self.hidden += count;
        Ok(masked)
    }

    /// The body is over.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        if self.frames.is_empty() {
            Ok(())
        } else {
            Err(CUT)
        }
    }
}

/// Hides in the trailers (or in a head that is all there is of an answer) what
/// detectors find: the words of a status, and its details.
pub(super) fn hide_status(masks: &Masks, headers: &mut HeaderMap, key: &MaskKey) -> u64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    let Some(plan) = masks.of(Direction::Response).detect() else {
        return 0;
    };
    let mut count = 0;
    let message = headers
        .get("grpc-message")
        .and_then(|value| plan.hide(value.as_bytes(), key));
    if let Some((hidden, hits)) = message {
        count += hits as u64;
        headers.remove("grpc-message");
        if let Ok(value) = ::http::HeaderValue::from_bytes(&hidden) {
            headers.insert("grpc-message", value);
        }
    }
    let Some(details) = headers.get("grpc-status-details-bin") else {
        return count;
    };
    let text = details.as_bytes();
    let bytes = STANDARD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text));
    let hidden = bytes
        .map_err(|_| wire::Damaged)
        .and_then(|bytes| hide::message(None, masks.of(Direction::Response), key, &bytes));
    match hidden {
        Ok((None, _)) => {}
        Ok((Some(hidden), hits)) => {
            count += hits;
            headers.remove("grpc-status-details-bin");
            if let Ok(value) = ::http::HeaderValue::from_str(&STANDARD_NO_PAD.encode(hidden)) {
                headers.insert("grpc-status-details-bin", value);
            }
        }
        // What cannot be looked into is not passed on.
        Err(_) => {
            count += 1;
            headers.remove("grpc-status-details-bin");
        }
    }
    count
}

/// Of what a client takes, leaves what can be opened here.
pub(super) fn accept_known(headers: &mut HeaderMap) {
    const NAME: &str = "grpc-accept-encoding";
    if !headers.contains_key(NAME) {
        return;
    }
    let known: Vec<String> = headers
        .get_all(NAME)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().to_ascii_lowercase())
        .filter(|one| matches!(one.as_str(), "identity" | "gzip" | "deflate"))
        .collect();
    headers.remove(NAME);
    if let Ok(value) = ::http::HeaderValue::from_str(&known.join(","))
        && !known.is_empty()
    {
        headers.insert(NAME, value);
    }
}

/// A message as it goes on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Counted from 1.
    pub(super) number: u64,
    /// Its bytes as they were sent.
    pub(super) bytes: u64,
    /// What it says, as JSON, or why that is not known.
    pub(super) said: Result<String, &'static str>,
}

/// Counts the messages of one direction, and tells what they say.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    prefix: Vec<u8>,
    length: u64,
    /// Bytes that are left of the message under way.
    left: u64,
    count: u64,
    /// How they are written, where what they say is asked for.
    form: Option<Form>,
    /// The message under way; `None` where it is not kept.
    kept: Option<Vec<u8>>,
    told: Vec<Told>,
}

impl Messages {
    /// Also tells what they say.
    pub(super) fn telling(form: Form) -> Self {
        Self {
            form: Some(form),
            ..Self::default()
        }
    }

    /// Whether fields are known by their names.
    pub(super) fn has_names(&self) -> bool {
        self.form.as_ref().is_some_and(Form::has_names)
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let now = usize::try_from(self.left).unwrap_or(usize::MAX);
                let (now, rest) = bytes.split_at_checked(now).unwrap_or((bytes, &[]));
                self.left -= now.len() as u64;
                if let Some(kept) = &mut self.kept {
                    kept.extend_from_slice(now);
                }
                bytes = rest;
                if self.left == 0 {
                    self.tell();
                }
                continue;
            }
            let wanted = (PREFIX - self.prefix.len()).min(bytes.len());
            let (prefix, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            self.prefix.extend_from_slice(prefix);
            bytes = rest;
            if let [_, a, b, c, d] = self.prefix.as_slice() {
                self.length = u64::from(u32::from_be_bytes([*a, *b, *c, *d]));
                self.left = self.length;
                self.count += 1;
                let keeps = self.form.is_some() && self.length <= RECORD_LIMIT as u64;
                self.kept = keeps.then(Vec::new);
                if self.left == 0 {
                    self.tell();
                }
            }
        }
    }

    /// A message is whole.
    fn tell(&mut self) {
        let flag = self.prefix.first().copied().unwrap_or_default();
        self.prefix.clear();
        let Some(form) = &self.form else { return };
        let said = match self.kept.take() {
            Some(kept) => form.read(flag, &kept),
            None => Err("it is too long"),
        };
        self.told.push(Told {
            number: self.count,
            bytes: self.length,
            said,
        });
    }

    /// What was told since.
    pub(super) fn take(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// How many have begun.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_the_same_however_they_are_cut() {
        let body = [
            &[0, 0, 0, 0, 3][..],
            b"abc",
            &[0, 0, 0, 0, 0],
            &[1, 0, 0, 1, 0],
            &[0; 256],
        ]
        .concat();
        for size in [1, 2, 5, 7, 1000] {
            let mut messages = Messages::telling(Form::default());
            body.chunks(size).for_each(|piece| messages.push(piece));
            assert_eq!(messages.count(), 3, "by {size}");
            let told = messages.take();
            let read: Vec<bool> = told.iter().map(|one| one.said.is_ok()).collect();
            assert_eq!(read, [false, true, false], "by {size}: {told:?}");
        }
    }

    #[test]
    fn a_body_with_more_than_one_message_is_not_read_as_one() {
        let form = Form::default();
        let one = [&[0, 0, 0, 0, 2][..], &[8, 1]].concat();
        assert_eq!(form.read_only(&one), Ok(r#"{"1":1}"#.to_owned()));
        assert!(form.read_only(&[&one[..], &one].concat()).is_err());
        assert!(form.read_only(&one[..6]).is_err());
        assert!(form.read_only(&[]).is_err());
    }
}
