//! The fields of `http`: what a request asks for, and what was answered.
//!
//! Of what is there in several readings (paths, repeated headers and names of
//! the query, keys that are there twice) one is enough for what is stricter, and
//! all are needed for what is milder. What is certainly not there, a header say,
//! is certainly nothing of what a rule asks for: `{ not: x }` holds of it.
//!
//! Some of it is not known at every moment ([`NotKnown::Yet`]): a body that has
//! not been read, a response that has not come. Some never is: then the rule
//! cannot be evaluated, and that is a block.

pub(crate) mod body;
pub(crate) mod calls;
pub(crate) mod key;

use self::body::BodyMatch;
use self::calls::{GraphQlMatch, GrpcMatch, McpMatch};
use super::session::Number;
use super::text::Text;
use super::{Matcher, Mode};
use crate::operation::http::{HttpBody, HttpOperation, HttpRequest};

/// Why a field has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotKnown {
    /// It may have one later.
    Yet,
    /// It will have none.
    Ever(&'static str),
}

/// A status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Is(u16),
    /// The hundreds: 4 for `4xx`.
    Class(u16),
    Over(u16),
}

impl Status {
    const fn holds(self, status: u16) -> bool {
        match self {
            Self::Is(is) => status == is,
            Self::Class(class) => status / 100 == class,
            Self::Over(over) => status > over,
        }
    }
}

/// What one field asks for. In the order of what it costs to ask.
#[derive(Debug)]
pub(crate) enum Asks {
    HostMismatch(bool),
    Websocket(bool),
    Status(Matcher<Status>),
    Size(Matcher<Number>),
    Method(Matcher<Text>),
    Host(Matcher<Text>),
    ContentType(Matcher<Text>),
    Grpc(GrpcMatch),
    Header(Box<str>, Matcher<Text>),
    ResponseHeader(Box<str>, Matcher<Text>),
    Query(Box<str>, Matcher<Text>),
    Path(Matcher<Text>),
    GraphQl(GraphQlMatch),
    Mcp(McpMatch),
    Body(BodyMatch),
}

/// One field.
#[derive(Debug)]
pub(crate) struct HttpField {
    /// `http.header.accept`
    pub(crate) name: String,
    /// What it asks for, as it was written.
    pub(crate) shown: String,
    pub(crate) asks: Asks,
}

/// Headers by which some services let a request be of another method.
const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// What makes things stricter takes letters of either case for alike.
fn compare(text: &Text, is: &str, mode: Mode) -> bool {
    match mode {
        Mode::May => text.loose(is),
        Mode::Must => text.exact(is),
    }
}

/// Of values that there may be several of, or none.
fn among<'v>(matcher: &Matcher<Text>, mode: Mode, values: impl Iterator<Item = &'v str>) -> bool {
    let mut values = values.peekable();
    match values.peek() {
        None => matcher.holds(mode, &|_, _| false),
        Some(_) => {
            matcher.holds_among(mode, values, |text, value, mode| compare(text, value, mode))
        }
    }
}

/// A header's values; several of them also as the one that a reader may make of
/// them.
fn header(
    matcher: &Matcher<Text>,
    mode: Mode,
    headers: &[(std::sync::Arc<str>, std::sync::Arc<str>)],
    name: &str,
) -> bool {
    let values = || {
        let named = headers.iter().filter(|(known, _)| **known == *name);
        named.map(|(_, value)| &**value)
    };
    if values().nth(1).is_none() {
        return among(matcher, mode, values());
    }
    let joined = values().collect::<Vec<_>>().join(", ");
    among(matcher, mode, values().chain([joined.as_str()]))
}

/// The path, and with a slash at its end or without: to most services the same.
fn path(text: &Text, path: &str, mode: Mode) -> bool {
    match mode {
        Mode::Must => text.exact(path),
        Mode::May => {
            text.loose(path)
                || match path.strip_suffix('/') {
                    Some(bare) => text.loose(bare),
                    None => text.loose(&format!("{path}/")),
                }
        }
    }
}

/// Every method that a service may take it for.
pub(crate) fn methods(request: &HttpRequest) -> impl Iterator<Item = &str> {
    let headers = request.headers.iter();
    let headers = headers.filter(|(name, _)| OVERRIDES.contains(&&**name));
    let query = request
        .query
        .iter()
        .filter(|(name, _)| &**name == "_method");
    let others = headers.chain(query).map(|(_, value)| &**value);
    std::iter::once(&*request.method).chain(others)
}

