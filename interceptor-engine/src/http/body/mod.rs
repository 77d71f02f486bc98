//! Bodies of requests, and what they say.
//!
//! * [`coding`] opens content codings;
//! * [`form`] and [`multipart`] read forms, the policy crate's `Json` reads JSON;
//! * [`graphql`], [`rpc`] and [`model`] find the operations in them.
//!
//! What a body is, its content type says; where that is missing or means nothing,
//! what looks like JSON is read as JSON, since servers do so. What cannot be read
//! is said to be so, and is for the rules to refuse.

pub mod coding;
pub mod form;
pub mod graphql;
pub mod model;
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

/// Puts into `request` what its whole, opened body says.
pub fn read(request: &mut HttpRequest, headers: &HeaderMap, bytes: &[u8]) -> Said {
    let mut said = Said::default();
    if bytes.is_empty() {
        request.body = HttpBody::Absent;
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
        Kind::Form => match form::decode_body(bytes) {
            Some(pairs) => HttpBody::Form(pairs),
            None => HttpBody::Unreadable("it is a form of too many fields"),
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
