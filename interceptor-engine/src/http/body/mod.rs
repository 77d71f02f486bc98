//! Bodies of requests, and what they say.
//!
//! * [`coding`] opens content codings;
//! * [`form`] and [`multipart`] read forms, the policy crate's `Json` reads JSON;
//! * [`graphql`], [`rpc`] and [`model`] find the operations in them, and
//!   [`model_answer`] what a model answers.
//!
//! What a body is, its content type says; where that is missing or means nothing,
//! what looks like JSON is read as JSON, since servers do so. What cannot be read
//! is said to be so, and is for the rules to refuse.

pub mod coding;
pub mod form;
pub mod graphql;
pub mod model;
pub(super) mod model_answer;
pub mod multipart;
pub mod rpc;

use std::sync::Arc;

use ::http::HeaderMap;
use interceptor_policy::operation::http::{HttpBody, HttpRequest, Json};

use super::head;
pub use model::ModelCall;

/// What a body says beside what rules see of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Ids of the JSON-RPC requests in it.
    pub rpc: Option<rpc::Ids>,
    /// The call of a model, where it is one.
    pub model: Option<ModelCall>,
}

/// What a content type makes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Lines,
    Form,
    Multipart,
    GraphQl,
    Other,
}

fn kind(content_type: Option<&str>) -> Kind {
    match content_type {
        Some("application/x-www-form-urlencoded") => Kind::Form,
        Some("multipart/form-data" | "multipart/mixed" | "multipart/related") => Kind::Multipart,
        Some("application/graphql") => Kind::GraphQl,
        Some(
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/jsonlines"
            | "application/x-jsonlines"
            | "application/json-seq",
        ) => Kind::Lines,
        Some(kind)
            if kind == "application/json" || kind == "text/json" || kind.ends_with("+json") =>
        {
            Kind::Json
        }
        _ => Kind::Other,
    }
}

/// A document that has members or items; a mere number or word may as well be
/// something else.
fn document(bytes: &[u8]) -> Option<Json> {
    Json::parse(bytes).filter(|json| matches!(json, Json::Object(_) | Json::List(_)))
}

/// Whether it looks like JSON in an encoding of two or four bytes a character,
/// which some readers find out by themselves.
fn is_wide_json(bytes: &[u8]) -> bool {
    let start = bytes.get(..4).unwrap_or(bytes);
    let wide = matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) || start.contains(&0);
    let visible = bytes.iter().take(8).find(|byte| byte.is_ascii_graphic());
    wide && matches!(visible, Some(b'{' | b'[' | b'"'))
}

/// Puts into `request` what its whole, opened body says.
pub fn read(request: &mut HttpRequest, headers: &HeaderMap, bytes: &[u8]) -> Said {
    let mut said = Said::default();
    if bytes.is_empty() {
        request.body = HttpBody::Absent;
        return said;
    }
    if headers.get_all(::http::header::CONTENT_TYPE).iter().count() > 1 {
        request.body = HttpBody::Unreadable("it says twice what it is");
        return said;
    }
    if is_wide_json(bytes) {
        request.body = HttpBody::Unreadable("it is JSON in another encoding than UTF-8");
        return said;
    }
    let content_type = request.content_type.clone();
    let kind = kind(content_type.as_deref());
    request.body = match kind {
        Kind::Json => match Json::parse(bytes) {
            Some(document) => HttpBody::Json(vec![document]),
            // Called something else, it need not be JSON.
            None if content_type
                .as_deref()
                .is_none_or(|kind| !kind.contains("json")) =>
            {
                HttpBody::Bytes(bytes.into())
            }
            None => HttpBody::Unreadable("it is not the JSON that it says"),
        },
        Kind::Lines => {
            // RFC 7464: a record separator before each.
            let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0x1e).collect();
            match Json::parse_lines(&text) {
                Some(documents) => HttpBody::Json(documents),
                None => HttpBody::Unreadable("it is not the lines of JSON that it says"),
            }
        }
        Kind::Form => match (document(bytes), form::decode_body(bytes)) {
            // Many servers read JSON whatever it is called.
            (Some(document), _) => HttpBody::Json(vec![document]),
            (None, Some(pairs)) => HttpBody::Form(pairs),
            (None, None) => HttpBody::Unreadable("it is a form of too many fields"),
        },
        Kind::Multipart => {
            let boundary = head::media_parameter(headers, "boundary");
            match boundary.and_then(|boundary| multipart::fields(bytes, &boundary)) {
                Some(fields) => HttpBody::Form(fields),
                None => HttpBody::Unreadable("it is not the form in parts that it says"),
            }
        }
        // Many servers read JSON whatever it is called.
        Kind::Other => match Json::parse_lines(bytes) {
            Some(documents) if !documents.is_empty() => HttpBody::Json(documents),
            _ => HttpBody::Bytes(bytes.into()),
        },
        Kind::GraphQl => HttpBody::Bytes(bytes.into()),
    };
    if kind == Kind::GraphQl {
        let text = String::from_utf8_lossy(bytes);
        graphql_of(request, &[(text.into_owned(), None)]);
    }
    if let HttpBody::Json(documents) = &request.body {
        let asked = graphql::requests(documents);
        said.rpc = rpc::ids(documents);
        said.model = model::call(&request.paths, documents);
        request.mcp = rpc::messages(documents);
        if !asked.is_empty() {
            graphql_of(request, &asked);
        } else if is_graphql_path(request) && said.rpc.is_none() {
            request.body = HttpBody::Unreadable("it is GraphQL without its document");
        }
    }
    said
}

fn is_graphql_path(request: &HttpRequest) -> bool {
    request.paths.iter().any(|path| path.ends_with("/graphql"))
}

