//! An HTTP archive (HAR 1.2), which browsers' tools open.
//!
//! Written as it is read: an entry is out as soon as its exchange is over. Memory
//! is bounded by [`OPEN_LIMIT`] exchanges under way and [`BODY_LIMIT`] bytes of
//! each body.
//!
//! Spec: HAR 1.2 (`http://www.softwareishard.com/blog/har-12-spec/`); what begins
//! with `_` is of whoever writes it; `_webSocketMessages` is Chrome's, and `_unmasked`
//! stands where something of an exchange was sealed and is shown all the same.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::super::Entry;
use super::meta::{pairs, url};

/// Exchanges under way; of more, the oldest is written as it is.
pub const OPEN_LIMIT: usize = 1024;
/// Bytes of one body; the rest is left out, and said to be.
pub const BODY_LIMIT: usize = 8 << 20;
/// Messages of one WebSocket.
const MESSAGE_LIMIT: usize = 10_000;

/// What stands after the last entry.
pub const FOOTER: &str = "\n]}}\n";

/// A body as far as it is kept.
#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
    left_out: u64,
}

impl Body {
    fn push(&mut self, data: &[u8]) {
        let room = BODY_LIMIT.saturating_sub(self.bytes.len());
        let kept = data.get(..room).unwrap_or(data);
        self.bytes.extend_from_slice(kept);
        self.left_out += (data.len() - kept.len()) as u64;
    }

    /// The text, and how it is coded where it is none.
    fn text(&self) -> (String, Option<&'static str>) {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => {
                let coded = base64::engine::general_purpose::STANDARD.encode(&self.bytes);
                (coded, Some("base64"))
            }
        }
    }

    fn comment(&self) -> Option<String> {
        (self.left_out > 0).then(|| format!("{} bytes are left out", self.left_out))
    }
}

#[derive(Debug, Default)]
struct Open {
    at: u64,
    command: Value,
    line: String,
    input: Body,
    output: Body,
    messages: Vec<Value>,
    refused: Option<(String, String)>,
    is_unmasked: bool,
}

/// Writes an archive, entry by entry.
#[derive(Debug)]
pub struct Har {
    /// Milliseconds since 1970 of the session's opening.
    opened: i64,
    open: BTreeMap<u64, Open>,
    written: u64,
    session: String,
}

impl Har {
    /// An archive of one session.
    #[must_use]
    pub fn new(session: &str) -> Self {
        Self {
            opened: 0,
            open: BTreeMap::new(),
            written: 0,
            session: session.to_owned(),
        }
    }

    /// What stands before the first entry.
    #[must_use]
    pub fn header(&self) -> String {
        let creator = json!({"name": "interceptor", "version": env!("CARGO_PKG_VERSION")});
        let comment = json!(format!("session {}, as it was recorded", self.session));
        format!(
            "{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},\"comment\":{comment},\"entries\":["
        )
    }

