//! What an HTTP exchange asks to do and what was answered, as rules see it.
//!
//! Where two readers of the same bytes may disagree (a path that a server
//! normalises and another does not, a key that a JSON object has twice), every
//! reading is here, and the matcher takes the worse one: a rule that makes
//! things stricter holds where any reading matches, one that makes them milder
//! only where all do.

use std::sync::Arc;

/// A moment of an exchange that rules are asked about.
#[derive(Clone, Copy, Debug)]
pub struct HttpOperation<'a> {
    /// The request.
    pub request: &'a HttpRequest,
    /// The response's head, once it is there.
    pub response: Option<&'a HttpResponse>,
    /// One message of the WebSocket that the request opened.
    pub message: Option<&'a WebSocketMessage>,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct HttpRequest {
    /// As it was sent: methods are case-sensitive (RFC 9110, section 9.1).
    pub method: Arc<str>,
    /// The authority's host, lower case, without port and final dot.
    pub host: Arc<str>,
    /// Whether the name that TLS was opened for, the authority and the address
    /// that the agent connected to belong together.
    pub host_mismatch: bool,
    /// The path, without the query: normalised first, then every other way in
    /// which a server may read it. Never empty.
    pub paths: Vec<Arc<str>>,
    /// Names and values of the query, decoded, in order, repeated ones included.
    pub query: Vec<(Arc<str>, Arc<str>)>,
    /// Names in lower case with their values, in order, repeated ones included.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// The media type, lower case, without parameters.
    pub content_type: Option<Arc<str>>,
    /// Bytes of the body as they are sent, where known.
    pub size: Option<u64>,
    /// What the body says.
    pub body: HttpBody,
    /// The call, where it is one of gRPC.
    pub grpc: Option<GrpcCall>,
    /// The operations, where it is a request of GraphQL; several where the
    /// document has several and none is chosen.
    pub graphql: Vec<GraphQlOperation>,
    /// The messages, where it is a request of the Model Context Protocol.
    pub mcp: Vec<McpMessage>,
    /// Whether it asks for a WebSocket.
    pub websocket: bool,
}

/// The body of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum HttpBody {
    /// There is none.
    #[default]
    Absent,
    /// It has not been read: nobody asked for it, or it is still to come.
    Unread,
    /// It cannot be read: too long, damaged, or in a form that is not known. A
    /// rule that asks for it cannot be evaluated, and so counts as `block`.
    Unreadable(&'static str),
    /// JSON documents: one, or the lines of NDJSON.
    Json(Vec<Json>),
    /// Fields of a form, decoded: names and values, repeated ones included.
    Form(Vec<(Arc<str>, Arc<str>)>),
    /// Other bytes, decoded from their content coding.
    Bytes(Arc<[u8]>),
}

/// JSON with everything that a text can say, keys that are there twice included.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number, as it was written.
    Number(Box<str>),
    /// A string, decoded.
    Text(Box<str>),
    /// An array.
    List(Vec<Json>),
    /// An object, in the order of its text.
    Object(Vec<(Box<str>, Json)>),
}

/// A gRPC call: `POST /{service}/{method}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcCall {
    /// With its package: `helloworld.Greeter`.
    pub service: Arc<str>,
    /// `SayHello`
    pub method: Arc<str>,
}

/// One operation of a GraphQL document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphQlOperation {
    /// `query`, `mutation` or `subscription`.
    pub kind: Arc<str>,
    /// Its name, where it has one.
    pub name: Option<Arc<str>>,
    /// The fields that it asks for, fragments followed, with dots between
    /// levels: `user`, `user.email`.
    pub fields: Vec<Arc<str>>,
}

/// One JSON-RPC message of the Model Context Protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct McpMessage {
    /// `tools/call`; empty for a response.
    pub method: Arc<str>,
    /// The tool, for `tools/call`; every reading where the key is there twice.
    pub tool: Vec<Arc<str>>,
    /// Its arguments.
    pub arguments: Json,
}

/// A response's head.
#[derive(Clone, Debug, Default)]
pub struct HttpResponse {
    /// 200
    pub status: u16,
    /// Names in lower case with their values, in order, repeated ones included.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// The media type, lower case, without parameters.
    pub content_type: Option<Arc<str>>,
    /// Bytes of the body as they are sent, where known.
    pub size: Option<u64>,
}

/// A message of a WebSocket, put together from its frames and inflated.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocketMessage {
    /// Whether the agent sent it.
    pub from_agent: bool,
    /// What it says, where it is JSON; otherwise its bytes.
    pub body: HttpBody,
}