impl HttpField {
    /// # Errors
    /// Why it is not known.
    pub(crate) fn holds(&self, mode: Mode, of: &HttpOperation<'_>) -> Result<bool, NotKnown> {
        let request = of.request;
        let response = of.response.ok_or(NotKnown::Yet);
        Ok(match &self.asks {
            Asks::HostMismatch(is) => request.host_mismatch == *is,
            Asks::Websocket(is) => request.websocket == *is,
            Asks::Status(matcher) => {
                let status = response?.status;
                matcher.holds(mode, &|leaf, _| leaf.holds(status))
            }
            Asks::ResponseHeader(name, matcher) => header(matcher, mode, &response?.headers, name),
            Asks::Size(matcher) => {
                let size = match (request.size, &request.body) {
                    (Some(size), _) => Some(size),
                    (None, HttpBody::Absent) => Some(0),
                    (None, HttpBody::Unread) => return Err(NotKnown::Yet),
                    (None, HttpBody::Unreadable(why)) => return Err(NotKnown::Ever(why)),
                    (None, _) => None,
                };
                matcher.holds_for(mode, size.as_ref(), |number, size, _| number.holds(*size))
            }
            Asks::Method(matcher) => among(matcher, mode, methods(request)),
            Asks::Host(matcher) => {
                let known = (!request.host.is_empty()).then_some(&*request.host);
                // Host names have no case.
                matcher.holds_for(mode, known, |text, is, _| text.loose(is))
            }
            Asks::ContentType(matcher) => {
                among(matcher, mode, request.content_type.as_deref().into_iter())
            }
            Asks::Header(name, matcher) => header(matcher, mode, &request.headers, name),
            Asks::Query(name, matcher) => {
                let named = request.query.iter().filter(|(known, _)| match mode {
                    Mode::Must => **known == **name,
                    // `name[]` is one of a list to some.
                    Mode::May => {
                        let bare = known.split('[').next().unwrap_or(known);
                        super::pointer::alike(known, name) || super::pointer::alike(bare, name)
                    }
                });
                among(matcher, mode, named.map(|(_, value)| &**value))
            }
            Asks::Path(matcher) => {
                matcher.holds_among(mode, &request.paths, |text, is, mode| path(text, is, mode))
            }
            Asks::Grpc(grpc) => {
                let call = request.grpc.as_ref();
                call.is_some_and(|call| grpc.holds(mode, call))
            }
            Asks::GraphQl(graphql) => {
                unread(request, request.graphql.is_empty())?;
                graphql.holds(mode, &request.graphql)
            }
            Asks::Mcp(mcp) => {
                unread(request, request.mcp.is_empty())?;
                mcp.holds(mode, &request.mcp)
            }
            Asks::Body(body) => match of.message {
                Some(message) => body.holds(mode, &message.body)?,
                None => body.holds(mode, &request.body)?,
            },
        })
    }

    /// Whether it asks for the response.
    pub(crate) const fn asks_response(&self) -> bool {
        matches!(self.asks, Asks::Status(_) | Asks::ResponseHeader(..))
    }

    /// Whether it asks for the body, a WebSocket's messages included.
    pub(crate) const fn asks_body(&self) -> bool {
        matches!(self.asks, Asks::Body(_))
    }

    /// Whether the body has to be read for it to be known.
    fn reads_body(&self, request: &HttpRequest) -> bool {
        match self.asks {
            Asks::Body(_) | Asks::Mcp(_) | Asks::GraphQl(_) => true,
            Asks::Size(_) => request.size.is_none(),
            _ => false,
        }
    }