    /// Takes the next event; what there is to write now.
    pub fn push(&mut self, entry: &Entry) -> String {
        if entry.kind == "open" {
            let millis = entry.meta.get("at_wall_ms").and_then(Value::as_i64);
            self.opened = millis.unwrap_or_default();
        }
        let Some(number) = entry.exchange else {
            return String::new();
        };
        let mut out = String::new();
        if entry.kind == "command" && entry.meta.get("method").is_some() {
            if self.open.len() >= OPEN_LIMIT
                && let Some((number, oldest)) = self.open.pop_first()
            {
                out.push_str(&self.entry(number, &oldest, None, entry.at.0));
            }
            self.open.insert(
                number,
                Open {
                    at: entry.at.0,
                    command: entry.meta.clone(),
                    line: entry.line.clone(),
                    is_unmasked: entry.is_unmasked,
                    ..Open::default()
                },
            );
            return out;
        }
        let time = self.wall(entry.at.0);
        let Some(open) = self.open.get_mut(&number) else {
            return out;
        };
        open.is_unmasked |= entry.is_unmasked;
        let mut over = false;
        #[allow(
            clippy::collapsible_match,
            reason = "a message that is one too many is no body either"
        )]
        match entry.kind.as_str() {
            "input" | "output" if entry.meta.get("websocket").is_some() => {
                let has_room = open.messages.len() < MESSAGE_LIMIT;
                let message = has_room.then(|| message(entry, &time));
                open.messages.extend(message);
            }
            "input" => open.input.push(&entry.data),
            "output" => open.output.push(&entry.data),
            "verdict" => {
                if let Some("block" | "kill") = entry.meta_text("verdict") {
                    open.refused = Some(("403".to_owned(), entry.line.clone()));
                }
            }
            "approval" => {
                let decision = entry.meta_text("decision").unwrap_or_default();
                if decision != "approved" {
                    open.refused = Some(("403".to_owned(), entry.line.clone()));
                    over = true;
                }
            }
            "error" => {
                let code = entry.meta_text("code").unwrap_or("502").to_owned();
                open.refused = Some((code, entry.line.clone()));
            }
            "result" => {
                open.output.push(&entry.data);
                over = true;
            }
            _ => {}
        }
        if over && let Some(open) = self.open.remove(&number) {
            let result = (entry.kind == "result").then_some(&entry.meta);
            out.push_str(&self.entry(number, &open, result, entry.at.0));
        }
        out
    }

    /// What is left, and the end.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        for (number, open) in std::mem::take(&mut self.open) {
            out.push_str(&self.entry(number, &open, None, open.at));
        }
        out.push_str(FOOTER);
        out
    }

    fn wall(&self, at: u64) -> String {
        let millis = i64::try_from(at / 1000).unwrap_or(i64::MAX);
        iso_8601(self.opened.saturating_add(millis))
    }

    fn entry(&mut self, number: u64, open: &Open, result: Option<&Value>, end: u64) -> String {
        let comma = if self.written > 0 { "," } else { "" };
        self.written += 1;
        let command = &open.command;
        let text = |name: &str| command.get(name).and_then(Value::as_str);
        let none = Value::Null;
        let answer = result.unwrap_or(&none);
        let number_of = |name: &str| answer.get(name).and_then(Value::as_u64);
        let micros = |name: &str| number_of(name).map(|micros| micros as f64 / 1000.0);
        let total = end.saturating_sub(open.at) as f64 / 1000.0;
        let duration = micros("duration_us").unwrap_or(total);
        let wait = micros("first_byte_us").unwrap_or(duration);
        let blocked = micros("waited_us").unwrap_or_default();
        let status = number_of("status")
            .or_else(|| open.refused.as_ref()?.0.parse().ok())
            .unwrap_or_default();
        let entry = json!({
            "startedDateTime": self.wall(open.at),
            "time": blocked + duration,
            "request": request(open, text("version").unwrap_or("HTTP/1.1")),
            "response": response(open, answer, status),
            "cache": {},
            "timings": {
                "blocked": blocked,
                "send": 0,
                "wait": wait,
                "receive": (duration - wait).max(0.0),
            },
            "_exchange": number,
            "_verdict": text("verdict").unwrap_or_default(),
        });
        let mut entry = entry;
        if let Value::Object(entry) = &mut entry {
            if let Some((_, line)) = &open.refused {
                entry.insert("comment".to_owned(), json!(line));
            }
            if open.is_unmasked {
                entry.insert("_unmasked".to_owned(), json!(true));
            }
            if !open.messages.is_empty() {
                let messages = Value::Array(open.messages.clone());
                entry.insert("_webSocketMessages".to_owned(), messages);
                entry.insert("_resourceType".to_owned(), json!("websocket"));
            }
        }
        format!("{comma}\n{entry}")
    }
}

fn named(pairs: Vec<(String, String)>) -> Value {
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value}));
    Value::Array(pairs.collect())
}

