//! An exchange's entries, put together.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Answer, Asked, BODY, Parameter, ROWS, Response, Rows, What};
use crate::replay::Entry;
use crate::replay::entry::{is_cut, is_hidden};
use crate::replay::http::meta::{pairs, url};
use crate::replay::pg::{Frame, Frames};

/// Exchanges that may be under way at once; more are taken as they are.
const OPEN_LIMIT: usize = 4096;

/// Fields that belong to one connection, or are made anew.
const OF_CONNECTION: [&str; 14] = [
    "host",
    "connection",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "accept-encoding",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "authorization",
    "cookie",
];

const REFUSED: &str = "it was refused";
const METADATA: &str = "only metadata of it is on record";
const COPIED: &str = "what it copied is not on record as it was sent";
const HIDDEN: &str = "a value in it is hidden on record";

/// Puts a session's exchanges together.
#[derive(Debug, Default)]
pub struct Again {
    /// Whether what was refused is asked as well.
    with_refused: bool,
    protocol: String,
    open: BTreeMap<u64, Open>,
}

/// An exchange whose end has not come yet.
#[derive(Debug)]
struct Open {
    asked: Asked,
    frames: Frames,
    /// What the agent sent for a `COPY`, which stands on record in its messages.
    copied: Frames,
    refused: bool,
    /// A request that said it has a body.
    has_body: bool,
    failed: bool,
    done: bool,
}

impl Again {
    /// Of the next session; `with_refused` to ask what was refused as well.
    #[must_use]
    pub fn new(with_refused: bool) -> Self {
        Self {
            with_refused,
            ..Self::default()
        }
    }

    /// What the session speaks, once its opening was taken.
    #[must_use]
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Takes the next entry; what is whole now.
    pub fn push(&mut self, entry: &Entry) -> Vec<Asked> {
        if entry.kind == "open" {
            self.protocol = entry.meta_text("protocol").unwrap_or_default().to_owned();
        }
        if let Some(exchange) = entry.exchange {
            if entry.kind == "command"
                && let Some(open) = begin(entry, exchange, &self.protocol)
            {
                self.open.insert(exchange, open);
            } else if let Some(open) = self.open.get_mut(&exchange) {
                open.take(entry);
            }
        }
        let mut whole = Vec::new();
        while let Some(first) = self.open.first_entry() {
            let open = first.get();
            // Rows may come on record behind the error that ended them, and at once.
            let over = open.done || (open.failed && entry.exchange != Some(*first.key()));
            if !over && self.open.len() <= OPEN_LIMIT {
                break;
            }
            whole.extend(
                self.open
                    .pop_first()
                    .map(|(_, open)| open.end(self.with_refused)),
            );
        }
        whole
    }

    /// The session is over; what is left of it.
    pub fn finish(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.open)
            .into_values()
            .map(|open| open.end(self.with_refused))
            .collect()
    }
}

fn begin(entry: &Entry, exchange: u64, protocol: &str) -> Option<Open> {
    let verdict = entry.meta_text("verdict")?;
    let (what, unsent, answer) = if protocol == "http" {
        let (what, unsent) = request(entry);
        let response = Response {
            body: Some(Vec::new()),
            ..Response::default()
        };
        (what, unsent, Answer::Response(response))
    } else {
        let (what, unsent) = statement(entry);
        (what, unsent, Answer::Rows(Rows::default()))
    };
    Some(Open {
        asked: Asked {
            exchange,
            line: entry.line.clone(),
            what,
            unsent,
            answer,
            masked: 0,
        },
        frames: Frames::default(),
        copied: Frames::default(),
        refused: verdict != "allow",
        has_body: entry.meta_number("size").is_some_and(|size| size > 0),
        failed: false,
        done: matches!(verdict, "block" | "kill"),
    })
}

