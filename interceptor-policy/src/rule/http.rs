//! The `http` fields of a match.

use super::reader::{Reader, shown};
use super::yaml::{Key, Node, Value};
use crate::matcher::Matcher;
use crate::matcher::http::body::{BodyMatch, Leaf};
use crate::matcher::http::calls::{GraphQlMatch, GrpcMatch, McpMatch};
use crate::matcher::http::{Asks, HttpField, HttpMatch, Status};
use crate::matcher::pointer::Pointer;
use crate::matcher::session::Number;
use crate::matcher::text::{Stars, Text};

const HTTP: &[&str] = &[
    "method",
    "host",
    "path",
    "query",
    "header",
    "content_type",
    "body",
    "size",
    "status",
    "response_header",
    "grpc",
    "graphql",
    "mcp",
    "websocket",
    "host_mismatch",
];
const GRPC: &[&str] = &["service", "method"];
const GRAPHQL: &[&str] = &["operation", "fields"];
const MCP: &[&str] = &["method", "tool", "arguments"];
/// Longest name of a header or of the query.
const NAME_LIMIT: usize = 256;

impl<'a> Reader<'a> {
    pub(super) fn http(&mut self, node: &'a Node) -> Option<HttpMatch> {
        let mut fields = Vec::new();
        let mut whole = true;
        for (key, value) in self.mapping(node, "`http`")? {
            whole &= self.http_field(key, value, &mut fields).is_some();
        }
        whole.then(|| HttpMatch::new(fields))
    }

    fn http_field(
        &mut self,
        key: &'a Key,
        node: &'a Node,
        into: &mut Vec<HttpField>,
    ) -> Option<()> {
        let asks = match key.text.as_str() {
            "method" => Asks::Method(self.method(node)?),
            "host" => Asks::Host(self.host(node)?),
            "path" => Asks::Path(self.path(node)?),
            "content_type" => Asks::ContentType(self.media_type(node)?),
            "size" => Asks::Size(self.numbers(node, "`size`", u64::MAX >> 1)?),
            "status" => Asks::Status(self.status(node)?),
            "websocket" => Asks::Websocket(self.boolean(node, "`websocket`")?),
            "host_mismatch" => Asks::HostMismatch(self.boolean(node, "`host_mismatch`")?),
            "body" => Asks::Body(self.pointers(node, "`body`")?),
            "grpc" => Asks::Grpc(self.grpc(node)?),
            "graphql" => Asks::GraphQl(self.graphql(node)?),
            "mcp" => Asks::Mcp(self.mcp(node)?),
            word @ ("query" | "header" | "response_header") => {
                let entries = self.mapping(node, &format!("`{word}`"))?;
                if entries.is_empty() {
                    self.error(node.at, format!("`{word}` names none"));
                    return None;
                }
                let mut whole = true;
                for (name, value) in entries {
                    whole &= self.named(word, &name.text, name, value, into).is_some();
                }
                return whole.then_some(());
            }
            dotted => {
                return match dotted.split_once('.') {
                    Some((word @ ("query" | "header" | "response_header"), name)) => {
                        self.named(word, name, key, node, into)
                    }
                    _ => {
                        self.unknown(key, "`http`", HTTP);
                        None
                    }
                };
            }
        };
        into.push(HttpField {
            name: format!("http.{}", key.text),
            shown: shown(node),
            asks,
        });
        Some(())
    }

    /// One header, or one name of the query.
    fn named(
        &mut self,
        word: &str,
        name: &str,
        key: &'a Key,
        node: &'a Node,
        into: &mut Vec<HttpField>,
    ) -> Option<()> {
        let text = self.texts(node, &format!("`{word}.{name}`"), Stars::Free)?;
        let asks = if word == "query" {
            if name.is_empty() || name.len() > NAME_LIMIT {
                self.error(key.at, "no name that a query could have");
                return None;
            }
            Asks::Query(name.into(), text)
        } else {
            let name = self.header_name(key, name)?;
            match word {
                "header" => Asks::Header(name, text),
                _ => Asks::ResponseHeader(name, text),
            }
        };
        into.push(HttpField {
            name: format!("http.{word}.{name}"),
            shown: shown(node),
            asks,
        });
        Some(())
    }

