//! Heads: what rules see of them, and what of them goes on.
//!
//! Spec: RFC 9110, sections 7.2 (`Host`), 7.6.1 (`Connection`) and 8.3 (media
//! types); RFC 9113, section 8.3.1 (`:authority`); RFC 6455 and RFC 8441 (what a
//! WebSocket's opening looks like).

use std::sync::Arc;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::uri::{Authority, Uri};
use ::http::{Method, request, response};
use interceptor_policy::operation::http::{GrpcCall, HttpBody, HttpRequest, HttpResponse};
use interceptor_policy::operation::path;
use interceptor_proto::http::Authority as Read;

use super::body::form;

/// Fields that are of one hop, beside those that `Connection` names.
const HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Fields that say where a message ends or goes, what it is, or who sends it: a
/// reader that takes trailers for fields would believe them.
pub(super) const NOT_IN_TRAILERS: [HeaderName; 12] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::EXPECT,
    header::RANGE,
    header::MAX_FORWARDS,
    HeaderName::from_static("x-http-method-override"),
];

/// The host and port that a request is for: lower case, without a final dot.
/// `None` where it names none, or one that is no host.
#[must_use]
pub fn host_of(head: &request::Parts) -> Option<(Arc<str>, Option<u16>)> {
    let field;
    let text = match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => {
            field = head.headers.get(header::HOST)?;
            field.to_str().ok()?
        }
    };
    let read = Read::parse(text.as_bytes())?;
    let name = std::str::from_utf8(read.name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| (name.to_ascii_lowercase().into(), read.port))
}

/// The media type, lower case, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<Arc<str>> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = value.split(';').next()?.trim();
    (!kind.is_empty()).then(|| kind.to_ascii_lowercase().into())
}

/// A parameter of the media type.
pub(super) fn media_parameter(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        let is = key.trim().eq_ignore_ascii_case(name);
        is.then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

fn fields(headers: &HeaderMap) -> Vec<(Arc<str>, Arc<str>)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (Arc::from(name.as_str()), Arc::from(&*value))
        })
        .collect()
}

fn lists(headers: &HeaderMap, name: &HeaderName, element: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| one.trim().eq_ignore_ascii_case(element))
}

/// Whether it asks for a WebSocket, in HTTP/1's way or in HTTP/2's.
pub(super) fn wants_websocket(head: &request::Parts) -> bool {
    let upgrades = lists(&head.headers, &header::CONNECTION, "upgrade")
        && lists(&head.headers, &header::UPGRADE, "websocket");
    // RFC 8441; the shell hands `:protocol` on as an extension, and hyper only
    // where it was asked to.
    upgrades && head.method == Method::GET
}

/// Whether it is a call of gRPC.
pub(super) fn is_grpc(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|kind| kind.starts_with("application/grpc"))
}

/// What rules see of a request, before its body is read.
pub(super) fn request(head: &request::Parts, ended: bool, host_mismatch: bool) -> HttpRequest {
    let content_type = media_type(&head.headers);
    let raw_path = head.uri.path();
    let grpc = is_grpc(content_type.as_deref())
        .then(|| grpc_call(raw_path))
        .flatten();
    let size = length(&head.headers);
    HttpRequest {
        method: head.method.as_str().into(),
        host: host_of(head).map_or_else(|| "".into(), |(host, _)| host),
        host_mismatch,
        paths: path::readings(raw_path),
        query: head.uri.query().map(form::decode).unwrap_or_default(),
        headers: fields(&head.headers),
        content_type,
        size: if ended { Some(0) } else { size },
        body: if ended {
            HttpBody::Absent
        } else {
            HttpBody::Unread
        },
        grpc,
        graphql: Vec::new(),
        mcp: Vec::new(),
        websocket: wants_websocket(head),
    }
}

fn grpc_call(path: &str) -> Option<GrpcCall> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    Some(GrpcCall {
        service: service.into(),
        method: method.into(),
    })
}

/// What rules see of a response.
pub(super) fn response(head: &response::Parts) -> HttpResponse {
    HttpResponse {
        status: head.status.as_u16(),
        headers: fields(&head.headers),
        content_type: media_type(&head.headers),
        size: length(&head.headers),
    }
}

/// Takes off what is of one hop.
pub(super) fn drop_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Where a message ends and what it is for is said by no hop alone; to
        // name them there only serves to have them dropped.
        .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH))
        .collect();
    let trailers = lists(headers, &header::TE, "trailers");
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Puts a WebSocket's wish back that is of this hop as well.
pub(super) fn wish_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// The request's URI with scheme and authority; and `host` to go with it.
pub(super) fn make_absolute(head: &mut request::Parts, tls: bool) -> bool {
    let authority = match head.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => head
            .headers
            .get(header::HOST)
            .and_then(|host| Authority::try_from(host.as_bytes()).ok()),
    };
    let Some(authority) = authority else {
        return false;
    };
    let Ok(host) = HeaderValue::from_str(authority.as_str()) else {
        return false;
    };
    if head.method == Method::CONNECT {
        head.headers.insert(header::HOST, host);
        return true;
    }
    let path = head
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let built = Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(authority)
        .path_and_query(path)
        .build();
    let Ok(uri) = built else {
        return false;
    };
    head.uri = uri;
    head.headers.insert(header::HOST, host);
    true
}