fn statement(entry: &Entry) -> (What, Option<&'static str>) {
    let text = entry.command();
    let step = entry.meta_text("message").unwrap_or("Q");
    let mut unsent = match step {
        "F" => Some("it is a function call, which the record names and not more"),
        _ if entry.data.is_empty() => Some(METADATA),
        _ if is_hidden(&text) => Some(HIDDEN),
        _ => None,
    };
    let parameters = match (step, entry.meta.get("parameters")) {
        ("Q", _) => None,
        (_, None) => {
            let mut letters = text.bytes().zip(text.bytes().skip(1));
            if letters.any(|(one, next)| one == b'$' && next.is_ascii_digit()) {
                unsent = unsent.or(Some("the values of its parameters are not on record"));
            }
            Some(Vec::new())
        }
        (_, Some(values)) => {
            let values = values.as_array().map(Vec::as_slice);
            let read = values.unwrap_or_default().iter().map(parameter);
            let read: Result<Vec<Parameter>, _> = read.collect();
            if values.is_none() {
                unsent = unsent.or(Some(HIDDEN));
            }
            match read {
                Ok(read) => Some(read),
                Err(why) => {
                    unsent = unsent.or(Some(why));
                    Some(Vec::new())
                }
            }
        }
    };
    let what = What::Statement {
        text,
        parameters,
        copied: Vec::new(),
    };
    (what, unsent)
}

/// A parameter as it was sent, as far as that is on record.
fn parameter(value: &Value) -> Result<Parameter, &'static str> {
    let Some(text) = value.as_str() else {
        return Ok(Parameter::Null);
    };
    if text == "…" || is_cut(text) {
        return Err("a parameter is cut on record");
    }
    if is_hidden(text) {
        return Err(HIDDEN);
    }
    // So the record has what was sent in binary format.
    match text.strip_prefix("\\x").map(hex::decode) {
        Some(Ok(bytes)) => Ok(Parameter::Binary(bytes)),
        _ => Ok(Parameter::Text(text.to_owned())),
    }
}

fn request(entry: &Entry) -> (What, Option<&'static str>) {
    let method = entry.meta_text("method").unwrap_or_default().to_owned();
    let url = url(&entry.meta);
    let path = url.as_deref().and_then(|url| {
        let behind = url.split_once("://")?.1;
        let slash = behind.find(['/', '?']);
        Some(match slash {
            Some(at) => behind.get(at..).unwrap_or("/").to_owned(),
            None => "/".to_owned(),
        })
    });
    let headers: Vec<(String, String)> = pairs(&entry.meta, "headers")
        .into_iter()
        .filter(|(name, value)| {
            let name = name.to_ascii_lowercase();
            !OF_CONNECTION.contains(&name.as_str()) && !value.contains("[credential]")
        })
        .collect();
    let has = |name: &str| entry.meta.get(name).is_some();
    let unsent = if url.is_none() || !has("headers") {
        Some(METADATA)
    } else if method == "CONNECT" || has("websocket") {
        Some("it is no plain request")
    } else if has("grpc") {
        Some("it is a call of gRPC, whose bytes are not on record")
    } else if path.as_deref().is_some_and(is_encoded_hidden)
        || headers.iter().any(|(_, value)| is_hidden(value))
    {
        Some(HIDDEN)
    } else {
        None
    };
    let what = What::Request {
        method,
        path: path.unwrap_or_else(|| "/".to_owned()),
        headers,
        body: Vec::new(),
    };
    (what, unsent)
}

fn is_encoded_hidden(path: &str) -> bool {
    // The brackets may stand as they are in a query.
    is_hidden(path) || path.contains("%5Bredacted%5D") || path.contains("%5Bcredential%5D")
}

impl Open {
    fn take(&mut self, entry: &Entry) {
        match entry.kind.as_str() {
            "verdict" if matches!(entry.meta_text("verdict"), Some("block" | "kill")) => {
                self.refused = true;
                self.done = true;
            }
            "approval" => {
                let approved = entry.meta_text("decision") == Some("approved");
                self.refused = !approved;
                self.done |= !approved;
            }
            "mask" => self.asked.masked += entry.meta_number("values").unwrap_or(1),
            "input" => self.sent(&entry.data),
            "output" => self.answered(&entry.data),
            "error" => self.error(entry),
            "result" => self.result(entry),
            _ => {}
        }
    }