fn request(open: &Open, version: &str) -> Value {
    let command = &open.command;
    let text = |name: &str| command.get(name).and_then(Value::as_str);
    let query = pairs(command, "query");
    // A record without commands has no more than that.
    let url =
        url(command).unwrap_or_else(|| format!("https://{}/", text("host").unwrap_or_default()));
    let mut request = Map::new();
    let mut put = |name: &str, value: Value| {
        request.insert(name.to_owned(), value);
    };
    let method = text("method").or_else(|| open.line.split(' ').next());
    put("method", json!(method.unwrap_or("GET")));
    put("url", json!(url));
    put("httpVersion", json!(version));
    put("cookies", json!([]));
    put("headers", named(pairs(command, "headers")));
    put("queryString", named(query));
    put("headersSize", json!(-1));
    put("bodySize", json!(open.input.bytes.len()));
    if !open.input.bytes.is_empty() {
        let (body, coding) = open.input.text();
        let kind = text("content_type").unwrap_or("application/octet-stream");
        let mut data = json!({"mimeType": kind, "text": body, "params": []});
        if let Value::Object(data) = &mut data {
            if let Some(coding) = coding {
                data.insert("_encoding".to_owned(), json!(coding));
            }
            if let Some(comment) = open.input.comment() {
                data.insert("comment".to_owned(), json!(comment));
            }
        }
        put("postData", data);
    }
    Value::Object(request)
}

fn response(open: &Open, answer: &Value, status: u64) -> Value {
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let reason = u16::try_from(status)
        .ok()
        .and_then(|status| ::http::StatusCode::from_u16(status).ok())
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let headers = pairs(answer, "headers");
    let redirect = headers
        .iter()
        .find(|(name, _)| name == "location")
        .map_or(String::new(), |(_, value)| value.clone());
    let (body, coding) = open.output.text();
    let mut content = Map::new();
    let size = open.output.bytes.len() as u64 + open.output.left_out;
    content.insert("size".to_owned(), json!(size));
    let kind = text("content_type").unwrap_or("x-unknown");
    content.insert("mimeType".to_owned(), json!(kind));
    if !open.output.bytes.is_empty() {
        content.insert("text".to_owned(), json!(body));
        if let Some(coding) = coding {
            content.insert("encoding".to_owned(), json!(coding));
        }
    }
    if let Some(comment) = open.output.comment() {
        content.insert("comment".to_owned(), json!(comment));
    }
    let bytes = answer.get("bytes").and_then(Value::as_u64);
    json!({
        "status": status,
        "statusText": reason,
        "httpVersion": text("version").unwrap_or("HTTP/1.1"),
        "cookies": [],
        "headers": named(headers),
        "content": content,
        "redirectURL": redirect,
        "headersSize": -1,
        "bodySize": bytes.map_or(json!(-1), |bytes| json!(bytes)),
    })
}

fn message(entry: &Entry, time: &str) -> Value {
    let text = entry.meta_text("websocket") == Some("text");
    let kind = if entry.kind == "input" {
        "send"
    } else {
        "receive"
    };
    let data = if text {
        String::from_utf8_lossy(&entry.data).into_owned()
    } else {
        base64::engine::general_purpose::STANDARD.encode(&entry.data)
    };
    json!({"type": kind, "time": time, "opcode": if text { 1 } else { 2 }, "data": data})
}

