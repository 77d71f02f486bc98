//! Requests: the paths of each method at a host, and what is called there.
//!
//! A part of a path that is a number, a UUID or a long hexadecimal number names one of
//! many things of a kind, and becomes a star. Queries and bodies are not learned, but
//! for the calls of gRPC, GraphQL and MCP.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::{EXAMPLE, Seen, Sight, What, pattern, quoted, texts};
use crate::replay::Entry;

/// What one rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    host: String,
    method: String,
    call: Call,
}

/// What is called beyond method and path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Plain,
    WebSocket,
    Grpc {
        service: String,
    },
    /// A query, a mutation or a subscription.
    Graphql {
        operation: String,
    },
    /// A call of tools, or other messages.
    Mcp {
        tools: bool,
    },
}

/// Reads a command; `None` where it cannot be learned from.
pub(super) fn sight(entry: &Entry) -> Option<Sight> {
    let meta = &entry.meta;
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let odd = ["host_mismatch", "unreadable"];
    if odd.iter().any(|name| meta.get(name).is_some()) {
        return None;
    }
    let (host, method, path) = (
        text(meta, "host")?,
        text(meta, "method")?,
        text(meta, "path")?,
    );
    let mut names = vec![("path", BTreeSet::from([shape(&path)]))];
    let call = if let Some(call) = meta.get("grpc") {
        names.push(("grpc", BTreeSet::from([text(call, "method")?])));
        let service = text(call, "service")?;
        Call::Grpc { service }
    } else if let Some(operation) = only(meta, "graphql")? {
        names.push(("fields", texts(operation, "fields")));
        let operation = text(operation, "kind")?;
        Call::Graphql { operation }
    } else if let Some(message) = only(meta, "mcp")? {
        names.push(("mcp", BTreeSet::from([text(message, "method")?])));
        let tools = texts(message, "tool");
        let call = Call::Mcp {
            tools: !tools.is_empty(),
        };
        names.push(("tool", tools));
        call
    } else if meta.get("websocket").is_some() {
        Call::WebSocket
    } else {
        Call::Plain
    };
    let url = text(meta, "url").filter(|url| url.len() <= EXAMPLE && call == Call::Plain);
    let example = url.map(|url| {
        let (method, url) = (quoted(&method), quoted(&url));
        format!("http: {{ method: {method}, url: {url} }}")
    });
    Some(Sight {
        what: What::Requests(Kind { host, method, call }),
        names,
        example,
    })
}

/// The one member of a list; `None` where there are several, which no rule is
/// learned from.
fn only<'a>(meta: &'a Value, name: &str) -> Option<Option<&'a Value>> {
    match meta.get(name).and_then(Value::as_array).map(Vec::as_slice) {
        None | Some([]) => Some(None),
        Some([one]) => Some(Some(one)),
        Some(_) => None,
    }
}

/// A path's glob.
fn shape(path: &str) -> String {
    let parts = path.split('/').map(|part| {
        if names_one_of_many(part) {
            return "*".to_owned();
        }
        let escaped = pattern(part);
        // Without the quotes around it; the whole gets its own.
        serde_json::from_str(&escaped).unwrap_or_default()
    });
    parts.collect::<Vec<String>>().join("/")
}

fn names_one_of_many(part: &str) -> bool {
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let hex = part
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    digits || (hex && part.len() >= 16 && part.bytes().any(|byte| byte.is_ascii_digit()))
}

impl Kind {
    pub(super) fn name(&self) -> String {
        let call = match &self.call {
            Call::Plain => String::new(),
            Call::WebSocket => "-websocket".to_owned(),
            Call::Grpc { service } => format!("-{service}"),
            Call::Graphql { operation } => format!("-{operation}"),
            Call::Mcp { tools: true } => "-tools".to_owned(),
            Call::Mcp { tools: false } => "-mcp".to_owned(),
        };
        format!("{}-{}{call}", self.host, self.method)
    }

    pub(super) fn matching(&self, seen: &Seen, out: &mut String) {
        out.push_str("      http:\n");
        let _ = writeln!(out, "        host: {}", pattern(&self.host));
        let _ = writeln!(out, "        method: {}", quoted(&self.method));
        let _ = writeln!(out, "        path: {}", seen.list("path", quoted));
        let _ = match &self.call {
            Call::Plain => Ok(()),
            Call::WebSocket => writeln!(out, "        websocket: true"),
            Call::Grpc { service } => writeln!(
                out,
                "        grpc: {{ service: {}, method: {} }}",
                pattern(service),
                seen.list("grpc", pattern)
            ),
            Call::Graphql { operation } => writeln!(
                out,
                "        graphql: {{ operation: {operation}, fields: {} }}",
                seen.list("fields", pattern)
            ),
            Call::Mcp { tools } => {
                let method = seen.list("mcp", pattern);
                let tool = if *tools {
                    format!(", tool: {}", seen.list("tool", pattern))
                } else {
                    String::new()
                };
                writeln!(out, "        mcp: {{ method: {method}{tool} }}")
            }
        };
    }
}
