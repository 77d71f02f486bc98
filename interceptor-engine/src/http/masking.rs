//! Hiding what masks hide in a body, in the way that its content type asks for.
//!
//! * JSON, and lines of it, by place and by looks, so that it stays JSON;
//! * server-sent events one by one, each event's data as JSON where it is some;
//! * messages of gRPC one by one ([`super::grpc`]);
//! * any other text by looks.

use std::sync::Arc;

use ::http::HeaderValue;
use ::http::header::{self, HeaderMap};
use interceptor_policy::mask::{Direction, Hidden, JsonMasker, Masked};
use interceptor_policy::{DetectStream, MaskKey, Masks};

use super::body::coding::Decoder;
use super::grpc::Hider;

/// Bytes of one event; a longer one cannot be looked at.
const EVENT_LIMIT: usize = 1 << 20;

/// Why a body cannot be sent on.
pub(super) type Fault = &'static str;

const NO_JSON: Fault =
    "something may have to be hidden in a body that is not the JSON that it says";
const LONG_EVENT: Fault = "something may have to be hidden in an event that is too long";

/// What a body is to whoever masks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Events,
    Text,
}

impl Kind {
    pub(super) fn of(content_type: Option<&str>) -> Self {
        match content_type {
            Some("text/event-stream") => Self::Events,
            Some(kind)
                if kind.ends_with("/json")
                    || kind.ends_with("+json")
                    || kind.ends_with("ndjson")
                    || kind.ends_with("jsonl")
                    || kind.ends_with("jsonlines") =>
            {
                Self::Json
            }
            _ => Self::Text,
        }
    }
}

/// Hides values in one body.
#[derive(Debug)]
pub(super) enum Masker {
    Json(Box<JsonMasker>, bool),
    Events(Box<Events>),
    Text(Box<DetectStream>),
    Grpc(Box<Hider>),
}

impl Masker {
    pub(super) fn new(kind: Kind, masks: Arc<Masks>, direction: Direction) -> Self {
        match kind {
            Kind::Json => Self::Json(Box::new(JsonMasker::new(masks, direction)), false),
            Kind::Events => Self::Events(Box::new(Events::new(masks, direction))),
            Kind::Text => Self::Text(Box::new(DetectStream::towards(masks, direction))),
        }
    }

    pub(super) fn hidden(&self) -> u64 {
        match self {
            Self::Json(masker, _) => masker.hidden(),
            Self::Events(events) => events.hidden,
            Self::Text(stream) => stream.hidden(),
            Self::Grpc(hider) => hider.hidden,
        }
    }

    pub(super) fn push(
        &mut self,
        piece: &[u8],
        key: &MaskKey,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match self {
            Self::Json(masker, begun) => {
                *begun |= !piece.is_empty();
                masker.push(piece, key, out).map_err(|_| NO_JSON)
            }
            Self::Events(events) => events.push(piece, key, out),
            Self::Text(stream) => {
                stream.push(piece, key, out);
                Ok(())
            }
            Self::Grpc(hider) => hider.push(piece, key, out),
        }
    }

    /// Whether text is held back whose line has not ended.
    pub(super) fn holds_text(&self) -> bool {
        matches!(self, Self::Text(stream) if stream.held() > 0)
    }

    /// Bytes of text that are held back.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Text(stream) => stream.held(),
            _ => 0,
        }
    }

    /// Gives of it what no secret can have begun in.
    pub(super) fn release_text(&mut self, key: &MaskKey, out: &mut Vec<u8>) {
        if let Self::Text(stream) = self {
            stream.flush_words(key, out);
        }
    }

    pub(super) fn finish(&mut self, key: &MaskKey, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            // No body at all is not JSON, and hides nothing.
            Self::Json(_, false) => Ok(()),
            Self::Json(masker, _) => masker.finish(key, out).map_err(|_| NO_JSON),
            Self::Events(events) => {
                events.finish(key, out);
                Ok(())
            }
            Self::Text(stream) => {
                stream.finish(key, out);
                Ok(())
            }
            Self::Grpc(hider) => hider.finish(),
        }
    }
}

/// Whether a body may be JSON, by its first character.
pub(super) fn begins_like_json(body: &[u8]) -> bool {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'{' | b'['))
}