    /// What the exchange has there, for a person.
    pub(crate) fn is(&self, of: &HttpOperation<'_>) -> String {
        let request = of.request;
        let list = |all: Vec<&str>| match all.as_slice() {
            [] => "not there".to_owned(),
            all => all
                .iter()
                .map(|one| format!("`{one}`"))
                .collect::<Vec<_>>()
                .join(" or "),
        };
        let named = |of: &[(std::sync::Arc<str>, std::sync::Arc<str>)], name: &str| {
            let named = of.iter().filter(|(known, _)| **known == *name);
            list(named.map(|(_, value)| &**value).collect::<Vec<_>>())
        };
        match &self.asks {
            Asks::HostMismatch(_) => request.host_mismatch.to_string(),
            Asks::Websocket(_) => request.websocket.to_string(),
            Asks::Status(_) => match of.response {
                Some(response) => response.status.to_string(),
                None => "not known yet".to_owned(),
            },
            Asks::ResponseHeader(name, _) => match of.response {
                Some(response) => named(&response.headers, name),
                None => "not known yet".to_owned(),
            },
            Asks::Size(_) => match request.size {
                Some(size) => size.to_string(),
                None => "not known".to_owned(),
            },
            Asks::Method(_) => list(methods(request).collect()),
            Asks::Host(_) => list(vec![&request.host]),
            Asks::ContentType(_) => list(request.content_type.as_deref().into_iter().collect()),
            Asks::Header(name, _) => named(&request.headers, name),
            Asks::Query(name, _) => named(&request.query, name),
            Asks::Path(_) => list(request.paths.iter().map(|path| &**path).collect()),
            Asks::Grpc(_) => match &request.grpc {
                Some(call) => format!("{}/{}", call.service, call.method),
                None => "no call".to_owned(),
            },
            Asks::GraphQl(_) => {
                let mut said = Vec::new();
                for operation in &request.graphql {
                    said.push(format!(
                        "{} {} of {}",
                        operation.kind,
                        operation.name.as_deref().unwrap_or("without a name"),
                        operation.fields.join(", ")
                    ));
                }
                match said.is_empty() {
                    true => "no operation".to_owned(),
                    false => said.join(" and "),
                }
            }
            Asks::Mcp(_) => {
                let said: Vec<_> = request
                    .mcp
                    .iter()
                    .map(|message| match message.tool.as_slice() {
                        [] => message.method.to_string(),
                        tools => format!("{} of {}", message.method, tools.join(" or ")),
                    })
                    .collect();
                match said.is_empty() {
                    true => "no message".to_owned(),
                    false => said.join(" and "),
                }
            }
            Asks::Body(_) => {
                let body = of.message.map_or(&request.body, |message| &message.body);
                match body {
                    HttpBody::Absent => "not there".to_owned(),
                    HttpBody::Unread => "not read yet".to_owned(),
                    HttpBody::Unreadable(why) => format!("not to be read ({why})"),
                    HttpBody::Json(_) => "other JSON".to_owned(),
                    HttpBody::Form(_) => "another form".to_owned(),
                    HttpBody::Bytes(_) => "neither JSON nor a form".to_owned(),
                }
            }
        }
    }

    const fn cost(&self) -> u8 {
        match self.asks {
            Asks::HostMismatch(_) => 0,
            Asks::Websocket(_) => 1,
            Asks::Status(_) => 2,
            Asks::Size(_) => 3,
            Asks::Method(_) => 4,
            Asks::Host(_) => 5,
            Asks::ContentType(_) => 6,
            Asks::Grpc(_) => 7,
            Asks::Header(..) => 8,
            Asks::ResponseHeader(..) => 9,
            Asks::Query(..) => 10,
            Asks::Path(_) => 11,
            Asks::GraphQl(_) => 12,
            Asks::Mcp(_) => 13,
            Asks::Body(_) => 14,
        }
    }
}

/// Whether what is found in a body is not known, where nothing was found.
fn unread(request: &HttpRequest, none: bool) -> Result<(), NotKnown> {
    match &request.body {
        HttpBody::Unread if none => Err(NotKnown::Yet),
        HttpBody::Unreadable(why) if none => Err(NotKnown::Ever(why)),
        _ => Ok(()),
    }
}

/// All of them, cheapest first.
#[derive(Debug, Default)]
pub(crate) struct HttpMatch {
    pub(crate) fields: Vec<HttpField>,
}

impl HttpMatch {
    pub(crate) fn new(mut fields: Vec<HttpField>) -> Self {
        fields.sort_by_key(HttpField::cost);
        Self { fields }
    }

    /// # Errors
    /// Why it is not known, where nothing else keeps it from holding.
    pub(crate) fn holds(&self, mode: Mode, of: &HttpOperation<'_>) -> Result<bool, NotKnown> {
        let mut known = Ok(true);
        for field in &self.fields {
            match field.holds(mode, of) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // That it never will be is said before that it is not yet.
                Err(why @ NotKnown::Ever(_)) => known = Err(why),
                Err(NotKnown::Yet) => known = known.and(Err(NotKnown::Yet)),
            }
        }
        known
    }

    /// Whether it may hold for a request of which only the head is known.
    pub(crate) fn may_hold_later(&self, mode: Mode, request: &HttpRequest) -> bool {
        let of = HttpOperation {
            request,
            response: None,
            message: None,
        };
        self.fields
            .iter()
            .filter(|field| !field.asks_response() && !field.reads_body(request))
            .all(|field| field.holds(mode, &of) != Ok(false))
    }

    pub(crate) fn asks_response(&self) -> bool {
        self.fields.iter().any(HttpField::asks_response)
    }

    pub(crate) fn asks_body(&self) -> bool {
        self.fields.iter().any(HttpField::asks_body)
    }

    /// Whether it asks for a WebSocket.
    pub(crate) fn is_of_websockets(&self) -> bool {
        let of = |field: &HttpField| matches!(field.asks, Asks::Websocket(true));
        self.fields.iter().any(of)
    }

    /// Whether the body has to be read for all of it to be known.
    pub(crate) fn reads_body(&self, request: &HttpRequest) -> bool {
        self.fields.iter().any(|field| field.reads_body(request))
    }
}