    /// What was sent beside the command.
    fn sent(&mut self, data: &[u8]) {
        let into = match &mut self.asked.what {
            What::Request { body, .. } => {
                body.extend_from_slice(data);
                body
            }
            What::Statement { copied, .. } => {
                self.copied.push(data, |frame| match frame {
                    Frame::Copy(part) => copied.extend_from_slice(part),
                    // A mask may have made them other ones.
                    _ => self.asked.unsent = Some(COPIED),
                });
                copied
            }
        };
        if into.len() > BODY {
            into.truncate(BODY);
            self.asked.unsent = Some("it is too long to be sent again");
        }
    }

    /// A part of a body.
    fn answered(&mut self, data: &[u8]) {
        if let Answer::Response(response) = &mut self.asked.answer
            && let Some(body) = &mut response.body
        {
            body.extend_from_slice(data);
            if body.len() > BODY {
                response.body = None;
            }
        }
    }

    fn error(&mut self, entry: &Entry) {
        match &mut self.asked.answer {
            Answer::Rows(rows) => {
                let text = |name| entry.meta_text(name).unwrap_or_default().to_owned();
                rows.error = Some((text("code"), text("message")));
                self.failed = true;
            }
            Answer::Response(_) => {
                self.asked.unsent = Some("it had no answer of the service's");
                self.done = true;
            }
        }
    }

    fn result(&mut self, entry: &Entry) {
        match &mut self.asked.answer {
            Answer::Rows(rows) => {
                self.frames.push(&entry.data, |frame| rows.take(&frame));
                if let Some(tag) = entry.meta.get("tag").and_then(Value::as_str) {
                    tag.clone_into(&mut rows.tag);
                    rows.count = entry.meta_number("rows").unwrap_or(rows.count);
                    self.done = true;
                }
            }
            Answer::Response(response) => {
                let status = entry.meta_number("status").unwrap_or_default();
                response.status = u16::try_from(status).unwrap_or_default();
                response.headers = pairs(&entry.meta, "headers");
                self.answered(&entry.data);
                let unread =
                    entry.meta.get("unreadable").is_some() || entry.meta.get("failed").is_some();
                if let Answer::Response(response) = &mut self.asked.answer {
                    let none = response.body.as_ref().is_some_and(Vec::is_empty);
                    if unread || (none && entry.meta_number("bytes").unwrap_or_default() > 0) {
                        response.body = None;
                    }
                }
                self.done = true;
            }
        }
    }

    fn end(self, with_refused: bool) -> Asked {
        let mut asked = self.asked;
        let (What::Statement { copied: sent, .. } | What::Request { body: sent, .. }) = &asked.what;
        if asked.unsent.is_none() && self.refused && !with_refused {
            asked.unsent = Some(REFUSED);
        } else if asked.unsent.is_none() && self.has_body && sent.is_empty() {
            asked.unsent = Some("its body is not on record");
        } else if asked.unsent.is_none() && !self.copied.is_whole() {
            asked.unsent = Some(COPIED);
        } else if asked.unsent.is_none() && is_hidden(&String::from_utf8_lossy(sent)) {
            asked.unsent = Some(HIDDEN);
        }
        asked
    }
}

impl Rows {
    /// Takes the next frame of an answer.
    pub fn take(&mut self, frame: &Frame<'_>) {
        match frame {
            Frame::Columns(columns) => self.columns.clone_from(columns),
            Frame::Row(values) => {
                self.count += 1;
                if self.rows.len() < ROWS {
                    let values = values.iter().map(|value| value.map(<[u8]>::to_vec));
                    self.rows.push(values.collect());
                }
            }
            Frame::Copy(data) => {
                let room = BODY.saturating_sub(self.copied.len());
                self.copied
                    .extend_from_slice(data.get(..room).unwrap_or(data));
            }
            Frame::Oversized(_) => self.count += 1,
            Frame::Other => {}
        }
    }
}