/// A whole body, masked; and how many values were hidden. Where only looks count,
/// what is not the JSON that it says is masked as text.
pub(super) fn whole(
    kind: Kind,
    masks: &Arc<Masks>,
    direction: Direction,
    body: &[u8],
    key: &MaskKey,
) -> Result<(Vec<u8>, u64), Fault> {
    let run = |kind: Kind| {
        let mut masker = Masker::new(kind, Arc::clone(masks), direction);
        let mut out = Vec::with_capacity(body.len());
        masker.push(body, key, &mut out)?;
        masker.finish(key, &mut out)?;
        Ok((out, masker.hidden()))
    };
    // A reader may take for JSON what is called something else.
    if kind == Kind::Text
        && masks.of(direction).json().is_some()
        && begins_like_json(body)
        && let Ok(masked) = run(Kind::Json)
    {
        return Ok(masked);
    }
    match run(kind) {
        Err(_) if kind == Kind::Json && masks.of(direction).json().is_none() => run(Kind::Text),
        other => other,
    }
}

/// A message, whatever it is: JSON where it can be read so, and text otherwise.
/// `None` where nothing is hidden.
pub(super) fn message(
    masks: &Arc<Masks>,
    direction: Direction,
    payload: &[u8],
    key: &MaskKey,
) -> Option<(Vec<u8>, u64)> {
    if !masks.of(direction).has_body() {
        return None;
    }
    let read = whole(Kind::Json, masks, direction, payload, key);
    let masked = match read {
        Ok(masked) => masked,
        // Where it is no JSON, there are no places in it.
        Err(_) => whole(Kind::Text, masks, direction, payload, key).ok()?,
    };
    (masked.1 > 0).then_some(masked)
}

/// Hides the values of fields.
pub(super) fn fields(hidden: &Hidden, headers: &mut HeaderMap, key: &MaskKey) -> u64 {
    let mut count = 0;
    for (name, _) in hidden.headers() {
        let Ok(name) = name.parse::<header::HeaderName>() else {
            continue;
        };
        // Where a message ends, and how it is read, stays what it is.
        if matches!(
            name,
            header::CONTENT_LENGTH
                | header::TRANSFER_ENCODING
                | header::CONTENT_ENCODING
                | header::CONNECTION
                | header::HOST
        ) {
            continue;
        }
        let Some(transform) = hidden.header(name.as_str()) else {
            continue;
        };
        let values: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
        headers.remove(&name);
        for value in values {
            count += 1;
            let mut masked = Vec::new();
            if transform.apply(value.as_bytes(), key, &mut masked) == Masked::Text
                && let Ok(value) = HeaderValue::from_bytes(&masked)
            {
                headers.append(&name, value);
            }
        }
    }
    count
}

/// Opens a body and hides values in it, as it comes.
#[derive(Debug)]
pub(super) struct Masking {
    decoder: Decoder,
    pub(super) masker: Masker,
    /// What the last piece was, opened and not masked.
    pub(super) opened: Vec<u8>,
}

impl Masking {
    pub(super) fn new(decoder: Decoder, masker: Masker) -> Self {
        Self {
            decoder,
            masker,
            opened: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, data: &[u8], key: &MaskKey) -> Result<Vec<u8>, Fault> {
        let (mut opened, mut masked) = (Vec::new(), Vec::new());
        let done = self.decoder.push(data, &mut opened);
        done.map_err(super::body::coding::CodingError::why)?;
        self.masker.push(&opened, key, &mut masked)?;
        self.opened = opened;
        Ok(masked)
    }

    /// As [`Self::push`], of bytes that were opened already.
    pub(super) fn push_opened(&mut self, opened: &[u8], key: &MaskKey) -> Result<Vec<u8>, Fault> {
        let mut masked = Vec::new();
        self.masker.push(opened, key, &mut masked)?;
        Ok(masked)
    }

    pub(super) fn finish(&mut self, key: &MaskKey) -> Result<Vec<u8>, Fault> {
        let (mut opened, mut masked) = (Vec::new(), Vec::new());
        let done = self.decoder.finish(&mut opened);
        done.map_err(super::body::coding::CodingError::why)?;
        self.masker.push(&opened, key, &mut masked)?;
        self.opened = opened;
        self.masker.finish(key, &mut masked)?;
        Ok(masked)
    }
}

/// Bytes of a request as they came, of which masks made what goes on.
#[derive(Debug, Default)]
pub(super) struct Came {
    /// Opened, and not masked.
    pub(super) opened: Vec<u8>,
    /// Values hidden so far.
    pub(super) hidden: u64,
    /// Bytes at the end that have not gone on.
    pub(super) held: usize,
}

impl Came {
    /// What `masking` was given last.
    pub(super) fn to(masking: &Masking) -> Self {
        Self {
            opened: masking.opened.clone(),
            hidden: masking.masker.hidden(),
            held: masking.masker.held(),
        }
    }
}

/// Server-sent events, one by one.
///
/// Spec: HTML Standard, section 9.2 (server-sent events).
#[derive(Debug)]
pub(super) struct Events {
    masks: Arc<Masks>,
    direction: Direction,
    /// The event so far, up to its empty line.
    event: Vec<u8>,
    /// Where in it the last line begins.
    line: usize,
    /// The last byte was a CR: an LF behind it belongs to the same line end.
    after_cr: bool,
    /// The line end that the LF would belong to was written anew.
    rewritten: bool,
    hidden: u64,
}

impl Events {
    fn new(masks: Arc<Masks>, direction: Direction) -> Self {
        Self {
            masks,
            direction,
            event: Vec::new(),
            line: 0,
            after_cr: false,
            rewritten: false,
            hidden: 0,
        }
    }