    /// A header's name, in lower case.
    fn header_name(&mut self, key: &Key, name: &str) -> Option<Box<str>> {
        if !is_header_name(name) {
            self.error(key.at, format!("`{name}` is no name of a header"));
            return None;
        }
        Some(name.to_ascii_lowercase().into())
    }

    fn method(&mut self, node: &'a Node) -> Option<Matcher<Text>> {
        let methods = self.texts(node, "`method`", Stars::Free)?;
        let mut small = None;
        methods.plain_leaves(&mut |leaf| {
            let text = leaf.exact_text();
            if let Some(text) = text.filter(|text| text.chars().any(|c| c.is_ascii_lowercase())) {
                small.get_or_insert_with(|| text.to_ascii_uppercase());
            }
        });
        if let Some(capitals) = small {
            self.report.warning(
                node.at,
                "methods tell case apart, and are sent in capitals",
                Some(format!("write `{capitals}`")),
            );
        }
        Some(methods)
    }

    fn host(&mut self, node: &'a Node) -> Option<Matcher<Text>> {
        let hosts = self.texts(node, "`host`", Stars::Free)?;
        self.warn_where(node, &hosts, "a host has no scheme, port or path", |text| {
            let address = text.starts_with('[') || text.matches(':').count() > 1;
            text.contains('/') || (text.contains(':') && !address)
        });
        Some(hosts)
    }

    fn path(&mut self, node: &'a Node) -> Option<Matcher<Text>> {
        let paths = self.texts(node, "`path`", Stars::Path)?;
        self.warn_where(node, &paths, "a path begins with `/`", |text| {
            !text.starts_with('/')
        });
        Some(paths)
    }

    fn media_type(&mut self, node: &'a Node) -> Option<Matcher<Text>> {
        let types = self.texts(node, "`content_type`", Stars::Free)?;
        let message = "`content_type` is a media type without parameters, as application/json";
        self.warn_where(node, &types, message, |text| {
            text.contains(';') || !text.contains('/')
        });
        Some(types)
    }

    /// Warns of a plain text that nothing can be.
    fn warn_where(
        &mut self,
        node: &'a Node,
        of: &Matcher<Text>,
        message: &str,
        never: impl Fn(&str) -> bool,
    ) {
        let mut found = None;
        of.plain_leaves(&mut |leaf| {
            if let Some(text) = leaf.exact_text().filter(|text| never(text)) {
                found.get_or_insert_with(|| text.to_owned());
            }
        });
        if let Some(text) = found {
            self.report
                .warning(node.at, format!("`{text}` can never hold: {message}"), None);
        }
    }

