//! A request as a person writes it down, for tests and explanations of rules.
//!
//! It is read here as traffic is, with a small reader of URLs, forms and calls;
//! content codings and multipart bodies are not: a body is the text that it is.

use std::sync::Arc;

use super::http::{GrpcCall, HttpBody, HttpRequest, HttpResponse, Json, McpMessage};
use super::path;

/// A request, and perhaps its response's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// `POST`; `GET` where nothing is said.
    pub method: String,
    /// The authority, a port included.
    pub host: String,
    /// The path as it is sent, with the query.
    pub path: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body's text.
    pub body: Option<String>,
    /// Whether the host is not the one that was connected to.
    pub host_mismatch: bool,
    /// The response's status and headers.
    pub response: Option<(u16, Vec<(String, String)>)>,
}

impl Sample {
    /// Reads `https://host/path?query`; whether it was one.
    pub fn set_url(&mut self, url: &str) -> bool {
        let schemes = ["https://", "http://", "wss://", "ws://"];
        let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
        let Some(rest) = rest else {
            return false;
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        host.clone_into(&mut self.host);
        self.path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        !host.is_empty()
    }

    /// The request as rules see it.
    #[must_use]
    pub fn request(&self) -> HttpRequest {
        let headers = lowered(&self.headers);
        let (raw, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let named = |name: &str| header(&headers, name);
        let content_type = media_type(named("content-type"));
        let body = match &self.body {
            None => HttpBody::Absent,
            Some(text) => body(text, content_type.as_deref()),
        };
        let websocket = named("upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
        let path = self.path.as_str();
        let is_grpc = content_type
            .as_deref()
            .is_some_and(|kind| kind.starts_with("application/grpc"));
        HttpRequest {
            method: match self.method.as_str() {
                "" => "GET".into(),
                method => method.into(),
            },
            host: bare_host(&self.host).into(),
            host_mismatch: self.host_mismatch,
            paths: path::readings(raw),
            query: pairs(query),
            size: Some(self.body.as_ref().map_or(0, String::len) as u64),
            grpc: is_grpc.then(|| grpc(path)).flatten(),
            graphql: Vec::new(),
            mcp: match &body {
                HttpBody::Json(documents) => documents.iter().flat_map(mcp).collect(),
                _ => Vec::new(),
            },
            websocket,
            content_type,
            headers,
            body,
        }
    }

    /// The response's head, where there is one.
    #[must_use]
    pub fn response(&self) -> Option<HttpResponse> {
        let (status, headers) = self.response.as_ref()?;
        let headers = lowered(headers);
        Some(HttpResponse {
            status: *status,
            content_type: media_type(header(&headers, "content-type")),
            size: header(&headers, "content-length").and_then(|size| size.parse().ok()),
            headers,
        })
    }
}

type Pairs = Vec<(Arc<str>, Arc<str>)>;

fn lowered(headers: &[(String, String)]) -> Pairs {
    headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase().into(), value.trim().into()))
        .collect()
}

fn header<'h>(headers: &'h Pairs, name: &str) -> Option<&'h str> {
    let found = headers.iter().find(|(known, _)| **known == *name);
    found.map(|(_, value)| &**value)
}

fn media_type(value: Option<&str>) -> Option<Arc<str>> {
    let bare = value?.split(';').next()?.trim();
    Some(bare.to_ascii_lowercase().into())
}

/// Without user, port and final dot, in lower case.
fn bare_host(authority: &str) -> String {
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn body(text: &str, content_type: Option<&str>) -> HttpBody {
    if content_type == Some("application/x-www-form-urlencoded") {
        return HttpBody::Form(pairs(text));
    }
    match Json::parse_lines(text.as_bytes()) {
        Some(documents) if !documents.is_empty() => HttpBody::Json(documents),
        _ if content_type.is_some_and(|kind| kind.contains("json")) => {
            HttpBody::Unreadable("it is no JSON")
        }
        _ => HttpBody::Bytes(text.as_bytes().into()),
    }
}

/// Names and values of a query or a form, decoded.
fn pairs(text: &str) -> Pairs {
    let parts = text.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let decoded = |text: &str| path::decoded(&text.replace('+', " "));
            (decoded(name).into(), decoded(value).into())
        })
        .collect()
}