    fn push(&mut self, piece: &[u8], key: &MaskKey, out: &mut Vec<u8>) -> Result<(), Fault> {
        for byte in piece {
            let ends = match byte {
                b'\n' if std::mem::take(&mut self.after_cr) => {
                    // The second half of a line end.
                    if self.event.is_empty() {
                        if !self.rewritten {
                            out.push(b'\n');
                        }
                    } else {
                        self.event.push(b'\n');
                        self.line = self.event.len();
                    }
                    continue;
                }
                b'\n' | b'\r' => true,
                _ => false,
            };
            self.after_cr = *byte == b'\r';
            let empty = self.event.len() == self.line;
            self.event.push(*byte);
            if ends {
                self.line = self.event.len();
                if empty {
                    self.release(key, out);
                }
            }
            if self.event.len() > EVENT_LIMIT {
                return Err(LONG_EVENT);
            }
        }
        Ok(())
    }

    /// An event is whole.
    fn release(&mut self, key: &MaskKey, out: &mut Vec<u8>) {
        let event = std::mem::take(&mut self.event);
        self.line = 0;
        self.rewritten = false;
        let text = String::from_utf8_lossy(&event);
        let lines: Vec<&str> = text
            .split_inclusive(['\n', '\r'])
            .map(|line| line.trim_end_matches(['\n', '\r']))
            .collect();
        let data: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("data"))
            .filter_map(|rest| rest.strip_prefix(':').or(rest.is_empty().then_some("")))
            .map(|value| value.strip_prefix(' ').unwrap_or(value))
            .collect();
        let data = data.join("\n");
        let masked = message(&self.masks, self.direction, data.as_bytes(), key);
        let others: String = lines
            .iter()
            .filter(|line| !line.starts_with("data"))
            .map(|line| format!("{line}\n"))
            .collect();
        let around = whole(
            Kind::Text,
            &self.masks,
            self.direction,
            others.as_bytes(),
            key,
        );
        let (others, in_others) = around.unwrap_or_default();
        if masked.is_none() && in_others == 0 {
            out.extend_from_slice(&event);
            return;
        }
        self.hidden += in_others;
        let data = match masked {
            Some((masked, hidden)) => {
                self.hidden += hidden;
                String::from_utf8_lossy(&masked).into_owned()
            }
            None => data,
        };
        // Fields that are no data first: their order among each other is kept,
        // and readers put an event together before they look at it.
        let others = String::from_utf8_lossy(&others).into_owned();
        out.extend_from_slice(others.trim_end_matches('\n').as_bytes());
        if !others.trim_end_matches('\n').is_empty() {
            out.push(b'\n');
        }
        for line in data.split('\n') {
            out.extend_from_slice(format!("data: {line}\n").as_bytes());
        }
        out.push(b'\n');
        self.rewritten = true;
    }

    /// What is no whole event is none to a reader, and is looked at all the same.
    fn finish(&mut self, key: &MaskKey, out: &mut Vec<u8>) {
        if !self.event.is_empty() {
            self.release(key, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_choose_how_a_body_is_masked() {
        for (content_type, kind) in [
            ("application/json", Kind::Json),
            ("application/problem+json", Kind::Json),
            ("application/x-ndjson", Kind::Json),
            ("text/event-stream", Kind::Events),
            ("text/html", Kind::Text),
        ] {
            assert_eq!(Kind::of(Some(content_type)), kind, "{content_type}");
        }
    }
}