    fn status(&mut self, node: &'a Node) -> Option<Matcher<Status>> {
        self.matcher(node, "`status`", &mut |reader, node| {
            let of = |reader: &mut Self, node: &'a Node| {
                let status = reader.number(node, "`status`", 599)?;
                u16::try_from(status).ok()
            };
            match &node.value {
                Value::Map(entries) => {
                    let (key, value) = entries.first()?;
                    if key.text != "over" {
                        reader.unknown(key, "`status`", &["over", "not", "any", "all"]);
                        return None;
                    }
                    of(reader, value).map(Status::Over)
                }
                Value::Text(text) => {
                    let class = text.strip_suffix("xx").and_then(|class| class.parse().ok());
                    let class = class.filter(|class| (1..=5).contains(class));
                    if class.is_none() {
                        reader.report.error(
                            node.at,
                            format!("`{text}` is no status"),
                            Some("write it as in 404, 4xx or { over: 399 }".to_owned()),
                        );
                    }
                    class.map(Status::Class)
                }
                _ => {
                    let status = of(reader, node)?;
                    if status < 100 {
                        reader.error(node.at, "a status is between 100 and 599");
                        return None;
                    }
                    Some(Status::Is(status))
                }
            }
        })
    }

    fn grpc(&mut self, node: &'a Node) -> Option<GrpcMatch> {
        let mut read = GrpcMatch::default();
        for (key, value) in self.mapping(node, "`grpc`")? {
            match key.text.as_str() {
                "service" => read.service = Some(self.texts(value, "`service`", Stars::Free)?),
                "method" => read.method = Some(self.texts(value, "`method`", Stars::Free)?),
                _ => {
                    self.unknown(key, "`grpc`", GRPC);
                    return None;
                }
            }
        }
        Some(read)
    }

    fn graphql(&mut self, node: &'a Node) -> Option<GraphQlMatch> {
        let mut read = GraphQlMatch::default();
        for (key, value) in self.mapping(node, "`graphql`")? {
            match key.text.as_str() {
                "operation" => {
                    read.operation = Some(self.texts(value, "`operation`", Stars::Free)?);
                }
                "fields" => {
                    // Of each field by itself, and so not as other texts.
                    let fields = self.matcher(value, "`fields`", &mut |reader, node| {
                        reader.text_leaf(node, "`fields`", Stars::Free)
                    });
                    read.fields = Some(fields?);
                }
                _ => {
                    self.unknown(key, "`graphql`", GRAPHQL);
                    return None;
                }
            }
        }
        Some(read)
    }

    fn mcp(&mut self, node: &'a Node) -> Option<McpMatch> {
        let mut read = McpMatch::default();
        for (key, value) in self.mapping(node, "`mcp`")? {
            match key.text.as_str() {
                "method" => read.method = Some(self.texts(value, "`method`", Stars::Free)?),
                "tool" => read.tool = Some(self.texts(value, "`tool`", Stars::Free)?),
                "arguments" => read.arguments = Some(self.pointers(value, "`arguments`")?),
                _ => {
                    self.unknown(key, "`mcp`", MCP);
                    return None;
                }
            }
        }
        Some(read)
    }

    /// JSON pointers, each with what has to be there.
    fn pointers(&mut self, node: &'a Node, what: &str) -> Option<BodyMatch> {
        let entries = self.mapping(node, what)?;
        if entries.is_empty() {
            self.report.error(
                node.at,
                format!("{what} points at nothing"),
                Some("as in { \"/customer/id\": \"42\" }".to_owned()),
            );
            return None;
        }
        let mut parts = Vec::new();
        let mut whole = true;
        for (key, value) in entries {
            let pointer = self.pointer(key.at, &key.text);
            let matcher = self.matcher(value, what, &mut |reader, node| {
                reader.json_leaf(node, what)
            });
            match (pointer, matcher) {
                (Some(pointer), Some(matcher)) => parts.push((pointer, matcher)),
                _ => whole = false,
            }
        }
        whole.then_some(BodyMatch { parts })
    }

    /// A JSON pointer; also read for masks.
    pub(super) fn pointer(&mut self, at: crate::diagnostic::At, text: &str) -> Option<Pointer> {
        match Pointer::new(text) {
            Ok(pointer) => Some(pointer),
            Err(fault) => {
                self.error(at, format!("`{text}` is no JSON pointer: {fault}"));
                None
            }
        }
    }

    fn json_leaf(&mut self, node: &'a Node, what: &str) -> Option<Leaf> {
        match &node.value {
            Value::Null => Some(Leaf::Null),
            Value::Bool(is) => Some(Leaf::Bool(*is)),
            Value::Int(_) => {
                let number = self.number(node, what, u64::MAX >> 1)?;
                Some(Leaf::Number(Number::Is(number)))
            }
            Value::Map(entries) if entries.first().is_some_and(|(key, _)| key.text == "over") => {
                let (_, value) = entries.first()?;
                let number = self.number(value, "`over`", u64::MAX >> 1)?;
                Some(Leaf::Number(Number::Over(number)))
            }
            _ => self.text_leaf(node, what, Stars::Free).map(Leaf::Text),
        }
    }
}

/// Whether it is a token (RFC 9110, section 5.6.2).
pub(super) fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= NAME_LIMIT && name.bytes().all(token)
}