/// Reads GraphQL documents, each with the name of the operation that is chosen.
/// Text that is no document is GraphQL only where the path says that it is.
fn graphql_of(request: &mut HttpRequest, asked: &[(String, Option<String>)]) {
    let says_so =
        is_graphql_path(request) || request.content_type.as_deref() == Some("application/graphql");
    for (document, chosen) in asked {
        match graphql::operations(document, chosen.as_deref()) {
            Some(operations) => request.graphql.extend(operations),
            None if says_so => {
                request.body = HttpBody::Unreadable("it is GraphQL that cannot be read");
            }
            None => {}
        }
    }
}

/// What rules see of a request whose body, where there is one, is whole; without
/// a session: for tests of rules, and for who explains them.
#[must_use]
pub fn read_request(head: &::http::request::Parts, body: Option<&[u8]>) -> HttpRequest {
    /// As a session has it where nothing else is said.
    const LIMIT: u64 = 1 << 20;
    let mut request = head::request(head, body.is_none(), false);
    read_query(&mut request);
    let Some(body) = body else {
        return request;
    };
    request.size = Some(body.len() as u64);
    let opened = coding::Decoder::new(&head.headers, LIMIT).and_then(|mut decoder| {
        let mut opened = Vec::new();
        decoder.push(body, &mut opened)?;
        decoder.finish(&mut opened).map(|()| opened)
    });
    match opened {
        Ok(opened) => {
            read(&mut request, &head.headers, &opened);
        }
        Err(error) => request.body = HttpBody::Unreadable(error.why()),
    }
    request
}

/// GraphQL in a query: `GET /graphql?query=…`.
pub fn read_query(request: &mut HttpRequest) {
    if !is_graphql_path(request) {
        return;
    }
    let of = |name: &str| -> Vec<String> {
        let named = request.query.iter().filter(|(key, _)| &**key == name);
        named.map(|(_, value)| value.to_string()).collect()
    };
    let (documents, names) = (of("query"), of("operationName"));
    let chosen = match names.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    };
    let asked: Vec<_> = documents
        .into_iter()
        .map(|document| (document, chosen.clone()))
        .collect();
    graphql_of(request, &asked);
}

/// A text as a name or value that rules look at.
pub(super) fn shared(text: &str) -> Arc<str> {
    Arc::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;

    fn body(headers: &[(&str, &str)], bytes: &[u8]) -> HttpBody {
        let mut builder = Request::builder().method("POST").uri("http://a.example/x");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        read_request(&head, Some(bytes)).body
    }

    #[test]
    fn json_is_json_whatever_it_is_called() {
        let json = br#"{"a":1}"#;
        for kind in [
            "application/json",
            "text/plain",
            "application/x-www-form-urlencoded",
            "x/y",
        ] {
            let read = body(&[("content-type", kind)], json);
            assert!(matches!(read, HttpBody::Json(_)), "{kind}: {read:?}");
        }
        assert!(matches!(body(&[], json), HttpBody::Json(_)));
        let form = [("content-type", "application/x-www-form-urlencoded")];
        assert!(matches!(body(&form, b"a=1"), HttpBody::Form(_)));
        assert!(matches!(body(&form, b"1"), HttpBody::Form(_)));
        assert!(matches!(body(&[], b"plain"), HttpBody::Bytes(_)));
    }

    #[test]
    fn what_two_readers_would_read_differently_cannot_be_read() {
        let twice = [
            ("content-type", "text/plain"),
            ("content-type", "application/json"),
        ];
        assert!(matches!(body(&twice, b"{}"), HttpBody::Unreadable(_)));
        let wide: Vec<u8> = "{\"a\":1}"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert!(matches!(body(&[], &wide), HttpBody::Unreadable(_)));
        let json = [("content-type", "application/json")];
        assert!(matches!(body(&json, b"{a:1}"), HttpBody::Unreadable(_)));
        let coded = [("content-encoding", "gzip")];
        assert!(matches!(body(&coded, b"no gzip"), HttpBody::Unreadable(_)));
    }

    #[test]
    fn lines_of_json_are_several_documents() {
        let kind = [("content-type", "application/x-ndjson")];
        let HttpBody::Json(documents) = body(&kind, b"{\"a\":1}\n{\"a\":2}\n") else {
            panic!("no JSON");
        };
        assert_eq!(documents.len(), 2);
    }

    #[test]
    fn graphql_is_read_of_bodies_and_of_queries() {
        let read = |uri: &str, text: Option<&[u8]>| {
            let builder = Request::builder()
                .uri(uri)
                .header("content-type", "application/json");
            let (head, ()) = builder.body(()).unwrap().into_parts();
            let request = read_request(&head, text);
            let fields = request.graphql.iter().flat_map(|one| one.fields.clone());
            (
                fields.map(|field| field.to_string()).collect::<Vec<_>>(),
                request.body,
            )
        };
        let (fields, _) = read("http://a/api", Some(br#"{"query":"{ a { b } }"}"#));
        assert_eq!(fields, ["a", "a.b"]);
        let (fields, _) = read("http://a/graphql?query=%7B%20a%20%7D", None);
        assert_eq!(fields, ["a"]);
        // Not GraphQL, and nothing says that it is.
        let (fields, other) = read("http://a/api", Some(br#"{"query":"select 1"}"#));
        assert!(fields.is_empty() && matches!(other, HttpBody::Json(_)));
        for text in [r#"{"query":"select 1"}"#, r#"{"id":"persisted"}"#] {
            let (_, unread) = read("http://a/graphql", Some(text.as_bytes()));
            assert!(matches!(unread, HttpBody::Unreadable(_)), "{text}");
        }
    }
}