/// Milliseconds since 1970 as `2026-01-31T12:00:00.000Z`.
fn iso_8601(millis: i64) -> String {
    let (days, of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin
    // in March, and eras have 400 of them.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (seconds, rest) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{rest:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FlowTime;

    fn entry(at: u64, kind: &str, exchange: Option<u64>, data: &[u8], meta: Value) -> Entry {
        Entry {
            at: FlowTime(at),
            kind: kind.to_owned(),
            exchange,
            data: data.to_vec(),
            meta,
            line: format!("a {kind}"),
            ..Entry::default()
        }
    }

    fn archive(entries: &[Entry]) -> Value {
        let mut har = Har::new("s");
        let mut text = har.header();
        for entry in entries {
            text.push_str(&har.push(entry));
        }
        text.push_str(&har.finish());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn command() -> Value {
        json!({
            "method": "POST", "url": "https://a.example/x", "version": "HTTP/2", "verdict": "allow",
            "query": [["a b", "c&d"]], "headers": [["x", "1"], ["x", "2"]], "content_type": "text/plain",
        })
    }

    #[test]
    fn an_exchange_becomes_an_entry_with_everything_that_the_format_asks_for() {
        let log = archive(&[
            entry(
                0,
                "open",
                None,
                b"",
                json!({"at_wall_ms": 1_700_000_000_000_i64}),
            ),
            entry(5000, "command", Some(1), b"", command()),
            entry(5000, "input", Some(1), b"sent", json!({"part": 1})),
            entry(9000, "output", Some(1), b"go", json!({"part": 1})),
            entry(
                9000,
                "result",
                Some(1),
                b"t",
                json!({
                    "status": 200, "version": "HTTP/2", "headers": [["location", "/y"]], "bytes": 3,
                    "first_byte_us": 1000, "duration_us": 3500, "waited_us": 500, "content_type": "text/html",
                }),
            ),
        ]);
        let log = &log["log"];
        assert_eq!(log["version"], "1.2");
        let one = &log["entries"][0];
        assert_eq!(one["startedDateTime"], "2023-11-14T22:13:20.005Z");
        assert_eq!(one["request"]["url"], "https://a.example/x?a%20b=c%26d");
        assert_eq!(one["request"]["headers"].as_array().unwrap().len(), 2);
        assert_eq!(one["request"]["postData"]["text"], "sent");
        assert_eq!(one["response"]["content"]["text"], "got");
        assert_eq!(one["response"]["redirectURL"], "/y");
        assert_eq!(one["response"]["status"], 200);
        assert_eq!(
            one["timings"],
            json!({"blocked": 0.5, "send": 0, "wait": 1.0, "receive": 2.5})
        );
        assert_eq!(one["time"], 4.0);
        let asked = [
            "method",
            "url",
            "httpVersion",
            "cookies",
            "headers",
            "queryString",
            "headersSize",
            "bodySize",
        ];
        assert!(asked.iter().all(|name| one["request"].get(name).is_some()));
        let told = [
            "status",
            "statusText",
            "httpVersion",
            "cookies",
            "headers",
            "content",
            "redirectURL",
            "headersSize",
            "bodySize",
        ];
        assert!(told.iter().all(|name| one["response"].get(name).is_some()));
    }

    #[test]
    fn what_is_no_text_is_coded_and_said_to_be() {
        let log = archive(&[
            entry(0, "command", Some(1), b"", command()),
            entry(0, "output", Some(1), b"\xff\xfe", json!({"part": 1})),
            entry(0, "result", Some(1), b"", json!({"status": 200})),
        ]);
        let content = &log["log"]["entries"][0]["response"]["content"];
        assert_eq!(
            (&content["text"], &content["encoding"]),
            (&json!("//4="), &json!("base64"))
        );
    }

    #[test]
    fn a_refused_exchange_and_one_without_an_end_are_entries_too() {
        let log = archive(&[
            entry(0, "command", Some(1), b"", command()),
            entry(0, "verdict", Some(1), b"", json!({"verdict": "block"})),
            entry(0, "command", Some(2), b"", command()),
        ]);
        let entries = log["log"]["entries"].as_array().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0]["response"]["status"], 403);
        assert_eq!(entries[1]["response"]["status"], 0);
    }

    #[test]
    fn an_archive_of_nothing_is_valid() {
        assert_eq!(archive(&[])["log"]["entries"], json!([]));
    }

    #[test]
    fn days_are_counted_as_calendars_do() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400_001, "2100-03-01T00:00:00.001Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(iso_8601(millis), text);
        }
    }
}
