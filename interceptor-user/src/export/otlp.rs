//! To a collector of OpenTelemetry: OTLP over HTTP, with JSON as its body.
//!
//! Spec: OTLP 1.x, "OTLP/HTTP"; the fields are those of `opentelemetry/proto/logs/v1`, in the
//! JSON mapping of proto3: 64-bit numbers are strings, ids are hexadecimal.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::event::{Exported, Level};
use super::{SendError, Sink};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The variable in which the specification has headers, such as credentials.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// A collector.
pub struct Otlp {
    url: String,
    headers: HeaderMap,
    client: reqwest::Client,
    runtime: Runtime,
}

impl Otlp {
    /// One at `url`; `/v1/logs` is added where it is not there. Headers come from the
    /// environment, where the specification has them.
    ///
    /// # Errors
    /// When something of it makes no sense.
    pub fn new(url: &str) -> Result<Self, SendError> {
        let never = |why: String| SendError::Never(why);
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(never(format!(
                "{url:?} is no address: for example http://localhost:4318"
            )));
        }
        let url = match url.trim_end_matches('/') {
            url if url.ends_with("/v1/logs") => url.to_owned(),
            url => format!("{url}/v1/logs"),
        };
        let mut headers = HeaderMap::new();
        for pair in std::env::var(HEADERS).unwrap_or_default().split(',') {
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            let name = HeaderName::try_from(name.trim());
            let value = HeaderValue::try_from(value.trim());
            let (Ok(name), Ok(mut value)) = (name, value) else {
                return Err(never(format!("{HEADERS} has something that is no header")));
            };
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| never(error.to_string()))?;
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| never(error.to_string()))?;
        Ok(Self {
            url,
            headers,
            client,
            runtime,
        })
    }
}

impl Sink for Otlp {
    fn send(&mut self, events: &[Exported]) -> Result<(), SendError> {
        let request = self
            .client
            .post(&self.url)
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(request(events).to_string());
        self.runtime.block_on(async {
            let answer = request.send().await;
            // Without the URL, which may have credentials in it.
            let answer =
                answer.map_err(|error| SendError::Later(error.without_url().to_string()))?;
            let status = answer.status();
            if status.is_success() {
                let body = answer.bytes().await.unwrap_or_default();
                return match rejected(&body) {
                    0 => Ok(()),
                    count => Err(SendError::Never(format!(
                        "the collector refused {count} of {} events",
                        events.len()
                    ))),
                };
            }
            let wait = answer.headers().get(RETRY_AFTER);
            let wait = wait.and_then(|wait| wait.to_str().ok()?.parse::<u64>().ok());
            let why = format!("the collector answered {status}");
            // The specification's list of what may be tried again.
            if matches!(status.as_u16(), 429 | 502 | 503 | 504) {
                if let Some(wait) = wait {
                    tokio::time::sleep(Duration::from_secs(wait.min(60))).await;
                }
                return Err(SendError::Later(why));
            }
            Err(SendError::Never(why))
        })
    }

    fn name(&self) -> String {
        format!("otlp {}", self.url)
    }
}

fn rejected(body: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let count = answer.pointer("/partialSuccess/rejectedLogRecords");
    let number = |count: &Value| count.as_u64().or_else(|| count.as_str()?.parse().ok());
    count.and_then(number).unwrap_or(0)
}

/// `ExportLogsServiceRequest`; a resource for each host.
fn request(events: &[Exported]) -> Value {
    let mut by_host: Vec<(&str, Vec<Value>)> = Vec::new();
    for event in events {
        let host = event.whose.host.as_str();
        match by_host.iter_mut().find(|(known, _)| *known == host) {
            Some((_, records)) => records.push(record(event)),
            None => by_host.push((host, vec![record(event)])),
        }
    }
    let resources = by_host.into_iter().map(|(host, records)| {
        json!({
            "resource": { "attributes": [
                text("service.name", "interceptor"),
                text("host.name", host),
            ] },
            "scopeLogs": [{
                "scope": { "name": "interceptor", "version": env!("CARGO_PKG_VERSION") },
                "logRecords": records,
            }],
        })
    });
    json!({ "resourceLogs": resources.collect::<Vec<_>>() })
}

fn record(event: &Exported) -> Value {
    let (number, word) = match event.level() {
        Level::Info => (9, "INFO"),
        Level::Notice => (10, "INFO2"),
        Level::Warning => (13, "WARN"),
        Level::Error => (17, "ERROR"),
    };
    let entry = &event.entry;
    let nanos = event.time_us.saturating_mul(1000).to_string();
    let mut attributes = vec![
        text("log.record.uid", &event.id()),
        text("interceptor.session", &event.session),
        number_of("interceptor.seq", entry.seq),
        text("interceptor.kind", &entry.kind),
    ];
    for (name, value) in [
        ("interceptor.agent", &event.whose.agent),
        ("interceptor.target", &event.whose.target),
        ("network.protocol.name", &event.whose.protocol),
        ("interceptor.run", &entry.run),
        ("interceptor.chain", &entry.chain),
    ] {
        if !value.is_empty() {
            attributes.push(text(name, value));
        }
    }
    if let Some(exchange) = entry.exchange {
        attributes.push(number_of("interceptor.exchange", exchange));
    }
    if !entry.meta.is_null() {
        attributes.push(text("interceptor.meta", &entry.meta.to_string()));
    }
    if !entry.data.is_empty() {
        let data = json!({ "bytesValue": event.data_base64() });
        attributes.push(json!({ "key": "interceptor.data", "value": data }));
    }
    if let Some(bytes) = event.cut_from {
        attributes.push(number_of("interceptor.data_bytes", bytes as u64));
    }
    json!({
        "timeUnixNano": nanos,
        "observedTimeUnixNano": nanos,
        "severityNumber": number,
        "severityText": word,
        "eventName": format!("interceptor.{}", entry.kind),
        "body": { "stringValue": entry.line },
        "attributes": attributes,
        // Sixteen bytes: all that happened in a session can be asked for as a trace.
        "traceId": event.session.replace('-', ""),
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number_of(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}