fn grpc(path: &str) -> Option<GrpcCall> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    Some(GrpcCall {
        service: service.into(),
        method: method.into(),
    })
}

/// The JSON-RPC messages of a document, a batch's each.
fn mcp(json: &Json) -> Vec<McpMessage> {
    let batch = match json {
        Json::List(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let messages = batch
        .iter()
        .filter(|message| message.at("jsonrpc").next().is_some());
    messages
        .map(|message| {
            let called = || message.at("params");
            let tools = called().flat_map(|params| params.at("name").filter_map(Json::text));
            let method = message.at("method").filter_map(Json::text).last();
            let is_call = method == Some("tools/call");
            McpMessage {
                method: method.unwrap_or_default().into(),
                tool: match is_call {
                    true => tools.map(Into::into).collect(),
                    false => Vec::new(),
                },
                arguments: called()
                    .flat_map(|params| params.at("arguments"))
                    .last()
                    .cloned()
                    .unwrap_or(Json::Null),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Sample {
        let mut sample = Sample::default();
        assert!(sample.set_url(url), "{url}");
        sample
    }

    #[test]
    fn a_url_is_host_path_and_query() {
        let request = of("https://me@API.example.com.:8443/a/../b?x=1&x=%32+3&y").request();
        assert_eq!(&*request.method, "GET");
        assert_eq!(&*request.host, "api.example.com");
        assert_eq!(&*request.paths[0], "/b");
        let query: Vec<_> = request.query.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(query, [("x", "1"), ("x", "2 3"), ("y", "")]);
        assert_eq!(&*of("http://[::1]:80?q=1").request().host, "::1");
        assert_eq!(of("http://h?q=1").path, "/?q=1");
        assert!(!Sample::default().set_url("/path") && !Sample::default().set_url("http:///"));
    }

    #[test]
    fn a_body_is_what_its_type_says_and_json_wherever_it_is_json() {
        let with = |kind: Option<&str>, text: &str| {
            let mut sample = of("http://h/");
            let kind = kind.map(|kind| ("Content-Type".to_owned(), kind.to_owned()));
            sample.headers.extend(kind);
            sample.body = Some(text.to_owned());
            sample.request().body
        };
        assert!(matches!(with(None, "{}"), HttpBody::Json(_)));
        assert!(
            matches!(with(Some("text/plain"), "{}\n{}"), HttpBody::Json(all) if all.len() == 2)
        );
        assert!(matches!(
            with(Some("application/json; charset=utf-8"), "{"),
            HttpBody::Unreadable(_)
        ));
        assert!(matches!(
            with(Some("text/plain"), "hello"),
            HttpBody::Bytes(_)
        ));
        let form = with(Some("application/x-www-form-urlencoded"), "a=1&b=%26");
        assert!(matches!(form, HttpBody::Form(fields) if &*fields[1].1 == "&"));
        assert_eq!(of("http://h/").request().body, HttpBody::Absent);
    }

    #[test]
    fn calls_are_seen() {
        let mut sample = of("http://h/helloworld.Greeter/SayHello");
        sample
            .headers
            .push(("content-type".into(), "application/grpc+proto".into()));
        let call = sample.request().grpc.unwrap();
        assert_eq!(
            (&*call.service, &*call.method),
            ("helloworld.Greeter", "SayHello")
        );
        let mut sample = of("http://h/mcp");
        sample.body = Some(
            r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b","arguments":{"x":1}}},
                {"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"name":"c"}}]"#
                .into(),
        );
        let mcp = sample.request().mcp;
        assert_eq!(mcp.len(), 2);
        assert_eq!(mcp[0].tool.len(), 2);
        assert!(mcp[0].arguments.at("x").next().is_some());
        assert!(mcp[1].tool.is_empty());
    }
}
